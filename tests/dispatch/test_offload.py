"""Blocking `def` handlers with offload=True: on a pool of threads, whose size is an option."""

from __future__ import annotations

import asyncio
import contextvars
import queue
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from support.cli import RunCli
from support.gate import SOURCE, Gate
from support.lanes import several_lanes
from support.raw import Raw
from support.types import Connect, Serve

from treadle import App, HTTPException, Lane, Request, Response, StreamingResponse, offload
from treadle.testing import LiveServer

VAR: contextvars.ContextVar[str] = contextvars.ContextVar("VAR", default="unset")


class Room:
    """A place where handlers block until the test lets them go."""

    def __init__(self, app: App) -> None:
        self.entered: list[str] = []
        self.arrived = threading.Semaphore(0)
        self.release = threading.Event()

        @app.get("/block/{name}", offload=True)
        def block(name: str) -> str:
            self.entered.append(name)
            self.arrived.release()
            assert self.release.wait(10)
            return name

        app.get("/free")(lambda: "free")

    def wait(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.arrived.acquire(timeout=10)


class Pool(offload.Pool):
    """The server's pool, which tells what it was given."""

    jobs: queue.SimpleQueue[Future[None]] = queue.SimpleQueue()

    def submit(self, *args: Any, **kwargs: Any) -> Any:
        future = super().submit(*args, **kwargs)
        self.jobs.put(future)
        return future


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[Future[None]]:
    """The jobs that servers started from now on hand to their pools."""
    monkeypatch.setattr(Pool, "jobs", queue.SimpleQueue())
    monkeypatch.setattr("treadle.offload.Pool", Pool)
    return Pool.jobs


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def room(app: App) -> Iterator[Room]:
    room = Room(app)
    yield room
    room.release.set()


def ask(connection: Raw, path: str) -> None:
    connection.send(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")


def test_an_offloaded_handler_runs_on_the_pool(serve: Serve, raw: Connect, app: App) -> None:
    @app.get("/", offload=True)
    def handler(lane: Lane) -> list[object]:
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        return [threading.current_thread().name, lane.index]

    assert raw(serve(app)).get().body == b'["treadle-offload_0",0]'


def test_a_blocked_handler_does_not_hold_up_its_lane(
    serve: Serve, raw: Connect, app: App, room: Room
) -> None:
    server = serve(app)
    blocked = raw(server)
    ask(blocked, "/block/a")
    room.wait()
    assert [raw(server).get("/free").body for _ in range(3)] == [b"free"] * 3
    room.release.set()
    assert blocked.response().body == b"a"


def test_the_pool_has_as_many_threads_as_the_option_says(
    serve: Serve, raw: Connect, app: App, room: Room, jobs: queue.SimpleQueue[Future[None]]
) -> None:
    server = serve(app, offload_threads=3)
    assert server.options.offload_threads == 3
    connections = [raw(server) for _ in range(5)]
    for n, connection in enumerate(connections):
        ask(connection, f"/block/{n}")
    room.wait(3)
    for _ in connections:
        jobs.get(timeout=10)
    assert len(room.entered) == 3
    room.release.set()
    assert [connection.response().body for connection in connections] == [
        b"%d" % n for n in range(5)
    ]


def test_a_job_that_still_waits_is_taken_back_when_its_client_leaves(
    serve: Serve, raw: Connect, app: App, room: Room, jobs: queue.SimpleQueue[Future[None]]
) -> None:
    server = serve(app, offload_threads=1)
    first, second, third = raw(server), raw(server), raw(server)
    ask(first, "/block/first")
    room.wait()
    jobs.get(timeout=10)
    ask(second, "/block/second")
    queued, cancelled = jobs.get(timeout=10), threading.Event()
    queued.add_done_callback(lambda _: cancelled.set())
    ask(third, "/block/third")
    jobs.get(timeout=10)
    second.reset()
    assert cancelled.wait(10)
    room.release.set()
    assert first.response().body == b"first"
    assert third.response().body == b"third"
    assert room.entered == ["first", "third"]


def test_a_job_of_a_route_that_does_not_cancel_runs_without_its_client(
    serve: Serve, raw: Connect, app: App, room: Room, jobs: queue.SimpleQueue[Future[None]]
) -> None:
    ran = threading.Event()

    @app.get("/kept", offload=True, cancel_on_disconnect=False)
    def kept() -> None:
        ran.set()

    server = serve(app, offload_threads=1)
    first, second = raw(server), raw(server)
    ask(first, "/block/first")
    room.wait()
    jobs.get(timeout=10)
    ask(second, "/kept")
    jobs.get(timeout=10)
    second.reset()
    room.release.set()
    assert ran.wait(10)
    assert first.response().body == b"first"


def test_a_job_whose_time_is_up_before_it_begins_is_not_run(
    serve: Serve, raw: Connect, app: App, room: Room, jobs: queue.SimpleQueue[Future[None]]
) -> None:
    ran: list[str] = []

    @app.get("/late", offload=True, cancel_on_disconnect=False, timeout=0.05)
    def late() -> None:
        ran.append("late")

    server = serve(app, offload_threads=1)
    first, second = raw(server), raw(server)
    ask(first, "/block/first")
    room.wait()
    jobs.get(timeout=10)
    ask(second, "/late")
    queued = jobs.get(timeout=10)
    assert second.response().status == 504
    assert queued.cancelled()
    assert server.server.config.offload() == (0, 1)
    room.release.set()
    assert first.response().body == b"first"
    assert ran == []


def test_a_client_that_leaves_a_running_job_harms_nothing(
    serve: Serve, raw: Connect, app: App, room: Room
) -> None:
    server = serve(app, offload_threads=1)
    gone = raw(server)
    ask(gone, "/block/gone")
    room.wait()
    gone.reset()
    stays = raw(server)
    ask(stays, "/block/stays")
    room.release.set()
    assert stays.response().body == b"stays"


def test_time_that_runs_out_answers_while_the_thread_goes_on(
    serve: Serve, raw: Connect, app: App, room: Room
) -> None:
    ended = threading.Event()

    @app.get("/late", offload=True, timeout=0.01)
    def late() -> None:
        room.arrived.release()
        room.release.wait(10)
        ended.set()

    server = serve(app)
    connection = raw(server)
    ask(connection, "/late")
    assert connection.response().status == 504
    room.release.set()
    assert ended.wait(10)


def test_an_offloaded_handler_has_a_context_of_its_own(
    serve: Serve, raw: Connect, app: App
) -> None:
    @app.get("/", offload=True)
    def handler() -> str:
        before = VAR.get()
        VAR.set("set")
        return before

    connection = raw(serve(app, offload_threads=1))
    assert [connection.get().body for _ in range(3)] == [b"unset"] * 3


def test_a_stream_from_an_offloaded_handler_runs_on_the_lane(
    serve: Serve, raw: Connect, app: App
) -> None:
    @app.get("/", offload=True)
    def handler() -> Response:
        VAR.set("of the handler")

        async def chunks():  # type: ignore[no-untyped-def]
            await asyncio.sleep(0)
            yield threading.current_thread().name
            yield " " + VAR.get()

        return StreamingResponse(chunks())

    assert raw(serve(app)).get().body == b"treadle-lane-0 of the handler"


def test_a_coroutine_from_an_offloaded_handler_is_awaited_on_the_lane(
    serve: Serve, raw: Connect, app: App
) -> None:
    async def finish() -> str:
        await asyncio.sleep(0)
        return threading.current_thread().name

    @app.get("/", offload=True)
    def handler() -> object:
        return finish()

    assert raw(serve(app)).get().body == b"treadle-lane-0"


def test_exceptions_and_arguments_pass_as_on_the_lane(serve: Serve, raw: Connect, app: App) -> None:
    @app.post("/{n:int}", offload=True)
    def handler(n: int, body: dict[str, int], request: Request, *, q: str = "q") -> list[object]:
        if n == 0:
            raise HTTPException(409, "zero")
        return [n, body, request.headers["host"], q]

    connection = raw(serve(app))
    for n, status in ((1, 200), (0, 409)):
        connection.send(f"POST /{n} HTTP/1.1\r\nHost: t\r\nContent-Length: 7\r\n\r\n" + '{"a":1}')
        assert connection.response().status == status


@several_lanes
def test_all_lanes_share_the_pool(serve: Serve, app: App, room: Room) -> None:
    server = serve(app, lanes=2, offload_threads=2)
    with ThreadPoolExecutor(4) as clients, httpx.Client(base_url=server.url) as client:
        answers = [clients.submit(client.get, f"/block/{n}") for n in range(4)]
        room.wait(2)
        assert len(room.entered) == 2
        room.release.set()
        assert sorted(answer.result().text for answer in answers) == ["0", "1", "2", "3"]


def test_a_stop_waits_for_a_running_job_within_the_grace(raw: Connect, app: App) -> None:
    room = Room(app)
    server = LiveServer(app, grace=10.0)
    server.start()
    connection = raw(server)
    ask(connection, "/block/a")
    room.wait()
    server.server.drain()
    room.release.set()
    assert connection.response().body == b"a"
    server.stop()


def test_a_stop_does_not_wait_for_a_thread_beyond_the_grace(raw: Connect, app: App) -> None:
    room = Room(app)
    server = LiveServer(app, grace=0.0)
    server.start()
    connection = raw(server)
    ask(connection, "/block/a")
    room.wait()
    server.stop()
    room.release.set()
    assert connection.rest() == b""


def test_a_handler_without_its_client_has_the_grace_too(raw: Connect, app: App) -> None:
    room = Room(app)
    server = LiveServer(app, grace=10.0)
    server.start()
    connection = raw(server)
    ask(connection, "/block/a")
    room.wait()
    connection.reset()
    meters = server.server.meters()
    stopped = threading.Thread(target=server.stop)
    stopped.start()
    # The connection is gone before the handler is let go: nothing but the handler is waited for.
    while any(meter.read()["open"] for meter in meters):
        pass
    assert stopped.is_alive()
    room.release.set()
    stopped.join(5)
    assert not stopped.is_alive()


HANGING = """
import signal, threading, time
from treadle import App

app = App()

@app.get("/sleeps/{token}", offload=True)
def sleeps(token: str):
    hold()
    time.sleep(1000)

@app.get("/spins/{token}", offload=True)
def spins(token: str):
    hold()
    while True:
        pass
"""
RUN = """
import atexit
atexit.register(print, "atexit")
try:
    app.run(port=0, grace=0.1)
finally:
    print("after")
"""


@pytest.mark.parametrize("start", ["treadle run", "app.run", "workers"])
@pytest.mark.parametrize("handler", ["sleeps", "spins"])
def test_a_handler_that_hangs_is_named_and_left_behind(
    run_cli: RunCli, gate: Gate, raw: Connect, start: str, handler: str
) -> None:
    source = SOURCE + HANGING
    if start == "app.run":
        (run_cli.folder / "main.py").write_text(source + RUN)
        command = run_cli.python(["main.py"], env=gate.env)
    else:
        workers = "2" if start == "workers" else "1"
        command = run_cli(source, "--grace", "0.1", "--workers", workers, env=gate.env)
    connection = raw(command)
    connection.send(f"GET /{handler}/secret HTTP/1.1\r\nHost: t\r\n\r\n")
    gate.arrival()
    started = time.monotonic()
    assert command.stop() == 1
    # Far less than the margin after which a process leaves with what it has.
    assert time.monotonic() - started < 4.0
    assert connection.rest() == b""
    said = command.stderr
    assert re.search(
        rf"WARNING treadle: request \d+: GET /{handler}/{{token}} \(.*main.py:\d+ {handler}\) still "
        r"runs on a thread of the pool after the grace period of 0.1 s; it is left behind\n"
        rf'  File ".*main.py", line \d+, in {handler}\n',
        said,
    ), said
    assert len(said.splitlines()) == 3, said
    if start == "app.run":
        assert command.rest() == "after\natexit\n"


def test_a_job_that_waits_when_the_grace_ends_is_never_run(raw: Connect, app: App) -> None:
    room = Room(app)
    server = LiveServer(app, grace=0.0, offload_threads=1)
    server.start()
    first, second = raw(server), raw(server)
    ask(first, "/block/a")
    room.wait()
    ask(second, "/block/b")
    while server.server.config.offload() != (1, 1):
        pass
    pool = server.server.pool
    server.stop()
    room.release.set()
    assert pool.idle().result(10) is None
    assert room.entered == ["a"]
    with pytest.raises(RuntimeError, match="the server has stopped"):
        pool.submit(None)  # type: ignore[arg-type]
