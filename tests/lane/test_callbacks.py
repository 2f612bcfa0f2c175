"""Callbacks of the event loop: `call_soon` and its handle.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from functools import partial
from typing import Any

import pytest
from support.loops import LoopFactory, OwnThread, Run

from treadle import EventLoop

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


def test_callbacks_run_in_the_order_they_were_called_for(run: Run) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        order: list[object] = []
        done = loop.create_future()
        for n in range(5):
            loop.call_soon(order.append, n)
        loop.call_soon(lambda: (order.append("a"), loop.call_soon(order.append, "inner")))
        loop.call_soon(order.append, "b")
        loop.call_soon(loop.call_soon, loop.call_soon, done.set_result, None)
        await done
        return order

    assert run(main) == [0, 1, 2, 3, 4, "a", "b", "inner"]


def test_a_handle_behaves_as_asyncios(run: Run) -> None:
    async def main() -> tuple[Any, ...]:
        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        kept = loop.call_soon(print, 1, context=context)
        dropped = loop.call_soon(print, 2)
        before = (kept.cancelled(), repr(kept).startswith("<Handle print("))
        kept.cancel()
        dropped.cancel()
        dropped.cancel()
        after = (kept.cancelled(), "cancelled" in repr(dropped), kept.get_context() is context)
        weakref.ref(kept)
        return before + after

    assert run(main) == (False, True, True, True, True)


def test_what_a_cancelled_callback_held_is_let_go(run: Run) -> None:
    class Held:
        pass

    async def main() -> bool:
        held = Held()
        gone = weakref.ref(held)
        handle = asyncio.get_running_loop().call_soon(print, held)
        timer = asyncio.get_running_loop().call_later(60, print, held)
        del held
        handle.cancel()
        timer.cancel()
        return gone() is None

    assert run(main)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_what_cannot_be_called_is_refused_in_debug_mode(run: Run, method: str) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        when = () if "soon" in method else (1,)
        with pytest.raises(TypeError, match="a callable object was expected by") as said:
            getattr(loop, method)(*when, "not callable")
        with pytest.raises(TypeError, match="coroutines cannot be used with"):
            getattr(loop, method)(*when, main)
        return str(said.value)

    # asyncio's call_later names call_at too
    assert method.replace("call_later", "call_at") in run(main)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_a_closed_loop_takes_no_callbacks(factory: LoopFactory, method: str) -> None:
    loop = factory()
    loop.close()
    when = () if "soon" in method else (1,)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        getattr(loop, method)(*when, print)


class Gate:
    """Awaitable as a future is, and keeps the handles of the calls that wake whoever waits."""

    _asyncio_future_blocking = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: list[tuple[Any, Any]] = []
        self.came = asyncio.Event()
        self.is_open = False

    def __await__(self) -> Any:
        while not self.is_open:
            self._asyncio_future_blocking = True
            yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self.loop

    def add_done_callback(self, callback: Any, *, context: Any) -> None:
        self.waiting.append((callback, context))
        self.came.set()

    def cancel(self, msg: object = None) -> bool:
        return False

    def result(self) -> None:
        return None

    def wake(self) -> list[asyncio.Handle]:
        handles = [self.loop.call_soon(c, self, context=context) for c, context in self.waiting]
        self.waiting.clear()
        return handles


def test_who_wakes_a_task_may_take_it_back(run: Run) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        gate = Gate(loop)

        async def waiter() -> None:
            await asyncio.sleep(0.001)
            seen.append("waits")
            await gate
            seen.append("passed")

        task = loop.create_task(waiter())
        await gate.came.wait()
        wait = gate.waiting[0]
        for handle in gate.wake():
            handle.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        seen.append("taken back")
        gate.waiting.append(wait)
        gate.is_open = True
        gate.wake()
        await task
        return seen

    assert run(main) == ["waits", "taken back", "passed"]


def test_a_task_is_woken_in_its_turn_and_its_context(run: Run) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        order: list[object] = []
        first, second = loop.create_future(), loop.create_future()

        async def waiter(name: str, future: asyncio.Future[None]) -> None:
            variable.set(name)
            await future
            order.append((variable.get(), asyncio.current_task() is tasks[name]))

        tasks = {
            name: loop.create_task(waiter(name, future))
            for name, future in (("a", first), ("b", second), ("c", first))
        }
        await asyncio.sleep(0)
        loop.call_soon(order.append, "before")
        first.set_result(None)
        loop.call_soon(order.append, "between")
        second.set_result(None)
        tasks["c"].cancel()
        loop.call_soon(order.append, "after")
        outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
        order.append([type(outcome) for outcome in outcomes])
        return order

    a, b = ("a", True), ("b", True)
    outcomes = [type(None), type(None), asyncio.CancelledError]
    assert run(main) == ["before", a, "between", b, "after", outcomes]


@pytest.mark.parametrize("of", ["class", "instance"])
def test_a_loop_with_a_call_soon_of_its_own_is_given_every_handle(
    on_thread: OwnThread, of: str
) -> None:
    class Counting(EventLoop):
        handles: list[asyncio.Handle]

    def call_soon(self: Counting, *args: Any, **keywords: Any) -> Any:
        handle = EventLoop.call_soon(self, *args, **keywords)
        self.handles.append(handle)
        return handle

    async def main() -> list[asyncio.Handle]:
        loop: Any = asyncio.get_running_loop()
        future = loop.create_future()

        async def waiter() -> None:
            await future

        task = loop.create_task(waiter())
        await asyncio.sleep(0)
        loop.handles = []
        future.set_result(None)
        handles: list[asyncio.Handle] = loop.handles
        await task
        return handles

    def thread() -> list[asyncio.Handle]:
        loop = Counting()
        loop.handles = []
        target: Any = Counting if of == "class" else loop
        target.call_soon = call_soon if of == "class" else partial(call_soon, loop)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            return runner.run(main())

    handle, *_ = on_thread(thread)
    assert isinstance(handle, asyncio.Handle)
