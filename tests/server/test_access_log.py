"""The access log: one record for each request, with what it was and what became of it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from queue import Queue
from typing import Any

import pytest
from support.hold import Hold, take
from support.messages import request

from treadle import FREE_THREADED, App, HTTPException, StreamingResponse
from treadle.testing import LiveServer


class Records(logging.Handler):
    """The records of `treadle.access`, for the test to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: Queue[logging.LogRecord] = Queue()

    def emit(self, record: logging.LogRecord) -> None:
        self._queue.put(record)

    def next(self) -> dict[str, Any]:
        """The values of the next record."""
        record = take(self._queue)
        assert (record.name, record.levelno) == ("treadle.access", logging.INFO)
        return record.__dict__

    @property
    def is_empty(self) -> bool:
        return self._queue.empty()


@pytest.fixture
def records() -> Any:
    logger = logging.getLogger("treadle.access")
    handler = Records()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def app(hold: Hold | None = None) -> App:
    made = App()

    @made.get("/hello/{name}")
    def hello(name: str) -> dict[str, str]:
        return {"hello": name}

    @made.get("/nothing")
    def nothing() -> None: ...

    @made.get("/fails")
    async def fails() -> None:
        raise ValueError

    @made.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418)

    @made.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(10):
                yield b"x" * 1000

        return StreamingResponse(chunks())

    @made.get("/breaks")
    async def breaks() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"x" * 1000
            assert hold is not None
            await hold()
            raise ValueError

        return StreamingResponse(chunks())

    @made.get("/held")
    async def held() -> str:
        assert hold is not None
        await hold()
        return "held"

    return made


@pytest.fixture
def live(serve: Any, records: Records, hold: Hold) -> LiveServer:
    return serve(app(hold), access_log=True)


@pytest.mark.parametrize(
    ("path", "status", "size"),
    [
        ("/hello/ada", 200, len('{"hello":"ada"}')),
        ("/nothing", 204, 0),
        ("/teapot", 418, len('{"detail":"I\'m a Teapot"}')),
        ("/fails", 500, len('{"detail":"Internal Server Error"}')),
        ("/absent", 404, len('{"detail":"Not Found"}')),
        ("/stream", 200, 10_000),
    ],
)
def test_a_request_is_one_record(
    live: LiveServer, raw: Any, records: Records, path: str, status: int, size: int
) -> None:
    connection = raw(live)
    assert connection.get(path).status == status
    record = records.next()
    assert (record["method"], record["status"]) == ("GET", status)
    assert record["path"] == path
    assert record["bytes"] == size
    assert record["lane"] == 0
    assert 0 <= record["duration_ms"] < 5000
    assert record["client"].startswith("127.0.0.1")
    assert records.is_empty


def test_a_head_sends_no_bytes(live: LiveServer, raw: Any, records: Records) -> None:
    connection = raw(live)
    connection.send(request("HEAD", "/hello/ada"))
    assert connection.response("HEAD").status == 200
    record = records.next()
    assert (record["method"], record["status"], record["bytes"]) == ("HEAD", 200, 0)


def test_pipelined_requests_are_a_record_each_in_order(
    live: LiveServer, raw: Any, records: Records
) -> None:
    connection = raw(live)
    paths = [f"/hello/{number}" for number in range(20)]
    connection.send(b"".join(request("GET", path) for path in paths))
    for _ in paths:
        connection.response()
    assert [records.next()["path"] for _ in paths] == paths


def test_a_client_that_left_is_a_record_too(
    live: LiveServer, raw: Any, records: Records, hold: Hold
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/held"))
    hold.wait_arrival()
    connection.close()
    record = records.next()
    assert (record["path"], record["status"], record["bytes"]) == ("/held", 499, 0)
    assert record["complete"] is False


def test_a_response_that_broke_off_is_seen_to_be(
    live: LiveServer, raw: Any, records: Records, hold: Hold
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/breaks"))
    connection.until(b"x" * 1000)
    hold.release()
    record = records.next()
    assert (record["path"], record["status"], record["bytes"]) == ("/breaks", 200, 1000)
    assert record["complete"] is False


def test_a_head_that_was_refused_is_a_record_too(
    live: LiveServer, raw: Any, records: Records
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/nothing") + b"G@T / HTTP/1.1\r\n\r\n")
    assert connection.response().status == 204
    size = len(connection.response().body)
    assert records.next()["path"] == "/nothing"
    record = records.next()
    assert (record["method"], record["path"], record["status"]) == ("-", "-", 400)
    assert record["bytes"] == size > 0
    assert record["complete"] is True
    assert records.is_empty


def test_the_duration_is_that_of_the_whole_response(
    live: LiveServer, raw: Any, records: Records, hold: Hold
) -> None:
    connection = raw(live)
    connection.send(request("GET", "/held"))
    hold.wait_arrival()
    other = raw(live)
    for _ in range(20):
        other.get("/nothing")
    hold.release()
    assert connection.response().body == b"held"
    durations = {}
    for _ in range(21):
        record = records.next()
        durations.setdefault(record["path"], []).append(record["duration_ms"])
    assert durations["/held"][0] >= sum(durations["/nothing"])


def test_the_message_alone_says_it_all(live: LiveServer, raw: Any, records: Records) -> None:
    raw(live).get("/hello/ada")
    record = records.next()
    for value in ("GET", "/hello/ada", "200", str(record["bytes"])):
        assert value in record["msg"] % record["args"]


def test_nothing_of_a_request_breaks_the_line(live: LiveServer, raw: Any, records: Records) -> None:
    """What a client sends cannot forge a record."""
    raw(live).get("/hello/%0d%0aforged%00%1b[0m?a=%0a")
    record = records.next()
    message = record["msg"] % record["args"]
    assert message.isprintable()
    assert record["path"].isprintable()


def test_it_is_off_by_default(serve: Any, raw: Any, records: Records) -> None:
    connection = raw(serve(app()))
    assert connection.get("/hello/ada").status == 200
    assert connection.get("/hello/ada").status == 200
    assert records.is_empty


@pytest.mark.skipif(not FREE_THREADED, reason="several lanes need free threading")
def test_each_lane_says_which_it_is(serve: Any, raw: Any, records: Records) -> None:
    live = serve(app(), access_log=True, lanes=2)
    for connection in [raw(live) for _ in range(2)]:
        connection.get("/nothing")
    assert {records.next()["lane"] for _ in range(2)} == {0, 1}
