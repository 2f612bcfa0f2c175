"""Statistics as Prometheus reads them."""

from __future__ import annotations

import re

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse
from support.figures import distribution, lane, route, stats, unmatched

from treadle.monitor.prometheus import BOUNDS, exposition
from treadle.telemetry import OffloadStats, RefusedStats, Stats


def families(told: Stats) -> dict[str, Metric]:
    body, kind = exposition(told)
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    return {family.name: family for family in parse(body.decode())}


def value(told: Stats, sample: str, **labels: str) -> float:
    found = [
        each.value
        for family in families(told).values()
        for each in family.samples
        if each.name == sample and each.labels == labels
    ]
    assert len(found) == 1, (sample, labels, found)
    return found[0]


def test_requests_are_counted_by_route_and_class_of_status() -> None:
    told = stats(routes=(route("/items/{id}", statuses={"2xx": 2, "5xx": 1}, cancelled=4),))
    of_route = {"method": "GET", "route": "/items/{id}"}
    assert value(told, "treadle_http_requests_total", status_class="2xx", **of_route) == 2
    assert value(told, "treadle_http_requests_total", status_class="5xx", **of_route) == 1
    assert value(told, "treadle_http_requests_cancelled_total", **of_route) == 4


def test_requests_that_no_route_answered_have_one_fixed_label() -> None:
    told = stats(routes=(unmatched(7),))
    labels = {"method": "unmatched", "route": "unmatched", "status_class": "4xx"}
    assert value(told, "treadle_http_requests_total", **labels) == 7


def test_routes_of_one_path_are_told_once() -> None:
    twice = (route("/a", handler="a.py:1 a"), route("/a", handler="b.py:1 b"))
    told = stats(routes=twice)
    labels = {"method": "GET", "route": "/a", "status_class": "2xx"}
    assert value(told, "treadle_http_requests_total", **labels) == 4


def test_a_stage_is_a_histogram_of_fixed_buckets_in_seconds() -> None:
    told = stats(routes=(route(run=distribution(0.00001, 0.002, 0.0025, 0.3, 60.0)),))
    of_stage = {"stage": "run", "method": "GET", "route": "/items/{id}"}
    name = "treadle_http_request_stage_seconds"
    family = families(told)[name]
    assert family.type == "histogram"
    buckets = [
        (float(each.labels["le"]), each.value)
        for each in family.samples
        if each.name == f"{name}_bucket"
    ]
    assert [bound for bound, _ in buckets] == [*BOUNDS, float("inf")]
    counts = dict(buckets)
    assert counts[0.00001] == 1
    assert counts[0.001] == 1
    assert counts[0.0025] == 3
    assert counts[10.0] == 4
    assert counts[float("inf")] == 5
    assert value(told, f"{name}_count", **of_stage) == 5
    assert value(told, f"{name}_sum", **of_stage) == pytest.approx(60.30451)


def test_the_whole_time_is_a_histogram_by_route() -> None:
    told = stats(routes=(route(total=distribution(0.002, 0.3)), route("/b")))
    labels = {"method": "GET", "route": "/items/{id}"}
    assert value(told, "treadle_http_request_seconds_count", **labels) == 2
    assert value(told, "treadle_http_request_seconds_bucket", le="0.25", **labels) == 1


def test_a_stage_that_a_route_never_had_is_not_told() -> None:
    family = families(stats(routes=(route(),)))["treadle_http_request_stage_seconds"]
    assert {each.labels["stage"] for each in family.samples} == {"run"}


def test_lanes_are_told_in_seconds_and_bytes() -> None:
    told = stats(
        lanes=(
            lane(0, running=1.25, bytes_received=10, open=3, timer_lag=distribution(0.02)),
            lane(1, running=2.5),
        )
    )
    assert value(told, "treadle_lane_running_seconds_total", lane="0") == 1.25
    assert value(told, "treadle_lane_running_seconds_total", lane="1") == 2.5
    assert value(told, "treadle_lane_received_bytes_total", lane="0") == 10
    assert value(told, "treadle_lane_open_connections", lane="0") == 3
    assert value(told, "treadle_lane_timer_lag_seconds_bucket", lane="0", le="0.025") == 1
    assert value(told, "treadle_lane_timer_lag_seconds_bucket", lane="0", le="0.01") == 0


def test_the_process_has_the_standard_names() -> None:
    told = stats(
        cpu=2.5,
        rss=4096,
        time=1000.6,
        uptime=0.5,
        offload=OffloadStats(threads=2, limit=9),
        refused=RefusedStats(connections=3, requests=4),
    )
    assert value(told, "process_cpu_seconds_total") == 2.5
    assert value(told, "process_resident_memory_bytes") == 4096
    assert value(told, "process_start_time_seconds") == 1000.0
    assert value(told, "treadle_offload_threads") == 2
    assert value(told, "treadle_offload_threads_limit") == 9
    assert value(told, "treadle_refused_total", what="connection") == 3
    assert value(told, "treadle_refused_total", what="request") == 4
    labels = {"version": "0.1.0", "python": "CPython 3.14.7", "gil": "off"}
    assert value(told, "treadle_info", **labels) == 1


def test_every_metric_has_a_help_and_a_type_before_its_samples() -> None:
    body, _ = exposition(stats(routes=(route(), unmatched())))
    seen: set[str] = set()
    previous = ""
    for line in body.decode().splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert previous.startswith(f"# HELP {name} ")
            assert re.search(r"\.$", previous), previous
            assert kind in ("counter", "gauge", "histogram")
            assert name not in seen
            seen.add(name)
        previous = line


def test_a_template_with_quotes_and_backslashes_is_read_back_as_it_was() -> None:
    template = '/a"b\\{x}/\u00fc'
    told = stats(routes=(route(template),))
    labels = {"method": "GET", "route": template, "status_class": "2xx"}
    assert value(told, "treadle_http_requests_total", **labels) == 2


def test_a_client_that_prefers_openmetrics_gets_it() -> None:
    told = stats(routes=(route(), unmatched()), lanes=(lane(timer_lag=distribution(0.02)),))
    body, kind = exposition(told, "application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    names = {family.name for family in parse_openmetrics(body.decode())}
    assert "treadle_http_requests" in names
