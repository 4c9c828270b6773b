"""The program, running for one test in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from callers import Web, web_on


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Web]:
    async with web_on(tmp_path / "store") as web:
        yield web


@pytest.fixture
async def code(web: Web) -> str:
    """The code of a room."""
    return await web.room()
