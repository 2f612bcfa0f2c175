"""A process leaves in silence, whatever loops it made."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "made",
    [
        "treadle.new_event_loop()",
        "loop = treadle.new_event_loop()",
        "asyncio.set_event_loop(treadle.new_event_loop())",
        "loop = treadle.new_event_loop(); loop.close()",
        "treadle.new_event_loop().create_future()",
        "asyncio.Runner(loop_factory=treadle.new_event_loop).get_loop()",
    ],
)
def test_a_loop_that_never_ran_does_not_disturb_the_exit(made: str) -> None:
    assert _run(f"import asyncio, treadle; {made}") == (0, "")


AT_WORK = """
import asyncio, threading, time, treadle

working = threading.Semaphore(0)

async def in_a_task():
    working.release()
    while True:
        pass

async def in_a_callback():
    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(60)

def callback():
    working.release()
    while True:
        time.sleep(0)

def in_an_expression():
    class Compared:
        def __eq__(self, other):
            working.release()
            while True:
                pass

    async def compare():
        Compared() == 1

    return compare()

def run(main):
    asyncio.run(main(), loop_factory=treadle.new_event_loop)

for main in (in_a_task, in_a_callback, in_an_expression):
    threading.Thread(target=run, args=(main,), daemon=True).start()
    working.acquire()
"""


def test_loops_that_are_at_work_do_not_disturb_the_exit() -> None:
    """Before 3.14 CPython unwinds the stacks of such threads: with Rust's frames that is fatal."""
    for number in range(3):
        assert _run(AT_WORK) == (0, ""), f"run {number}"


BESIDE_A_RUN = """
import asyncio, threading, treadle

working = threading.Semaphore(0)

def work(*_):
    working.release()
    while True:
        pass

class Dropped:
    __del__ = work

class Named(threading.Thread):
    name = property(work)

def begin():
    treadle.run(asyncio.sleep(60))

def close():
    loop = treadle.new_event_loop()
    loop.call_soon(print, Dropped())
    loop.close()

for kind, target in ((Named, begin), (threading.Thread, close)):
    kind(target=target, daemon=True).start()
    working.acquire()
"""


def test_loops_that_begin_or_close_do_not_disturb_the_exit() -> None:
    """There, too, Rust's frames are below those of the Python that runs."""
    assert _run(BESIDE_A_RUN) == (0, "")


def _run(program: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stderr
