"""The end of a pool: the block, the interpreter, a child process."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator

import pytest
from support.pools import Gate, value

from treadle import LoopPool


def test_the_block_waits_for_the_work() -> None:
    with LoopPool(2) as pool:
        handles = [pool.spawn(asyncio.sleep(0.02, n)) for n in range(10)]
    assert [handle.result(0) for handle in handles] == list(range(10))
    pool.close()
    refused = value(1)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.spawn(refused)
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        pool.map(value, [1])


def test_an_exception_in_the_block_cancels_the_work() -> None:
    gate = Gate()
    pool = LoopPool(2)
    handle = pool.spawn(gate.wait())

    def leave() -> None:
        with pool:
            gate.wait_entered()
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert handle.cancelled()
    assert gate.ended == ["cancelled"]


def test_shutdown_cancels_what_takes_too_long() -> None:
    gate = Gate()
    pool = LoopPool(2)
    short, long = pool.spawn(asyncio.sleep(0.01, "short")), pool.spawn(gate.wait())
    gate.wait_entered()
    pool.shutdown(0.2)
    assert short.result(0) == "short"
    assert long.cancelled()
    with pytest.raises(ValueError, match="Invalid value NaN"):
        pool.shutdown(math.nan)


@pytest.mark.parametrize("timeout", [0, -0.001, -math.inf])
def test_shutdown_at_a_deadline_that_has_passed_cancels_at_once(timeout: float) -> None:
    gate = Gate()
    pool = LoopPool(2)
    handle = pool.spawn(gate.wait())
    gate.wait_entered()
    pool.shutdown(timeout)
    assert handle.cancelled()


def test_what_coroutines_left_on_their_loop_is_ended() -> None:
    ended: list[str] = []

    async def left() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.append("ended")

    async def leave() -> None:
        asyncio.get_running_loop().left = asyncio.create_task(left())  # type: ignore[attr-defined]
        await asyncio.sleep(0)

    with LoopPool(1) as pool:
        pool.spawn(leave())
    assert ended == ["ended"]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_would_end_the_process_does_not_keep_others_from_their_end(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def raises() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            raise kind

    async def slow() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0.001)
            ended.append("task")

    async def generate() -> AsyncIterator[int]:
        try:
            yield 0
        finally:
            ended.append("generator")

    async def leave() -> None:
        left = [asyncio.create_task(raises()), asyncio.create_task(slow())]
        left.append(generate())  # type: ignore[arg-type]
        await anext(left[-1])  # type: ignore[call-overload]
        asyncio.get_running_loop().left = left  # type: ignore[attr-defined]

    with LoopPool(1) as pool:
        pool.spawn(leave()).result()
    assert ended == ["task", "generator"]
    (record,) = caplog.records
    assert record.message.startswith("unhandled exception during LoopPool shutdown")
    assert record.exc_info
    assert record.exc_info[0] is kind


def test_a_pool_that_is_forgotten_finishes_its_work_and_ends() -> None:
    before = threading.enumerate()
    gate = Gate()
    pool = LoopPool(2)
    lanes = [thread for thread in threading.enumerate() if thread not in before]
    assert lanes
    handle = pool.spawn(gate.wait("x"))
    gate.wait_entered()
    del pool
    gc.collect()
    gate.open()
    assert handle.result(10) == "x"
    for lane in lanes:
        lane.join(10)
    assert not [lane for lane in lanes if lane.is_alive()]
    assert threading.active_count() <= len(before)


def test_a_pool_may_be_forgotten_where_another_thread_has_the_lock_of_its_lane() -> None:
    """The collector comes at any moment; a thread that it interrupts goes on only after it."""
    pool = LoopPool(1)
    (lane,) = pool._lanes
    forgets = [pool]
    del pool
    with lane._lock:
        thread = threading.Thread(target=forgets.clear, daemon=True)
        thread.start()
        thread.join(10)
        assert not thread.is_alive()
    lane.thread.join(10)
    assert not lane.thread.is_alive()


def test_pools_leave_no_descriptor_behind() -> None:
    LoopPool(1).close()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        with LoopPool(3) as pool:
            pool.map(value, range(10))
    assert len(os.listdir("/proc/self/fd")) == before


def python(source: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=25, check=False
    )


LEFT = """
import asyncio, threading, time, treadle
pool = treadle.LoopPool(3)
ended = []
entered = threading.Event()
async def forever():
    entered.set()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        print("ended")
