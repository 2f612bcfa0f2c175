"""A handler answers with a stream when its client has been given up: the iterator is closed at once."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from queue import Queue
from typing import Any

import pytest
from support.hold import Hold, take
from support.messages import assert_problem, request

from treadle import App, StreamingResponse
from treadle.testing import LiveServer


class Chunks:
    """Chunks without end; says what is done with it, and when the Task that does it has ended."""

    def __init__(self) -> None:
        self.log = Queue[str]()

    def _ask(self) -> bytes:
        self.log.put("asked")
        return b"x"

    def _close(self) -> None:
        self.log.put("closed")
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: self.log.put("ended"))


class AsyncChunks(Chunks):
    def __aiter__(self) -> AsyncChunks:
        return self

    async def __anext__(self) -> bytes:
        return self._ask()

    async def aclose(self) -> None:
        await asyncio.sleep(0)
        self._close()


class SyncChunks(Chunks):
    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._ask()

    def close(self) -> None:
        self._close()


@pytest.fixture(params=[AsyncChunks, SyncChunks])
def chunks(request: pytest.FixtureRequest) -> Any:
    return request.param()


def assert_closed(chunks: Chunks) -> None:
    assert [take(chunks.log), take(chunks.log)] == ["closed", "ended"]


class Failed(Exception):
    pass


@pytest.fixture
def live(serve: Any, hold: Hold, chunks: Any) -> LiveServer:
    app = App()

    @app.get("/now")
    async def now() -> StreamingResponse:
        return StreamingResponse(chunks, headers={"X-Of": "get"})

    @app.get("/kept", cancel_on_disconnect=False)
    async def kept() -> StreamingResponse:
        await hold()
        return StreamingResponse(chunks)

    @app.get("/late", timeout=0.05)
    async def late() -> StreamingResponse:
        with contextlib.suppress(asyncio.CancelledError):
            await hold()
        return StreamingResponse(chunks)

    @app.get("/fails")
    async def fails() -> None:
        try:
            await hold()
        except asyncio.CancelledError as error:
            raise Failed from error

    @app.exception_handler(Failed)
    async def handle(_request: Any, _error: Failed) -> StreamingResponse:
        return StreamingResponse(chunks, status=503)

    @app.get("/held")
    async def held() -> None:
        await hold()

    return serve(app)


def test_one_of_which_only_the_head_is_asked_for(
    live: LiveServer, raw: Any, chunks: Chunks
) -> None:
    connection = raw(live)
    for _ in range(2):
        connection.send(request("HEAD", "/now"))
        response = connection.response("HEAD")
        assert (response.status, response.header("x-of")) == (200, "get")
        assert_closed(chunks)


@pytest.mark.parametrize("error", [Failed, asyncio.CancelledError])
def test_a_head_is_answered_although_the_iterator_cannot_be_closed(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    app = App()

    class Stuck:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"x"])

        def close(self) -> None:
            raise error

    @app.get("/")
    def root() -> StreamingResponse:
        return StreamingResponse(Stuck())

    connection = raw(serve(app))
    connection.send(request("HEAD"))
    assert connection.response("HEAD").status == 200
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert record.exc_info[0] is error


def leave(connection: Any, live: LiveServer, raw: Any, hold: Hold) -> None:
    """Ends `connection`, and returns once the server has seen it."""
    connection.reset()
    # Once this one's leaving was seen, that of the one before was.
    later = raw(live)
    later.send(request("GET", "/held"))
    hold.wait_arrival()
    later.reset()
    assert hold.outcome() == "CancelledError"


def test_the_client_that_leaves_does_not_break_into_the_close(
    serve: Any, raw: Any, hold: Hold
) -> None:
    app = App()

    class Slow(AsyncChunks):
        async def aclose(self) -> None:
            await hold()

    @app.get("/")
    async def root() -> StreamingResponse:
        return StreamingResponse(Slow())

    @app.get("/held")
    async def held() -> None:
        await hold()

    live = serve(app)
    connection = raw(live)
    connection.send(request("HEAD"))
    hold.wait_arrival()
    leave(connection, live, raw, hold)
    hold.release()
    assert hold.outcome() == "finished"


def test_a_handler_that_went_on_without_its_client(
    live: LiveServer, raw: Any, hold: Hold, chunks: Chunks
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/kept"))
    hold.wait_arrival()
    leave(connection, live, raw, hold)
    hold.release()
    assert hold.outcome() == "finished"
    assert_closed(chunks)


def test_a_handler_that_swallows_its_timeout(
    live: LiveServer, raw: Any, hold: Hold, chunks: Chunks
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/late"))
    assert_problem(connection.response(), 504, "Gateway Timeout")
    assert hold.outcome() == "CancelledError"
    assert_closed(chunks)


def test_an_exception_handler_of_what_failed_when_the_client_left(
    live: LiveServer, raw: Any, hold: Hold, chunks: Chunks
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/fails"))
    hold.wait_arrival()
    connection.reset()
    assert hold.outcome() == "CancelledError"
    assert_closed(chunks)


def test_an_iterator_of_the_pool_is_closed_there(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()
    log = Queue[str]()

    class Blocking:
        def __iter__(self) -> Iterator[bytes]:
            log.put("asked")
            return iter([b"x"])

        def close(self) -> None:
            log.put(threading.current_thread().name)

    @app.get("/", offload=True)
    def root() -> None:
        raise Failed

    @app.exception_handler(Failed)
    async def handle(_request: Any, _error: Failed) -> StreamingResponse:
        with contextlib.suppress(asyncio.CancelledError):
            await hold()
        return StreamingResponse(Blocking())

    connection = raw(serve(app))
    connection.send(request("GET"))
    hold.wait_arrival()
    connection.reset()
    assert hold.outcome() == "CancelledError"
    assert take(log).startswith("treadle-offload")
