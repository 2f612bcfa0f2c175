"""On a free-threaded build, importing the libraries leaves the GIL off."""

from __future__ import annotations

import subprocess
import sys

import pytest

from treadle import FREE_THREADED


@pytest.mark.skipif(not FREE_THREADED, reason="a build with the GIL")
@pytest.mark.parametrize(
    "module",
    [
        "aiohttp.web",
        "anyio.to_process",
        "asyncpg",
        "httpx",
        "psycopg",
        "redis.asyncio",
        "uvicorn",
        "websockets.asyncio.server",
    ],
)
def test_the_gil_stays_off(module: str) -> None:
    program = f"import sys, treadle, {module}; print(sys._is_gil_enabled())"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    if "libpq" in done.stderr:
        pytest.skip("psycopg needs libpq, which comes with PostgreSQL")
    assert (done.stdout, done.stderr) == ("False\n", "")
