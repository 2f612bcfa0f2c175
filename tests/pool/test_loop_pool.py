"""LoopPool: coroutines on event loops of its own, asked for from anywhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import math
import os
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import treadle
from treadle import JoinHandle, LoopPool

LANES = 4
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


@pytest.fixture
def pool() -> Iterator[LoopPool]:
    with LoopPool(lanes=LANES) as pool:
        yield pool


@pytest.fixture(params=[treadle.run, asyncio.run])
def run(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return request.param  # type: ignore[no-any-return]


async def value(thing: Any) -> Any:
    await asyncio.sleep(0)
    return thing


async def fails(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def where() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


class Gate:
    """Coroutines that wait for the test, wherever they run."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.ended: list[str] = []
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def wait(self, name: str = "") -> str:
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        self.entered.release()
        try:
            await event.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("done")
        return name

    def wait_entered(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.entered.acquire(timeout=10)

    def open(self) -> None:
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)


# -- outcomes -------------------------------------------------------------------------------------


def test_results_come_to_sync_code(pool: LoopPool) -> None:
    handle = pool.spawn(value(7))
    assert handle.result(10) == 7
    assert handle.result() == 7
    assert handle.exception() is None
    assert handle.done()
    assert not handle.cancelled()
    assert not handle.cancel()
    assert "finished" in repr(handle)


def test_exceptions_come_with_their_traceback(pool: LoopPool) -> None:
    mistake = KeyError("on purpose")
    handle = pool.spawn(fails(mistake))
    assert handle.exception(10) is mistake
    with pytest.raises(KeyError) as raised:
        handle.result(10)
    assert raised.value is mistake
    assert "fails" in [entry.name for entry in raised.traceback]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_would_end_the_process_ends_no_lane(pool: LoopPool, kind: type[BaseException]) -> None:
    for _ in range(2 * LANES):
        assert type(pool.spawn(fails(kind(3))).exception(10)) is kind
    assert pool.map(value, range(8)) == list(range(8))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_what_would_end_the_process_in_the_first_step(
    kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    async def leave(_: object = None) -> None:
        raise kind(3)

    def at_once(_: object) -> Any:
        raise kind(4)

    with LoopPool(1) as pool:
        with pytest.raises(kind, match="3"):
            pool.spawn(leave()).result(10)
        with pytest.raises(kind, match="3"):
            pool.map(leave, [1])
        with pytest.raises(kind, match="4"):
            pool.map(at_once, [1])
        assert pool.spawn(value(7)).result(10) == 7
        gc.collect()
    assert not caplog.text


def test_coroutines_await_handles(pool: LoopPool, run: Callable[..., Any]) -> None:
    async def main() -> None:
        handle = pool.spawn(value(7))
        assert await asyncio.gather(handle, handle, handle) == [7, 7, 7]
        assert await handle == 7
        with pytest.raises(KeyError):
            await pool.spawn(fails(KeyError()))
        assert await asyncio.wait_for(pool.spawn(value(8)), 10) == 8
        assert await asyncio.gather(*(pool.spawn(value(n)) for n in range(50))) == list(range(50))

    run(main())


def test_coroutines_of_the_pool_spawn_and_await(pool: LoopPool) -> None:
    async def outer(depth: int) -> int:
        if not depth:
            return 1
        return sum(await asyncio.gather(*(pool.spawn(outer(depth - 1)) for _ in range(3))))

    assert pool.spawn(outer(4)).result(20) == 81


def test_many_threads_wait_for_one_handle(pool: LoopPool) -> None:
    gate = Gate()
    handle = pool.spawn(gate.wait("x"))
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(handle.result, 10) for _ in range(4)]
        gate.wait_entered()
        gate.open()
        assert [future.result(10) for future in waiting] == ["x"] * 4


def test_timeouts(pool: LoopPool) -> None:
    gate = Gate()
    handle = pool.spawn(gate.wait())
    for ask in (handle.result, handle.exception):
        with pytest.raises(TimeoutError):
            ask(0.01)
        with pytest.raises(TimeoutError):
            ask(0)
        with pytest.raises(ValueError, match="timeout value must be a non-negative number"):
            ask(-1)
        with pytest.raises(ValueError, match="Invalid value NaN"):
            ask(math.nan)
        with pytest.raises(TypeError):
            ask("soon")  # type: ignore[arg-type]
    gate.wait_entered()
    gate.open()
    assert handle.result(math.inf) == ""


