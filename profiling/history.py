"""`python -m profiling history`: how the ratios moved from result to result, and what got worse.

Reads every file in results/ that has verdicts, of whatever kind. Results of different machines are
not compared; quick, partial and debug ones not at all.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from math import hypot
from pathlib import Path

import msgspec

from profiling import html, lines, results
from profiling.console import Console
from profiling.errors import ComparisonError
from profiling.files import write
from profiling.paths import RESULTS
from profiling.ratios import ROWS, Ceiling
from profiling.report import table
from profiling.results import Machine, Verdict
from profiling.statistics import deviation, median
from treadle.profile.html import Axis, Line, Lines, Metric, Page, Point, Table

_BEFORE = 3
"""A value is compared with the median of so many before it."""
_SIGMAS = 3.0
_TO_SIGMA = 1.4826
"""A normal distribution's standard deviation, in median absolute deviations."""
_LEAST = 0.02
"""Nothing below this part of a value counts as a change, however alike the rounds were."""
_TREADLE = "treadle"


class _Build(msgspec.Struct):
    python: str | None = None
    interpreter: str | None = None
    product: str = _TREADLE
    build_profile: str | None = None
    profile: str | None = None


class _Result(msgspec.Struct):
    """What every kind of result has, as far as it has it."""

    created: str | None = None
    commit: str | None = None
    quick: bool = False
    partial: str | None = None
    machine: Machine | None = None
    servers: list[_Build] = []
    builds: list[_Build] = []
    verdicts: list[Verdict] = []


class Change(Enum):
    """What became of a value since those before it; the value is the word in tables."""

    FIRST = "first"
    STEADY = "steady"
    BETTER = "better"
    REGRESSION = "regression"


@dataclass(frozen=True, slots=True)
class Value:
    """A ratio in one result."""

    created: str
    commit: str
    measured: float
    noise: float
    """The median absolute deviation of its rounds."""
    change: Change


@dataclass(frozen=True, slots=True)
class Series:
    """One ratio on one interpreter and machine, oldest first."""

    row: str
    interpreter: str
    machine: str
    values: list[Value]


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Tell the command line about `history`."""
    parser = commands.add_parser("history", help="how the ratios moved, and what got worse")
    parser.add_argument("files", nargs="*", type=Path, help="results (default: all in results/)")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it, as SVG")
    parser.add_argument("--html", type=Path, metavar="FILE", help="draw it, as one HTML page")
    parser.add_argument("--strict", action="store_true", help="fail when the newest got worse")
    parser.set_defaults(run=_main)


def _main(words: argparse.Namespace) -> None:
    series = collect(words.files or sorted(RESULTS.glob("*.json")), Console())
    print(report(series), end="")
    if words.chart:
        remark = "A ring is a regression beyond the noise of the rounds."
        write(words.chart, lines.draw("The ratios over time", charts(series), remark))
    if words.html:
        write(words.html, html.render(page(series)))
    worse = [one for one in series if one.values[-1].change is Change.REGRESSION]
    if words.strict and worse:
        names = ", ".join(f"{one.row} {one.interpreter}" for one in worse)
        raise ComparisonError(f"Worse than before, beyond noise: {names}.")


def collect(files: Iterable[Path], console: Console) -> list[Series]:
    """The ratios of all files that can be compared; the others are named on the console.

    Raises ComparisonError when none can be.
    """
    usable: list[_Result] = []
    for file in files:
        try:
            result = msgspec.json.decode(file.read_bytes(), type=_Result)
        except OSError as error:
            raise ComparisonError(f"{file} cannot be read: {error.strerror}.") from error
        except msgspec.DecodeError as error:
            raise ComparisonError(f"{file} is no result: {error}.") from error
        reason = _unfit(result)
        if reason:
            console.say(f"{file.name} is left out: {reason}")
        else:
            usable.append(result)
    found = _series(usable)
    if not found:
        raise ComparisonError("There is no complete result of a release build to show.")
    return found


def _unfit(result: _Result) -> str | None:
    """Why a result is not to be compared."""
    builds = [b for b in (*result.servers, *result.builds) if b.product == _TREADLE]
    profiles = [b.build_profile or b.profile for b in builds]
    if result.quick:
        return "it is a quick one"
    if result.partial:
        return f"it is partial ({result.partial})"
    if not result.verdicts:
        return "it has no ratios"
    if not (result.created and result.commit and result.machine):
        return "it does not name its commit and machine"
    if not builds or not all(profiles) or not all(b.python and b.interpreter for b in builds):
        return "it does not name its interpreters and build profiles"
    if "debug" in profiles:
        return "it is of a debug build"
    return None


def _series(usable: Sequence[_Result]) -> list[Series]:
    grouped: dict[tuple[str, str, str], list[tuple[_Result, Verdict]]] = {}
    for result in sorted(usable, key=lambda one: one.created or ""):
        assert result.machine is not None, "left out by _unfit"
        machine = f"{result.machine.cpu}, {result.machine.cores} cores"
        for verdict in result.verdicts:
            key = (verdict.row, verdict.interpreter, machine)
            grouped.setdefault(key, []).append((result, verdict))
    order = {row.name: number for number, row in enumerate(ROWS)}
    keys = sorted(grouped, key=lambda key: order.get(key[0], len(order)))
    return [Series(*key, _values(key[0], grouped[key])) for key in keys]


def _values(row: str, taken: Sequence[tuple[_Result, Verdict]]) -> list[Value]:
    values: list[Value] = []
    for result, verdict in taken:
        noise = deviation(verdict.rounds) if verdict.rounds else 0.0
        change = _change(row, values[-_BEFORE:], verdict.measured, noise)
        created, commit = result.created or "", result.commit or ""
        values.append(Value(created, commit, verdict.measured, noise, change))
    return values


def _change(row: str, before: Sequence[Value], measured: float, noise: float) -> Change:
    if not before:
        return Change.FIRST
    usual = median([value.measured for value in before])
    usual_noise = median([value.noise for value in before])
    beyond = max(_SIGMAS * _TO_SIGMA * hypot(noise, usual_noise), _LEAST * abs(usual))
    difference = measured - usual
    if abs(difference) <= beyond:
        return Change.STEADY
    return Change.BETTER if (difference > 0) == _more_is_better(row) else Change.REGRESSION


def _more_is_better(row: str) -> bool:
    return not any(known.name == row and isinstance(known, Ceiling) for known in ROWS)


def _text_of(row: str) -> str:
    return next((known.text for known in ROWS if known.name == row), row)


def report(series: Sequence[Series]) -> str:
    """Every ratio's way, as Markdown."""
    head, rows = _rows(series)
    worse = sum(value.change is Change.REGRESSION for one in series for value in one.values[-1:])
    said = f"{worse} of {len(series)} ratios are worse than before, beyond noise."
    return f"{table(head, rows, left=1)}\n\n{said}\n"


