"""What a process's lanes and routes have counted since they started.

`treadle.stats()` reads every lane of the process, `app.stats()` the lanes that serve one app. The
counting is always on and done by each lane for itself. Reading takes no part in it and waits for
nobody: a lane that hangs is read like any other.

All times are seconds, all sizes bytes. The shapes encode to JSON with `msgspec.json.encode` and
decode with `msgspec.json.decode(..., type=Stats)`; `merge` adds those of several processes up.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import reduce
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from treadle.app import App
    from treadle.server import Server

__all__ = [
    "STAGES",
    "Distribution",
    "LaneStats",
    "OffloadStats",
    "RefusedStats",
    "RouteStats",
    "Stats",
    "add",
    "began",
    "merge",
    "read",
    "seconds_between",
]

STAGES = ("wait", "prepare", "run", "suspended", "serialize", "write")
"""The stages of a request, in order; each is a field of `RouteStats`."""


class Distribution(msgspec.Struct, frozen=True, kw_only=True):
    """Durations of one kind, from an HDR histogram of two significant digits."""

    count: int = 0
    sum: float = 0.0
    """Seconds, all together."""
    min: float = 0.0
    max: float = 0.0
    buckets: tuple[tuple[float, int], ...] = ()
    """(highest duration that the bucket holds, how many it holds), ascending, empty ones left out."""

    @property
    def mean(self) -> float:
        """Seconds; 0 where nothing was counted."""
        return self.sum / self.count if self.count else 0.0

    def quantile(self, q: float) -> float:
        """The duration, in seconds, that a share `q` (0 to 1) of all does not exceed."""
        wanted = max(1, min(self.count, round(q * self.count + 0.5 - 1e-9)))
        seen = 0
        for upper, count in self.buckets:
            seen += count
            if seen >= wanted:
                return min(upper, self.max)
        return self.max

    def __add__(self, other: Distribution) -> Distribution:
        if not other.count or not self.count:
            return self if self.count else other
        return Distribution(
            count=self.count + other.count,
            sum=self.sum + other.sum,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            buckets=tuple(_together(sorted(self.buckets + other.buckets))),
        )

    def __sub__(self, earlier: Distribution) -> Distribution:
        """What was counted since an earlier reading of the same; its `min` and `max` are bounds.

        All of this one, where the other is not earlier: what counted has started anew.
        """
        if not earlier.count or earlier.count > self.count:
            return self
        buckets = tuple(_since(self.buckets, earlier.buckets))
        if not buckets:
            return Distribution()
        return Distribution(
            count=sum(count for _, count in buckets),
            sum=max(0.0, self.sum - earlier.sum),
            min=self.min,
            max=min(self.max, buckets[-1][0]),
            buckets=buckets,
        )


_SAME = 1.001
"""Buckets whose bounds differ by less are one. They differ by more than three times as much; what the
clock's ticks are in seconds is measured, in each process, so the bounds are never quite the same."""


def _together(buckets: Iterable[tuple[float, int]]) -> Iterator[tuple[float, int]]:
    """Ascending `buckets`, neighbours that are the same added up."""
    bound, together = 0.0, 0
    for upper, count in buckets:
        if upper > bound * _SAME:
            if together:
                yield bound, together
            bound, together = upper, 0
        together += count
    if together:
        yield bound, together


def _since(
    buckets: Iterable[tuple[float, int]], earlier: Iterable[tuple[float, int]]
) -> Iterator[tuple[float, int]]:
    """Ascending `buckets` less what `earlier` had in them."""
    before = iter(earlier)
    bound, had = next(before, (math.inf, 0))
    for upper, count in buckets:
        while bound * _SAME < upper:
            bound, had = next(before, (math.inf, 0))
        if bound <= upper * _SAME:
            count -= had
            bound, had = next(before, (math.inf, 0))
        if count > 0:
            yield upper, count


class RouteStats(msgspec.Struct, frozen=True, kw_only=True):
    """One route, over all lanes that were read."""

    method: str
    """Its methods, joined with a comma; empty for requests that no route answered."""
    template: str
    """The path as registered, never a raw one; empty for requests that no route answered."""
    handler: str
    """`file:line name`; empty for requests that no route answered."""
    mode: str
    """`inline`, `task` or `offload`; empty for requests that no route answered."""
    requests: int = 0
    """Answered or given up."""
    in_flight: int = 0
    statuses: dict[str, int] = {}
    """Answers by class: `1xx` to `5xx`."""
    cancelled: int = 0
    """Given up before the answer: the client left, or the server stopped."""
    total: Distribution = Distribution()
    """All stages together."""
    wait: Distribution = Distribution()
    """From the moment the lane could have seen the request (it looked at its sockets, and the
    connection's last answer was out) to its plan: the most that it can have waited for the lane. An
    offloaded call's time in the queue is added, and from its end until the lane goes on with it."""
    prepare: Distribution = Distribution()
    """Arguments: conversion, validation, and the wait for a body."""
    run: Distribution = Distribution()
    """Python running in the handler, all its steps together; the chunks of a stream count too."""
    suspended: Distribution = Distribution()
    """The handler's Task waiting, all its waits together; handlers that suspended only."""
    serialize: Distribution = Distribution()
    """From the handler's result to a response."""
    write: Distribution = Distribution()
    """From the last of the other stages to the answer's last byte in the kernel's hands."""


