"""Looking into the lanes of a server that runs in the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from treadle import FREE_THREADED
from treadle.testing import LiveServer

LANES = [1, 2] if FREE_THREADED else [1]
"""How many lanes to test with."""

several_lanes = pytest.mark.skipif(not FREE_THREADED, reason="with the GIL there is one lane")

DEADLINE = 10.0
"""Seconds a lane may take to answer before the test fails."""


def on_lane(server: LiveServer, index: int, coroutine: Coroutine[Any, Any, Any]) -> Any:
    """What `coroutine` gives on the loop of a lane."""
    loop = server.server._lanes[index]._loop
    assert loop is not None
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(DEADLINE)


def connections(server: LiveServer) -> list[int]:
    """How many connections each lane has."""

    async def look(index: int) -> int:
        return server.server._lanes[index].native.connections

    return [on_lane(server, index, look(index)) for index in range(server.options.lanes)]


def wait_connections(server: LiveServer, count: int, lane: int = 0) -> None:
    """Waits until a lane has `count` connections."""

    async def look() -> None:
        while server.server._lanes[lane].native.connections != count:  # noqa: ASYNC110
            await asyncio.sleep(0)

    on_lane(server, lane, look())
