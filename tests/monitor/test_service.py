"""The thread that answers for a server: to whom, what, and what it withstands."""

from __future__ import annotations

import http.client
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.figures import stats

from treadle.binding import bind_tcp, bind_unix
from treadle.monitor import places, service
from treadle.monitor.service import Service
from treadle.telemetry import Stats

Start = Callable[..., int]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(read, metrics=True)` is the port of a service."""
    with ExitStack() as running:

        def begin(read: Callable[[], Stats] = stats, *, metrics: bool = True) -> int:
            binding = running.enter_context(bind_tcp("127.0.0.1", 0, 64))
            started = Service()
            started.add(binding.sockets[0], read, metrics=metrics)
            started.start()
            running.callback(started.stop)
            assert binding.port is not None
            return binding.port

        yield begin


def ask(port: int, path: str, method: str = "GET") -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    with answer:
        return answer, answer.read()


def test_stats_are_one_json_document(start: Start) -> None:
    answer, body = ask(start(), "/stats")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert json.loads(body)["lanes"][0]["turns"] == 10


def test_metrics_are_prometheus_text(start: Start) -> None:
    answer, body = ask(start(), "/metrics?x=1")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"\ntreadle_lane_turns_total" in body


def test_head_has_the_length_and_no_body(start: Start) -> None:
    port = start()
    answer, body = ask(port, "/stats", "HEAD")
    assert (answer.status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(ask(port, "/stats")[1])


@pytest.mark.parametrize(
    ("path", "method", "metrics", "status"),
    [
        ("/", "GET", True, 404),
        ("/metrics", "GET", False, 404),
        ("/stats", "POST", True, 501),
    ],
)
def test_what_is_not_there_is_said_in_a_line(
    start: Start, path: str, method: str, metrics: bool, status: int
) -> None:
    answer, body = ask(start(metrics=metrics), path, method)
    assert answer.status == status
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert body.count(b"\n") == 1


def test_what_cannot_be_read_is_500_and_in_the_log(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Stats:
        raise ValueError("out of order")

    answer, body = ask(start(fail), "/stats")
    assert answer.status == 500
    assert b"out of order" not in body
    assert "out of order" in caplog.text


def test_a_client_that_says_nothing_keeps_nobody_waiting(start: Start) -> None:
    port = start()
    with socket.create_connection(("127.0.0.1", port)):
        assert ask(port, "/stats")[0].status == 200


def test_a_client_that_says_little_at_a_time_has_no_more_time(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TIMEOUT", 0.3)
    with socket.create_connection(("127.0.0.1", start())) as client:
        client.sendall(b"GET /stats HTTP/1.0\r\nX: ")
        client.settimeout(0.05)
        for _ in range(200):
            try:
                client.sendall(b"x")
                if not client.recv(1):
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    pytest.fail("it is still listened to")


def test_no_more_than_a_few_are_answered_at_once(start: Start) -> None:
    port = start()
    with ExitStack() as silent:
        for _ in range(service.MOST):
            silent.enter_context(socket.create_connection(("127.0.0.1", port)))
        with socket.create_connection(("127.0.0.1", port), timeout=10) as late:
            assert late.recv(1) == b""


def test_a_stop_does_not_wait_for_silent_clients(start: Start) -> None:
    with bind_tcp("127.0.0.1", 0, 8) as binding:
        running = Service()
        running.add(binding.sockets[0], stats, metrics=False)
        running.start()
        with socket.create_connection(binding.sockets[0].getsockname()):
            running.stop()
    assert not running._thread.is_alive()


def test_a_stop_does_not_wait_for_processes_that_were_forked() -> None:
    with bind_tcp("127.0.0.1", 0, 8) as binding:
        running = Service()
        running.add(binding.sockets[0], stats, metrics=False)
        running.start()
        inherited = os.dup(running._stop)  # as a child has it
        stopping = threading.Thread(target=running.stop)
        stopping.start()
        stopping.join(10)
        ended = not stopping.is_alive()
        os.close(inherited)
        stopping.join()
    assert ended


def test_a_client_that_leaves_early_is_no_failure(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    reached, left = threading.Event(), threading.Event()

    def slow() -> Stats:
        reached.set()
        left.wait(10)
        return stats()

    port = start(slow)
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(b"GET /stats HTTP/1.0\r\n\r\n")
    assert reached.wait(10)
    # Closed with a reset: the answer has nowhere to go.
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    left.set()
    assert ask(port, "/stats")[0].status == 200
    assert not [each for each in caplog.records if each.levelno >= logging.WARNING]


def test_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "stats.sock")
    with bind_unix(path, 8, private=True) as binding, ExitStack() as running:
        assert os.stat(path).st_mode & 0o777 == 0o600
        started = Service()
        started.add(binding.sockets[0], stats, metrics=False)
        started.start()
        running.callback(started.stop)

        def get() -> bytes:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)
                client.sendall(b"GET /stats HTTP/1.0\r\n\r\n")
                return client.recv(12)

        assert get() == b"HTTP/1.0 200"
        monkeypatch.setattr(places, "peer", lambda connection: (1, os.geteuid() + 1))
        assert get() == b"HTTP/1.0 403"
        monkeypatch.setattr(places, "peer", lambda connection: (1, 0))
        assert get() == b"HTTP/1.0 200"
