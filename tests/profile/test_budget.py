"""The async budget, measured here: what its figures have to look like on any machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from importlib import util
from itertools import chain
from pathlib import Path

import pytest
from support.profiles import made_profile

from treadle.interpreter import gil_enabled
from treadle.profile import budget, lane, micro
from treadle.profile.budget import ASYNCIO, BRIDGE, CLAIM, SYNC, TOGETHER, TREADLE, UVICORN
from treadle.profile.record import Budget

pytestmark = pytest.mark.slow


def _lane(tick: Callable[[], None]) -> dict[str, list[float]]:
    """What a lane would say: nanoseconds a request, in two rounds."""
    tick()
    tick()
    return {
        "/sync": [1000.0, 1100.0],
        "/async": [1500.0, 1600.0],
        "/suspend": [2700.0, 2800.0],
        "/request": [1550.0, 1650.0],
        "/body": [2000.0, 2100.0],
    }


def _measure() -> Budget:
    return budget.measure(rounds=2, count=640, lane=_lane, answer={"id": 7})


@pytest.fixture(scope="module")
def measured() -> Budget:
    return _measure()


def _ns(measured: Budget, name: str, column: str) -> float:
    line = next(line for line in measured.lines if line.name == name)
    figure = line.figures[column]
    assert figure is not None
    return figure.ns


def test_every_line_of_the_claim_is_measured(measured: Budget) -> None:
    claimed = {line.name: line.claimed_us for line in measured.lines if line.claimed_us}
    assert claimed == CLAIM | {TOGETHER: 60.0}
    assert _ns(measured, TOGETHER, TREADLE) == sum(_ns(measured, name, TREADLE) for name in CLAIM)
    for name in CLAIM:
        assert _ns(measured, name, TREADLE) >= 0


def test_a_sync_handler_pays_neither_coroutine_nor_task(measured: Budget) -> None:
    for name in ("coroutine object", "Task", "suspension", "wake by a future"):
        assert _ns(measured, name, SYNC) == 0
    assert _ns(measured, "serialize", SYNC) == _ns(measured, "serialize", TREADLE) > 0


def test_what_is_paid_on_the_lane_is_the_difference_of_its_routes(measured: Budget) -> None:
    assert _ns(measured, "suspension", TREADLE) == 1200
    assert _ns(measured, "conversion across the bridge", TREADLE) == 450
    # A busy machine may take longer to make a coroutine than the whole is said to have taken.
    whole = max(0.0, 500 - _ns(measured, "coroutine object", TREADLE))
    assert _ns(measured, "Task", TREADLE) == pytest.approx(whole)


def test_others_stand_beside_it_or_are_told_absent(measured: Budget) -> None:
    assert measured.columns[:3] == (SYNC, TREADLE, ASYNCIO)
    # A difference of two times, which a busy machine can swallow once.
    tries = chain([measured], (_measure() for _ in range(4)))
    assert any(_ns(each, "suspension", ASYNCIO) > 0 for each in tries)
    assert "--bridge names a function" in measured.absent[BRIDGE]
    assert (UVICORN in measured.columns) == (UVICORN not in measured.absent)


def test_without_uvicorn_its_column_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    real = util.find_spec
    monkeypatch.setattr(budget, "find_spec", lambda name: None if name == "uvicorn" else real(name))
    found = budget.measure(rounds=1, count=64)
    assert found.absent[UVICORN] == "not installed"
    assert UVICORN not in found.columns


UVLOOP = "from asyncio import SelectorEventLoop as new_event_loop\n"


@pytest.mark.parametrize(
    ("text", "is_measured"),
    [(UVLOOP, True), ("import sys\nsys._is_gil_enabled = lambda: True\n" + UVLOOP, gil_enabled())],
)
def test_uvicorns_loop_is_uvloop_unless_that_turns_the_gil_on(
    text: str, is_measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "uvloop.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if k != "uvloop"})
    if gil_enabled():
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    found = budget.measure(rounds=1, count=64)
    assert (UVICORN in found.columns) == is_measured
    if not is_measured:
        assert found.absent[UVICORN] == "not measured: importing uvloop turns the GIL on"


def test_an_awaitable_of_another_bridge_is_measured_too() -> None:
    ticks: list[tuple[int, int]] = []

    def make() -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        return future

    found = budget.measure(
        rounds=2, count=64, foreign=make, tick=lambda done, of: ticks.append((done, of))
    )
    assert _ns(found, "conversion across the bridge", BRIDGE) > 0
    assert BRIDGE not in found.absent
    of = ticks[0][1]
    assert ticks == [(done + 1, of) for done in range(of)]


@pytest.mark.parametrize("target", ["nothing", "no.such.module:f", "asyncio:no_such", "sys:path"])
def test_a_bridge_that_is_none_is_refused_by_name(target: str) -> None:
    with pytest.raises(budget.NoSuchFunction, match=f"--bridge {target}"):
        budget.foreign(target)
    assert budget.foreign("asyncio:sleep") is asyncio.sleep


def test_what_the_requests_paid_is_added_up_from_what_they_used() -> None:
    profile = made_profile()
    assert profile.budget is not None
    # 1,000 of 1,200 requests had a Task, and as many suspended.
    paid = budget.per_request(profile.budget, profile.routes)
    assert paid == pytest.approx((47 + 389 + 1249) / 1000 * 1000 / 1200)
    assert budget.per_request(profile.budget, ()) is None


def test_noise_below_zero_is_zero() -> None:
    figure = micro.summary([-5.0, -1.0, 3.0, 8.0, 100.0])
    assert (figure.low, figure.ns, figure.high) == (0.0, 3.0, 8.0)


def test_a_lane_that_does_not_answer_is_an_error(tmp_path: object) -> None:
    with pytest.raises(lane.LaneError, match="did not answer"):
        lane.drive(f"{tmp_path}/nobody.sock", rounds=1, count=32, tick=lambda: None)
