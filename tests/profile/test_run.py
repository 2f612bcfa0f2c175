"""What is made of the load that was driven."""

from __future__ import annotations

import msgspec
import pytest

from treadle.profile import run
from treadle.profile.load import LoadJob, LoadResult, SliceResult
from treadle.telemetry import Distribution

SLICE = SliceResult(start=0.0, seconds=5.0, completed=500, failed=0, p50=0.9, p99=0.9, bytes=0)
RESULT = LoadResult(
    ending="complete",
    reason="",
    seconds=10.9,  # until the last answer
    completed=1000,
    failed=0,
    unsent=0,
    unfinished=0,
    connections=100,
    bytes=0,
    latency=Distribution(),
    service=None,
    requests=(),
    failures=(),
    slices=(SLICE, msgspec.structs.replace(SLICE, start=5.0)),
)


def test_an_open_loop_s_rate_is_of_the_time_in_which_it_sent() -> None:
    job = LoadJob(address="s.sock", requests=(), rate=100.0)
    assert run._load(RESULT, job).rate == 100.0
    closed = msgspec.structs.replace(job, rate=None)
    assert run._load(RESULT, closed).rate == pytest.approx(1000 / 10.9)
