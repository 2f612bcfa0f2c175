import os
import subprocess
import sys
import time

import pytest

from profiling.cpu import (
    CpuMeter,
    process_seconds,
    process_tree,
    resident_bytes,
    schedstat_seconds,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

_BURNED = 0.05


def _burn() -> None:
    end = time.thread_time() + _BURNED
    while time.thread_time() < end:
        pass


@pytest.fixture
def child() -> subprocess.Popen[bytes]:
    """A process that has burned some CPU in a thread that ended, said so and waits."""
    program = (
        "import os, sys, threading, time\n"
        "def burn():\n"
        f"    end = time.thread_time() + {_BURNED}\n"
        "    while time.thread_time() < end: pass\n"
        "thread = threading.Thread(target=burn); thread.start(); thread.join()\n"
        # join() returns a moment before the kernel has let the thread go.
        "while len(os.listdir('/proc/self/task')) > 1: os.sched_yield()\n"
        "print(flush=True); sys.stdin.read()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_threads_that_ended_count(child: subprocess.Popen[bytes]) -> None:
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        whole, living = process_seconds(child.pid), schedstat_seconds(child.pid)
        assert whole is not None
        assert whole >= living + _BURNED * 0.9
        child.kill()


def test_the_clock_of_the_process_is_the_sum_over_its_threads() -> None:
    before = process_seconds(os.getpid()), schedstat_seconds(os.getpid())
    _burn()
    after = process_seconds(os.getpid()), schedstat_seconds(os.getpid())
    assert before[0] is not None
    assert after[0] is not None
    assert after[0] - before[0] == pytest.approx(after[1] - before[1], rel=0.1)


def test_children_belong_to_the_tree_and_their_memory_counts(
    child: subprocess.Popen[bytes],
) -> None:
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in process_tree(os.getpid())
        assert resident_bytes(os.getpid()) > resident_bytes(child.pid) > 1_000_000
        child.kill()


def test_a_process_that_is_gone_cannot_be_metered(child: subprocess.Popen[bytes]) -> None:
    with child:
        meter = CpuMeter(child.pid)
        assert meter.seconds() is not None
        child.kill()
    assert meter.seconds() is None
    assert process_tree(child.pid) == []
