"""A loop may poll its sockets for some microseconds before it sleeps."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.loops import OwnThread, pair

import treadle

EXCHANGES = 500


@pytest.fixture
def polling(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`polling(microseconds)`: loops that are made from now on poll for as long."""
    return lambda longest: monkeypatch.setenv("TREADLE_BUSY_POLL", str(longest))


# A process of its own: a thread would hold the GIL, where there is one, just when the loop wants it.
ANSWERER = """
import socket, sys, time
there = socket.socket(fileno=int(sys.argv[1]))
while data := there.recv(1):
    # Not before the loop has come to its sleep.
    until = time.perf_counter_ns() + 30_000
    while time.perf_counter_ns() < until:
        pass
    there.send(data)
"""


@contextlib.contextmanager
def answerer() -> Iterator[socket.socket]:
    """A socket whose peer, another process, answers each byte with itself."""
    with pair() as (here, there):
        there.setblocking(True)
        command = [sys.executable, "-S", "-c", ANSWERER, str(there.fileno())]
        process = subprocess.Popen(command, pass_fds=[there.fileno()])
        there.close()
        yield here
        assert process.wait(20) == 0


async def exchanges(count: int) -> int:
    """How often the loop's thread slept while another process answered `count` times."""
    with answerer() as here:
        reader, writer = await asyncio.open_connection(sock=here)
        writer.write(b"x")
        await reader.readexactly(1)  # it runs
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for _ in range(count):
            writer.write(b"x")
            await reader.readexactly(1)
        slept = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
        writer.close()
        await writer.wait_closed()
    return slept


@pytest.mark.timing
def test_a_loop_that_polls_needs_not_be_woken(
    polling: Callable[[int], None], on_thread: OwnThread
) -> None:
    polling(0)
    asleep = on_thread(lambda: treadle.run(exchanges(EXCHANGES)))
    assert asleep > EXCHANGES / 2
    polling(1_000_000)
    # A loop leaves its core to others, so one undisturbed time among many will do, and on a machine
    # that is busy it sleeps before many of the answers then, too.
    runs = (on_thread(lambda: treadle.run(exchanges(EXCHANGES))) for _ in range(40))
    assert any(slept < asleep * 0.7 for slept in runs)


@pytest.mark.timing
def test_a_loop_whose_peers_are_slow_sleeps_as_ever(
    polling: Callable[[int], None], on_thread: OwnThread
) -> None:
    async def main() -> float:
        before = time.thread_time()
        for _ in range(300):
            await asyncio.sleep(0.001)
        return time.thread_time() - before

    def taken(longest: int) -> float:
        polling(longest)
        return on_thread(lambda: treadle.run(main()))

    # Polling before each of them would take 120 ms more, every time. What they take without it is
    # the machine's: on one that is busy with others, it may be as much.
    assert any(taken(400) - taken(0) < 0.06 for _ in range(10))


@pytest.mark.parametrize("longest", [0, 50, 1_000_000])
def test_whatever_happens_is_seen_by_a_loop_that_polls(
    polling: Callable[[int], None], on_thread: OwnThread, longest: int
) -> None:
    polling(longest)

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        await exchanges(100)
        seen: list[Any] = []
        for _ in range(40):
            before = loop.time()
            await asyncio.sleep(0.0005)
            assert loop.time() >= before + 0.0005
        seen.append(await asyncio.to_thread(lambda: "thread"))
        called = loop.create_future()
        timer = threading.Timer(
            0.005, loop.call_soon_threadsafe, (called.set_result, "another thread")
        )
        timer.start()
        seen.append(await called)
        with pair() as (here, there):
            readable = loop.create_future()
            loop.add_reader(here, lambda: readable.set_result(here.recv(1)))
            timer = threading.Timer(0.005, there.send, (b"x",))
            timer.start()
            seen.append(await readable)
            loop.remove_reader(here)
        child = await asyncio.create_subprocess_exec("sleep", "0.01")
        seen.append(await child.wait())
        return seen

    assert on_thread(lambda: treadle.run(main())) == ["thread", "another thread", b"x", 0]


def test_a_pool_that_polls_takes_work_and_ends(polling: Callable[[int], None]) -> None:
    polling(1_000_000)

    async def work(number: int) -> int:
        await asyncio.sleep(0.0001)
        return number

    with treadle.LoopPool(lanes=2) as pool:
        assert pool.map(work, range(200)) == list(range(200))
        for number in range(200):
            assert pool.spawn(work(number)).result(10) == number


@pytest.mark.timing
@pytest.mark.timeout(120)
def test_another_thread_has_the_interpreter_while_a_loop_polls(
    polling: Callable[[int], None],
) -> None:
    polling(1_000_000)
    stop = threading.Event()
    polls = threading.Event()

    async def main() -> None:
        await exchanges(200)
        polls.set()
        await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: treadle.run(main()))
    thread.start()
    assert polls.wait(20)
    before = time.perf_counter()
    for _ in range(20):
        gc.collect(0)  # stops every thread for a moment, where there is no GIL
        sum(range(10_000))
    took = time.perf_counter() - before
    stop.set()
    thread.join()
    assert took < 5


def test_a_signal_ends_a_run_that_polls(polling: Callable[[int], None]) -> None:
    polling(1_000_000)

    async def main() -> None:
        await exchanges(200)
        timer = threading.Timer(0.005, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        await asyncio.sleep(0.5)
        await asyncio.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        treadle.run(main())


@pytest.mark.parametrize("wrong", ["-1", "1.5", "often", "1000001", "٣"])
def test_what_is_no_number_of_microseconds_is_refused(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("TREADLE_BUSY_POLL", wrong)
    with pytest.raises(ValueError, match="TREADLE_BUSY_POLL is microseconds"):
        treadle.new_event_loop()


def test_a_server_does_not_poll() -> None:
    """Its lanes share the cores with others, and are kept busy by their connections."""
    script = (
        "import os, resource, socket, threading\n"
        "os.environ['TREADLE_BUSY_POLL'] = '1000000'\n"
        "from treadle import App\n"
        "from treadle.testing import LiveServer\n"
        "import httpx\n"
        "app = App()\n"
        "app.get('/')(lambda: 'x')\n"
        "def spent(): return sum(resource.getrusage(resource.RUSAGE_SELF)[:2])\n"
        "with LiveServer(app) as server, httpx.Client() as client:\n"
        "    for _ in range(200): client.get(server.url).raise_for_status()\n"
        "    before = spent()\n"
        "    threading.Event().wait(0.3)\n"
        "    print(spent() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(done.stdout) < 0.15
