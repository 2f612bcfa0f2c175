"""TLS over the loop's transports: what asyncio's own TLS promises, and large writes."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.transports import Lender

import treadle
import treadle.transports
from treadle.tls import TlsProtocol


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", path, "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


def contexts(certificate: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    return server, ssl.create_default_context(cafile=f"{certificate}.crt")


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(300_000):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("upgraded", [False, True])
def test_every_byte_comes_back_in_order(certificate: Path, upgraded: bool) -> None:
    server_side, client_side = contexts(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if upgraded:
            await writer.start_tls(server_side)
        await echo(reader, writer)

    async def main() -> None:
        first = None if upgraded else server_side
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=first)
        port = server.sockets[0].getsockname()[1]
        if upgraded:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await writer.start_tls(client_side, server_hostname="localhost")
        else:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=client_side, server_hostname="localhost"
            )
        assert writer.get_extra_info("ssl_object").version().startswith("TLS")
        for size in (1, 1000, 16 * 1024, 16 * 1024 + 1, 100_000, 3_000_000):
            data = os.urandom(size)
            half = size // 2

            async def send(data: bytes = data, half: int = half) -> None:
                writer.write(data[:half])
                writer.writelines([memoryview(data)[half:], b"", bytearray(b"!")])
                await writer.drain()

            sending = asyncio.create_task(send())
            assert await reader.readexactly(size + 1) == data + b"!"
            await sending
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    treadle.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


@pytest.mark.parametrize("together", [False, True])
def test_views_of_any_shape_are_sent_whole(certificate: Path, together: bool) -> None:
    server_side, client_side = contexts(certificate)
    data = os.urandom(240_000)
    views = [
        memoryview(data).cast("I"),
        memoryview(data).cast("B", (400, 600)),
        memoryview(data)[::2],
        memoryview(data),
    ]

    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_side)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_side, server_hostname="localhost"
        )
        if together:
            writer.writelines(views)
        for view in views:
            if not together:
                writer.write(view)
            assert await reader.readexactly(view.nbytes) == view.tobytes()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()

    treadle.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_a_client_may_begin_tls_before_the_server_does(certificate: Path) -> None:
    """Its first bytes lie in the reader then: not text that came before, but the handshake."""
    server_side, client_side = contexts(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readline() == b"STARTTLS\n"
        await writer.start_tls(server_side)
        await echo(reader, writer)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client_side.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        with socket.create_connection(server.sockets[0].getsockname()) as client:
            client.setblocking(False)
            await loop.sock_sendall(client, b"STARTTLS\n" + outgoing.read())

            async def step(act: Callable[[], Any]) -> Any:
                while True:
                    try:
                        return act()
                    except ssl.SSLWantReadError:
                        incoming.write(await loop.sock_recv(client, 65536))
                    finally:
                        await loop.sock_sendall(client, outgoing.read())

            await step(tls.do_handshake)
            await step(lambda: tls.write(b"sealed"))
            assert await step(lambda: tls.read(6)) == b"sealed"
        server.close()
        await server.wait_closed()

    treadle.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_an_upgrade_that_fails_closes_the_connection(certificate: Path) -> None:
    _, client_side = contexts(certificate)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"this is not TLS\n")
        await reader.read()
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        with pytest.raises(ssl.SSLError):
            await writer.start_tls(client_side, server_hostname="localhost")
        assert writer.transport.is_closing()
        with pytest.raises(ssl.SSLError):  # asked for here, or the log has it once it is collected
            await writer.wait_closed()
        server.close()
        await server.wait_closed()

    treadle.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_the_peers_end_arrives_and_water_marks_are_kept(certificate: Path) -> None:
    server_side, client_side = contexts(certificate)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        calls: list[str] = []
        made: asyncio.Future[Any] = loop.create_future()
        resumed = asyncio.Event()
        lost = loop.create_future()

        class Served(asyncio.Protocol):
            def connection_made(self, transport: Any) -> None:
                made.set_result(transport)

            def pause_writing(self) -> None:
                calls.append("pause")

            def resume_writing(self) -> None:
                calls.append("resume")
                resumed.set()

            def eof_received(self) -> None:
                calls.append("eof")

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(exc)

        server = await loop.create_server(Served, "127.0.0.1", 0, ssl=server_side)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_side, server_hostname="localhost"
        )
        transport = await made
        size = 0
        while not calls:
            transport.write(b"x" * 1_000_000)
            size += 1_000_000
        assert calls == ["pause"]
        assert transport.get_write_buffer_size() > 0
        assert len(await reader.readexactly(size)) == size
        await resumed.wait()
        assert transport.get_write_buffer_size() == 0
        writer.close()
        await writer.wait_closed()
        assert await lost is None
        assert calls == ["pause", "resume", "eof"]
        server.close()
        await server.wait_closed()

    treadle.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [1000, 40_000, 1_000_000])
@pytest.mark.parametrize("lend", [bytearray, lambda size: memoryview(bytearray(size)).cast("I")])
def test_a_buffer_that_the_protocol_lends_takes_several_records(
    certificate: Path, size: int, lend: Callable[[int], Any]
) -> None:
    server_side, client_side = contexts(certificate)

    class Served(Lender):
        def __init__(self) -> None:
            super().__init__()
            self.buffer = lend(size)
            served.set_result(self)

        def get_buffer(self, sizehint: int) -> Any:
            return self.buffer

        def buffer_updated(self, nbytes: int) -> None:
            with memoryview(self.buffer) as view:
                self.data += view.cast("B")[:nbytes]
            if isinstance(self.buffer, bytearray):
                self.buffer.append(0)  # nobody holds it any more
            self.came.set()

    async def main() -> None:
        nonlocal served
        served = asyncio.get_running_loop().create_future()
        server = await asyncio.get_running_loop().create_server(
            Served, "127.0.0.1", 0, ssl=server_side
        )
        _, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_side, server_hostname="localhost"
        )
        data = os.urandom(300_000)
        writer.write(data)
        protocol = await served
        assert await protocol.has(len(data)) == data
        writer.close()
        await writer.wait_closed()
        assert await protocol.lost is None
        server.close()
        await server.wait_closed()

    served: asyncio.Future[Any]
    treadle.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_an_empty_buffer_is_an_error_and_not_the_end(certificate: Path) -> None:
    server_side, client_side = contexts(certificate)

    class Served(Lender):
        def __init__(self) -> None:
            super().__init__(0)
            served.set_result(self)

        def get_buffer(self, sizehint: int) -> bytearray:
            return self.buffer

    async def main() -> None:
        nonlocal served
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: None)
        served = loop.create_future()
        server = await loop.create_server(Served, "127.0.0.1", 0, ssl=server_side)
        _, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_side, server_hostname="localhost"
        )
        writer.write(b"x")
        error = await (await served).lost
        assert str(error) == "get_buffer() returned an empty buffer"
        writer.close()
        server.close()
        await server.wait_closed()

    served: asyncio.Future[Any]
    treadle.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]


def test_it_works_over_a_transport_that_is_not_ours(certificate: Path) -> None:
    """That one asks for a buffer, as asyncio's do."""
    server_side, client_side = contexts(certificate)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=server_side)
        reader = asyncio.StreamReader(limit=1_000_000)
        ready = loop.create_future()
        over = TlsProtocol(
            loop, asyncio.StreamReaderProtocol(reader), client_side, ready, False, "localhost"
        )
        lower, _ = await loop.create_connection(lambda: over, *server.sockets[0].getsockname())
        assert not isinstance(lower, treadle.transports.SocketTransport)
        await ready
        transport = over._app_transport
        for size in (1, 16 * 1024 + 1, 300_000):
            data = os.urandom(size)
            transport.write(data)
            assert await reader.readexactly(size) == data
        transport.close()
        assert await reader.read() == b""
        server.close()
        await server.wait_closed()

    with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
        runner.run(asyncio.wait_for(main(), 20))


