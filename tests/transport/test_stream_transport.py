"""Stream transports of the loop: real socket pairs and servers, both ends seen."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from support.transports import MEGABYTE, Recorder, connected, elsewhere, read, run


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


@pytest.mark.parametrize("accepted", [False, True])
def test_who_waits_for_a_connection_goes_on_before_its_data_comes(accepted: bool) -> None:
    """It may have yet to tell the protocol what to do with them, however long the turn was."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        happened: list[str] = []
        received = loop.create_future()

        class Slow(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                began = time.monotonic()
                while time.monotonic() - began < 0.002:  # the turn is over then
                    pass
                happened.append("made")

            def data_received(self, data: bytes) -> None:
                happened.append("data")
                received.set_result(None)

        here, there = socket.socketpair()
        with there:
            there.send(b"x")
            connecting = (
                loop.connect_accepted_socket(Slow, here)
                if accepted
                else loop.create_connection(Slow, sock=here)
            )
            transport, _ = await connecting
            happened.append("connected")
            await received
            transport.close()
        assert happened == ["made", "connected", "data"]

    run(main)


def test_another_thread_can_say_which_transport_it_is() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected()
        fd = transport.get_extra_info("socket").fileno()
        assert repr(transport).startswith(f"<SocketTransport fd={fd} read=")
        assert await elsewhere(repr, transport) == f"<SocketTransport fd={fd} of another thread>"
        assert await elsewhere(transport.get_extra_info, "socket") is not None
        transport.close()
        assert await protocol.lost is None
        said = f"<SocketTransport closed fd={fd} of another thread>"
        assert await elsewhere(repr, transport) == said
        theirs.close()

    run(main)


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
