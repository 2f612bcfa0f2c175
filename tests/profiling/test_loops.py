from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from profiling import results
from profiling.errors import ComparisonError
from profiling.interpreters import clean_environment
from profiling.loops import client, compare, table
from profiling.loops.compare import LoopOptions
from profiling.loops.kinds import Kind
from profiling.loops.results import LoopsResult, Taken
from profiling.loops.scenarios import BY_NAME, SCENARIOS, Echo, Micro
from profiling.paths import ROOT
from profiling.results import LeftOut, Machine

OURS = [Kind.ASYNCIO, Kind.TREADLE]

ALONE = [s for s in SCENARIOS if isinstance(s, Micro) and not s.postgres]
ECHOES = [s for s in SCENARIOS if isinstance(s, Echo) and not s.tls]


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.value)
@pytest.mark.parametrize("scenario", ALONE, ids=lambda scenario: scenario.name)
def test_every_scenario_does_what_it_says(
    scenario: Micro, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOPS_KIND", kind.value)

    async def main() -> None:
        await scenario.run(1000)

    with asyncio.Runner(loop_factory=kind.factory()) as runner:
        runner.run(main())


@pytest.mark.slow
@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.value)
@pytest.mark.parametrize("scenario", ECHOES, ids=lambda scenario: scenario.name)
def test_every_echo_is_served(scenario: Echo, kind: Kind) -> None:
    place = compare._Place(Path())
    with (
        compare._served(kind, scenario, place) as (_, where),
        client.connected(scenario, where) as connections,
    ):
        count, took = client.drive(connections, scenario.size, 0.05)
    assert count >= client.CONNECTIONS
    assert took >= 0.05


@pytest.mark.slow
def test_a_worker_measures() -> None:
    count, wall, cpu = compare._measure(
        Kind.TREADLE,
        BY_NAME["sleep0"],  # type: ignore[arg-type]
        0.05,
        compare._Place(Path()),
    )
    assert count >= 1000
    assert 0 < wall < 10
    assert 0 < cpu < 10


def test_a_wrong_echo_is_noticed() -> None:
    import socket

    ours, theirs = socket.socketpair()
    with ours, theirs:

        def answer() -> None:
            theirs.recv(10)
            theirs.sendall(b"\0" * 10)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Exception, match="not what was sent"):
            client.drive([ours], 10, 1)
        thread.join()


def test_a_worker_imports_neither_the_harness_nor_another_loop() -> None:
    program = (
        "import sys, profiling.loops.worker\n"
        "print([n for n in sys.modules if n.split('.')[0] in "
        "('msgspec', 'uvloop', 'zuvloop', 'rloop', 'treadle', 'asyncpg')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[]\n"


def test_a_build_that_is_not_for_speed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from profiling.interpreters import Facts

    monkeypatch.setattr(
        compare.interpreters, "ask", lambda *_: Facts("3.14.7", False, "0.1.0", "debug")
    )
    monkeypatch.setattr(compare, "cores", lambda: [0, 1])
    from profiling.console import Console

    with pytest.raises(ComparisonError, match="treadle is a debug build here"):
        compare.compare(LoopOptions(), Console(quiet=True))


@pytest.fixture
def result() -> LoopsResult:
    made = LoopsResult(
        created="2026-11-21T12:00:00+00:00",
        commit="0123456789abcdef",
        dirty=False,
        quick=False,
        machine=Machine("cpu", 2, 8.0, "6.1", 0.1),
        python="3.14.7",
        gil=False,
        rounds=3,
        seconds=1.0,
        versions={"treadle": "0.1.0"},
        partial=None,
        left_out=[LeftOut("rloop, unix-1k", "NotImplementedError")],
    )
    rates = {"uvloop": (2.0, 4.0, 3.0), "treadle": (1.0, 2.0, 2.0)}
    for loop, values in rates.items():
        for turn, value in enumerate(values):
            made.taken.append(Taken(loop, "sleep0", turn, 1000, value, value / 2))
    for turn in range(3):
        made.taken.append(Taken("treadle", "loops-1", turn, 1000, 1.0, 1.0))
        made.taken.append(Taken("treadle", "loops-2", turn, 1000, 0.5, 1.0))
    return made


def test_ratios_are_medians_of_neighbours(result: LoopsResult) -> None:
    assert table.ratio(table.values(result, "wall_us"), "uvloop", "sleep0") == 2.0
    assert table.ratio(table.values(result, "wall_us"), "zuvloop", "sleep0") is None


def test_the_document_shows_times_ratios_scaling_and_who_is_left_out(result: LoopsResult) -> None:
    shown = table.document(result)
    assert "| `sleep(0)` switch" in shown
    assert "2.00 (2.00)" in shown
    assert "| task switching, two loops        | treadle |   >= 1.9 |     2.00 |" in shown
    assert "Left out: rloop, unix-1k: NotImplementedError." in shown


def test_a_result_of_loops_is_never_taken_for_one_of_servers(
    result: LoopsResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    compare._save(result, tmp_path / result.path().name)
    assert [path.name for path in tmp_path.iterdir()] == [
        "loops-3.14t-20261121-120000-01234567.json"
    ]
    with pytest.raises(ComparisonError, match="no complete comparison"):
        results.newest()