handle = pool.spawn(forever())
def wait():
    try: handle.result()
    except Exception: pass
threading.Thread(target=wait, daemon=True).start()
pool.spawn(asyncio.sleep(0)).result()
entered.wait()
"""


def test_an_interpreter_that_leaves_cancels_what_runs() -> None:
    done = python(LEFT)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


ENDING = """
import asyncio, threading, treadle
pool = treadle.LoopPool(1)
ending = threading.Event()
async def left():
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        ending.set()
        await asyncio.sleep(0.05)
        print("ended")
async def leave():
    await asyncio.to_thread(int)  # so that there are threads to end, too
    asyncio.get_running_loop().left = asyncio.create_task(left())
    await asyncio.sleep(0)
pool.spawn(leave()).result()
del pool
ending.wait()
"""


def test_an_interpreter_that_leaves_while_a_pool_ends_waits_for_it() -> None:
    done = python(ENDING)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_a_coroutine_that_blocks_does_not_keep_the_interpreter() -> None:
    source = LEFT + (
        "import treadle.pool_lane\n"
        "treadle.pool_lane._EXIT_PATIENCE = 0.1\n"
        "async def block(): time.sleep(3600)\n"
        "pool.spawn(block())\n"
    )
    done = python(source)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_child_is_told() -> None:
    done = python(
        LEFT + "import os, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "coroutine = asyncio.sleep(0)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    for ask in (lambda: pool.spawn(coroutine), handle.result):\n"
        "        try: ask()\n"
        "        except RuntimeError as error: print(error, flush=True)\n"
        "    with treadle.LoopPool(1) as own: print(own.spawn(asyncio.sleep(0, 'own')).result())\n"
        "    pool.close()\n"
        "    raise SystemExit(7)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)\n"
        "coroutine.close()\n"
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "a LoopPool does not survive fork: make one in the child",
        "the work of a LoopPool goes on in the process that forked",
        "own",
        "7",
        "ended",
    ]


HELD = """
import asyncio, contextlib, faulthandler, os, threading, warnings, treadle
from treadle import pool as module
warnings.simplefilter('ignore')
pool = treadle.LoopPool(1)
done, pending = pool.spawn(asyncio.sleep(0, 'done')), pool.spawn(asyncio.Event().wait())
done.result()
async def wait(): await pending
def refused(ask, *args):
    try: ask(*args)
    except RuntimeError as error: print(error)
locks = module._claim_lock, pool._lock, pool._lanes[0]._lock, done._lock, pending._lock
with contextlib.ExitStack() as held:
    for lock in locks: held.enter_context(lock)
    child = os.fork()
    if not child:
        # On a thread, which cannot have any of the locks.
        faulthandler.dump_traceback_later(10, exit=True)
        def check():
            refused(pool.spawn, asyncio.sleep(0))
            refused(pending.result)
            refused(pending.cancel)
            refused(pending.add_done_callback, print)
            refused(asyncio.run, wait())
            pending.remove_done_callback(print)
            done.add_done_callback(lambda handle: print(handle.result()))
            done.remove_done_callback(print)
            print(done.cancel())
            pool.shutdown(0)
            with treadle.LoopPool(1) as own: print(own.spawn(asyncio.sleep(0, 'own')).result())
        thread = threading.Thread(target=check); thread.start(); thread.join()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    print(pool.spawn(asyncio.sleep(0, 'parent')).result())
"""


def test_a_child_forked_while_other_threads_hold_the_locks() -> None:
    done = python(HELD)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "a LoopPool does not survive fork: make one in the child",
        *["the work of a LoopPool goes on in the process that forked"] * 4,
        "done",
        "False",
        "own",
        "0",
        "parent",
    ]
