"""CPython's own tests of asyncio, run on Treadle's loop; see `suite`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from conformance import suite
from conformance.suite import Outcome, Report

pytestmark = pytest.mark.slow

Started = Callable[[str], Report]

supported = pytest.mark.skipif(
    sys.version_info < (3, 14) or not suite.modules(),
    reason="runs where CPython is 3.14 or later, and brings its own tests",
)


@pytest.fixture(scope="session")
def started(request: pytest.FixtureRequest) -> Iterator[Started]:
    """`started(module)` is its report. All modules that were asked for run side by side."""
    wanted = {
        item.callspec.params["module"]
        for item in request.session.items
        if isinstance(item, pytest.Function)
        and item.originalname == test_a_module_of_cpythons_passes.__name__
    }
    with ThreadPoolExecutor(os.process_cpu_count() or 1) as pool:
        reports: dict[str, Future[Report]] = {
            module: pool.submit(suite.run, module) for module in suite.modules() if module in wanted
        }
        try:
            yield lambda module: reports[module].result()
        finally:
            pool.shutdown(cancel_futures=True)


@supported
@pytest.mark.timeout(290)
@pytest.mark.parametrize("module", suite.modules())
def test_a_module_of_cpythons_passes(module: str, started: Started) -> None:
    report = started(module)
    suite.try_again(report)
    if complaints := suite.complaints(report):
        pytest.fail("\n\n".join(complaints), pytrace=False)


@supported
def test_under_two_percent_of_the_tests_are_left_out() -> None:
    assert len(suite.left_out()) < 0.02 * 2600  # what 3.14 has


# -- the harness itself ---------------------------------------------------------------------------


def test_every_way_to_a_loop_leads_to_ours() -> None:
    program = """
import asyncio, selectors, unittest, worker
worker.install()
import treadle

class Case(unittest.IsolatedAsyncioTestCase):
    async def test(self):
        made.append(asyncio.get_running_loop())

async def running():
    return asyncio.get_running_loop()

made = [
    asyncio.new_event_loop(), asyncio.EventLoop(), asyncio.SelectorEventLoop(),
    asyncio.SelectorEventLoop(selectors.PollSelector()), asyncio.run(running()),
    asyncio.unix_events.SelectorEventLoop(),
]
with asyncio.Runner() as runner:
    made.append(runner.run(running()))
unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(Case))
for loop in made:
    loop.close()
print(len(made), all(isinstance(loop, treadle.EventLoop) for loop in made))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=Path(suite.__file__).parent,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "8 True\n", done.stderr


def test_failures_skips_and_deaths_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "test_it.py").write_text("""
import os, unittest

class Tests(unittest.TestCase):
    def test_a_death(self): os._exit(3)
    def test_failure(self): self.fail("words")
    def test_error(self): 1 / 0
    def test_pass(self): pass
    @unittest.skip("no reason")
    def test_skip(self): pass
    def test_subtests(self):
        for n in range(3):
            with self.subTest(n=n): self.assertNotEqual(n, 1)
    @unittest.expectedFailure
    def test_unexpected(self): pass

class Unset(unittest.TestCase):
    @classmethod
    def setUpClass(cls): raise OSError("cannot")
    def test(self): pass
""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = suite.run("test_it", package="made_up")
    states = {
        test.rpartition("test_it.")[2]: report.outcomes[test].state for test in report.outcomes
    }
    assert states == {
        "Tests.test_a_death": "failed",
        "Tests.test_error": "failed",
        "Tests.test_failure": "failed",
        "Tests.test_pass": "passed",
        "Tests.test_skip": "skipped",
        "Tests.test_subtests": "failed",
        "Tests.test_unexpected": "failed",
        "Unset)": "failed",
    }
    assert "words" in report.outcomes["test_it.Tests.test_failure"].text
    assert "ended with 3" in report.outcomes["test_it.Tests.test_a_death"].text


def test_a_failure_that_is_not_listed_and_a_listed_pass_are_complaints(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = {"test_m.T.listed": "why", "test_m.T.passes": "why", "test_m.T.gone": "why"}
    monkeypatch.setattr(suite, "left_out", lambda: {**listed, "test_other.T.x": "why"})
    report = Report("test_m")
    for name, state in [
        ("listed", "failed"),
        ("passes", "passed"),
        ("fails", "failed"),
        ("stock", "failed"),
        ("fine", "passed"),
        ("skipped", "skipped"),
    ]:
        report.outcomes[f"test_m.T.{name}"] = Outcome(f"test_m.T.{name}", state, "text")
    report.stock = ["test_m.T.stock"]
    assert suite.complaints(report) == [
        "test_m.T.fails failed\ntext",
        "test_m.T.gone stands in left_out.toml, and there is no such test",
        "test_m.T.passes passes: take it from left_out.toml",
    ]


def test_a_module_without_a_test_to_run_is_a_complaint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "test_it.py").write_text("raise ValueError('at import')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = suite.run("test_it", package="made_up")
    assert "before any test began" in report.given_up
    assert "at import" in report.given_up
    assert suite.complaints(report) == [report.given_up]


@pytest.mark.timeout(60)
def test_a_module_whose_processes_keep_dying_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "test_it.py").write_text("""
import os, unittest

class Tests(unittest.TestCase):
    pass

for number in range(20):
    setattr(Tests, f"test_{number:02}", lambda self: os._exit(1))
""")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = suite.run("test_it", package="made_up")
    assert len(report.failed()) == suite.DEATHS
    said = suite.complaints(report)
    assert said[0] == f"test_it: {suite.DEATHS} processes died, and the rest was not run"
    assert len(said) == 1 + suite.DEATHS


def test_a_listed_test_that_hangs_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / "test_it.py").write_text("""
import os, unittest

class Tests(unittest.TestCase):
    def test_hangs(self): os._exit(1)
    def test_passes(self): pass
""")
    (tmp_path / "left_out.toml").write_text("""
[[group]]
reason = "why"
since = [3, 12]
hangs = true
tests = ["test_it.Tests.test_hangs"]

[[group]]
reason = "of a later CPython"
since = [4, 0]
tests = ["test_it.Tests.test_gone"]
""")
    monkeypatch.setattr(suite, "LEFT_OUT", tmp_path / "left_out.toml")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    report = suite.run("test_it", package="made_up")
    assert report.outcomes.keys() == {"test_it.Tests.test_passes"}
    assert suite.complaints(report) == []
