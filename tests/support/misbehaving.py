"""Servers that do to a client what no server should; bytes in, bytes out, no HTTP."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from typing import Self

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

type Conversation = Callable[[socket.socket], None]
"""What is done with each connection, on a thread of its own; it is closed afterwards."""


class Misbehaving:
    """Accepts on a free port of 127.0.0.1 while the block runs."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()
        return host, port

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread that accepts, and those that converse.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(connection)
            thread = threading.Thread(target=self._converse, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._conversation(connection)
        with self._lock:
            self._open.discard(connection)


def requests(connection: socket.socket) -> int:
    """Waits for what a client sends next, requests without a body; how many came, 0 at the end."""
    received = connection.recv(65536)
    while received and not received.endswith(b"\r\n\r\n"):
        received += connection.recv(65536)
    return received.count(b"\r\n\r\n")


def reset(connection: socket.socket) -> None:
    """Has the closing of the connection be a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def stall(connection: socket.socket) -> None:
    """Begins an answer, and leaves it at that until the client gives up."""
    requests(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nand")
    requests(connection)  # none comes
