"""`scale` from end to end, and what it holds while it measures."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from profiling import interpreters, memory, records
from profiling.apps.scale_app import app
from profiling.console import Console
from profiling.errors import ComparisonError
from profiling.interpreters import Facts, Interpreter
from profiling.measuring import Pace
from profiling.program import Program
from profiling.scale import curves, waiting
from profiling.scale.command import Options, scale
from profiling.scale.curves import Curve
from profiling.scale.record import Scale
from treadle.testing import LiveServer

pytestmark = [
    pytest.mark.timing,
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="taskset and /proc"),
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed"),
    pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core for each side"),
]


@pytest.fixture(autouse=True)
def any_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """This interpreter, whatever its build is."""
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    facts = Facts("3.14.0", gil, "0.1.0", "release")
    monkeypatch.setattr(interpreters, "with_treadle", lambda *_: (Path(sys.executable), facts))


def options(output: Path, *chosen: Curve) -> Options:
    return Options(
        curves=chosen,
        sides=(Interpreter.GIL,),
        lanes=1,
        rounds=1,
        pace=Pace(seconds=1, warmup=0),
        quick=True,
        output=output,
    )


def test_points_of_several_curves_are_measured_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "scale.json"
    record = scale(options(file, curves.SUSPENDED, curves.WAITING), Console(quiet=True))
    assert [(s.curve, s.value) for s in record.samples] == [
        ("suspended", 1),
        ("waiting", 1),
        ("waiting", 100),
    ]
    assert all(sample.rate > 0 and sample.cpu_us > 0 for sample in record.samples)
    assert record.samples[0].bytes_each is None
    assert record.samples[2].bytes_each is not None
    assert records.load(file, Scale) == record


def test_a_point_that_needs_more_files_than_there_are_is_skipped_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise ComparisonError("too few open files")

    monkeypatch.setattr(memory, "require_files", refuse)
    record = scale(options(tmp_path / "scale.json", curves.WAITING), Console(quiet=True))
    assert record.samples == []
    assert {(s.value, s.reason) for s in record.skipped} == {
        (1, "too few open files"),
        (100, "too few open files"),
    }


class _Held(Program):
    """A server of this process, as far as `waiting` asks."""

    def __init__(self, port: int) -> None:
        self.label = "the server"
        self.port = port

    @property
    def pid(self) -> int:
        return os.getpid()

    def require_alive(self) -> None:
        pass


def test_handlers_are_suspended_inside_the_block_and_answered_after_it() -> None:
    with LiveServer(app) as server:
        held = _Held(server.port)
        with waiting.handlers(held, 20):
            assert waiting._tell(held, "GET", "/held") == 20
        assert waiting._tell(held, "GET", "/held") == 0


def test_every_curve_asks_for_something_that_answers() -> None:
    with LiveServer(app) as server:
        for curve in curves.CURVES:
            asked = curves.request(curve, 1)
            if curve not in {curves.ROUTES, curves.JSON}:
                assert waiting._tell(_Held(server.port), asked.method, asked.target) is not None
            assert curves.connections(curve, 3) >= 1
