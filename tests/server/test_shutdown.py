"""How a server stops: in order, within the grace period, with no request answered half.

`TREADLE_SOAK=1` makes 200 rounds of the stops under load.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from support.cli import RunCli
from support.gate import SOURCE, Gate
from support.hold import Hold
from support.messages import assert_serves, request
from support.raw import Raw

from treadle import FREE_THREADED, App, Lane, Request, StreamingResponse
from treadle.testing import LiveServer

SOAK = os.environ.get("TREADLE_SOAK") == "1"
LANES = [1, 2] if FREE_THREADED else [1]


# -- the order of a stop, in this process ----------------------------------------------------------


class Journal:
    """An app that writes down what happens to it, in order."""

    def __init__(self, hold: Hold) -> None:
        self.lines: list[str] = []
        self.hold = hold
        self.app = App(lifespan=self._lifespan, lane_lifespan=self._lane_lifespan)

        @self.app.get("/")
        def root() -> str:
            return "hello"

        @self.app.get("/held")
        async def held(request: Request) -> str:
            try:
                await hold()
                self.lines.append(f"handler finished on {request.lane.index}")
            except asyncio.CancelledError:
                await asyncio.sleep(0)
                self.lines.append("handler cancelled")
                raise
            return "held"

        @self.app.get("/kept", cancel_on_disconnect=False)
        async def kept() -> None:
            await hold()
            self.lines.append("handler finished")

        @self.app.get("/stream")
        async def stream() -> StreamingResponse:
            async def chunks() -> AsyncIterator[str]:
                yield "first"
                await hold()
                yield "second"
                self.lines.append("handler finished")

            return StreamingResponse(chunks())

    async def _lifespan(self, app: App) -> AsyncIterator[None]:
        yield
        self.lines.append("app down")

    async def _lane_lifespan(self, lane: Lane) -> AsyncIterator[None]:
        yield
        self.lines.append(f"lane {lane.index} down")


@pytest.fixture
def journal(hold: Hold) -> Journal:
    return Journal(hold)


def stopping(live: LiveServer) -> Callable[[], None]:
    """Begins to stop `live`; what is returned waits for the end."""
    address = live.address
    thread = threading.Thread(target=live.stop)
    thread.start()
    # A stop begins with the end of listening.
    while True:
        try:
            Raw(address).close()
        except OSError:
            return thread.join


@pytest.mark.parametrize("lanes", LANES)
def test_a_stop_has_an_order(
    serve: Any, raw: Any, journal: Journal, hold: Hold, lanes: int
) -> None:
    live = serve(journal.app, lanes=lanes, grace=10)
    idle = [raw(live) for _ in range(4)]
    for connection in idle:
        assert_serves(connection)
    fresh = raw(live)
    busy = [raw(live) for _ in range(2)]
    for connection in busy:
        connection.send(request("GET", "/held"))
    hold.wait_arrival(2)
    wait = stopping(live)
    # What is idle is closed while what is busy goes on.
    for connection in [*idle, fresh]:
        assert connection.is_closed()
    assert journal.lines == []
    hold.release()
    for connection in busy:
        response = connection.response()
        assert (response.body, response.header("connection")) == (b"held", "close")
        assert connection.is_closed()
    started = time.monotonic()
    wait()
    # The grace is no fixed time: what is over is over.
    assert time.monotonic() - started < 5.0
    # Each lane goes its own pace; the process's lifespan ends when all have ended.
    assert journal.lines[-1] == "app down"
    for lane in range(lanes):
        own = [line for line in journal.lines if str(lane) in line]
        served = [f"handler finished on {lane}"] * (2 // lanes)
        assert own == [*served, f"lane {lane} down"]


def test_a_stream_that_has_begun_is_sent_to_its_end(
    serve: Any, raw: Any, journal: Journal, hold: Hold
) -> None:
    live = serve(journal.app, grace=10)
    connection = raw(live)
    connection.send(request("GET", "/stream"))
    hold.wait_arrival()
    wait = stopping(live)
    hold.release()
    assert connection.response().body == b"firstsecond"
    assert connection.is_closed()
    wait()
    assert journal.lines == ["handler finished", "lane 0 down", "app down"]


@pytest.mark.parametrize("path", ["/held", "/stream"])
def test_the_end_of_the_grace_cancels_what_still_runs(
    serve: Any, raw: Any, journal: Journal, hold: Hold, path: str
) -> None:
    live = serve(journal.app, grace=0.1)
    connection = raw(live)
    connection.send(request("GET", path))
    hold.wait_arrival()
    started = time.monotonic()
    live.stop()
    assert 0.1 <= time.monotonic() - started < 1.0
    assert hold.outcome() == "CancelledError"
    # Nothing that could be taken for a whole answer.
    assert not connection.rest().endswith(b"0\r\n\r\n")
    expected = ["handler cancelled"] if path == "/held" else []
    assert journal.lines == [*expected, "lane 0 down", "app down"]


def test_a_handler_that_will_not_be_cancelled_is_left(serve: Any, raw: Any, hold: Hold) -> None:
    app = App()

    @app.get("/")
    async def root() -> None:
        while True:
            try:
                await hold()
            except asyncio.CancelledError:
                if hold.is_untouched:
                    continue
                raise

    live = serve(app, grace=0.1)
    connection = raw(live)
    connection.send(request("GET"))
    hold.wait_arrival()
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 4.0
    assert hold.outcome() == "CancelledError"


def test_a_handler_that_goes_on_without_its_client_has_the_grace_too(
    serve: Any, raw: Any, journal: Journal, hold: Hold
) -> None:
    live = serve(journal.app, grace=10)
    connection, other = raw(live), raw(live)
    connection.send(request("GET", "/kept"))
    other.send(request("GET", "/held"))
    hold.wait_arrival(2)
    connection.reset()
    other.reset()
    # Both have been seen to leave when the second has.
    assert hold.outcome() == "CancelledError"
    wait = stopping(live)
    hold.release()
    started = time.monotonic()
    wait()
    assert time.monotonic() - started < 5.0
    assert journal.lines == [
        "handler cancelled",
        "handler finished",
        "lane 0 down",
        "app down",
    ]


@pytest.mark.parametrize("part", [b"GET / HT", b"POST / HTTP/1.1\r\nHost: a\r\nContent-Le"])
def test_half_a_head_does_not_use_up_the_grace(serve: Any, raw: Any, part: bytes) -> None:
    app = App()
    app.get("/")(lambda: "hello")
    live = serve(app, grace=10)
    connection = raw(live)
    connection.send(part)
    assert_serves(raw(live))
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 2.0
    assert connection.rest() == b""


def test_half_a_body_has_no_more_than_the_grace(serve: Any, raw: Any) -> None:
    app = App()
    reading = threading.Event()

    @app.post("/")
    async def root(request: Request) -> bytes:
        reading.set()
        return await request.body()

    live = serve(app, grace=0.2)
    connection = raw(live)
    connection.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel")
    assert reading.wait(10)
    started = time.monotonic()
    live.stop()
    assert 0.2 <= time.monotonic() - started < 2.0
    assert connection.rest() == b""


def test_a_client_that_reads_nothing_does_not_hold_up_a_stop(serve: Any, raw: Any) -> None:
    app = App()

    @app.get("/")
    def root() -> bytes:
        return bytes(32 << 20)

    @app.get("/other")
    def other() -> None: ...

    live = serve(app, grace=0.2)
    connection = raw(live)
    connection.send(request("GET"))
    connection.until(b"\r\n\r\n")
    assert_serves(raw(live), "/other")
    started = time.monotonic()
    live.stop()
    assert time.monotonic() - started < 2.0


# -- under load, as a process ----------------------------------------------------------------------

LOADED = """
import asyncio
from treadle import App, Request, StreamingResponse

