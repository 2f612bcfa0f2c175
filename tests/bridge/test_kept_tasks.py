"""A Task that was looked at, in a step that the lane takes or one of its own, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.tasks import VAR, this_task
from support.types import Connect, Serve

from treadle import App


class OtherFuture(asyncio.Future[None]):
    """A lane leaves whoever waits for one to asyncio."""


async def pause(ready: asyncio.Future[None]) -> None:
    """Waits for something that is there a turn later."""
    asyncio.get_running_loop().call_soon(ready.set_result, None)
    await ready


class Kept:
    """An app whose `/` runs `act` in a handler, and the Tasks that were looked at there."""

    def __init__(self, serve: Serve, raw: Connect) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.act: Callable[[], Any] = lambda: None
        self.moment = "first step"
        app = App()

        @app.get("/")
        async def handler() -> Any:
            if self.moment != "first step":
                await asyncio.sleep(0)
            if self.moment == "waited":
                await pause(asyncio.get_running_loop().create_future())
                await asyncio.sleep(0)
            elif self.moment == "left to asyncio":
                await pause(OtherFuture())
                await asyncio.sleep(0)
            return self.act()

        @app.get("/plain")
        async def plain() -> int:
            return len(asyncio.all_tasks())

        self.connection = raw(serve(app))

    def keep(self) -> asyncio.Task[Any]:
        self.tasks.append(this_task())
        return self.tasks[-1]

    def ask(self, act: Callable[[], Any], path: str = "/") -> int:
        self.act = act
        status: int = self.connection.get(path).status
        return status


@pytest.fixture(params=["first step", "gave way", "waited", "left to asyncio"])
def kept(serve: Serve, raw: Connect, request: Any) -> Kept:
    kept = Kept(serve, raw)
    kept.moment = request.param
    return kept


def test_a_task_that_was_kept_has_the_outcome_of_its_handler(kept: Kept) -> None:
    assert kept.ask(lambda: len(str(kept.keep()))) == 200
    (task,) = kept.tasks
    assert task.done()
    assert not task.cancelled()
    assert isinstance(task.result(), int)
    assert task.exception() is None


def test_a_task_that_was_kept_without_a_look_has_it_too(kept: Kept) -> None:
    assert kept.ask(lambda: kept.tasks.append(asyncio.current_task())) == 204  # type: ignore[arg-type]
    assert kept.tasks[0].done()
    assert kept.tasks[0].result() is None


def test_a_task_that_was_kept_has_the_exception_of_its_handler(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    error = ValueError("of the handler")

    def act() -> None:
        kept.keep()
        raise error

    assert kept.ask(act) == 500
    (task,) = kept.tasks
    assert task.done()
    assert task.exception() is error
    assert kept.ask(lambda: None) == 204
    del task
    kept.tasks.clear()
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_failure_is_reported_once_and_not_as_never_retrieved(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    def act() -> None:
        raise ValueError("of the handler")

    assert [kept.ask(act) for _ in range(3)] == [500] * 3
    assert kept.ask(lambda: None) == 204
    gc.collect()
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 3
    assert "never retrieved" not in caplog.text
    assert "was destroyed" not in caplog.text


def test_a_task_whose_cancellation_came_too_late_to_be_thrown_is_cancelled(kept: Kept) -> None:
    # asyncio forgets what a coroutine returned then: once the Task takes its steps itself, only
    # that it was cancelled is left.
    expected = 500 if kept.moment == "left to asyncio" else 200
    assert kept.ask(lambda: kept.keep().cancel("late")) == expected
    (task,) = kept.tasks
    assert task.cancelled()
    assert task.cancelling() == 1


def test_a_handler_that_raises_after_its_cancellation_keeps_its_exception(kept: Kept) -> None:
    def act() -> None:
        kept.keep().cancel()
        raise KeyError("raised")

    assert kept.ask(act) == 500
    assert isinstance(kept.tasks[0].exception(), KeyError)


def test_a_handler_that_raises_cancelled_ends_cancelled(kept: Kept) -> None:
    def act() -> None:
        kept.keep()
        raise asyncio.CancelledError("own")

    assert kept.ask(act) == 500
    assert kept.tasks[0].cancelled()


def test_done_callbacks_are_called_once_in_the_context_they_were_added_in(kept: Kept) -> None:
    called: list[object] = []
    ended = threading.Event()

    def done(task: asyncio.Task[Any]) -> None:
        called.append((task.done(), VAR.get()))
        ended.set()

    def act() -> None:
        VAR.set("of the handler")
        this_task().add_done_callback(done)

    assert kept.ask(act) == 204
    assert ended.wait(10)
    assert kept.ask(lambda: None) == 204
    assert called == [(True, "of the handler")]


def test_weak_references_end_with_the_request(kept: Kept) -> None:
    refs: list[weakref.ref[Any]] = []
    ended: list[object] = []
    for _ in range(3):
        act = lambda: refs.append(weakref.ref(this_task(), ended.append))  # noqa: E731
        assert kept.ask(act) == 204
        assert kept.ask(lambda: None) == 204
    assert [ref() for ref in refs] == [None] * 3
    assert len(ended) == 3


@pytest.mark.parametrize(
    "leave",
    [
        lambda task: task.cancel(),
        lambda task: task.set_name("mine"),
        lambda task: setattr(task, "mine", True),
        lambda task: task.get_name(),
        lambda task: task.add_done_callback(id),
        lambda task: asyncio.gather(task, return_exceptions=True),
        lambda task: repr(task),
        lambda task: weakref.ref(task),
    ],
)
def test_what_one_request_did_to_its_task_is_not_seen_by_the_next(
    kept: Kept, leave: Callable[[Any], Any]
) -> None:
    names: list[str] = []

    def look() -> list[object]:
        task: Any = this_task()
        names.append(task.get_name())
        return [hasattr(task, "mine"), task.cancelling(), task._must_cancel, task.cancelled()]

    for _ in range(2):
        kept.ask(lambda: leave(this_task()) and None)
        kept.act = look
        assert kept.connection.get().body == b"[false,0,false,false]"
    assert len(set(names)) == 2
    assert all(name.startswith("Task-") for name in names)


def test_tasks_that_ended_are_not_among_all_tasks(kept: Kept) -> None:
    before = kept.connection.get("/plain").body
    for _ in range(5):
        assert kept.ask(lambda: kept.keep() and None) == 204
        assert kept.ask(lambda: None) == 204
    assert kept.connection.get("/plain").body == before


def test_a_handler_can_await_itself_from_another_task(serve: Serve, raw: Connect) -> None:
    app = App()
    results: list[Any] = []
    heard = threading.Event()

    @app.get("/{suspend:int}")
    async def handler(suspend: int) -> str:
        task = this_task()

        async def listen() -> None:
            results.append(await task)
            heard.set()

        results.append(asyncio.get_running_loop().create_task(listen()))
        if suspend:
            await asyncio.sleep(0)
        return "heard"

    connection = raw(serve(app))
    for suspend in (0, 1):
        assert connection.get(f"/{suspend}").body == b"heard"
        assert heard.wait(10)
        heard.clear()
        assert results[-1] == "heard"
