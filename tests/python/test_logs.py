"""Logging: set up for apps that did not, left alone for those that did."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support.cli import RunCli

from treadle import logs
from treadle.options import Options

ACCESS = {
    "client": "127.0.0.1:51764",
    "method": "GET",
    "path": "/hello/ada",
    "status": 200,
    "bytes": 27,
    "duration_ms": 0.4321,
    "lane": 0,
}


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Loggers are after each test what they were before."""
    loggers = [logging.getLogger(name) for name in ("treadle", "treadle.access")]
    before = [(list(each.handlers), each.level, each.propagate) for each in loggers]
    yield
    assert [(list(each.handlers), each.level, each.propagate) for each in loggers] == before


@contextlib.contextmanager
def configured(*theirs: tuple[logging.Logger, logging.Handler], **arguments: Any) -> Iterator[None]:
    """`logs.configured` as in a process where the handlers `theirs` are all there is.

    pytest puts handlers of its own on the root logger while a test runs.
    """
    pytests, logging.root.handlers = logging.root.handlers, []
    try:
        for logger, handler in theirs:
            logger.addHandler(handler)
        with logs.configured(Options.resolve(env={}, **arguments)):
            yield
    finally:
        for logger, handler in theirs:
            logger.removeHandler(handler)
        logging.root.handlers = pytests


@pytest.mark.parametrize(("asked", "level"), [("info", logging.NOTSET), ("error", logging.ERROR)])
def test_an_app_with_logging_of_its_own_still_gets_the_level_it_asked_for(
    asked: str, level: int
) -> None:
    server = logging.getLogger("treadle")
    with configured((logging.root, logging.NullHandler()), log_level=asked):
        assert server.level == level
    server.setLevel(logging.DEBUG)
    try:
        with configured((logging.root, logging.NullHandler()), log_level=asked):
            assert server.level == logging.DEBUG, "the app has said so itself"
    finally:
        server.setLevel(logging.NOTSET)


def test_an_unconfigured_app_gets_one_line_per_record_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with configured():
        logging.getLogger("treadle").warning("lane %d is slow", 3)
        logging.getLogger("treadle").debug("not shown")
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING treadle: lane 3 is slow\n", err
    )


def test_an_access_record_is_shown_with_its_values(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(access_log=True):
        logging.getLogger("treadle.access").info("request", extra=ACCESS)
    line = capsys.readouterr().err
    assert line.endswith(' INFO 127.0.0.1:51764 "GET /hello/ada" 200 27B 0.4ms lane=0\n')


def test_an_access_record_without_our_values_is_shown_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with configured(access_log=True):
        logging.getLogger("treadle.access").info("my own")
    assert capsys.readouterr().err.endswith(" INFO treadle.access: my own\n")


def test_the_access_log_does_not_depend_on_the_log_level(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with configured(access_log=True, log_level="error"):
        logging.getLogger("treadle").warning("not shown")
        logging.getLogger("treadle.access").info("request", extra=ACCESS)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "lane=0" in lines[0]


def test_formatting_leaves_the_record_to_other_handlers() -> None:
    record = logging.makeLogRecord({"name": "treadle.access", "msg": "request", **ACCESS})
    before = dict(record.__dict__)
    assert "lane=0" in logs.Formatter().format(record)
    assert record.__dict__ == before


def test_the_level_is_that_of_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with configured(log_level="debug"):
        logging.getLogger("treadle").debug("shown")
    assert "DEBUG treadle: shown" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["", "treadle", "treadle.access"])
def test_a_handler_of_the_app_is_left_alone(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[logging.LogRecord] = []

    class Theirs(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(record)

    with configured((logging.getLogger(name), Theirs()), access_log=True):
        assert logging.getLogger("treadle").level == logging.NOTSET
        assert logging.getLogger("treadle").propagate
        logging.getLogger("treadle.access").info("request", extra=ACCESS)
    assert [record.getMessage() for record in seen] == ["request"]
    assert capsys.readouterr().err == ""


def test_a_level_of_the_app_is_left_alone() -> None:
    access = logging.getLogger("treadle.access")
    access.setLevel(logging.WARNING)
    try:
        with configured(access_log=True):
            assert access.level == logging.WARNING
    finally:
        access.setLevel(logging.NOTSET)


def test_a_request_leaves_its_line_in_the_access_log(run_cli: RunCli, raw: Any) -> None:
    source = "from treadle import App\napp = App()\n@app.get('/x')\ndef x(): return {'n': 1}\n"
    command = run_cli(source, "--access-log")
    with raw(command) as connection:
        assert connection.get("/x?y=1").status == 200
    assert command.stop() == 0
    # The query stays out of it: it may hold what is nobody's business.
    pattern = r'\S+ \S+ INFO 127\.0\.0\.1:\d+ "GET /x" 200 7B \d+\.\dms lane=0\n'
    assert re.fullmatch(pattern, command.stderr)
