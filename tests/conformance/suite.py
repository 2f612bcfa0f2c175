"""CPython's `test.test_asyncio` on Treadle's loop, module by module, each in processes of its own.

    python tests/conformance/suite.py [--stock] [-j JOBS] [MODULE | TEST ...]

says what does not pass. A test whose process dies or hangs has failed, and a new process goes on
with the rest. What fails is tried once more, alone on the machine as far as this program decides:
many of those tests take time limits. `left_out.toml` lists the tests that are known to fail here,
each with its reason; one that passes nevertheless is a failure of the list.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
LEFT_OUT = HERE / "left_out.toml"
PACKAGE = "test.test_asyncio"
PROCESS_TIMEOUT = 200.0
"""Seconds a process may take; a single test has `worker.TEST_TIMEOUT`."""

DEATHS = 5
"""So many processes of a module may die; then the rest of its tests is given up."""

ELSEWHERE = ("test_proactor_events", "test_windows_events", "test_windows_utils")
"""Modules of Windows, without a test to run here."""

LONGEST = ("test_events", "test_tasks", "test_ssl", "test_subprocess", "test_sendfile")
"""Modules to begin with, so that none of these is left alone at the end."""


@dataclass
class Outcome:
    """What became of one test: "passed", "failed" or "skipped", and the words that go with it."""

    test: str
    state: str
    text: str = ""


@dataclass
class Report:
    """What became of a module's tests, by name, and what its processes wrote."""

    module: str
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    second_try: list[str] = field(default_factory=list)
    """Tests that failed, and passed when they were tried again."""
    stock: list[str] = field(default_factory=list)
    """Tests that fail on asyncio's own loop as well, here and now."""
    given_up: str = ""
    """Why the rest of the module was not run; empty where all of it was."""

    def failed(self) -> set[str]:
        return {test for test, outcome in self.outcomes.items() if outcome.state == "failed"}


def modules() -> list[str]:
    """The modules of the package in this interpreter, the longest first; none where it has none."""
    if find_spec("test") is None or find_spec(PACKAGE) is None:
        return []
    (folder,) = find_spec(PACKAGE).submodule_search_locations  # type: ignore[union-attr, misc]
    found = {path.stem for path in Path(folder).glob("test_*.py")}.difference(ELSEWHERE)
    return sorted(found, key=lambda name: (name not in LONGEST, name))


def _groups() -> list[dict[str, Any]]:
    listed = tomllib.loads(LEFT_OUT.read_text())
    return [
        group
        for group in listed.get("group", [])
        if sys.version_info[:2] >= tuple(group.get("since", (3, 14)))
    ]


def left_out() -> dict[str, str]:
    """The reason for each test that is left out in this interpreter."""
    return {test: group["reason"] for group in _groups() for test in group["tests"]}


def hanging() -> set[str]:
    """Those of them that are not even run, because they would never end."""
    return {test for group in _groups() if group.get("hangs") for test in group["tests"]}


# -- running --------------------------------------------------------------------------------------


def run(
    module: str, only: list[str] | None = None, *, package: str = PACKAGE, stock: bool = False
) -> Report:
    """Runs a module's tests, or `only` those of some patterns, until each has an outcome.

    `stock` takes asyncio's own loop.
    """
    report = Report(module)
    for _ in range(DEATHS):
        order = {
            "package": package,
            "module": module,
            "only": only,
            "not": sorted(report.outcomes.keys() | hanging()),
            "stock": stock,
        }
        begun, text = _process(order, report)
        if text is None:
            return report
        if begun is None:
            report.given_up = f"{module}: before any test began, {text}"
            return report
        report.outcomes[begun] = Outcome(begun, "failed", text)
    report.given_up = f"{module}: {DEATHS} processes died, and the rest was not run"
    return report