app = App()

@app.get("/sync")
def sync():
    return {"n": 1}

@app.get("/async")
async def async_():
    return {"n": 1}

@app.get("/nap")
async def nap():
    await asyncio.sleep(0.003)
    return {"n": 1}

@app.get("/offload", offload=True)
def offload():
    return {"n": 1}

@app.get("/stream")
async def stream():
    async def chunks():
        for number in range(5):
            await asyncio.sleep(0.0005)
            yield b"x" * 1000
    return StreamingResponse(chunks())

@app.get("/large")
def large():
    return b"x" * 200_000

@app.post("/echo")
async def echo(request: Request):
    return await request.body()
"""

REQUESTS = [
    request("GET", "/sync"),
    request("GET", "/async"),
    request("GET", "/nap"),
    request("GET", "/offload"),
    request("GET", "/stream"),
    request("GET", "/large"),
    request("POST", "/echo", body=b"x" * 5000),
    request("GET", "/absent"),
]


class Load:
    """Clients that ask as fast as they are answered, until the server is gone."""

    def __init__(self, address: Any, clients: int = 8) -> None:
        self.answered = 0
        self.halves: list[str] = []
        self._address = address
        self._progress = threading.Condition()
        self._threads = [
            threading.Thread(target=self._client, args=(number,)) for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def wait_answered(self, count: int) -> None:
        """Waits until `count` requests have been answered."""
        with self._progress:
            assert self._progress.wait_for(lambda: self.answered >= count, 20)

    def join(self) -> None:
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _client(self, number: int) -> None:
        turn = number
        while True:
            try:
                connection = Raw(self._address)
            except OSError:
                return
            with connection:
                # Some connections are used again and again, some once.
                for _ in range(50 if number % 2 else 1):
                    turn += 1
                    if not self._ask(connection, REQUESTS[turn % len(REQUESTS)]):
                        break

    def _ask(self, connection: Raw, data: bytes) -> bool:
        """Whether the connection is good for another request."""
        try:
            connection.send(data)
            first = connection.socket.recv(1)
        except OSError:
            return False
        if not first:
            return False  # closed before this request was taken
        connection._buffer = first + connection._buffer
        try:
            response = connection.response()
        except (EOFError, OSError) as error:
            self.halves.append(f"{data[:30]!r}: {error}"[:300])
            return False
        if response.status not in (200, 404):
            self.halves.append(f"{data[:30]!r}: {response.status}")
        with self._progress:
            self.answered += 1
            self._progress.notify_all()
        return response.header("connection") != "close"


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("end", ["loop.stop()", "loop.call_soon(sys.exit, 0)"])
def test_a_lane_that_the_app_ends_is_told_and_stops_the_others_in_order(
    run_cli: RunCli, gate: Gate, raw: Any, lanes: int, end: str
) -> None:
    source = (
        SOURCE
        + f"""
