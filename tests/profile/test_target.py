"""The profiled server's process: what it says, and its end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.profiles import BUSY_APP

from treadle.profile import machine
from treadle.profile.check import address, check
from treadle.profile.load import LoadRequest
from treadle.profile.progress import Progress
from treadle.profile.target import Gone, NotStarted, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

DEADLINE = 20.0


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "main.py").write_text(BUSY_APP)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    with Server("main:app", options=["--port", "0", "--lanes", "1"]) as started:
        yield started


def _wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"{pid} still runs"
        time.sleep(0.01)


def _wait_until_dead(server: Server) -> None:
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)


def test_it_tells_its_statistics_and_what_it_is(server: Server) -> None:
    assert server.url.startswith("http://127.0.0.1:")
    stats = server.read()
    assert (stats.pid, len(stats.lanes)) == (server.pid, 1)
    assert stats.build_profile in ("release", "debug")
    server.check()


def test_what_it_prints_never_holds_it_up(folder: Path) -> None:
    (folder / "main.py").write_text("print('x' * 1_000_000)\n" + BUSY_APP)
    with Server("main:app", options=["--port", "0", "--lanes", "1"]) as server:
        assert server.read().pid == server.pid


def test_it_counts_whatever_the_environment_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREADLE_TELEMETRY", "false")
    monkeypatch.setenv("TREADLE_WORKERS", "2")
    with Server("main:app", options=["--port", "0", "--lanes", "1"]) as server:
        check(address(server.url), [LoadRequest(name="user", path="/users/7")], Progress())
        assert [route.template for route in server.read().routes] == ["/users/{id}"]


@pytest.mark.parametrize(
    ("signum", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 5, r"\d+")]
)
def test_a_server_that_was_killed_is_gone(server: Server, signum: int, name: str) -> None:
    os.kill(server.pid, signum)
    _wait_until_dead(server)
    with pytest.raises(Gone, match=rf"^the server ended with signal {name}\.$"):
        server.read()
    with pytest.raises(Gone):
        server.check()


def test_it_stops_with_the_profile_even_when_that_is_killed(folder: Path) -> None:
    script = (
        "import sys, signal\n"
        "from treadle.profile.target import Server\n"
        "server = Server('main:app', options=['--port', '0', '--lanes', '1'])\n"
        "print(server.pid, flush=True)\n"
        "signal.pause()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=folder, text=True
    ) as profile:
        assert profile.stdout is not None
        pid = int(profile.stdout.readline())
        profile.kill()
    _wait_until_gone(pid)


def test_children_of_the_app_end_with_it(folder: Path) -> None:
    (folder / "main.py").write_text(
        "import subprocess\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "open('child', 'w').write(str(child.pid))\n" + BUSY_APP
    )
    with Server("main:app", options=["--port", "0", "--lanes", "1"]):
        child = int((folder / "child").read_text())
    _wait_until_gone(child)


def test_an_app_that_ends_while_it_starts_is_told(folder: Path) -> None:
    (folder / "main.py").write_text("import os; os._exit(3)")
    with pytest.raises(NotStarted, match="the server ended with status 3"):
        Server("main:app")


def test_cpu_time_grows_with_what_a_process_does(server: Server) -> None:
    times = machine.cpu_times(server.pid)
    assert times is not None
    assert times.system >= 0
    assert machine.cpu_times(2**22 + 1) is None


def test_the_busiest_is_the_one_that_works_now(tmp_path: Path) -> None:
    spin = "x = 0\nwhile True: x += 1"
    parent = (
        "import subprocess, sys\n"
        # One that has worked, and one that works; both say when they are where they are to be.
        "did = 'import sys, time\\nwhile time.process_time() < 0.3: pass\\n'\n"
        "did += 'print(flush=True)\\nsys.stdin.read()'\n"
        f"does = 'print(flush=True)\\n' + {spin!r}\n"
        "for script in (did, does):\n"
        "    child = subprocess.Popen([sys.executable, '-c', script], stdin=subprocess.PIPE,\n"
        "                             stdout=subprocess.PIPE)\n"
        "    child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "input()\n"
        "child.kill()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            works = int(process.stdout.readline())
            assert machine.busiest(process.pid) == works
        finally:
            process.stdin.write(b"\n")
            process.stdin.close()


def test_this_machine_is_described() -> None:
    found = machine.describe()
    assert found.cpu
    assert found.cores >= 1
    assert found.memory_gib > 0
    assert found.kernel.startswith("Linux")


def test_a_commit_is_told_only_in_a_repository(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    assert machine.commit() == ("", False)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *words], check=True)
    head, dirty = machine.commit()
    assert (len(head), dirty) == (40, False)
    (folder / "main.py").write_text("changed")
    assert machine.commit() == (head, True)
