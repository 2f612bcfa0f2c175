"""asyncpg and psycopg, on the loop and in handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import asyncpg
import pytest
from support.lanes import LANES
from support.types import Connect, Serve

from treadle import App, Lane

pytestmark = pytest.mark.slow

Run = Callable[[Coroutine[Any, Any, Any]], Any]

# Seconds until a query is cancelled. PostgreSQL ignores a cancel that comes before it has read
# the query, which then runs on, on any loop; on a busy machine that may take a while.
CANCEL_AFTER = 0.5


# -- on the loop ----------------------------------------------------------------------------------


def test_asyncpg_queries_cancels_copies_and_listens(run: Run, database: str) -> None:
    async def main() -> None:
        heard: asyncio.Queue[str] = asyncio.Queue()
        async with (
            asyncpg.create_pool(host=database, user="postgres", min_size=2, max_size=4) as pool,
            pool.acquire() as listener,
        ):
            await listener.add_listener("heard", lambda *notice: heard.put_nowait(notice[-1]))
            numbers = await asyncio.gather(
                *(pool.fetchval("select $1::int * 2", number) for number in range(50))
            )
            assert numbers == [2 * number for number in range(50)]
            with pytest.raises(TimeoutError):
                await pool.execute("select pg_sleep(60)", timeout=CANCEL_AFTER)
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("create temp table t (n int, s text) on commit drop")
                rows = [(number, "x" * number) for number in range(1000)]
                await connection.copy_records_to_table("t", records=rows)
                assert await connection.fetchval("select sum(length(s)) from t") == 499_500
                found = 0
                async for row in connection.cursor("select n from t order by n", prefetch=70):
                    assert row["n"] == found
                    found += 1
                assert found == 1000
            await pool.execute("notify heard, 'payload'")
            assert await asyncio.wait_for(heard.get(), 10) == "payload"
            with pytest.raises(asyncpg.UndefinedTableError):
                await pool.execute("select * from nowhere")
            await listener.remove_listener("heard", lambda *_: None)
            await listener.reset()

    run(main())


def test_psycopg_queries_pipelines_cancels_and_copies(run: Run, database: str) -> None:
    # It loads libpq, which comes with PostgreSQL.
    psycopg = pytest.importorskip("psycopg", exc_type=ImportError)

    async def main() -> None:
        connecting = psycopg.AsyncConnection.connect(
            host=database, user="postgres", dbname="postgres", autocommit=True
        )
        async with await connecting as connection:
            async with connection.pipeline():
                cursors = [await connection.execute("select %s::int", (n,)) for n in range(50)]
            assert [(await cursor.fetchone())[0] for cursor in cursors] == list(range(50))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(CANCEL_AFTER):
                    await connection.execute("select pg_sleep(60)")
            async with connection.cursor() as cursor:
                await cursor.execute("create temp table t (n int)")
                async with cursor.copy("copy t from stdin") as copy:
                    for number in range(5000):
                        await copy.write_row((number,))
                await cursor.execute("select count(*), sum(n) from t")
                assert await cursor.fetchone() == (5000, 12_497_500)

    run(main())


# -- in handlers ----------------------------------------------------------------------------------


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
            async with asyncio.timeout(CANCEL_AFTER):
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


@pytest.mark.parametrize("lanes", LANES)
def test_psycopg_works_with_a_connection_for_each_lane(
    serve: Serve, raw: Connect, database: str, lanes: int
) -> None:
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
