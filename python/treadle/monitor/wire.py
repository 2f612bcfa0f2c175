"""The few lines of HTTP that the two ends of a stats socket speak.

HTTP/1.0: one request a connection, an answer that ends where the connection ends or after
`Content-Length` bytes. So `curl --unix-socket` and Prometheus are clients as good as ours.
"""

from __future__ import annotations

import socket
import time

__all__ = ["Malformed", "ask", "receive"]

LARGEST = 256 << 20
"""Bytes of an answer; more is no answer of ours."""


class Malformed(Exception):
    """What came is not an answer. The text says what is wrong with it, to follow a colon."""


def ask(connection: socket.socket, path: str, host: str = "localhost") -> None:
    """Sends the request."""
    connection.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())


def receive(connection: socket.socket, deadline: float) -> tuple[int, bytes]:
    """Status and body of the answer, which must end before `deadline` (of `time.monotonic`).

    Raises `Malformed`, and OSError, of which TimeoutError is one.
    """
    received = bytearray()
    while len(received) <= LARGEST:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        chunk = connection.recv(1 << 18)
        if not chunk:
            break
        received += chunk
    head, separator, body = bytes(received).partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if (
        not separator
        or len(words) < 2
        or not words[0].startswith(b"HTTP/1.")
        or not words[1].isdigit()
    ):
        raise Malformed("it does not speak HTTP")
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip() != b"%d" % len(body):
            raise Malformed("the answer is incomplete")
    return int(words[1]), body
