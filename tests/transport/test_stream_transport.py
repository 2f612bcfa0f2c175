"""Stream transports of the loop: real socket pairs and servers, both ends seen."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import re
import socket
import struct
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

import treadle

MEGABYTE = 1024 * 1024


class Recorder(asyncio.Protocol):
    """Writes down what it is called with."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.data = bytearray()
        self.transport: Any = None
        self.lost: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.came = asyncio.Event()
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

    async def has(self, size: int) -> bytes:
        while len(self.data) < size:
            self.came.clear()
            await self.came.wait()
        return bytes(self.data)


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


def test_it_is_a_transport_and_knows_its_addresses() -> None:
    async def main() -> None:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        address = server.sockets[0].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        transport: Any = writer.transport
        assert isinstance(transport, asyncio.Transport)
        assert type(transport).__name__ == "SocketTransport"
        assert writer.get_extra_info("peername") == address
        sock = writer.get_extra_info("socket")
        assert sock.getsockname() == writer.get_extra_info("sockname")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert transport.get_extra_info("nothing", 5) == 5
        assert f"fd={sock.fileno()}" in repr(transport)
        with pytest.raises(RuntimeError, match="is used by transport"):
            asyncio.get_running_loop().add_reader(sock.fileno(), print)
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        assert "closed" in repr(transport)
        assert writer.get_extra_info("peername") == address
        server.close()
        await server.wait_closed()

    run(main)


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_every_byte_comes_back_in_order(kind: str, debug: bool, tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(MEGABYTE):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def main() -> None:
        if kind == "tcp":
            server = await asyncio.start_server(echo, "127.0.0.1", 0)
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        else:
            server = await asyncio.start_unix_server(echo, tmp_path / "s")
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        for size in (1, 1000, 100_000, 5 * MEGABYTE):
            data = os.urandom(size)

            async def send(data: bytes = data) -> None:
                writer.write(data)
                await writer.drain()

            sending = asyncio.create_task(send())
            assert await reader.readexactly(size) == data
            await sending
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    run(main, debug=debug)


def test_write_takes_its_data_by_position_or_name_and_nothing_else() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        write: Any = transport.write
        assert write(b"one ") is None
        assert write(data=bytearray(b"two")) is None
        refused = {
            r"write\(\) missing 1 required positional argument: 'data'": ((), {}),
            r"write\(\) takes 1 argument but 2 were given": ((b"a", b"b"), {}),
            r"write\(\) got an unexpected keyword argument": ((), {"date": b"a"}),
        }
        for words, (positional, named) in refused.items():
            with pytest.raises(TypeError, match=words):
                write(*positional, **named)
        transport.close()
        assert theirs.recv(100) == b"one two"
        theirs.close()

    run(main)


def test_writes_of_a_turn_go_out_together() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        transport.write(b"one ")
        transport.writelines([b"two ", bytearray(b"three "), memoryview(b"four")])
        assert transport.get_write_buffer_size() == len(b"one two three four")
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert theirs.recv(100) == b"one two three four"
        assert transport.get_write_buffer_size() == 0
        transport.close()
        theirs.close()

    run(main)


def test_a_bytearray_may_be_changed_after_it_was_written() -> None:
    async def main() -> None:
        transport, _, theirs = await connected()
        for size in (10, 100_000):
            data = bytearray(b"x" * size)
            transport.write(data)
            data[:] = b"y" * size
            data.extend(b"more")
            assert await elsewhere(read, theirs, size) == b"x" * size
        transport.write(memoryview(b"abcdef")[::2])
        assert await elsewhere(read, theirs, 3) == b"ace"
        transport.close()
        theirs.close()

    run(main)


def test_what_was_written_is_sent_before_the_end() -> None:
    async def main() -> None:
        for end in ("close", "abort", "write_eof"):
            transport, _, theirs = await connected()
            transport.write(b"last words")
            getattr(transport, end)()
            assert theirs.recv(100) == b"last words"
            assert await elsewhere(theirs.recv, 100) == b""
            transport.close()
            theirs.close()

    run(main)


def test_what_was_written_is_sent_when_the_loop_stops() -> None:
    loop = treadle.new_event_loop()
    try:
        transport, _, theirs = loop.run_until_complete(connected(asyncio.Protocol))

        async def write() -> None:
            transport.write(b"before the stop")

        loop.run_until_complete(write())
        assert theirs.recv(100) == b"before the stop"
        transport.write(b"while stopped")
        loop.run_until_complete(asyncio.sleep(0))
        assert theirs.recv(100) == b"while stopped"
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
        assert theirs.recv(100) == b""
        theirs.close()
    finally:
        loop.close()


def test_water_marks_pause_and_resume_the_protocol() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected(small=True)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=1000, low=10)
        transport.write(b"x" * MEGABYTE)
        assert protocol.calls == ["made", "pause"]
        assert transport.get_write_buffer_size() > 1000
        transport.write(b"y")
        assert await elsewhere(read, theirs, MEGABYTE + 1) == b"x" * MEGABYTE + b"y"
        await protocol.resumed.wait()
        assert protocol.calls == ["made", "pause", "resume"]
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.close()
        assert await protocol.lost is None
        theirs.close()

    run(main)


def test_a_protocol_that_the_system_keeps_up_with_is_never_paused() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected()
        transport.set_write_buffer_limits(high=0)
        for _ in range(100):
            transport.write(b"x" * 10)
        assert transport.get_write_buffer_size() == 0
        assert await elsewhere(read, theirs, 1000)
        assert protocol.calls == ["made"]
        transport.close()
        theirs.close()

    run(main)


