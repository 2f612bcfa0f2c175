"""Fixtures for every test: a served app, a raw connection, a command line, a gate."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import needs_gil as extension
from support.cli import RunCli
from support.gate import Gate
from support.raw import DEADLINE, Raw
from support.types import Connect, Serve

from treadle import App
from treadle.testing import LiveServer

# Many tests hold a lane up on purpose, and a busy machine does it by itself: what is logged then is
# asked for by the tests of the stall watch alone. This is for the servers of other processes: a
# `LiveServer` reads no environment and has no stall watch unless told.
os.environ["TREADLE_STALL_WARNING"] = "0"

# A script's background jobs are started with it ignored, and so would be their children.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A shared machine delays now and then; what is broken fails every time."""
    for item in items:
        if item.get_closest_marker("timing"):
            item.add_marker(pytest.mark.flaky(reruns=4))


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(app, **options)` is a running `LiveServer`, stopped when the test ends."""
    with ExitStack() as servers:

        def start(app: App, *, lanes: int = 1, **options: Any) -> LiveServer:
            return servers.enter_context(LiveServer(app, lanes=lanes, **options))

        yield start


@pytest.fixture
def raw() -> Iterator[Connect]:
    """`raw(server)` is a connection that speaks bytes; see `support.raw.Raw`.

    Takes a server, a command or an address.
    """
    with ExitStack() as connections:

        def connect(server: Any, *, timeout: float = DEADLINE) -> Raw:
            address = server if isinstance(server, str | tuple) else server.address
            return connections.enter_context(Raw(address, timeout=timeout))

        yield connect


@pytest.fixture
def run_cli(tmp_path: Path) -> Iterator[RunCli]:
    """`run_cli(source, *args)` is `treadle run` on that app, started; see `support.cli.RunCli`."""
    commands = RunCli(tmp_path)
    try:
        yield commands
    finally:
        commands.close()


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Where the app waits for the test; see `support.gate`."""
    with Gate(DEADLINE) as opened:
        yield opened


@pytest.fixture(scope="session")
def needs_gil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the extension module `needs_gil`, whose import turns the GIL on."""
    folder = tmp_path_factory.mktemp("needs_gil")
    extension.build(folder)
    return folder
