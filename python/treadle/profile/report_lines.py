"""The line charts of the HTML report."""

from __future__ import annotations

from treadle.profile.html import Axis, Line, Lines, Metric, Point
from treadle.profile.record import Moment, Profile
from treadle.telemetry import Distribution

__all__ = ["latency", "over_time"]

_PARTS = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999, 1.0)


def latency(profile: Profile) -> Lines | None:
    """Latency by how many requests had at most so much."""
    load = profile.load
    if load is None or not load.latency.count:
        return None
    known = {"all requests": load.latency, **(load.routes if len(load.routes) > 1 else {})}
    # No more than the count can tell: 1,000 requests have no 99.99th percentile.
    parts = [part for part in _PARTS if part == 1.0 or load.latency.count * (1 - part) >= 1]
    names = ["min" if p == 0 else "max" if p == 1 else f"{p * 100:g} %" for p in parts]
    return Lines(
        "Latency in ms",
        Axis("of requests were at least as fast", names=names),
        [Metric("latency", "ms", 3, more_is_better=False)],
        [Line(name, _quantiles(each, parts)) for name, each in known.items() if each.count],
        "As the client saw it, from the moment it meant to send."
        if load.wanted_rate
        else "As the client saw it.",
    )


def _quantiles(distribution: Distribution, parts: list[float]) -> list[Point]:
    def value(part: float) -> float:
        if part == 0:
            return distribution.min
        return distribution.max if part == 1 else distribution.quantile(part)

    return [Point(at, [value(part) * 1e3]) for at, part in enumerate(parts)]


def over_time(timeline: tuple[Moment, ...]) -> Lines | None:
    """What the server did, interval by interval."""
    if len(timeline) < 2:
        return None
    metrics = [
        Metric("requests/s"),
        Metric("latency p99", "ms", 2, more_is_better=False),
        Metric("loop lag p99", "ms", 2, more_is_better=False),
        Metric("loop lag max", "ms", 2, more_is_better=False),
        Metric("cores busy", "", 2),
        Metric("in flight"),
        Metric("memory", "MiB", 1, more_is_better=False),
    ]
    points = [
        Point(
            round(moment.at, 2),
            [
                moment.rate,
                None if moment.latency_p99 is None else moment.latency_p99 * 1e3,
                moment.lag_p99 * 1e3,
                moment.lag_max * 1e3,
                moment.cpu,
                moment.in_flight,
                moment.rss / 2**20,
            ],
        )
        for moment in timeline
    ]
    return Lines("Over time", Axis("seconds"), metrics, [Line("server", points)])
