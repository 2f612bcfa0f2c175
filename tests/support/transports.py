"""Transports between two ends that a test holds, and protocols that write down what they see."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import treadle

MEGABYTE = 1024 * 1024


class Receiver(asyncio.BaseProtocol):
    """Keeps what has come."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.came = asyncio.Event()

    async def has(self, size: int) -> bytes:
        while len(self.data) < size:
            self.came.clear()
            await self.came.wait()
        return bytes(self.data)


class Recorder(Receiver, asyncio.Protocol):
    """Writes down what it is called with."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Any] = []
        self.transport: Any = None
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.resumed = asyncio.Event()
        self.keep_open = False

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.came.set()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        self.ended.set()
        return self.keep_open

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")
        self.resumed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append(("lost", exc))
        self.lost.set_result(exc)


class Lender(Receiver, asyncio.BufferedProtocol):
    """Lends a buffer of `size` bytes to be filled."""

    def __init__(self, size: int = 10) -> None:
        super().__init__()
        self.buffer = bytearray(size)
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        assert sizehint == -1
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]
        self.came.set()

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two blocking ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        return listener.accept()[0], there


async def connected(
    make: Callable[[], Any] = Recorder, *, small: bool = False
) -> tuple[Any, Any, socket.socket]:
    """A transport, its protocol, and the blocking socket at the other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    if small:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(make, sock=ours)
    return transport, protocol, theirs


def run(main: Callable[[], Awaitable[None]], **options: Any) -> None:
    treadle.run(asyncio.wait_for(main(), 20), **options)  # type: ignore[arg-type]


def read(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        assert part, f"the end after {len(data)} bytes"
        data += part
    return data


async def elsewhere(function: Callable[..., Any], *args: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, function, *args)
