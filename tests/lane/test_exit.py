"""A process leaves in silence, whatever loops it made."""

from __future__ import annotations

import pytest
from support.cli import RunCli


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
def test_a_loop_that_never_ran_does_not_disturb_the_exit(run_cli: RunCli, made: str) -> None:
    program = f"import asyncio, treadle; {made}"
    command = run_cli.python(["-W", "ignore", "-c", program], listens=False)
    assert (command.wait(), command.stderr) == (0, "")


AT_WORK = """
import asyncio, select, threading, treadle

working = threading.Semaphore(0)

async def in_a_task():
    working.release()
    while True:
        pass

async def in_a_callback():
    asyncio.get_running_loop().call_soon(callback)
    await asyncio.Future()

def callback():
    working.release()
    while True:
        select.select([], [], [], 0)  # lets go of the GIL, and takes it again

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


def test_loops_that_are_at_work_do_not_disturb_the_exit(run_cli: RunCli) -> None:
    """Before 3.14 CPython unwinds the stacks of such threads: with Rust's frames that is fatal."""
    for number in range(3):
        command = run_cli.python(["-c", AT_WORK], listens=False)
        assert (command.wait(), command.stderr) == (0, ""), f"run {number}"


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

async def idle():
    await asyncio.Future()

def begin():
    treadle.run(idle())

def close():
    loop = treadle.new_event_loop()
    loop.call_soon(print, Dropped())
    loop.close()

for kind, target in ((Named, begin), (threading.Thread, close)):
    kind(target=target, daemon=True).start()
    working.acquire()
"""


def test_loops_that_begin_or_close_do_not_disturb_the_exit(run_cli: RunCli) -> None:
    """There, too, Rust's frames are below those of the Python that runs."""
    command = run_cli.python(["-W", "ignore", "-c", BESIDE_A_RUN], listens=False)
    assert (command.wait(), command.stderr) == (0, "")
