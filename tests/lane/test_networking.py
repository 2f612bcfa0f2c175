"""Sockets, streams, TLS and processes on the event loop.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.loops import Run


def test_the_sock_methods_work(run: Run) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            with socket.socket() as client:
                client.setblocking(False)
                accepted = asyncio.ensure_future(loop.sock_accept(listener))
                await loop.sock_connect(client, listener.getsockname())
                server, _ = await accepted
                with server:
                    sending = asyncio.ensure_future(loop.sock_sendall(client, b"x" * 5_000_000))
                    got = 0
                    while got < 5_000_000:
                        got += len(await loop.sock_recv(server, 65536))
                    await sending
                    await loop.sock_sendall(server, b"end")
                    return await loop.sock_recv(client, 10)

    assert run(main) == b"end"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_streams_carry_more_than_a_buffer_both_ways(run: Run) -> None:
    async def main() -> int:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

            async def send() -> None:
                for _ in range(50):
                    writer.write(b"x" * 100_000)
                    await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            data = await reader.read()
            await sending
            writer.close()
            await writer.wait_closed()
        return len(data)

    assert run(main) == 5_000_000


def test_unix_streams_and_datagrams_work(run: Run, tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        path = str(tmp_path / "s")
        server = await asyncio.start_unix_server(echo, path)
        async with server:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"unix\n")
            got = [await reader.readline()]
            writer.close()
            await writer.wait_closed()

        loop = asyncio.get_running_loop()
        received = loop.create_future()

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, address: Any) -> None:
                received.set_result(data)

        receiving, _ = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
        sending, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=receiving.get_extra_info("sockname")
        )
        sending.sendto(b"datagram")
        got.append(await received)
        sending.close()
        receiving.close()
        return got

    assert run(main) == [b"unix\n", b"datagram"]


def test_names_are_looked_up(run: Run) -> None:
    async def main() -> object:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("localhost", 80, family=socket.AF_INET)
        return found[0][4]

    assert run(main) == ("127.0.0.1", 80)


def test_processes_can_be_talked_to(run: Run) -> None:
    async def main() -> list[object]:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-Sc",
            "import sys; print(sys.stdin.read().upper(), end=''); sys.exit(3)",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        output, _ = await child.communicate(b"x" * 200_000)
        shell = await asyncio.create_subprocess_shell("exit 4")
        sleeper = await asyncio.create_subprocess_exec("sleep", "60")
        sleeper.kill()
        return [
            output == b"X" * 200_000,
            child.returncode,
            await shell.wait(),
            await sleeper.wait(),
        ]

    assert run(main) == [True, 3, 4, -9]


def test_tls_works_over_streams(run: Run, certificate: tuple[Path, Path]) -> None:
    chain, key = certificate

    async def main() -> bytes:
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(chain, key)
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=serving)
        async with server:
            trusting = ssl.create_default_context(cafile=chain)
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=trusting, server_hostname="localhost"
            )
            writer.write(b"x" * 300_000)
            data = await reader.readexactly(300_000)
            writer.close()
            await writer.wait_closed()
        return data

    assert run(main) == b"x" * 300_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-addext", "keyUsage=digitalSignature"),
            *("-keyout", key, "-out", chain),
        ],
        check=True,
        capture_output=True,
    )
    return chain, key
