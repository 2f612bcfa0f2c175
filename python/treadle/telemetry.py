"""What a process's lanes and routes have counted since they started.

`treadle.stats()` reads every lane of the process, `app.stats()` the lanes that serve one app. The
counting is always on and done by each lane for itself, without locks; a reader gets what each lane
published last, which is at most one turn old on a lane that turns (a stalled lane publishes when it
goes on).

All times are seconds, all sizes bytes. The shapes encode to JSON with `msgspec.json.encode` and
decode with `msgspec.json.decode(..., type=Stats)`; `merge` adds those of several processes up.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import msgspec

__all__ = [
    "STAGES",
    "Distribution",
    "LaneStats",
    "OffloadStats",
    "RouteStats",
    "Stats",
    "add",
    "merge",
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
        counts: dict[float, int] = dict(self.buckets)
        for upper, count in other.buckets:
            counts[upper] = counts.get(upper, 0) + count
        return Distribution(
            count=self.count + other.count,
            sum=self.sum + other.sum,
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            buckets=tuple(sorted(counts.items())),
        )

    def __sub__(self, earlier: Distribution) -> Distribution:
        """What was counted since an earlier reading of the same; its `min` and `max` are bounds.

        All of this one, where the other is not earlier: what counted has started anew.
        """
        if not earlier.count or earlier.count > self.count:
            return self
        before = dict(earlier.buckets)
        buckets = tuple(
            (upper, count - before.get(upper, 0))
            for upper, count in self.buckets
            if count > before.get(upper, 0)
        )
        if not buckets:
            return Distribution()
        return Distribution(
            count=sum(count for _, count in buckets),
            sum=max(0.0, self.sum - earlier.sum),
            min=self.min,
            max=min(self.max, buckets[-1][0]),
            buckets=buckets,
        )


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
    """From the moment the lane could have seen the request to the call of its plan; for offloaded
    handlers, to the thread that took it."""
    prepare: Distribution = Distribution()
    """Arguments: conversion, validation, and the wait for a body."""
    run: Distribution = Distribution()
    """Python running in the handler until it returned, or first suspended and each time it went on."""
    suspended: Distribution = Distribution()
    """From the first suspension to the end, less what ran meanwhile; handlers that suspended only."""
    serialize: Distribution = Distribution()
    """From the handler's result to a response."""
    write: Distribution = Distribution()
    """From the response to its last byte in the kernel's hands."""


class LaneStats(msgspec.Struct, frozen=True, kw_only=True):
    """One lane: a thread that is a Tokio runtime and an event loop."""

    index: int
    thread: int
    """The thread's identifier, as `threading.get_ident` gives it; 0 before it first ran."""
    turns: int = 0
    """Turns of the event loop."""
    polls: int = 0
    """Tokio tasks polled."""
    callbacks: int = 0
    tasks_started: int = 0
    """Handlers' and spawned coroutines' Tasks."""
    tasks_suspended: int = 0
    """Those that did not end in their first step."""
    tasks_cancelled: int = 0
    ready: int = 0
    """Callbacks in the ready queue when the last turn began."""
    ready_max: int = 0
    timer_lag: Distribution = Distribution()
    """How late timers ran."""
    callback_lag: Distribution = Distribution()
    """How long the first callback of a turn had waited."""
    running: float = 0.0
    """Seconds attached, running callbacks, handlers and what serves them."""
    polling: float = 0.0
    """Seconds awake in Tokio: the reactor, sockets, parsing."""
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
    busy: int = 0
    queued: int = 0


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """A process, or several added up."""

    pid: int
    version: str
    """Treadle's."""
    python: str
    """Such as `3.14.7 free-threaded`."""
    gil: bool
    """Whether the GIL is on now."""
    time: float
    """Unix time of the reading."""
    uptime: float
    """Seconds since the first lane started."""
    cpu: float
    """CPU seconds of the process, user and system."""
    rss: int
    """Resident memory."""
    lanes: tuple[LaneStats, ...] = ()
    routes: tuple[RouteStats, ...] = ()
    """Those that had a request, the busiest first."""
    offload: OffloadStats = OffloadStats()


def merge(*parts: Stats) -> Stats:
    """The `parts` added up, at least one: processes that serve one app, or a process and the one
    that it replaced.

    Routes that are alike are added up, and lanes of one index. What cannot be added up (`pid`,
    `version`, `python`) is the first's; `time` and `uptime` are the largest.
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
        time=max(part.time for part in parts),
        uptime=max(part.uptime for part in parts),
        cpu=sum(part.cpu for part in parts),
        rss=sum(part.rss for part in parts),
        lanes=tuple(lanes[index] for index in sorted(lanes)),
        routes=tuple(sorted(routes.values(), key=lambda route: -route.requests)),
        offload=reduce(add, (part.offload for part in parts)),
    )


_LARGEST = frozenset({"ready_max"})
"""Fields of which the larger counts."""
_LATEST = frozenset({"index", "thread"})
"""Fields of which the later one counts."""


def add[T: (LaneStats, RouteStats, OffloadStats)](one: T, other: T) -> T:
    """The sum of two lanes, routes or pools; texts are those of the first."""
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
