from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from lab.browser import Tab, browsing
from tests.integration.conftest import noauth, second_wall, serve, trusting

__all__ = ["noauth", "second_wall", "serve", "tab", "trusting"]


@pytest.fixture
async def tab(tmp_path: Path) -> AsyncIterator[Tab]:
    """The one page of a browser; that nothing went wrong in it is part of every test."""
    async with browsing(tmp_path / "browser") as opened:
        await opened.size(1280, 900)
        yield opened
        assert opened.problems == []
