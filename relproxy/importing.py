"""`relproxy import`: what a registry had before relproxy, recorded as imported.

An imported record is worth less than a captured one: the store lets it give way, whichever was told
first. Whose an image is, is said by the registry, or by a list where the registry has no owners;
where nobody says it, nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from relproxy.model import ImageRecord, Tenancy
from relproxy.walk_file import Finding, WalkFile
from relproxy.walking import (
    Listed,
    Outcome,
    Progress,
    Remembered,
    WalkParts,
    recorded,
    remembered,
    walk_registry,
)

# What a person has to look at, each with a line of its own.
FOR_A_PERSON = (
    *(Outcome.NO_OWNER, Outcome.OTHER_OWNER, Outcome.DELETED),
    *(Outcome.UNFIT, Outcome.UNREADABLE),
)


class Import:
    """Imports one registry."""

    def __init__(self, parts: WalkParts, file: WalkFile, progress: Progress) -> None:
        self._parts = parts
        self._file = file
        self._progress = progress

    async def run(self) -> None:
        """Import what is left of it. Raises a `RelproxyError`, and can then be run again."""
        await walk_registry(self._parts, self._file, self._judge, self._progress)

    async def _judge(self, images: Sequence[Listed], asked_at: datetime) -> list[Finding]:
        known = await remembered(self._parts, [image.id for image in images])
        owners = self._owners(images)
        return [
            self._finding(image, owners.get(image.id), known, asked_at=asked_at) for image in images
        ]

    def _owners(self, images: Sequence[Listed]) -> dict[str, str]:
        if self._parts.registry.tenancy is Tenancy.REGISTRY:
            return {image.id: image.owner for image in images if image.owner is not None}
        return dict(self._file.owners([image.id for image in images]))

    def _finding(
        self, image: Listed, owner: str | None, known: Remembered, *, asked_at: datetime
    ) -> Finding:
        record = known.record_of(image)
        if record is not None:
            return self._known(image, owner, record, asked_at=asked_at)
        if image.id in known.pending:
            return _found(image, Outcome.PENDING)
        if owner is None:
            return _found(image, Outcome.PUBLIC if image.is_public else Outcome.NO_OWNER)
        return recorded(Outcome.RECORDED, image, self._parts.registry.name, owner, asked_at)

    def _known(
        self, image: Listed, owner: str | None, record: ImageRecord, *, asked_at: datetime
    ) -> Finding:
        if record.deleted_at is not None:
            return _found(image, Outcome.DELETED, "the registry has it, and it was deleted")
        if owner not in (None, record.project):
            detail = f"project {record.project} by record, {owner} here"
            return _found(image, Outcome.OTHER_OWNER, detail)
        if image.capture is None or not record.is_imported or record.capture is not None:
            return _found(image, Outcome.KNOWN)
        # Walked before, when nobody knew the installation.
        name = self._parts.registry.name
        return recorded(Outcome.COMPLETED, image, name, record.made_for, asked_at)


def _found(image: Listed, outcome: Outcome, detail: str = "") -> Finding:
    return Finding(image.id, image.created_at, outcome, detail)