def _rows(series: Sequence[Series]) -> tuple[list[str], list[list[str]]]:
    head = ["ratio", "Python", "results", "before", "now", "noise", "change"]
    rows = []
    for one in series:
        now = one.values[-1]
        before = [value.measured for value in one.values[:-1][-_BEFORE:]]
        rows.append(
            [
                _text_of(one.row).replace("`", ""),
                one.interpreter,
                str(len(one.values)),
                f"{median(before):.3f}" if before else "-",
                f"{now.measured:.3f}",
                f"{now.noise:.3f}",
                now.change.value,
            ]
        )
    return head, rows


def charts(series: Sequence[Series]) -> list[Lines]:
    """A chart for every ratio, its interpreters and machines in it."""
    moments = sorted({(v.created, v.commit) for one in series for v in one.values})
    names = [f"{created[5:10]} {commit[:7]}" for created, commit in moments]
    several = len({one.machine for one in series}) > 1
    found = []
    for row in dict.fromkeys(one.row for one in series):
        drawn = [
            Line(
                f"{one.interpreter}, {one.machine}" if several else one.interpreter,
                [
                    Point(
                        moments.index((value.created, value.commit)),
                        [value.measured],
                        value.measured - value.noise,
                        value.measured + value.noise,
                        "regression" if value.change is Change.REGRESSION else "",
                    )
                    for value in one.values
                ],
            )
            for one in series
            if one.row == row
        ]
        metric = Metric("measured", "", 3, _more_is_better(row), from_zero=False)
        found.append(
            Lines(_text_of(row).replace("`", ""), Axis("result", names=names), [metric], drawn)
        )
    return found


def page(series: Sequence[Series]) -> Page:
    """The history as a page."""
    head, rows = _rows(series)
    return Page(
        title="Treadle's ratios over time",
        facts=sorted({one.machine for one in series}),
        warnings=[
            f"{_text_of(one.row)} on {one.interpreter} got worse, beyond noise."
            for one in series
            if one.values[-1].change is Change.REGRESSION
        ],
        sections=[Table("Every ratio", head, rows, left=2), *charts(series)],
        notes=[
            f"Noise is the median absolute deviation of the rounds. A change counts beyond "
            f"{_SIGMAS:g} standard deviations of both sides and {_LEAST:.0%} of the value."
        ],
    )


def beside(result: results.Result) -> list[Series]:
    """The history up to a result and on its machine; empty unless there is more than that one."""
    quiet = Console(quiet=True)
    files = [file for file in sorted(RESULTS.glob("*.json")) if _no_later(file, result)]
    machine = f"{result.machine.cpu}, {result.machine.cores} cores"
    try:
        found = [one for one in collect(files, quiet) if one.machine == machine]
    except ComparisonError:
        return []
    return found if any(len(one.values) > 1 for one in found) else []


def _no_later(file: Path, result: results.Result) -> bool:
    try:
        other = msgspec.json.decode(file.read_bytes(), type=_Result)
    except (OSError, msgspec.DecodeError):
        return False
    return bool(other.created) and (other.created or "") <= result.created