def test_close_waits_until_everything_is_sent() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected(small=True)
        transport.write(b"x" * MEGABYTE)
        transport.close()
        assert transport.is_closing()
        await asyncio.sleep(0)
        assert not protocol.lost.done()
        assert len(await elsewhere(read, theirs, MEGABYTE)) == MEGABYTE
        assert await protocol.lost is None
        assert theirs.recv(1) == b""
        theirs.close()

    run(main)


def test_write_eof_waits_until_everything_is_sent() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected(small=True)
        transport.write(b"x" * MEGABYTE)
        transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.write(b"more")
        with pytest.raises(RuntimeError, match=r"Cannot call writelines\(\) after write_eof\(\)"):
            transport.writelines([b"more"])
        assert len(await elsewhere(read, theirs, MEGABYTE)) == MEGABYTE
        assert await elsewhere(theirs.recv, 1) == b""
        theirs.sendall(b"answer")
        assert await protocol.has(6) == b"answer"
        transport.close()
        theirs.close()

    run(main)


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
def test_an_exception_of_the_protocol_ends_the_connection(method: str) -> None:
    async def main() -> None:
        reports: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reports.append(context))
        transport, protocol, theirs = await connected()
        error = ValueError("of the protocol")

        def fail(*_: Any) -> None:
            transport.write(b"written before")
            raise error

        setattr(protocol, method, fail)
        theirs.sendall(b"x")
        theirs.shutdown(socket.SHUT_WR)
        assert await protocol.lost is error
        (report,) = reports
        assert report["message"] == f"Fatal error: protocol.{method}() call failed."
        assert report["exception"] is error
        assert report["transport"] is transport
        assert report["protocol"] is protocol
        assert theirs.recv(100) == b"written before"
        theirs.close()

    run(main)


@pytest.mark.parametrize("method", ["data_received", "eof_received", "resume_writing"])
def test_debug_mode_finds_a_protocol_that_holds_the_loop_up(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        transport, protocol, theirs = await connected(small=True)
        usual = getattr(protocol, method)

        def slow(*args: Any) -> Any:
            time.sleep(0.03)
            return usual(*args)

        setattr(protocol, method, slow)
        loop.slow_callback_duration = 0.02
        caplog.clear()
        transport.write(b"x" * MEGABYTE)
        theirs.sendall(b"y")
        await asyncio.gather(protocol.has(1), elsewhere(read, theirs, MEGABYTE))
        await protocol.resumed.wait()
        theirs.close()
        await protocol.lost

    run(main, debug=True)
    said = [line.getMessage() for line in caplog.records if line.levelno == logging.WARNING]
    pattern = r"Executing callbacks of <.*Recorder.*> on <SocketTransport.*> took 0\.\d{3} seconds"
    assert any(re.fullmatch(pattern, line) for line in said), said


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


class Lender(asyncio.BufferedProtocol):
    def __init__(self, size: int = 10) -> None:
        self.buffer = bytearray(size)
        self.data = bytearray()
        self.lost = asyncio.get_running_loop().create_future()

    def get_buffer(self, sizehint: int) -> bytearray:
        assert sizehint == -1
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data += self.buffer[:nbytes]

    def eof_received(self) -> None:
        pass

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


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


def test_callbacks_run_in_the_context_of_creation() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main() -> None:
        seen: list[str] = []

        class Looks(Recorder):
            def data_received(self, data: bytes) -> None:
                seen.append(variable.get())
                variable.set("changed by the callback")
                super().data_received(data)

        variable.set("creator")
        transport, protocol, theirs = await connected(Looks)
        variable.set("later")
        theirs.sendall(b"x")
        await protocol.has(1)
        assert seen == ["creator"]
        assert variable.get() == "later"
        transport.close()
        theirs.close()

    run(main)


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


def test_another_thread_is_refused() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected()
        with pytest.raises(RuntimeError, match="this transport belongs to lane 0") as refused:
            await elsewhere(transport.write, b"x")
        assert "(thread MainThread) and cannot be used on thread asyncio_0" in str(refused.value)
        assert await elsewhere(transport.is_closing)
        assert not transport.is_closing()
        transport.close()
        assert await protocol.lost is None
        theirs.close()

    run(main)


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


@pytest.mark.parametrize("data", ["text", 5, None, [1]])
def test_only_bytes_can_be_written(data: Any) -> None:
    async def main() -> None:
        transport, _, theirs = await connected()
        with pytest.raises(TypeError, match="data argument must be a bytes"):
            transport.write(data)
        with pytest.raises(TypeError):
            transport.writelines([b"fine", data])
        transport.write(b"")
        transport.writelines([])
        assert transport.get_write_buffer_size() == 0
        transport.close()
        theirs.close()

    run(main)


@pytest.mark.parametrize("fallback", [False, True])
def test_sendfile_after_what_was_written(fallback: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MEGABYTE)

    async def main() -> None:
        transport, protocol, theirs = await connected()
        transport.write(b"head")
        received = asyncio.ensure_future(elsewhere(read, theirs, 4 + MEGABYTE + 4))
        loop = asyncio.get_running_loop()
        if fallback:
            transport._sendfile_compatible = asyncio.constants._SendfileMode.FALLBACK  # type: ignore[attr-defined]
        with path.open("rb") as file:
            assert await loop.sendfile(transport, file) == MEGABYTE
        transport.write(b"tail")
        assert await received == b"head" + b"f" * MEGABYTE + b"tail"
        transport.close()
        assert await protocol.lost is None
        theirs.close()

    run(main)