def _process(order: dict[str, Any], report: Report) -> tuple[str | None, str | None]:
    """One process: the test it was in, and how it died; no text where it came to its end."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as output:
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [sys.executable, HERE / "worker.py", str(writing), json.dumps(order)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=[writing],
            cwd=folder,
        )
        os.close(writing)
        watchdog = threading.Timer(PROCESS_TIMEOUT, process.kill)
        watchdog.start()
        try:
            with os.fdopen(reading) as events:
                begun, finished = _follow(events, report)
            process.wait()
        finally:
            watchdog.cancel()
            process.kill()
        if finished and process.returncode == 0:
            return None, None
        output.seek(0)
        written = output.read().decode(errors="replace")[-6000:]
        return begun, f"the process ended with {process.returncode}\n{written}"


def _follow(events: IO[str], report: Report) -> tuple[str | None, bool]:
    """Takes down what a worker tells, up to its end: the last test begun, and whether all ended."""
    begun, finished = None, False
    for line in events:
        match json.loads(line):
            case ["begin", test]:
                begun = test
            case ["end", test, state, text]:
                report.outcomes[test] = Outcome(test, state, text)
            case ["done"]:
                finished = True
    return begun, finished


def run_all(wanted: list[str], only: list[str] | None, jobs: int, *, stock: bool) -> list[Report]:
    """Runs modules side by side."""
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda module: run(module, only, stock=stock), wanted))


def try_again(report: Report, *, stock: bool = False) -> None:
    """Runs what failed and is not left out again, and what fails then on asyncio's own loop."""
    again = sorted(report.failed() - left_out().keys())
    if not again or report.given_up:
        return
    second = run(report.module, again, stock=stock)
    report.outcomes.update(second.outcomes)
    report.second_try = sorted(set(again) - second.failed())
    if second.failed() and not stock:
        report.stock = sorted(run(report.module, sorted(second.failed()), stock=True).failed())


def complaints(report: Report, *, whole: bool = True) -> list[str]:
    """What is wrong with a module's outcome, in words; nothing is the aim.

    `whole`: all of the module's tests have run, so that what is listed must be among them.
    """
    listed = {test for test in left_out() if test.startswith(report.module + ".")}
    failed = report.failed()
    said = [report.given_up] if report.given_up else []
    said += [
        f"{test} failed\n{report.outcomes[test].text}"
        for test in sorted(failed - listed - set(report.stock))
    ]
    for test in sorted(listed):
        outcome = report.outcomes.get(test)
        if outcome is not None and outcome.state == "passed":
            said.append(f"{test} passes: take it from left_out.toml")
        if outcome is None and whole and not report.given_up and test not in hanging():
            said.append(f"{test} stands in left_out.toml, and there is no such test")
    return said


# -- by hand --------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="CPython's asyncio tests on Treadle's loop.")
    parser.add_argument("tests", nargs="*", metavar="MODULE|TEST", help="patterns of tests too")
    parser.add_argument("--stock", action="store_true", help="on asyncio's own loop")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--once", action="store_true", help="no second try for what fails")
    parser.add_argument("--json", type=Path, help="where to write every outcome")
    options = parser.parse_args()
    named = {test.split(".")[0] for test in options.tests} or set(modules())
    wanted = [module for module in modules() if module in named]
    patterns = [test for test in options.tests if "." in test] or None
    reports = run_all(wanted, patterns, options.jobs, stock=options.stock)
    every: dict[str, list[str]] = {}
    said: list[str] = []
    for report in reports:
        if not options.once:
            try_again(report, stock=options.stock)
        said += complaints(report, whole=patterns is None)
        said += [f"{test} passed at the second try" for test in report.second_try]
        said += [f"{test} fails on asyncio's own loop as well" for test in report.stock]
        for outcome in report.outcomes.values():
            every[outcome.test] = [outcome.state, outcome.text]
    if options.json:
        options.json.write_text(json.dumps(every, indent=1))
    sys.stdout.write("\n".join([*said, ""]))
    for state in ("passed", "skipped", "failed"):
        count = sum(outcome[0] == state for outcome in every.values())
        sys.stdout.write(f"{count} {state}\n")
    return bool(said)


if __name__ == "__main__":
    sys.exit(main())
