"""Connections that a server of the loop accepts.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import contextvars
import resource
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.loops import FACTORIES, LoopFactory


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> LoopFactory:
    return FACTORIES[request.param]


@pytest.fixture(params=[False, True], ids=["", "debug"])
def run(factory: LoopFactory, request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    def run(main: Any) -> Any:
        with asyncio.Runner(loop_factory=factory, debug=request.param) as runner:
            return runner.run(asyncio.wait_for(main, 20))

    return run


class Greeter(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        transport.write(b"hello")
        transport.close()


async def ask(address: Any) -> bytes:
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_many_at_once_are_all_served(run: Any, kind: str, tmp_path: Path) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        address: Any = str(tmp_path / "socket")
        if kind == "tcp":
            server = await loop.create_server(Greeter, "127.0.0.1", 0, backlog=20)
            address = server.sockets[0].getsockname()
        else:
            server = await loop.create_unix_server(Greeter, address, backlog=20)
        assert await asyncio.gather(*(ask(address) for _ in range(20))) == [b"hello"] * 20
        server.close()
        await server.wait_closed()

    run(main())


def test_a_server_can_be_started_later_and_closed_with_its_clients(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(asyncio.Protocol, "127.0.0.1", 0, start_serving=False)
        address = server.sockets[0].getsockname()
        assert not server.is_serving()
        serving = asyncio.create_task(server.serve_forever())
        await asyncio.sleep(0)
        client, _ = await loop.create_connection(asyncio.Protocol, *address)
        assert server.is_serving()
        serving.cancel()
        if sys.version_info < (3, 14):
            # It waits for its clients there, where it ends them since.
            client.close()
        await asyncio.wait([serving])
        with pytest.raises(ConnectionRefusedError):
            await ask(address)
        client.close()
        await server.wait_closed()

    run(main())


def test_a_factory_can_close_the_server(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[Any] = []
        loop.set_exception_handler(lambda _, context: reports.append(context))

        def last() -> asyncio.Protocol:
            loop.call_soon(server.close)
            return Greeter()

        server = await loop.create_server(last, "127.0.0.1", 0)
        assert await ask(server.sockets[0].getsockname()) == b"hello"
        await server.wait_closed()
        assert not reports

    run(main())


def test_context_variables_that_a_factory_sets_are_its_connections(run: Any) -> None:
    variable = contextvars.ContextVar("variable", default=0)

    class Tell(Greeter):
        def __init__(self) -> None:
            self.before = variable.get()
            variable.set(self.before + 1)

        def connection_made(self, transport: Any) -> None:
            transport.write(b"%d %d" % (self.before, variable.get()))
            transport.close()

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Tell, "127.0.0.1", 0)
        for _ in range(3):
            assert await ask(server.sockets[0].getsockname()) == b"0 1"
        server.close()
        await server.wait_closed()

    run(main())


@pytest.mark.slow
def test_out_of_descriptors_it_says_so_and_tries_again(run: Any) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        reports: list[str] = []
        reported = asyncio.Event()

        def report(_: object, context: dict[str, Any]) -> None:
            reports.append(context["message"])
            reported.set()

        loop.set_exception_handler(report)
        server = await loop.create_server(Greeter, "127.0.0.1", 0)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as client, ExitStack() as held:
            client.setblocking(False)
            lowest = held.enter_context(open("/dev/null")).fileno()  # noqa: ASYNC230
            resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, limits[1]))
            try:
                await loop.sock_connect(client, server.sockets[0].getsockname())
                await reported.wait()
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            assert await loop.sock_recv(client, 10) == b"hello"
        assert set(reports) == {"socket.accept() out of system resource"}
        server.close()
        await server.wait_closed()

    run(main())
