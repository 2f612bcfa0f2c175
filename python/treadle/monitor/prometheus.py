"""Statistics in Prometheus' text format, or in OpenMetrics where the client prefers it.

Names and units follow Prometheus' conventions: seconds, bytes, `_total` for what only grows. A
request is known by its route's template, never by its path, so the number of series is bounded by
the routes; requests that no route answered have `route="unmatched"`.

The histograms of the lanes are finer than what is told here: their counts are put into the fixed
buckets of `BOUNDS`, each where its longest duration belongs.

Spelling is `prometheus_client`'s (`pip install 'treadle[metrics]'`), which is imported when metrics
are first asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from treadle.telemetry import STAGES, Distribution, LaneStats, RouteStats, Stats

if TYPE_CHECKING:
    from prometheus_client import Metric

__all__ = ["BOUNDS", "UNMATCHED", "Missing", "exposition", "require"]

BOUNDS = (
    0.00001, 0.000025, 0.0001, 0.00025, 0.001, 0.0025, 0.005,
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds, in seconds, of the buckets of every histogram."""

UNMATCHED = "unmatched"
"""The route, and the method, of requests that no route answered. Templates begin with a slash."""

_LANE_COUNTERS = (
    ("turns", "turns", "Turns of the event loop."),
    ("polls", "polls", "Tokio tasks polled."),
    ("callbacks", "callbacks", "Callbacks run by the event loop."),
    ("tasks_started", "tasks_started", "Tasks of handlers and spawned coroutines."),
    ("tasks_suspended", "tasks_suspended", "Tasks that did not end in their first step."),
    ("tasks_cancelled", "tasks_cancelled", "Tasks that were cancelled."),
    ("running_seconds", "running", "Time running callbacks, handlers and what serves them."),
    ("polling_seconds", "polling", "Time in the reactor and on sockets."),
    ("parked_seconds", "parked", "Time asleep, detached from the interpreter."),
    ("attach_wait_seconds", "attach_wait", "Time that waited for the interpreter."),
    ("connections", "connections", "Connections accepted."),
    ("requests", "requests", "Requests taken by the lane."),
    ("received_bytes", "bytes_received", "Bytes received from clients."),
    ("sent_bytes", "bytes_sent", "Bytes sent to clients."),
)
_LANE_GAUGES = (
    ("ready_callbacks", "ready", "Callbacks in the ready queue when the last turn began."),
    ("open_connections", "open", "Connections open now."),
    ("requests_in_flight", "in_flight", "Requests in flight now."),
)
_LANE_LAGS = (
    ("timer_lag_seconds", "timer_lag", "How late timers ran."),
    ("callback_lag_seconds", "callback_lag", "How long the first callback of a turn had waited."),
)


class Missing(Exception):
    """`prometheus_client` is not installed. The text is one sentence."""


def require() -> None:
    """Raises `Missing` where metrics could not be told."""
    from importlib.util import find_spec

    if find_spec("prometheus_client") is None:
        raise Missing("metrics need prometheus_client: pip install 'treadle[metrics]'.")


def exposition(stats: Stats, accept: str = "") -> tuple[bytes, str]:
    """The document, and its content type, for a client that sent `accept` as its `Accept`."""
    from prometheus_client.exposition import choose_encoder

    encode, content_type = choose_encoder(accept)
    return encode(_Statistics(stats)), content_type


class _Statistics:
    """What the encoder takes for a registry: it asks for nothing but `collect`."""

    def __init__(self, stats: Stats) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        yield from _process(self._stats)
        yield from _lanes(self._stats.lanes)
        yield from _routes(self._stats.routes)


