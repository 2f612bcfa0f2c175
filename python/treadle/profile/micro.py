"""Nanoseconds of the smallest things: what one `await`, context copy, Task or wake-up costs here.

Every piece is timed inside a coroutine on a running loop, in batches, less the same batch with a
plain call in its place. Pieces take turns, round after round, so that what disturbs the machine for
a moment falls on all of them; `summary` gives the median and the quartiles of the rounds.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from itertools import repeat
from time import perf_counter_ns
from typing import Any

from treadle.profile.record import Figure

__all__ = ["LoopFactory", "attach", "encode", "on_loop", "summary"]

type LoopFactory = Callable[[], asyncio.AbstractEventLoop]
type Piece = Callable[[int], Coroutine[Any, Any, int]]
"""Takes how many, gives the nanoseconds that all of them took."""

_variable: contextvars.ContextVar[int] = contextvars.ContextVar("treadle-budget", default=0)
_IN_FLIGHT = 64


def summary(rounds: Sequence[float]) -> Figure:
    """The median of the rounds and their quartiles; a difference below zero is noise: zero."""
    ordered = sorted(max(0.0, each) for each in rounds)
    last = len(ordered) - 1
    low, middle, high = (ordered[round(last * part)] for part in (0.25, 0.5, 0.75))
    return Figure(ns=middle, low=low, high=high)


def on_loop(
    factory: LoopFactory,
    *,
    count: int,
    rounds: int,
    awaitable: Callable[[], Awaitable[Any]] | None = None,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, list[float]]:
    """Nanoseconds of each piece on a loop of `factory`, by name, one value a round.

    `awaitable` makes what a foreign bridge awaits; its round trip is "bridge". `tick` is called
    after each round.
    """
    pieces: dict[str, Piece] = {
        "call": _calls,
        "coroutine": _coroutines,
        "context": _contexts,
        "eager": _eager_tasks,
        "task": _tasks,
        "suspension": _suspensions,
        "wake": _wakes,
    }
    if awaitable is not None:
        pieces["bridge"] = _round_trips(awaitable)
    found: dict[str, list[float]] = {name: [] for name in pieces}

    async def measure() -> None:
        for turn in range(rounds + 1):  # the first warms up
            for name, piece in pieces.items():
                taken = await piece(count) / count
                if turn:
                    found[name].append(taken)
            if turn:
                tick()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(measure())
    return found


# -- the pieces ------------------------------------------------------------------------------------


def _plain() -> int:
    return 1


async def _coroutine() -> int:
    return 1


async def _calls(count: int) -> int:
    began = perf_counter_ns()
    for _ in repeat(None, count):
        _plain()
    return perf_counter_ns() - began


async def _coroutines(count: int) -> int:
    began = perf_counter_ns()
    for _ in repeat(None, count):
        await _coroutine()
    return perf_counter_ns() - began


async def _contexts(count: int) -> int:
    copy = contextvars.copy_context
    began = perf_counter_ns()
    for _ in repeat(None, count):
        copy().run(_plain)
    return perf_counter_ns() - began


async def _eager_tasks(count: int) -> int:
    loop = asyncio.get_running_loop()
    make = asyncio.Task
    began = perf_counter_ns()
    for _ in repeat(None, count):
        make(_coroutine(), loop=loop, eager_start=True)
    return perf_counter_ns() - began


async def _tasks(count: int) -> int:
    """Tasks that the loop schedules, many at once, as a busy server has them."""
    make = asyncio.get_running_loop().create_task
    began = perf_counter_ns()
    for _ in repeat(None, max(1, count // _IN_FLIGHT)):
        tasks = [make(_coroutine()) for _ in repeat(None, _IN_FLIGHT)]
        await tasks[-1]
    taken = perf_counter_ns() - began
    return taken * count // (max(1, count // _IN_FLIGHT) * _IN_FLIGHT)


async def _suspensions(count: int) -> int:
    sleep = asyncio.sleep
    began = perf_counter_ns()
    for _ in repeat(None, count):
        await sleep(0)
    return perf_counter_ns() - began


async def _wakes(count: int) -> int:
    loop = asyncio.get_running_loop()
    began = perf_counter_ns()
    for _ in repeat(None, count):
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future
    return perf_counter_ns() - began


def _round_trips(make: Callable[[], Awaitable[Any]]) -> Piece:
    async def measure(count: int) -> int:
        count = max(1, count // 10)  # through another thread, mostly
        began = perf_counter_ns()
        for _ in repeat(None, count):
            await make()
        return (perf_counter_ns() - began) * 10

    return measure


# -- away from any loop ----------------------------------------------------------------------------


def encode(value: object, *, count: int, rounds: int) -> list[float]:
    """Nanoseconds to encode `value` as JSON, as a lane does it."""
    from treadle.encoding import make_encoder

    encoder = make_encoder()
    found = []
    for _ in range(rounds + 1):
        began = perf_counter_ns()
        for _ in repeat(None, count):
            encoder(value)
        found.append((perf_counter_ns() - began) / count)
    return found[1:]


def attach(*, count: int, rounds: int) -> list[float] | None:
    """Nanoseconds to leave the interpreter and come back, with nobody else in it.

    The same C function is called twice: once through a door that detaches and attaches around the
    call (`CDLL`), once through one that stays attached (`PyDLL`). None without ctypes.
    """
    try:
        import ctypes

        detached, attached = ctypes.CDLL(None).abs, ctypes.PyDLL(None).abs
    except (ImportError, OSError, AttributeError):
        return None
    found = []
    for _ in range(rounds + 1):
        taken = []
        for call in (attached, detached):
            began = perf_counter_ns()
            for _ in repeat(None, count):
                call(1)
            taken.append((perf_counter_ns() - began) / count)
        found.append(taken[1] - taken[0])
    return found[1:]
