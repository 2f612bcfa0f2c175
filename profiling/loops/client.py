"""The load of an echo server: blocking sockets, so that it is the same for every loop."""

import os
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from profiling.errors import UnavailableError
from profiling.loops.scenarios import Echo

CONNECTIONS = 16
_PATIENCE = 20.0


@contextmanager
def connected(scenario: Echo, where: str | int) -> Iterator[list[socket.socket]]:
    """Connections to a server, closed when the block ends."""
    with ExitStack() as opened:
        yield [opened.enter_context(_connect(scenario, where)) for _ in range(CONNECTIONS)]


def _connect(scenario: Echo, where: str | int) -> socket.socket:
    if scenario.unix:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(_PATIENCE)
        connection.connect(str(where))
        return connection
    connection = socket.create_connection(("127.0.0.1", int(where)), _PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not scenario.tls:
        return connection
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def drive(connections: list[socket.socket], size: int, seconds: float) -> tuple[int, float]:
    """Send a message on every connection and read all echoes, again and again.

    Returns how many came back, and the seconds that took. Raises UnavailableError on a wrong one.
    """
    messages = [os.urandom(size) for _ in connections]
    buffer = bytearray(size)
    began = time.perf_counter()
    count = 0
    while (took := time.perf_counter() - began) < seconds:
        for connection, message in zip(connections, messages, strict=True):
            connection.sendall(message)
        for connection, message in zip(connections, messages, strict=True):
            _read(connection, buffer)
            if buffer != message:
                raise UnavailableError("an echo is not what was sent")
        count += len(connections)
    return count, took


def _read(connection: socket.socket, buffer: bytearray) -> None:
    with memoryview(buffer) as view:
        filled = 0
        while filled < len(buffer):
            got = connection.recv_into(view[filled:])
            if not got:
                raise UnavailableError("the server closed the connection")
            filled += got
