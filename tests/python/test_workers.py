"""Worker processes: shared port, replacement, and one signal that stops them all."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from support.cli import Command, RunCli
from support.gate import DEAF, SOURCE, Arrival, Gate
from support.raw import Raw

from treadle import workers

HELD = (
    SOURCE
    + """
@app.get("/pid")
def pid():
    return {"pid": os.getpid()}

@app.get("/block")
def blocking():
    block()
    return {"pid": os.getpid()}

@app.lifespan
async def lifespan(app):
    hold()
    yield
"""
)
"""Every worker comes to the gate as it starts and stays there until its process has ended."""


def start(
    run_cli: RunCli, gate: Gate, *args: str, source: str = HELD
) -> tuple[Command, list[Arrival]]:
    """Two workers, and what tells that each is gone."""
    command = run_cli(source, "--workers", "2", "--lanes", "1", *args, env=gate.env)
    assert " · 2 workers · " in command.line
    return command, [gate.arrival(), gate.arrival()]


def pid_of(connection: Any, path: str = "/pid") -> int:
    return int(json.loads(connection.get(path).body)["pid"])


def test_two_workers_share_the_port(run_cli: RunCli, gate: Gate, raw: Any) -> None:
    command, _ = start(run_cli, gate)
    clients, arrivals = [], []
    for _ in range(2):
        # A worker that is blocked accepts nothing, so the second connection is the other one's.
        client = raw(command)
        client.send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
        clients.append(client)
        arrivals.append(gate.arrival())
    for arrival in arrivals:
        arrival.release()
    pids = {json.loads(client.response().body)["pid"] for client in clients}
    assert len(pids) == 2
    assert command.pid not in pids
    assert command.stop() == 0
    assert command.stderr == ""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_one_signal_to_the_parent_stops_all(
    run_cli: RunCli, gate: Gate, signum: signal.Signals
) -> None:
    command, workers = start(run_cli, gate)
    assert command.stop(signum) == 0
    for worker in workers:
        worker.wait_gone()
    assert command.stderr == ""


def test_an_interrupt_of_the_whole_terminal_stops_all(run_cli: RunCli, gate: Gate) -> None:
    command, workers = start(run_cli, gate)
    os.killpg(command.pid, signal.SIGINT)
    assert (command.wait(), command.stderr) == (0, "")
    for worker in workers:
        worker.wait_gone()


def test_a_worker_that_is_told_to_stop_as_it_ends_has_ended_well(
    run_cli: RunCli, gate: Gate
) -> None:
    """A Ctrl+C reaches all; a worker may have stopped before its parent tells it to."""
    source = "import atexit, signal\n" + HELD.replace(
        "    hold()\n",
        "    hold()\n    atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n",
    )
    command, _ = start(run_cli, gate, source=source)
    assert command.stop() == 0
    assert command.stderr == ""


def test_a_worker_that_is_killed_as_it_stops_is_told_of(run_cli: RunCli, gate: Gate) -> None:
    source = "import atexit, signal\n" + HELD.replace(
        "    hold()\n",
        "    hold()\n    atexit.register(os.kill, os.getpid(), signal.SIGKILL)\n",
    )
    command, _ = start(run_cli, gate, source=source)
    assert command.stop() == 1
    for index in range(2):
        assert f"worker {index} (process " in command.stderr
    assert command.stderr.count(" was killed by SIGKILL while it stopped\n") == 2


def test_a_request_in_flight_is_answered_before_the_end(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    command, _ = start(run_cli, gate)
    client = raw(command)
    client.send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    arrival = gate.arrival()
    command.send()
    arrival.release()
    assert client.response().status == 200
    assert command.wait() == 0
    assert command.stderr == ""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_a_worker_that_dies_is_replaced(
    run_cli: RunCli, gate: Gate, raw: Any, signum: signal.Signals
) -> None:
    command, _ = start(run_cli, gate)
    with raw(command) as client:
        first = pid_of(client)
    os.kill(first, signum)
    gate.arrival()  # the new worker
    fate = "was killed by SIGKILL" if signum == signal.SIGKILL else "ended with status 0"
    command.wait_for_stderr(rf"worker [01] \(process {first}\) {fate}; starting another\n")
    with raw(command) as client:
        assert pid_of(client) != first
    assert command.stop() == 0


def test_replacements_that_die_young_come_ever_more_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: 100.0))
    slot = workers._Slot(0)
    pauses = []
    for _ in range(12):
        slot.vacate(workers.SETTLED - 0.1)
        pauses.append(round(slot.due - 100.0, 3))
    # The first comes at once: what killed its predecessor may be over.
    assert pauses[:6] == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == workers.LONGEST_PAUSE
    slot.vacate(workers.SETTLED)
    assert slot.due == 100.0


def test_workers_that_die_under_load_are_replaced_and_all_stop_together(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    command, arrivals = start(run_cli, gate)
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            # A worker that is killed takes its connections along.
            with contextlib.suppress(OSError, EOFError), Raw(command.address) as connection:
                while not over.is_set():
                    assert connection.get("/pid").status == 200

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        for _ in range(3):
            with raw(command) as connection:
                os.kill(pid_of(connection), signal.SIGKILL)
            arrivals.append(gate.arrival())
        assert command.stop() == 0
    finally:
        over.set()
        for client in clients:
            client.join()
    for arrival in arrivals:
        arrival.wait_gone()
    assert command.stderr.count("was killed by SIGKILL; starting another") == 3
    assert len(command.stderr.splitlines()) == 3


def test_a_replacement_that_fails_to_start_is_tried_again(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    source = HELD.replace(
        "    hold()\n    yield",
        "    if os.path.exists('broken'):\n        raise ValueError('no database')\n"
        "    hold()\n    yield",
    )
    command, _ = start(run_cli, gate, source=source)
    with raw(command) as client:
        first = pid_of(client)
    flag = run_cli.folder / "broken"
    flag.touch()
    os.kill(first, signal.SIGKILL)
    command.wait_for_stderr(r"ValueError: no database\n(.*\n)*.* ended with status 1; starting")
    flag.unlink()
    gate.arrival()
    assert command.stop() == 0


def test_workers_that_cannot_start_end_everything_and_say_why_once(run_cli: RunCli) -> None:
    source = """
