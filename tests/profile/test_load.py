"""The load generator: what it sends, when, and what it counts of servers that behave."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest
from support.load import Counting, Drive, in_slices
from support.misbehaving import ANSWER, Misbehaving, requests
from support.types import Serve

from treadle import App, Request, Response
from treadle.profile.load import (
    LoadRequest,
)

# Runs last as long as they are told, whatever the machine does meanwhile.
pytestmark = pytest.mark.timing

# -- closed loop -----------------------------------------------------------------------------------


def test_every_answer_of_a_closed_loop_is_counted(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    result = drive(serve(counting.app).address, "/a", connections=4)
    assert result.ending == "complete"
    assert (result.failed, result.unsent, result.unfinished) == (0, 0, 0)
    assert result.completed == counting.seen["/a"] > 0
    assert result.requests[0].statuses == {200: result.completed}
    assert result.connections == 4
    assert result.service is None
    assert 0.3 <= result.seconds < 1.3
    assert result.rate == result.completed / result.seconds
    assert result.latency.min <= result.latency.quantile(0.5) <= result.latency.max
    assert result.bytes > 100 * in_slices(result, lambda each: each.completed)
    # What was under way at the end of sending is in no slice.
    assert 0 <= result.completed - in_slices(result, lambda each: each.completed) <= 4
    assert sum(each.seconds for each in result.slices) == pytest.approx(0.3)


def test_each_connection_has_one_request_under_way(drive: Drive) -> None:
    all_there = threading.Barrier(3)
    at_once: list[int] = []

    def answer(connection: socket.socket) -> None:
        # Nobody's first request is answered before everybody's is there.
        at_once.append(requests(connection))
        all_there.wait(10)
        connection.sendall(ANSWER)
        while count := requests(connection):
            at_once.append(count)
            connection.sendall(ANSWER)

    with Misbehaving(answer) as server:
        result = drive(server.address, connections=3)
    assert result.failed == 0
    assert result.completed == len(at_once) > 3
    assert set(at_once) == {1}


def test_a_warm_up_is_sent_and_not_counted(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    result = drive(serve(counting.app).address, "/a", warmup=0.2, duration=0.2)
    assert 0 < result.completed < counting.seen["/a"]
    assert sum(each.seconds for each in result.slices) == pytest.approx(0.2)


# -- what is sent ----------------------------------------------------------------------------------


def test_requests_come_by_weight_and_each_is_told_apart(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    weighted = [("/a", 3.0), ("/b", 1.0), ("/c", 0.0)]
    sent = tuple(LoadRequest(name=path, path=path, weight=weight) for path, weight in weighted)
    result = drive(serve(counting.app).address, requests=sent, rate=2000.0, connections=8, seed=5)
    a, b, c = (each.completed for each in result.requests)
    assert {"/a": a, "/b": b} == counting.seen
    assert c == 0
    assert result.requests[0].latency.count == a
    assert a + b == result.completed
    # By request 600 the share of this seed is settled, however many of them were in time.
    assert b / (a + b) == pytest.approx(0.25, abs=0.06)


def test_all_of_a_request_is_sent(serve: Serve, drive: Drive) -> None:
    app = App()
    seen: list[tuple[str, str, str | None, list[str], bytes]] = []

    @app.put("/x/{name}")
    async def put(name: str, request: Request) -> None:
        lists = [value for key, value in request.headers.items() if key == "x-list"]
        body = await request.body()
        seen.append((name, str(request.query), request.headers.get("host"), lists, body))

    server = serve(app)
    sent = LoadRequest(
        name="put",
        method="PUT",
        path="/x/a%20b?q=1",
        headers=(("x-list", "1"), ("X-List", "2")),
        body=b"\x00body" * 20_000,
    )
    result = drive(server.address, requests=(sent,), connections=1)
    assert result.failed == 0
    name, query, host, lists, body = seen[0]
    assert (name, "q" in query, lists) == ("a b", True, ["1", "2"])
    assert host == f"127.0.0.1:{server.port}"
    assert body == sent.body


def test_a_large_answer_is_read_to_its_end(serve: Serve, drive: Drive) -> None:
    app = App()

    @app.get("/")
    def large() -> Response:
        return Response(b"x" * 3_000_000)

    result = drive(serve(app).address)
    assert result.failed == 0
    assert result.latency.count == result.completed
    assert result.bytes >= 3_000_000 * in_slices(result, lambda each: each.completed)


def test_a_unix_socket_is_an_address(serve: Serve, drive: Drive, tmp_path: Path) -> None:
    counting = Counting()
    server = serve(counting.app, uds=str(tmp_path / "socket"))
    assert isinstance(server.address, str)
    result = drive(server.address, "/a")
    assert result.completed == counting.seen["/a"] > 0
    assert result.failed == 0


# -- open loop -------------------------------------------------------------------------------------


def test_an_open_loop_keeps_its_rate(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    result = drive(serve(counting.app).address, "/a", rate=400.0, connections=32, duration=0.5)
    # Exactly so many are due; on a busy machine the last ones may find no free connection.
    assert result.completed + result.unsent == 200
    assert result.completed == counting.seen["/a"]
    assert result.unsent <= 20
    assert result.rate == pytest.approx(400.0, rel=0.2)
    assert result.service is not None
    assert result.service.count == result.completed
    assert result.service.sum <= result.latency.sum


def test_a_stall_shows_in_every_request_that_it_held_up(serve: Serve, drive: Drive) -> None:
    app = App()
    count = 0

    @app.get("/")
    def once() -> None:
        nonlocal count
        count += 1
        if count == 20:
            time.sleep(0.2)

    result = drive(serve(app, lanes=1).address, rate=500.0, connections=4, duration=0.5)
    assert result.failed == 0
    assert result.completed + result.unsent == 250  # the stall took none away
    assert result.completed > 200
    assert result.service is not None
    # 100 requests came due meanwhile, and waited for 100 ms on average. Only those on the four
    # connections were sent into the stall.
    held_up = sum(n for upper, n in result.latency.buckets if upper > 0.05)
    assert held_up >= 60
    assert result.latency.quantile(0.999) >= 0.19
    sent_into_it = sum(n for upper, n in result.service.buckets if upper > 0.15)
    assert 1 <= sent_into_it <= held_up / 4


def test_what_was_due_and_never_sent_is_counted(drive: Drive) -> None:
    released = threading.Event()

    def hold(connection: socket.socket) -> None:
        while requests(connection):
            released.wait()
            connection.sendall(ANSWER)

    with Misbehaving(hold) as server:
        try:
            result = drive(server.address, rate=100.0, duration=0.3, grace=0.0)
        finally:
            released.set()
    assert (result.completed, result.failed) == (0, 0)
    assert (result.unfinished, result.unsent) == (2, 28)


def test_answers_under_way_at_the_end_are_waited_for(drive: Drive) -> None:
    def slow(connection: socket.socket) -> None:
        while requests(connection):
            time.sleep(0.3)
            connection.sendall(ANSWER)

    with Misbehaving(slow) as server:
        result = drive(server.address, duration=0.1, grace=5.0)
    assert (result.completed, result.unfinished) == (2, 0)
    assert result.seconds >= 0.3
    assert in_slices(result, lambda each: each.completed) == 0
