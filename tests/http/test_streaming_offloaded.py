"""Responses whose chunks a thread of the pool makes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from queue import Queue
from typing import Any

import pytest
from support.hold import DEADLINE, Hold, take
from support.messages import assert_serves, request
from support.streams import streams

from treadle import App, StreamingResponse


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


def test_a_generator_that_an_iterable_makes_is_closed_on_the_pool(serve: Any, raw: Any) -> None:
    closed = Queue[str]()

    class Chunks:
        def __iter__(self) -> Iterator[bytes]:
            try:
                while True:
                    yield b"a" * 65536
            finally:
                closed.put("generator")
                closed.put(threading.current_thread().name)

        def close(self) -> None:
            closed.put("iterable")

    app = App()

    @app.get("/", offload=True)
    def root() -> StreamingResponse:
        return StreamingResponse(Chunks())

    connection = raw(serve(app))
    connection.send(request("GET"))
    connection.exactly(65536)
    connection.reset()
    assert take(closed) == "generator"
    assert take(closed).startswith("treadle-offload")
    assert take(closed) == "iterable"


def test_a_generator_that_outlasts_its_server_fails_nothing(
    serve: Any, raw: Any, hold: Hold, caplog: pytest.LogCaptureFixture
) -> None:
    threads: list[threading.Thread] = []

    def make() -> Iterator[bytes]:
        threads.append(threading.current_thread())
        hold.block()
        yield b"a"

    live = serve(streams(make, kind="sync", offload=True), grace=0.05)
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival()
    live.stop()
    hold.release()
    threads[0].join(DEADLINE)
    assert not threads[0].is_alive()
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_the_calls_for_chunks_are_counted_as_the_pools(serve: Any, raw: Any, hold: Hold) -> None:
    def make() -> Iterator[bytes]:
        yield b"a"
        hold.block()
        yield b"b"

    live = serve(streams(make, kind="sync", offload=True), offload_threads=1)
    offload = live.server.config.offload

    def wait_for(queued: int, busy: int) -> None:
        deadline = time.monotonic() + DEADLINE
        while offload() != (queued, busy):
            assert time.monotonic() < deadline, offload()
            assert_serves(other, "/other")

    other, first, second = raw(live), raw(live), raw(live)
    first.send(request("GET"))
    hold.wait_arrival()
    assert offload() == (0, 1)
    second.send(request("GET"))
    wait_for(1, 1)
    second.reset()
    wait_for(0, 1)
    hold.release()
    assert first.response().chunks == [b"a", b"b"]
    wait_for(0, 0)


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
