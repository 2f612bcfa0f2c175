"""The probe, and the event loops it is used on."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any

import pytest
from support.hold import hold

import treadle
from profiling.extensions import BUILDING, load

__all__ = ["hold"]

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "lane": treadle.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "probe" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(BUILDING))


@pytest.fixture
def probe() -> Iterator[ModuleType]:
    """The probe; fails when a test leaves a Rust future behind."""
    loaded = load("probe")
    before = loaded.alive()
    yield loaded
    gc.collect()
    assert loaded.alive() <= before


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes event loops: Treadle's, and asyncio's own."""
    return FACTORIES[request.param]


@pytest.fixture
def run(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """`run(coroutine)` on a new loop of each kind, with a deadline."""

    def on_new_loop(coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(20):
                return await coroutine

        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(bounded())

    return on_new_loop
