"""`python -m profiling bridge`: what it costs to cross between coroutines and Rust futures.

Treadle's bridge beside pyo3-async-runtimes, each used by an extension of its own (tests/bridge/probe,
tests/interop), on the interpreter that runs this. Every subject is measured in a process of its own,
one after the other in each round, in every second round the other way about; medians are quoted.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from profiling import extensions, interpreters, machine
from profiling.console import Console
from profiling.errors import ComparisonError
from profiling.paths import RESULTS, ROOT
from profiling.report import table
from profiling.results import Machine
from profiling.statistics import median, paired_ratio, spread

FORMAT = 1
_FOLDER = RESULTS / "bridge"


@dataclass(frozen=True, slots=True)
class Subject:
    """A bridge on a loop."""

    name: str
    extension: str
    loop: str


OURS = Subject("treadle on a lane", "probe", "lane")
OURS_ELSEWHERE = Subject("treadle on asyncio", "probe", "asyncio")
THEIRS = Subject("pyo3-async-runtimes on asyncio", "interop", "asyncio")
THEIRS_ON_A_LANE = Subject("pyo3-async-runtimes on a lane", "interop", "lane")
SUBJECTS = (OURS, THEIRS, THEIRS_ON_A_LANE, OURS_ELSEWHERE)

CASES = {
    "bare": "`await` of a coroutine that returns",
    "ready": "`await` of a Rust future that is ready",
    "turn": "`await asyncio.sleep(0)`",
    "suspended": "`await` of a Rust future that suspends once",
    "call": "coroutine to Rust future to coroutine",
    "thread": "`await` of a Rust future on a Tokio thread, one at a time",
    "threads": "the same, 64 at a time, each",
    "kernel": "two sleeping threads that wake each other: the kernel's share",
    "from thread": "coroutine for a Rust thread, one at a time",
}
"""What a worker measures, by its name; not every extension has all."""


class Timing(msgspec.Struct, frozen=True):
    """One case of one subject."""

    subject: str
    case: str
    microseconds: float
    rounds: list[float]


class Verdict(msgspec.Struct, frozen=True):
    """A promise, measured."""

    text: str
    target: str
    measured: float
    reached: bool


class Result(msgspec.Struct):
    """One run of `bridge`."""

    created: str
    commit: str
    dirty: bool
    quick: bool
    machine: Machine
    python: str
    gil: bool
    rounds: int
    format: int = FORMAT
    timings: list[Timing] = msgspec.field(default_factory=list)
    verdicts: list[Verdict] = msgspec.field(default_factory=list)


Rounds = dict[tuple[str, str], list[float]]


def measure(rounds: int, quick: bool, console: Console) -> Result:
    """Measure every subject; raises ComparisonError when a worker fails."""
    libraries = {}
    for name in extensions.CRATES:
        console.say(f"building {name} in release")
        libraries[name] = extensions.build(name, release=True)
    facts = interpreters.ask(Path(sys.executable))
    result = Result(
        created=machine.now(),
        commit=machine.commit(),
        dirty=machine.dirty(),
        quick=quick,
        machine=machine.describe(),
        python=facts.version,
        gil=facts.gil,
        rounds=rounds,
    )
    taken: Rounds = {}
    for turn in range(rounds):
        for subject in SUBJECTS if turn % 2 == 0 else reversed(SUBJECTS):
            for case, value in _work(subject, libraries[subject.extension], quick).items():
                taken.setdefault((subject.name, case), []).append(value)
        console.say(f"round {turn + 1}/{rounds} done")
    result.timings = [
        Timing(subject, case, median(values), values) for (subject, case), values in taken.items()
    ]
    result.verdicts = list(_judge(taken))
    return result


def _work(subject: Subject, library: Path, quick: bool) -> Mapping[str, float]:
    command = [sys.executable, "-m", "profiling.bridge_worker", subject.extension, str(library)]
    command += [subject.loop, *(["--quick"] if quick else [])]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=interpreters.clean_environment({"PYTHONPATH": os.environ.get("PYTHONPATH", "")}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ComparisonError(f"{subject.name} failed:\n{done.stderr}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _judge(taken: Rounds) -> Sequence[Verdict]:
    def of(subject: Subject, case: str) -> list[float]:
        return taken[subject.name, case]

    ready = median(_over(of(OURS, "ready"), of(OURS, "bare")))
    suspended = median(_over(of(OURS, "suspended"), of(OURS, "turn")))
    one = median(of(OURS, "thread"))
    beyond = median(_over(of(OURS, "thread"), of(OURS, "kernel")))
    many = median(of(OURS, "threads"))
    faster = paired_ratio(of(THEIRS, "thread"), of(OURS, "thread"))
    faster_many = paired_ratio(of(THEIRS, "threads"), of(OURS, "threads"))
    return [
        Verdict("ready, same lane, over a bare await", "<= 0.5 us", ready, ready <= 0.5),
        Verdict(
            "suspended once, same lane, over sleep(0)", "<= 0.5 us", suspended, suspended <= 0.5
        ),
        Verdict("other thread, round trip, one at a time", "<= 5 us", one, one <= 5),
        Verdict("the same over the kernel's share", "<= 5 us", beyond, beyond <= 5),
        Verdict("other thread, round trip, 64 at a time", "<= 5 us", many, many <= 5),
        Verdict("pyo3-async-runtimes to treadle, one at a time", ">= 5", faster, faster >= 5),
        Verdict(
            "pyo3-async-runtimes to treadle, 64 at a time", ">= 5", faster_many, faster_many >= 5
        ),
    ]


def _over(values: Sequence[float], bases: Sequence[float]) -> list[float]:
    return [value - base for value, base in zip(values, bases, strict=True)]


def report(result: Result) -> str:
    """The tables, as Markdown."""
    known = {(timing.subject, timing.case): timing for timing in result.timings}
    subjects = [subject.name for subject in SUBJECTS]
    rows = [
        [text, *(_cell(known.get((subject, case))) for subject in subjects)]
        for case, text in CASES.items()
        if any((subject, case) in known for subject in subjects)
    ]
    verdicts = [
        [v.text, v.target, f"{v.measured:.2f}", "pass" if v.reached else "miss"]
        for v in result.verdicts
    ]
    gil = "with" if result.gil else "without"
    head = (
        f"Microseconds, median of {result.rounds} rounds (spread), CPython {result.python} {gil} "
    )
    return (
        f"{head}the GIL, {result.machine.cores} cores:\n\n"
        + table(["what", *subjects], rows, left=1)
        + "\n\n"
        + table(["promise", "to reach", "measured", ""], verdicts, left=1)
        + "\n"
    )


def _cell(timing: Timing | None) -> str:
    if timing is None:
        return "-"
    return f"{timing.microseconds:.2f} ({spread(timing.rounds):.0%})"


def save(result: Result, path: Path | None) -> Path:
    """Write the result to `path`, or where results of this kind go; returns where."""
    moment = result.created[:19].replace(":", "").replace("-", "").replace("T", "-")
    side = "gil" if result.gil else "free-threaded"
    name = f"{moment}-{result.commit[:8]}-{side}{'-quick' if result.quick else ''}.json"
    path = path or _FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path
