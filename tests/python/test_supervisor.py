"""One process from start to end: the line it prints, the signals it takes, the status it leaves."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.cli import RunCli
from support.gate import DEAF, SOURCE, Gate
from support.raw import Raw

import treadle
from treadle import App, supervisor
from treadle.options import OptionError, Options

PAUSING = (
    SOURCE
    + """
@app.get("/pause")
async def pausing():
    await pause()
    return {"done": True}

@app.get("/block")
def blocking():
    block()
    return {"done": True}
"""
)

FAILING = """
from treadle import App

app = App()

@app.lifespan
async def lifespan(app):
    raise ValueError("no database")
    yield
"""

STOPS = [signal.SIGTERM, signal.SIGINT]

UNUSED = "600"
"""A grace period that a test would not survive, for a stop that has nothing to wait for."""


def test_the_start_line_says_what_is_served_by_what(run_cli: RunCli) -> None:
    command = run_cli(SOURCE, "--lanes", "1")
    version = re.escape(treadle.__version__)
    python = ".".join(map(str, sys.version_info[:3]))
    gil = "free-threaded" if treadle.FREE_THREADED else "GIL on"
    pattern = rf"treadle {version} · CPython {python}\S* {gil} · 1 lane · 1 worker"
    assert re.fullmatch(rf"{pattern} · http://127\.0\.0\.1:[1-9]\d*", command.line)
    assert command.stop() == 0
    assert command.rest() == ""


def test_the_start_line_counts_lanes_and_workers() -> None:
    options = Options(lanes=3, workers=2)
    assert " · 3 lanes · 2 workers · http://x" in supervisor.start_line(options, "http://x")


def test_a_standard_output_that_cannot_spell_the_line_is_no_failure(run_cli: RunCli) -> None:
    command = run_cli(SOURCE, env={"PYTHONIOENCODING": "ascii"})
    assert re.fullmatch(r"treadle \S+ \? CPython .*", command.line)
    assert command.stop() == 0
    assert command.stderr == ""


def test_a_closed_standard_output_is_no_failure(run_cli: RunCli, gate: Gate, raw: Any) -> None:
    source = SOURCE + "@app.lifespan\nasync def lifespan(app):\n    hold()\n    yield\n"
    command = run_cli(
        source,
        env=gate.env,
        before=["sh", "-c", 'exec "$@" >&-', "sh"],
        listens=False,
    )
    gate.arrival()
    assert command.stop() == 0
    assert command.stderr == ""


@pytest.mark.parametrize("signum", STOPS)
def test_an_idle_server_stops_with_status_0_and_says_nothing(
    run_cli: RunCli, raw: Any, signum: signal.Signals
) -> None:
    command = run_cli(PAUSING)
    idle = raw(command)
    assert idle.get("/absent").status == 404
    assert command.stop(signum) == 0
    assert idle.is_closed()
    assert command.stderr == ""


@pytest.mark.parametrize("signum", STOPS)
@pytest.mark.parametrize("path", ["/pause", "/block"])
def test_a_request_in_flight_is_answered_before_the_end(
    run_cli: RunCli, gate: Gate, raw: Any, signum: signal.Signals, path: str
) -> None:
    command = run_cli(PAUSING, "--grace", UNUSED, env=gate.env)
    client = raw(command)
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
    arrival = gate.arrival()
    command.send(signum)
    if path == "/pause":  # a blocked lane notices nothing until it goes on
        command.wait_refusing()
    arrival.release()
    assert client.response().body == b'{"done":true}'
    assert client.is_closed()
    assert command.wait() == 0
    assert command.stderr == ""


def test_a_request_that_outlasts_the_grace_is_cancelled(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    command = run_cli(PAUSING, "--grace", "0.05", env=gate.env)
    client = raw(command)
    client.send("GET /pause HTTP/1.1\r\nHost: x\r\n\r\n")
    arrival = gate.arrival()
    assert command.stop() == 0
    arrival.wait_gone()
    assert command.stderr == ""


def test_a_second_interrupt_leaves_at_once(run_cli: RunCli, gate: Gate, raw: Any) -> None:
    command = run_cli(PAUSING, env=gate.env)
    raw(command).send("GET /pause HTTP/1.1\r\nHost: x\r\n\r\n")
    gate.arrival()
    command.send(signal.SIGINT)
    command.wait_refusing()
    assert command.stop(signal.SIGINT) == 130


def test_an_interrupt_leaves_at_once_even_while_a_lane_is_blocked(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    command = run_cli(PAUSING, env=gate.env)
    raw(command).send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    gate.arrival()
    command.send(signal.SIGTERM)
    command.wait_taken()
    assert command.stop(signal.SIGINT) == 130


def test_a_second_sigterm_changes_nothing(run_cli: RunCli, gate: Gate, raw: Any) -> None:
    command = run_cli(PAUSING, "--grace", UNUSED, env=gate.env)
    client = raw(command)
    client.send("GET /pause HTTP/1.1\r\nHost: x\r\n\r\n")
    arrival = gate.arrival()
    command.send()
    command.wait_refusing()
    command.send()
    arrival.release()
    assert client.response().status == 200
    assert command.wait() == 0
    assert command.stderr == ""


def test_a_lane_that_stays_blocked_is_left_behind(run_cli: RunCli, gate: Gate, raw: Any) -> None:
    source = "import treadle.process\ntreadle.process.STOP_MARGIN = 0.1\n" + PAUSING
    command = run_cli(source, "--grace", "0.1", env=gate.env)
    raw(command).send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    gate.arrival()
    assert command.stop() == 1
    said = command.stderr
    assert said.startswith("treadle: not stopped 0.2 s after it was told to: ")
    place = r"\ntreadle-lane-0 is here:\n  File \".*main.py\", line \d+, in blocking\n"
    assert re.search(place, said), said


def test_a_standard_error_that_nobody_reads_keeps_no_process(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    source = DEAF + "import treadle.process\ntreadle.process.STOP_MARGIN = 0.1\n" + PAUSING
    command = run_cli(source, "--grace", "0.1", env=gate.env)
    raw(command).send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    gate.arrival()
    assert command.stop() == 1


def test_a_thread_that_keeps_a_lane_from_ending_is_named(run_cli: RunCli, gate: Gate) -> None:
    source = "import treadle.process\ntreadle.process.STOP_MARGIN = 0.1\n" + SOURCE
    source += "@app.get('/')\nasync def root():\n    await asyncio.to_thread(block)\n"
    command = run_cli(source, "--grace", "0.1", env=gate.env)
    with Raw(command.address) as client:
        client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        gate.arrival()
        assert command.stop() == 1
    place = r"\nasyncio_0 is here:\n(  .*\n)*  File \".*main.py\", line \d+, in block\n"
    assert re.search(place, command.stderr), command.stderr


@pytest.mark.parametrize("signum", STOPS)
def test_a_signal_during_a_lifespan_that_hangs_is_a_clean_stop(
    run_cli: RunCli, gate: Gate, signum: signal.Signals
) -> None:
    source = SOURCE + "@app.lifespan\nasync def lifespan(app):\n    await pause()\n    yield\n"
    command = run_cli(source, "--grace", "0.1", env=gate.env, listens=False)
    gate.arrival()
    assert command.stop(signum) == 0
    assert command.rest() == ""
    assert command.stderr == ""


def test_the_lifespan_ends_after_the_last_answer(run_cli: RunCli, gate: Gate, raw: Any) -> None:
    source = PAUSING + (
        "@app.lifespan\nasync def lifespan(app):\n    yield\n    print('down', flush=True)\n"
    )
    command = run_cli(source, "--grace", UNUSED, env=gate.env)
    client = raw(command)
    client.send("GET /pause HTTP/1.1\r\nHost: x\r\n\r\n")
    arrival = gate.arrival()
    command.send()
    command.wait_refusing()
    arrival.release()
    assert client.response().status == 200
    assert command.wait() == 0
    assert command.rest() == "down\n"


def test_a_lifespan_that_fails_is_status_1_with_the_apps_traceback(run_cli: RunCli) -> None:
    command = run_cli(FAILING, listens=False)
    assert command.wait() == 1
    lines = command.stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2] == "ValueError: no database"
    assert lines[-1].startswith("treadle: ")
    assert command.rest() == ""


def test_a_lifespan_that_fails_to_end_is_status_1_and_logged(run_cli: RunCli) -> None:
    source = (
        SOURCE + "@app.lifespan\nasync def lifespan(app):\n    yield\n    raise KeyError('x')\n"
    )
    command = run_cli(source)
    assert command.stop() == 1
    assert "KeyError: 'x'" in command.stderr


LOGGING = """
import logging.config
from treadle import App

