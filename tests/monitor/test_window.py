"""What happened between two readings, and how it is written."""

from __future__ import annotations

import msgspec
import pytest
from support.figures import distribution, lane, route, stats

from treadle.monitor import text
from treadle.monitor.window import Window
from treadle.telemetry import Distribution, Stats

EARLIER = stats(uptime=100.0, cpu=1.0)


def later(**changes: object) -> Stats:
    return msgspec.structs.replace(EARLIER, **{"uptime": 102.0, **changes})


def test_rates_are_per_second() -> None:
    now = route(
        requests=13,
        statuses={"2xx": 4, "5xx": 7},
        cancelled=4,
        run=route().run + distribution(0.5),
        total=distribution(0.25),
    )
    window = Window.between(EARLIER, later(routes=(now,), cpu=4.0))
    (shown,) = window.routes
    assert (window.seconds, window.cpu, window.requests) == (2.0, 1.5, 5.0)
    assert (shown.requests, shown.errors, shown.cancelled) == (5.0, 3.0, 2.0)
    assert (shown.stages["run"].count, shown.stages["run"].quantile(0.5)) == (1, 0.5)
    assert shown.total.quantile(0.99) == 0.25


def test_shares_of_a_lanes_time_are_of_what_it_counted() -> None:
    before = msgspec.structs.replace(EARLIER, lanes=(lane(running=1.0, parked=5.0, requests=10),))
    now = later(lanes=(lane(running=1.5, polling=0.3, parked=6.2, requests=14),))
    (shown,) = Window.between(before, now).lanes
    assert (shown.running, shown.polling, shown.parked) == pytest.approx((0.25, 0.15, 0.6))
    assert shown.requests == 2.0


def test_the_lag_is_that_of_callbacks_and_timers() -> None:
    now = later(lanes=(lane(callback_lag=distribution(0.1), timer_lag=distribution(0.2, 0.2)),))
    (shown,) = Window.between(EARLIER, now).lanes
    assert (shown.lag.count, shown.lag.quantile(0.99)) == (3, 0.2)


def test_a_lane_of_a_new_process_counts_from_nothing() -> None:
    before = msgspec.structs.replace(EARLIER, lanes=(lane(turns=9, requests=1000),))
    now = later(lanes=(lane(turns=1, requests=4),))
    (shown,) = Window.between(before, now).lanes
    assert shown.requests == 2.0


def test_the_lane_of_a_worker_that_was_replaced_counts_on() -> None:
    before = msgspec.structs.replace(EARLIER, lanes=(lane(thread=7, requests=1000),))
    now = later(lanes=(lane(thread=8, turns=12, requests=1004),))
    (shown,) = Window.between(before, now).lanes
    assert shown.requests == 2.0


def test_another_server_counts_from_nothing_since_its_start() -> None:
    before = msgspec.structs.replace(EARLIER, lanes=(lane(requests=3),), cpu=9.0)
    now = later(pid=2, uptime=4.0, cpu=2.0, lanes=(lane(turns=99, requests=8),))
    window = Window.between(before, now)
    assert (window.seconds, window.cpu, window.lanes[0].requests) == (4.0, 0.5, 2.0)


@pytest.mark.parametrize("time", [0.0, 1e10])
def test_a_clock_that_is_set_changes_no_rate(time: float) -> None:
    window = Window.between(EARLIER, later(time=time, cpu=4.0))
    assert (window.seconds, window.cpu) == (2.0, 1.5)


def test_a_route_that_is_new_counts_from_nothing() -> None:
    window = Window.between(EARLIER, later(routes=(route("/new", requests=4),)))
    assert [each.requests for each in window.routes] == [2.0]


def test_the_first_reading_is_of_all_the_time_before_it() -> None:
    window = Window.since_start(stats(uptime=10.0, cpu=5.0))
    assert (window.seconds, window.cpu, window.requests) == (10.0, 0.5, pytest.approx(0.3))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.00k"),
        (9994, "9.99k"),
        (9996, "10.0k"),
        (123456, "123k"),
        (5e6, "5.00M"),
    ],
)
def test_counts(number: float, said: str) -> None:
    assert text.count(number) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "-"),
        (-1, "-"),
        (0.5, "0.50"),
        (9.999, "10.0"),
        (12.34, "12.3"),
        (99.97, "100"),
        (1234, "1.23k"),
    ],
)
def test_rates(number: float, said: str) -> None:
    assert text.rate(number) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (5e-7, "500ns"),
        (0.9999e-6, "1.00us"),
        (1.234e-5, "12.3us"),
        (0.0045, "4.50ms"),
        (0.4567, "457ms"),
        (12.0, "12.0s"),
        (3600.0, "3600s"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    assert text.duration(distribution(seconds), 0.5) == said
    assert len(said) <= 7


def test_a_duration_of_nothing_is_a_dash() -> None:
    assert text.duration(Distribution(), 0.99) == "-"


@pytest.mark.parametrize(
    ("seconds", "said"), [(59, "0:59"), (3723, "1:02:03"), (2 * 86400 + 11045, "2d 3:04:05")]
)
def test_whiles(seconds: float, said: str) -> None:
    assert text.elapsed(seconds) == said


def test_shares_and_sizes() -> None:
    assert (text.share(0.5), text.share(1.0)) == ("50.0%", "100.0%")
    assert (text.size(512), text.size(48_000_000)) == ("512 B", "45.8 MiB")
