"""What is measured: each does `count` operations and raises AssertionError if one went wrong.

Runs in the measured process and imports nothing but the standard library, and asyncpg where a
scenario is about it.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from profiling.loops.kinds import Kind

Run = Callable[[int], Awaitable[None]]

_LATER = 3600.0
_GATHERED = 1000
_YIELD_EVERY = 100
_BURST = 64
_PAUSES = 1000


async def call_soon(count: int) -> None:
    """A callback that schedules itself."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    ran = 0

    def step() -> None:
        nonlocal ran
        ran += 1
        if ran == count:
            done.set_result(None)
        else:
            loop.call_soon(step)

    loop.call_soon(step)
    await done
    await asyncio.sleep(0)
    assert ran == count


async def call_later_cancel(count: int) -> None:
    """A timer that is set and cancelled; the loop turns every hundred of them."""
    loop = asyncio.get_running_loop()
    ran: list[int] = []
    for number in range(count):
        handle = loop.call_later(_LATER, ran.append, number)
        handle.cancel()
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
    assert handle.cancelled()
    assert not ran


async def sleep0(count: int) -> None:
    """A task that lets the loop turn."""
    for _ in range(count):
        await asyncio.sleep(0)


async def _number(number: int) -> int:
    return number


async def create_task(count: int) -> None:
    """A task made and awaited."""
    loop = asyncio.get_running_loop()
    for number in range(count):
        assert await loop.create_task(_number(number)) == number


async def gather(count: int) -> None:
    """A thousand coroutines gathered; an operation is one coroutine."""
    for _ in range(max(1, count // _GATHERED)):
        found = await asyncio.gather(*(_number(number) for number in range(_GATHERED)))
        assert found[-1] == _GATHERED - 1
        assert len(found) == _GATHERED


async def queue(count: int) -> None:
    """An item there and back between two tasks."""
    there: asyncio.Queue[int] = asyncio.Queue()
    back: asyncio.Queue[int] = asyncio.Queue()

    async def answer() -> None:
        for _ in range(count):
            await back.put(await there.get() + 1)

    answering = asyncio.create_task(answer())
    for number in range(count):
        await there.put(number)
        assert await back.get() == number + 1
    await answering


async def threadsafe(count: int) -> None:
    """Callbacks of another thread, in bursts of 64, each burst waited for."""
    loop = asyncio.get_running_loop()
    burst = threading.Semaphore(0)
    ran = 0

    def step(last: bool) -> None:
        nonlocal ran
        ran += 1
        if last:
            burst.release()

    def work() -> None:
        for _ in range(bursts):
            for number in range(_BURST):
                loop.call_soon_threadsafe(step, number == _BURST - 1)
            burst.acquire()
        loop.call_soon_threadsafe(done.set_result, None)

    bursts = max(1, count // _BURST)
    done: asyncio.Future[None] = loop.create_future()
    thread = threading.Thread(target=work)
    thread.start()
    await done
    thread.join()
    assert ran == bursts * _BURST


async def pause(count: int) -> None:
    """A millisecond slept; an operation is one sleep of a thousand at a time."""
    loop = asyncio.get_running_loop()

    async def one() -> None:
        began = loop.time()
        await asyncio.sleep(0.001)
        assert loop.time() - began > 0.0005

    for _ in range(max(1, count // _PAUSES)):
        await asyncio.gather(*(one() for _ in range(_PAUSES)))


class _Queries:
    """Queries one after the other on each of so many connections; an operation is one.

    The first run connects, and the connections last until `end`: making one takes as long as a
    hundred queries do.
    """

    def __init__(self, connections: int) -> None:
        self._count = connections
        self._connections: list[Any] = []

    async def __call__(self, count: int) -> None:
        import asyncpg

        where = os.environ["LOOPS_POSTGRES"]
        while len(self._connections) < self._count:
            self._connections.append(await asyncpg.connect(host=where, user="postgres"))

        async def ask(connection: Any) -> None:
            for _ in range(max(1, count // self._count)):
                assert await connection.fetchval("select 1") == 1

        await asyncio.gather(*(ask(connection) for connection in self._connections))

    async def end(self) -> None:
        while self._connections:
            await self._connections.pop().close()


def _scaled(loops: int) -> Run:
    async def run(count: int) -> None:
        """So many loops, one a thread, each with its share of the switches."""
        kind = Kind(os.environ["LOOPS_KIND"])
        failures: list[BaseException] = []

        def work() -> None:
            try:
                with asyncio.Runner(loop_factory=kind.factory()) as runner:
                    runner.run(sleep0(max(1, count // loops)))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(loops)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures, failures

    return run


@dataclass(frozen=True, slots=True)
class Micro:
    """Measured inside one process."""

    name: str
    text: str
    run: Run
    at_least: float | None = None
    """What treadle is to reach over uvloop."""
    cores: str = "0"
    postgres: bool = False
    end: Callable[[], Awaitable[None]] | None = None
    """After the last run, on the same loop."""


@dataclass(frozen=True, slots=True)
class Echo:
    """A server on one core that sends back what it gets, and a client on the other."""

    name: str
    text: str
    size: int
    streams: bool = False
    unix: bool = False
    tls: bool = False
    at_least: float | None = 1.2


Scenario = Micro | Echo


def _asking(name: str, text: str, connections: int) -> Micro:
    queries = _Queries(connections)
    return Micro(name, text, queries, 1.1, postgres=True, end=queries.end)


ONE_LOOP = Micro("loops-1", "task switching, one loop", _scaled(1), cores="0,1")
TWO_LOOPS = Micro("loops-2", "task switching, two loops", _scaled(2), cores="0,1")
FOUR_LOOPS = Micro("loops-4", "task switching, four loops", _scaled(4), cores="0-3")

SCENARIOS: tuple[Scenario, ...] = (
    Micro("call_soon", "`call_soon` chain", call_soon, 1.2),
    Micro("call_later", "`call_later` + cancel", call_later_cancel, 1.2),
    Micro("sleep0", "`sleep(0)` switch", sleep0, 1.2),
    Micro("create_task", "`create_task` + await", create_task, 1.2),
    Micro("gather", "`gather` of 1,000, a coroutine", gather, 1.2),
    Micro("queue", "`Queue` ping-pong", queue, 1.2),
    Micro("threadsafe", "`call_soon_threadsafe`", threadsafe, 1.2, cores="0,1"),
    Micro("pause", "`sleep(0.001)`, 1,000 at a time, each", pause),
    Echo("tcp-1k", "TCP echo, protocol, 1 KiB", 1024),
    Echo("tcp-100k", "TCP echo, protocol, 100 KiB", 102_400),
    Echo("streams-1k", "TCP echo, streams, 1 KiB", 1024, streams=True),
    Echo("streams-100k", "TCP echo, streams, 100 KiB", 102_400, streams=True),
    Echo("unix-1k", "Unix echo, protocol, 1 KiB", 1024, unix=True),
    Echo("tls-1k", "TLS echo, protocol, 1 KiB", 1024, tls=True, at_least=1.0),
    _asking("asyncpg-1", "asyncpg `select 1`, 1 connection", 1),
    _asking("asyncpg-32", "asyncpg `select 1`, 32 connections", 32),
    ONE_LOOP,
    TWO_LOOPS,
    FOUR_LOOPS,
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
