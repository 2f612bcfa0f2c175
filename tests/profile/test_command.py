"""`treadle profile` from the command line: what it prints and writes, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.cli import RunCli
from support.profiles import BUSY_APP

from treadle import interpreter
from treadle.profile import command, report_json
from treadle.profile.record import Profile

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]

free_threaded_build = pytest.mark.skipif(
    not interpreter.FREE_THREADED_BUILD, reason="only a free-threaded build can turn its GIL on"
)

DEADLINE = 60.0
QUICK = ("--duration", "0.5", "--warmup", "0.1", "--concurrency", "4", "--lanes", "1")
PLAIN = (*QUICK, "--no-budget", "--sampler", "none")


class Done:
    """A command that has ended."""

    def __init__(self, done: subprocess.CompletedProcess[str], folder: Path) -> None:
        self.status = done.returncode
        self.out = done.stdout
        self.err = done.stderr
        self._folder = folder

    @property
    def profile(self) -> Profile:
        return report_json.read(self._folder / "out.json")


type Run = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text(BUSY_APP)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    """`run(*words)` is `treadle profile`, from its start to its end."""

    def start(*words: str) -> Done:
        done = _profile(folder, *words)
        assert _servers(folder) == []
        return done

    return start


def _profile(folder: Path, *words: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "treadle", "profile", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    return Done(done, folder)


def _servers(folder: Path) -> list[str]:
    """Processes of ours that still run in that folder."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdecimal() and (process / "cwd").readlink() == folder:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if "treadle" in line]


# -- what it finds ---------------------------------------------------------------------------------


def test_a_profile_is_printed_and_written(run: Run, folder: Path) -> None:
    done = run("main:app", "--path", "/busy", *QUICK, "--json", "out.json", "--output", "out.html")
    assert (done.status, done.err) == (0, "")
    for told in ("requests/s", "GET /busy  (task", "suspended", "async budget", "Python stacks"):
        assert told in done.out
    found = done.profile
    assert found.partial == ""
    assert found.load is not None
    assert found.load.rate > 0
    assert set(found.load.statuses) == {"2xx"}
    [route] = [route for route in found.routes if route.template == "/busy"]
    assert route.requests > 0
    assert route.stage("run").p50 > 0
    assert route.stage("suspended").count > 0
    assert found.cpu is not None
    parts = found.cpu.kernel_us + found.cpu.native_us + found.cpu.python_us
    assert parts == pytest.approx(found.cpu.total_us)
    assert found.cpu.python_us > found.cpu.native_us
    assert found.budget is not None
    assert found.budget.per_request_us is not None
    assert found.flame is not None
    assert found.flame.samples > 0
    assert len(found.lanes) == 1
    assert found.timeline
    page = (folder / "out.html").read_text()
    assert "Profile of main:app" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert found.origin.build_profile in ("release", "debug")


def test_method_headers_and_body_are_sent(run: Run) -> None:
    body = ("--header", "content-type: application/json", "--body", '{"a": 1}')
    done = run("main:app", "--path", "/echo", *body, *PLAIN, "--json", "out.json")
    assert done.status == 0, done.err
    assert done.profile.routes[0].name == "POST /echo"


def test_an_open_loop_keeps_its_rate(run: Run) -> None:
    done = run("main:app", "--path", "/users/7", *PLAIN, "--rate", "100", "--json", "out.json")
    assert done.status == 0, done.err
    load = done.profile.load
    assert load is not None
    assert load.wanted_rate == 100
    assert 50 < load.rate < 130


def test_a_scenario_s_requests_are_told_apart(run: Run, folder: Path) -> None:
    (folder / "s.toml").write_text(
        'duration = 60\n[[request]]\npath = "/users/7"\nweight = 3\n'
        '[[request]]\nname = "echo"\npath = "/echo"\njson = {a = 1}\n'
    )
    done = run("main:app", "--scenario", "s.toml", *PLAIN, "--json", "out.json")
    assert done.status == 0, done.err
    load = done.profile.load
    assert load is not None
    assert load.routes.keys() == {"GET /users/7", "echo"}
    assert load.duration < 10  # the option wins over the file
    assert {route.name for route in done.profile.routes} == {"GET /users/{id}", "POST /echo"}


