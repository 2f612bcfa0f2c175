"""Fixtures of the event loop's tests: each runs on ours and on asyncio's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from support.loops import FACTORIES, LoopFactory, OwnThread, Run


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> LoopFactory:
    """Makes a loop: ours, then asyncio's."""
    return FACTORIES[request.param]


@pytest.fixture
def on_thread() -> OwnThread:
    """`on_thread(function)` is what it gives on a thread of its own."""
    return OwnThread()


@pytest.fixture
def run(factory: LoopFactory, on_thread: OwnThread) -> Run:
    """`run(main)` is what `await main()` gives, on a new loop of a new thread."""

    def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        def thread() -> Any:
            with asyncio.Runner(loop_factory=factory) as runner:
                return runner.run(main())

        return on_thread(thread)

    return run
