"""A place where the app under test stops until the test lets it go on: sequence instead of sleep.

The app connects to the gate's port and reads; the test accepts, knows where the app is, and releases
it with a byte. A connection that the app never leaves tells when its process is gone.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Self

SOURCE = '''\
import asyncio, os, socket
from treadle import App

app = App()

async def pause():
    """Stops the coroutine, not its lane."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(os.environ["GATE"]))
    try:
        await reader.read(1)
    finally:
        writer.close()

def block():
    """Stops the thread."""
    with socket.create_connection(("127.0.0.1", int(os.environ["GATE"]))) as gate:
        gate.recv(1)

held = []

def hold():
    """Goes on; the connection stays until the process ends."""
    held.append(socket.create_connection(("127.0.0.1", int(os.environ["GATE"]))))
'''
"""The beginning of an app that passes gates."""

DEAF = """\
import os
import treadle.console

treadle.console._PATIENCE = 0.01
unread, full = os.pipe()
os.set_blocking(full, False)
try:
    while True:
        os.write(full, bytes(4096))
except BlockingIOError:
    os.set_blocking(full, True)
os.dup2(full, 2)
"""
"""The beginning of an app whose standard error is a pipe that is full, and that nobody reads."""


class Arrival:
    """Code of the app that waits at the gate."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def release(self) -> None:
        """Lets it go on."""
        self._connection.sendall(b".")

    def wait_gone(self) -> None:
        """Waits until it left, by itself or because its process ended."""
        with contextlib.suppress(ConnectionResetError):
            assert self._connection.recv(1) == b""

    def close(self) -> None:
        self._connection.close()


class Gate:
    """One gate; `arrival` waits for the next to come."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(timeout)
        self._arrivals: list[Arrival] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def env(self) -> dict[str, str]:
        """What the app's environment needs."""
        return {"GATE": str(self.port)}

    def arrival(self) -> Arrival:
        """Waits for the next to arrive."""
        connection, _ = self._listener.accept()
        connection.settimeout(self._timeout)
        self._arrivals.append(Arrival(connection))
        return self._arrivals[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._listener.close()
        for arrival in self._arrivals:
            arrival.close()
