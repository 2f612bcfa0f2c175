"""Two readings of the statistics, and what happened between them.

Everything here is a pure function. A histogram of all time does not keep the largest value of an
interval: it is the edge of the highest bucket that grew, to two significant digits.

Where CPU time went is told apart by three clocks. The kernel's part is the process's system time,
kept by the scheduler and exact to 10 ms over the whole run. Python's part is the time between
entering and leaving handlers (`run`), and what encodes their results (`serialize`). That is wall
time, and lanes are kept off their cores now and then. How long in all is known: the time that they
were awake, less their CPU time. So long, at most, is taken off what runs of three times the median
and more took beyond it. System calls that handlers make are in Python's part as well as in the
kernel's; it is cut at the user time. Offloaded handlers mostly block: for them it is the user
time of their threads. What remains is Treadle's native code, and callbacks of the event loop that
belong to no route.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from treadle.profile.record import CpuSplit, LaneRow, Moment, RouteRow, StageRow
from treadle.telemetry import (
    STAGES,
    Distribution,
    LaneStats,
    RouteStats,
    Stats,
    seconds_between,
)

__all__ = ["WAITED", "cpu_split", "lane_rows", "moment", "route_rows"]

WAITED = 0.001
"""Seconds; a request that waits longer for its lane, or for a thread, has been kept waiting."""

_NOTHING = RouteStats(method="", template="", handler="", mode="")
_EXACTNESS = (
    "kernel: the scheduler's system time, exact to 10 ms over the run; Python: time inside handlers "
    "and of making JSON, less outliers as far as lanes were kept off their cores, with the system "
    "calls of handlers, at most the user time; native: the rest, with callbacks that belong to no "
    "route."
)


# -- routes ----------------------------------------------------------------------------------------


def route_rows(before: Stats, after: Stats) -> tuple[RouteRow, ...]:
    """The routes that were asked for between two readings, the one that took longest first."""
    known = {_key(route): route for route in before.routes}
    rows = [_route(known.get(_key(route), _NOTHING), route) for route in after.routes]
    return tuple(
        sorted(
            (row for row in rows if row.requests or any(stage.count for stage in row.stages)),
            key=lambda row: -row.mean * row.requests,
        )
    )


def _key(route: RouteStats) -> tuple[str, str]:
    return route.method, route.template


def _route(before: RouteStats, after: RouteStats) -> RouteRow:
    spent = {name: getattr(after, name) - getattr(before, name) for name in STAGES}
    requests = max(0, after.requests - before.requests)
    total = sum(each.sum for each in spent.values())
    return RouteRow(
        method=after.method,
        template=after.template,
        handler=after.handler,
        mode=after.mode,
        requests=requests,
        mean=total / requests if requests else 0.0,
        whole=_stage("total", after.total - before.total, total),
        stages=tuple(_stage(name, each, total) for name, each in spent.items()),
        waited=_above(spent["wait"], WAITED),
        statuses=_grown(before.statuses, after.statuses),
        cancelled=max(0, after.cancelled - before.cancelled),
    )


def _stage(name: str, spent: Distribution, total: float) -> StageRow:
    return StageRow(
        name=name,
        count=spent.count,
        mean=spent.mean,
        p50=spent.quantile(0.5),
        p90=spent.quantile(0.9),
        p99=spent.quantile(0.99),
        max=spent.max,
        share=spent.sum / total if total else 0.0,
    )


def _above(distribution: Distribution, limit: float) -> float:
    if not distribution.count:
        return 0.0
    above = sum(count for upper, count in distribution.buckets if upper > limit)
    return above / distribution.count


def _grown(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in grown.items() if count > 0}


# -- CPU time --------------------------------------------------------------------------------------


def cpu_split(
    before: Stats, after: Stats, *, kernel: float | None, offload: float | None = None
) -> CpuSplit | None:
    """CPU time of one request; None when there was none.

    `kernel` is how much the process's system time grew, in seconds, `offload` the user time of the
    threads of offloaded handlers. What is None is not known and counts as native.
    """
    rows = route_rows(before, after)
    requests = sum(row.requests for row in rows)
    total = after.cpu - before.cpu
    if not requests or total <= 0:
        return None
    system = min(max(0.0, kernel or 0.0), total)
    if offload is not None:
        offload = max(
            0.0, offload
        )  # less than before where a worker has ended, its threads with it
    spent = list(_in_python(before, after))
    lost = max(0.0, _awake(after) - _awake(before) - (total - (offload or 0.0)))
    python = sum(each.sum for each in spent) - min(lost, sum(map(_excess, spent)))
    python = min(python + (offload or 0.0), total - system)
    each = 1e6 / requests
    return CpuSplit(
        total_us=total * each,
        kernel_us=system * each,
        python_us=python * each,
        native_us=(total - system - python) * each,
        exactness=_EXACTNESS + "".join(_unknown(kernel, offload, rows)),
    )


def _in_python(before: Stats, after: Stats) -> Iterator[Distribution]:
    """How long each handler ran, and each encoder, where that is CPU time."""
    known = {_key(route): route for route in before.routes}
    for route in after.routes:
        first = known.get(_key(route), _NOTHING)
        if route.mode != "offload":
            yield route.run - first.run
            yield route.serialize - first.serialize


def _excess(spent: Distribution) -> float:
    """What the runs that took much longer than most took beyond the median."""
    median = spent.quantile(0.5)
    return sum(count * (upper - median) for upper, count in spent.buckets if upper > 3 * median)


def _awake(stats: Stats) -> float:
    return sum(lane.running + lane.polling for lane in stats.lanes)


def _unknown(
    kernel: float | None, offload: float | None, rows: tuple[RouteRow, ...]
) -> Iterator[str]:
    if kernel is None:
        yield " System time is not known here and counts as native."
    if offload is None and any(row.mode == "offload" for row in rows):
        yield " Offloaded handlers' time is not known here and counts as native."


# -- lanes and time --------------------------------------------------------------------------------


def lane_rows(before: Stats, after: Stats) -> tuple[LaneRow, ...]:
    """What each lane did between two readings."""
    known = {lane.index: lane for lane in before.lanes}
    return tuple(_lane(known.get(lane.index), lane) for lane in after.lanes)


def _lane(before: LaneStats | None, after: LaneStats) -> LaneRow:
    first = before or LaneStats(index=after.index, thread=after.thread)
    spent = {
        name: max(0.0, getattr(after, name) - getattr(first, name))
        for name in ("running", "polling", "parked", "attach_wait")
    }
    total = sum(spent.values()) or 1.0
    lag = _lag(first, after)
    return LaneRow(
        index=after.index,
        requests=max(0, after.requests - first.requests),
        lag_p99=lag.quantile(0.99),
        lag_max=lag.max,
        ready_max=after.ready_max,
        tasks_started=max(0, after.tasks_started - first.tasks_started),
        tasks_suspended=max(0, after.tasks_suspended - first.tasks_suspended),
        **{name: seconds / total for name, seconds in spent.items()},
    )


def _lag(before: LaneStats, after: LaneStats) -> Distribution:
    timers = after.timer_lag - before.timer_lag
    return timers + (after.callback_lag - before.callback_lag)


def moment(before: Stats, after: Stats, *, since: float) -> Moment:
    """One interval of the run; `since` is when it began, in seconds since the load did."""
    seconds = seconds_between(before, after)
    known = {lane.index: lane for lane in before.lanes}
    lag = _sum(_lag(known[lane.index], lane) for lane in after.lanes if lane.index in known)
    requests = _requests(after) - _requests(before)
    return Moment(
        at=since + seconds,
        rate=max(0, requests) / seconds,
        cpu=max(0.0, after.cpu - before.cpu) / seconds,
        lag_p99=lag.quantile(0.99),
        lag_max=lag.max,
        in_flight=sum(lane.in_flight for lane in after.lanes),
        rss=after.rss,
        offload_queued=after.offload.queued,
    )


def _requests(stats: Stats) -> int:
    return sum(lane.requests for lane in stats.lanes)


def _sum(distributions: Iterable[Distribution]) -> Distribution:
    total = Distribution()
    for each in distributions:
        total += each
    return total
