"""The load generator as a process: what it tells, how it ends, which jobs it refuses."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import msgspec
import pytest
from support.load import Address, Counting, is_gone, job
from support.misbehaving import Misbehaving, stall
from support.types import Serve

from treadle.profile.load import (
    LoadError,
    LoadRequest,
    LoadRun,
)

# Runs last as long as they are told, whatever the machine does meanwhile.
pytestmark = pytest.mark.timing


@pytest.fixture
def server(serve: Serve) -> Address:
    return serve(Counting().app).address


# -- what it tells ---------------------------------------------------------------------------------


def test_progress_is_told_and_the_phases_follow_each_other(server: Address) -> None:
    with LoadRun(job(server, "/a", warmup=0.1, duration=0.2, progress=0.02)) as run:
        told = list(run)
        result = run.result()
    assert told
    assert all(each.planned == pytest.approx(0.3) for each in told)
    assert [each.elapsed for each in told] == sorted(each.elapsed for each in told)
    order = ["warmup", "measure", "finish"]
    phases = [order.index(each.phase) for each in told]
    assert phases == sorted(phases)
    assert {0, 1} <= set(phases)
    assert result.completed > 0
    assert any(each.rate > 0 and 0 < each.p50 <= each.p99 for each in told)


def test_the_process_speaks_lines_of_json(server: Address) -> None:
    line = msgspec.json.encode(job(server, "/a", progress=0.1)) + b"\n"
    with subprocess.Popen(
        [sys.executable, "-m", "treadle.profile.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        told = [json.loads(each) for each in process.stdout]
    assert process.returncode == 0
    assert [key for each in told for key in each][-1] == "result"
    assert {key for each in told[:-1] for key in each} == {"progress"}


def test_the_size_of_a_result_does_not_follow_its_length(server: Address) -> None:
    sizes = []
    for duration in (0.2, 0.4):
        with LoadRun(job(server, "/a", duration=duration, slice=1e-6)) as run:
            result = run.result()
            assert len(result.slices) <= 481
            sizes.append(len(msgspec.json.encode(result)))
    assert max(sizes) < 200_000


def test_the_generator_runs_on_the_cpus_it_is_given(server: Address) -> None:
    cpu = min(os.sched_getaffinity(0))
    with LoadRun(job(server, "/a", duration=60.0, cpus=(cpu,))) as run:
        next(iter(run))
        assert os.sched_getaffinity(run.pid) == {cpu}


# -- how it ends -----------------------------------------------------------------------------------


def test_a_stop_ends_the_run_with_what_was_seen(server: Address) -> None:
    with LoadRun(job(server, "/a", duration=60.0, progress=0.05)) as run:
        pid = run.pid
        for progress in run:
            if progress.completed:
                run.stop()
        result = run.result()
    assert result.ending == "stopped"
    assert result.completed > 0
    assert result.seconds < 30.0
    assert is_gone(pid)


def test_a_second_stop_does_not_wait_for_answers() -> None:
    with Misbehaving(stall) as server, LoadRun(job(server.address, duration=60, grace=60)) as run:
        next(iter(run))
        run.stop()
        next(each for each in run if each.phase == "finish")
        run.stop()
        result = run.result()
    assert result.ending == "stopped"
    assert result.unfinished == 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_stop(server: Address, signum: signal.Signals) -> None:
    with LoadRun(job(server, "/a", duration=60.0, progress=0.05)) as run:
        next(iter(run))
        os.kill(run.pid, signum)
        assert run.result().ending == "stopped"


def test_leaving_ends_the_process_however_that_comes(server: Address) -> None:
    class Enough(Exception):
        pass

    run = LoadRun(job(server, "/a", duration=60.0))
    with contextlib.suppress(Enough), run:
        pid = run.pid
        raise Enough
    assert is_gone(pid)
    with LoadRun(job(server, "/a", duration=60.0)) as run:
        pid = run.pid
        next(iter(run))
    assert is_gone(pid)


def test_the_generator_does_not_outlive_its_parent(server: Address) -> None:
    program = (
        "import msgspec, os, sys\n"
        "from treadle.profile.load import LoadJob, LoadRun\n"
        "run = LoadRun(msgspec.json.decode(sys.argv[1], type=LoadJob)).__enter__()\n"
        "next(iter(run))\n"
        "print(run.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    sent = msgspec.json.encode(job(server, "/a", duration=60.0)).decode()
    done = subprocess.run(
        [sys.executable, "-c", program, sent], capture_output=True, text=True, check=True
    )
    deadline = time.monotonic() + 10.0
    while not is_gone(int(done.stdout)):
        assert time.monotonic() < deadline, "it still runs"
        os.sched_yield()


def test_a_generator_that_is_killed_is_told(server: Address) -> None:
    with LoadRun(job(server, "/a", duration=60.0)) as run:
        os.kill(run.pid, signal.SIGKILL)
        with pytest.raises(LoadError, match="ended without a result: its exit status is -9"):
            run.result()


# -- jobs that cannot be done ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"connections": 0}, "connections must be from 1"),
        ({"duration": -1.0}, "duration must be a number of seconds"),
        ({"duration": 0.0}, "duration must be longer"),
        ({"rate": -5.0}, "the rate must be positive"),
        ({"requests": ()}, "the weights"),
        ({"requests": (LoadRequest(name="x", path="no slash"),)}, "cannot send the path"),
        ({"cpus": (100_000,)}, "Invalid argument"),
        ({"address": ("no such host.invalid", 80)}, "was not found"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused_in_one_sentence(
    options: dict[str, Any], said: str
) -> None:
    given = {"address": ("127.0.0.1", 9), **options}
    with LoadRun(job(**given)) as run:
        pid = run.pid
        with pytest.raises(LoadError, match=said) as caught:
            run.result()
    assert "\n" not in str(caught.value)
    assert is_gone(pid)


def test_a_run_is_entered_once_and_used_inside() -> None:
    run = LoadRun(job(("127.0.0.1", 9)))
    for use in (run.result, run.stop, lambda: run.pid):
        with pytest.raises(RuntimeError, match="does not run"):
            use()
    with run, pytest.raises(RuntimeError, match="once"):
        run.__enter__()
