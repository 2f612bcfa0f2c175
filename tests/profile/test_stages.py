"""What happened between two readings of the statistics."""

from __future__ import annotations

import pytest
from support.profiles import AFTER, BEFORE, REPORT, USERS, offloaded, reading, spread

from treadle.profile import stages
from treadle.telemetry import Distribution, LaneStats, RouteStats


def _route(**changes: object) -> RouteStats:
    known = {"method": "GET", "template": "/", "handler": "main.py:1 home", "mode": "inline"}
    return RouteStats(**known, **changes)  # type: ignore[arg-type]


def test_only_what_was_counted_in_between_is_in_a_stage() -> None:
    first = spread((0.001, 90), (0.5, 10))
    before = reading(_route(requests=100, run=first, statuses={"2xx": 100}))
    after = reading(
        _route(
            requests=300,
            run=first + spread((0.002, 199), (0.004, 1)),
            statuses={"2xx": 290, "5xx": 10},
        )
    )
    [row] = stages.route_rows(before, after)
    run = row.stage("run")
    assert (row.requests, row.statuses) == (200, {"2xx": 190, "5xx": 10})
    assert (run.count, run.p50, run.max) == (200, 0.002, 0.004)
    assert run.share == 1.0
    assert row.mean == pytest.approx(run.mean)


def test_routes_that_nobody_asked_for_are_left_out_and_the_longest_comes_first() -> None:
    idle = _route(requests=5, run=spread((0.001, 5)))
    rows = stages.route_rows(reading(idle), reading(REPORT, idle, USERS))
    assert [row.template for row in rows] == [USERS.template, REPORT.template]


def test_shares_of_a_route_add_up_to_all() -> None:
    for row in stages.route_rows(BEFORE, AFTER):
        assert sum(stage.share for stage in row.stages) == pytest.approx(1.0)


def test_a_share_of_the_requests_waited() -> None:
    rows = stages.route_rows(BEFORE, AFTER)
    assert [row.waited for row in rows] == [0.06, 0.0]


def test_cpu_time_is_split_into_kernel_python_and_the_rest() -> None:
    before = reading(cpu=1.0)
    after = reading(
        _route(requests=1000, run=spread((100e-6, 1000)), serialize=spread((10e-6, 1000))), cpu=1.5
    )
    split = stages.cpu_split(before, after, kernel=0.2)
    assert split is not None
    assert split.total_us == pytest.approx(500)
    assert split.kernel_us == pytest.approx(200)
    assert split.python_us == pytest.approx(110)
    assert split.native_us == pytest.approx(190)


def _awake(seconds: float) -> LaneStats:
    return LaneStats(index=0, thread=1, running=seconds)


@pytest.mark.parametrize(
    ("awake", "python"),
    [
        (1.0, 0.19),  # the lane had its core all the time: what ran long really ran
        (1.05, 0.14),  # it lost the core for 50 ms
        (9.0, 0.1),  # no more is taken off than the outliers had
    ],
)
def test_outliers_are_shortened_by_the_time_that_lanes_lost(awake: float, python: float) -> None:
    route = _route(requests=100, run=spread((0.001, 90), (0.01, 10)))
    after = reading(route, cpu=1.0, lanes=(_awake(awake),))
    split = stages.cpu_split(reading(lanes=(_awake(0.0),)), after, kernel=0.0)
    assert split is not None
    assert split.python_us * 100 / 1e6 == pytest.approx(python)


def test_python_is_at_most_the_user_time() -> None:
    after = reading(_route(requests=10, run=spread((0.2, 10))), cpu=1.0)
    split = stages.cpu_split(reading(), after, kernel=0.4)
    assert split is not None
    assert split.python_us == pytest.approx(60_000)
    assert split.native_us == pytest.approx(0)


def test_offloaded_handlers_count_with_the_time_of_their_threads() -> None:
    before = reading()
    split = stages.cpu_split(before, offloaded(), kernel=0.1, offload=0.05)
    assert split is not None
    assert split.python_us == pytest.approx(500)
    unknown = stages.cpu_split(before, offloaded(), kernel=None)
    assert unknown is not None
    assert unknown.python_us == 0
    assert "System time is not known" in unknown.exactness
    assert "Offloaded handlers' time is not known" in unknown.exactness


def test_threads_that_ended_with_their_worker_take_no_time_off_python() -> None:
    after = reading(_route(requests=1000, run=spread((100e-6, 1000))), cpu=1.0)
    split = stages.cpu_split(reading(), after, kernel=0.1, offload=-5.0)
    assert split is not None
    assert split.python_us == pytest.approx(100)


def test_without_requests_there_is_no_cpu_split() -> None:
    assert stages.cpu_split(reading(), reading(cpu=1.0), kernel=0.1) is None


def test_a_lane_s_time_is_told_as_shares() -> None:
    before = (LaneStats(index=0, thread=1, running=5.0, parked=5.0, requests=10),)
    lane = LaneStats(index=0, thread=1, running=8.0, polling=1.0, parked=10.5, attach_wait=0.5)
    [row] = stages.lane_rows(reading(lanes=before), reading(lanes=(lane,)))
    assert (row.running, row.polling, row.parked, row.attach_wait) == (0.3, 0.1, 0.55, 0.05)
    assert row.requests == 0  # it began anew: nothing is told as negative


def test_a_moment_is_of_its_interval_alone() -> None:
    def lanes(requests: int, lag: Distribution) -> tuple[LaneStats, ...]:
        return (LaneStats(index=0, thread=1, requests=requests, callback_lag=lag),)

    lag = spread((0.5, 3))
    before = reading(lanes=lanes(100, lag), time=1000.0, uptime=10.0, cpu=1.0)
    # The clock was set back meanwhile.
    after = reading(lanes=lanes(150, lag + spread((0.001, 10))), time=900.0, uptime=10.5, cpu=1.25)
    moment = stages.moment(before, after, since=2.0)
    assert (moment.at, moment.rate, moment.cpu) == (2.5, 100.0, 0.5)
    assert moment.lag_max == 0.001
