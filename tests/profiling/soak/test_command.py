"""Whole soaks, of seconds, on a real server."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from profiling import records
from profiling.console import Console
from profiling.errors import ComparisonError
from profiling.soak import census
from profiling.soak.command import Options, Soak, soak, summary

pytestmark = [pytest.mark.slow, pytest.mark.timing, pytest.mark.timeout(120)]

SECOND = 1 / 60


@pytest.fixture(autouse=True)
def counted_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(census, "_LOOK_EVERY", 0.02)


def test_a_sound_server_passes_and_the_record_says_what_was_done(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    record = soak(Options(2 * SECOND, output=file), Console(quiet=True))
    assert (record.lost, record.faults, record.partial) == (0, [], None)
    assert record.answers > 50
    assert record.builds[0].profile in {"debug", "release"}
    assert records.load(file, Soak) == record
    assert "0 lost" in summary(record)


def test_a_server_that_dies_is_told_and_what_was_seen_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    options = Options(1, output=file, app="tests.profiling.soak.dying_app:app")
    with pytest.raises(ComparisonError, match=r"^the server ended with 3"):
        soak(options, Console(quiet=True))
    assert records.load(file, Soak).partial


def test_a_port_that_is_taken_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        options = Options(SECOND, port=port, output=tmp_path / "soak.json")
        with pytest.raises(ComparisonError, match=f"Port {port} of 127.0.0.1 cannot be had"):
            soak(options, Console(quiet=True))


def test_what_grows_fails_the_soak(tmp_path: Path) -> None:
    file = tmp_path / "soak.json"
    options = Options(3 * SECOND, output=file, app="tests.profiling.soak.leaking_app:app")
    with pytest.raises(ComparisonError, match=r"^The soak failed: objects grew from"):
        soak(options, Console(quiet=True))
    assert "objects grew" in records.load(file, Soak).faults[0]