app = App()

@app.lifespan
async def lifespan(app):
    logging.config.dictConfig({"version": 1%s})
    yield
"""


def test_loggers_that_the_lifespan_disabled_are_named(run_cli: RunCli) -> None:
    command = run_cli(LOGGING % "")
    assert command.stop() == 0
    assert command.stderr == (
        "treadle: the app's logging configuration disabled 'treadle', so nothing is logged there; "
        "set disable_existing_loggers to False.\n"
    )
    command = run_cli(LOGGING % "", "--access-log")
    assert command.stop() == 0
    assert "disabled 'treadle' and 'treadle.access', so" in command.stderr
    command = run_cli(LOGGING % ", 'disable_existing_loggers': False", "--access-log")
    assert command.stop() == 0
    assert command.stderr == ""


def test_a_port_that_is_taken_is_status_1_and_one_sentence(run_cli: RunCli) -> None:
    command = run_cli(SOURCE)
    other = run_cli.python(
        ["-m", "treadle", "run", "main:app", "--port", str(command.port)], listens=False
    )
    assert other.wait() == 1
    expected = f"treadle: cannot listen on 127.0.0.1:{command.port}: the address is in use.\n"
    assert other.stderr == expected
    assert command.stop() == 0


def test_a_unix_socket_is_served_and_removed(run_cli: RunCli, raw: Any) -> None:
    command = run_cli(SOURCE, "--uds", "s")
    path = run_cli.folder / "s"
    assert command.line.endswith(" · unix:s")
    assert raw(str(path)).get("/absent").status == 404
    assert command.stop() == 0
    assert not path.exists()
    assert command.stderr == ""


@pytest.mark.parametrize("workers", [1, 2])
def test_run_in_a_script_returns_and_leaves_everything_as_before(
    run_cli: RunCli, workers: int
) -> None:
    script = f"""