import sys

@app.get("/end")
async def ending():
    loop = asyncio.get_running_loop()
    {end}
    await pause()

@app.get("/pause")
async def pausing():
    await pause()
    return "answered"

@app.lane_lifespan
async def lane_lifespan(lane):
    yield
    print("lane", lane.index, "down", flush=True)

@app.lifespan
async def lifespan(app):
    yield
    print("app down")
"""
    )
    command = run_cli(source, "--lanes", str(lanes), env=gate.env)
    others = [raw(command) for _ in range(lanes - 1)]
    arrivals = []
    for other in others:
        other.send(request("GET", "/pause"))
        arrivals.append(gate.arrival())
    raw(command).send(request("GET", "/end"))
    command.wait_refusing()
    for arrival in arrivals:
        arrival.release()
    for other in others:
        assert other.response().body == b"answered"
    assert command.wait() == 1
    assert len(re.findall(r"ERROR treadle: lane \d ended\n", command.stderr)) == 1, command.stderr
    assert "Exception in thread" not in command.stderr
    downs = sorted(command.rest().splitlines())
    assert downs == ["app down", *(f"lane {index} down" for index in range(lanes))]


MODES = {
    "one lane": ["--lanes", "1"],
    "as many lanes as cores": [],
    "two workers": ["--workers", "2"],
}
ROUNDS = dict.fromkeys(MODES, 200) if SOAK else dict(zip(MODES, (10, 20, 6), strict=True))


@pytest.mark.parametrize("mode", MODES)
def test_a_stop_under_load_is_clean(run_cli: RunCli, mode: str) -> None:
    for number in range(ROUNDS[mode]):
        command = run_cli(LOADED, *MODES[mode], "--grace", "5")
        load = Load(command.address)
        load.wait_answered(10 + number * 37 % 200)
        started = time.monotonic()
        code = command.stop(signal.SIGINT if number % 4 == 3 else signal.SIGTERM)
        took = time.monotonic() - started
        load.join()
        said = (code, command.stderr, load.halves)
        assert said == (0, "", []), f"round {number}"
        assert took < 5.0, f"round {number}"
        command.close()


@pytest.mark.parametrize("mode", MODES)
def test_streams_without_end_do_not_outlive_the_grace(
    run_cli: RunCli, gate: Gate, raw: Any, mode: str
) -> None:
    source = (
        SOURCE
        + """
