"""websockets, client and server, on the loop and in handlers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from support.servers import certificate
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

Run = Callable[[Coroutine[Any, Any, Any]], Any]


async def reverse(connection: ServerConnection) -> None:
    async for message in connection:
        if message == "leave":
            await connection.close(4000, "asked to")
        await connection.send(message[::-1])


@pytest.mark.parametrize("tls", [False, True], ids=["ws", "wss"])
def test_messages_of_any_size_both_ways(run: Run, tmp_path: Path, tls: bool) -> None:
    server_side = client_side = None
    if tls:
        chain, key = certificate(tmp_path)
        server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        server_side.load_cert_chain(chain, key)
        client_side = ssl.create_default_context(cafile=chain)

    async def main() -> None:
        async with serve(reverse, "127.0.0.1", 0, ssl=server_side) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"{'wss' if tls else 'ws'}://127.0.0.1:{port}"

            async def talk(number: int) -> None:
                async with connect(url, ssl=client_side, proxy=None) as connection:
                    for size in (0, 1, 125, 126, 70_000, 900_000):
                        text = "a" * size + str(number)
                        await connection.send(text)
                        assert await connection.recv() == text[::-1]
                    await connection.send(b"\x00\x01")
                    assert await connection.recv() == b"\x01\x00"
                    await asyncio.wait_for(await connection.ping(), 10)

            await asyncio.gather(*(talk(number) for number in range(8)))

    run(main())


def test_closing_from_either_side(run: Run) -> None:
    async def main() -> None:
        async with serve(reverse, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"ws://127.0.0.1:{port}"
            async with connect(url, proxy=None) as connection:
                await connection.send("leave")
                with pytest.raises(ConnectionClosedError, match="asked to"):
                    await connection.recv()
            async with connect(url, proxy=None) as connection:
                receiving = asyncio.create_task(connection.recv())
                await asyncio.sleep(0)
                await connection.close()
                with pytest.raises(ConnectionClosedOK):
                    await receiving

    run(main())
