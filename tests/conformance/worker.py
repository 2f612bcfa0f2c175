"""Runs tests of CPython's `test.test_asyncio` in this process, on Treadle's loop.

    python worker.py REPORT ORDER

ORDER is a JSON object: "package" and "module" name the tests, "stock" leaves asyncio's own loop in
place, "only" are patterns of the tests to run (null: all), "not" names of those not to run. REPORT
is a descriptor to which a JSON list is written for each event, a line each: `["begin", test]`,
`["end", test, outcome, text]` with the outcome "passed", "failed" or "skipped", and `["done"]`.
Names of tests are unittest's without the package's.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import json
import os
import selectors
import signal
import sys
import unittest
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any, TextIO

TEST_TIMEOUT = 30.0
"""Seconds a test may take before its process is ended, with the stacks on stderr."""


def install() -> None:
    """Puts Treadle's loop wherever asyncio makes or names its own."""
    import treadle

    class EventLoop(treadle.EventLoop):
        """Takes a selector, as asyncio's does, and has no use for it."""

        def __init__(self, selector: selectors.BaseSelector | None = None) -> None:
            if selector is not None:
                selector.close()
            super().__init__()

    unix: Any = asyncio.unix_events
    for namespace in (asyncio, unix):
        namespace.SelectorEventLoop = namespace.EventLoop = EventLoop
    unix._UnixDefaultEventLoopPolicy._loop_factory = EventLoop


class Result(unittest.TestResult):
    """Tells `report` what happens."""

    def __init__(self, report: TextIO, package: str) -> None:
        super().__init__()
        self._report, self._package = report, package

    def tell(self, *event: str) -> None:
        self._report.write(json.dumps(event) + "\n")
        self._report.flush()

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._outcome, self._text = "passed", ""
        self.tell("begin", name(test, self._package))
        faulthandler.dump_traceback_later(TEST_TIMEOUT, exit=True)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        self.tell("end", name(test, self._package), self._outcome, self._text)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        super().addSkip(test, reason)
        if not isinstance(test, unittest.TestCase):  # setUpModule or setUpClass
            return
        self._outcome, self._text = "skipped", reason

    def addError(self, test: Any, error: Any) -> None:
        super().addError(test, error)
        self._failed(test, self.errors[-1][1])

    def addFailure(self, test: Any, error: Any) -> None:
        super().addFailure(test, error)
        self._failed(test, self.failures[-1][1])

    def addSubTest(self, test: Any, subtest: Any, error: Any) -> None:
        super().addSubTest(test, subtest, error)
        if error is not None:
            self._failed(test, f"{subtest}\n{self._exc_info_to_string(error, test)}")  # type: ignore[attr-defined]

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        super().addUnexpectedSuccess(test)
        self._failed(test, "unexpected success")

    def _failed(self, test: Any, text: str) -> None:
        if not isinstance(test, unittest.TestCase):  # setUpModule or setUpClass
            self.tell("end", str(test), "failed", text)
            return
        self._outcome = "failed"
        self._text += text


def name(test: unittest.TestCase, package: str) -> str:
    return test.id().removeprefix(package + ".")


def cases(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for entry in suite:
        if isinstance(entry, unittest.TestSuite):
            yield from cases(entry)
        else:
            yield entry


def main() -> None:
    # A shell that starts a program in the background has it ignore Ctrl+C; the tests interrupt
    # themselves, and some would wait for that for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    order = json.loads(sys.argv[2])
    if not order["stock"]:
        install()
    package = order["package"]
    result = Result(os.fdopen(int(sys.argv[1]), "w"), package)
    module = importlib.import_module(f"{package}.{order['module']}")
    loaded = unittest.defaultTestLoader.loadTestsFromModule(module)
    only, without = order["only"], frozenset(order["not"])
    wanted = [
        case
        for case in cases(loaded)
        if name(case, package) not in without
        and (only is None or any(fnmatchcase(name(case, package), pattern) for pattern in only))
    ]
    unittest.TestSuite(wanted).run(result)
    result.tell("done")


if __name__ == "__main__":
    main()
