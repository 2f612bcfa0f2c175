"""The shapes of the statistics: adding up, taking apart, and what survives JSON."""

from __future__ import annotations

import msgspec
import pytest
from support.figures import distribution, lane, route, stats, unmatched

from treadle.telemetry import Distribution, OffloadStats, RefusedStats, Stats, merge


def test_what_is_encoded_is_decoded_again() -> None:
    told = stats(routes=(route(), unmatched()))
    assert msgspec.json.decode(msgspec.json.encode(told), type=Stats) == told


def test_the_difference_of_two_readings_is_what_came_between() -> None:
    earlier = distribution(0.001, 0.002)
    later = earlier + distribution(0.002, 0.5, 0.5)
    between = later - earlier
    assert (between.count, between.buckets) == (3, ((0.002, 1), (0.5, 2)))
    assert between.sum == pytest.approx(1.002)
    assert between.quantile(0.5) == 0.5
    assert later - Distribution() == later
    assert (later - later).count == 0


def test_the_difference_to_a_reading_of_another_process_is_all() -> None:
    assert distribution(0.5) - distribution(0.1, 0.1) == distribution(0.5)


def test_routes_that_are_alike_and_lanes_of_one_index_are_added_up() -> None:
    total = merge(
        stats(1, routes=(route("/a", in_flight=1), unmatched(5))),
        stats(2, lanes=(lane(ready_max=7), lane(1)), routes=(route("/a"), route("/b"))),
    )
    assert [(each.template, each.requests) for each in total.routes] == [
        ("/a", 6),
        ("", 5),
        ("/b", 3),
    ]
    both = total.routes[0]
    assert (both.statuses, both.in_flight) == ({"2xx": 4, "5xx": 2}, 1)
    assert both.run == route().run + route().run
    assert [(each.index, each.turns, each.ready_max) for each in total.lanes] == [
        (0, 20, 7),
        (1, 10, 0),
    ]


def test_processes_are_added_up_under_the_name_of_the_first() -> None:
    total = merge(
        stats(1, uptime=5.0, offload=OffloadStats(threads=1, busy=1)),
        stats(2, uptime=9.0, gil=True, offload=OffloadStats(threads=2)),
        stats(3, refused=RefusedStats(connections=1, requests=2)),
        stats(4, refused=RefusedStats(requests=3)),
    )
    assert (total.pid, total.uptime, total.gil) == (1, 60.0, True)
    assert (total.cpu, total.rss) == (6.0, 40_000_000)
    assert total.offload == OffloadStats(threads=3, busy=1)
    assert total.refused == RefusedStats(connections=1, requests=5)


def test_one_alone_is_what_it_was() -> None:
    assert merge(stats()) == stats()


def test_buckets_of_two_measures_of_the_clock_are_the_same() -> None:
    def told(by: float, *counts: int) -> Distribution:
        bounds = (0.001 * by, 0.001004 * by, 0.1 * by)
        buckets = tuple((b, c) for b, c in zip(bounds, counts, strict=True) if c)
        return Distribution(count=sum(counts), sum=1.0, min=0.001, max=0.2, buckets=buckets)

    for by in (0.9995, 1.0, 1.0005):
        later, earlier = told(1.0, 5, 7, 9), told(by, 2, 0, 9)
        assert [count for _, count in (later - earlier).buckets] == [3, 7]
        assert [count for _, count in (later + earlier).buckets] == [7, 7, 18]
        assert [count for _, count in (later - told(by, 0, 7, 0)).buckets] == [5, 9]
