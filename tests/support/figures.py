"""Statistics made up for tests."""

from __future__ import annotations

from typing import Any

from treadle.telemetry import Distribution, LaneStats, RouteStats, Stats


def distribution(*durations: float) -> Distribution:
    """One that holds each of `durations` in a bucket of its own."""
    counts: dict[float, int] = {}
    for each in durations:
        counts[each] = counts.get(each, 0) + 1
    return Distribution(
        count=len(durations),
        sum=sum(durations),
        min=min(durations, default=0.0),
        max=max(durations, default=0.0),
        buckets=tuple(sorted(counts.items())),
    )


def route(template: str = "/items/{id}", **changes: Any) -> RouteStats:
    values: dict[str, Any] = {
        "method": "GET",
        "template": template,
        "handler": f"main.py:7 {template}",
        "mode": "task",
        "requests": 3,
        "statuses": {"2xx": 2, "5xx": 1},
        "run": distribution(0.001, 0.002, 0.2),
        **changes,
    }
    return RouteStats(**values)


def unmatched(requests: int = 1) -> RouteStats:
    return RouteStats(
        method="",
        template="",
        handler="",
        mode="",
        requests=requests,
        statuses={"4xx": requests},
    )


def lane(index: int = 0, **changes: Any) -> LaneStats:
    values: dict[str, Any] = {"index": index, "thread": 1000 + index, "turns": 10, **changes}
    return LaneStats(**values)


def stats(pid: int = 1, **changes: Any) -> Stats:
    values: dict[str, Any] = {
        "pid": pid,
        "version": "0.1.0",
        "build_profile": "release",
        "python": "CPython 3.14.7",
        "free_threaded": True,
        "gil": False,
        "time": 1_790_000_000.0,
        "uptime": 60.0,
        "cpu": 1.5,
        "rss": 10_000_000,
        "lanes": (lane(),),
        "routes": (route(),),
        **changes,
    }
    return Stats(**values)
