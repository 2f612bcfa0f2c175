"""Each sampler on a real server that computes, as far as this machine has it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.profiles import BUSY_APP, collapsed

from treadle.profile import samplers
from treadle.profile.check import address
from treadle.profile.flame import Place, Stack
from treadle.profile.load import LoadJob, LoadRequest, LoadRun
from treadle.profile.record import Flame
from treadle.profile.samplers import SamplerError, folded, sampling
from treadle.profile.target import Gone, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with a route that computes all the time."""
    (tmp_path / "main.py").write_text(BUSY_APP)
    monkeypatch.chdir(tmp_path)
    with Server("main:app", options=["--port", "0", "--lanes", "1"]) as server:
        yield server


ENOUGH = 10
"""Stacks; on a busy machine the sampler looks less often, and has to look for longer."""


def _sampled(server: Server, name: str) -> Flame:
    for duration in (0.6, 2.0, 6.0, 18.0):
        flame = _sampled_for(server, name, duration)
        if flame.samples > ENOUGH:
            break
    return flame


def _sampled_for(server: Server, name: str, duration: float) -> Flame:
    job = LoadJob(
        address=address(server.url),
        requests=(LoadRequest(name="busy", path="/busy"),),
        connections=2,
        duration=duration,
        warmup=0.0,
    )
    sampler, refused = sampling(name, server.pid, server)
    assert sampler is not None, refused
    with LoadRun(job) as run:
        result = run.result()
    flame = sampler.stop()
    assert result.completed
    assert flame.looks is None if flame.sampler == "py-spy" else flame.looks
    return flame


def test_some_sampler_works_on_every_build(busy: Server) -> None:
    flame = _sampled(busy, "auto")
    assert flame.samples > ENOUGH, flame
    assert any("compute (main.py)" in line for line in collapsed(flame.root)), collapsed(flame.root)


def test_the_watcher_sees_whole_stacks(busy: Server) -> None:
    flame = _sampled(busy, "watcher")
    assert flame.samples > ENOUGH
    # sorted() is C: only whole stacks have its caller below its key function.
    assert any(
        "busy (main.py);compute (main.py);key (main.py)" in line for line in collapsed(flame.root)
    ), collapsed(flame.root)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="CPython 3.14 brought it")
def test_remote_sampling_sees_the_handler(busy: Server) -> None:
    flame = _sampled(busy, "remote")
    assert flame.samples > ENOUGH
    assert flame.root.children[0].name == "lanes"


def test_a_process_that_is_not_there_is_refused_by_each() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    sampler, refused = sampling("auto", process.pid, None)
    assert sampler is None
    assert [line.partition(":")[0] for line in refused] == ["py-spy", "remote", "watcher"]
    assert all(line.endswith(".") for line in refused)


def test_a_server_that_is_gone_has_no_watcher() -> None:
    class Lost:
        def watch(self, rate: float) -> None:
            raise Gone("the server ended with signal SIGKILL.")

        def watched(self) -> tuple[list[tuple[Stack, int]], int]:
            raise Gone("never asked")

    sampler, refused = sampling("watcher", os.getpid(), Lost())
    assert sampler is None
    assert refused == ["watcher: the server ended with signal SIGKILL."]


def test_none_is_no_sampler() -> None:
    assert sampling("none", os.getpid(), None) == (None, [])


# -- py-spy ----------------------------------------------------------------------------------------


def test_the_stacks_of_py_spy_are_read() -> None:
    text = (
        "thread (0x7F): treadle-lane-0;run_forever (loop.py:3);<module> (a b.py:7) 12\n"
        "nonsense\n"
        "main (x.py:1) 3\n"
    )
    assert list(folded(text)) == [
        (
            Stack(
                "treadle-lane-0",
                (Place("run_forever", "loop.py", 3), Place("<module>", "a b.py", 7)),
                running=True,
            ),
            12,
        ),
        (Stack("thread", (Place("main", "x.py", 1),), running=True), 3),
    ]


def _tool(folder: Path, script: str) -> None:
    tool = folder / "py-spy"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


def test_a_py_spy_that_does_not_know_the_build_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tool(tmp_path, "echo 'Error: Failed to find a python interpreter' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    _, refused = sampling("py-spy", os.getpid(), None)
    assert refused == ["py-spy: Failed to find a python interpreter."]


def test_py_spy_is_interrupted_and_its_stacks_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What stands in for it writes what the real one writes, where and when it does.
    # Not a shell script: a shell cannot catch what was ignored when it was started.
    script = tmp_path / "tool.py"
    script.write_text("""
import pathlib, signal, sys
if sys.argv[1] == "dump":
    sys.exit(0)
file = pathlib.Path(sys.argv[sys.argv.index("--output") + 1])
def stop(*_):
    file.write_text("handler (main.py:3) 7\\n")
    sys.exit(0)
signal.signal(signal.SIGINT, stop)
file.with_name(file.name + ".started").touch()
while True:
    signal.pause()
""")
    _tool(tmp_path, f'exec "{sys.executable}" "{script}" "$@"')
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    sampler, refused = sampling("py-spy", os.getpid(), None)
    assert isinstance(sampler, samplers._PySpy), refused
    while not Path(f"{sampler._file}.started").exists():
        assert sampler._process.poll() is None
        threading.Event().wait(0.005)
    flame = sampler.stop()
    assert (flame.sampler, flame.samples) == ("py-spy", 7)
    assert not sampler._file.parent.exists()


@pytest.mark.skipif(shutil.which("py-spy") is None, reason="py-spy is not installed")
def test_the_real_py_spy_sees_the_handler_or_says_why_not(busy: Server) -> None:
    sampler, refused = sampling("py-spy", busy.pid, busy)
    if sampler is None:
        assert refused
        return
    sampler.stop()
    flame = _sampled(busy, "py-spy")
    assert flame.sampler == "py-spy"
    assert [child.name for child in flame.root.children] == ["lanes"]
    assert not any("run_forever" in line for line in collapsed(flame.root))


def test_an_error_of_a_sampler_is_a_sentence() -> None:
    with pytest.raises(SamplerError, match="only in servers that this command started"):
        samplers._Inside(None, 100.0)