def test_a_handle_has_no_reference_once_it_is_done(pool: LoopPool) -> None:
    handle = pool.spawn(value(1))
    handle.result(10)
    known = weakref.ref(handle)
    pool.spawn(value(2)).result(10)
    del handle
    for _ in range(100):
        gc.collect()
        if known() is None:
            break
        pool.map(value, range(LANES))
    assert known() is None


def test_an_exception_that_nobody_fetches_is_reported(
    pool: LoopPool, caplog: pytest.LogCaptureFixture
) -> None:
    handle = pool.spawn(fails(KeyError("unheard")))
    done = threading.Event()
    handle.add_done_callback(lambda _: done.set())
    assert done.wait(10)
    del handle
    for _ in range(100):
        gc.collect()
        if "never retrieved" in caplog.text:
            break
        pool.map(value, range(LANES))
    assert "The exception of work in a LoopPool was never retrieved" in caplog.text
    assert "KeyError: 'unheard'" in caplog.text


def test_callbacks(pool: LoopPool, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    handle = pool.spawn(gate.wait("x"))
    called: list[Any] = []
    over = threading.Event()

    def removed(_: object) -> None:
        called.append("removed")

    def broken(_: object) -> None:
        raise ValueError("in a callback")

    handle.add_done_callback(lambda h: called.append(h.result()))
    handle.add_done_callback(removed)
    handle.add_done_callback(broken)
    handle.add_done_callback(lambda _: over.set())
    assert handle.remove_done_callback(removed) == 1
    gate.wait_entered()
    gate.open()
    assert over.wait(10)
    assert called == ["x"]
    assert "in a callback" in caplog.text
    handle.add_done_callback(called.append)
    assert called[-1] is handle
    with pytest.raises(TypeError, match="a callable object was expected"):
        handle.add_done_callback(3)  # type: ignore[arg-type]


def test_a_callback_that_would_end_the_process_keeps_no_one_from_being_told(
    pool: LoopPool, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    handle = pool.spawn(gate.wait("x"))
    told = threading.Event()

    def leave(_: object) -> None:
        raise SystemExit(3)

    handle.add_done_callback(leave)
    handle.add_done_callback(lambda _: told.set())
    gate.wait_entered()
    gate.open()
    assert told.wait(10)
    assert "SystemExit: 3" in caplog.text
    with pytest.raises(SystemExit):
        handle.add_done_callback(leave)


def test_a_callback_added_on_a_loop_is_called_there(
    pool: LoopPool, run: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        gate = Gate()
        loop = asyncio.get_running_loop()
        handle = pool.spawn(gate.wait("x"))
        called: list[Any] = []
        over = asyncio.Event()

        def callback(done: JoinHandle[str]) -> None:
            assert asyncio.get_running_loop() is loop
            called.append((done.result(), variable.get()))

        def broken(_: object) -> None:
            raise ValueError("in a callback")

        variable.set("then")
        handle.add_done_callback(callback)
        handle.add_done_callback(called.append)
        handle.add_done_callback(broken)
        handle.add_done_callback(lambda _: over.set())
        assert handle.remove_done_callback(called.append) == 1
        variable.set("later")
        gate.wait_entered()
        gate.open()
        await over.wait()
        assert called == [("x", "then")]
        assert "in a callback" in caplog.text
        handle.add_done_callback(callback)
        assert len(called) == 1
        await asyncio.sleep(0)
        assert called[1:] == [("x", "later")]

    run(asyncio.wait_for(main(), 10))


def test_asyncio_waits_for_handles(pool: LoopPool, run: Callable[..., Any]) -> None:
    async def main() -> None:
        gates = [Gate(), Gate()]
        first, second = (pool.spawn(gate.wait(str(n))) for n, gate in enumerate(gates))
        for gate in gates:
            gate.wait_entered()
        first.add_done_callback(lambda _: order.append("first"))
        gates[0].open()
        done, pending = await asyncio.wait([first, second], return_when="FIRST_COMPLETED")
        assert (done, pending) == ({first}, {second})
        gates[1].open()
        assert (await asyncio.wait([first, second]))[0] == {first, second}
        results = [await next_ for next_ in asyncio.as_completed([first, second])]
        assert sorted(results) == ["0", "1"]

    order: list[str] = []
    run(asyncio.wait_for(main(), 10))
    assert order == ["first"]


def test_map_does_not_need_the_loop_it_blocks(pool: LoopPool, run: Callable[..., Any]) -> None:
    async def main() -> None:
        assert pool.map(value, range(4)) == list(range(4))
        assert pool.spawn(value(7)).result(10) == 7

    run(main())


# -- as futures of concurrent.futures --------------------------------------------------------------


def test_concurrent_futures_waits_for_handles(pool: LoopPool) -> None:
    gate, error = Gate(), OSError("on purpose")
    late = pool.spawn(gate.wait("late")).future()
    early = pool.spawn(value("early")).future()
    failed = pool.spawn(fails(error)).future()
    done, rest = concurrent.futures.wait([early, failed], 10)
    assert (done, rest) == ({early, failed}, set())
    assert early.result() == "early"
    assert failed.exception() is error
    order = concurrent.futures.as_completed([late, early], timeout=10)
    assert next(order) is early
    gate.wait_entered()
    gate.open()
    assert [future.result() for future in order] == ["late"]
    handle = pool.spawn(value("done"))
    handle.result(10)
    assert handle.future().result(0) == "done"


@pytest.mark.parametrize("whose", ["handle", "future"])
def test_a_cancelled_future_is_cancelled_work(pool: LoopPool, whose: str) -> None:
    gate = Gate()
    handle = pool.spawn(gate.wait())
    future = handle.future()
    gate.wait_entered()
    assert handle.cancel() if whose == "handle" else future.cancel()
    done, _ = concurrent.futures.wait([future], 10)
    assert done == {future}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(0)
    with pytest.raises(concurrent.futures.CancelledError):
        handle.result(10)
    assert gate.ended == ["cancelled"]


def test_a_future_that_is_cancelled_hides_no_failure(pool: LoopPool) -> None:
    inside, release = threading.Event(), threading.Event()

    async def work() -> None:
        inside.set()
        release.wait(10)
        raise OSError("on purpose")

    handle = pool.spawn(work())
    future = handle.future()
    assert inside.wait(10)
    assert future.cancel()
    release.set()
    with pytest.raises(OSError, match="on purpose"):
        handle.result(10)
    assert future.cancelled()


def test_an_event_loop_wraps_the_future_of_a_handle(
    pool: LoopPool, run: Callable[..., Any]
) -> None:
    async def main() -> Any:
        return await asyncio.wrap_future(pool.spawn(value(7)).future())

    assert run(main()) == 7


# -- cancelling -----------------------------------------------------------------------------------


def test_cancel(pool: LoopPool, run: Callable[..., Any]) -> None:
    gate = Gate()
    handle = pool.spawn(gate.wait())
    gate.wait_entered()
    assert handle.cancel("enough")
    with pytest.raises(concurrent.futures.CancelledError):
        handle.result(10)
    with pytest.raises(concurrent.futures.CancelledError):
        handle.exception(10)
    assert gate.ended == ["cancelled"]
    assert handle.cancelled()

    async def main() -> None:
        with pytest.raises(asyncio.CancelledError):
            await handle

    run(main())


def test_cancel_before_the_first_step(pool: LoopPool) -> None:
    inside, release = threading.Event(), threading.Event()
    blocked = []

    async def block() -> None:
        inside.set()
        release.wait(10)

    for _ in range(LANES):
        blocked.append(pool.spawn(block()))
        assert inside.wait(10)
        inside.clear()
    started: list[bool] = []

    async def start() -> None:
        started.append(True)

    handle = pool.spawn(start())
    assert handle.cancel()
    release.set()
    with pytest.raises(concurrent.futures.CancelledError):
        handle.result(10)
    assert not started


def test_one_cancellation_during_the_first_step_is_one(pool: LoopPool) -> None:
    inside, release = threading.Event(), threading.Event()

    async def work() -> tuple[object, ...]:
        inside.set()
        release.wait(10)
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError as error:
            for _ in range(5):
                await asyncio.sleep(0)  # a second one would end it here
            task = asyncio.current_task()
            assert task is not None
            return (task.cancelling(), *error.args)
        return ()

    handle = pool.spawn(work())
    assert inside.wait(10)
    assert handle.cancel("enough")
    release.set()
    assert handle.result(10) == (1, "enough")


def test_cancelling_who_awaits_cancels_the_work_and_a_shield_prevents_it(
    pool: LoopPool, run: Callable[..., Any]
) -> None:
    gate = Gate()

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.spawn(gate.wait()), 0.01)
        kept = pool.spawn(gate.wait("kept"))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(kept), 0.01)
        assert not kept.done()
        gate.wait_entered(2)
        gate.open()
        assert await kept == "kept"

    run(main())
    assert sorted(gate.ended) == ["cancelled", "done"]


def test_who_is_cancelled_while_awaiting_goes_on_when_the_work_has_ended(
    pool: LoopPool, run: Callable[..., Any]
) -> None:
    async def main() -> None:
        asked, finish = threading.Event(), threading.Event()
        entered = Gate()

        async def work(answer: str) -> str:
            try:
                return await entered.wait()
            except asyncio.CancelledError:
                asked.set()
                await asyncio.to_thread(finish.wait, 10)
                if not answer:
                    raise
                return answer

        async def wait_for(handle: JoinHandle[str]) -> str:
            return await handle

        for answer in ("all the same", ""):
            asked.clear()
            finish.clear()
            handle = pool.spawn(work(answer))
            entered.wait_entered()
            waiting = asyncio.create_task(wait_for(handle))
            await asyncio.sleep(0)
            assert waiting.cancel("enough")
            assert asked.wait(10)
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            finish.set()
            if answer:
                assert await waiting == answer
            else:
                with pytest.raises(asyncio.CancelledError, match="enough"):
                    await waiting
                assert waiting.cancelled()
                assert handle.cancelled()
                with pytest.raises(concurrent.futures.CancelledError, match="enough"):
                    handle.result()

    run(asyncio.wait_for(main(), 20))


def test_dropping_a_handle_cancels_nothing(pool: LoopPool) -> None:
    gate = Gate()
    pool.spawn(gate.wait())
    gc.collect()
    gate.wait_entered()
    gc.collect()
    gate.open()
    pool.close()
    assert gate.ended == ["done"]


# -- where and how it runs ------------------------------------------------------------------------


def test_the_least_loaded_lane_is_taken(pool: LoopPool) -> None:
    gate = Gate()
    names: list[str] = []

    async def work() -> None:
        names.append(threading.current_thread().name)
        await gate.wait()

    for _ in range(3 * LANES):
        pool.spawn(work())
    gate.wait_entered(3 * LANES)
    assert Counter(names) == {f"treadle-pool-{index}": 3 for index in range(LANES)}
    assert f"running={3 * LANES}" in repr(pool)
    gate.open()


def test_every_lane_has_a_loop_of_its_own(pool: LoopPool) -> None:
    async def look() -> tuple[object, str]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.01)
        assert asyncio.get_running_loop() is loop
        return loop, threading.current_thread().name

    seen = set(pool.map(look_at(look), range(40)))
    assert len(seen) == LANES
    assert all(isinstance(loop, treadle.EventLoop) for loop, _ in seen)


