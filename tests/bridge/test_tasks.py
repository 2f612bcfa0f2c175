"""The Task of a coroutine, in each of its moments, beside one that asyncio started itself."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import io
import itertools
import logging
import queue
import re
import resource
import subprocess
import sys
import threading
import traceback
import types
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from support.cli import RunCli
from support.eager import outcome_of_eager_task
from support.gate import SOURCE, Gate
from support.hold import Hold
from support.types import Connect, Serve

from treadle import App, StreamingResponse
from treadle.testing import TestClient

Scenario = Callable[[], Coroutine[Any, Any, Any]]
VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


class Bare:
    """Awaits by yielding what it is given, which asyncio may not like."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.value)


class Stubborn(asyncio.Future[Any]):
    """Refuses to be cancelled."""

    def cancel(self, msg: Any = None) -> bool:
        return False


def soon(future: asyncio.Future[Any], result: object = None) -> asyncio.Future[Any]:
    asyncio.get_running_loop().call_soon(future.set_result, result)
    return future


def future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


# -- the same as asyncio's ------------------------------------------------------------------------

SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


async def caught(awaitable: Awaitable[Any]) -> object:
    try:
        return await awaitable
    except BaseException as error:
        return [type(error).__name__, *map(str, error.args)]


def requests_to_cancel(task: asyncio.Task[Any]) -> list[object]:
    return [task.cancelling(), task._must_cancel]  # type: ignore[attr-defined]


async def cancelled_by_itself(wait: Callable[[], Awaitable[Any]]) -> list[object]:
    task = this_task()
    log: list[object] = [task.cancel("why"), requests_to_cancel(task)]
    log.append(await caught(wait()))
    log += [requests_to_cancel(task), task.uncancel(), requests_to_cancel(task)]
    log.append(await caught(asyncio.sleep(0, "slept")))
    return log


@scenario
async def cancel_then_wait_for_a_future() -> object:
    waited = future()
    return [await cancelled_by_itself(lambda: waited), waited.cancelled()]


@scenario
async def cancel_then_sleep() -> object:
    return await cancelled_by_itself(lambda: asyncio.sleep(10))


@scenario
async def cancel_then_yield() -> object:
    return await cancelled_by_itself(lambda: asyncio.sleep(0))


@scenario
async def cancel_then_wait_for_what_refuses() -> object:
    stubborn = Stubborn()
    return await cancelled_by_itself(lambda: soon(stubborn, "never seen"))


@scenario
async def cancel_then_wait_for_what_is_done() -> object:
    done = future()
    done.set_result("done")
    return await cancelled_by_itself(lambda: done)


@scenario
async def cancel_then_bad_yield() -> object:
    return await cancelled_by_itself(lambda: Bare(1))


@scenario
async def cancel_twice_and_take_one_back() -> object:
    task = this_task()
    task.cancel("a")
    task.cancel("b")
    log: list[object] = [task.uncancel(), requests_to_cancel(task)]
    log.append(await caught(future()))
    return [*log, requests_to_cancel(task)]


@scenario
async def cancel_and_take_it_back() -> object:
    task = this_task()
    task.cancel()
    task.uncancel()
    return [await caught(asyncio.sleep(0, "slept")), requests_to_cancel(task)]


@scenario
async def cancelled_while_it_waits() -> object:
    task = this_task()
    asyncio.get_running_loop().call_soon(task.cancel, "from outside")
    log: list[object] = [await caught(asyncio.sleep(10)), task.cancelling()]
    asyncio.get_running_loop().call_soon(task.cancel, "again")
    return [*log, await caught(future()), task.cancelling()]


@scenario
async def yields_that_asyncio_refuses() -> object:
    other = asyncio.new_event_loop()
    try:
        foreign = other.create_future()
        log = [await caught(Bare(value)) for value in (1, future(), (x for x in "ab"))]
        log += [await caught(this_task()), await caught(foreign)]
    finally:
        other.close()
    # Without what differs between any two Tasks: their names, addresses and listeners.
    return [re.sub("Task-[0-9]+|0x[0-9a-f]+| cb=.*?]|coro=<[^>]*>", "", str(each)) for each in log]


@scenario
async def refused_at_once() -> object:
    return (await caught(Bare(1)))[:1]  # type: ignore[index]


@scenario
async def awaits_itself_at_once() -> object:
    return (await caught(this_task()))[:1]  # type: ignore[index]


@scenario
async def a_future_that_fails() -> object:
    failing = future()
    asyncio.get_running_loop().call_soon(failing.set_exception, ValueError("late"))
    return await caught(failing)


@scenario
async def a_timeout_around_the_first_suspension() -> object:
    try:
        async with asyncio.timeout(0.001) as timeout:
            await future()
    except TimeoutError:
        return [timeout.expired(), this_task().cancelling()]


@scenario
async def a_timeout_that_is_over_at_once() -> object:
    try:
        async with asyncio.timeout(-1):
            await future()
    except TimeoutError:
        return this_task().cancelling()


@scenario
async def a_group_whose_child_fails_at_once() -> object:
    async def fail() -> None:
        raise ValueError("child")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await future()
    except ExceptionGroup as errors:
        return [str(error) for error in errors.exceptions] + [this_task().cancelling()]
    return "not"


