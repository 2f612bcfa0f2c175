"""Responses made chunk by chunk: whole, as they come, in the task of their handler."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from queue import Queue
from typing import Any

import pytest
from support.hold import Hold, take
from support.messages import assert_serves, request
from support.streams import KINDS, streams

from treadle import App, StreamingResponse


@pytest.mark.parametrize("kind", KINDS)
def test_every_chunk_is_sent_as_one(serve: Any, raw: Any, kind: str) -> None:
    chunks = [b"one", b"two" * 1000, b"\x00\xff", b"four"]
    connection = raw(serve(streams(lambda: iter(chunks), kind=kind)))
    for _ in range(2):
        response = connection.get("/")
        assert response.header("transfer-encoding") == "chunked"
        assert response.header("content-length") is None
        assert response.body == b"".join(chunks)
        assert response.chunks == chunks


@pytest.mark.parametrize("kind", KINDS)
def test_text_is_utf_8_and_an_empty_chunk_does_not_end_the_body(
    serve: Any, raw: Any, kind: str
) -> None:
    connection = raw(serve(streams(lambda: iter(["", "é", b"", "", "€"]), kind=kind)))
    assert connection.get("/").body == "é€".encode()
    assert_serves(connection, "/other")


@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_of_nothing_is_empty(serve: Any, raw: Any, kind: str) -> None:
    connection = raw(serve(streams(lambda: iter([]), kind=kind)))
    response = connection.get("/")
    assert (response.status, response.body) == (200, b"")
    assert_serves(connection, "/other")


@pytest.mark.parametrize("content", [["a", "b"], ("a", "b"), iter("ab"), {"a": 1, "b": 2}])
def test_any_iterable_will_do(serve: Any, raw: Any, content: Any) -> None:
    app = App()

    @app.get("/")
    def root() -> StreamingResponse:
        return StreamingResponse(content)

    assert raw(serve(app)).get("/").body == b"ab"


def test_an_object_with_aiter_will_do(serve: Any, raw: Any) -> None:
    class Countdown:
        def __init__(self) -> None:
            self.left = 3

        def __aiter__(self) -> Countdown:
            return self

        async def __anext__(self) -> str:
            if self.left == 0:
                raise StopAsyncIteration
            self.left -= 1
            return str(self.left)

    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        return StreamingResponse(Countdown())

    assert raw(serve(app)).get("/").body == b"210"


def test_a_chunk_arrives_while_the_next_is_being_made(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "first"
            await hold()
            yield "second"

        return StreamingResponse(chunks())

    connection = raw(serve(app))
    connection.send(request("GET"))
    assert connection.until(b"first").endswith(b"\r\n\r\n5\r\nfirst")
    hold.wait_arrival()
    hold.release()
    assert connection.until(b"0\r\n\r\n") == b"\r\n6\r\nsecond\r\n0\r\n\r\n"


def test_the_generator_runs_in_the_task_and_context_of_its_handler(serve: Any, raw: Any) -> None:
    from contextvars import ContextVar

    variable: ContextVar[str] = ContextVar("variable", default="unset")
    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        variable.set("set")
        task = asyncio.current_task()

        async def chunks() -> AsyncIterator[str]:
            await asyncio.sleep(0)
            yield variable.get()
            yield " same" if asyncio.current_task() is task else " other"

        return StreamingResponse(chunks())

    connection = raw(serve(app))
    assert connection.get("/").body == b"set same"


def test_the_generator_that_an_iterable_makes_is_closed_in_the_same_task(
    serve: Any, raw: Any
) -> None:
    closed = Queue[bool]()

    class Chunks:
        async def __aiter__(self) -> AsyncIterator[bytes]:
            task = asyncio.current_task()
            try:
                while True:
                    yield b"x" * 65536
            finally:
                await asyncio.sleep(0)
                closed.put(asyncio.current_task() is task)

    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        return StreamingResponse(Chunks())

    connection = raw(serve(app))
    connection.send(request("GET"))
    connection.exactly(65536)
    connection.reset()
    assert take(closed)


class Bare:
    """An iterator as asyncio and `for` need it, and no more: it is not an iterable."""

    def __init__(self) -> None:
        self._left = [b"one", b"two"]

    def __next__(self) -> bytes:
        if not self._left:
            raise StopIteration
        return self._left.pop(0)

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop(0)


class Plain:
    def __iter__(self) -> Any:
        return Bare()


class Asynchronous:
    def __aiter__(self) -> Any:
        return Bare()


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("kind", [Plain, Asynchronous])
def test_what_an_iterable_makes_need_not_be_one(
    serve: Any, raw: Any, kind: Any, offload: bool
) -> None:
    app = App()

    @app.get("/", offload=offload)
    def root() -> StreamingResponse:
        return StreamingResponse(kind())

    assert raw(serve(app)).get("/").chunks == [b"one", b"two"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_is_closed_at_its_end(serve: Any, raw: Any, kind: str) -> None:
    ended: Queue[str] = Queue()

    def make() -> Iterator[str]:
        try:
            yield "x"
        finally:
            ended.put("ended")

    assert raw(serve(streams(make, kind=kind))).get("/").body == b"x"
    assert take(ended) == "ended"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("declared", "said"),
    [(4, "longer than its Content-Length"), (9, "3 bytes shorter than its Content-Length")],
)
def test_chunks_that_do_not_keep_the_length_are_a_failure(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, kind: str, declared: int, said: str
) -> None:
    def body() -> Any:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"abc"
            yield b"def"

        return chunks() if kind == "async" else iter([b"abc", b"def"])

    app = App()
    headers = {"content-length": str(declared)}
    app.get("/{n:int}")(lambda n: StreamingResponse(body(), headers=headers))
    connection = raw(serve(app))
    connection.send(request("GET", "/1"))
    head, _, sent = connection.rest().partition(b"\r\n\r\n")
    # What can still be said is said; otherwise the client gets less than it was told of.
    assert head.startswith(b"HTTP/1.1 500") or len(sent) < declared
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert said in str(record.exc_info[1])
    assert "/{n:int}" in record.getMessage()


def test_chunks_that_keep_the_length_are_sent_with_it(serve: Any, raw: Any) -> None:
    app = App()

    @app.get("/")
    def root() -> StreamingResponse:
        return StreamingResponse(iter([b"ab", b"", b"c"]), headers={"content-length": "3"})

    connection = raw(serve(app))
    for _ in range(2):
        response = connection.get("/")
        assert (response.header("content-length"), response.body) == ("3", b"abc")
