"""Responses made chunk by chunk: as they come, no faster than they are taken, never half unseen."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
from support.cli import RunCli
from support.hold import Hold, take
from support.messages import assert_problem, assert_serves, request
from support.raw import Raw

from treadle import App, StreamingResponse
from treadle.testing import LiveServer

KINDS = ["async", "sync"]
MIB = 1 << 20


def streams(make: Any, *, kind: str = "async", **options: Any) -> App:
    """An app whose `/` streams what `make` yields: an async or a sync generator function."""
    app = App()

    if kind == "async":

        @app.get("/", **options)
        async def root() -> StreamingResponse:
            async def chunks() -> AsyncIterator[Any]:
                for chunk in make():
                    await asyncio.sleep(0)
                    yield chunk

            return StreamingResponse(chunks())

    else:

        @app.get("/", **options)
        def root() -> StreamingResponse:
            return StreamingResponse(make())

    @app.get("/other")
    def other() -> str:
        return "other"

    return app


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


# -- a client that is slow -------------------------------------------------------------------------


class Endless:
    """Chunks without end; counts how many were asked for."""

    def __init__(self, size: int) -> None:
        self.chunk = b"x" * size
        self.produced = 0

    def __call__(self) -> Iterator[bytes]:
        while True:
            self.produced += 1
            yield self.chunk

    def settled(self, live: LiveServer, raw: Any) -> int:
        """How many were asked for once no more are, however often the lane turns."""
        with raw(live) as other:
            quiet, last = 0, -1
            while quiet < 30:
                assert_serves(other, "/other")
                quiet = quiet + 1 if self.produced == last else 0
                last = self.produced
        return last


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", [b"", request("GET")], ids=["alone", "pipelined"])
def test_a_slow_client_slows_the_generator(serve: Any, raw: Any, kind: str, behind: bytes) -> None:
    endless = Endless(64 * 1024)
    live = serve(streams(endless, kind=kind))
    connection = raw(live)
    connection.send(request("GET") + behind)
    stopped = endless.settled(live, raw)
    # What the system's buffers take; nothing of ours grows.
    assert stopped * len(endless.chunk) < 16 * MIB
    connection.exactly(32 * MIB)
    assert endless.produced > stopped
    assert endless.settled(live, raw) * len(endless.chunk) < 48 * MIB


def test_chunks_of_any_size_are_held_back(serve: Any, raw: Any) -> None:
    for size in (100, 8 * MIB):
        endless = Endless(size)
        live = serve(streams(endless, kind="sync"))
        connection = raw(live)
        connection.send(request("GET"))
        assert endless.settled(live, raw) * size < 40 * MIB
        connection.close()


LONG = """
from treadle import App, StreamingResponse

app = App()

