"""Real clients: curl, aiohttp, httpx."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from treadle import App, Request, Response, StreamingResponse
from treadle.testing import LiveServer

LARGE = bytes(range(256)) * 8192
"""2 MiB: enough for curl to ask whether to go on."""


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    app = App()

    @app.get("/port")
    def port(request: Request) -> dict[str, Any]:
        assert request.client is not None
        return {"port": request.client[1], "query": request.query_string}

    @app.route("/echo", ["POST", "PUT", "PATCH", "DELETE"])
    async def echo(request: Request) -> Response:
        return Response(
            await request.body(), headers={"X-Method": request.method}, media_type="text/x-echo"
        )

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(100):
                await asyncio.sleep(0)
                yield b"%d," % number

        return StreamingResponse(chunks())

    @app.get("/nap")
    async def nap() -> str:
        await asyncio.sleep(0.02)
        return "rested"

    with LiveServer(app) as live:
        yield live


NUMBERS = b"".join(b"%d," % number for number in range(100))


# -- curl ------------------------------------------------------------------------------------------

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


def curl(*arguments: str, stdin: bytes = b"") -> bytes:
    """What curl writes; fails where curl finds anything wrong."""
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=25)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@needs_curl
def test_curl_gets_json(live: LiveServer) -> None:
    assert json.loads(curl(f"{live.url}/port?a=1"))["query"] == "a=1"


@needs_curl
def test_curl_uses_a_connection_again(live: LiveServer) -> None:
    written = curl(
        "--write-out",
        "%{num_connects} ",
        "--output",
        "/dev/null",
        f"{live.url}/port",
        "--next",
        "--silent",
        "--write-out",
        "%{num_connects}",
        "--output",
        "/dev/null",
        "--noproxy",
        "*",
        f"{live.url}/stream",
    )
    assert written == b"1 0"


@needs_curl
@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--request", "PUT"], id="with a length"),
        pytest.param(["--request", "PUT", "--header", "Transfer-Encoding: chunked"], id="chunked"),
        pytest.param(["--request", "PUT", "--header", "Expect: 100-continue"], id="asking first"),
        pytest.param(["--request", "PUT", "--http1.0"], id="in HTTP 1.0"),
    ],
)
def test_curl_uploads(live: LiveServer, options: list[str]) -> None:
    sent = curl(*options, "--data-binary", "@-", f"{live.url}/echo", stdin=LARGE)
    assert sent == LARGE


@needs_curl
def test_curl_reads_streams(live: LiveServer) -> None:
    assert curl(f"{live.url}/stream") == NUMBERS
    assert curl("--http1.0", f"{live.url}/stream") == NUMBERS
    assert curl("--raw", f"{live.url}/stream").endswith(b"\r\n0\r\n\r\n")


@needs_curl
def test_curl_asks_for_heads(live: LiveServer) -> None:
    head = curl("--head", f"{live.url}/port").decode()
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert "content-length: " in head


@needs_curl
def test_curl_is_refused_a_body_that_is_too_large(live: LiveServer, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(17 << 20))
    status = curl(
        "--write-out",
        "%{http_code}",
        "--output",
        "/dev/null",
        "--upload-file",
        str(large),
        f"{live.url}/echo",
    )
    assert status == b"413"


# -- aiohttp ---------------------------------------------------------------------------------------


async def test_aiohttp_uses_a_connection_again(live: LiveServer) -> None:
    ports = set()
    async with aiohttp.ClientSession(live.url) as session:
        for _ in range(10):
            async with session.get("/port") as response:
                ports.add((await response.json())["port"])
            async with session.get("/stream") as response:
                assert await response.read() == NUMBERS
    assert len(ports) == 1


async def test_aiohttp_uploads_as_it_goes(live: LiveServer) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for start in range(0, len(LARGE), 100_000):
            yield LARGE[start : start + 100_000]

    async with (
        aiohttp.ClientSession(live.url) as session,
        session.patch("/echo", data=parts(), expect100=True) as response,
    ):
        assert response.headers["X-Method"] == "PATCH"
        assert await response.read() == LARGE


async def test_aiohttp_asks_for_much_at_once(live: LiveServer) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(live.url, connector=connector) as session:

        async def nap() -> str:
            async with session.get("/nap") as response:
                return await response.text()

        assert await asyncio.gather(*(nap() for _ in range(200))) == ["rested"] * 200


# -- httpx -----------------------------------------------------------------------------------------


def test_httpx_uses_a_connection_again(live: LiveServer) -> None:
    with httpx.Client(base_url=live.url, trust_env=False) as client:
        ports = {client.get("/port").json()["port"] for _ in range(10)}
        assert client.get("/stream").content == NUMBERS
        ports.add(client.get("/port").json()["port"])
    assert len(ports) == 1


def test_httpx_uploads_as_it_goes(live: LiveServer) -> None:
    parts = (LARGE[start : start + 100_000] for start in range(0, len(LARGE), 100_000))
    response = httpx.post(f"{live.url}/echo", content=parts, trust_env=False)
    assert response.content == LARGE
    assert response.headers["content-type"] == "text/x-echo"


async def test_httpx_asks_for_much_at_once(live: LiveServer) -> None:
    limits = httpx.Limits(max_connections=50)
    async with httpx.AsyncClient(base_url=live.url, trust_env=False, limits=limits) as client:
        answers = await asyncio.gather(*(client.get("/nap") for _ in range(100)))
    assert [answer.text for answer in answers] == ["rested"] * 100


def test_httpx_reads_a_stream_as_it_comes(live: LiveServer) -> None:
    with httpx.stream("GET", f"{live.url}/stream", trust_env=False) as response:
        assert b"".join(response.iter_bytes()) == NUMBERS
