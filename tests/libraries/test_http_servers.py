"""aiohttp and uvicorn as servers on the loop."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import uvicorn
from aiohttp import web
from support.servers import certificate, free_port

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def test_aiohttp_serves_streams_and_websockets(run: Run) -> None:
    async def main() -> None:
        app = web.Application()

        async def upper(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            async for chunk in request.content.iter_any():
                await response.write(chunk.upper())
            return response

        async def talk(request: web.Request) -> web.WebSocketResponse:
            socket = web.WebSocketResponse()
            await socket.prepare(request)
            async for message in socket:
                await socket.send_str(message.data[::-1])
            return socket

        app.router.add_post("/upper", upper)
        app.router.add_get("/talk", talk)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

                async def ask(number: int) -> None:
                    body = b"abc%d" % number * 20_000
                    async with session.post("/upper", data=body) as response:
                        assert await response.read() == body.upper()

                await asyncio.gather(*(ask(number) for number in range(10)))
                async with session.ws_connect("/talk") as socket:
                    for word in ("abc", "x" * 70_000 + "y"):
                        await socket.send_str(word)
                        assert await socket.receive_str() == word[::-1]
        finally:
            await runner.cleanup()

    run(main())


async def scope_of(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI app: the class of the running loop, and how much was sent to it."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    kind = type(asyncio.get_running_loop())
    body = f"{kind.__module__}.{kind.__qualname__} {length}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def test_uvicorn_serves_on_the_running_loop(run: Run, tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)

    class Server(uvicorn.Server):
        async def startup(self, *args: Any, **kwargs: Any) -> None:
            await super().startup(*args, **kwargs)
            started.set()

        @property
        def port(self) -> int:
            return int(self.servers[0].sockets[0].getsockname()[1])

    async def main() -> None:
        config = uvicorn.Config(
            scope_of, port=0, log_config=None, ssl_certfile=str(chain), ssl_keyfile=str(key)
        )
        server = Server(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(server._serve())  # signals are the main thread's
            await started.wait()
            async with httpx.AsyncClient(
                base_url=f"https://127.0.0.1:{server.port}", verify=False, trust_env=False
            ) as client:
                posts = (client.post("/", content=b"x" * n * 10_000) for n in range(20))
                for number, answer in enumerate(await asyncio.gather(*posts)):
                    assert answer.text == f"treadle.loop.EventLoop {number * 10_000}"
            server.should_exit = True

    started = asyncio.Event()
    run(main())


def test_uvicorn_takes_the_loop_by_name(tmp_path: Path) -> None:
    port = free_port()
    command = ["-m", "uvicorn", "--loop", "treadle:new_event_loop", "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, *command, "test_http_servers:scope_of"],
        cwd=Path(__file__).parent,
        stderr=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "/usr/bin:/bin"},
    ) as server:
        try:
            assert server.stderr is not None
            said = ""
            for line in server.stderr:
                said += line
                if "Uvicorn running" in line:
                    break
            assert "Uvicorn running" in said, said
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            connection.request("POST", "/", b"12345")
            assert connection.getresponse().read() == b"treadle.loop.EventLoop 5"
            connection.close()
        finally:
            server.terminate()
        rest = server.stderr.read()
        assert "Finished server process" in rest, rest