def test_a_connection_costs_no_buffer_of_its_own(certificate: Path) -> None:
    """asyncio's protocol keeps 256 KiB for each."""
    server_side, _ = contexts(certificate)
    loop = treadle.new_event_loop()
    try:
        protocol = TlsProtocol(loop, asyncio.Protocol(), server_side, None, True)
        assert len(protocol._ssl_buffer) == 0
        protocol._app_transport.abort()
    finally:
        loop.close()


def test_an_exception_of_the_protocol_ends_the_connection(certificate: Path) -> None:
    server_side, client_side = contexts(certificate)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[dict[str, Any]] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))
        error = ValueError("of the protocol")
        lost = loop.create_future()

        class Served(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                raise error

            def connection_lost(self, exc: Exception | None) -> None:
                lost.set_result(exc)

        server = await loop.create_server(Served, "127.0.0.1", 0, ssl=server_side)
        reader, writer = await asyncio.open_connection(
            *server.sockets[0].getsockname(), ssl=client_side, server_hostname="localhost"
        )
        writer.write(b"x")
        assert await lost is error
        assert reports[0]["exception"] is error
        assert await reader.read() == b""
        writer.close()
        server.close()
        await server.wait_closed()

    treadle.run(asyncio.wait_for(main(), 20))  # type: ignore[arg-type]
