"""What happened between two readings: shares of time, rates, quantiles.

All rates are per second, all times seconds. Of a lane or route that the earlier reading does not
have, or that began anew since, everything counts as having happened in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from treadle.telemetry import (
    STAGES,
    Distribution,
    LaneStats,
    RouteStats,
    Stats,
    seconds_between,
)

__all__ = ["LaneWindow", "RouteWindow", "Window"]


@dataclass(frozen=True, slots=True)
class LaneWindow:
    """A lane over the last while."""

    now: LaneStats
    running: float
    """Shares of its time, 0 to 1; the three make 1 unless nothing was counted."""
    polling: float
    parked: float
    requests: float
    lag: Distribution
    """How late its callbacks and timers ran."""


@dataclass(frozen=True, slots=True)
class RouteWindow:
    """A route over the last while."""

    now: RouteStats
    requests: float
    errors: float
    """Answers of class 5xx."""
    cancelled: float
    total: Distribution
    """All stages of a request together."""
    stages: dict[str, Distribution]

    @property
    def label(self) -> str:
        """Method and template."""
        return f"{self.now.method} {self.now.template}" if self.now.template else "unmatched"


@dataclass(frozen=True, slots=True)
class Window:
    """A server over the last while."""

    now: Stats
    seconds: float
    cpu: float
    """Cores in use."""
    requests: float
    lanes: tuple[LaneWindow, ...]
    routes: tuple[RouteWindow, ...]

    @classmethod
    def since_start(cls, now: Stats) -> Window:
        """What happened up to `now`."""
        began = msgspec.structs.replace(now, uptime=0.0, cpu=0.0, lanes=(), routes=())
        return cls.between(began, now)

    @classmethod
    def between(cls, earlier: Stats, later: Stats) -> Window:
        """What happened from `earlier` to `later`, two readings of one server."""
        seconds = seconds_between(earlier, later)
        if earlier.pid != later.pid:  # another server, of which nothing was counted before
            earlier = msgspec.structs.replace(earlier, cpu=0.0, lanes=(), routes=())
        lanes_before = {lane.index: lane for lane in earlier.lanes}
        routes_before = {_key(route): route for route in earlier.routes}
        lanes = tuple(
            _lane(_before(lanes_before.get(lane.index), lane), lane, seconds)
            for lane in later.lanes
        )
        routes = tuple(
            _route(routes_before.get(_key(route)), route, seconds) for route in later.routes
        )
        return cls(
            now=later,
            seconds=seconds,
            cpu=max(0.0, later.cpu - earlier.cpu) / seconds,
            requests=sum(route.requests for route in routes),
            lanes=lanes,
            routes=routes,
        )


def _key(route: RouteStats) -> tuple[str, str, str]:
    return route.method, route.template, route.handler


def _before(earlier: LaneStats | None, later: LaneStats) -> LaneStats:
    # Not by its thread: the lane of a worker that was replaced counts on.
    if earlier is None or earlier.turns > later.turns:
        return LaneStats(index=later.index, thread=later.thread)
    return earlier


def _lane(earlier: LaneStats, later: LaneStats, seconds: float) -> LaneWindow:
    times = [
        max(0.0, getattr(later, name) - getattr(earlier, name))
        for name in ("running", "polling", "parked")
    ]
    together = sum(times) or 1.0
    running, polling, parked = (each / together for each in times)
    return LaneWindow(
        now=later,
        running=running,
        polling=polling,
        parked=parked,
        requests=(later.requests - earlier.requests) / seconds,
        lag=(later.callback_lag - earlier.callback_lag) + (later.timer_lag - earlier.timer_lag),
    )


def _route(earlier: RouteStats | None, later: RouteStats, seconds: float) -> RouteWindow:
    if earlier is None or earlier.requests > later.requests:
        earlier = RouteStats(
            method=later.method, template=later.template, handler=later.handler, mode=later.mode
        )
    stages = {name: getattr(later, name) - getattr(earlier, name) for name in STAGES}
    return RouteWindow(
        now=later,
        requests=(later.requests - earlier.requests) / seconds,
        errors=(_errors(later) - _errors(earlier)) / seconds,
        cancelled=(later.cancelled - earlier.cancelled) / seconds,
        total=later.total - earlier.total,
        stages=stages,
    )


def _errors(route: RouteStats) -> int:
    return route.statuses.get("5xx", 0)