def test_errors_are_profiled_where_that_is_asked_for(run: Run) -> None:
    done = run("main:app", "--path", "/no", *PLAIN, "--allow-errors", "--json", "out.json")
    assert done.status == 0, done.err
    assert done.profile.load is not None
    assert set(done.profile.load.statuses) == {"4xx"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_running_server_is_read(
    run_cli: RunCli, folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    options = ("--stats-socket", "--workers", str(workers), "--lanes", "1")
    server = run_cli(BUSY_APP, *options)
    words = ("--json", "out.json", "--no-budget")
    with _asking(server.port):
        # On a busy machine the sampler has to look for longer to see anything.
        for duration in ("0.6", "3", "9"):
            # The server runs in the folder as well: `run` would take it for a remainder.
            attach = ("--attach", str(server.pid), "--duration", duration)
            done = _profile(folder, *attach, *words)
            assert (done.status, done.err) == (0, "")
            found = done.profile
            if found.flame is None or found.flame.samples > 0:
                break
    assert found.origin.target == f"process {server.pid}"
    assert found.origin.build_profile in ("release", "debug")
    assert found.load is None
    assert found.routes[0].name == "GET /busy"
    assert found.cpu is not None
    assert found.timeline
    if found.flame is not None:
        assert found.flame.samples > 0
        assert bool([n for n in found.notes if "worker process" in n]) == (workers > 1)
    assert server.stop() == 0


# -- the GIL ----------------------------------------------------------------------------------------

NAMED = "The GIL was turned on again by the import of 'needs_gil': lanes take turns"


def _app_that_needs_gil(where: str, needs_gil: Path) -> str:
    found = f"import sys\nsys.path.insert(0, {str(needs_gil)!r})\n"
    early = "import needs_gil\n" if where == "its module" else ""
    handler = '@app.get("/late")\ndef late() -> int:\n    import needs_gil\n    return 1\n'
    return found + early + BUSY_APP + handler


@free_threaded_build
@pytest.mark.parametrize("where", ["its module", "a handler"])
def test_the_module_that_turned_the_gil_on_is_named(
    run: Run, folder: Path, needs_gil: Path, where: str
) -> None:
    (folder / "main.py").write_text(_app_that_needs_gil(where, needs_gil))
    done = run("main:app", "--path", "/late", *PLAIN, "--json", "out.json")
    assert (done.status, done.err) == (0, "")
    assert NAMED in " ".join(done.out.split())
    assert (done.profile.origin.gil, done.profile.origin.gil_culprit) == (True, "needs_gil")


@free_threaded_build
def test_the_module_that_turned_the_gil_of_a_running_server_on_is_named(
    run_cli: RunCli, folder: Path, needs_gil: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    server = run_cli(_app_that_needs_gil("its module", needs_gil), "--stats-socket")
    done = _profile(folder, "--attach", str(server.pid), "--duration", "0.2", "--no-budget")
    assert NAMED in " ".join(done.out.split())
    assert server.stop() == 0


@free_threaded_build
def test_a_gil_that_no_module_turned_on_is_not_blamed_on_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_GIL", "1")
    done = run("main:app", "--path", "/busy", *PLAIN)
    assert "Start it without PYTHON_GIL=1 and -X gil=1" in " ".join(done.out.split())


class _asking:
    """Asks for /busy again and again while the block runs, from a process of its own."""

    def __init__(self, port: int) -> None:
        script = (
            "import http.client\n"
            f"c = http.client.HTTPConnection('127.0.0.1', {port})\n"
            "def ask(): c.request('GET', '/busy'); c.getresponse().read()\n"
            "ask(); print(flush=True)\n"
            "while True: ask()\n"
        )
        self._process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)

    def __enter__(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"\n"

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


# -- how it fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        ([], 2, "name either an app, such as main:app, or a running server by --attach."),
        (["main:app", "--attach", "1"], 2, "name either an app"),
        (["--attach", "1", "--path", "/"], 2, "--attach only looks, at a server as it is: --path"),
        (["--attach", "1", "--rate", "9"], 2, "--rate is not for it."),
        (["--attach", "1", "--allow-errors"], 2, "--allow-errors is not for it."),
        (["main:app", "--path", "x"], 2, "--path must start with a slash, not be 'x'."),
        (["main:app", "--rate", "-1"], 2, "--rate must be a number, 0 or above, not '-1'."),
        (["main:app", "--lanes", "0"], 2, "--lanes must be an integer from 1 to 1024, not '0'."),
        (["main:app", "--output", "/no/x.html"], 2, "--output /no/x.html: there is no folder /no."),
        (["main:app", "--scenario", "s.toml", "--body", "x"], 2, "--body and --scenario exclude"),
        (["main:app", "--bridge", "x"], 1, "--bridge x names no function; write module:function."),
        (["nothing:app"], 1, "there is no module 'nothing' in "),
        (["main:nothing"], 1, "module 'main' has no 'nothing'; its apps: main:app."),
        (["main:app", "--path", "/no"], 1, "GET /no was answered 404; --allow-errors"),
        (["--attach", "999999999"], 1, "there is no process 999999999."),
    ],
)
def test_what_cannot_be_is_told_in_one_sentence(
    run: Run, words: list[str], status: int, sentence: str
) -> None:
    done = run(*words)
    assert (done.status, done.out) == (status, "")
    [line] = done.err.splitlines()
    assert line.startswith("treadle profile: ")
    assert sentence in line


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[[request]]\npath = "/"\nwieght = 1', "there is no key 'wieght'"),
        ('[[request]]\npath = "/"\nweight = -1', "'weight' must be finite and not negative"),
    ],
)
def test_a_scenario_that_cannot_be_meant_is_told(
    run: Run, folder: Path, text: str, sentence: str
) -> None:
    (folder / "s.toml").write_text(text)
    done = run("main:app", "--scenario", "s.toml")
    assert done.status == 2
    assert sentence in done.err