from treadle import StreamingResponse

@app.get("/")
async def events():
    async def chunks():
        while True:
            yield "data: x\\n\\n"
            await pause()
    return StreamingResponse(chunks(), media_type="text/event-stream")
"""
    )
    command = run_cli(source, *MODES[mode], "--grace", "0.3", env=gate.env)
    clients = [raw(command) for _ in range(3)]
    for client in clients:
        client.send(request("GET"))
        gate.arrival()
    started = time.monotonic()
    assert command.stop() == 0
    assert 0.3 <= time.monotonic() - started < 3.0
    assert command.stderr == ""
    for client in clients:
        assert not client.rest().endswith(b"0\r\n\r\n")


def test_a_second_interrupt_leaves_at_once_in_spite_of_streams(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    source = (
        SOURCE
        + """
from treadle import StreamingResponse

@app.get("/")
async def events():
    async def chunks():
        yield "x"
        await pause()
    return StreamingResponse(chunks())
"""
    )
    command = run_cli(source, "--grace", "60", env=gate.env)
    client = raw(command)
    client.send(request("GET"))
    gate.arrival()
    command.send(signal.SIGINT)
    command.wait_refusing()
    assert command.stop(signal.SIGINT) == 130
    assert command.stderr == ""


ABANDONED = """
import asyncio, socket, threading
from treadle import App, Request, StreamingResponse
from treadle.testing import LiveServer

app = App()
arrived = threading.Semaphore(0)

@app.get("/task")
async def task():
    arrived.release()
    await asyncio.sleep(60)

@app.get("/offload", offload=True)
def offload():
    return 1

@app.get("/stream")
async def stream():
    async def chunks():
        yield "x"
        arrived.release()
        await asyncio.sleep(60)
    return StreamingResponse(chunks())

@app.post("/body")
async def body(request: Request):
    arrived.release()
    await request.body()

live = LiveServer(app)
live.start()
clients = []
for line in ("GET /task", "GET /stream", "GET /task", "GET /offload"):
    clients.append(socket.create_connection(live.address))
    clients[-1].sendall(f"{line} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n".encode())
for _ in range(3):
    arrived.acquire()
"""


def test_a_program_that_ends_without_stopping_its_server_ends_quietly(run_cli: RunCli) -> None:
    """Lanes, handlers and what they wait for are there until the interpreter is not."""
    for number in range(200 if SOAK else 10):
        command = run_cli.python(["-c", ABANDONED], listens=False)
        assert (command.wait(), command.stderr) == (0, ""), f"run {number}"
        command.close()