@scenario
async def shielded_work_goes_on() -> object:
    inner = asyncio.ensure_future(asyncio.sleep(0.002, "worked"))
    asyncio.get_running_loop().call_soon(this_task().cancel)
    return [await caught(asyncio.shield(inner)), await inner]


@scenario
async def waited_for_in_vain() -> object:
    return await caught(asyncio.wait_for(asyncio.shield(future()), 0.001))


@scenario
async def identity() -> object:
    task, loop = this_task(), asyncio.get_running_loop()
    first = [task in asyncio.all_tasks(), task.get_loop() is loop, task.done(), type(task).__name__]
    await asyncio.sleep(0)
    later = [task is this_task(), task in asyncio.all_tasks(), task.get_loop() is loop, task.done()]
    await soon(future())
    return [*first, *later, task is this_task(), isinstance(task, asyncio.Task)]


@scenario
async def contexts() -> object:
    task = this_task()
    token = VAR.set("first")
    context = task.get_context()
    log: list[object] = [context[VAR]]
    await asyncio.sleep(0)
    log += [VAR.get(), task.get_context() is context]
    VAR.set("second")
    await soon(future())
    log += [VAR.get(), context[VAR]]
    VAR.reset(token)
    return [*log, VAR.get()]


@scenario
async def frames() -> object:
    task = this_task()
    out = io.StringIO()
    log: list[object] = [task.get_stack()[-1].f_code.co_name]
    await asyncio.sleep(0)
    log.append(task.get_stack()[-1].f_code.co_name)
    looked = future()

    def look() -> None:
        task.print_stack(file=out)
        looked.set_result([frame.f_code.co_name for frame in task.get_stack()])

    asyncio.get_running_loop().call_soon(look)
    log.append(await looked)
    code: Any = task.get_coro()
    return [log, "await looked" in out.getvalue(), type(code).__name__, code.cr_code.co_name]


@scenario
async def an_exception_has_its_frames() -> object:
    async def inner() -> None:
        await asyncio.sleep(0)
        raise ValueError("inside")

    try:
        await inner()
    except ValueError as error:
        return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return "not"


app = App()


@app.get("/{name}")
async def run_scenario(name: str) -> Any:
    return await SCENARIOS[name]()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_task_does_what_an_eager_task_of_asyncio_does(client: TestClient, name: str) -> None:
    expected = outcome_of_eager_task(lambda: run_scenario(name))
    for _ in range(3):
        assert client.get(f"/{name}").json() == expected


# -- a Task that was looked at in a step that the lane takes, or one of its own --------------------


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


# -- what follows a handler -----------------------------------------------------------------------


