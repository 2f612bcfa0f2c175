"""What is noted of the statistics while a load is driven."""

from __future__ import annotations

import os

from support.profiles import made_profile, reading

from treadle.profile.load import LoadProgress
from treadle.profile.readings import Readings
from treadle.telemetry import Stats


class Target:
    """A server that is read twice a second."""

    pid = os.getpid()

    def __init__(self) -> None:
        self._uptime = 10.0

    def read(self) -> Stats:
        self._uptime += 0.5
        return reading(uptime=self._uptime)


def tick(p99: float) -> LoadProgress:
    return LoadProgress(
        phase="measure", elapsed=1.0, planned=9.0, completed=1, failed=0, rate=1.0, p50=p99, p99=p99
    )


def test_an_interval_without_an_answer_has_no_latency() -> None:
    found = made_profile()
    seen = Readings(Target(), found)
    for p99 in (0.002, 0.001, 0.0, 0.003):
        seen.look(tick(p99))
    seen.end()
    told = [(moment.at, moment.latency_p99) for moment in found.timeline]
    assert told == [(0.5, 0.001), (1.0, None), (1.5, 0.003)]
