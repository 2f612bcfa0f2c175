"""How a process stops: under load, in spite of streams, and when nobody told it to.

`TREADLE_SOAK=1` makes 200 rounds of the stops under load.
"""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from typing import Any

import pytest
from support.cli import RunCli
from support.gate import SOURCE, Gate
from support.messages import request
from support.raw import Raw

from treadle import FREE_THREADED

SOAK = os.environ.get("TREADLE_SOAK") == "1"
LANES = [1, 2] if FREE_THREADED else [1]
MODES = {
    "one lane": ["--lanes", "1"],
    "as many lanes as cores": [],
    "two workers": ["--workers", "2"],
}


# -- under load ------------------------------------------------------------------------------------

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
        connection.put_back(first)
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


ROUNDS = dict.fromkeys(MODES, 200) if SOAK else dict(zip(MODES, (10, 20, 6), strict=True))


@pytest.mark.timeout(3600 if SOAK else 150)
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


# -- streams without end ---------------------------------------------------------------------------


@pytest.mark.timing
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


# -- nobody told it to -----------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("which", ["first", "last"])
@pytest.mark.parametrize("end", ["loop.stop()", "loop.call_soon(sys.exit, 0)"])
def test_a_lane_that_the_app_ends_is_told_and_stops_the_others_in_order(
    run_cli: RunCli, gate: Gate, raw: Any, lanes: int, which: str, end: str
) -> None:
    source = (
        SOURCE
        + f"""
import sys
from treadle import Lane

@app.get("/end")
async def ending():
    loop = asyncio.get_running_loop()
    {end}
    await pause()

@app.get("/lane")
async def which(lane: Lane):
    return lane.index

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
    on = {
        int(connection.get("/lane").body): connection for connection in map(raw, [command] * lanes)
    }
    ending = on.pop(0 if which == "first" else lanes - 1)
    others = list(on.values())
    arrivals = []
    for other in others:
        other.send(request("GET", "/pause"))
        arrivals.append(gate.arrival())
    ending.send(request("GET", "/end"))
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

@app.get("/computing")
def computing():
    arrived.release()
    while True:
        pass

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

def ask(line):
    clients.append(socket.create_connection(live.address))
    clients[-1].sendall(f"{line} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n".encode())

for line in ("GET /task", "GET /stream", "GET /task", "GET /offload"):
    ask(line)
for _ in range(3):
    arrived.acquire()
if COMPUTING:
    ask("GET /computing")
    arrived.acquire()
"""


@pytest.mark.parametrize("computing", [False, True])
def test_a_program_that_ends_without_stopping_its_server_ends_quietly(
    run_cli: RunCli, computing: bool
) -> None:
    """Lanes, handlers and what they wait for are there until the interpreter is not."""
    program = f"COMPUTING = {computing}\n{ABANDONED}"
    for number in range(200 if SOAK else 10):
        command = run_cli.python(["-c", program], listens=False)
        assert (command.wait(), command.stderr) == (0, ""), f"run {number}"
        command.close()
