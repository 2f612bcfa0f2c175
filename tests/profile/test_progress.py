"""The line that says what is going on."""

from __future__ import annotations

import io
import os

import pytest

from treadle.profile.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        return 2


def test_one_line_is_rewritten_and_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((30, 24)))
    stream = Terminal()
    with Progress(stream) as progress:
        progress.say("starting")
        progress.part("measuring", 5, 10)
    wipe = "\r\x1b[K"
    assert stream.getvalue() == f"{wipe}starting{wipe}measuring [##########........{wipe}"


def test_it_is_wiped_when_something_goes_wrong() -> None:
    stream = Terminal()

    def fail() -> None:
        with Progress(stream) as progress:
            progress.say("starting")
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        fail()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_nothing_is_written_where_nobody_watches() -> None:
    stream = io.StringIO()
    with Progress(stream) as progress:
        progress.say("starting")
        progress.part("measuring", 1, 2)
    assert stream.getvalue() == ""


def test_a_terminal_that_is_gone_is_no_reason_to_fail() -> None:
    stream = Terminal()
    progress = Progress(stream)
    stream.close()
    progress.say("starting")
