"""The client leaves: its handler is cancelled and cleans up; what is to go on goes on."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import Queue
from typing import Any

import pytest
from support.hold import DEADLINE, Hold, take
from support.messages import assert_serves, chunked, request
from support.raw import Raw

from treadle import App, ClientDisconnect, Request, StreamingResponse
from treadle.testing import LiveServer

LEAVE: list[Callable[[Raw], None]] = [Raw.close, Raw.reset]


@pytest.fixture(autouse=True)
def no_noise(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A client that leaves is no failure of the server's: nothing is logged."""
    yield
    noise = [r for r in caplog.get_records("call") if r.levelno >= logging.WARNING]
    assert [f"{r.getMessage()} {r.exc_info}" for r in noise] == []


@pytest.fixture
def live(serve: Any, hold: Hold) -> LiveServer:
    app = App()

    @app.get("/")
    def root() -> str:
        return "hello"

    @app.route("/held", ["GET", "POST"])
    async def held() -> str:
        await hold()
        return "held"

    @app.get("/kept", cancel_on_disconnect=False)
    async def kept() -> str:
        await hold()
        return "kept"

    @app.get("/offload", offload=True)
    def offload() -> str:
        hold.block()
        return "offload"

    @app.post("/reads")
    async def reads(request: Request) -> int:
        with hold.watched():
            return len(await request.body())

    @app.post("/streams")
    async def streams(request: Request) -> int:
        with hold.watched():
            return sum([len(chunk) async for chunk in request.stream()])

    @app.post("/typed")
    async def typed(body: dict[str, int]) -> int:
        return len(body)

    return serve(app)


HELD = {
    "alone": request("GET", "/held"),
    "with a request behind it": request("GET", "/held") + request("GET", "/"),
    "with many requests behind it": request("GET", "/held") + request("GET", "/") * 3000,
    "with half a request behind it": request("GET", "/held") + b"GET / HTT",
    "with a body that nobody reads": request("POST", "/held", body=b"x" * 100),
    "with half a body that nobody reads": request("POST", "/held", "Content-Length: 9") + b"x",
    # Not more than the system takes for it: what is stuck in the client hides that it left.
    "with a large body that nobody reads": request("POST", "/held", body=b"x" * 50_000),
    "with chunks that nobody reads": request("POST", "/held", "Transfer-Encoding: chunked")
    + chunked(b"x" * 10, last=b""),
}


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("data", HELD.values(), ids=HELD)
def test_the_handlers_task_is_cancelled(
    live: LiveServer, raw: Any, hold: Hold, data: bytes, leave: Callable[[Raw], None]
) -> None:
    connection = raw(live)
    connection.send(data)
    hold.wait_arrival()
    leave(connection)
    assert hold.outcome() == "CancelledError"
    assert_serves(raw(live))


