"""Coroutines that wait for futures, whose steps the lane takes, beside asyncio's Tasks."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from support.eager import outcome_of_eager_task
from support.tasks import VAR, future, this_task
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


async def told(awaitable: Any) -> object:
    """What awaiting it comes to."""
    try:
        return await awaitable
    except BaseException as error:
        return [type(error).__name__, *map(str, error.args)]


@scenario
async def a_result() -> object:
    log = []
    for n in range(3):
        ready = future()
        soon(ready.set_result, n)
        log.append(await ready)
    return log


@scenario
async def an_exception() -> object:
    ready = future()
    soon(ready.set_exception, ValueError("of the future"))
    try:
        await ready
    except ValueError as error:
        names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return [str(error), names, await told(asyncio.sleep(0.001, "went on"))]


@scenario
async def a_cancelled_future() -> object:
    ready = future()
    soon(ready.cancel, "of the future")
    return [await told(ready), this_task().cancelling(), await told(asyncio.sleep(0.001, 1))]


@scenario
async def cancelled_while_it_waited() -> object:
    task, ready = this_task(), future()
    soon(task.cancel, "from outside")
    log = [await told(ready), task.cancelling(), ready.cancelled(), task.uncancel()]
    later = future()
    soon(later.set_result, "later")
    return [*log, await later]


@scenario
async def cancelled_by_itself_before_it_waits() -> object:
    await asyncio.sleep(0)
    ready = future()
    this_task().cancel("by itself")
    return [await told(ready), ready.cancelled(), this_task().cancelling()]


@scenario
async def cancelled_in_the_turn_in_which_it_is_woken() -> object:
    task, log = this_task(), []
    for first in ("result", "cancel"):
        ready = future()
        both: list[Callable[[], object]] = [
            lambda ready=ready: ready.done() or ready.set_result("result"),
            lambda: task.cancel("too late"),
        ]
        for call in both if first == "result" else reversed(both):
            soon(call)
        log += [await told(ready), task.cancelling(), task.uncancel()]
    return log


@scenario
async def cancelled_after_its_future_was() -> object:
    task, ready = this_task(), future()
    soon(ready.cancel, "of the future")
    soon(task.cancel, "of the task")
    return [await told(ready), task.cancelling()]


@scenario
async def cancelled_and_taken_back() -> object:
    task, ready = this_task(), future()
    soon(ready.set_result, "there")
    soon(task.cancel)
    soon(task.uncancel)
    return [await told(ready), task.cancelling()]


@scenario
async def seen_while_it_waits() -> object:
    task, ready, seen = this_task(), future(), []

    def look() -> None:
        ((callback, context),) = ready._callbacks  # type: ignore[attr-defined]
        seen.append(asyncio.current_task())
        seen.append(task in asyncio.all_tasks())
        seen.append(task.done())
        seen.append(task._fut_waiter is ready)  # type: ignore[attr-defined]
        seen.append([frame.f_code.co_name for frame in task.get_stack()])
        seen.append(repr(ready))
        seen.append(f"wait_for={ready!r}" in repr(task))
        seen.append(callback.__self__ is task)
        seen.append(context is task.get_context())
        if sys.version_info >= (3, 14):
            graph = asyncio.capture_call_graph(ready)
            assert graph is not None
            seen.append([awaiter.future is task for awaiter in graph.awaited_by])
        ready.set_result(None)

    await asyncio.sleep(0)
    soon(look)
    await ready
    seen += [task._fut_waiter, repr(ready)]  # type: ignore[attr-defined]
    if sys.version_info >= (3, 14):
        graph = asyncio.capture_call_graph(ready)
        assert graph is not None
        seen.append(len(graph.awaited_by))
    return seen


@scenario
async def noticed_while_it_waits() -> object:
    task, called = this_task(), []
    for notice in (
        lambda: task.set_name("noticed"),
        lambda: task.add_done_callback(called.append),
        lambda: setattr(task, "mark", "kept"),
    ):
        ready = future()
        soon(notice)
        soon(ready.set_result, None)
        await ready
    return [task.get_name(), task.mark, len(called)]  # type: ignore[attr-defined]


@scenario
async def in_turn_with_callbacks() -> object:
    log: list[str] = []
    ready = future()
    ready.add_done_callback(lambda _: log.append("before"))
    soon(ready.set_result, None)
    soon(log.append, "behind the result")
    soon(soon, log.append, "a turn later")
    await ready
    log.append("step")
    second = future()
    soon(second.add_done_callback, lambda _: log.append("after"))
    soon(second.set_result, None)
    await second
    log.append("step")
    await asyncio.sleep(0)
    return log


@scenario
async def a_future_that_several_wait_for() -> object:
    ready, log = future(), []

    async def waits(name: str) -> None:
        log.append([name, await ready, this_task()._fut_waiter])  # type: ignore[attr-defined]

    others = [asyncio.ensure_future(waits(name)) for name in "ab"]
    soon(soon, soon, ready.set_result, "for all")
    log.append(["self", await ready])
    await asyncio.gather(*others)
    if sys.version_info >= (3, 14):
        graph = asyncio.capture_call_graph(ready)
        assert graph is not None
        log.append([len(graph.awaited_by)])
    return log


@scenario
async def a_future_that_is_shielded() -> object:
    task, ready = this_task(), future()
    soon(task.cancel)
    log = [await told(asyncio.shield(ready)), ready.done(), task.uncancel()]
    soon(ready.set_result, "still there")
    return [*log, await ready]


@scenario
async def a_sleep_that_others_look_at() -> object:
    task, log = this_task(), []

    def look() -> None:
        waited = task._fut_waiter  # type: ignore[attr-defined]
        waited.add_done_callback(lambda done: log.append([done.result(), done.done()]))

    soon(look)
    log.append(await asyncio.sleep(0.001, "slept"))
    await asyncio.sleep(0)
    soon(lambda: task._fut_waiter.set_result("early"))  # type: ignore[attr-defined]
    log.append(await asyncio.sleep(10, "slept"))
    soon(lambda: task._fut_waiter.cancel())  # type: ignore[attr-defined]
    log.append(await told(asyncio.sleep(10)))
    return [*log, await asyncio.sleep(0.001, "at last")]


@scenario
async def other_things_than_plain_futures() -> object:
    class Other(asyncio.Future[Any]):
        pass

    other = Other()
    soon(other.set_result, "subclass")
    child = asyncio.ensure_future(asyncio.sleep(0.001, "task"))
    return [
        await other,
        await child,
        await asyncio.gather(asyncio.sleep(0.001, 1), asyncio.sleep(0, 2)),
        await asyncio.to_thread(lambda: "thread"),
        await told(asyncio.wait_for(future(), 0.001)),
    ]


class Thrown:
    """Awaits a future by hand, and tells what is thrown at its `yield`."""

    def __init__(self, waited: asyncio.Future[Any]) -> None:
        self.waited = waited

    def __await__(self) -> Generator[Any, Any, object]:
        self.waited._asyncio_future_blocking = True
        try:
            sent = yield self.waited
        except BaseException as error:
            return [type(error).__name__, str(error)]
        return ["sent", sent, self.waited.result()]


@scenario
async def what_is_thrown_at_the_yield() -> object:
    log = []
    for end in (
        lambda ready: ready.set_result("result"),
        lambda ready: ready.set_exception(KeyError("exception")),
        lambda ready: ready.cancel("cancelled"),
    ):
        ready = future()
        soon(end, ready)
        log.append(await Thrown(ready))
    return log


class Unasked:
    def __init__(self, waited: asyncio.Future[Any]) -> None:
        self.waited = waited

    def __await__(self) -> Generator[Any, Any, object]:
        yield self.waited
        return "went on"


@scenario
async def a_future_that_was_yielded_unasked() -> object:
    kind, words = await told(Unasked(future()))  # type: ignore[misc]
    # All but the Task's number.
    said = re.sub(r"Task-\d+", "", words)
    return [kind, said, await told(asyncio.sleep(0.001, "after"))]


@scenario
async def a_future_of_another_loop() -> object:
    other = asyncio.new_event_loop()
    try:
        (error, *_) = await told(other.create_future())  # type: ignore[misc]
        return [error, await told(asyncio.sleep(0.001, "after"))]
    finally:
        other.close()


@scenario
async def in_its_context() -> object:
    VAR.set("mine")
    seen = []
    for _ in range(3):
        ready = future()
        soon(VAR.set, "of a callback")
        soon(ready.set_result, None)
        await ready
        seen.append(VAR.get())
    return [*seen, this_task().get_context()[VAR]]


@scenario
async def in_debug_mode_meanwhile() -> object:
    loop, log = asyncio.get_running_loop(), []
    for before, after in ((False, True), (True, True), (True, False), (False, False)):
        loop.set_debug(before)
        ready = future()
        soon(loop.set_debug, after)
        soon(ready.set_result, None)
        await ready
        log.append(loop.get_debug())
    return log


@scenario
async def what_is_made_of_futures() -> object:
    queue: asyncio.Queue[int] = asyncio.Queue(1)
    lock, event = asyncio.Lock(), asyncio.Event()

    async def puts() -> None:
        async with lock:
            for n in range(3):
                await queue.put(n)
        event.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(puts())
        got = [await queue.get() for _ in range(3)]
        async with lock:
            await event.wait()
    return got


@scenario
async def a_group_that_fails() -> object:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("of a child")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fails())
            await future()
    except ExceptionGroup as group_of_errors:
        return [str(group_of_errors.exceptions[0]), this_task().cancelling()]


@scenario
async def timeouts() -> object:
    log = []
    for _ in range(3):
        try:
            async with asyncio.timeout(0.001):
                await future()
        except TimeoutError:
            log.append(this_task().cancelling())
    return [*log, await told(asyncio.sleep(0.001, "after"))]


@scenario
async def told_from_another_thread() -> object:
    loop, ready = asyncio.get_running_loop(), future()
    threading.Thread(target=loop.call_soon_threadsafe, args=(ready.set_result, 1)).start()
    return await ready


@scenario
async def told_from_another_thread_without_its_leave() -> object:
    loop, ready = asyncio.get_running_loop(), future()

    def tell() -> None:
        ready.set_result("told")
        loop.call_soon_threadsafe(lambda: None)

    soon(threading.Thread(target=tell).start)
    return await ready


@scenario
async def an_exit_in_a_later_step() -> object:
    await asyncio.sleep(0.001)
    return await told(exits())


async def exits() -> None:
    await asyncio.sleep(0.001)
    sys.exit(3)


app = App()


@app.get("/{name}")
async def run_scenario(name: str) -> Any:
    return [await SCENARIOS[name]()]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("name", SCENARIOS)
def test_who_waits_sees_what_it_would_see_in_a_task_of_asyncio(
    client: TestClient, name: str
) -> None:
    expected = outcome_of_eager_task(lambda: run_scenario(name))
    for _ in range(3):
        assert client.get(f"/{name}").json() == expected


def test_the_lane_waits_itself_and_leaves_the_rest_to_asyncio(client: TestClient) -> None:
    kinds: list[str] = []

    def look(ready: asyncio.Future[Any]) -> None:
        kinds.extend(type(callback).__name__ for callback, _ in ready._callbacks)  # type: ignore[attr-defined]
        ready.set_result(None)

    async def waits(ready: asyncio.Future[Any]) -> None:
        soon(look, ready)
        await ready

    @scenario
    async def twice_and_then_noticed() -> None:
        await waits(future())
        await waits(future())
        this_task().add_done_callback(lambda _: None)
        await waits(future())

    assert client.get("/twice_and_then_noticed").status_code == 200
    assert kinds == ["LaneWakeup", "LaneWakeup", "builtin_function_or_method"]


def test_a_client_that_leaves_cancels_who_waits(serve: Serve, raw: Connect) -> None:
    app = App()
    waits, ended = threading.Event(), threading.Event()

    @app.get("/")
    async def handler() -> None:
        asyncio.get_running_loop().call_soon(waits.set)
        try:
            await future()
        finally:
            ended.set()

    connection = raw(serve(app))
    connection.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
    assert waits.wait(10)
    connection.close()
    assert ended.wait(10)


def test_many_wait_at_once_and_each_gets_its_own(serve: Serve, raw: Connect) -> None:
    app = App()
    ready: list[asyncio.Future[int]] = []

    @app.get("/wait/{n}")
    async def wait(n: int) -> list[int]:
        ready.append(future())
        return [n, await ready[-1]]

    @app.get("/tell")
    async def tell() -> None:
        for n, each in enumerate(reversed(ready)):
            each.set_result(n)
        ready.clear()

    @app.get("/waiting")
    def waiting() -> int:
        return len(ready)

    port = serve(app)
    asking = raw(port)
    for _ in range(2):
        connections = [raw(port) for _ in range(50)]
        for n, connection in enumerate(connections):
            connection.send(f"GET /wait/{n} HTTP/1.1\r\nHost: t\r\n\r\n")
            while asking.get("/waiting").body != str(n + 1).encode():
                pass
        asking.get("/tell")
        answers = [connection.response().body for connection in connections]
        assert answers == [f"[{n},{49 - n}]".encode() for n in range(50)]
        for connection in connections:
            connection.close()
