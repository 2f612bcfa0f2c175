"""Callbacks of the event loop: `call_soon` and its handle.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import contextvars
import weakref
from typing import Any

import pytest
from support.loops import LoopFactory, Run


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
