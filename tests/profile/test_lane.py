"""The budget's own app on a real lane."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.profile import lane, lane_app
from treadle.testing import LiveServer

pytestmark = pytest.mark.slow


def test_every_route_costs_cpu_time_on_its_lane(tmp_path: Path) -> None:
    path = str(tmp_path / "lane.sock")
    ticks = []
    with LiveServer(lane_app.app, lanes=1, uds=path):
        found = lane.drive(path, rounds=3, count=320, tick=lambda: ticks.append(1))
    assert set(found) == set(lane.ROUTES)
    assert all(len(rounds) == 3 and min(rounds) > 0 for rounds in found.values())
    assert len(ticks) == 3


def test_an_answer_that_is_not_200_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane, "ROUTES", ("/nowhere",))
    path = str(tmp_path / "lane.sock")
    with (
        LiveServer(lane_app.app, lanes=1, uds=path),
        pytest.raises(lane.LaneError, match="404"),
    ):
        lane.drive(path, rounds=1, count=32, tick=lambda: None)
