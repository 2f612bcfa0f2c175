"""The async budget: what a request pays for being answered by `async def`, on this interpreter.

Each line is measured here and now, in nanoseconds, and stands beside what others pay for the same:
a plain call, asyncio's own loop, uvicorn's, and a bridge like that of pyo3-async-runtimes. Three
ways of measuring are used:

* `micro`: a piece of Python in a loop, less the same with a plain call in its place;
* `lane`: routes of a real server that differ in one thing, asked over one pipelined connection; the
  difference of the lane thread's CPU time is what that thing costs where it is really paid;
* `attach`: one C function through a door that detaches and one that does not.

Columns that cannot be measured say why. `CLAIM` is a widely read estimate, line by line.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

from treadle.exceptions import TreadleError
from treadle.profile import micro
from treadle.profile.record import Budget, BudgetLine, Figure, RouteRow

__all__ = [
    "ASYNCIO",
    "BRIDGE",
    "CLAIM",
    "SYNC",
    "TOGETHER",
    "TREADLE",
    "UVICORN",
    "LaneTimes",
    "MakeAwaitable",
    "NoSuchFunction",
    "foreign",
    "measure",
    "per_request",
]

SYNC = "plain sync handler"
TREADLE = "treadle"
ASYNCIO = "asyncio"
UVICORN = "uvicorn's loop"
BRIDGE = "pyo3-async-runtimes"

CLAIM = {
    "coroutine object": 20.0,
    "Task": 10.0,
    "context copy": 5.0,
    "attach to the interpreter": 15.0,
    "conversion across the bridge": 10.0,
}
"""Microseconds of a widely read estimate, by line; the Task is its "scheduling"."""

TOGETHER = "these five together"
"""The line of the claim's sum."""

ROUNDS = 9
COUNT = 4000
_PATIENCE = 20.0
"""Seconds that a trial import has."""

type MakeAwaitable = Callable[[], Awaitable[Any]]

type LaneTimes = dict[str, list[float]]
"""Nanoseconds of the lane's CPU a request, by route, one value a round."""


def measure(
    *,
    rounds: int = ROUNDS,
    count: int = COUNT,
    lane: Callable[[Callable[[], None]], LaneTimes] | None = None,
    answer: object = None,
    foreign: MakeAwaitable | None = None,
    tick: Callable[[int, int], None] = lambda done, of: None,
) -> Budget:
    """Measures every line.

    `lane` drives a lane (see `profile.lane`) and is given what to call after each of its rounds;
    `answer` is what the profiled route answered, for the price of encoding it; `foreign` makes an
    awaitable of somebody else's bridge. `tick` hears how many rounds of how many are done.
    """
    from treadle.loop import new_event_loop

    factories: dict[str, micro.LoopFactory] = {
        TREADLE: new_event_loop,
        ASYNCIO: asyncio.SelectorEventLoop,
    }
    absent = {}
    uvicorn, why = _uvicorn_loop()
    if uvicorn is not None:
        factories[UVICORN] = uvicorn
    else:
        absent[UVICORN] = why
    if foreign is None:
        absent[BRIDGE] = "not measured; --bridge names a function of an extension on it"
    of = rounds * (len(factories) + (lane is not None))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        tick(done, of)

    loops = {
        name: micro.on_loop(
            factory,
            count=count,
            rounds=rounds,
            awaitable=foreign if name == ASYNCIO else None,
            tick=step,
        )
        for name, factory in factories.items()
    }
    served = lane(step) if lane is not None else None
    lines = _lines(
        loops,
        served,
        encoded=micro.encode(answer, count=count, rounds=rounds),
        attached=micro.attach(count=count, rounds=rounds),
    )
    notes = (f"uvicorn's loop here: {why}.",) if uvicorn is not None else ()
    lines.append(_together(lines))
    known = [name for name in (SYNC, TREADLE, ASYNCIO, UVICORN, BRIDGE) if name not in absent]
    return Budget(columns=tuple(known), lines=tuple(lines), absent=absent, notes=notes)


