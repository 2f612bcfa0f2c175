"""Coroutines as Rust futures and back, as far as Python can see it: outcomes and cancellation."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import traceback
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from support.lanes import wait_connections
from support.raw import Raw
from support.types import Connect, Serve

from treadle import App, ClientDisconnect, Request, Response, StreamingResponse
from treadle.testing import LiveServer


class Stage:
    """What handlers did, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self._said = threading.Condition()

    def say(self, event: str) -> None:
        with self._said:
            self.events.append(event)
            self._said.notify_all()

    def wait(self, event: str) -> None:
        with self._said:
            assert self._said.wait_for(lambda: event in self.events, 10), self.events


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def app() -> App:
    return App()


def ask(connection: Raw, path: str = "/") -> None:
    connection.send(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")


# -- from the client to the Task ------------------------------------------------------------------


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("where", ["sleep", "future", "thread", "inner"])
def test_a_client_that_leaves_cancels_the_task_and_its_finally_runs(
    serve: Serve, raw: Connect, app: App, stage: Stage, leave: str, where: str
) -> None:
    async def wait() -> None:
        if where == "sleep":
            await asyncio.sleep(60)
        elif where == "future":
            await asyncio.get_running_loop().create_future()
        elif where == "thread":
            await asyncio.get_running_loop().run_in_executor(None, released.wait, 10)
        else:
            await asyncio.gather(asyncio.sleep(60), asyncio.create_task(asyncio.sleep(60)))

    released = threading.Event()

    @app.get("/")
    async def handler() -> None:
        try:
            stage.say("waiting")
            await wait()
        except asyncio.CancelledError:
            stage.say("cancelled")
            await asyncio.sleep(0)
            raise
        finally:
            stage.say("finally")

    connection = raw(serve(app))
    ask(connection)
    stage.wait("waiting")
    getattr(connection, leave)()
    stage.wait("finally")
    released.set()
    assert stage.events == ["waiting", "cancelled", "finally"]


def test_shielded_work_goes_on_when_the_client_leaves(
    serve: Serve, raw: Connect, app: App, stage: Stage
) -> None:
    go_on: list[asyncio.Event] = []

    async def work() -> None:
        event = asyncio.Event()
        go_on.append(event)
        stage.say("working")
        await event.wait()
        stage.say("worked")

    @app.get("/")
    async def handler() -> None:
        try:
            await asyncio.shield(asyncio.ensure_future(work()))
        finally:
            stage.say("handler ended")

    @app.get("/go-on")
    def release() -> None:
        go_on[0].set()

    server = serve(app)
    connection = raw(server)
    ask(connection)
    stage.wait("working")
    connection.reset()
    stage.wait("handler ended")
    assert raw(server).get("/go-on").status == 204
    stage.wait("worked")


def test_a_route_that_does_not_cancel_finishes_without_its_client(
    serve: Serve, raw: Connect, app: App, stage: Stage
) -> None:
    go_on: list[asyncio.Event] = []

    @app.get("/", cancel_on_disconnect=False)
    async def handler() -> str:
        go_on.append(asyncio.Event())
        stage.say("waiting")
        await go_on[0].wait()
        stage.say("finished")
        return "unheard"

    @app.get("/go-on")
    def release() -> None:
        gc.collect()
        go_on[0].set()

    server = serve(app)
    connection = raw(server)
    ask(connection)
    stage.wait("waiting")
    connection.reset()
    wait_connections(server, 0)
    assert raw(server).get("/go-on").status == 204
    stage.wait("finished")
    assert stage.events == ["waiting", "finished"]


def test_a_task_that_does_not_let_itself_be_cancelled_is_not_answered_and_harms_nothing(
    serve: Serve, raw: Connect, app: App, stage: Stage
) -> None:
    @app.get("/")
    async def handler() -> str:
        try:
            stage.say("waiting")
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            stage.say("swallowed")
        await asyncio.sleep(0)
        stage.say("finished")
        return "unheard"

    server = serve(app)
    connection = raw(server)
    ask(connection)
    stage.wait("waiting")
    connection.reset()
    stage.wait("finished")
    app_is_there = raw(server)
    assert app_is_there.get("/nothing").status == 404


def test_a_handler_that_fails_while_it_is_cancelled_is_logged(
    serve: Serve, raw: Connect, app: App, stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    @app.get("/")
    async def handler() -> None:
        try:
            stage.say("waiting")
            await asyncio.sleep(60)
        finally:
            raise ValueError("while cancelled")

    server = serve(app)
    connection = raw(server)
    ask(connection)
    stage.wait("waiting")
    connection.reset()
    wait_connections(server, 0)
    server.stop()
    assert "ValueError: while cancelled" in caplog.text


def test_time_that_runs_out_cancels_the_task(
    serve: Serve, raw: Connect, app: App, stage: Stage
) -> None:
    @app.get("/", timeout=0.01)
    async def handler() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stage.say("finally")

    @app.get("/fast", timeout=10)
    async def fast() -> str:
        await asyncio.sleep(0)
        return "fast"

    connection = raw(serve(app))
    response = connection.get()
    assert (response.status, response.body) == (504, b'{"detail":"Gateway Timeout"}')
    stage.wait("finally")
    assert connection.get("/fast").body == b"fast"


def test_a_pipelined_request_behind_a_client_that_left_is_never_begun(
    serve: Serve, raw: Connect, app: App, stage: Stage
) -> None:
    @app.get("/first")
    async def first() -> None:
        stage.say("waiting")
        try:
            await asyncio.sleep(60)
        finally:
            stage.say("cancelled")

    @app.get("/second")
    async def second() -> None:
        stage.say("second")

    server = serve(app)
    connection = raw(server)
    ask(connection, "/first")
    ask(connection, "/second")
    stage.wait("waiting")
    connection.reset()
    stage.wait("cancelled")
    wait_connections(server, 0)
    assert "second" not in stage.events


# -- streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["async", "sync", "idle"])
def test_a_client_that_leaves_a_stream_closes_its_generator(
    serve: Serve, raw: Connect, app: App, stage: Stage, kind: str
) -> None:
    async def chunks() -> Any:
        try:
            while True:
                yield b"x" * 10_000
                if kind == "idle":
                    await asyncio.sleep(60)
        finally:
            stage.say("closed")

    def chunks_sync() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 10_000
        finally:
            stage.say("closed")

    @app.get("/")
    async def handler() -> Response:
        return StreamingResponse(chunks_sync() if kind == "sync" else chunks())

    connection = raw(serve(app))
    ask(connection)
    connection.until(b"xxxx")
    connection.reset()
    stage.wait("closed")


def test_a_stream_that_may_not_be_cancelled_hears_that_the_client_left(
    serve: Serve, raw: Connect, app: App, stage: Stage
) -> None:
    async def chunks() -> Any:
        try:
            while True:
                yield b"x" * 10_000
        except GeneratorExit:
            stage.say("closed")
            raise
        except asyncio.CancelledError:
            stage.say("cancelled")
            raise

    @app.get("/", cancel_on_disconnect=False)
    async def handler() -> Response:
        return StreamingResponse(chunks())

    connection = raw(serve(app))
    ask(connection)
    connection.until(b"xxxx")
    connection.reset()
    stage.wait("closed")
    assert stage.events == ["closed"]
    assert issubclass(ClientDisconnect, OSError)


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_stream_that_fails_midway_breaks_the_connection_and_is_logged(
    serve: Serve,
    raw: Connect,
    app: App,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    # More than fits into any buffer: the beginning has gone out when it fails.
    async def chunks() -> Any:
        for chunk in chunks_sync():
            yield chunk

    def chunks_sync() -> Iterator[bytes]:
        yield b"first"
        yield from [b"x" * 100_000] * 100
        raise ValueError("midway")

    @app.get("/")
    async def handler() -> Response:
        return StreamingResponse(chunks_sync() if kind == "sync" else chunks())

    connection = raw(serve(app))
    ask(connection)
    whole = connection.rest()
    assert b"first" in whole
    assert not whole.endswith(b"0\r\n\r\n")
    assert "ValueError: midway" in caplog.text


@pytest.mark.parametrize("chunk", [None, 7, ["x"]])
def test_a_stream_of_what_is_no_bytes_breaks_off(
    serve: Serve, raw: Connect, app: App, caplog: pytest.LogCaptureFixture, chunk: Any
) -> None:
    @app.get("/")
    async def handler() -> Response:
        return StreamingResponse(iter([b"first", chunk]))

    connection = raw(serve(app))
    ask(connection)
    assert not connection.rest().endswith(b"0\r\n\r\n")
    assert "a streaming response must yield bytes or str, not" in caplog.text


# -- outcomes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suspend", [False, True])
def test_an_exception_comes_with_the_traceback_of_the_handler(
    serve: Serve, raw: Connect, app: App, caplog: pytest.LogCaptureFixture, suspend: bool
) -> None:
    async def deeper() -> None:
        if suspend:
            await asyncio.sleep(0)
        raise ValueError("deep down")

    @app.get("/{key}")
    async def handler(key: str) -> None:
        await deeper()

    assert raw(serve(app)).get("/secret").status == 500
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    frames = [frame.name for frame in traceback.extract_tb(record.exc_info[2])]
    assert frames[-2:] == ["handler", "deeper"]
    assert "GET /{key}" in record.getMessage()
    assert "/secret" not in caplog.text


def test_a_rust_future_that_is_cancelled_leaves_its_task_usable(
    serve: Serve, raw: Connect, app: App
) -> None:
    @app.post("/")
    async def handler(request: Request) -> str:
        try:
            async with asyncio.timeout(0.01):
                await request.body()
        except TimeoutError:
            await asyncio.sleep(0)
            return "gave up"
        return "read"

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")
    assert connection.response().body == b"gave up"


def test_an_await_of_rust_inside_a_task_group_is_cancelled_with_it(
    serve: Serve, raw: Connect, app: App
) -> None:
    @app.post("/")
    async def handler(request: Request) -> str:
        async def fail() -> None:
            await asyncio.sleep(0)
            raise ValueError

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(fail())
                await request.body()
        except ExceptionGroup:
            return "cancelled"
        return "read"

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")
    assert connection.response().body == b"cancelled"


def test_an_awaitable_of_rust_is_an_awaitable_of_asyncio(
    serve: Serve, raw: Connect, app: App
) -> None:
    @app.post("/")
    async def handler(request: Request) -> list[object]:
        first = await asyncio.gather(request.body(), asyncio.sleep(0, "slept"))
        waited = await asyncio.wait_for(request.text(), 10)
        return [first[0].decode(), first[1], waited]

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n")
    connection.send("data")
    assert connection.response().body == b'["data","slept","data"]'


# -- what handlers leave behind -------------------------------------------------------------------


def test_tasks_that_a_handler_leaves_behind_go_on(
    serve: Serve, raw: Connect, app: App, stage: Stage
) -> None:
    left: set[asyncio.Task[None]] = set()

    async def work() -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        stage.say("worked")

    @app.get("/")
    async def handler() -> str:
        left.add(asyncio.create_task(work()))
        return "answered"

    assert raw(serve(app)).get().body == b"answered"
    stage.wait("worked")


def test_tasks_that_are_left_at_the_stop_are_cancelled(
    raw: Connect, app: App, stage: Stage
) -> None:
    left: set[asyncio.Task[None]] = set()

    async def work() -> None:
        try:
            stage.say("working")
            await asyncio.sleep(60)
        finally:
            stage.say("cancelled")

    @app.get("/")
    async def handler() -> None:
        left.add(asyncio.create_task(work()))

    with LiveServer(app) as server:
        assert raw(server).get().status == 204
        stage.wait("working")
    assert stage.events == ["working", "cancelled"]


def test_an_exception_in_a_task_that_nobody_awaits_is_logged_by_asyncio(
    serve: Serve, raw: Connect, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise ValueError("unheard")

    @app.get("/")
    async def handler() -> None:
        asyncio.create_task(fail())  # noqa: RUF006
        await asyncio.sleep(0)

    @app.get("/collect")
    async def collect() -> None:
        gc.collect()

    connection = raw(serve(app))
    assert connection.get().status == 204
    assert connection.get("/collect").status == 204
    assert "Task exception was never retrieved" in caplog.text
    assert "ValueError: unheard" in caplog.text


def test_the_task_of_an_answered_request_is_gone(serve: Serve, raw: Connect, app: App) -> None:
    tasks: list[weakref.ref[asyncio.Task[Any]]] = []

    @app.get("/{suspend:int}")
    async def handler(suspend: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.append(weakref.ref(task))
        if suspend:
            await asyncio.sleep(0)

    @app.get("/alive")
    def alive() -> int:
        gc.collect()
        return sum(task() is not None for task in tasks)

    connection = raw(serve(app))
    for suspend in (0, 1, 0, 1):
        assert connection.get(f"/{suspend}").status == 204
    assert connection.get("/alive").body == b"0"
    assert len(tasks) == 4
