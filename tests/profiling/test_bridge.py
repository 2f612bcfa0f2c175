"""`python -m profiling bridge`: what is judged, shown and saved; the measuring itself once, briefly."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from profiling import bridge, extensions
from profiling.bridge import CASES, OURS, SUBJECTS, THEIRS, Result
from profiling.results import Machine

MACHINE = Machine("a cpu", 2, 8.0, "6.1", 0.0)


def made(taken: bridge.Rounds) -> Result:
    result = Result("2026-11-21T12:00:00", "abcdef0123", False, True, MACHINE, "3.14.7", False, 2)
    result.timings = [
        bridge.Timing(subject, case, values[0], values) for (subject, case), values in taken.items()
    ]
    result.verdicts = list(bridge._judge(taken))
    return result


def rounds(ours: float, theirs: float) -> bridge.Rounds:
    taken: bridge.Rounds = {(OURS.name, case): [ours, ours] for case in CASES}
    taken[OURS.name, "bare"] = taken[OURS.name, "turn"] = [0.1, 0.1]
    taken[OURS.name, "kernel"] = [0.001, 0.001]
    taken |= {(THEIRS.name, case): [theirs, theirs] for case in ("thread", "threads")}
    return taken


@pytest.mark.parametrize(("ours", "theirs", "reached"), [(0.55, 3.0, True), (6.0, 20.0, False)])
def test_the_promises_are_judged(ours: float, theirs: float, reached: bool) -> None:
    verdicts = made(rounds(ours, theirs)).verdicts
    assert len(verdicts) == 7
    assert {verdict.reached for verdict in verdicts} == {reached}
    assert verdicts[0].measured == pytest.approx(ours - 0.1)
    assert verdicts[-1].measured == pytest.approx(theirs / ours)


def test_the_report_shows_every_subject_and_promise() -> None:
    text = bridge.report(made(rounds(0.5, 3.0)))
    for subject in SUBJECTS:
        assert subject.name in text
    assert CASES["threads"] in text
    assert "without the GIL" in text
    assert text.count("pass") == 7


def test_a_result_is_saved(tmp_path: Path) -> None:
    result = made(rounds(0.5, 3.0))
    path = bridge.save(result, tmp_path / "some" / "result.json")
    assert msgspec.json.decode(path.read_bytes(), type=Result) == result


@pytest.mark.slow
@pytest.mark.timeout(extensions.BUILDING)
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_subject_can_be_measured(subject: bridge.Subject) -> None:
    library = extensions.build(subject.extension)
    found = bridge._work(subject, library, quick=True)
    assert found.keys() <= CASES.keys()
    assert {"bare", "turn", "call", "thread", "threads"} <= found.keys()
    assert all(value > 0 for value in found.values())
    json.dumps(found)