from treadle import App
app = App()
@app.lifespan
async def lifespan(app):
    raise ValueError("no database")
    yield
"""
    command = run_cli(source, "--workers", "3", listens=False)
    assert command.wait() == 1
    assert command.stderr.count("raise ValueError") == 1
    assert command.rest() == ""


def test_a_worker_that_is_killed_as_it_starts_ends_everything(run_cli: RunCli, gate: Gate) -> None:
    source = SOURCE + (
        "import signal\n"
        "@app.lifespan\nasync def lifespan(app):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n    yield\n"
    )
    command = run_cli(source, "--workers", "2", env=gate.env, listens=False)
    assert command.wait() == 1
    sentence = "was killed by SIGKILL while it was starting.\n"
    assert command.stderr.count(sentence) == 1


def test_a_signal_while_workers_start_is_a_clean_stop(run_cli: RunCli, gate: Gate) -> None:
    source = SOURCE + "@app.lifespan\nasync def lifespan(app):\n    await pause()\n    yield\n"
    command = run_cli(source, "--workers", "2", "--grace", "0.1", env=gate.env, listens=False)
    arrivals = [gate.arrival(), gate.arrival()]
    assert command.stop() == 0
    for arrival in arrivals:
        arrival.wait_gone()
    assert command.rest() == ""
    assert command.stderr == ""


def test_workers_do_not_outlive_their_parent(run_cli: RunCli, gate: Gate) -> None:
    command, workers = start(run_cli, gate)
    assert command.stop(signal.SIGKILL) == -signal.SIGKILL
    for worker in workers:
        worker.wait_gone()
    command.wait_refusing()
    assert command.stderr == ""


def test_a_second_interrupt_leaves_at_once_and_takes_the_workers_along(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    command, workers = start(run_cli, gate)
    raw(command).send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    gate.arrival()
    command.send(signal.SIGTERM)
    assert command.stop(signal.SIGINT) == 130
    for worker in workers:
        worker.wait_gone()


@pytest.mark.parametrize(
    ("before", "said"),
    [("", "treadle: killed the workers that had not stopped.\n"), (DEAF, "")],
    ids=["heard", "deaf"],
)
def test_a_worker_that_does_not_stop_is_killed(
    run_cli: RunCli, gate: Gate, raw: Any, before: str, said: str
) -> None:
    source = before + "import treadle.workers\ntreadle.workers.KILL_MARGIN = 0.1\n" + HELD
    command, workers = start(run_cli, gate, "--grace", "0.1", source=source)
    raw(command).send("GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
    gate.arrival()
    assert command.stop() == 1
    for worker in workers:
        worker.wait_gone()
    assert command.stderr == said


def test_what_the_app_registered_for_its_exit_runs_once_per_process_that_registered_it(
    run_cli: RunCli, gate: Gate
) -> None:
    source = HELD.replace(
        "    hold()\n", "    hold()\n    atexit.register(os.write, 1, b'worker\\n')\n"
    )
    source = "import atexit, os\natexit.register(print, 'parent')\n" + source
    command, _ = start(run_cli, gate, source=source)
    assert command.stop() == 0
    assert sorted(command.rest().splitlines()) == ["parent", "worker", "worker"]
    assert command.stderr == ""


def test_a_unix_socket_is_shared_and_removed_by_the_parent(
    run_cli: RunCli, gate: Gate, raw: Any
) -> None:
    command, _ = start(run_cli, gate, "--uds", "s")
    path = run_cli.folder / "s"
    with raw(str(path)) as client:
        first = pid_of(client)
    os.kill(first, signal.SIGTERM)
    gate.arrival()
    assert path.is_socket()
    assert command.stop() == 0
    assert not path.exists()


def test_the_app_is_imported_once(run_cli: RunCli, gate: Gate) -> None:
    command, _ = start(run_cli, gate, source="print('imported', end=' ')\n" + HELD)
    # What was buffered before the fork is written by one process only.
    assert command.stop() == 0
    text = command.line + command.rest()
    assert text.count("imported") == 1
