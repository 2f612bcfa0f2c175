"""A Unix socket serves as a port does."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hold import Hold
from support.messages import assert_problem, chunked, only_response, parsed, request

from treadle import FREE_THREADED, App, Request
from treadle.testing import LiveServer

LANES = [1, 2] if FREE_THREADED else [1]


@pytest.fixture
def path() -> Iterator[str]:
    """A path that is short enough for any system's sockets."""
    folder = tempfile.mkdtemp(prefix="treadle-")
    yield os.path.join(folder, "socket")
    shutil.rmtree(folder)


def app(hold: Hold | None = None) -> App:
    made = App()

    @made.post("/")
    async def root(request: Request) -> dict[str, Any]:
        return {"client": request.client, "body": await request.text()}

    @made.get("/held")
    async def held() -> str:
        assert hold is not None
        await hold()
        return "held"

    return made


@pytest.mark.parametrize("lanes", LANES)
def test_requests_are_answered(serve: Any, raw: Any, path: str, lanes: int) -> None:
    live: LiveServer = serve(app(), uds=path, lanes=lanes)
    connections = [raw(live) for _ in range(4)]
    for connection in connections * 2:
        connection.send(request("POST", "/", body=b"one"))
        connection.send(request("POST", "/", "Transfer-Encoding: chunked") + chunked(b"t", b"wo"))
        answers = [parsed(connection.response()) for _ in range(2)]
        assert answers == [{"client": None, "body": "one"}, {"client": None, "body": "two"}]
    assert not Path(path).exists() or Path(path).is_socket()


def test_bad_input_is_refused(serve: Any, raw: Any, path: str) -> None:
    live = serve(app(), uds=path)
    response = only_response(raw(live), b"G@T / HTTP/1.1\r\n\r\n" + b"x" * 300_000)
    assert response.status == 400


def test_the_client_leaves(serve: Any, raw: Any, path: str, hold: Hold) -> None:
    connection = raw(serve(app(hold), uds=path))
    connection.send(request("GET", "/held") + request("GET", "/held"))
    hold.wait_arrival()
    connection.close()
    assert hold.outcome() == "CancelledError"


def test_limits_hold(serve: Any, raw: Any, path: str) -> None:
    live = serve(app(), uds=path, limit_connections=1, timeout_header=0.1)
    first = raw(live)
    first.send(b"POST / HT")
    refused = only_response(raw(live), b"")
    assert_problem(refused, 503, "Service Unavailable")
    assert_problem(first.response(), 408, "Request Timeout")


def test_the_file_is_gone_when_the_server_is(serve: Any, path: str) -> None:
    live = serve(app(), uds=path)
    assert Path(path).is_socket()
    live.stop()
    assert not Path(path).exists()
