"""Servers of the harness: tiny ones, that behave as the worst of the real ones might."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from profiling import program
from profiling.cpu import process_seconds, process_tree
from profiling.environments import Prepared
from profiling.errors import ComparisonError
from profiling.interpreters import Interpreter
from profiling.peers import Entrant, Launch, Peer, Product
from profiling.scenarios import SYNC, Endpoint
from profiling.servers import Fleet

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="taskset and /proc")

ANSWER = r"""
import socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
body = b'{"message":"hello","n":1}'
head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 25\r\n\r\n"
def serve():
    while True:
        client, _ = listener.accept()
        with client:
            if client.recv(4096):
                client.sendall(head + body)
"""
OBEDIENT = ANSWER + "serve()"
STUBBORN = (
    "import os, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    + ANSWER
    + "if os.fork() == 0: os.setpgid(0, 0); signal.pause()\nserve()"
)
BUSY = (
    "import threading\n" + ANSWER + "threading.Thread(target=serve, daemon=True).start()\n"
    "while True: pass"
)


def prepared(program: str, pipelines: bool = False) -> Prepared:
    def command(launch: Launch) -> list[str]:
        return [str(launch.executable), "-c", program, str(launch.port)]

    peer = Peer(
        product=Product.ROBYN,
        title="a server",
        interpreters=(Interpreter.GIL,),
        endpoints=frozenset({Endpoint.SYNC}),
        command=command,
        pipelines=pipelines,
    )
    return Prepared(Entrant(peer, Interpreter.GIL), Path(sys.executable), "a server", None)


def test_a_server_is_started_checked_and_stopped() -> None:
    with Fleet() as fleet:
        server = fleet.running(prepared(OBEDIENT))
        assert fleet.running(server.prepared) is server
        with server.awake():
            server.check(SYNC)
        assert process_tree(server.pid) == [server.pid]
    assert process_tree(server.pid) == []


def test_a_frozen_server_uses_no_cpu_and_a_thawed_one_goes_on() -> None:
    with Fleet() as fleet:
        server = fleet.running(prepared(BUSY))
        frozen = process_seconds(server.pid)
        with server.awake():
            server.check(SYNC)  # it answers, so it ran
        while _state(server.pid) != "T":  # the signal is on its way
            pass
        again = process_seconds(server.pid)
        assert frozen is not None
        assert again is not None
        assert again > frozen
        assert process_seconds(server.pid) == again


def test_what_does_not_go_by_itself_is_killed_with_all_it_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(program, "_STOPPED_WITHIN", 0.05)
    with Fleet() as fleet:
        server = fleet.running(prepared(STUBBORN))
        members = process_tree(server.pid)
        assert len(members) == 2
    for member in members:
        while process_tree(member) and _state(member) not in "XZ":  # it is killed, and dying
            pass


def _state(pid: int) -> str:
    """The kernel's letter for what a process does; X for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def test_servers_are_stopped_when_the_comparison_fails() -> None:
    def fail() -> None:
        with Fleet() as fleet:
            pids.append(fleet.running(prepared(OBEDIENT)).pid)
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        fail()
    assert process_tree(pids[0]) == []


def test_a_server_that_ends_is_told_with_its_last_words() -> None:
    with Fleet() as fleet, pytest.raises(ComparisonError) as told:
        fleet.running(prepared("import sys; sys.exit('the port is taken')"))
    assert str(told.value) == "robyn 3.14 ended with 1; it said: the port is taken."


def test_a_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_READY_WITHIN", 0.1)
    with Fleet() as fleet, pytest.raises(ComparisonError, match=r"^robyn 3\.14 does not answer"):
        fleet.running(prepared("import signal; signal.pause()"))


def test_a_wrong_answer_names_server_and_request() -> None:
    wrong = prepared(OBEDIENT.replace('"n":1', '"n":2'))
    with Fleet() as fleet, pytest.raises(ComparisonError) as told:
        fleet.running(wrong)
    assert "robyn 3.14 answers b" in str(told.value)
    assert str(told.value).endswith("to GET /sync.")


def test_a_server_that_closes_after_one_of_many_requests_is_found_out() -> None:
    with Fleet() as fleet, pytest.raises(ComparisonError, match="answers 1 of 16 pipelined"):
        fleet.running(prepared(OBEDIENT, pipelines=True))
