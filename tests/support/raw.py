"""A client that sends the bytes it is given and reads what comes back, byte for byte."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass, field
from typing import Self

DEADLINE = 10.0
"""Seconds any one read may take before the test fails."""


@dataclass(frozen=True, slots=True)
class RawResponse:
    """One response as it was on the wire."""

    version: str
    status: int
    reason: str
    headers: list[tuple[str, str]]
    """Names in lower case, in order, repeated ones too."""
    body: bytes = b""
    chunks: list[bytes] | None = None
    """The chunks of a chunked body; None if it was not chunked."""
    trailers: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str | None:
        """The value of the only header `name`, or None. Fails where there are several."""
        found = [value for key, value in self.headers if key == name.lower()]
        assert len(found) <= 1, f"{len(found)} headers {name}: {found}"
        return found[0] if found else None


class Raw:
    """One connection."""

    def __init__(self, address: tuple[str, int] | str, *, timeout: float = DEADLINE) -> None:
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout=timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- sending --

    def send(self, data: bytes | str) -> None:
        """Sends all of `data`."""
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def get(self, path: str = "/", *headers: str) -> RawResponse:
        """Sends a GET and reads its response."""
        self.send("\r\n".join((f"GET {path} HTTP/1.1", "Host: test", *headers, "", "")))
        return self.response()

    def finish(self) -> None:
        """Ends the sending side, as a client does that has said everything."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Closes with a RST, as a client does that crashed."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Closes both directions."""
        self.socket.close()

    # -- receiving --

    def response(self, method: str = "GET") -> RawResponse:
        """Reads the next response. `method` is that of its request: a HEAD has no body.

        Interim responses (1xx) are responses of their own. Raises `EOFError` if the connection ends
        before the response does.
        """
        version, status, reason = self._status_line()
        headers = self._headers()
        response = RawResponse(version, status, reason, headers)
        if method == "HEAD" or status < 200 or status in (204, 304):
            return response
        if (response.header("transfer-encoding") or "").lower() == "chunked":
            chunks, trailers = self._chunks()
            body = b"".join(chunks)
            return RawResponse(version, status, reason, headers, body, chunks, trailers)
        length = response.header("content-length")
        body = self.rest() if length is None else self.exactly(int(length))
        return RawResponse(version, status, reason, headers, body)

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes."""
        while len(self._buffer) < count:
            self._more()
        return self._take(count)

    def until(self, mark: bytes) -> bytes:
        """Everything up to `mark` and `mark` itself."""
        while mark not in self._buffer:
            self._more()
        return self._take(self._buffer.index(mark) + len(mark))

    def rest(self) -> bytes:
        """Everything until the server closes. A reset counts as the end."""
        try:
            while True:
                self._more()
        except (EOFError, ConnectionResetError):
            pass
        return self._take(len(self._buffer))

    def is_closed(self) -> bool:
        """Waits for the server to close; False if it sends something instead."""
        return self.rest() == b""

    def put_back(self, data: bytes) -> None:
        """Has `data` be received next."""
        self._buffer[:0] = data

    def _take(self, count: int) -> bytes:
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _more(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError(f"the connection ended after {bytes(self._buffer)!r}")
        self._buffer += data

    def _status_line(self) -> tuple[str, int, str]:
        line = self.until(b"\r\n")[:-2].decode("latin-1")
        version, status, reason = line.split(" ", 2)
        return version, int(status), reason

    def _headers(self) -> list[tuple[str, str]]:
        headers = []
        while line := self.until(b"\r\n")[:-2].decode("latin-1"):
            name, colon, value = line.partition(":")
            assert colon, f"no header: {line!r}"
            headers.append((name.lower(), value.strip()))
        return headers

    def _chunks(self) -> tuple[list[bytes], list[tuple[str, str]]]:
        chunks: list[bytes] = []
        while size := int(self.until(b"\r\n").split(b";")[0], 16):
            chunks.append(self.exactly(size))
            assert self.exactly(2) == b"\r\n"
        return chunks, self._headers()
