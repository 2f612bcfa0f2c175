"""What all lanes refer to: nobody counts these references on the free-threaded build."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest

from treadle import FREE_THREADED

_HAS_MARK = sys.version_info >= (3, 14)


def _run(program: str) -> str:
    """What a program prints that ends well and without a word of complaint."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.skipif(not _HAS_MARK, reason="sys._is_immortal came with CPython 3.14")
def test_references_are_counted_until_there_is_a_loop() -> None:
    printed = _run("""
        import asyncio, sys, _asyncio, treadle
        from treadle._treadle import Handle
        shared = (
            asyncio, vars(asyncio), asyncio.sleep, asyncio.Queue, asyncio.events.get_running_loop,
            _asyncio.Task, _asyncio.Future, treadle.Request, Handle,
        )
        def step_class():
            seen = []
            class Stub:
                def get_debug(self):
                    return False
                def call_soon(self, callback, *, context):
                    seen.append(type(callback))
            async def nothing():
                pass
            coroutine = nothing()
            task = asyncio.Task(coroutine, loop=Stub())
            task._log_destroy_pending = False
            coroutine.close()
            return seen[0]
        shared = (*shared, step_class())
        print(any(map(sys._is_immortal, shared)))
        treadle.new_event_loop().close()
        print(*map(sys._is_immortal, shared))
    """)
    before, after = printed.splitlines()
    assert before == "False"
    assert set(after.split()) == {str(FREE_THREADED)}


def test_what_asyncio_holds_is_let_go_at_the_end() -> None:
    printed = _run("""
        import asyncio, gc, treadle
        class Held:
            def __init__(self, name):
                self.name = name
            def __del__(self):
                print(self.name)
        asyncio.held = Held("package")
        asyncio.events.held = Held("module")
        treadle.run(asyncio.sleep(0))
        gc.collect()
        print("end")
    """)
    assert printed.splitlines()[0] == "end"
    assert set(printed.splitlines()[1:]) == {"package", "module"}


def test_a_function_of_asyncio_can_still_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    import treadle

    async def instead(delay: float) -> str:
        return f"not {delay}"

    async def main() -> str:
        return await asyncio.sleep(0)  # type: ignore[return-value]

    monkeypatch.setattr(asyncio, "sleep", instead)
    assert treadle.run(main()) == "not 0"