def test_an_app_that_raises_is_told_with_its_traceback(run: Run, folder: Path) -> None:
    (folder / "main.py").write_text("raise ValueError('on purpose')")
    done = run("main:app")
    assert done.status == 1
    *trace, last = done.err.splitlines()
    assert "ValueError: on purpose" in trace
    assert last == "treadle profile: importing 'main' failed."


def test_an_app_that_cannot_be_compiled_is_told_with_its_line(run: Run, folder: Path) -> None:
    (folder / "main.py").write_text("app = (\n")
    done = run("main:app")
    assert done.status == 1
    *report, last = done.err.splitlines()
    assert "main.py" in report[0]
    assert report[-1] == "SyntaxError: '(' was never closed"
    assert last == "treadle profile: importing 'main' failed."


def test_a_port_that_is_taken_is_told(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run("main:app", "--port", port)
    assert done.status == 1
    assert port in done.err
    assert len(done.err.splitlines()) == 1


def test_a_server_that_dies_leaves_what_was_found(run: Run, folder: Path) -> None:
    words = ("--duration", "20", "--warmup", "0", "--concurrency", "1", "--lanes", "1")
    slow = BUSY_APP.replace("> 200", "> 2000")
    (folder / "main.py").write_text(slow)
    done = run("main:app", "--path", "/dies-later", *words, "--json", "out.json")
    assert done.status == 1
    assert done.err == "treadle profile: the server ended with signal SIGKILL.\n"
    assert "PARTIAL: the server ended with signal SIGKILL." in done.out
    found = done.profile
    assert found.partial == "the server ended with signal SIGKILL."
    assert found.load is not None
    assert found.load.requests > 0


def test_a_server_that_answers_wrong_leaves_what_was_found(run: Run) -> None:
    done = run("main:app", "--path", "/fails-later", *PLAIN, "--json", "out.json")
    assert done.status == 1
    assert re.search(r"requests failed \(status [\d,]+: .*503", done.err), done.err
    assert "PARTIAL" in done.out
    assert done.profile.partial
    assert done.profile.routes[0].statuses["5xx"] > 0


def test_what_the_app_raised_is_shown_once(run: Run, folder: Path) -> None:
    (folder / "main.py").write_text(
        BUSY_APP
        + '@app.get("/raises")\nasync def raises() -> None:\n    raise KeyError("on purpose")'
    )
    first = run("main:app", "--path", "/raises", *PLAIN)
    assert (first.status, first.out) == (1, "")
    later = run("main:app", "--path", "/raises", *PLAIN, "--allow-errors")
    assert (later.status, later.err) == (0, "")
    (folder / "main.py").write_text(
        BUSY_APP + "count = 0\n"
        '@app.get("/raises")\nasync def raises() -> None:\n'
        "    global count\n    count += 1\n"
        '    if count > 50: raise KeyError("on purpose")\n'
    )
    during = run("main:app", "--path", "/raises", *PLAIN)
    assert during.status == 1
    assert "PARTIAL" in during.out
    for done in (first, during):
        *trace, last = done.err.splitlines()
        assert trace.count("Traceback (most recent call last):") == 1
        assert "KeyError: 'on purpose'" in trace
        assert last.startswith("treadle profile: ")


def test_a_server_that_dies_before_anything_was_measured_replaces_no_file(
    run: Run, folder: Path
) -> None:
    (folder / "out.json").write_text("older")
    words = ("--duration", "9", "--warmup", "9", "--lanes", "1", "--json", "out.json")
    done = run("main:app", "--path", "/dies-later", *words)
    assert (done.status, done.out) == (1, "")
    assert done.err == "treadle profile: the server ended with signal SIGKILL.\n"
    assert (folder / "out.json").read_text() == "older"


def test_a_file_that_cannot_be_written_is_told(run: Run, folder: Path) -> None:
    (folder / "out.json").mkdir()
    done = run("main:app", "--path", "/users/7", *PLAIN, "--json", "out.json")
    assert done.status == 1
    assert "out.json cannot be written" in done.err
    assert "requests/s" in done.out
    assert not [file for file in folder.iterdir() if file.name.startswith(".out")]


def test_what_is_no_file_is_written_to_and_a_link_is_kept(tmp_path: Path) -> None:
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        command._write(pipe, b"figures")
        assert reader.read() == b"figures"
    assert pipe.is_fifo()
    link.symlink_to(target)
    for data in (b"one", b"two"):
        command._write(link, data)
        assert (link.is_symlink(), target.read_bytes()) == (True, data)
    assert len(list(tmp_path.iterdir())) == 3


# -- on a terminal, and stopped --------------------------------------------------------------------


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: ours, the command's."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    for each in (ours, theirs):
        os.close(each)


@pytest.mark.parametrize(
    ("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_stop_keeps_what_was_found_and_leaves_the_terminal_clean(
    folder: Path, terminal: tuple[int, int], signum: signal.Signals, status: int
) -> None:
    ours, theirs = terminal
    words = ["main:app", "--path", "/users/7", "--duration", "8", "--warmup", "0"]
    with subprocess.Popen(
        [sys.executable, "-m", "treadle", "profile", *words, "--json", "out.json", "--lanes", "1"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        shown = b""
        deadline = time.monotonic() + DEADLINE
        while shown.count(b"measuring") < 3:
            assert time.monotonic() < deadline, shown
            shown += os.read(ours, 65536)
        process.send_signal(signum)
        out, _ = process.communicate(timeout=DEADLINE)
    shown += os.read(ours, 65536)
    assert process.returncode == status
    assert _servers(folder) == []
    # The line is wiped before anything else is said.
    assert shown.replace(b"\r\n", b"\n").endswith(b"\r\x1b[Ktreadle profile: it was interrupted.\n")
    assert "PARTIAL: it was interrupted." in out
    found = json.loads((folder / "out.json").read_bytes())
    assert found["partial"] == "it was interrupted."
    assert found["load"]["requests"] > 0


def test_nothing_is_shown_where_nobody_watches(run: Run) -> None:
    done = run("main:app", "--path", "/users/7", *PLAIN)
    assert (done.status, done.err) == (0, "")
    assert "\x1b" not in done.out
