"""Advice about the server: its lanes, its interpreter, the machine, and the load on it."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.profile import flame
from treadle.profile.advice.severity import BROKEN, LOST, WORTH_KNOWING
from treadle.profile.record import Advice, Profile
from treadle.profile.words import count, seconds, share

__all__ = ["RULES"]

MANY_WAITED = 0.01
MUCH_ATTACH_WAIT = 0.03
LATE = 0.02
"""Seconds that a callback or timer ran late."""
BUSY = 0.85
UNEVEN = 1.5
MISSED_RATE = 0.97
HOT = 0.25
UNFINISHED = "unfinished"
"""What the load calls those that it did not wait for."""


def _debug_build(profile: Profile) -> Iterator[Advice]:
    if profile.origin.build_profile == "debug":
        yield Advice(
            kind="debug-build",
            severity=BROKEN,
            title="Treadle's native module is a debug build: every figure here is too high",
            action="Install a release build (pip install treadle, or maturin develop --release).",
        )


def _gil(profile: Profile) -> Iterator[Advice]:
    origin = profile.origin
    if not (origin.gil and origin.free_threaded_build):
        return
    if origin.gil_culprit:
        what = f"The GIL was turned on again by the import of {origin.gil_culprit!r}"
        action = "Update or replace that module with one that supports free threading"
    else:
        what = "The GIL is on in a build that can do without it"
        action = (
            "Start it without PYTHON_GIL=1 and -X gil=1; if it had neither, a module turned it on, "
            "which Python's own warning names"
        )
    yield Advice(
        kind="gil",
        severity=BROKEN,
        title=f"{what}: lanes take turns instead of running at once",
        action=f"{action}; --require-free-threading refuses to start instead.",
    )


def _failures(profile: Profile) -> Iterator[Advice]:
    errors = {} if profile.load is None else dict(profile.load.errors)
    errors.pop(UNFINISHED, None)
    if errors:
        reasons = ", ".join(f"{name} {count(n)}" for name, n in errors.items())
        total = sum(errors.values())
        yield Advice(
            kind="errors",
            severity=BROKEN,
            title=f"{count(total)} requests had no answer ({reasons})",
            action="Latency and rate are those of the answered ones; find out why first.",
        )


def _unfinished(profile: Profile) -> Iterator[Advice]:
    # Of handlers that take seconds there always are some.
    number = 0 if profile.load is None else profile.load.errors.get(UNFINISHED, 0)
    if number:
        yield Advice(
            kind="unfinished",
            severity=WORTH_KNOWING,
            title=f"{count(number)} requests were still under way when the load ended",
            action="They are in no latency: where answers take seconds, a longer --duration leaves "
            "fewer of them out.",
        )


def _waited(profile: Profile) -> Iterator[Advice]:
    asked = sum(route.requests for route in profile.routes)
    on_lanes = [route for route in profile.routes if route.mode != "offload"]
    waited = sum(route.waited * route.requests for route in on_lanes)
    if asked and waited / asked >= MANY_WAITED:
        lanes, cores = len(profile.lanes), profile.origin.machine.cores
        if profile.origin.gil:
            action = "More worker processes (--workers) would serve them at once."
        elif lanes < cores:
            action = f"{lanes} of {cores} cores have a lane: serve with --lanes {cores}."
        else:
            action = (
                "Every core has a lane already: make handlers shorter or offload the long ones; a "
                "load below what the server can do (--rate) shows what users would meet."
            )
        title = f"{share(waited / asked)} of requests waited over 1 ms for the lane: more lanes"
        if not profile.origin.gil and lanes >= cores:
            title = title.removesuffix(": more lanes")
        yield Advice(kind="lane-wait", severity=LOST, title=title, action=action)


def _attach(profile: Profile) -> Iterator[Advice]:
    for lane in profile.lanes:
        if lane.attach_wait >= MUCH_ATTACH_WAIT:
            yield Advice(
                kind="attach-wait",
                severity=LOST,
                title=f"Lane {lane.index} spent {share(lane.attach_wait)} of its time waiting for "
                "the interpreter",
                action="Other threads hold the GIL: give them less to compute, or use a "
                "free-threaded build."
                if profile.origin.gil
                else "The world was stopped for it, by the garbage collector or a profiler: fewer "
                "objects in cycles, or gc.freeze() after start.",
            )


def _late(profile: Profile) -> Iterator[Advice]:
    worst = max(profile.lanes, key=lambda lane: lane.lag_max, default=None)
    if worst is not None and worst.lag_max >= LATE:
        yield Advice(
            kind="loop-lag",
            severity=LOST,
            title=f"The loop of lane {worst.index} was up to {seconds(worst.lag_max)} late "
            f"(p99 {seconds(worst.lag_p99)})",
            action="Something ran that long without an await: see the flame graph, and the stall "
            "warnings in the server's log (--stall-warning).",
        )


def _rate(profile: Profile) -> Iterator[Advice]:
    load = profile.load
    if load is None or not load.wanted_rate or load.rate >= MISSED_RATE * load.wanted_rate:
        return
    yield Advice(
        kind="rate",
        severity=LOST,
        title=f"{count(load.rate)} answers a second where {count(load.wanted_rate)} were asked for",
        action="The server, or the load generator beside it, is at its limit: the latency has the "
        "wait in it that users would have had.",
    )


def _uneven(profile: Profile) -> Iterator[Advice]:
    asked = [lane.requests for lane in profile.lanes]
    mean = sum(asked) / max(1, len(asked))
    if len(asked) > 1 and mean and max(asked) > UNEVEN * mean:
        yield Advice(
            kind="uneven-lanes",
            severity=WORTH_KNOWING,
            title=f"One lane of {len(asked)} answered {share(max(asked) / sum(asked))} of all "
            "requests",
            action="A connection stays on its lane: more connections (--concurrency) spread better.",
        )


def _crowded(profile: Profile) -> Iterator[Advice]:
    busy = max((moment.cpu for moment in profile.timeline), default=0.0)
    cores = profile.origin.machine.cores
    if cores and busy > BUSY * cores:
        yield Advice(
            kind="crowded",
            severity=WORTH_KNOWING,
            title=f"The server used {busy:.1f} of {cores} cores: the load generator had none of "
            "its own",
            action="The rate is what both could do together; fewer --lanes leave it a core.",
        )


def _hot(profile: Profile) -> Iterator[Advice]:
    if profile.flame is None or profile.flame.samples < 100:
        return
    for name, part in flame.hottest(profile.flame.root, 1):
        if part >= HOT:
            yield Advice(
                kind="hot",
                severity=WORTH_KNOWING,
                title=f"{share(part)} of the samples ended in {name}",
                action="Whatever makes this function faster makes the app faster.",
            )


RULES = (
    _debug_build,
    _gil,
    _failures,
    _unfinished,
    _waited,
    _attach,
    _late,
    _rate,
    _uneven,
    _crowded,
    _hot,
)
