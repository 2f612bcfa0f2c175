"""A user's folder for stats sockets of the test's own, and statistics without a server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the stats sockets of this test's servers are; short, as a socket's path has to be."""
    with tempfile.TemporaryDirectory(prefix="treadle-test-", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        yield Path(runtime) / "treadle"