def _lines(
    loops: dict[str, dict[str, list[float]]],
    served: LaneTimes | None,
    *,
    encoded: list[float],
    attached: list[float] | None,
) -> list[BudgetLine]:
    def less(name: str, base: str) -> dict[str, Figure | None]:
        return {column: _difference(pieces[name], pieces[base]) for column, pieces in loops.items()}

    def on_lane(name: str, base: str) -> Figure | None:
        return None if served is None else _difference(served[name], served[base])

    nothing = Figure(ns=0.0, low=0.0, high=0.0)
    context = less("context", "call")
    task = less("task", "coroutine")
    suspension = less("suspension", "coroutine")
    bridge = loops[ASYNCIO].get("bridge")
    # A lane's Task has its coroutine and context in it: they are taken off, to be shown once.
    whole = on_lane("/async", "/sync")
    coroutine = less("coroutine", "call")
    parts = [part for part in (coroutine[TREADLE],) if part is not None]
    serialized = micro.summary(encoded)
    return [
        _line(
            "coroutine object",
            "made, run and closed, against a plain call",
            {SYNC: nothing, **coroutine},
        ),
        _line(
            "context copy",
            "copy_context() and run; every request of treadle has one, sync ones too",
            {SYNC: context[TREADLE], **context},
        ),
        _line(
            "Task",
            "treadle: async against sync route of a served lane, less the coroutine; others: a "
            "scheduled Task, less the coroutine",
            {SYNC: nothing, **task, TREADLE: _without(whole, parts) or task[TREADLE]},
        ),
        _line(
            "suspension",
            "one sleep(0): out to the loop and back in",
            {
                SYNC: nothing,
                **suspension,
                TREADLE: on_lane("/suspend", "/async") or suspension[TREADLE],
            },
        ),
        _line(
            "wake by a future",
            "a future made, completed by a callback, and awaited",
            {SYNC: nothing, **less("wake", "coroutine")},
        ),
        _line(
            "serialize",
            "this route's answer as JSON, sync or async",
            dict.fromkeys((SYNC, *loops), serialized),
        ),
        _line(
            "conversion across the bridge",
            "treadle: a Rust future (the request's body) awaited in a served handler; others: the "
            "round trip of an awaitable made in Rust",
            {
                SYNC: nothing,
                TREADLE: on_lane("/body", "/request"),
                BRIDGE: None if bridge is None else micro.summary(bridge),
            },
        ),
        _line(
            "attach to the interpreter",
            "left and entered again with nobody else in it; a lane does it once a sleep, not once "
            "a request, so under load this is shared by many",
            dict.fromkeys(
                (SYNC, *loops, BRIDGE), None if attached is None else micro.summary(attached)
            ),
        ),
    ]


def _line(name: str, what: str, figures: dict[str, Figure | None]) -> BudgetLine:
    return BudgetLine(name=name, what=what, figures=figures, claimed_us=CLAIM.get(name))


def _together(lines: list[BudgetLine]) -> BudgetLine:
    """The claimed lines added up, where all of them were measured."""
    claimed = [line for line in lines if line.claimed_us is not None]
    figures: dict[str, Figure | None] = {}
    for column in claimed[0].figures:
        parts = [part for line in claimed if (part := line.figures.get(column)) is not None]
        figures[column] = (
            Figure(
                ns=sum(part.ns for part in parts),
                low=sum(part.low for part in parts),
                high=sum(part.high for part in parts),
            )
            if len(parts) == len(claimed)
            else None
        )
    return BudgetLine(
        name=TOGETHER,
        what="the lines of the claim",
        figures=figures,
        claimed_us=sum(CLAIM.values()),
    )


def _difference(one: list[float], base: list[float]) -> Figure:
    """Round by round: what disturbed one round disturbed both."""
    return micro.summary([a - b for a, b in zip(one, base, strict=True)])


def _without(whole: Figure | None, parts: list[Figure]) -> Figure | None:
    if whole is None:
        return None
    off = sum(part.ns for part in parts)
    return Figure(
        ns=max(0.0, whole.ns - off), low=max(0.0, whole.low - off), high=max(0.0, whole.high - off)
    )


class NoSuchFunction(TreadleError):
    """What should make a foreign bridge's awaitables cannot. The text is one sentence."""


def foreign(target: str) -> MakeAwaitable:
    """The function `module:function`. Raises `NoSuchFunction`."""
    module, colon, name = target.partition(":")
    try:
        function = getattr(import_module(module), name) if colon and module and name else None
    except Exception as error:
        raise NoSuchFunction(f"--bridge {target}: {type(error).__name__}: {error}.") from None
    if not callable(function):
        raise NoSuchFunction(f"--bridge {target} names no function; write module:function.")
    return cast(MakeAwaitable, function)


# -- what others run on ----------------------------------------------------------------------------


def _uvicorn_loop() -> tuple[micro.LoopFactory | None, str]:
    """The loop that uvicorn would choose, and its name; None and why where there is no uvicorn."""
    if find_spec("uvicorn") is None:
        return None, "not installed"
    if find_spec("uvloop") is None:
        return asyncio.SelectorEventLoop, "asyncio's, because uvloop is not installed"
    from treadle.interpreter import gil_enabled

    if not gil_enabled() and _turns_gil_on("uvloop"):
        # Every other line would be measured with the GIL on.
        return None, "not measured: importing uvloop turns the GIL on"
    return import_module("uvloop").new_event_loop, "uvloop"


def _turns_gil_on(module: str) -> bool:
    """Whether importing it does, or fails: tried in another process, as it cannot be undone."""
    script = f"import sys, {module}; sys.exit(sys._is_gil_enabled())"
    try:
        tried = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", script],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return True
    return tried.returncode != 0


# -- the profiled app ------------------------------------------------------------------------------


def per_request(budget: Budget, routes: tuple[RouteRow, ...]) -> float | None:
    """Microseconds that the profiled requests paid on average for being async; None if nothing ran.

    Coroutine and Task once for each request of an async route, a suspension and a wake-up for each
    one that suspended.
    """
    requests = sum(route.requests for route in routes)
    if not requests:
        return None
    started = sum(route.requests for route in routes if route.mode == "task") / requests
    suspended = sum(route.stage("suspended").count for route in routes) / requests
    known = {line.name: line.figures.get(TREADLE) for line in budget.lines}

    def cost(*names: str) -> float:
        return sum(figure.ns for name in names if (figure := known.get(name)) is not None)

    paid = started * cost("coroutine object", "Task") + suspended * cost("suspension")
    return paid / 1000
