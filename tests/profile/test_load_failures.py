"""The load generator against servers that do wrong: what it counts, and as what."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.load import Counting, Drive, failures
from support.misbehaving import ANSWER, Conversation, Misbehaving, requests, reset, stall
from support.servers import free_port
from support.types import Serve

from treadle import App, Response
from treadle.profile.load import (
    LoadRequest,
)

# Runs last as long as they are told, whatever the machine does meanwhile.
pytestmark = pytest.mark.timing

# -- answers that were not expected ----------------------------------------------------------------


def test_an_answer_that_was_not_expected_is_a_failure(serve: Serve, drive: Drive) -> None:
    app = App()

    @app.get("/good")
    def good() -> None: ...

    @app.get("/bad")
    def bad() -> Response:
        return Response("out of order", status=503)

    result = drive(serve(app).address, "/good", "/bad")
    assert result.completed == result.requests[0].completed > 0
    assert result.requests[1].completed == result.requests[1].latency.count == 0
    assert result.requests[1].statuses == {503: result.failed}
    assert failures(result).keys() == {"status"}
    said = failures(result)["status"].example
    assert said == (
        "GET /bad was answered 503 Service Unavailable, expected a status below 400: out of order"
    )
    assert result.connections == 2  # such an answer is no reason to connect anew


def test_only_the_expected_statuses_are_right(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    sent = (
        LoadRequest(name="missing", path="/nowhere", expect=(404, 410)),
        LoadRequest(name="found", path="/a", expect=(201,)),
    )
    result = drive(serve(counting.app).address, requests=sent)
    assert result.requests[0].completed > 0
    assert result.requests[0].failed == 0
    assert result.requests[1].completed == 0
    assert "/a was answered 200 OK, expected 201: xxx" in failures(result)["status"].example


# -- broken ones -----------------------------------------------------------------------------------


def _garbage(connection: socket.socket) -> None:
    while requests(connection):
        connection.sendall(b"\x00\x01 this is no HTTP\r\n\r\n")


def _bad_chunk(connection: socket.socket) -> None:
    while requests(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")


def _close_midway(connection: socket.socket) -> None:
    requests(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")


def _close_silently(connection: socket.socket) -> None:
    requests(connection)


def _reset(connection: socket.socket) -> None:
    requests(connection)
    reset(connection)


@pytest.mark.parametrize(
    ("conversation", "kind"),
    [
        (_garbage, "malformed"),
        (_bad_chunk, "malformed"),
        (_close_midway, "closed"),
        (_close_silently, "closed"),
        (_reset, "reset"),
        (stall, "timeout"),
    ],
)
def test_a_broken_answer_is_counted_by_kind(
    drive: Drive, conversation: Conversation, kind: str
) -> None:
    with Misbehaving(conversation) as server:
        result = drive(server.address, timeout=0.1 if kind == "timeout" else 10.0)
    assert result.ending == "complete"  # it is there, if nothing more
    assert result.completed == 0
    assert failures(result).keys() == {kind}
    assert failures(result)[kind].example.startswith("GET /: ")
    assert result.connections > 2
    # Each worker keeps off for a while after a failure: no storm of connections.
    assert result.failed <= 2 * 31


# -- connections that end --------------------------------------------------------------------------


def test_a_closed_connection_is_opened_anew(drive: Drive) -> None:
    def one_each(connection: socket.socket) -> None:
        requests(connection)
        connection.sendall(ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

    with Misbehaving(one_each) as server:
        result = drive(server.address)
    assert result.failed == 0
    assert result.completed > 2
    assert result.completed <= result.connections <= result.completed + 2


def test_a_connection_that_is_closed_while_idle_is_no_failure(drive: Drive) -> None:
    def impatient(connection: socket.socket) -> None:
        if requests(connection):
            connection.sendall(ANSWER)
        # Not announced, and long before the next request is due.

    with Misbehaving(impatient) as server:
        result = drive(server.address, rate=10.0, duration=0.3, connections=1)
    assert result.failed == 0
    assert result.completed == 3


def test_a_server_that_is_not_there_ends_the_run_early(drive: Drive) -> None:
    before = time.monotonic()
    result = drive(("127.0.0.1", free_port()), duration=60.0, give_up=0.1)
    assert time.monotonic() - before < 20.0
    assert result.ending == "server gone"
    assert "refused" in result.reason
    assert result.completed == 0
    assert failures(result).keys() == {"refused"}
    assert result.latency.max == 0.0


def test_a_server_that_dies_leaves_a_partial_result(drive: Drive, tmp_path: Path) -> None:
    source = (
        "import itertools, os, signal\n"
        "from treadle import App\n"
        "app, count = App(), itertools.count(1)\n"
        "@app.get('/')\n"
        "def die():\n"
        "    if next(count) == 100:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "dying.py").write_text(source)
    port = free_port()
    command = [sys.executable, "-m", "treadle", "run", "dying:app", "--port", str(port)]
    command += ["--lanes", "1"]  # another would still answer
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        result = drive(("127.0.0.1", port), duration=60.0, give_up=0.2)
    assert result.ending == "server gone"
    assert 90 <= result.completed < 100
    assert result.latency.count == result.completed
    assert "refused" in failures(result)
    assert failures(result).keys() <= {"refused", "reset", "closed"}
    assert result.seconds < 30.0
