"""What comes of work on a pool: results, exceptions, callbacks, from anywhere."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import math
import threading
import traceback
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from support.pools import Gate, fails, value

from treadle import JoinHandle, LoopPool

LANES = 4
variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


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


def test_a_traceback_does_not_grow_with_those_who_ask(
    pool: LoopPool, run: Callable[..., Any]
) -> None:
    """Each sees the work's own frames and its own, and not those of who asked before."""
    handle = pool.spawn(fails(KeyError("on purpose")))

    def names(error: BaseException) -> list[str]:
        known = ("asks", "awaits", "fails")
        found = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
        return [name for name in found if name in known]

    def asks() -> list[str]:
        with pytest.raises(KeyError) as raised:
            handle.result(10)
        return names(raised.value)

    async def awaits() -> list[str]:
        with pytest.raises(KeyError) as raised:
            await handle
        return names(raised.value)

    async def main() -> None:
        for _ in range(3):
            assert await awaits() == ["awaits", "fails"]

    for _ in range(3):
        assert asks() == ["asks", "fails"]
    run(main())
    assert asks() == ["asks", "fails"]


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
        # As `concurrent.futures` and asyncio have it: a deadline may have passed.
        for passed in (0, -0.001, -1, -math.inf):
            with pytest.raises(TimeoutError):
                ask(passed)
        with pytest.raises(ValueError, match="Invalid value NaN"):
            ask(math.nan)
        with pytest.raises(TypeError):
            ask("soon")  # type: ignore[arg-type]
    gate.wait_entered()
    gate.open()
    assert handle.result(math.inf) == ""
    for passed in (0, -0.001, -1, -math.inf):
        assert handle.result(passed) == ""
        assert handle.exception(passed) is None
    for ask in (handle.result, handle.exception):
        with pytest.raises(ValueError, match="Invalid value NaN"):
            ask(math.nan)


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


@pytest.mark.parametrize("ask", ["result", "await", "future", "map"])
def test_what_is_raised_goes_with_who_caught_it(ask: str) -> None:
    """And what its traceback holds: nothing waits for the garbage collector."""

    class Raised(Exception):
        pass

    async def work(_: int = 0) -> None:
        await asyncio.sleep(0)
        raise Raised

    def catch(pool: LoopPool) -> weakref.ref[Raised] | None:
        async def wait() -> weakref.ref[Raised] | None:
            try:
                await pool.spawn(work())
            except Raised as error:
                return weakref.ref(error)
            return None

        try:
            match ask:
                case "result":
                    pool.spawn(work()).result()
                case "await":
                    return asyncio.run(wait())
                case "future":
                    pool.spawn(work()).future().result()
                case _:
                    pool.map(work, range(3))
        except Raised as error:
            return weakref.ref(error)
        return None

    gc.disable()
    try:
        with LoopPool(1) as pool:
            raised = catch(pool)
        assert raised is not None
        assert raised() is None
    finally:
        gc.enable()


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
