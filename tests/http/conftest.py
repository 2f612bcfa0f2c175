"""Fixtures of the byte-level tests: an app that echoes, places where handlers stop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.echo import Echo
from support.hold import hold

__all__ = ["echo", "hold", "shared_echo"]


@pytest.fixture(scope="module")
def shared_echo() -> Iterator[Echo]:
    """One echoing server for the whole file."""
    with Echo() as echo:
        yield echo


@pytest.fixture
def echo(shared_echo: Echo) -> Echo:
    """The file's echoing server, which has seen nothing yet as far as this test is concerned."""
    shared_echo.seen.clear()
    return shared_echo
