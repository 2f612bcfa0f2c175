"""Requests as bytes, and what is expected of the answers to them."""

from __future__ import annotations

import json
from typing import Any

from support.raw import Raw, RawResponse


def request(
    method: str, path: str = "/", *headers: str, body: bytes = b"", version: str = "HTTP/1.1"
) -> bytes:
    """A request with a Host, `headers`, and a Content-Length if there is a body."""
    lines = [f"{method} {path} {version}", "Host: test", *headers]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def chunked(*chunks: bytes, last: bytes = b"0\r\n\r\n") -> bytes:
    """A chunked body."""
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + last


def only_response(connection: Raw, data: bytes, method: str = "GET") -> RawResponse:
    """Sends `data`; the one response that comes before the server closes."""
    connection.send(data)
    response = connection.response(method)
    rest = connection.rest()
    assert rest == b"", f"after {response}: {rest[:200]!r}"
    return response


def parsed(response: RawResponse) -> Any:
    """The body, which is JSON."""
    assert response.header("content-type") == "application/json", response
    return json.loads(response.body)


def assert_problem(response: RawResponse, status: int, detail: str) -> None:
    """It is the server's own answer for `status` and says nothing else."""
    assert (response.status, parsed(response)) == (status, {"detail": detail})


def assert_serves(connection: Raw, path: str = "/") -> None:
    """The server is well: it answers a plain request."""
    assert connection.get(path).status in (200, 204)


def refused(response: Any) -> list[tuple[list[object], str]]:
    """Places and reasons of a 422 that an httpx client got."""
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/json"
    return [(problem["loc"], problem["msg"]) for problem in response.json()["detail"]]
