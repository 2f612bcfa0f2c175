"""One look before the load."""

from __future__ import annotations

import io
import socket
from pathlib import Path

import pytest
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


def test_ipv6_addresses_lose_their_brackets() -> None:
    assert address("http://[::1]:80") == ("::1", 80)
