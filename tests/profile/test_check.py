"""One look before the load."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest
from support.misbehaving import ANSWER, Misbehaving, requests
from support.types import Serve

from treadle import App, HTTPException
from treadle.profile.check import WrongAnswer, address, check
from treadle.profile.load import LoadRequest
from treadle.profile.progress import Progress


@pytest.fixture
def app() -> App:
    app = App()

    @app.get("/json")
    def as_json() -> dict[str, int]:
        return {"n": 1}

    @app.get("/text")
    def as_text() -> str:
        raise HTTPException(418)

    return app


def _get(path: str, *expect: int) -> LoadRequest:
    return LoadRequest(name=f"GET {path}", path=path, expect=expect)


def test_answers_are_decoded_where_they_are_json(app: App, serve: Serve) -> None:
    server = serve(app)
    where = address(server.url)
    assert check(where, [_get("/json"), _get("/text", 418)], Progress(io.StringIO()))[0] == {"n": 1}


def test_a_unix_socket_is_asked_too(app: App, serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    serve(app, uds=path)
    assert check(address(f"unix:{path}"), [_get("/json")], Progress(io.StringIO())) == [{"n": 1}]


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (_get("/no"), "GET /no was answered 404; --allow-errors"),
        (_get("/json", 201, 204), "GET /json was answered 200, not 201 or 204;"),
    ],
)
def test_another_status_than_expected_is_told(
    app: App, serve: Serve, request_: LoadRequest, sentence: str
) -> None:
    with pytest.raises(WrongAnswer, match=sentence):
        check(address(serve(app).url), [request_], Progress(io.StringIO()))


def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        where = free.getsockname()
    with pytest.raises(WrongAnswer, match="GET /json was not answered"):
        check(where, [_get("/json")], Progress(io.StringIO()))


def test_every_header_is_sent_and_no_other() -> None:
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        seen.append(connection.recv(65536))
        connection.sendall(ANSWER)

    headers = (("cookie", "a=1"), ("cookie", "b=2"))
    with Misbehaving(answer) as server:
        check(server.address, [LoadRequest(name="x", headers=headers)], Progress(io.StringIO()))
    _, *lines = seen[0].decode().split("\r\n")
    assert [line.lower() for line in lines if line][1:] == ["cookie: a=1", "cookie: b=2"]


def test_an_answer_without_an_end_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.profile.check.PATIENCE", 0.1)

    def drip(connection: socket.socket) -> None:
        requests(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(b".")

    with (
        Misbehaving(drip) as server,
        pytest.raises(WrongAnswer, match=r"^GET /events was not answered \(timeout\)"),
    ):
        check(server.address, [_get("/events")], Progress(io.StringIO()))


def test_ipv6_addresses_lose_their_brackets() -> None:
    assert address("http://[::1]:80") == ("::1", 80)
