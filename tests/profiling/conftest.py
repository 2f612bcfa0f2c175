"""Lets the tests find the package `profiling`, and makes what they measure without measuring."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2]))

from profiling.results import Machine, Method, Result, Sample, ServerFacts, Slice


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """`main` turns these into KeyboardInterrupt."""
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.fixture
def make_sample() -> Callable[..., Sample]:
    def make(
        server: str,
        scenario: str,
        rate: float,
        *,
        turn: int = 0,
        row: str | None = None,
        lanes: int = 1,
        connections: int = 64,
        cpu_us: float = 6.0,
        p50_us: float | None = 400.0,
        slices: Sequence[tuple[float, float]] = (),
    ) -> Sample:
        return Sample(
            server=server,
            scenario=scenario,
            connections=connections,
            round=turn,
            row=row,
            lanes=lanes,
            cores="0",
            requests=int(rate),
            rate=rate,
            cpu_us=cpu_us,
            p50_us=p50_us,
            p95_us=p50_us,
            p99_us=p50_us,
            broken=0,
            timeouts=0,
            disturbed=0.0,
            slices=[Slice(*one) for one in slices],
        )

    return make


@pytest.fixture
def result() -> Result:
    """A comparison of treadle and FastAPI that has measured nothing yet."""
    return Result(
        created="2026-11-20T20:15:00+00:00",
        commit="0123456789abcdef",
        dirty=False,
        quick=False,
        machine=Machine("a CPU", 2, 8.0, "6.18", 0.1),
        method=Method("wrk 4.1.0", 3, 4, 1, [8, 64, 256], "0", "1"),
        harness_python="3.14.7",
        servers=[
            ServerFacts(
                label="treadle 3.14t",
                product="treadle",
                title="Treadle 0.1.0",
                interpreter="3.14t",
                python="3.14.7",
                gil=False,
                build_profile="release",
                remark="",
            ),
            ServerFacts(
                label="fastapi 3.14t",
                product="fastapi",
                title="FastAPI 0.165.0",
                interpreter="3.14t",
                python="3.14.7",
                gil=True,
                build_profile=None,
                remark="uvloop and httptools",
            ),
        ],
    )
