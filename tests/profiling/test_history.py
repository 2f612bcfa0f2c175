from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from profiling import history, lines
from profiling.__main__ import main
from profiling.console import Console
from profiling.errors import ComparisonError
from profiling.history import Change
from profiling.results import Result, Verdict


@pytest.fixture
def write(result: Result, tmp_path: Path) -> Any:
    """`write(day, row=[rounds], ...)` is a file of a result with these verdicts."""

    def make(day: int, *, change: dict[str, Any] | None = None, **rows: list[float]) -> Path:
        result.created = f"2026-11-{day:02}T10:00:00+00:00"
        result.partial = None
        result.verdicts = [
            Verdict(row.replace("_", "-"), "3.14t", sorted(r)[len(r) // 2], r, None, True)
            for row, r in rows.items()
        ]
        file = tmp_path / f"{day}.json"
        fields = msgspec.to_builtins(result) | (change or {})
        file.write_text(json.dumps(fields))
        return file

    return make


def collect(*files: Path) -> list[history.Series]:
    return history.collect(files, Console(quiet=True))


def changes(series: history.Series) -> list[Change]:
    return [value.change for value in series.values]


def test_what_falls_beyond_the_noise_of_its_rounds_is_a_regression(write: Any) -> None:
    days = [write(day, async_to_sync=[0.96, 0.97, 0.98]) for day in (1, 2, 3)]
    (one,) = collect(*days, write(4, async_to_sync=[0.79, 0.80, 0.81]))
    assert changes(one) == [Change.FIRST, Change.STEADY, Change.STEADY, Change.REGRESSION]


def test_the_same_fall_within_the_noise_is_none(write: Any) -> None:
    days = [write(day, async_to_sync=[0.80, 0.97, 1.15]) for day in (1, 2, 3)]
    (one,) = collect(*days, write(4, async_to_sync=[0.60, 0.80, 1.0]))
    assert changes(one)[-1] is Change.STEADY


def test_of_a_ceiling_more_is_worse(write: Any) -> None:
    (one,) = collect(write(1, memory=[2.0, 2.0, 2.0]), write(2, memory=[4.0, 4.0, 4.0]))
    assert changes(one)[-1] is Change.REGRESSION
    (one,) = collect(write(1, memory=[4.0, 4.0, 4.0]), write(2, memory=[2.0, 2.0, 2.0]))
    assert changes(one)[-1] is Change.BETTER


def test_rounds_that_agree_to_the_last_digit_do_not_make_a_hair_a_change(write: Any) -> None:
    (one,) = collect(write(1, lanes=[1.9, 1.9, 1.9]), write(2, lanes=[1.89, 1.89, 1.89]))
    assert changes(one)[-1] is Change.STEADY


def test_another_machine_is_another_series(write: Any) -> None:
    other = {"machine": {"cpu": "b", "cores": 8, "memory_gib": 1, "kernel": "6", "load_before": 0}}
    both = collect(write(1, lanes=[1.9]), write(2, change=other, lanes=[1.2]))
    assert [changes(one) for one in both] == [[Change.FIRST], [Change.FIRST]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quick": True}, "it is a quick one"),
        ({"partial": "interrupted"}, "it is partial (interrupted)"),
        ({"commit": None}, "does not name its commit"),
        ({"servers": []}, "does not name its interpreters and build profiles"),
        (
            {
                "servers": [
                    {
                        "product": "treadle",
                        "interpreter": "3.14t",
                        "python": "3.14.7",
                        "build_profile": "debug",
                    }
                ]
            },
            "it is of a debug build",
        ),
    ],
)
def test_what_cannot_be_compared_is_left_out_with_its_reason(
    write: Any, change: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(1, change=change, lanes=[1.9])
    with pytest.raises(ComparisonError, match="no complete result of a release build"):
        history.collect([file], Console())
    assert said in capsys.readouterr().err


def test_the_command_prints_draws_and_can_be_strict(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(write(1, lanes=[1.9, 1.9, 1.9])), str(write(2, lanes=[1.2, 1.2, 1.2]))]
    drawn = [str(tmp_path / "trend.svg"), str(tmp_path / "trend.html")]
    assert main(["history", *files, "--chart", drawn[0], "--html", drawn[1]]) == 0
    printed = capsys.readouterr().out
    assert "regression" in printed
    assert "1 of 1 ratios are worse than before" in printed
    assert "<svg" in Path(drawn[0]).read_text()
    assert "got worse, beyond noise" in Path(drawn[1]).read_text()
    assert main(["history", *files, "--strict"]) == 1
    assert "Worse than before, beyond noise: lanes 3.14t" in capsys.readouterr().err


def test_the_charts_mark_what_got_worse(write: Any) -> None:
    series = collect(write(1, lanes=[1.9, 1.9, 1.9]), write(2, lanes=[1.2, 1.2, 1.2]))
    (chart,) = history.charts(series)
    assert [point.mark for point in chart.lines[0].points] == ["", "regression"]
    assert 'class="mark"' in lines.draw("Trend", [chart], "")


def test_a_page_that_cannot_be_written_is_one_sentence(
    write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(write(1, lanes=[1.9]))
    assert main(["history", file, "--html", str(tmp_path / "none" / "x.html")]) == 1
    assert "cannot be written: No such file" in capsys.readouterr().err