def test_a_stream_of_a_handler_that_suspended_keeps_its_context(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/")
    async def handler() -> StreamingResponse:
        token = VAR.set("set")
        await asyncio.sleep(0)

        async def chunks() -> Any:
            yield VAR.get()
            await asyncio.sleep(0)
            yield this_task().get_context()[VAR]
            VAR.reset(token)
            yield VAR.get()

        return StreamingResponse(chunks())

    assert raw(serve(app)).get().body == b"setsetunset"


@pytest.mark.parametrize("path", ["/stream", "/rescue"])
def test_what_follows_a_handler_that_suspended_is_cancelled_when_the_client_leaves(
    serve: Serve, raw: Connect, hold: Hold, path: str
) -> None:
    app = App()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            with hold.watched():
                yield "part"
                await future()

        await asyncio.sleep(0)
        return StreamingResponse(chunks())

    @app.get("/rescue")
    async def rescue() -> None:
        await asyncio.sleep(0)
        raise KeyError

    @app.exception_handler(KeyError)
    async def handle(request: object, error: KeyError) -> None:
        await asyncio.sleep(0)
        with hold.watched():
            await future()

    connection = raw(serve(app))
    connection.send(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")
    hold.wait_arrival()
    connection.reset()
    assert hold.outcome() == "CancelledError"


# -- seen from outside ----------------------------------------------------------------------------


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in CPython 3.14")
def test_the_call_graph_shows_the_handler(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/")
    async def handler() -> list[str]:
        task = this_task()

        async def look() -> list[str]:
            graph = asyncio.capture_call_graph(task)  # type: ignore[attr-defined, unused-ignore]
            assert graph is not None
            return [entry.frame.f_code.co_name for entry in graph.call_stack]

        await asyncio.sleep(0)
        return await asyncio.create_task(look())

    assert raw(serve(app)).get().body == b'["handler"]'


WAITING = (
    SOURCE
    + """
@app.get("/{n:int}")
async def handler(n: int) -> None:
    if n:
        await pause()
"""
)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in CPython 3.14")
def test_asyncio_ps_can_read_a_process_whose_handlers_wait(
    run_cli: RunCli, raw: Connect, gate: Gate
) -> None:
    """What it reads is memory: a Task that is not what it looks like makes it fail.

    It lists the main thread only (3.14), so there is no handler in its list.
    """
    command = run_cli(WAITING, env=gate.env)
    connection = raw(command)
    connection.get("/0")
    connection.send("GET /1 HTTP/1.1\r\nHost: t\r\n\r\n")
    arrival = gate.arrival()
    seen = subprocess.run(
        [sys.executable, "-m", "asyncio", "ps", str(command.pid)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    arrival.release()
    assert connection.response().status == 204
    if re.search("permission|not supported", seen.stdout + seen.stderr, re.IGNORECASE):
        pytest.skip("the system does not let a process look into another")
    assert seen.returncode == 0, seen.stderr
    assert "coroutine stack" in seen.stdout


@pytest.mark.skipif(sys.version_info < (3, 14), reason="all_tasks of another thread's loop")
def test_other_threads_may_look_at_the_tasks_of_a_lane(serve: Serve, raw: Connect) -> None:
    app = App()
    loops: list[asyncio.AbstractEventLoop] = []
    failures: list[BaseException] = []
    # A look and a collection stop all threads: looks without end would leave the lane no time, and
    # a collection takes the longer the more modules the tests before have loaded.
    looks = queue.SimpleQueue[bool]()

    @app.get("/{n:int}")
    async def handler(n: int) -> int:
        if not loops:
            loops.append(asyncio.get_running_loop())
        if n % 3 == 0:
            await asyncio.sleep(0)
        if n % 5 == 0:
            this_task().set_name(f"request {n}")
        return n

    def look() -> None:
        try:
            for number in itertools.takewhile(lambda _: looks.get(), itertools.count()):
                for task in asyncio.all_tasks(loops[0]):
                    assert isinstance(task.get_name(), str)
                    # Often: a stand-in would be there for well under a microsecond.
                    for _ in range(300):
                        assert isinstance(task.get_coro(), (types.CoroutineType, type(None)))
                    task.done()
                if number % 20 == 0:
                    gc.collect(0)
        except BaseException as error:
            failures.append(error)

    connection = raw(serve(app))
    assert connection.get("/1").body == b"1"
    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for start in range(0, 4000, 20):
            for _ in threads:
                looks.put(True)
            burst = range(start, start + 20)
            connection.send("".join(f"GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n" for n in burst))
            assert [int(connection.response().body) for _ in burst] == list(burst)
    finally:
        for _ in threads:
            looks.put(False)
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("path", ["/none", "/suspends", "/notices", "/fails"])
def test_a_hundred_thousand_tasks_leave_nothing(serve: Serve, raw: Connect, path: str) -> None:
    app = App()

    @app.get("/none")
    async def none() -> None: ...

    @app.get("/suspends")
    async def suspends() -> None:
        await asyncio.sleep(0)

    @app.get("/notices")
    async def notices() -> None:
        this_task().get_name()
        await soon(future())

    @app.exception_handler(KeyError)
    def handle(request: object, error: KeyError) -> None: ...

    @app.get("/fails")
    async def fails() -> None:
        this_task().get_name()
        await asyncio.sleep(0)
        raise KeyError

    connection = raw(serve(app))

    def ask(count: int) -> tuple[int, int]:
        burst = f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n" * 50
        for _ in range(count // 50):
            connection.send(burst)
            assert {connection.response().status for _ in range(50)} == {204}
        gc.collect()
        return len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    objects, memory = ask(5_000)
    objects_later, memory_later = ask(100_000)
    assert objects_later - objects < 500
    assert memory_later - memory < 8_000


# -- a Task class of another kind -----------------------------------------------------------------

OTHER_CLASS = """
import asyncio, sys
class Counted(asyncio.Task):
    made = 0

    def __init__(self, *args, **keywords):
        Counted.made += 1
        super().__init__(*args, **keywords)

asyncio.Task = asyncio.tasks.Task = Counted
import httpx
from treadle import App, StreamingResponse
from treadle.testing import LiveServer

app = App()

async def maybe(suspend):
    if suspend:
        await asyncio.sleep(0)
    assert type(asyncio.current_task()) is Counted

@app.get("/{suspend:int}")
async def plain(suspend: int) -> str:
    await maybe(suspend)
    return "x"

@app.get("/fails/{suspend:int}")
async def fails(suspend: int) -> str:
    await maybe(suspend)
    raise KeyError

@app.exception_handler(KeyError)
async def handle(request, error) -> str:
    await maybe(True)
    return "handled"

@app.get("/stream/{suspend:int}")
async def stream(suspend: int):
    await maybe(suspend)
    async def chunks():
        yield "a"
        await asyncio.sleep(0)
        yield "b"
    return StreamingResponse(chunks())

with LiveServer(app) as server:
    base = "http://%s:%d" % server.address
    for path in ("/", "/fails/", "/stream/"):
        for suspend in (0, 1, 0, 1):
            before = Counted.made
            print(httpx.get(f"{base}{path}{suspend}").text, Counted.made > before)
"""


def test_a_class_that_somebody_put_in_place_of_asyncios_is_used() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", OTHER_CLASS],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stderr == ""
    assert run.stdout.split() == ["x", "True"] * 4 + ["handled", "True"] * 4 + ["ab", "True"] * 4
    assert run.returncode == 0
