"""One client connection of the soak: sends bytes, reads answers, may be rude.

Owned by the one task of the traffic that opened it.
"""

import asyncio
import json
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Self

PATIENCE = 30.0
"""Seconds an answer may take, on a machine that is busy with other things too."""


class LostError(Exception):
    """An answer did not come, or was not the one that was asked for; the text says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response."""

    status: int
    body: bytes

    def json(self) -> object:
        """The body as JSON; None when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Client:
    """A connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use what `open` connected."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int, receive_buffer: int | None = None) -> Self:
        """Connect; raises LostError when the server takes no connection."""
        sock = socket.socket()
        try:
            sock.setblocking(False)
            if receive_buffer is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            async with asyncio.timeout(PATIENCE):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
                limit = receive_buffer or 2**16
                return cls(*await asyncio.open_connection(sock=sock, limit=limit))
        except (OSError, TimeoutError) as error:
            sock.close()
            raise LostError(f"no connection ({type(error).__name__})") from error

    async def send(self, data: bytes) -> None:
        """Write; raises LostError when the server has closed."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise LostError(f"cannot send ({type(error).__name__})") from error

    async def answer(self) -> Answer:
        """Read one response; raises LostError when it does not come whole and in time."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._answer()
        except TimeoutError as error:
            raise LostError(f"no answer within {PATIENCE:g} s") from error
        except (OSError, asyncio.IncompleteReadError, ValueError, IndexError) as error:
            raise LostError(f"a broken answer ({type(error).__name__})") from error

    async def some(self, count: int) -> bytes:
        """Read at most `count` bytes; raises LostError where there are none."""
        try:
            async with asyncio.timeout(PATIENCE):
                received = await self._reader.read(count)
        except (OSError, TimeoutError) as error:
            raise LostError(f"no bytes ({type(error).__name__})") from error
        if not received:
            raise LostError("the connection was closed early")
        return received

    async def leave(self) -> None:
        """Go without a word: the rest of what was asked is not wanted."""
        self._writer.transport.abort()
        await self.close()

    async def close(self) -> None:
        """Go politely."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    async def _answer(self) -> Answer:
        status = int((await self._reader.readuntil(b"\r\n")).split(b" ", 2)[1])
        length, chunked = 0, False
        while (line := await self._reader.readuntil(b"\r\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() == "transfer-encoding":
                chunked = True
        if not chunked:
            return Answer(status, await self._reader.readexactly(length))
        body = bytearray()
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)
        return Answer(status, bytes(body))
