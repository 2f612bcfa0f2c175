"""Advice: only where it holds, each with its figure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from support.profiles import made_profile, offloaded, reading, spread

from treadle.profile import stages
from treadle.profile.advice import advise
from treadle.profile.record import LaneRow, Load, Moment, Profile
from treadle.telemetry import RouteStats


def _titles(profile: Profile) -> dict[str, str]:
    return {each.kind: each.title for each in advise(profile)}


def _quiet(*routes: RouteStats, **changes: Any) -> Profile:
    """A profile with nothing to say of, but for its routes and these changes."""
    rows = stages.route_rows(reading(), reading(*routes))
    fields: dict[str, Any] = {"routes": rows, "lanes": (), "timeline": (), "load": None}
    return made_profile(**fields | {"flame": None, "budget": None, "advice": (), **changes})


def _handler(mode: str = "task", **stage: Any) -> RouteStats:
    return RouteStats(
        method="GET",
        template="/",
        handler="/srv/main.py:3 home",
        mode=mode,
        requests=100,
        statuses={"2xx": 100},
        **stage,
    )


def _lane(index: int, **changes: Any) -> LaneRow:
    known: dict[str, Any] = {
        "index": index,
        "requests": 100,
        "running": 0.5,
        "polling": 0.1,
        "parked": 0.4,
        "attach_wait": 0.0,
        "lag_p99": 0.0001,
        "lag_max": 0.001,
        "ready_max": 3,
    }
    return LaneRow(**known | changes)


def test_a_healthy_app_has_nothing_to_be_told() -> None:
    route = _handler(run=spread((0.0005, 100)), suspended=spread((0.001, 100)))
    assert advise(_quiet(route)) == ()


def test_a_handler_that_runs_long_between_awaits_should_be_offloaded() -> None:
    route = _handler(run=spread((0.008, 100)), suspended=spread((0.001, 100)))
    [advice] = advise(_quiet(route))
    assert (
        advice.title
        == "home runs 8.00 ms of Python between awaits (p90 of a request; GET /): offload it"
    )
    assert "asyncio.to_thread" in advice.action
    [inline] = advise(_quiet(_handler("inline", run=spread((0.008, 100)))))
    assert "offload=True" in inline.action
    assert advise(_quiet(_handler("offload", run=spread((0.5, 100))))) == ()


@pytest.mark.parametrize(
    ("cores", "gil", "action"),
    [
        (4, False, "serve with --lanes 4"),
        (2, False, "Every core has a lane"),
        (4, True, "--workers"),
    ],
)
def test_requests_that_waited_for_the_lane_ask_for_more_of_them(
    cores: int, gil: bool, action: str
) -> None:
    route = _handler(wait=spread((0.0001, 97), (0.01, 3)))
    profile = _quiet(route, lanes=(_lane(0), _lane(1)))
    machine = msgspec.structs.replace(profile.origin.machine, cores=cores)
    profile.origin = msgspec.structs.replace(
        profile.origin, machine=machine, gil=gil, free_threaded_build=False
    )
    [advice] = advise(profile)
    assert advice.title.startswith("3.0 % of requests waited over 1 ms for the lane")
    assert action in advice.action


def test_the_module_that_turned_the_gil_on_is_named() -> None:
    profile = _quiet()
    profile.origin = msgspec.structs.replace(profile.origin, gil=True, gil_culprit="old.ext")
    assert "by the import of 'old.ext'" in _titles(profile)["gil"]
    profile.origin = msgspec.structs.replace(profile.origin, free_threaded_build=False)
    assert advise(profile) == ()


def test_failures_come_first() -> None:
    [first, *_] = advise(made_profile())
    assert (first.kind, first.severity) == ("5xx", 3)
    assert "GET /users/{id} failed 1.0 % of the time (10 answers 5xx)" in first.title


def test_the_json_share_of_a_route_is_told() -> None:
    assert "spends 48 % of its time making JSON (900 us" in _titles(made_profile())["serialize"]


def test_arguments_that_take_most_of_the_time_are_told() -> None:
    route = _handler(prepare=spread((0.002, 100)), run=spread((0.001, 100)))
    assert "67 % of its time on its arguments (2.00 ms" in _titles(_quiet(route))["prepare"]


def test_the_queue_of_offloaded_handlers_is_told() -> None:
    rows = stages.route_rows(reading(), offloaded())
    moment = Moment(at=1.0, rate=10.0, offload_queued=12)
    told = _titles(_quiet(routes=rows, timeline=(moment,)))["offload-wait"]
    assert told.startswith("40 % of GET /pdf waited over 1 ms for an offload thread")
    assert "up to 12 queued" in told


def test_a_loop_that_was_late_is_told_with_its_lane() -> None:
    lanes = (_lane(0), _lane(1, lag_max=0.045, lag_p99=0.002))
    assert "lane 1 was up to 45.0 ms late (p99 2.00 ms)" in _titles(_quiet(lanes=lanes))["loop-lag"]


def test_waiting_for_the_interpreter_is_told() -> None:
    lanes = (_lane(0, attach_wait=0.12),)
    assert "Lane 0 spent 12 % of its time waiting" in _titles(_quiet(lanes=lanes))["attach-wait"]


def test_an_async_handler_that_never_waits_is_told_what_that_costs() -> None:
    route = _handler(run=spread((5e-6, 100)))
    told = _titles(_quiet(route, budget=made_profile().budget))["needless-async"]
    assert told == "home is async and never waited: that costs 436 ns a request"
    # Nothing beside what the handler itself takes.
    assert advise(_quiet(_handler(run=spread((0.001, 100))), budget=made_profile().budget)) == ()


def test_a_route_that_mostly_waits_is_no_matter_of_the_server() -> None:
    route = _handler(run=spread((0.0001, 100)), suspended=spread((0.02, 100)))
    assert "waits 100 % of its time for others (20.0 ms" in _titles(_quiet(route))["waits"]


def test_a_rate_that_was_not_reached_is_told() -> None:
    load = Load(duration=10.0, requests=10_000, rate=640.0, wanted_rate=1000.0)
    told = _titles(_quiet(load=load))["rate"]
    assert told == "640 answers a second where 1,000 were asked for"


def test_requests_without_an_answer_are_told_by_reason() -> None:
    load = Load(duration=1.0, requests=10, rate=1.0, errors={"timeout": 3, "reset": 1})
    assert _titles(_quiet(load=load))["errors"] == ("4 requests had no answer (timeout 3, reset 1)")


def test_requests_under_way_at_the_end_are_nothing_that_is_broken() -> None:
    load = Load(duration=10.0, requests=320, rate=32.0, errors={"unfinished": 32})
    [told] = advise(_quiet(load=load))
    assert (told.kind, told.severity) == ("unfinished", 1)
    assert told.title == "32 requests were still under way when the load ended"
    both = _titles(_quiet(load=msgspec.structs.replace(load, errors={"unfinished": 1, "reset": 2})))
    assert both["errors"] == "2 requests had no answer (reset 2)"


def test_lanes_that_share_unevenly_and_a_machine_without_room_are_told() -> None:
    lanes = (_lane(0, requests=900), _lane(1, requests=100))
    moment = Moment(at=1.0, rate=10.0, cpu=3.9)
    titles = _titles(_quiet(lanes=lanes, timeline=(moment,)))
    assert "One lane of 2 answered 90 % of all requests" in titles["uneven-lanes"]
    assert "used 3.9 of 4 cores" in titles["crowded"]


def test_the_hottest_function_is_told() -> None:
    told = _titles(made_profile())["hot"]
    assert told.startswith("30 % of the samples ended in Table.render (orm/query.py)")


def test_a_debug_build_makes_every_figure_doubtful() -> None:
    profile = _quiet()
    profile.origin = msgspec.structs.replace(profile.origin, build_profile="debug")
    assert "debug build" in _titles(profile)["debug-build"]
