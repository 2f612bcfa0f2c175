"""Asks a served lane over one pipelined connection, and reads its thread's CPU time.

The requests go out a batch at a time and come back as one, so the kernel's part is small and the
same for every route; the difference of two routes is theirs.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

__all__ = ["ROUTES", "LaneError", "drive"]

ROUTES = ("/sync", "/async", "/suspend", "/request", "/body")
_BATCH = 32
_PATIENCE = 10.0
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)


class LaneError(Exception):
    """The lane did not answer as it should."""


def drive(
    path: str, *, rounds: int, count: int, tick: Callable[[], None]
) -> dict[str, list[float]]:
    """Nanoseconds of the lane's CPU a request, by route, one value a round.

    `path` is the Unix socket of a server of `lane_app` with one lane; `tick` is called after each
    round. Raises `LaneError`.
    """
    found: dict[str, list[float]] = {route: [] for route in ROUTES}
    batches = max(1, count // _BATCH)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(path)
            for turn in range(rounds + 1):  # the first warms up
                for route in ROUTES:
                    spent = _ask(sock, route, batches) / (batches * _BATCH)
                    if turn:
                        found[route].append(spent)
                if turn:
                    tick()
        except OSError as error:
            raise LaneError(f"the lane of the budget did not answer ({error}).") from None
    return found


def _ask(sock: socket.socket, route: str, batches: int) -> int:
    one = len(_answer(sock, route))
    request = _request(route) * _BATCH
    before = int(_answer(sock, "/clock").rpartition(b"\r\n")[2])
    for _ in range(batches):
        sock.sendall(request)
        left = one * _BATCH
        while left:
            chunk = sock.recv(min(left, 1 << 16))
            if not chunk:
                raise ConnectionResetError("it closed the connection")
            left -= len(chunk)
    return int(_answer(sock, "/clock").rpartition(b"\r\n")[2]) - before


def _request(route: str) -> bytes:
    return f"GET {route} HTTP/1.1\r\nHost: lane\r\n\r\n".encode()


def _answer(sock: socket.socket, route: str) -> bytes:
    """One whole answer, head and body; `OSError` unless it is 200."""
    sock.sendall(_request(route))
    got = b""
    while b"\r\n\r\n" not in got or len(got) < _size(got):
        chunk = sock.recv(1 << 16)
        if not chunk:
            raise ConnectionResetError("it closed the connection")
        got += chunk
    if not got.startswith(b"HTTP/1.1 200 "):
        raise OSError(got.partition(b"\r\n")[0].decode("latin-1"))
    return got


def _size(got: bytes) -> int:
    head = got.index(b"\r\n\r\n") + 4
    length = _LENGTH.search(got, 0, head)
    return head + (int(length[1]) if length is not None else 0)
