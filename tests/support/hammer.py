"""Load on a server for as long as a test needs it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from treadle.testing import LiveServer

PIPELINED = 16


@contextlib.contextmanager
def hammer(server: LiveServer, path: str, connections: int = 4) -> Iterator[None]:
    """Requests without a pause until left; inside, the load is on."""
    request = f"GET {path} HTTP/1.1\r\nhost: test\r\n\r\n".encode() * PIPELINED
    stop = threading.Event()
    flowing = threading.Barrier(connections + 1, timeout=10)

    def one() -> None:
        with socket.create_connection(server.address, timeout=10) as sock:
            answered = 0
            started = False
            sock.sendall(request)
            while not stop.is_set():
                answered += sock.recv(65536).count(b"HTTP/1.1 200")
                if answered >= PIPELINED:
                    answered -= PIPELINED
                    sock.sendall(request)
                    if not started:
                        started = True
                        flowing.wait()

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    try:
        flowing.wait()
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
