"""redis.asyncio, on the loop and in handlers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from redis import asyncio as redis
from redis.exceptions import ResponseError
from support.lanes import LANES
from support.servers import Redis
from support.types import Connect, Serve

from treadle import App, Lane

Run = Callable[[Coroutine[Any, Any, Any]], Any]


@pytest.mark.parametrize("over", ["tcp", "unix"])
def test_commands_pipelines_scripts_and_big_values(
    run: Run, redis_server: Redis, over: str
) -> None:
    async def main() -> None:
        address: dict[str, Any] = (
            {"port": redis_server.port}
            if over == "tcp"
            else {"unix_socket_path": redis_server.path}
        )
        async with redis.Redis(**address) as client:
            await client.flushall()
            assert await client.set("key", b"x" * 1_000_000)
            assert await client.get("key") == b"x" * 1_000_000
            counted = await asyncio.gather(*(client.incr("counter") for _ in range(100)))
            assert sorted(counted) == list(range(1, 101))
            async with client.pipeline(transaction=True) as pipeline:
                for number in range(100):
                    pipeline.rpush("list", number)
                pipeline.lrange("list", 0, -1)
                answers = await pipeline.execute()
            assert answers[-1] == [b"%d" % number for number in range(100)]
            assert await client.eval("return ARGV[1] + 1", 0, "41") == 42
            with pytest.raises(ResponseError):
                await client.incr("list")

    run(main())


def test_subscribers_and_blocking_pops(run: Run, redis_server: Redis) -> None:
    async def main() -> None:
        async with (
            redis.Redis(port=redis_server.port) as client,
            client.pubsub(ignore_subscribe_messages=True) as channel,
        ):
            await client.flushall()
            await channel.subscribe("news")
            await channel.get_message(timeout=10)
            popping = asyncio.create_task(client.blpop(["list"], timeout=10))
            await client.publish("news", "first")
            await client.rpush("list", "value")
            assert tuple(await popping) == (b"list", b"value")
            message = await channel.get_message(timeout=10)
            assert message is not None
            assert message["data"] == b"first"
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.blpop(["nothing"], timeout=60)

    run(main())


@pytest.mark.parametrize("lanes", LANES)
def test_a_client_for_each_lane(
    serve: Serve, raw: Connect, redis_server: Redis, lanes: int
) -> None:
    app = App()

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        async with redis.Redis(port=redis_server.port) as client:
            await client.delete("hits")
            lane.state.client = client
            yield

    @app.get("/hit")
    async def hit(lane: Lane) -> int:
        return await lane.state.client.incr("hits")  # type: ignore[no-any-return]

    server = serve(app, lanes=lanes)
    connections = [raw(server) for _ in range(4)]
    hits = [int(connection.get("/hit").body) for connection in connections for _ in range(5)]
    assert hits == list(range(1, 21))
