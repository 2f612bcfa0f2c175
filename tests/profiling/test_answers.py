"""The checks before the clock starts, against a server that can be told to misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from profiling.answers import fault
from profiling.scenarios import ANSWER, ITEMS, SYNC, SYNC_X16

GOOD = json.dumps(ANSWER).encode()
JSON = "application/json"
Behave = Callable[[bytes], tuple[int, str, bytes]]
Start = Callable[[Behave], int]


class QuietServer(ThreadingHTTPServer):
    """Says nothing of clients that leave as soon as they have seen enough."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(behave)` is the port of a server that answers what `behave(body)` returns."""
    servers: list[tuple[QuietServer, threading.Thread]] = []

    def begin(behave: Behave) -> int:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, kind, answer = behave(body)
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = QuietServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        servers.append((server, thread))
        return int(server.server_address[1])

    yield begin
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_the_right_answer_has_no_fault(start: Start) -> None:
    port = start(lambda body: (200, JSON, GOOD))
    assert fault(port, SYNC) is None
    assert fault(port, SYNC_X16) is None


@pytest.mark.parametrize(
    ("status", "kind", "body", "said"),
    [
        (500, JSON, GOOD, "answers with status 500"),
        (200, "text/plain", GOOD, "answers with text/plain"),
        (200, JSON, b'{"message":"hello"}', "answers b"),
        (200, JSON, b"hello", "answers b'hello'"),
    ],
)
def test_a_wrong_answer_is_told(
    start: Start, status: int, kind: str, body: bytes, said: str
) -> None:
    wrong = fault(start(lambda _: (status, kind, body)), SYNC)
    assert wrong is not None
    assert wrong.startswith(said)


def test_a_server_that_validates_nothing_is_found_out(start: Start) -> None:
    wrong = fault(start(lambda body: (200, JSON, GOOD)), ITEMS)
    assert wrong == "answers a body of the wrong type with status 200: it validates nothing"


def test_a_server_that_validates_has_no_fault(start: Start) -> None:
    def validate(body: bytes) -> tuple[int, str, bytes]:
        good = isinstance(json.loads(body)["price"], float)
        return (200, JSON, GOOD) if good else (422, JSON, b"{}")

    assert fault(start(validate), ITEMS) is None


def test_pipelined_requests_must_all_be_answered(start: Start) -> None:
    answered = iter([GOOD] * 6 + [b"{}"] * 16)
    wrong = fault(start(lambda body: (200, JSON, next(answered))), SYNC_X16)
    assert wrong == "answers 5 of 16 pipelined requests"


def test_nobody_there_is_a_fault() -> None:
    assert fault(1, SYNC) == "does not answer (ConnectionRefusedError)"
