"""What a process's lanes and routes have counted since they started.

`treadle.stats()` reads every lane of the process, `app.stats()` the lanes that serve one app. The
counting is always on and done by each lane for itself, without locks; a reader gets what each lane
published last, which is at most one turn old on a lane that turns (a stalled lane publishes when it
goes on).

All times are seconds, all sizes bytes. The shapes encode to JSON with `msgspec.json.encode` and
decode with `msgspec.json.decode(..., type=Stats)`; `merge` adds those of several processes up.
"""

from __future__ import annotations

import msgspec

__all__ = ["STAGES", "Distribution", "LaneStats", "OffloadStats", "RouteStats", "Stats"]

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
