"""aiohttp and httpx as clients of nginx, in the clear and over TLS, and aiohttp in handlers."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import aiohttp
import httpx
import pytest
from support.lanes import LANES
from support.servers import Nginx
from support.types import Connect, Serve

from treadle import App, Lane, StreamingResponse

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def trusting(nginx: Nginx) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=nginx.certificate)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_aiohttp_gets_posts_follows_and_streams(run: Run, nginx: Nginx, scheme: str) -> None:
    async def main() -> None:
        base = nginx.url if scheme == "http" else nginx.tls_url
        connector = aiohttp.TCPConnector(ssl=trusting(nginx), limit=8)
        async with aiohttp.ClientSession(base, connector=connector) as session:

            async def hello(number: int) -> str:
                async with session.get("/hello", params={"name": str(number)}) as response:
                    assert response.status == 200
                    return await response.text()

            names = await asyncio.gather(*(hello(number) for number in range(40)))
            assert names == [f"hello {number}" for number in range(40)]
            async with session.post("/discard", data=io.BytesIO(b"x" * 3_000_000)) as response:
                assert await response.text() == "POST 3000000"
            async with session.get("/moved") as response:
                assert await response.text() == "hello moved"
            for path in ("/file", "/zipped"):
                async with session.get(path) as response:
                    chunks = [chunk async for chunk in response.content.iter_any()]
                    assert b"".join(chunks) == nginx.file

    run(main())


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_httpx_gets_posts_follows_and_streams(run: Run, nginx: Nginx, scheme: str) -> None:
    async def main() -> None:
        async with httpx.AsyncClient(
            base_url=nginx.url if scheme == "http" else nginx.tls_url,
            verify=trusting(nginx),
            follow_redirects=True,
            trust_env=False,
        ) as client:
            answers = await asyncio.gather(
                *(client.get("/hello", params={"name": number}) for number in range(40))
            )
            assert [answer.text for answer in answers] == [f"hello {n}" for n in range(40)]
            answer = await client.post("/discard", content=b"x" * 3_000_000)
            assert answer.text == "POST 3000000"
            assert (await client.get("/moved")).text == "hello moved"
            for path in ("/file", "/zipped"):
                async with client.stream("GET", path) as response:
                    assert b"".join([part async for part in response.aiter_bytes()]) == nginx.file

    run(main())


def test_a_certificate_that_is_not_trusted_is_refused(run: Run, nginx: Nginx) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(nginx.tls_url + "/hello")
        async with httpx.AsyncClient(trust_env=False) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get(nginx.tls_url + "/hello")

    run(main())


# -- in handlers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", LANES)
def test_an_aiohttp_client_in_a_handler_reaches_another_server(
    serve: Serve, raw: Connect, lanes: int
) -> None:
    backend = App()

    @backend.post("/{n:int}")
    async def double(n: int, body: bytes) -> list[int]:
        await asyncio.sleep(0)
        return [2 * n, len(body)]

    @backend.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for _ in range(20):
                yield b"x" * 50_000

        return StreamingResponse(chunks())

    url = serve(backend).url
    app = App()

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(base_url=url) as session:
            lane.state.session = session
            yield

    @app.get("/many")
    async def many(lane: Lane) -> list[list[int]]:
        async def one(n: int) -> list[int]:
            async with lane.state.session.post(f"/{n}", data=b"x" * n * 1000) as response:
                return await response.json()  # type: ignore[no-any-return]

        return await asyncio.gather(*(one(n) for n in range(20)))

    @app.get("/stream")
    async def relay(lane: Lane) -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            async with lane.state.session.get("/stream") as response:
                async for chunk in response.content.iter_any():
                    yield chunk

        return StreamingResponse(chunks())

    server = serve(app, lanes=lanes)
    for _ in range(lanes):
        connection = raw(server)
        many_answer = connection.get("/many").body
        assert many_answer == str([[2 * n, 1000 * n] for n in range(20)]).replace(" ", "").encode()
        assert len(connection.get("/stream").body) == 1_000_000
