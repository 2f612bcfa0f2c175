"""One look before the load: whether each request is answered as it should be."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Sequence
from time import monotonic

from treadle.profile.load import LoadRequest
from treadle.profile.progress import Progress

__all__ = ["Address", "WrongAnswer", "address", "check"]

PATIENCE = 30.0
"""Seconds for one answer."""
_MOST = 1 << 20
"""Bytes of a body that are read."""

type Address = tuple[str, int] | str
"""Host and port, or the path of a Unix socket."""


class WrongAnswer(Exception):
    """The app does not answer what is to be profiled. The text is one sentence; `details` is what
    it wrote of it."""

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


def address(url: str) -> Address:
    """Where the server of that start line listens."""
    if url.startswith("unix:"):
        return url.removeprefix("unix:")
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


def check(where: Address, requests: Sequence[LoadRequest], progress: Progress) -> list[object]:
    """Sends each request once; what they were answered, decoded where that is JSON.

    Raises `WrongAnswer`.
    """
    found = []
    for request in requests:
        progress.say(f"asking for {request.name}")
        try:
            status, body = _ask(where, request)
        except (OSError, http.client.HTTPException) as error:
            why = "timeout" if isinstance(error, TimeoutError) else str(error) or repr(error)
            raise WrongAnswer(f"{request.name} was not answered ({why}).") from None
        if not (status in request.expect if request.expect else status < 400):
            raise WrongAnswer(
                f"{request.name} was answered {status}{_expected(request.expect)}; "
                "--allow-errors profiles it all the same."
            )
        found.append(_decoded(body))
    return found


def _expected(statuses: Iterable[int]) -> str:
    wanted = " or ".join(map(str, statuses))
    return f", not {wanted}" if wanted else ""


def _ask(where: Address, request: LoadRequest) -> tuple[int, bytes]:
    connection = _Connection(where)
    deadline = monotonic() + PATIENCE
    try:
        _send(connection, request)
        answer = connection.getresponse()
        body = bytearray()
        # As it comes: a stream without an end would always be in time with its next piece.
        while len(body) < _MOST and (piece := answer.read1(_MOST)):
            body += piece
            if monotonic() > deadline:
                raise TimeoutError
        return answer.status, bytes(body)
    finally:
        connection.close()


def _send(connection: http.client.HTTPConnection, request: LoadRequest) -> None:
    """Sends what the load will: every header, also where several have one name, and no others."""
    own_host = any(name.lower() == "host" for name, _ in request.headers)
    connection.putrequest(
        request.method, request.path, skip_host=own_host, skip_accept_encoding=True
    )
    for name, value in request.headers:
        connection.putheader(name, value)
    if request.body:
        connection.putheader("Content-Length", str(len(request.body)))
    connection.endheaders(request.body or None)


class _Connection(http.client.HTTPConnection):
    """A connection to a port or to a Unix socket."""

    def __init__(self, where: Address) -> None:
        self._where = where
        super().__init__("localhost" if isinstance(where, str) else where[0], timeout=PATIENCE)

    def connect(self) -> None:
        if not isinstance(self._where, str):
            self.sock = socket.create_connection(self._where, PATIENCE)
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self._where)


def _decoded(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return None