def look_at(look: Callable[[], Any]) -> Callable[[int], Any]:
    return lambda _: look()


def test_context_variables_are_the_callers(pool: LoopPool) -> None:
    async def look(_: int = 0) -> str:
        before = variable.get()
        variable.set("changed")
        await asyncio.sleep(0)
        return before

    variable.set("mine")
    assert pool.spawn(look()).result(10) == "mine"
    assert pool.map(look, range(20), limit=2) == ["mine"] * 20
    assert variable.get() == "mine"


# -- map ------------------------------------------------------------------------------------------


def test_map_keeps_the_order(pool: LoopPool) -> None:
    async def work(number: int) -> int:
        await asyncio.sleep((number * 7 % 5) / 1000)
        return number * number

    assert pool.map(work, range(100)) == [n * n for n in range(100)]
    assert pool.map(work, iter([3, 2, 1])) == [9, 4, 1]
    assert pool.map(work, []) == []
    assert pool.map(lambda n: pool.spawn(value(n)), range(5)) == list(range(5))


@pytest.mark.parametrize("limit", [1, 3])
def test_map_is_bounded(pool: LoopPool, limit: int) -> None:
    lock = threading.Lock()
    now, most = 0, 0

    async def work(_: int) -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        await asyncio.sleep(0.001)
        with lock:
            now -= 1

    pool.map(work, range(30), limit=limit)
    assert most == limit


