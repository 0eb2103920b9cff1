"""Entries of a journal for tests to start from."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from relproxy.store.base import EntryKind, EntryState
from relproxy.store.journal_row import Row

CREATED_AT = "2030-01-01T00:00:00Z"


def doubtful(image_id: str | None, **fields: Any) -> Row:
    """Return a create of alice's in doubt, whose id relproxy has assigned."""
    row = Row(
        id=str(uuid.uuid4()),
        kind=EntryKind.CREATE,
        state=EntryState.IN_DOUBT,
        registry="glance",
        image_id=image_id,
        is_assigned=True,
        image_name=None,
        created_at=None,
        project="alice",
        capture=None,
        begun_at=datetime.now(UTC),
        reason="cut off",
    )
    return replace(row, **fields)


def completed(image_id: str, **fields: Any) -> Row:
    """Return a create of alice's that is to be delivered."""
    at = datetime.now(UTC)
    known = {"state": EntryState.COMPLETED, "created_at": CREATED_AT, "at": at, "reason": None}
    return doubtful(image_id, **(known | fields))
