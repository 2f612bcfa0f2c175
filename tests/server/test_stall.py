"""The stall watch: what stands still is said once, with where it is, and nothing else is said."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import queue
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.cli import RunCli
from support.gate import SOURCE, Gate
from support.types import Connect, Serve

import treadle
from treadle import App, interpreter, stall
from treadle._treadle import StallWatch
from treadle.testing import LiveServer

LIMIT = 0.03

GO = threading.Event()
"""Ends what stands still."""


@pytest.fixture
def said() -> Iterator[queue.Queue[str]]:
    """What the server logs, from the warnings on."""
    messages: queue.Queue[str] = queue.Queue()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.put(record.getMessage())

    handler = Handler(logging.WARNING)
    logger = logging.getLogger("treadle")
    logger.addHandler(handler)
    GO.clear()
    yield messages
    GO.set()
    logger.removeHandler(handler)


def spin() -> None:
    while not GO.is_set():
        pass


def app() -> App:
    made = App()

    @made.get("/blocking/{x}")
    def blocking(x: int) -> None:
        GO.wait(10)

    @made.get("/spinning")
    def spinning() -> None:
        spin()

    @made.get("/task")
    async def at_once() -> None:
        spin()

    @made.get("/resumed")
    async def resumed() -> None:
        await asyncio.sleep(0)
        spin()

    @made.get("/called-soon")
    async def called_soon() -> None:
        asyncio.get_running_loop().call_soon(spin)
        await asyncio.sleep(0.001)

    @made.get("/waiting")
    async def waiting() -> None:
        while not GO.is_set():  # noqa: ASYNC110  # timers are what it is about
            await asyncio.sleep(0.01)

    @made.get("/nothing")
    async def nothing() -> None:
        await asyncio.sleep(0)

    return made


def ask(client: Any, path: str) -> None:
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "route", "function"),
    [
        ("/blocking/7", "/blocking/{x}", "blocking"),
        ("/spinning", "/spinning", "spin"),
        ("/task", "/task", "spin"),
        ("/resumed", "/resumed", "spin"),
    ],
)
def test_a_handler_that_keeps_its_lane_is_named_with_its_stack(
    serve: Serve, raw: Connect, said: queue.Queue[str], path: str, route: str, function: str
) -> None:
    client = raw(serve(app(), stall_warning=LIMIT))
    ask(client, path)
    first, *stack = said.get(timeout=10).splitlines()
    handler = r"\S+ \S+" if function == "spin" else rf"{re.escape(__file__)}:\d+ \S*{function}"
    where = rf"in request \d+: GET {re.escape(route)} \({handler}\)"
    assert re.fullmatch(rf"lane 0 has not turned for 0\.\d\d s {where}", first), first
    # From the handler on, each function with its line of code; nothing of the lane's own.
    assert re.fullmatch(rf'  File "{re.escape(__file__)}", line \d+, in \S+', stack[0]), stack
    assert any(f", in {function}" in line for line in stack)
    assert stack[1] in ("    spin()", "    while not GO.is_set():", "    GO.wait(10)")
    GO.set()
    assert re.fullmatch(r"lane 0 goes on after \d\.\d\d s", said.get(timeout=10))
    assert client.response().status == 204
    assert said.empty()


def test_a_callback_that_keeps_its_lane_is_told_with_its_stack(
    serve: Serve, raw: Connect, said: queue.Queue[str]
) -> None:
    client = raw(serve(app(), stall_warning=LIMIT))
    ask(client, "/called-soon")
    first, *stack = said.get(timeout=10).splitlines()
    assert re.fullmatch(r"lane 0 has not turned for 0\.\d\d s", first)
    assert stack[0].endswith(", in spin")
    GO.set()
    assert "goes on" in said.get(timeout=10)
    assert client.response().status == 204


def test_one_stall_is_told_once(serve: Serve, raw: Connect, said: queue.Queue[str]) -> None:
    # The second server's limit is many times the first's: when it tells, the first would have again.
    first = raw(serve(app(), stall_warning=0.01))
    ask(first, "/blocking/1")
    assert "/blocking/{x}" in said.get(timeout=10)
    second = raw(serve(app(), stall_warning=0.1))
    ask(second, "/spinning")
    assert "/spinning" in said.get(timeout=10)
    GO.set()
    assert sorted(said.get(timeout=10).split(" after ")[0] for _ in range(2)) == [
        "lane 0 goes on",
        "lane 0 goes on",
    ]
    assert {first.response().status, second.response().status} == {204}
    assert said.empty()


def test_every_stall_is_told(serve: Serve, raw: Connect, said: queue.Queue[str]) -> None:
    client = raw(serve(app(), stall_warning=LIMIT))
    for _ in range(2):
        GO.clear()
        ask(client, "/spinning")
        assert "/spinning" in said.get(timeout=10)
        GO.set()
        assert "goes on" in said.get(timeout=10)
        assert client.response().status == 204


def test_the_lane_that_stands_still_is_told_and_no_other(
    serve: Serve, raw: Connect, said: queue.Queue[str]
) -> None:
    if not treadle.FREE_THREADED or interpreter.gil_enabled():
        pytest.skip("one lane with the GIL")
    server = serve(app(), lanes=2, stall_warning=LIMIT)
    clients = [raw(server), raw(server)]
    ask(clients[0], "/spinning")
    told = said.get(timeout=10)
    ask(clients[1], "/nothing")
    assert clients[1].response().status == 204
    lane = re.match(r"lane (\d) has not turned", told)
    assert lane is not None
    GO.set()
    assert said.get(timeout=10).startswith(f"lane {lane[1]} goes on")
    assert said.empty()


def test_a_lane_that_sleeps_does_not_stand_still(
    serve: Serve, raw: Connect, said: queue.Queue[str]
) -> None:
    idle, waiting = serve(app(), stall_warning=0.02), serve(app(), stall_warning=0.05)
    pending = raw(waiting)
    ask(pending, "/waiting")
    assert raw(idle).get("/nothing").status == 204
    client = raw(serve(app(), stall_warning=0.2))
    # Without holding the GIL, or the others would rightly be said to wait for it.
    ask(client, "/blocking/1")
    assert "/blocking/{x}" in said.get(timeout=10)
    GO.set()
    assert "goes on" in said.get(timeout=10)
    assert pending.response().status == 204
    assert said.empty()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_lane_under_full_load_does_not_stand_still(raw: Connect, said: queue.Queue[str]) -> None:
    for limit in (0.25, 0.5, 1.0, 2.0, 4.0):
        with LiveServer(app(), lanes=1, stall_warning=limit) as server:
            longest = _longest_pause(raw(server), 4 * limit)
        if longest < limit / 2:
            break
        # The machine gave the lane no core, or this thread: what was said then is no false alarm.
        while not said.empty():
            said.get()
    else:
        pytest.fail("answers came with pauses every time")
    assert said.empty(), said.get()


def _longest_pause(client: Any, duration: float) -> float:
    """Between two pieces of the answers to pipelined requests: the lane always has more to do."""
    stop = threading.Event()

    def send() -> None:
        batch = b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" * 200
        with contextlib.suppress(OSError):
            while not stop.is_set():
                client.send(batch)

    thread = threading.Thread(target=send)
    thread.start()
    answered, longest = 0, 0.0
    now = time.monotonic()
    until = now + duration
    try:
        while now < until:
            answered += client.socket.recv(1 << 16).count(b" 204 ")
            before, now = now, time.monotonic()
            longest = max(longest, now - before)
    finally:
        stop.set()
        client.socket.shutdown(2)
        thread.join()
    assert answered > 100
    return longest


def test_a_lane_that_waits_for_the_interpreter_is_told_as_that(
    serve: Serve, raw: Connect, said: queue.Queue[str]
) -> None:
    # A native call that does not let go of the interpreter: with the GIL it keeps it, without it a
    # collection's pause of all threads waits for the call, and the lane that wakes for the pause.
    client = raw(serve(app(), stall_warning=LIMIT))
    ask(client, "/waiting")
    first = ""
    for _ in range(10):
        held = threading.Thread(target=ctypes.PyDLL(None).usleep, args=(400_000,))
        held.start()
        if not interpreter.gil_enabled():
            # Only there: behind a whole suite a collection takes long, and with the GIL it keeps it.
            gc.collect()
        held.join()
        try:
            first = said.get(timeout=1)
        except queue.Empty:
            continue  # the machine stood still meanwhile, and the watch with it
        assert "goes on" in said.get(timeout=10)
        # A lane that the pause met at work stands still there: then it did not wake for it.
        if "has not turned" not in first:
            break
    what = "the GIL" if interpreter.gil_enabled() else "a pause of all threads"
    assert re.fullmatch(rf"lane 0 has waited for {what} for 0\.\d\d s", first)
    GO.set()
    assert client.response().status == 204
    assert said.empty()


def test_a_stop_during_a_stall_ends_with_the_stall(
    serve: Serve, raw: Connect, said: queue.Queue[str]
) -> None:
    server = serve(app(), stall_warning=LIMIT)
    client = raw(server)
    ask(client, "/spinning")
    assert "/spinning" in said.get(timeout=10)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    GO.set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert client.response().status == 204
    assert "goes on" in said.get(timeout=10)
    assert not [each for each in threading.enumerate() if each.name == "treadle-stall-watch"]


def test_the_command_says_it_on_standard_error_while_it_stops(
    run_cli: RunCli, gate: Gate, raw: Connect
) -> None:
    source = SOURCE + '@app.get("/block")\ndef blocking():\n    block()\n'
    command = run_cli(source, "--stall-warning", "0.02", env=gate.env)
    client = raw(command)
    ask(client, "/block")
    arrival = gate.arrival()
    command.send()
    file = re.escape(str(run_cli.folder / "main.py"))
    command.wait_for_stderr(
        rf"WARNING treadle: lane 0 has not turned for 0\.\d\d s in request 1: GET /block \({file}:\d+ "
        rf'blocking\)\n  File "{file}", line \d+, in blocking\n    block\(\)\n'
    )
    arrival.release()
    assert client.response().status == 204
    assert command.wait() == 0
    assert re.search(r"WARNING treadle: lane 0 goes on after \d\.\d\d s\n$", command.stderr)


def test_0_watches_nothing(serve: Serve) -> None:
    serve(app(), stall_warning=0)
    assert not [each for each in threading.enumerate() if each.name == "treadle-stall-watch"]


def test_a_limit_of_nothing_is_refused() -> None:
    for limit in (0.0, -1.0, float("nan"), 1e-12):
        with pytest.raises(ValueError, match="the limit must be greater than 0"):
            StallWatch([], limit)


def test_the_stack_of_a_thread_is_the_outermost_first() -> None:
    GO.clear()
    thread = threading.Thread(target=spin)
    thread.start()
    try:
        names = [name for _, _, name in stall.stack_of(thread.ident or 0)]
        assert names[0] == "_bootstrap"
        assert "spin" in names[1:]
    finally:
        GO.set()
        thread.join()
    assert stall.stack_of(12345) == []
