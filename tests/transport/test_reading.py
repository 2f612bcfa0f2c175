"""What a stream transport reads: how much, into what, for which protocol."""

from __future__ import annotations

import array
import asyncio
import contextlib
import functools
import os
import socket
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from support.transports import MEGABYTE, Lender, Recorder, connected, run, tcp_pair


def test_pause_reading_holds_back_what_arrives() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected()
        transport.pause_reading()
        assert not transport.is_reading()
        theirs.sendall(b"held")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not protocol.data
        transport.resume_reading()
        assert transport.is_reading()
        assert await protocol.has(4) == b"held"
        transport.close()
        assert not transport.is_reading()
        theirs.close()

    run(main)


def test_a_busy_connection_does_not_starve_the_others() -> None:
    async def main() -> None:
        _, busy, flood = await connected()
        quiet, protocol, theirs = await connected()
        flood.setblocking(False)
        loop = asyncio.get_running_loop()
        data = b"x" * MEGABYTE

        def fill() -> None:
            with contextlib.suppress(BlockingIOError):
                flood.send(data)

        loop.add_writer(flood, fill)
        await busy.has(1)
        theirs.sendall(b"hello")
        assert await protocol.has(5) == b"hello"
        loop.remove_writer(flood)
        quiet.close()
        busy.transport.close()
        flood.close()
        theirs.close()

    run(main)


def descriptors(theirs: socket.socket) -> None:
    theirs.send(b"ab")
    passed = array.array("i", [theirs.fileno()])
    theirs.sendmsg([b"cd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, passed)])
    theirs.send(b"ef")


def urgent(theirs: socket.socket) -> None:
    theirs.send(b"abc")
    theirs.send(b"!", socket.MSG_OOB)
    theirs.send(b"def")


def several_writers(theirs: socket.socket) -> None:
    theirs.send(b"ab")
    subprocess.run(["printf", "cd"], stdout=theirs, check=True)
    theirs.send(b"ef")


@pytest.mark.parametrize("kind", [Recorder, functools.partial(Lender, 100)])
@pytest.mark.parametrize(
    ("ends", "send"),
    [
        (tcp_pair, urgent),
        (socket.socketpair, urgent),
        (socket.socketpair, descriptors),
        (socket.socketpair, several_writers),
    ],
)
def test_what_lies_behind_the_end_of_a_reception_is_read(
    ends: Callable[[], tuple[socket.socket, socket.socket]],
    send: Callable[[socket.socket], None],
    kind: Callable[[], Any],
) -> None:
    """The system ends a reception where urgent data, descriptors or credentials stand."""

    async def main() -> None:
        ours, theirs = ends()
        if send is several_writers:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        send(theirs)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(kind, sock=ours)
        assert await protocol.has(6) == b"abcdef"
        send(theirs)
        assert await protocol.has(12) == b"abcdefabcdef"
        transport.close()
        theirs.close()

    run(main)


def test_a_buffered_protocol_is_filled_in_place() -> None:
    async def main() -> None:
        _, protocol, theirs = await connected(Lender)
        theirs.sendall(bytes(range(256)))
        theirs.close()
        assert await protocol.lost is None
        assert protocol.data == bytes(range(256))

    run(main)


def test_messages_of_any_size_after_any_other_come_whole() -> None:
    """One that is about as large as the one before goes into its object directly."""
    kibibytes = [100, 100, 90, 40, 1, 100, 110, 250, 256, 300, 0.01, 256, 16, 16]
    messages = [os.urandom(int(size * 1024)) for size in kibibytes]

    class Pieces(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.pieces: list[bytes] = []

        def data_received(self, data: bytes) -> None:
            self.pieces.append(data)
            super().data_received(data)

    async def main() -> None:
        transport, protocol, theirs = await connected(Pieces)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MEGABYTE)
        for message in messages:
            protocol.data.clear()
            transport.pause_reading()
            theirs.sendall(message)
            transport.resume_reading()
            assert await protocol.has(len(message)) == message
        assert all(type(piece) is bytes for piece in protocol.pieces)
        assert max(map(len, protocol.pieces)) == 256 * 1024
        theirs.close()
        assert await protocol.lost is None
        assert b"".join(protocol.pieces) == b"".join(messages)

    run(main)


@pytest.mark.parametrize("lent", [bytearray(), b"read-only", None])
def test_a_buffer_that_cannot_be_filled_ends_the_connection(lent: Any) -> None:
    async def main() -> None:
        reports: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: reports.append(c))
        _, protocol, theirs = await connected(Lender)
        protocol.buffer = lent
        theirs.sendall(b"x")
        error = await protocol.lost
        assert isinstance(error, (RuntimeError, TypeError, BufferError))
        assert reports[0]["message"] == "Fatal error: protocol.get_buffer() call failed."
        theirs.close()

    run(main)


def test_the_protocol_may_be_changed_on_the_way() -> None:
    async def main() -> None:
        transport, first, theirs = await connected()
        theirs.sendall(b"to the first")
        await first.has(12)
        second = Lender()
        transport.set_protocol(second)
        assert transport.get_protocol() is second
        theirs.sendall(b"to the second")
        theirs.close()
        assert await second.lost is None
        assert second.data == b"to the second"
        assert not first.lost.done()

    run(main)


def test_the_protocol_may_be_changed_while_it_lends_a_buffer() -> None:
    class Leaver(Lender):
        def get_buffer(self, sizehint: int) -> bytearray:
            transport.set_protocol(second)
            return second.buffer

    async def main() -> None:
        nonlocal transport, second
        transport, _, theirs = await connected(Leaver)
        second = Lender()
        theirs.sendall(b"a message")
        assert await second.has(9) == b"a message"
        theirs.close()
        assert await second.lost is None

    transport: Any = None
    second: Any = None
    run(main)