class LaneStats(msgspec.Struct, frozen=True, kw_only=True):
    """One lane: a thread that is a Tokio runtime and an event loop."""

    index: int
    thread: int
    """The thread's identifier, as `threading.get_ident` gives it; 0 before it first ran."""
    turns: int = 0
    """Turns of the event loop."""
    polls: int = 0
    """Polls of connections."""
    callbacks: int = 0
    tasks_started: int = 0
    """Coroutines that the lane itself started in Tasks: handlers, and what Rust code awaits."""
    tasks_suspended: int = 0
    """Those that did not end in their first step."""
    tasks_cancelled: int = 0
    """Handlers that ended cancelled."""
    ready: int = 0
    """Callbacks in the ready queue when the last turn began."""
    ready_max: int = 0
    timer_lag: Distribution = Distribution()
    """How late timers ran."""
    callback_lag: Distribution = Distribution()
    """How long the first callback of a turn had waited."""
    running: float = 0.0
    """Seconds awake in turns of the loop and in handlers: Python, and what serves it."""
    polling: float = 0.0
    """Seconds awake in the rest: the reactor, sockets, parsing, writing."""
    parked: float = 0.0
    """Seconds asleep, detached from the interpreter."""
    attach_wait: float = 0.0
    """Seconds awake that waited for the interpreter: the GIL, or a stop of all threads."""
    connections: int = 0
    """Accepted so far."""
    open: int = 0
    """Connections open now."""
    requests: int = 0
    in_flight: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0


class OffloadStats(msgspec.Struct, frozen=True, kw_only=True):
    """The thread pool of offloaded handlers."""

    threads: int = 0
    """That were started: one with the server, if it has such handlers, and another with each call that
    leaves none idle, up to `limit`."""
    limit: int = 0
    """As many as `--offload-threads` allows."""
    busy: int = 0
    """Threads that run a handler now, or make a chunk of its stream."""
    queued: int = 0
    """Calls that wait for a thread."""


