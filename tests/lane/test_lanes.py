"""Several lanes in one process: who gets a connection, and what each lane has of its own."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest
from support.lanes import connections, on_lane, several_lanes, wait_connections
from support.raw import Raw
from support.types import Connect, Serve

from treadle import App, Lane, Request

pytestmark = several_lanes


@pytest.fixture
def app() -> App:
    app = App()

    @app.get("/")
    def where(lane: Lane) -> int:
        return lane.index

    @app.get("/async")
    async def where_async(request: Request) -> list[int]:
        before = threading.get_ident()
        await asyncio.sleep(0)
        return [request.lane.index, int(before == threading.get_ident())]

    return app


def lane_of(connection: Raw) -> int:
    return int(connection.get().body)


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_connections_are_spread_evenly(serve: Serve, raw: Connect, app: App, lanes: int) -> None:
    server = serve(app, lanes=lanes)
    counts = Counter(lane_of(raw(server)) for _ in range(3 * lanes))
    assert counts == dict.fromkeys(range(lanes), 3)
    assert connections(server) == [3] * lanes


@pytest.mark.parametrize("lanes", [2, 4])
def test_a_new_connection_goes_to_the_lane_with_the_fewest(
    serve: Serve, raw: Connect, app: App, lanes: int
) -> None:
    server = serve(app, lanes=lanes)
    by_lane: dict[int, list[Raw]] = {index: [] for index in range(lanes)}
    for _ in range(3 * lanes):
        connection = raw(server)
        by_lane[lane_of(connection)].append(connection)
    for index in range(lanes):
        for connection in by_lane[index]:
            connection.close()
        wait_connections(server, 0, index)
        by_lane[index] = [raw(server) for _ in range(3)]
        assert [lane_of(connection) for connection in by_lane[index]] == [index] * 3


def test_a_connection_stays_on_its_lane_for_life(serve: Serve, raw: Connect, app: App) -> None:
    server = serve(app, lanes=4)
    for _ in range(4):
        connection = raw(server)
        home = lane_of(connection)
        for _ in range(20):
            assert connection.get("/async").body == b"[%d,1]" % home


def test_each_lane_has_its_own_loop_and_thread(serve: Serve, app: App) -> None:
    server = serve(app, lanes=4)

    async def look() -> tuple[object, ...]:
        thread = threading.current_thread()
        return asyncio.get_running_loop(), thread.name, thread.ident

    seen = [on_lane(server, index, look()) for index in range(4)]
    assert [name for _, name, _ in seen] == [f"treadle-lane-{index}" for index in range(4)]
    assert len({id(loop) for loop, _, _ in seen}) == 4
    assert len({ident for _, _, ident in seen}) == 4


def test_a_lane_that_is_blocked_does_not_hold_up_the_others(
    serve: Serve, raw: Connect, app: App
) -> None:
    inside, release = threading.Event(), threading.Event()

    @app.get("/block")
    def block(lane: Lane) -> int:
        inside.set()
        assert release.wait(10)
        return lane.index

    server = serve(app, lanes=2)
    blocked, free = raw(server), raw(server)
    home = {lane_of(blocked), lane_of(free)}
    assert home == {0, 1}
    blocked.send("GET /block HTTP/1.1\r\nHost: t\r\n\r\n")
    assert inside.wait(10)
    for _ in range(10):
        assert free.get().status == 200
    release.set()
    assert blocked.response().status == 200


def test_lanes_can_talk_to_each_other(serve: Serve, raw: Connect, app: App) -> None:
    loops: dict[int, asyncio.AbstractEventLoop] = {}

    @app.lane_lifespan
    async def lifespan(lane: Lane):  # type: ignore[no-untyped-def]
        loops[lane.index] = asyncio.get_running_loop()
        yield

    async def there() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    @app.get("/ask/{other:int}")
    async def ask(lane: Lane, other: int) -> str:
        future = asyncio.run_coroutine_threadsafe(there(), loops[other])
        return await asyncio.wrap_future(future)

    server = serve(app, lanes=2)
    for connection in (raw(server), raw(server)):
        for other in (0, 1):
            answer = connection.get(f"/ask/{other}").body
            assert answer == f"treadle-lane-{other}".encode()


def test_an_object_of_one_lane_refuses_to_work_on_another(
    serve: Serve, raw: Connect, app: App
) -> None:
    kept: list[Request] = []

    @app.post("/keep")
    async def keep(request: Request) -> int:
        kept.append(request)
        await request.body()
        return request.lane.index

    @app.get("/use")
    async def use() -> str:
        try:
            await kept[0].body()
        except RuntimeError as error:
            return str(error)
        return "no error"

    server = serve(app, lanes=2)
    first, second = raw(server), raw(server)
    assert {lane_of(first), lane_of(second)} == {0, 1}
    first.send("POST /keep HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx")
    assert first.response().status == 200
    assert first.get("/use").body == b"no error"
    assert b"on its own lane only" in second.get("/use").body


def test_numbers_of_requests_are_unique_across_lanes(serve: Serve, raw: Connect, app: App) -> None:
    @app.get("/id")
    def number(request: Request) -> int:
        return request.id

    server = serve(app, lanes=4)
    connections = [raw(server) for _ in range(4)]
    numbers = [connection.get("/id").body for connection in connections for _ in range(10)]
    assert len(set(numbers)) == 40