def test_a_request_behind_an_answered_one_is_cancelled_too(
    live: LiveServer, raw: Any, hold: Hold
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/") + request("GET", "/held"))
    assert connection.response().status == 200
    hold.wait_arrival()
    connection.close()
    assert hold.outcome() == "CancelledError"


def test_a_handler_that_cleans_up_may_await(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()
    cleaned: Queue[str] = Queue()

    @app.get("/")
    async def root() -> None:
        try:
            await hold()
        finally:
            await asyncio.sleep(0)
            cleaned.put("cleaned")

    connection = raw(serve(app))
    connection.send(request("GET"))
    hold.wait_arrival()
    connection.close()
    assert take(cleaned) == "cleaned"


def test_shielded_work_goes_on(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()
    handler: Queue[str] = Queue()

    @app.get("/")
    async def root() -> None:
        try:
            await asyncio.shield(hold())
        except asyncio.CancelledError:
            handler.put("cancelled")
            raise

    connection = raw(serve(app))
    connection.send(request("GET"))
    hold.wait_arrival()
    connection.close()
    assert take(handler) == "cancelled"
    hold.release()
    assert hold.outcome() == "finished"


def test_a_task_group_is_cancelled_as_a_whole(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()

    @app.get("/")
    async def root() -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(hold())

    live = serve(app)
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival(3)
    connection.close()
    assert [hold.outcome() for _ in range(3)] == ["CancelledError"] * 3


def test_a_route_may_go_on_without_its_client(live: LiveServer, raw: Any, hold: Hold) -> None:
    connection = raw(live)
    connection.send(request("GET", "/kept"))
    hold.wait_arrival()
    connection.reset()
    # Another client's cancellation, later than this one would have been.
    other = raw(live)
    other.send(request("GET", "/held"))
    hold.wait_arrival()
    other.reset()
    assert hold.outcome() == "CancelledError"
    hold.release()
    assert hold.outcome() == "finished"


BEHIND = {
    "alone": b"",
    "with a request behind it": request("GET", "/"),
    "with half a request behind it": b"GET / HTT",
}


@pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "later"])
def test_a_client_that_sent_its_end_is_answered_by_a_handler_that_goes_on(
    live: LiveServer, raw: Any, hold: Hold, behind: bytes, at_once: bool
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/kept") + behind)
    if at_once:
        connection.finish()
    hold.wait_arrival()
    if not at_once:
        connection.finish()
    # The lane looks for such ends in turn: that of a later client was seen after this one's.
    other = raw(live)
    other.send(request("GET", "/held") + behind)
    hold.wait_arrival()
    other.finish()
    assert hold.outcome() == "CancelledError"
    assert other.is_closed()
    hold.release()
    assert connection.response().body == b"kept"
    if behind == BEHIND["with a request behind it"]:
        assert connection.response().body == b"hello"
    assert connection.is_closed()


def test_a_client_that_sent_its_end_gets_the_stream_of_a_handler_that_goes_on(
    serve: Any, raw: Any, hold: Hold
) -> None:
    app = App()

    @app.get("/", cancel_on_disconnect=False)
    async def root() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"one"
            await hold()
            yield b"two"

        return StreamingResponse(chunks())

    connection = raw(serve(app))
    connection.send(request("GET"))
    hold.wait_arrival()
    connection.finish()
    connection.until(b"one")
    hold.release()
    assert connection.rest().endswith(b"two\r\n0\r\n\r\n")


def test_a_client_that_sent_half_a_body_and_its_end_has_left(
    serve: Any, raw: Any, hold: Hold
) -> None:
    app = App()

    @app.post("/", cancel_on_disconnect=False)
    async def root() -> None:
        await hold()

    connection = raw(serve(app))
    connection.send(request("POST", "/", "Content-Length: 10") + b"half")
    hold.wait_arrival()
    connection.finish()
    assert connection.is_closed()
    hold.release()
    assert hold.outcome() == "finished"


def test_a_handler_that_went_on_without_its_client_holds_nothing_up(
    serve: Any, raw: Any, hold: Hold
) -> None:
    app = App()
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    left: Queue[None] = Queue()

    @app.get("/", cancel_on_disconnect=False)
    async def root(request: Request) -> None:
        alive.add(request)
        event = asyncio.Event()
        loop = asyncio.get_running_loop()
        threading.Thread(target=lambda: (take(left), loop.call_soon_threadsafe(event.set))).start()
        with hold.watched():
            await event.wait()

    @app.get("/other")
    async def other() -> None:
        with hold.watched():
            await asyncio.Event().wait()

    live = serve(app, grace=5)
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival()
    connection.reset()
    # Once this one's leaving was seen, that of the one before was.
    later = raw(live)
    later.send(request("GET", "/other"))
    hold.wait_arrival()
    later.reset()
    assert hold.outcome() == "CancelledError"
    left.put(None)
    assert hold.outcome() == "finished"
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 4
    gc.collect()
    assert list(alive) == []


def test_a_blocking_handler_runs_to_its_end(live: LiveServer, raw: Any, hold: Hold) -> None:
    connection = raw(live)
    connection.send(request("GET", "/offload"))
    hold.wait_arrival()
    connection.reset()
    assert_serves(raw(live))
    hold.release()
    assert hold.outcome() == "finished"


@pytest.mark.parametrize("path", ["/reads", "/streams"])
def test_a_client_that_leaves_in_the_middle_of_its_body_ends_the_handler(
    live: LiveServer, raw: Any, hold: Hold, path: str
) -> None:
    connection = raw(live)
    connection.send(request("POST", path, "Content-Length: 1000000") + b"x" * 5000)
    hold.wait_arrival()
    connection.close()
    assert hold.outcome() in ("CancelledError", "ClientDisconnect")


@pytest.mark.parametrize("path", ["/reads", "/streams", "/typed"])
@pytest.mark.parametrize("coding", ["Content-Length: 1000000", "Transfer-Encoding: chunked"])
def test_a_hundred_aborted_uploads_leave_a_server_that_is_well(
    live: LiveServer, raw: Any, path: str, coding: str
) -> None:
    for number in range(100):
        connection = raw(live)
        body = chunked(b"x" * 1000, last=b"") if "chunked" in coding else b"x" * 1000
        connection.send(request("POST", path, coding) + body)
        if number % 3:
            connection.reset()
        else:
            connection.close()
    assert_serves(raw(live))


def test_a_handler_that_catches_the_disconnect_is_told_of_it(serve: Any, raw: Any) -> None:
    """Where it is not to be cancelled, the read itself says that the client left."""
    app = App()
    told: Queue[str] = Queue()
    arrived: Queue[None] = Queue()

    @app.post("/", cancel_on_disconnect=False)
    async def root(request: Request) -> None:
        arrived.put(None)
        try:
            await request.body()
        except ClientDisconnect:
            told.put("left")

    connection = raw(serve(app))
    connection.send(request("POST", "/", "Content-Length: 10"))
    take(arrived)
    connection.close()
    assert take(told) == "left"


# -- while it is being answered --------------------------------------------------------------------


def streaming(hold: Hold, closed: Queue[str], *, size: int, **options: Any) -> App:
    """Streams without end, of both kinds; `hold` is passed once, after the first chunk."""
    app = App()

    @app.get("/")
    def root() -> str:
        return "hello"

    @app.get("/async", **options)
    async def async_() -> StreamingResponse:
        async def chunks() -> Any:
            try:
                yield b"x" * size
                await hold()
                while True:
                    yield b"x" * size
            finally:
                closed.put("async")

        return StreamingResponse(chunks())

    @app.get("/sync", **options)
    async def sync() -> StreamingResponse:
        def chunks() -> Any:
            try:
                while True:
                    yield b"x" * size
            finally:
                closed.put("sync")

        return StreamingResponse(chunks())

    return app


@pytest.mark.parametrize("leave", LEAVE)
def test_a_generator_that_waits_is_closed(
    serve: Any, raw: Any, hold: Hold, leave: Callable[[Raw], None]
) -> None:
    closed: Queue[str] = Queue()
    live = serve(streaming(hold, closed, size=10))
    connection = raw(live)
    connection.send(request("GET", "/async"))
    hold.wait_arrival()
    connection.until(b"x" * 10)
    leave(connection)
    assert hold.outcome() == "CancelledError"
    assert take(closed) == "async"
    assert_serves(raw(live))


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("path", ["/async", "/sync"])
@pytest.mark.parametrize("behind", [b"", request("GET", "/")], ids=["alone", "pipelined"])
def test_a_generator_held_up_by_a_slow_client_is_closed(
    serve: Any, raw: Any, hold: Hold, leave: Callable[[Raw], None], path: str, behind: bytes
) -> None:
    hold.release()
    closed: Queue[str] = Queue()
    live = serve(streaming(hold, closed, size=1 << 20))
    connection = raw(live)
    connection.send(request("GET", path) + behind)
    connection.exactly(1 << 20)
    leave(connection)
    assert take(closed) == path[1:]
    assert_serves(raw(live))


def test_a_stream_that_may_go_on_without_its_client_ends_at_its_next_chunk(
    serve: Any, raw: Any, hold: Hold
) -> None:
    closed: Queue[str] = Queue()
    live = serve(streaming(hold, closed, size=10, cancel_on_disconnect=False))
    connection = raw(live)
    connection.send(request("GET", "/async"))
    hold.wait_arrival()
    connection.reset()
    assert_serves(raw(live))
    hold.release()
    assert hold.outcome() == "finished"
    assert take(closed) == "async"


# -- nothing stays ---------------------------------------------------------------------------------


def test_requests_leave_nothing_behind_however_they_end(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()
    alive: weakref.WeakSet[Any] = weakref.WeakSet()

    @app.get("/done")
    async def done(request: Request) -> str:
        alive.add(request)
        return "done"

    @app.get("/fails")
    async def fails(request: Request) -> str:
        alive.add(request)
        await asyncio.sleep(0)
        raise KeyError

    @app.exception_handler(KeyError)
    async def handle(request: Request, error: KeyError) -> str:
        return "handled"

    @app.get("/held")
    async def held(request: Request) -> None:
        alive.add(request)
        alive.add(asyncio.current_task())
        with hold.watched():
            await asyncio.Event().wait()

    @app.get("/stream")
    async def stream(request: Request) -> StreamingResponse:
        alive.add(request)

        async def chunks() -> Any:
            alive.add(asyncio.current_task())
            yield "a"
            with hold.watched():
                await asyncio.Event().wait()

        return StreamingResponse(chunks())

    live = serve(app)
    for number in range(200):
        connection = raw(live)
        path = ["/done", "/fails", "/held", "/stream"][number % 4]
        connection.send(request("GET", path))
        if path in ("/held", "/stream"):
            hold.wait_arrival()
        else:
            connection.response()
        connection.reset()
    for _ in range(100):
        assert hold.outcome() == "CancelledError"
    deadline = time.monotonic() + DEADLINE
    while gc.collect() is not None and len(alive) > 0:
        assert time.monotonic() < deadline, list(alive)
        # A turn of the lane: what it was about to let go is gone after it.
        with contextlib.closing(raw(live)) as other:
            other.get("/absent")


def test_a_reader_in_the_background_hears_of_its_client_that_leaves(
    serve: Any, raw: Any, hold: Hold
) -> None:
    app = App()
    failed: Future[BaseException] = Future()
    tasks = []

    async def in_background(request: Request) -> None:
        try:
            await request.body()
        except BaseException as error:
            failed.set_result(error)

    @app.post("/")
    async def handler(request: Request) -> None:
        tasks.append(asyncio.create_task(in_background(request)))
        await hold()

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 8\r\n\r\nhalf")
    hold.wait_arrival()
    connection.reset()
    assert isinstance(failed.result(10), ClientDisconnect)
    # It is not the handler that heard of it.
    assert hold.outcome() == "CancelledError"
