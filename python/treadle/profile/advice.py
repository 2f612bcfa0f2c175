"""What a person can do about what a profile found: a pure function of it.

A rule is a function that yields advice only where it holds, each with the figure it was drawn from.
Thresholds are named here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from treadle.profile import flame
from treadle.profile.budget import TREADLE
from treadle.profile.record import Advice, Profile, RouteRow
from treadle.profile.words import count, seconds, share

__all__ = ["advise"]

BROKEN, LOST, WORTH_KNOWING = 3, 2, 1

LONG_RUN = 0.005
"""Seconds of Python at a stretch in which a lane serves nobody else."""
MANY_WAITED = 0.01
LARGE_SERIALIZE = 0.25
LONG_SERIALIZE = 50e-6
LARGE_PREPARE = 0.4
LONG_PREPARE = 200e-6
MUCH_ATTACH_WAIT = 0.03
LATE = 0.02
"""Seconds that a callback or timer ran late."""
BUSY = 0.85
UNEVEN = 1.5
MISSED_RATE = 0.97
HOT = 0.25
MOSTLY_WAITS = 0.8


def advise(profile: Profile) -> tuple[Advice, ...]:
    """All advice that holds, the most severe first."""
    found = [advice for rule in _RULES for advice in rule(profile)]
    return tuple(sorted(found, key=lambda advice: -advice.severity))


# -- something is broken ---------------------------------------------------------------------------


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
    by = f" by the import of {origin.gil_culprit!r}" if origin.gil_culprit else ""
    yield Advice(
        kind="gil",
        severity=BROKEN,
        title=f"The GIL was turned on again{by}: lanes take turns instead of running at once",
        action="Update or replace that module with one that supports free threading; "
        "--require-free-threading refuses to start instead.",
    )


def _failures(profile: Profile) -> Iterator[Advice]:
    for route in profile.routes:
        failed = route.statuses.get("5xx", 0)
        if failed:
            yield Advice(
                kind="5xx",
                severity=BROKEN,
                title=f"{route.name} failed {share(failed / max(1, route.requests))} of the time "
                f"({count(failed)} answers 5xx)",
                action=f"The server's log has the tracebacks; the handler is {route.handler}.",
            )
        refused = route.statuses.get("4xx", 0)
        if refused > 0.01 * route.requests:
            yield Advice(
                kind="4xx",
                severity=LOST,
                title=f"{route.name} refused {share(refused / max(1, route.requests))} of its "
                f"requests ({count(refused)} answers 4xx)",
                action="Look whether the profiled request has the path, headers and body that the "
                "route wants: what is refused is not what you meant to measure.",
            )
    if profile.load is not None and profile.load.errors:
        reasons = ", ".join(f"{name} {count(n)}" for name, n in profile.load.errors.items())
        total = sum(profile.load.errors.values())
        yield Advice(
            kind="errors",
            severity=BROKEN,
            title=f"{count(total)} requests had no answer ({reasons})",
            action="Latency and rate are those of the answered ones; find out why first.",
        )


# -- time is lost ----------------------------------------------------------------------------------


def _long_runs(profile: Profile) -> Iterator[Advice]:
    for route in profile.routes:
        run = route.stage("run")
        if route.mode == "offload" or run.p90 < LONG_RUN:
            continue
        suspends = route.stage("suspended").count > 0
        between = " between awaits" if suspends else ""
        how = (
            "make it a plain def with offload=True"
            if route.mode == "inline"
            else "move that part to a thread (await asyncio.to_thread(...))"
        )
        gil = (
            " With the GIL a thread keeps the lane answering but does not add speed; "
            "worker processes do."
            if profile.origin.gil
            else ""
        )
        yield Advice(
            kind="long-run",
            severity=LOST,
            title=f"{_function(route)} runs {seconds(run.p90)} of Python{between} "
            f"(p90; {route.name}): offload it",
            action=f"Its lane answers nobody else meanwhile: {how}.{gil}",
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
    queued = max((moment.offload_queued for moment in profile.timeline), default=0)
    for route in profile.routes:
        if route.mode == "offload" and (route.waited >= MANY_WAITED or queued):
            yield Advice(
                kind="offload-wait",
                severity=LOST,
                title=f"{share(route.waited)} of {route.name} waited over 1 ms for an offload "
                f"thread (p99 {seconds(route.stage('wait').p99)}, up to {count(queued)} queued)",
                action="More --offload-threads if they block on others; if they compute, more "
                "threads than cores do not help.",
            )


def _serialize(profile: Profile) -> Iterator[Advice]:
    for route in profile.routes:
        stage = route.stage("serialize")
        if stage.share >= LARGE_SERIALIZE and stage.mean >= LONG_SERIALIZE:
            yield Advice(
                kind="serialize",
                severity=LOST,
                title=f"{route.name} spends {share(stage.share)} of its time making JSON "
                f"({seconds(stage.mean)} a request)",
                action="Answer with less, with msgspec.Struct instead of dicts or pydantic models, "
                "or with ready bytes (Response).",
            )


def _prepare(profile: Profile) -> Iterator[Advice]:
    for route in profile.routes:
        stage = route.stage("prepare")
        if stage.share >= LARGE_PREPARE and stage.mean >= LONG_PREPARE:
            yield Advice(
                kind="prepare",
                severity=LOST,
                title=f"{route.name} spends {share(stage.share)} of its time on its arguments "
                f"({seconds(stage.mean)} a request)",
                action="That is the wait for the body and its validation: a msgspec.Struct is "
                "decoded and checked in one pass; a large body takes what the network takes.",
            )


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


# -- worth knowing ---------------------------------------------------------------------------------


def _needless_async(profile: Profile) -> Iterator[Advice]:
    if profile.budget is None:
        return
    figures = {line.name: line.figures.get(TREADLE) for line in profile.budget.lines}
    paid = sum(figure.ns for name in ("coroutine object", "Task") if (figure := figures.get(name)))
    for route in profile.routes:
        if route.mode == "task" and route.requests and not route.stage("suspended").count:
            yield Advice(
                kind="needless-async",
                severity=WORTH_KNOWING,
                title=f"{_function(route)} is async and never waited: that costs {paid:,.0f} ns "
                "a request",
                action="Leave it, it is little; as a plain def it would cost nothing.",
            )


def _mostly_waits(profile: Profile) -> Iterator[Advice]:
    for route in profile.routes:
        stage = route.stage("suspended")
        if route.mode == "task" and stage.share >= MOSTLY_WAITS and stage.mean >= 0.001:
            yield Advice(
                kind="waits",
                severity=WORTH_KNOWING,
                title=f"{route.name} waits {share(stage.share)} of its time for others "
                f"({seconds(stage.p50)} in the median)",
                action="The server is not what it is slow by: look at what it awaits; independent "
                "waits can go side by side (asyncio.TaskGroup).",
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


def _function(route: RouteRow) -> str:
    """`get_user` of `/app/main.py:12 get_user`."""
    return route.handler.rpartition(" ")[2] or route.name


_RULES: tuple[Callable[[Profile], Iterator[Advice]], ...] = (
    _debug_build,
    _gil,
    _failures,
    _long_runs,
    _waited,
    _serialize,
    _prepare,
    _attach,
    _late,
    _rate,
    _needless_async,
    _mostly_waits,
    _uneven,
    _crowded,
    _hot,
)
