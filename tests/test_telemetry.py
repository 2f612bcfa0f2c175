"""What lanes and routes count, read while a real server answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from support.types import Connect, Serve

import treadle
from treadle import FREE_THREADED, App, HTTPException, LoopPool, StreamingResponse
from treadle.telemetry import STAGES, Distribution, OffloadStats, RouteStats, Stats

BUSY = 0.02
"""Seconds that a handler works where it is to be seen."""


def work(seconds: float = BUSY) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def route(app: App, template: str) -> RouteStats:
    """What is counted of one route so far."""
    nothing = RouteStats(method="", template=template, handler="", mode="")
    return next((each for each in app.stats().routes if each.template == template), nothing)


def until(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Waits for what another thread does soon."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        threading.Event().wait(0.001)


@pytest.fixture
def app() -> App:
    app = App()

    @app.get("/plain/{n:int}")
    def plain(n: int) -> int:
        if n == 404:
            raise HTTPException(404)
        return n

    @app.get("/nothing")
    def nothing() -> None: ...

    @app.get("/waits")
    async def waits() -> str:
        work()
        await asyncio.sleep(2 * BUSY)
        work()
        await asyncio.sleep(0)
        work()
        return "done"

    @app.get("/blocks", offload=True)
    def blocks() -> str:
        work()
        return "done"

    @app.post("/takes")
    async def takes(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.get("/streams")
    async def streams() -> StreamingResponse:
        async def chunks() -> AsyncIterator[str]:
            for _ in range(3):
                await asyncio.sleep(0)
                yield "chunk"

        return StreamingResponse(chunks())

    return app


def stages(seen: RouteStats) -> set[str]:
    return {name for name in STAGES if getattr(seen, name).count}


def test_a_request_has_the_stages_that_it_went_through(
    app: App, serve: Serve, raw: Connect
) -> None:
    connection = raw(serve(app))
    for _ in range(3):
        connection.get("/nothing")
        connection.get("/plain/5")
    connection.get("/waits")
    connection.get("/blocks")
    connection.get("/streams")
    connection.send("POST /takes HTTP/1.1\r\nHost: t\r\nContent-Length: 7\r\n\r\n")
    until(lambda: route(app, "/takes").in_flight == 1)
    connection.send('{"a":1}')
    connection.response()
    connection.get("/unknown/path")
    until(lambda: sum(each.requests for each in app.stats().routes) == 11)
    inline = {"wait", "run", "serialize", "write"}
    assert stages(route(app, "/nothing")) == inline
    assert stages(route(app, "/plain/{n:int}")) == inline | {"prepare"}
    assert stages(route(app, "/waits")) == inline | {"suspended"}
    assert stages(route(app, "/blocks")) == inline
    assert stages(route(app, "/takes")) == inline | {"prepare"}
    assert {"run", "suspended", "write"} <= stages(route(app, "/streams"))
    assert stages(route(app, "")) == {"wait", "write"}
    assert route(app, "/nothing").run.count == 3


def test_a_route_is_named_by_its_template_and_never_by_a_path(
    app: App, serve: Serve, raw: Connect
) -> None:
    connection = raw(serve(app))
    for path in ("/plain/1", "/plain/2", "/plain/404", "/secret"):
        connection.get(path)
    connection.send("PUT /nothing HTTP/1.1\r\nHost: t\r\n\r\n")
    assert connection.response().status == 405
    until(lambda: sum(each.requests for each in app.stats().routes) == 5)
    seen = {each.template: each for each in app.stats().routes}
    assert set(seen) == {"/plain/{n:int}", ""}
    plain = seen["/plain/{n:int}"]
    assert (plain.method, plain.mode) == ("GET", "inline")
    assert plain.handler.endswith("plain")
    assert plain.statuses == {"2xx": 2, "4xx": 1}
    assert seen[""].statuses == {"4xx": 2}
    assert (seen[""].method, seen[""].handler, seen[""].mode) == ("", "", "")


def test_run_is_python_and_suspended_is_waiting(app: App, serve: Serve, raw: Connect) -> None:
    connection = raw(serve(app))
    connection.get("/waits")
    until(lambda: route(app, "/waits").requests == 1)
    seen = route(app, "/waits")
    assert seen.run.sum >= 3 * BUSY
    assert seen.suspended.sum >= 2 * BUSY
    lane = app.stats().lanes[0]
    assert lane.running >= 3 * BUSY
    assert lane.parked > 0
    assert lane.timer_lag.count >= 1
    assert lane.callback_lag.count >= 1


def test_two_requests_at_once_each_have_their_own_time(
    app: App, serve: Serve, raw: Connect
) -> None:
    server = serve(app)
    first, second = raw(server), raw(server)

    def both() -> float:
        before = route(app, "/waits")
        for connection in (first, second):
            connection.send("GET /waits HTTP/1.1\r\nHost: t\r\n\r\n")
        for connection in (first, second):
            assert connection.response().body == b"done"
        until(lambda: route(app, "/waits").requests == before.requests + 2)
        return route(app, "/waits").run.sum - before.run.sum

    took = [both()]
    assert (app.stats().lanes[0].tasks_started, app.stats().lanes[0].tasks_suspended) == (2, 2)
    # Neither is charged for what the other ran: all of it is less than both would be, at least
    # once, when nobody else has the core meanwhile.
    while took[-1] >= 12 * BUSY and len(took) < 20:
        took.append(both())
    assert 6 * BUSY <= took[-1] < 12 * BUSY


def test_an_offloaded_call_is_timed_on_its_thread(app: App, serve: Serve, raw: Connect) -> None:
    connection = raw(serve(app))
    connection.get("/blocks")
    until(lambda: route(app, "/blocks").requests == 1)
    assert route(app, "/blocks").run.sum >= BUSY
    assert app.stats().lanes[0].running < BUSY
    assert app.stats().offload.busy == 0


def test_the_pool_says_what_runs_and_what_waits(serve: Serve, raw: Connect) -> None:
    app = App()
    release = threading.Event()

    @app.get("/", offload=True)
    def hold() -> None:
        release.wait(10)

    server = serve(app, offload_threads=2)
    assert app.stats().offload == OffloadStats(threads=1, limit=2)  # the others come with calls
    connections = [raw(server) for _ in range(4)]

    def pool_is(threads: int, busy: int, queued: int) -> bool:
        seen = app.stats().offload
        return seen == OffloadStats(threads=threads, limit=2, busy=busy, queued=queued)

    try:
        for ask, then in ((connections[:2], (2, 2, 0)), (connections[2:], (2, 2, 2))):
            for connection in ask:
                connection.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            until(lambda then=then: pool_is(*then))
        # One that is given up while it waits does not count as waiting any more.
        connections.pop().close()
        until(lambda: pool_is(2, 2, 1))
    finally:
        release.set()
    for connection in connections:
        assert connection.response().status == 204
    until(lambda: pool_is(2, 0, 0))


def test_a_request_that_the_client_gave_up_is_cancelled_and_no_answer(
    serve: Serve, raw: Connect
) -> None:
    app = App()

    @app.get("/")
    async def forever() -> None:
        await asyncio.Event().wait()

    connection = raw(serve(app))
    connection.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
    until(lambda: route(app, "/").in_flight == 1)
    connection.close()
    until(lambda: route(app, "/").cancelled == 1)
    seen = app.stats().routes[0]
    assert (seen.requests, seen.statuses, seen.in_flight) == (1, {}, 0)
    assert app.stats().lanes[0].tasks_cancelled == 1


def test_a_task_that_outlives_its_request_adds_nothing_to_the_next(
    serve: Serve, raw: Connect
) -> None:
    app = App()
    left = threading.Event()

    @app.get("/slow", timeout=0.05)
    async def slow() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            work(3 * BUSY)
            left.set()

    @app.get("/quick")
    def quick() -> None: ...

    connection = raw(serve(app))
    assert connection.get("/slow").status == 504
    assert connection.get("/quick").status == 204
    assert left.wait(10)
    until(lambda: route(app, "/quick").requests == 1)
    assert route(app, "/quick").run.sum < BUSY
    assert route(app, "/slow").statuses == {"5xx": 1}


def test_a_lane_that_hangs_can_be_read(serve: Serve, raw: Connect) -> None:
    app = App()
    release = threading.Event()

    @app.get("/")
    def hang() -> None:
        release.wait(10)

    connection = raw(serve(app))
    connection.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
    try:
        until(lambda: app.stats().lanes[0].in_flight == 1)
        assert app.stats().routes[0].in_flight == 1
    finally:
        release.set()
    connection.response()


@pytest.mark.skipif(not FREE_THREADED, reason="several lanes need free threading")
def test_lanes_count_each_for_itself_and_routes_over_all(
    app: App, serve: Serve, raw: Connect
) -> None:
    server = serve(app, lanes=2)
    connections = [raw(server) for _ in range(4)]
    for connection in connections:
        connection.get("/nothing")
    until(lambda: route(app, "/nothing").requests == 4)
    lanes = app.stats().lanes
    assert [lane.index for lane in lanes] == [0, 1]
    assert len({lane.thread for lane in lanes}) == 2
    assert [lane.requests for lane in lanes] == [2, 2]
    assert [lane.open for lane in lanes] == [2, 2]
    assert sum(lane.bytes_received for lane in lanes) > 0
    connections.pop().close()
    until(lambda: sum(lane.open for lane in app.stats().lanes) == 3)


def test_without_telemetry_lanes_count_and_nothing_is_timed(
    app: App, serve: Serve, raw: Connect
) -> None:
    connection = raw(serve(app, telemetry=False))
    connection.get("/nothing")
    connection.get("/waits")
    assert app.stats().routes == ()
    assert app.stats().lanes[0].requests == 2


def test_stats_of_the_process_have_every_loop_and_app(app: App, serve: Serve, raw: Connect) -> None:
    raw(serve(app)).get("/nothing")

    async def task() -> None:
        await asyncio.sleep(0)

    with LoopPool(lanes=2) as pool:
        for handle in [pool.spawn(task()) for _ in range(10)]:
            handle.result(10)
        threads = {lane.thread for lane in treadle.stats().lanes}
        turns = [lane.turns for lane in treadle.stats().lanes]
    assert len(threads) >= 3
    assert all(turns)
    assert "/nothing" in {each.template for each in treadle.stats().routes}


def test_what_is_read_survives_json(app: App, serve: Serve, raw: Connect) -> None:
    raw(serve(app)).get("/plain/7")
    until(lambda: sum(each.requests for each in app.stats().routes) == 1)
    stats = app.stats()
    assert msgspec.json.decode(msgspec.json.encode(stats), type=Stats) == stats
    assert stats.uptime > 0
    assert stats.cpu > 0
    assert stats.rss > 1_000_000


# -- distributions ---------------------------------------------------------------------------------


def spread(*durations: float) -> Distribution:
    ordered = sorted(durations)
    return Distribution(
        count=len(ordered),
        sum=sum(ordered),
        min=ordered[0],
        max=ordered[-1],
        buckets=tuple((each, 1) for each in ordered),
    )


@pytest.mark.parametrize(
    ("q", "duration"), [(0.0, 1.0), (0.5, 5.0), (0.9, 9.0), (0.91, 10.0), (1.0, 10.0)]
)
def test_a_quantile_is_the_duration_that_so_many_do_not_exceed(q: float, duration: float) -> None:
    assert spread(*range(1, 11)).quantile(q) == duration


def test_distributions_add_up() -> None:
    both = spread(1.0, 2.0) + spread(2.0, 4.0)
    assert both == Distribution(
        count=4, sum=9.0, min=1.0, max=4.0, buckets=((1.0, 1), (2.0, 2), (4.0, 1))
    )
    assert both.mean == 2.25
    assert Distribution() + both == both
    assert both + Distribution() == both
    assert Distribution().quantile(0.5) == 0.0
