"""What is said of the GIL, and of the import that turned it on."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from pathlib import Path

import pytest
from support.cli import DEADLINE, RunCli

import treadle
from treadle import interpreter

HELLO = "from treadle import App\napp = App()\n"

free_threaded_build = pytest.mark.skipif(
    not interpreter.FREE_THREADED_BUILD, reason="only a free-threaded build can turn its GIL on"
)
gil_build = pytest.mark.skipif(interpreter.FREE_THREADED_BUILD, reason="for builds with the GIL")


def test_the_package_says_what_the_running_interpreter_is() -> None:
    assert treadle.FREE_THREADED is (not interpreter.gil_enabled())


def test_the_description_is_name_and_version() -> None:
    version = ".".join(map(str, sys.version_info[:3]))
    assert interpreter.describe().startswith(f"CPython {version}")


@gil_build
def test_a_build_with_the_gil_has_it_and_no_culprit() -> None:
    assert interpreter.gil_enabled()
    assert interpreter.gil_culprit() is None


@gil_build
def test_required_free_threading_is_refused_on_a_build_with_the_gil(run_cli: RunCli) -> None:
    command = run_cli(HELLO, "--require-free-threading", listens=False)
    assert command.wait() == 1
    assert command.stderr == (
        "treadle: free threading is required, and missing on "
        f"{interpreter.describe()}, which has the GIL.\n"
    )


@free_threaded_build
def test_required_free_threading_is_there(run_cli: RunCli) -> None:
    command = run_cli(HELLO, "--require-free-threading")
    assert " free-threaded · " in command.line
    assert command.stop() == 0
    assert command.stderr == ""


@free_threaded_build
def test_another_threads_import_does_not_count_as_a_gil() -> None:
    """CPython has the GIL on while it loads an extension module, whatever that declares."""
    names = ("_bisect", "_csv", "_heapq", "_json", "_queue", "_random")
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            for name in names:
                kept = sys.modules.pop(name)
                importlib.import_module(name)
                sys.modules[name] = kept

    for name in names:
        importlib.import_module(name)
    thread = threading.Thread(target=load)
    thread.start()
    try:
        deadline = time.monotonic() + DEADLINE
        while not sys._is_gil_enabled():
            assert time.monotonic() < deadline, "it was never on"
        assert not any(interpreter.gil_enabled() for _ in range(50))
    finally:
        stop.set()
        thread.join()


@free_threaded_build
def test_an_import_that_turns_the_gil_on_is_named_and_lanes_are_one(
    run_cli: RunCli, needs_gil: Path
) -> None:
    command = run_cli("import needs_gil\n" + HELLO, env=_path(needs_gil))
    assert " GIL on · 1 lane · " in command.line
    assert command.stop() == 0
    sentence = "treadle: no free threading, because importing 'needs_gil' turned the GIL on.\n"
    assert command.stderr.endswith(sentence)


@free_threaded_build
def test_an_import_that_turns_the_gil_on_is_refused_where_free_threading_is_required(
    run_cli: RunCli, needs_gil: Path
) -> None:
    command = run_cli(
        "import needs_gil\n" + HELLO,
        "--require-free-threading",
        env=_path(needs_gil),
        listens=False,
    )
    assert command.wait() == 1
    assert command.stderr.endswith(
        "treadle: free threading is required, and missing because importing 'needs_gil' turned the "
        "GIL on.\n"
    )


@free_threaded_build
@pytest.mark.parametrize("workers", ["1", "2"])
def test_an_import_by_the_lifespan_is_refused_as_well(
    run_cli: RunCli, needs_gil: Path, workers: str
) -> None:
    source = HELLO + "@app.lifespan\nasync def lifespan(app):\n    import needs_gil\n    yield\n"
    command = run_cli(
        source,
        "--require-free-threading",
        "--workers",
        workers,
        env=_path(needs_gil),
        listens=False,
    )
    assert command.wait() == 1
    assert "importing 'needs_gil' turned the GIL on.\n" in command.stderr
    assert "Traceback" not in command.stderr


@free_threaded_build
def test_lanes_asked_for_are_refused_when_an_import_turned_the_gil_on(
    run_cli: RunCli, needs_gil: Path
) -> None:
    command = run_cli(
        "import needs_gil\n" + HELLO, "--lanes", "2", env=_path(needs_gil), listens=False
    )
    assert command.wait() == 2
    assert command.stderr.endswith(
        "treadle: --lanes must be 1, not 2, because importing 'needs_gil' turned the GIL on: use "
        "--workers 2 to serve on 2 cores.\n"
    )


@free_threaded_build
def test_a_user_who_turned_the_gil_on_is_told_that(run_cli: RunCli) -> None:
    command = run_cli(HELLO, env={"PYTHON_GIL": "1"})
    assert " GIL on · 1 lane · " in command.line
    assert command.stop() == 0
    expected = "treadle: no free threading, because PYTHON_GIL=1 or -X gil=1 turned the GIL on.\n"
    assert command.stderr == expected


def _path(folder: Path) -> dict[str, str]:
    import os

    inherited = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": f"{folder}:{inherited}" if inherited else str(folder)}
