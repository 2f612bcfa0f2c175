"""How a stream transport ends: by the peer, by a failure, closed, forgotten."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import socket
import struct
import threading
import warnings
import weakref
from typing import Any

import pytest
from support.transports import Recorder, connected, elsewhere, read, run

import treadle


@pytest.mark.parametrize("keep_open", [False, True])
def test_the_end_of_the_peers_side(keep_open: bool) -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected()
        protocol.keep_open = keep_open
        theirs.shutdown(socket.SHUT_WR)
        await protocol.ended.wait()
        if keep_open:
            assert not transport.is_closing()
            transport.write(b"still here")
            assert await elsewhere(read, theirs, 10) == b"still here"
            transport.close()
        assert await protocol.lost is None
        assert protocol.calls == ["made", "eof", ("lost", None)]
        theirs.close()

    run(main)


def test_a_reset_ends_the_connection_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        made = asyncio.get_running_loop().create_future()

        class Served(Recorder):
            def connection_made(self, transport: Any) -> None:
                super().connection_made(transport)
                made.set_result(self)

        server = await asyncio.get_running_loop().create_server(Served, "127.0.0.1", 0)
        theirs = socket.create_connection(server.sockets[0].getsockname())
        protocol = await made
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        theirs.close()
        error = await protocol.lost
        assert isinstance(error, ConnectionResetError)
        assert error.errno
        for _ in range(7):
            protocol.transport.write(b"too late")
        server.close()
        await server.wait_closed()

    run(main)
    warned = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert warned == ["socket.send() raised exception."] * 3


@pytest.mark.parametrize("method", ["data_received", "eof_received"])
@pytest.mark.parametrize("kind", [ValueError, TimeoutError])
def test_an_exception_of_the_protocol_ends_the_connection(
    method: str, kind: type[Exception]
) -> None:
    async def main() -> None:
        reports: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        transport, protocol, theirs = await connected()
        error = kind("of the protocol")

        def fail(*_: Any) -> None:
            transport.write(b"written before")
            raise error

        setattr(protocol, method, fail)
        theirs.sendall(b"x")
        theirs.shutdown(socket.SHUT_WR)
        assert await protocol.lost is error
        # What may be the system's word on the connection is nothing to report.
        assert len(reports) == (kind is ValueError)
        for report in reports:
            assert report["message"] == f"Fatal error: protocol.{method}() call failed."
            assert report["exception"] is error
            assert report["transport"] is transport
            assert report["protocol"] is protocol
        assert theirs.recv(100) == b"written before"
        theirs.close()

    run(main)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_ends_the_program_comes_out_of_the_loop(error: type[BaseException]) -> None:
    loop = treadle.new_event_loop()
    try:
        transport, protocol, theirs = loop.run_until_complete(connected())

        def leave(data: bytes) -> None:
            raise error

        protocol.data_received = leave
        theirs.sendall(b"x")
        with pytest.raises(error):
            loop.run_forever()
        protocol.data_received = protocol.data.extend
        theirs.sendall(b"y")
        while not protocol.data:
            loop.run_until_complete(asyncio.sleep(0))
        transport.close()
        loop.run_until_complete(protocol.lost)
        theirs.close()
    finally:
        loop.close()


def test_the_users_socket_may_be_closed_under_the_transport() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        number = ours.fileno()
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_connection(Recorder, sock=ours)
        ours.close()
        # The number is not given away while the transport uses it.
        other = socket.socket()
        assert other.fileno() != number
        theirs.sendall(b"x")
        assert await protocol.has(1) == b"x"
        transport.close()
        await protocol.lost
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)
        other.close()
        theirs.close()

    run(main)


def test_a_forgotten_transport_warns_and_closes_its_socket() -> None:
    loop = treadle.new_event_loop()
    transport, protocol, theirs = loop.run_until_complete(connected(asyncio.Protocol))
    theirs.settimeout(10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop.close()
        del transport, protocol
        gc.collect()
    messages = [str(warning.message) for warning in caught]
    assert [m for m in messages if m.startswith("unclosed transport <SocketTransport")]
    assert theirs.recv(1) == b""
    theirs.close()


def test_a_transport_forgotten_on_another_thread_closes_its_socket() -> None:
    loop = treadle.new_event_loop()
    kept = list(loop.run_until_complete(connected(asyncio.Protocol)))
    theirs = kept.pop()
    loop.close()
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        thread = threading.Thread(target=kept.clear)
        thread.start()
        thread.join()
        gc.collect()
        assert theirs.recv(1) == b""
    theirs.close()


class InCycle(asyncio.Protocol):
    """Refers to its transport and to itself, as a stream with a traceback does."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.itself = self


class Kept:
    """What a context variable holds."""


def test_a_closed_connection_collected_on_another_thread_leaves_nothing() -> None:
    variable = contextvars.ContextVar[Kept]("variable")
    kept: weakref.ref[Kept]

    async def once() -> socket.socket:
        nonlocal kept
        variable.set(value := Kept())
        kept = weakref.ref(value)
        transport, _, theirs = await connected(InCycle)
        transport.abort()
        return theirs

    async def main() -> None:
        with await asyncio.create_task(once()) as theirs:
            assert await elsewhere(theirs.recv, 1) == b""

    loop = treadle.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    gc.disable()
    try:
        thread.start()
        asyncio.run_coroutine_threadsafe(main(), loop).result(10)
        gc.collect()
        assert kept() is None
    finally:
        gc.enable()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_what_is_open_when_the_loop_of_an_ended_thread_closes_is_collected() -> None:
    peers: list[socket.socket] = []
    protocols: list[weakref.ref[InCycle]] = []

    async def main() -> None:
        _, protocol, theirs = await connected(InCycle)
        protocols.append(weakref.ref(protocol))
        peers.append(theirs)

    def live() -> None:
        loop = treadle.new_event_loop()
        for _ in range(3):
            loop.run_until_complete(main())
        loop.close()

    before = len(os.listdir("/proc/self/fd"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = threading.Thread(target=live)
        thread.start()
        thread.join()
        gc.collect()
    assert [protocol() for protocol in protocols] == [None] * 3
    messages = [str(warning.message) for warning in caught]
    assert len([m for m in messages if m.startswith("unclosed transport <SocketTransport")]) == 3
    for theirs in peers:
        theirs.settimeout(10)
        assert theirs.recv(1) == b""
        theirs.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_closed_loops_transport_still_says_whose_it_is() -> None:
    loop = treadle.new_event_loop()
    transport, protocol, theirs = loop.run_until_complete(connected())
    loop.close()
    assert transport.get_protocol() is protocol
    assert not transport.is_closing()
    other = asyncio.Protocol()
    transport.set_protocol(other)
    assert transport.get_protocol() is other
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        transport.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del transport, protocol
        gc.collect()
    theirs.close()


def test_closed_connections_leave_nothing() -> None:
    async def main() -> None:
        async def once() -> None:
            transport, protocol, theirs = await connected()
            theirs.sendall(b"x")
            await protocol.has(1)
            transport.write(b"y")
            transport.close()
            await protocol.lost
            theirs.close()

        for _ in range(5):
            await once()
        gc.collect()
        before = (len(gc.get_objects()), len(os.listdir("/proc/self/fd")))
        for _ in range(100):
            await once()
        gc.collect()
        after = (len(gc.get_objects()), len(os.listdir("/proc/self/fd")))
        assert after[0] - before[0] < 50
        assert after[1] == before[1]

    run(main)