@app.get("/{mib:int}")
async def root(mib: int):
    async def chunks():
        chunk = bytes(256 * 1024)
        for _ in range(mib * 4):
            yield chunk
    return StreamingResponse(chunks())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_long_stream_takes_no_more_memory_than_a_short_one(run_cli: RunCli, raw: Any) -> None:
    command = run_cli(LONG, "--lanes", "1")
    connection = raw(command)

    def peak_after(mib: int) -> int:
        """The most memory the server has had, in bytes, once it has sent so much."""
        connection.send(request("GET", f"/{mib}"))
        connection.until(b"\r\n\r\n")
        received = 0
        while size := int(connection.until(b"\r\n"), 16):
            connection.exactly(size + 2)
            received += size
        assert connection.exactly(2) == b"\r\n"
        assert received == mib * MIB
        status = Path(f"/proc/{command.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    short = peak_after(8)
    assert peak_after(128) - short < 8 * MIB


# -- a generator that fails ------------------------------------------------------------------------


def failing(after: int) -> Any:
    def make() -> Iterator[str]:
        for _ in range(after):
            yield "part"
        raise ValueError("a secret")

    return make


def assert_seen_to_fail(connection: Raw, data: bytes = b"") -> bytes:
    """Sends `data`; what comes back has a beginning and no end, or is a 500 as a whole."""
    connection.send(data)
    received = connection.rest()
    assert received.startswith((b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 500 "))
    assert received.startswith(b"HTTP/1.1 500 ") or b"0\r\n\r\n" not in received
    assert received.count(b"HTTP/1.1") == 1
    assert b"secret" not in received
    return received


def test_a_failure_midway_breaks_the_message_off(
    serve: Any, raw: Any, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()

    @app.get("/{name}")
    async def root(name: str) -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "first"
            yield "second"
            await hold()
            raise ValueError("a secret")

        return StreamingResponse(chunks())

    live = serve(app)
    connection = raw(live)
    connection.send(request("GET", "/x") + request("GET", "/behind"))
    hold.wait_arrival()
    begun = connection.until(b"6\r\nsecond\r\n")
    assert begun.startswith(b"HTTP/1.1 200 OK\r\n")
    hold.release()
    assert connection.is_closed()
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert re.match(r"request \d+: GET /\{name\} ", record.getMessage())
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ValueError)
    assert raw(live).get("/x/absent").status == 404


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_failure_close_behind_a_chunk_is_seen(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, kind: str, after: int
) -> None:
    live = serve(streams(failing(after), kind=kind))
    assert_seen_to_fail(raw(live), request("GET") + request("GET", "/other"))
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
    assert_serves(raw(live), "/other")


@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_before_the_first_chunk_is_seen_too(serve: Any, raw: Any, kind: str) -> None:
    live = serve(streams(failing(0), kind=kind))
    connection = raw(live)
    connection.send(request("GET"))
    try:
        response = connection.response()
    except EOFError:
        pass
    else:
        assert_problem(response, 500, "Internal Server Error")
    assert_serves(raw(live), "/other")


def test_a_failure_midway_is_a_reset_for_http_1_0(serve: Any, raw: Any, hold: Hold) -> None:
    """Nothing else would tell it from the end."""
    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "part"
            await hold()
            raise ValueError

        return StreamingResponse(chunks())

    live = serve(app)
    connection = raw(live)
    connection.send(request("GET", version="HTTP/1.0"))
    hold.wait_arrival()
    connection.until(b"part")
    hold.release()
    with pytest.raises(ConnectionResetError):
        connection.socket.recv(1)


@pytest.mark.parametrize("bad", [1, None, ["x"], "\ud800"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_that_is_no_bytes_is_a_failure(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, kind: str, bad: Any
) -> None:
    live = serve(streams(lambda: iter(["part", bad, "never"]), kind=kind))
    data = assert_seen_to_fail(raw(live), request("GET"))
    assert b"never" not in data
    assert len([r for r in caplog.records if r.levelno >= logging.ERROR]) == 1
    assert_serves(raw(live), "/other")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, BaseException, StopIteration])
def test_even_what_ends_programs_ends_only_the_stream(
    serve: Any, raw: Any, kind: str, error: type[BaseException]
) -> None:
    def make() -> Iterator[str]:
        yield "part"
        raise error

    live = serve(streams(make, kind=kind))
    assert_seen_to_fail(raw(live), request("GET"))
    assert_serves(raw(live), "/other")


def test_a_generator_that_fails_while_it_is_closed_is_logged_with_both_failures(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Iterator[str]:
        try:
            yield "part"
            raise ValueError("first")
        finally:
            raise KeyError("second")

    live = serve(streams(make, kind="sync"))
    assert_seen_to_fail(raw(live), request("GET"))
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert record.exc_info is not None
    error = record.exc_info[1]
    assert isinstance(error, KeyError)
    assert isinstance(error.__context__, ValueError)


def test_a_stream_that_its_server_cancels_is_broken_off(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()

    @app.get("/")
    async def root() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            yield "part"
            await hold()

        return StreamingResponse(chunks())

    live = serve(app, grace=0.05)
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival()
    live.stop()
    assert hold.outcome() == "CancelledError"
    data = connection.rest()
    assert b"part" in data
    assert not data.endswith(b"0\r\n\r\n")


# -- on the thread pool ----------------------------------------------------------------------------


def test_the_iterator_of_an_offloaded_handler_blocks_no_lane(
    serve: Any, raw: Any, hold: Hold
) -> None:
    threads: list[str] = []

    def make() -> Iterator[bytes]:
        threads.append(threading.current_thread().name)
        seen.set("set by the generator")
        yield b"a"
        hold.block()
        threads.append(threading.current_thread().name)
        yield seen.get().encode()

    seen = ContextVar("seen", default="")
    live = serve(streams(make, kind="sync", offload=True))
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival()
    assert_serves(raw(live), "/other")
    hold.release()
    assert connection.response().chunks == [b"a", b"set by the generator"]
    assert {name.rpartition("_")[0] for name in threads} == {"treadle-offload"}


@pytest.mark.parametrize("blocked", [False, True])
def test_an_iterator_on_the_pool_is_closed_when_its_client_leaves(
    serve: Any, raw: Any, hold: Hold, blocked: bool
) -> None:
    closed = Queue[str]()

    def make() -> Iterator[bytes]:
        try:
            yield b"a"
            if blocked:
                hold.block()
            while True:
                yield b"b" * 65536
        finally:
            closed.put(threading.current_thread().name)

    live = serve(streams(make, kind="sync", offload=True))
    connection = raw(live)
    connection.send(request("GET"))
    connection.until(b"\r\n\r\n1\r\na\r\n")
    if blocked:
        hold.wait_arrival()
    connection.close()
    if blocked:
        assert_serves(raw(live), "/other")
        hold.release()
    assert take(closed).startswith("treadle-offload")


def test_a_failure_on_the_pool_breaks_the_message_off(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def make() -> Iterator[bytes]:
        yield b"a"
        raise ValueError("midway")

    connection = raw(serve(streams(make, kind="sync", offload=True)))
    connection.send(request("GET"))
    assert not connection.rest().endswith(b"0\r\n\r\n")
    [record] = [record for record in caplog.records if record.levelname == "ERROR"]
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "midway"


# -- a length said before --------------------------------------------------------------------------


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