def test_the_first_error_cancels_the_rest(pool: LoopPool) -> None:
    gate = Gate()
    calls: list[int] = []

    async def work(number: int) -> None:
        calls.append(number)
        if number == 3:
            gate.wait_entered(3)
            raise KeyError("third")
        await gate.wait()

    with pytest.raises(KeyError, match="third"):
        pool.map(work, range(1000), limit=4)
    assert gate.ended == ["cancelled"] * 3
    assert sorted(calls) == [0, 1, 2, 3]


def test_map_refuses_what_makes_no_sense(pool: LoopPool) -> None:
    with pytest.raises(TypeError, match="a callable object was expected"):
        pool.map(3, [])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="limit must be greater than 0"):
        pool.map(value, [1], limit=0)
    with pytest.raises(TypeError):
        pool.map(value, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        pool.map(lambda n: n, [1])  # type: ignore[arg-type, return-value]


# -- bad use --------------------------------------------------------------------------------------


@pytest.mark.parametrize("thing", [None, 3, value, print])
def test_what_is_no_coroutine(pool: LoopPool, thing: Any) -> None:
    with pytest.raises(TypeError, match="a coroutine was expected, got"):
        pool.spawn(thing)


def test_a_coroutine_twice(pool: LoopPool) -> None:
    gate = Gate()
    coroutine = gate.wait()
    handle = pool.spawn(coroutine)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        pool.spawn(coroutine)
    gate.wait_entered()
    gate.open()
    handle.result(10)
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        pool.spawn(coroutine)


def test_waiting_on_the_lane_that_is_to_produce_it(pool: LoopPool) -> None:
    async def wait_for_itself() -> None:
        own = LoopPool(1)
        try:

            async def inner() -> None:
                handle = own.spawn(value(1))
                for ask in (handle.result, handle.exception):
                    with pytest.raises(RuntimeError, match="await the handle instead"):
                        ask(5)
                assert await handle == 1
                assert handle.result() == 1
                for refused in (own.close, own.shutdown, lambda: own.map(value, [1])):
                    with pytest.raises(RuntimeError, match="on a thread of the pool"):
                        refused()

            await own.spawn(inner())
        finally:
            own.close()

    pool.spawn(wait_for_itself()).result(20)


def test_awaiting_itself(pool: LoopPool) -> None:
    async def work() -> None:
        while not handles:  # noqa: ASYNC110 - the test's thread appends
            await asyncio.sleep(0)
        await handles[0]

    handles: list[JoinHandle[None]] = []
    handles.append(pool.spawn(work()))
    with pytest.raises(RuntimeError, match="Task cannot await on itself"):
        handles[0].result(10)


@pytest.mark.parametrize(
    ("lanes", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)]
)
def test_how_many_lanes(lanes: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="lanes must be"):
        LoopPool(lanes)