import logging, signal
from treadle import App

app = App()
signums = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
signal.signal(signal.SIGTERM, lambda *_: None)
before = [signal.getsignal(each) for each in signums]
app.run(port=0, workers={workers})
assert [signal.getsignal(each) for each in signums] == before
assert signal.set_wakeup_fd(-1) == -1
assert not logging.getLogger("treadle").handlers
print("after")
"""
    command = run_cli.python(["-c", script])
    assert command.stop() == 0
    assert command.rest() == "after\n"
    assert command.stderr == ""


def test_run_in_a_script_that_cannot_serve_ends_it_with_status_1(run_cli: RunCli) -> None:
    script = FAILING + "app.run(port=0)\nprint('not reached')\n"
    command = run_cli.python(["-c", script], listens=False)
    assert command.wait() == 1
    assert command.rest() == ""
    assert "ValueError: no database" in command.stderr


@pytest.mark.parametrize(
    "run", [lambda: supervisor.run(App(), Options(port=0)), lambda: App().run(port=0)]
)
def test_run_refuses_a_thread_that_gets_no_signals(run: Callable[[], object]) -> None:
    caught: list[BaseException] = []

    def work() -> None:
        try:
            run()
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert "from the main thread only" in str(caught[0])


@pytest.mark.parametrize("options", [{"prot": 1}, {"port": -1}, {"factory": True}])
def test_run_refuses_what_is_no_option(options: Any) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        App().run(**options)


def _can_unshare() -> bool:
    command = ["unshare", "--pid", "--fork", "true"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("signum", STOPS)
def test_process_1_stops_as_any_other(
    run_cli: RunCli, raw: Any, workers: str, signum: signal.Signals
) -> None:
    if not _can_unshare():
        pytest.skip("process namespaces are not allowed here")
    command = run_cli(
        SOURCE, "--workers", workers, before=["unshare", "--pid", "--fork", "--kill-child"]
    )
    assert raw(command).get("/absent").status == 404
    unshare = command.pid
    children = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    assert len(children) == 1
    os.kill(int(children[0]), signum)
    assert command.wait() == 0
    assert command.stderr == ""
