"""Libraries that live on an event loop, inside handlers on lanes."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from support.lanes import LANES
from support.types import Connect, Serve

from treadle import App, Lane, StreamingResponse

# -- HTTP client ----------------------------------------------------------------------------------


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


# -- processes ------------------------------------------------------------------------------------


def test_a_handler_can_run_processes(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/{word}")
    async def upper(word: str) -> str:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-Sc",
            "import sys; sys.stdout.write(sys.stdin.read().upper())",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        output, _ = await child.communicate(word.encode())
        return f"{output.decode()} {child.returncode}"

    server = serve(app, lanes=LANES[-1])
    connections = [raw(server) for _ in range(4)]
    for number, connection in enumerate(connections):
        connection.send(f"GET /word{number} HTTP/1.1\r\nHost: t\r\n\r\n")
    for number, connection in enumerate(connections):
        assert connection.response().body == b"WORD%d 0" % number


# -- PostgreSQL -----------------------------------------------------------------------------------


def postgres_programs() -> Path | None:
    """The folder of `initdb`: on PATH, or where Debian puts each version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="session")
def database() -> Iterator[str]:
    """A PostgreSQL of its own, by the folder of its socket; user and database `postgres`."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("there is no PostgreSQL here (Debian's package is postgresql)")
    # It refuses to be root's. A folder of pytest's would be out of another user's reach.
    folder = Path(tempfile.mkdtemp(prefix="treadle-pg-"))
    user = None
    if os.geteuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in known else "nobody"
        shutil.chown(folder, user)

    def call(program: str, *arguments: str) -> None:
        with (folder / "out").open("ab") as out:
            subprocess.run(
                [programs / program, "-D", folder / "data", *arguments],
                user=user,
                cwd=folder,
                env={**os.environ, "LC_ALL": "C"},
                stdout=out,
                stderr=out,
                check=True,
            )

    try:
        (folder / "out").touch()
        if user:
            shutil.chown(folder / "out", user)
        call("initdb", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        call("pg_ctl", "-w", "-t", "20", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield str(folder)
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
@pytest.mark.parametrize("lanes", LANES)
def test_asyncpg_works_with_a_pool_for_each_lane(
    serve: Serve, raw: Connect, database: str, lanes: int
) -> None:
    app = App()

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        async with asyncpg.create_pool(
            host=database, user="postgres", min_size=1, max_size=3
        ) as pool:
            lane.state.pool = pool
            yield

    @app.get("/rows/{count:int}")
    async def rows(lane: Lane, count: int) -> list[int]:
        found = await lane.state.pool.fetch("select n from generate_series(1, $1) n", count)
        return [row["n"] for row in found]

    @app.get("/many")
    async def many(lane: Lane) -> list[int]:
        queries = (lane.state.pool.fetchval("select $1::int * 2", n) for n in range(20))
        return await asyncio.gather(*queries)

    @app.get("/cancel")
    async def cancel(lane: Lane) -> int:
        try:
            async with asyncio.timeout(0.01):
                await lane.state.pool.execute("select pg_sleep(60)")
        except TimeoutError:
            return await lane.state.pool.fetchval("select 7")  # type: ignore[no-any-return]
        return 0

    @app.get("/transaction")
    async def transaction(lane: Lane) -> int:
        async with lane.state.pool.acquire() as connection:
            await connection.execute("create temp table t (n int)")
            try:
                async with connection.transaction():
                    await connection.execute("insert into t values (1)")
                    raise LookupError
            except LookupError:
                return await connection.fetchval("select count(*) from t")  # type: ignore[no-any-return]

    server = serve(app, lanes=lanes)
    for _ in range(lanes):
        connection = raw(server)
        assert connection.get("/rows/3").body == b"[1,2,3]"
        assert len(connection.get("/rows/20000").body) == 108_895
        assert connection.get("/many").body.startswith(b"[0,2,4,6,")
        assert connection.get("/cancel").body == b"7"
        assert connection.get("/transaction").body == b"0"


@pytest.mark.slow
@pytest.mark.parametrize("lanes", LANES)
def test_psycopg_works_with_a_connection_for_each_lane(
    serve: Serve, raw: Connect, database: str, lanes: int
) -> None:
    # It loads libpq, which comes with PostgreSQL.
    psycopg = pytest.importorskip("psycopg", exc_type=ImportError)
    app = App()

    async def connect() -> object:
        return await psycopg.AsyncConnection.connect(
            host=database, user="postgres", dbname="postgres", autocommit=True
        )

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        async with await connect() as lane.state.database:  # type: ignore[attr-defined]
            yield

    @app.get("/rows/{count:int}")
    async def rows(lane: Lane, count: int) -> list[int]:
        async with lane.state.database.cursor() as cursor:
            await cursor.execute("select n from generate_series(1, %s) n", (count,))
            return [row[0] for row in await cursor.fetchall()]

    @app.get("/notified")
    async def notified(lane: Lane) -> str:
        async with await connect() as listener:  # type: ignore[attr-defined]
            await listener.execute("listen heard")
            await lane.state.database.execute("notify heard, 'payload'")
            async for notice in listener.notifies(timeout=10, stop_after=1):
                return str(notice.payload)
        return "nothing"

    server = serve(app, lanes=lanes)
    for _ in range(lanes):
        connection = raw(server)
        assert connection.get("/rows/3").body == b"[1,2,3]"
        assert len(connection.get("/rows/20000").body) == 108_895
        assert connection.get("/notified").body == b"payload"
