"""What a comparison does with the servers of one group, without servers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from profiling import compare
from profiling.compare import Options
from profiling.console import Console
from profiling.interpreters import Interpreter
from profiling.measuring import Measurement, Pace
from profiling.peers import Product, entrants
from profiling.ratios import LANES, PAIRS, Row
from profiling.results import Result
from profiling.schedule import plan

SIDES = (Interpreter.FREE_THREADED,)


class FakeServer:
    def __init__(self, name: str, done: list[str]) -> None:
        self.name = name
        self.done = done

    def check(self, _scenario: object) -> None:
        self.done.append(f"check {self.name}")

    def freeze(self) -> None:
        self.done.append(f"freeze {self.name}")


class FakeFleet:
    def __init__(self, done: list[str]) -> None:
        self.done = done

    def running(self, entrant: str) -> FakeServer:
        return FakeServer(entrant, self.done)

    @contextmanager
    def fresh(self, entrant: str, _cores: str, lanes: int) -> Iterator[FakeServer]:
        yield FakeServer(f"{entrant} x{lanes}", self.done)
        self.done.append(f"stop {entrant} x{lanes}")


class FakeMeasured:
    def __init__(self, server: FakeServer, what: Measurement) -> None:
        self.name = server.name if what.both_cores else what.scenario.name
        self.done = server.done

    def warm_up(self, seconds: int) -> None:
        self.done.append(f"warm {self.name} {seconds}")

    def drive(self, seconds: int) -> None:
        self.done.append(f"{self.name} {seconds}")

    def sample(self, turn: int) -> tuple[str, int]:
        return self.name, turn


def measured(
    row: Row, result: Result, monkeypatch: pytest.MonkeyPatch
) -> tuple[list[str], list[tuple[str, int]]]:
    """What was done in the second round of two seconds, and what came of it."""
    monkeypatch.setattr(compare, "Measured", FakeMeasured)
    done: list[str] = []
    everybody = entrants(frozenset({Product.TREADLE}), SIDES)
    ready: Any = {entrant: entrant.label for entrant in everybody}
    fleet: Any = FakeFleet(done)
    options = Options(pace=Pace(seconds=2, warmup=1))
    comparison = compare._Comparison(
        options, Console(quiet=True), result, Path("none"), fleet, ready
    )
    (group,) = plan(everybody, SIDES, [row], (64,), only_rows=True)
    samples: Any = comparison._measure(group, 1)
    return done, samples


def test_the_halves_are_warmed_up_once_and_then_take_turns(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, samples = measured(PAIRS[0], result, monkeypatch)
    assert done == ["warm /async 1", "warm /sync 1", "/async 1", "/sync 1", "/sync 1", "/async 1"]
    assert samples == [("/async", 1), ("/sync", 1)]


def test_servers_with_both_cores_sleep_while_the_other_is_measured(
    result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, _ = measured(LANES, result, monkeypatch)
    two, one = "treadle 3.14t x2", "treadle 3.14t x1"
    assert done == [
        *(f"check {two}", f"freeze {two}", f"check {one}", f"freeze {one}"),
        *(f"warm {two} 1", f"warm {one} 1"),
        *(f"{two} 1", f"{one} 1", f"{one} 1", f"{two} 1"),
        *(f"stop {one}", f"stop {two}"),
    ]
