"""Advice about one route: what its handler does with the time it has."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.profile.advice.severity import BROKEN, LOST, WORTH_KNOWING
from treadle.profile.budget import TREADLE
from treadle.profile.record import Advice, Profile, RouteRow
from treadle.profile.words import count, seconds, share

__all__ = ["RULES"]

LONG_RUN = 0.005
"""Seconds of Python at a stretch in which a lane serves nobody else."""
MANY_REFUSED = MANY_WAITED = 0.01
LARGE_SERIALIZE = 0.25
LONG_SERIALIZE = 50e-6
LARGE_PREPARE = 0.4
LONG_PREPARE = 200e-6
MOSTLY_WAITS = 0.8
WORTH_A_WORD = 0.02
"""What being async costs, as a share of the time that the handler runs."""


def _failures(profile: Profile, route: RouteRow) -> Iterator[Advice]:
    failed = route.statuses.get("5xx", 0)
    if failed:
        yield Advice(
            kind="5xx",
            severity=BROKEN,
            title=f"{route.name} failed {share(failed / max(1, route.requests))} of the time "
            f"({count(failed)} answers 5xx)",
            action=f"treadle run logs the tracebacks; the handler is {route.handler}.",
        )
    refused = route.statuses.get("4xx", 0)
    if refused > MANY_REFUSED * route.requests:
        yield Advice(
            kind="4xx",
            severity=LOST,
            title=f"{route.name} refused {share(refused / max(1, route.requests))} of its "
            f"requests ({count(refused)} answers 4xx)",
            action="Look whether the profiled request has the path, headers and body that the "
            "route wants: what is refused is not what you meant to measure.",
        )


def _long_runs(profile: Profile, route: RouteRow) -> Iterator[Advice]:
    run = route.stage("run")
    if route.mode == "offload" or run.p90 < LONG_RUN:
        return
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
        f"(p90 of a request; {route.name}): offload it",
        action=f"While it runs its lane answers nobody else: {how}.{gil}",
    )


def _offload_waited(profile: Profile, route: RouteRow) -> Iterator[Advice]:
    queued = max((moment.offload_queued for moment in profile.timeline), default=0)
    if route.mode == "offload" and (route.waited >= MANY_WAITED or queued):
        yield Advice(
            kind="offload-wait",
            severity=LOST,
            title=f"{share(route.waited)} of {route.name} waited over 1 ms for an offload "
            f"thread (p99 {seconds(route.stage('wait').p99)}, up to {count(queued)} queued)",
            action="More --offload-threads if they block on others; if they compute, more "
            "threads than cores do not help.",
        )


def _serialize(profile: Profile, route: RouteRow) -> Iterator[Advice]:
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


def _prepare(profile: Profile, route: RouteRow) -> Iterator[Advice]:
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


def _needless_async(profile: Profile, route: RouteRow) -> Iterator[Advice]:
    if profile.budget is None:
        return
    figures = {line.name: line.figures.get(TREADLE) for line in profile.budget.lines}
    paid = sum(figure.ns for name in ("coroutine object", "Task") if (figure := figures.get(name)))
    run = route.stage("run")
    waited = route.stage("suspended").count > 0
    if route.mode == "task" and not waited and 0 < run.mean < paid / 1e9 / WORTH_A_WORD:
        yield Advice(
            kind="needless-async",
            severity=WORTH_KNOWING,
            title=f"{_function(route)} is async and never waited: that costs {paid:,.0f} ns "
            "a request",
            action="Leave it, it is little; as a plain def it would cost nothing.",
        )


def _mostly_waits(profile: Profile, route: RouteRow) -> Iterator[Advice]:
    stage = route.stage("suspended")
    if route.mode == "task" and stage.share >= MOSTLY_WAITS and stage.mean >= 0.001:
        yield Advice(
            kind="waits",
            severity=WORTH_KNOWING,
            title=f"{route.name} waits {share(stage.share)} of its time for others "
            f"({seconds(stage.p50)} in the median)",
            action="The server is not what makes it slow: look at what it awaits; independent "
            "waits can go side by side (asyncio.TaskGroup).",
        )


def _function(route: RouteRow) -> str:
    """`get_user` of `/app/main.py:12 get_user`."""
    return route.handler.rpartition(" ")[2] or route.name


RULES = (
    _failures,
    _long_runs,
    _offload_waited,
    _serialize,
    _prepare,
    _needless_async,
    _mostly_waits,
)
