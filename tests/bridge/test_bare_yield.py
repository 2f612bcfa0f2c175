"""Coroutines that give way with a bare `yield`, whose steps the lane takes, beside asyncio's Tasks."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import itertools
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from support.eager import outcome_of_eager_task
from support.tasks import VAR, this_task
from support.types import Connect, Serve

from treadle import App
from treadle.testing import TestClient

Scenario = Callable[[], Coroutine[Any, Any, Any]]
SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


def soon(callback: Callable[..., object], *args: object) -> None:
    asyncio.get_running_loop().call_soon(callback, *args)


async def give_way() -> None:
    await asyncio.sleep(0)


async def wait() -> None:
    ready = asyncio.get_running_loop().create_future()
    soon(ready.set_result, None)
    await ready


@scenario
async def in_turn_with_callbacks() -> object:
    log: list[str] = []
    soon(log.append, "first")
    await give_way()
    log.append("step")
    soon(log.append, "second")
    soon(soon, log.append, "third")
    await give_way()
    log.append("step")
    await give_way()
    return log


@scenario
async def between_waits() -> object:
    log = []
    for pause in (give_way, wait, give_way, give_way, wait, give_way):
        await pause()
        log.append(this_task() is TASK.get())
    return log


TASK: contextvars.ContextVar[asyncio.Task[Any]] = contextvars.ContextVar("TASK")


@scenario
async def cancelled_while_it_gave_way() -> object:
    task = this_task()
    log: list[object] = []
    for _ in range(2):
        soon(task.cancel, "from outside")
        try:
            await give_way()
        except asyncio.CancelledError as error:
            log += [str(error), task.cancelling(), task.uncancel()]
        await give_way()
        log.append("went on")
    return log


@scenario
async def cancelled_and_taken_back() -> object:
    task = this_task()
    soon(task.cancel)
    soon(task.uncancel)
    try:
        await give_way()
    except asyncio.CancelledError:
        return "cancelled"
    return task.cancelling()


@scenario
async def cancelled_by_itself_in_a_later_step() -> object:
    await give_way()
    this_task().cancel("by itself")
    try:
        await give_way()
    except asyncio.CancelledError as error:
        return str(error)
    return None


@scenario
async def seen_while_it_gave_way() -> object:
    task = this_task()
    seen: list[object] = []

    def look() -> None:
        seen.append(asyncio.current_task())
        seen.append(task in asyncio.all_tasks())
        seen.append(task.done())
        seen.append(task.get_coro() is not None)
        seen.append([frame.f_code.co_name for frame in task.get_stack()][-1])
        seen.append("wait_for" in repr(task))

    await give_way()
    soon(look)
    await give_way()
    return seen


@scenario
async def noticed_while_it_gave_way() -> object:
    task = this_task()
    soon(task.set_name, "noticed")
    await give_way()
    soon(setattr, task, "_log_destroy_pending", True)
    await give_way()
    return task.get_name()


@scenario
async def in_its_context() -> object:
    VAR.set("mine")
    seen = []
    for _ in range(3):
        soon(VAR.set, "of a callback")
        await give_way()
        seen.append(VAR.get())
    return seen


@scenario
async def in_debug_mode_meanwhile() -> object:
    loop = asyncio.get_running_loop()
    log = []
    for debug in (False, True, True, False, False):
        loop.set_debug(debug)
        await give_way()
        log.append(loop.get_debug())
    return log


@scenario
async def a_timeout_over_a_spin() -> object:
    try:
        async with asyncio.timeout(0.01):
            for _ in itertools.count():
                await give_way()
    except TimeoutError:
        return "in time"


@scenario
async def in_a_group() -> object:
    async with asyncio.TaskGroup() as group:
        child = group.create_task(give_way())
        await give_way()
        await give_way()
    return child.done()


app = App()


@app.get("/{name}")
async def run_scenario(name: str) -> Any:
    TASK.set(this_task())
    return [await SCENARIOS[name]()]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("name", SCENARIOS)
def test_who_gives_way_sees_what_it_would_see_in_a_task_of_asyncio(
    client: TestClient, name: str
) -> None:
    expected = outcome_of_eager_task(lambda: run_scenario(name))
    for _ in range(3):
        assert client.get(f"/{name}").json() == expected


def test_a_spin_does_not_keep_others_waiting_and_ends_with_its_client(
    serve: Serve, raw: Connect
) -> None:
    app = App()
    ended = threading.Event()

    @app.get("/spin")
    async def spin() -> None:
        try:
            for _ in itertools.count():
                await asyncio.sleep(0)
        finally:
            ended.set()

    @app.get("/other")
    async def other() -> str:
        await asyncio.sleep(0)
        return "answered"

    port = serve(app)
    spinning = raw(port)
    spinning.send("GET /spin HTTP/1.1\r\nHost: t\r\n\r\n")
    connection = raw(port)
    for _ in range(20):
        assert connection.get("/other").body == b"answered"
    assert not ended.is_set()
    spinning.close()
    assert ended.wait(10)
    assert connection.get("/other").body == b"answered"


def test_who_was_found_among_all_objects_does_not_serve_again(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/find")
    def find() -> int:
        found = [each for each in gc.get_objects() if type(each) is asyncio.Task]
        kept.extend(found)
        return len(found)

    @app.get("/{n}")
    async def handler(n: int) -> bool:
        await asyncio.sleep(0)
        return any(each is asyncio.current_task() for each in kept)

    kept: list[asyncio.Task[Any]] = []
    connection = raw(serve(app))
    for n in range(3):
        assert connection.get(f"/{n}").body == b"false"
    connection.get("/find")
    for n in range(3):
        assert connection.get(f"/{n}").body == b"false"
    # Those that are idle belong to the lane: they may not say that they were destroyed.
    kept.clear()
