"""A Rust future belongs to the loop that it was made on, and the loop to its thread."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from support.scenes import settled, turns


def test_no_loop_is_an_error(probe: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        probe.ready(1)


def test_another_loop_is_refused_by_name(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def make() -> Any:
        return probe.gated()[0]

    async def use(awaitable: Any) -> None:
        await awaitable

    home = factory()
    awaitable = home.run_until_complete(make())

    def elsewhere() -> BaseException:
        other = factory()
        try:
            return other.run_until_complete(settled(other.create_task(use(awaitable))))
        finally:
            other.close()

    outcomes: list[Any] = []
    thread = threading.Thread(target=lambda: outcomes.append(elsewhere()), name="the-other")
    thread.start()
    thread.join()
    assert type(outcomes[0]) is RuntimeError
    for part in ("this Rust future belongs to", "MainThread", "cannot be used on", "the-other"):
        assert part in str(outcomes[0])
    # On the same thread too.
    error = elsewhere()
    assert type(error) is RuntimeError
    said = re.fullmatch("this Rust future belongs to (.+) and cannot be used on (.+)", str(error))
    assert said is not None
    assert said[1] != said[2]
    assert all("(thread MainThread)" in name for name in said.groups())
    home.close()


def test_a_loop_that_moves_to_another_thread_says_what_cannot_move(
    probe: ModuleType, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """On a lane of the same library it refuses to run; any other loop reports it at the wake-up."""
    loop = factory()
    reports: list[str] = []

    async def suspend() -> tuple[asyncio.Task[Any], Any]:
        awaitable, gate = probe.gated()
        task = asyncio.ensure_future(awaitable)
        await turns()
        return task, gate

    def on_another_thread(use: Callable[[], object]) -> None:
        def thread() -> None:
            try:
                use()
            except RuntimeError as error:
                reports.append(str(error))

        other = threading.Thread(target=thread, name="the-other")
        other.start()
        other.join()

    async def complete() -> None:
        reported = asyncio.Event()

        def report(_: object, context: dict[str, Any]) -> None:
            reports.append(str(context["exception"]))
            reported.set()

        loop.set_exception_handler(report)
        gate.open(1)
        await reported.wait()

    task, gate = loop.run_until_complete(suspend())
    running = complete()
    on_another_thread(lambda: loop.run_until_complete(running))
    (said,) = reports
    for part in (
        "1 Rust future(s) are suspended on",
        "MainThread",
        "cannot run on thread the-other",
    ):
        assert part in said
    # On its own thread all goes on, and then it may move.
    if "on lane" in said:
        gate.open(1)
    else:
        task.cancel()  # the wake-up came to nothing
    left = asyncio.all_tasks(loop) | {task}
    loop.run_until_complete(asyncio.wait(left, timeout=10))
    assert task.cancelled() or task.result() == 1
    on_another_thread(lambda: loop.run_until_complete(turns()))
    assert reports == [said]
    loop.close()