class RefusedStats(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered with 503 at once because a limit was reached."""

    connections: int = 0
    """By `--limit-connections`. No lane and no route has seen them."""
    requests: int = 0
    """By `--limit-concurrency`. They are among those that no route answered."""


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A process, or several added up."""

    pid: int
    version: str
    """Treadle's."""
    build_profile: str
    """`release-pgo` (profile-guided), `release` or `debug`: how the native module was compiled."""
    python: str
    """Such as `CPython 3.14.7`."""
    free_threaded: bool
    """Whether the interpreter is a free-threaded build."""
    gil: bool
    """Whether the GIL is on now."""
    gil_culprit: str = ""
    """The module whose import turned the GIL on in a free-threaded build, where CPython tells."""
    time: float
    """Unix time of the reading."""
    uptime: float
    """Seconds since the process started; the parent, where there are worker processes."""
    cpu: float
    """CPU seconds of the process, user and system."""
    rss: int
    """Resident memory."""
    lanes: tuple[LaneStats, ...] = ()
    routes: tuple[RouteStats, ...] = ()
    """Those that had a request, the busiest first."""
    offload: OffloadStats = OffloadStats()
    refused: RefusedStats = RefusedStats()


def read(app: App | None = None) -> Stats:
    """Reads what has been counted so far: of all lanes and servers of this process, or of `app`'s."""
    from treadle import interpreter
    from treadle._treadle import BUILD_PROFILE, FREE_THREADED, __version__, meters

    servers = _servers(app)
    lanes = meters() if app is None else [m for server in servers for m in server.meters()]
    user, system, *_ = os.times()
    return Stats(
        pid=os.getpid(),
        version=__version__,
        build_profile=BUILD_PROFILE,
        python=interpreter.describe(),
        free_threaded=FREE_THREADED,
        gil=interpreter.gil_enabled(),
        gil_culprit=interpreter.gil_culprit() or "",
        time=time.time(),
        uptime=time.clock_gettime(time.CLOCK_BOOTTIME) - began(),
        cpu=user + system,
        rss=_rss(),
        lanes=tuple(msgspec.convert(lane.read(), LaneStats) for lane in lanes),
        routes=tuple(_routes(servers)),
        offload=_offload(servers),
        refused=_refused(servers),
    )


def seconds_between(earlier: Stats, later: Stats) -> float:
    """How long after `earlier` the reading `later` of the same server was made, more than nothing.

    By `uptime`: the clock of `time` may be set meanwhile. For a process that took the other's place it
    is how long that has been there.
    """
    is_other = later.pid != earlier.pid or later.uptime < earlier.uptime
    return max(later.uptime - (0.0 if is_other else earlier.uptime), 1e-9)


def merge(*parts: Stats) -> Stats:
    """The `parts` added up, at least one: processes that serve one app, or a process and the one
    that it replaced.

    Routes that are alike are added up, and lanes of one index. What cannot be added up (`pid`,
    `version`, `build_profile`, `python`) is the first's; `time` and `uptime` are the largest.
    """
    first = parts[0]
    if len(parts) == 1:
        return first
    lanes: dict[int, LaneStats] = {}
    routes: dict[tuple[str, str, str, str], RouteStats] = {}
    for part in parts:
        for lane in part.lanes:
            known = lanes.get(lane.index)
            lanes[lane.index] = lane if known is None else add(known, lane)
        for route in part.routes:
            key = (route.method, route.template, route.handler, route.mode)
            same = routes.get(key)
            routes[key] = route if same is None else add(same, route)
    return msgspec.structs.replace(
        first,
        gil=any(part.gil for part in parts),
        gil_culprit=next((part.gil_culprit for part in parts if part.gil_culprit), ""),
        time=max(part.time for part in parts),
        uptime=max(part.uptime for part in parts),
        cpu=sum(part.cpu for part in parts),
        rss=sum(part.rss for part in parts),
        lanes=tuple(lanes[index] for index in sorted(lanes)),
        routes=tuple(sorted(routes.values(), key=lambda route: -route.requests)),
        offload=reduce(add, (part.offload for part in parts)),
        refused=reduce(add, (part.refused for part in parts)),
    )


_LARGEST = frozenset({"ready_max"})
"""Fields of which the larger counts."""
_LATEST = frozenset({"index", "thread"})
"""Fields of which the later one counts."""


def add[T: (LaneStats, RouteStats, OffloadStats, RefusedStats)](one: T, other: T) -> T:
    """The sum of two lanes, routes, pools or limits; texts are those of the first."""
    changes: dict[str, object] = {}
    for name in one.__struct_fields__:
        a: Any = getattr(one, name)
        b: Any = getattr(other, name)
        if name in _LATEST:
            changes[name] = b
        elif name in _LARGEST:
            changes[name] = max(a, b)
        elif isinstance(a, dict):
            changes[name] = {key: a.get(key, 0) + b.get(key, 0) for key in sorted({*a, *b})}
        elif not isinstance(a, str):
            changes[name] = a + b
    return msgspec.structs.replace(one, **changes)


def _servers(app: App | None) -> list[Server]:
    # Not imported for it: a process that serves has done so.
    module = sys.modules.get("treadle.server")
    servers: Iterable[Server] = () if module is None else module.running()
    return [server for server in servers if app is None or server.app is app]


def _routes(servers: list[Server]) -> list[RouteStats]:
    """The routes of all servers, each the sum of its lanes."""
    rows: defaultdict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    tables = {id(server.table): server.table.routes() for server in servers}
    for server in servers:
        for lane in server.lane_servers():
            for number, row in lane.route_stats():
                rows[id(server.table), number].append(row)
    found = []
    for (table, number), lanes in rows.items():
        route = tables[table][number - 1] if number else None
        found.append(
            RouteStats(
                method="" if route is None else ",".join(route.methods),
                template="" if route is None else route.path,
                handler="" if route is None else route.origin,
                mode="" if route is None else route.mode,
                **_sum([msgspec.convert(lane, _Row) for lane in lanes]),
            )
        )
    return sorted(found, key=lambda route: route.requests, reverse=True)


class _Row(msgspec.Struct, kw_only=True):
    """One route on one lane, as the native side tells it."""

    requests: int = 0
    in_flight: int = 0
    statuses: dict[str, int] = {}
    cancelled: int = 0
    total: Distribution = Distribution()
    wait: Distribution = Distribution()
    prepare: Distribution = Distribution()
    run: Distribution = Distribution()
    suspended: Distribution = Distribution()
    serialize: Distribution = Distribution()
    write: Distribution = Distribution()


def _sum(rows: list[_Row]) -> dict[str, Any]:
    total: dict[str, Any] = {
        name: sum(getattr(row, name) for row in rows)
        for name in ("requests", "in_flight", "cancelled")
    }
    classes = {name for row in rows for name in row.statuses}
    total["statuses"] = {
        name: sum(row.statuses.get(name, 0) for row in rows) for name in sorted(classes)
    }
    for stage in ("total", *STAGES):
        total[stage] = sum((getattr(row, stage) for row in rows), Distribution())
    return total


def _refused(servers: list[Server]) -> RefusedStats:
    return RefusedStats(
        connections=sum(server.config.refused()[0] for server in servers),
        requests=sum(server.config.refused()[1] for server in servers),
    )


def _offload(servers: list[Server]) -> OffloadStats:
    return OffloadStats(
        threads=sum(server.pool.threads for server in servers),
        limit=sum(server.options.offload_threads for server in servers),
        queued=sum(server.config.offload()[0] for server in servers),
        busy=sum(server.config.offload()[1] for server in servers),
    )


def began() -> float:
    """When this process did, in seconds of CLOCK_BOOTTIME, which nobody sets."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        # After the name, which is in brackets and may have anything in it, from the third field.
        started = int(file.read().rpartition(")")[2].split()[19])
    return started / os.sysconf("SC_CLK_TCK")


def _rss() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