def _process(stats: Stats) -> Iterator[Metric]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

    yield CounterMetricFamily(
        "process_cpu_seconds", "CPU time of the server's processes, user and system.", stats.cpu
    )
    yield GaugeMetricFamily(
        "process_resident_memory_bytes", "Resident memory of the server's processes.", stats.rss
    )
    # Whole, because it must not change: the two clocks that it comes from drift.
    began = round(stats.time - stats.uptime)
    yield GaugeMetricFamily("process_start_time_seconds", "Unix time of the start.", began)
    yield InfoMetricFamily(
        "treadle",
        "What serves.",
        {"version": stats.version, "python": stats.python, "gil": "on" if stats.gil else "off"},
    )
    offload = stats.offload
    for name, value, text in (
        ("threads", offload.threads, "Threads started for offloaded handlers."),
        ("threads_limit", offload.limit, "Threads for offloaded handlers, at most."),
        ("busy_threads", offload.busy, "Threads that run an offloaded handler now."),
        ("queued", offload.queued, "Offloaded handlers that wait for a thread."),
    ):
        yield GaugeMetricFamily(f"treadle_offload_{name}", text, value)
    refused = CounterMetricFamily(
        "treadle_refused", "Answered with 503 because a limit was reached.", labels=["what"]
    )
    refused.add_metric(["connection"], stats.refused.connections)
    refused.add_metric(["request"], stats.refused.requests)
    yield refused


def _lanes(lanes: Iterable[LaneStats]) -> Iterator[Metric]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    for name, field, text in _LANE_COUNTERS:
        counter = CounterMetricFamily(f"treadle_lane_{name}", text, labels=["lane"])
        for lane in lanes:
            counter.add_metric([str(lane.index)], getattr(lane, field))
        yield counter
    for name, field, text in _LANE_GAUGES:
        gauge = GaugeMetricFamily(f"treadle_lane_{name}", text, labels=["lane"])
        for lane in lanes:
            gauge.add_metric([str(lane.index)], getattr(lane, field))
        yield gauge
    for name, field, text in _LANE_LAGS:
        histogram = HistogramMetricFamily(f"treadle_lane_{name}", text, labels=["lane"])
        for lane in lanes:
            _add(histogram, [str(lane.index)], getattr(lane, field))
        yield histogram


def _routes(routes: Iterable[RouteStats]) -> Iterator[Metric]:
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    labels = ["method", "route"]
    requests = CounterMetricFamily(
        "treadle_http_requests", "Requests answered.", labels=[*labels, "status_class"]
    )
    cancelled = CounterMetricFamily(
        "treadle_http_requests_cancelled",
        "Requests given up before their answer: the client left, or the server stopped.",
        labels=labels,
    )
    in_flight = GaugeMetricFamily(
        "treadle_http_requests_in_flight", "Requests in flight now.", labels=labels
    )
    total = HistogramMetricFamily(
        "treadle_http_request_seconds", "Time of a request, all stages together.", labels=labels
    )
    stages = HistogramMetricFamily(
        "treadle_http_request_stage_seconds",
        f"Time of a request in each stage: {', '.join(STAGES)}.",
        labels=["stage", *labels],
    )
    for route in _by_label(routes):
        values = [route.method or UNMATCHED, route.template or UNMATCHED]
        for status_class, count in sorted(route.statuses.items()):
            requests.add_metric([*values, status_class], count)
        cancelled.add_metric(values, route.cancelled)
        in_flight.add_metric(values, route.in_flight)
        if route.total.count:
            _add(total, values, route.total)
        for stage in STAGES:
            distribution: Distribution = getattr(route, stage)
            if distribution.count:  # most routes lack one: a series for nothing is not free
                _add(stages, [stage, *values], distribution)
    yield from (requests, cancelled, in_flight, total, stages)


def _by_label(routes: Iterable[RouteStats]) -> Iterable[RouteStats]:
    """One of each method and template: a series must be told once."""
    from treadle.telemetry import add

    told: dict[tuple[str, str], RouteStats] = {}
    for route in routes:
        key = route.method, route.template
        told[key] = add(told[key], route) if key in told else route
    return told.values()


def _add(histogram: object, labels: list[str], distribution: Distribution) -> None:
    counts = iter(distribution.buckets)
    upper, count = next(counts, (0.0, 0))
    below = 0
    buckets = []
    for bound in BOUNDS:
        while count and upper <= bound:
            below += count
            upper, count = next(counts, (0.0, 0))
        buckets.append((str(bound), below))
    buckets.append(("+Inf", distribution.count))
    histogram.add_metric(labels, buckets, distribution.sum)  # type: ignore[attr-defined]