# -- the end --------------------------------------------------------------------------------------


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
    for wrong in (-1, math.nan):
        with pytest.raises(ValueError):  # noqa: PT011 - two texts, tested above
            pool.shutdown(wrong)


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


def test_a_pool_that_is_forgotten_finishes_its_work_and_ends() -> None:
    before = threading.active_count()
    gate = Gate()
    pool = LoopPool(2)
    handle = pool.spawn(gate.wait("x"))
    gate.wait_entered()
    del pool
    gc.collect()
    gate.open()
    assert handle.result(10) == "x"
    deadline = time.monotonic() + 10
    while threading.active_count() > before:
        assert time.monotonic() < deadline
        time.sleep(0.001)


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


# -- many at once ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_eight_threads_spawn_into_four_lanes(pool: LoopPool) -> None:
    rounds = 400
    errors: list[BaseException] = []

    async def work(number: int) -> int:
        match number % 5:
            case 0:
                return number
            case 1:
                await asyncio.sleep(0)
                return number
            case 2:
                await asyncio.sleep(0.001)
                return number
            case 3:
                raise KeyError(number)
            case _:
                return await pool.spawn(value(number))

    def spawn_all() -> None:
        try:
            handles = [(n, pool.spawn(work(n))) for n in range(rounds)]
            for _, handle in handles[::7]:
                handle.cancel()
            for number, handle in handles:
                try:
                    assert handle.result(20) == number
                except KeyError:
                    assert number % 5 == 3
                except concurrent.futures.CancelledError:
                    assert number % 7 == 0
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=spawn_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert "running=0" in repr(pool)
