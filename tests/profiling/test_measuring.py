"""One measurement, of a process that only exists: what wrk would have seen is made up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from profiling import measuring
from profiling.errors import ComparisonError
from profiling.load import Latency, Load, Outcome
from profiling.measuring import Measured, Measurement
from profiling.scenarios import SYNC


class FakeServer:
    label = "treadle 3.14t"
    port = 1
    pid = os.getpid()
    asleep = True

    @contextmanager
    def awake(self) -> Iterator[None]:
        self.asleep = False
        yield
        self.asleep = True

    def require_alive(self) -> None:
        pass


class FakeMeter:
    """Each run costs another tenth of a second more; others have a quarter of the core."""

    runs = 0

    def __init__(self, _of: int) -> None:
        pass

    def seconds(self) -> float:
        FakeMeter.runs += 1
        return FakeMeter.runs / 10

    def share_of_others(self, _own: float) -> float:
        return FakeMeter.runs / 4


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = FakeServer()
    runs = [
        Outcome(1_000, 1.0, Latency(1.0, 2.0, 3.0), 0, 0, 0),
        Outcome(3_000, 1.0, Latency(2.0, 3.0, 9.0), 1, 2, 0),
    ]

    def drive(_what: object, load: Load, _port: int) -> Outcome:
        assert not fake.asleep
        return Outcome(9, 9.0, None, 9, 9, 0) if load.seconds == 9 else runs.pop(0)

    FakeMeter.runs = 0
    monkeypatch.setattr(measuring, "drive", drive)
    monkeypatch.setattr(measuring, "CpuMeter", FakeMeter)
    monkeypatch.setattr(measuring, "CoreMeter", FakeMeter)
    return fake


def test_slices_are_summed_up_and_kept_beside(server: Any) -> None:
    member = Measured(server, Measurement(SYNC, 64, "async-to-sync"))
    member.warm_up(9)
    member.drive(1)
    assert server.asleep
    member.drive(1)
    sample = member.sample(turn=2)
    assert (sample.requests, sample.rate, sample.round) == (4_000, 2_000.0, 2)
    assert sample.cpu_us == pytest.approx(0.3 / 4_000 * 1e6)
    assert (sample.p50_us, sample.p95_us, sample.p99_us) == (1.5, 2.5, 6.0)
    assert (sample.broken, sample.timeouts, sample.disturbed) == (1, 2, 0.375)
    assert [(one.rate, one.cpu_us) for one in sample.slices] == [
        (1_000.0, 100.0),
        (3_000.0, 66.667),
    ]


def test_what_is_measured_at_a_stretch_has_no_slices(server: Any) -> None:
    member = Measured(server, Measurement(SYNC, 64))
    member.warm_up(0)
    member.drive(4)
    sample = member.sample(turn=0)
    assert (sample.rate, sample.slices) == (1_000.0, [])
    assert [(one.rate, one.cpu_us) for one in sample.turns] == [(1_000.0, 100.0)]


def test_refusals_are_no_measurement(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Outcome(10, 1.0, None, 0, 0, refused=3)
    monkeypatch.setattr(measuring, "drive", lambda *_: refused)
    with pytest.raises(
        ComparisonError, match=r"^treadle 3\.14t refuses 3 requests of GET /sync\.$"
    ):
        Measured(server, Measurement(SYNC, 64)).drive(1)
