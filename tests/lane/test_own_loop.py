"""What only our event loop promises.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import re
import threading
import warnings
import weakref
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.loops import OwnThread, open_descriptors

from treadle import EventLoop
from treadle._treadle import LoopCore


def test_a_loop_may_move_to_another_thread_between_two_runs(on_thread: OwnThread) -> None:
    loop = EventLoop()
    before = open_descriptors()
    ran_on = []

    async def main() -> None:
        ran_on.append(threading.get_ident())
        await asyncio.sleep(0.001)

    try:
        for _ in range(3):
            on_thread(lambda: loop.run_until_complete(main()))
        assert threading.get_ident() not in ran_on
        assert open_descriptors() == before  # no runtime is left behind on a thread that ended
        loop.run_until_complete(main())
        on_thread(lambda: loop.run_until_complete(main()))
    finally:
        loop.close()
    assert len(ran_on) == 5


def test_a_loop_says_which_it_is(on_thread: OwnThread) -> None:
    """In asyncio's form, and on which lane and thread; two loops are two."""
    with contextlib.closing(EventLoop()) as loop, contextlib.closing(EventLoop()) as other:

        async def said() -> str:
            return repr(asyncio.get_running_loop())

        def form(state: str, thread: str = "") -> str:
            return rf"<EventLoop {state} on lane 0 of loop (\d+){thread}>"

        idle = "running=False closed=False debug=False"
        assert re.fullmatch(form(idle), repr(loop))
        here = rf" \(thread {threading.current_thread().name}\)"
        running = form("running=True closed=False debug=False", here)
        numbers = []
        for each in (loop, other):
            match = re.fullmatch(running, each.run_until_complete(said()))
            assert match is not None
            numbers.append(match[1])
        assert len(set(numbers)) == 2
        assert re.fullmatch(form(idle, here), repr(loop))
        loop.set_debug(True)
        there = on_thread(lambda: loop.run_until_complete(said()))
        state = "running=True closed=False debug=True"
        assert re.fullmatch(form(state, r" \(thread ThreadPoolExecutor-\d+_0\)"), there)
    assert repr(loop).startswith(
        "<EventLoop running=False closed=True debug=True on lane 0 of loop"
    )


def test_a_loop_with_connections_open_refuses_to_move(on_thread: OwnThread) -> None:
    loop = EventLoop()

    async def connect() -> list[asyncio.StreamWriter]:
        connected: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        server = await asyncio.start_server(lambda _, w: connected.put_nowait(w), "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        server.close()
        return [writer, await connected.get()]

    async def disconnect() -> None:
        for writer in writers:
            writer.close()
            await writer.wait_closed()

    try:
        writers = loop.run_until_complete(connect())
        with pytest.raises(RuntimeError, match=r"2 connection\(s\) are open on another thread"):
            on_thread(loop.run_forever)
        loop.run_until_complete(disconnect())
        assert on_thread(lambda: loop.run_until_complete(asyncio.sleep(0, 5))) == 5
    finally:
        loop.close()


def test_a_server_goes_on_when_its_loop_moves(on_thread: OwnThread) -> None:
    loop = EventLoop()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(threading.current_thread().name.encode())
        writer.close()

    async def ask() -> str:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        answered = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answered.decode()

    try:
        server = loop.run_until_complete(asyncio.start_server(answer, "127.0.0.1", 0))
        here = threading.current_thread().name
        assert here not in on_thread(lambda: loop.run_until_complete(ask()))
        assert loop.run_until_complete(ask()) == here
        server.close()
        loop.run_until_complete(server.wait_closed())
    finally:
        loop.close()


def test_a_loop_runs_on_one_thread_at_a_time(on_thread: OwnThread) -> None:
    loop = EventLoop()

    async def main() -> None:
        def other() -> None:
            with pytest.raises(RuntimeError, match="already running"):
                loop.run_forever()

        await asyncio.to_thread(other)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_loop_that_was_not_closed_says_so_and_goes() -> None:
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = EventLoop()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_later(1000, print)
        loop.call_soon(print, loop)
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        said = [str(warning.message) for warning in caught]
        caught.clear()  # a warning keeps what it is about
        gc.collect()
    assert any("unclosed event loop" in message for message in said)
    assert gone() is None
    assert open_descriptors() == before


def test_a_closed_loop_does_not_run_again(on_thread: OwnThread) -> None:
    def thread() -> str:
        loop = EventLoop()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.run_forever()
        return "refused"

    assert on_thread(thread) == "refused"


def test_a_loop_cannot_be_run_inside_itself_or_closed_while_it_runs(on_thread: OwnThread) -> None:
    def thread() -> int:
        loop = EventLoop()

        async def main() -> int:
            for wrong in (loop.run_forever, loop.close):
                with pytest.raises(RuntimeError):
                    wrong()
            await asyncio.sleep(0.001)
            return 7

        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    assert on_thread(thread) == 7


def test_many_loops_one_after_the_other_leave_no_descriptors(on_thread: OwnThread) -> None:
    def thread() -> None:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            runner.run(asyncio.sleep(0))

    on_thread(thread)
    before = open_descriptors()
    for _ in range(50):
        on_thread(thread)
    assert open_descriptors() <= before


def test_loops_on_four_threads_run_side_by_side() -> None:
    met = threading.Barrier(4, timeout=10)

    async def main() -> int:
        await asyncio.to_thread(met.wait)
        await asyncio.gather(*(asyncio.sleep(0.0001 * n) for n in range(50)))
        return threading.get_ident()

    def thread() -> int:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            return runner.run(main())

    with ThreadPoolExecutor(4) as pool:
        threads = {future.result(20) for future in [pool.submit(thread) for _ in range(4)]}
    assert len(threads) == 4


def test_other_threads_run_while_the_lane_sleeps(on_thread: OwnThread) -> None:
    """With the GIL, a lane that slept attached would stop every other thread."""
    counted: list[int] = []

    async def main() -> Awaitable[None] | None:
        worker = asyncio.to_thread(lambda: counted.extend(range(100_000)))
        await asyncio.gather(worker, asyncio.sleep(0.001))
        return None

    def thread() -> None:
        with asyncio.Runner(loop_factory=EventLoop) as runner:
            runner.run(main())

    on_thread(thread)
    assert len(counted) == 100_000


def test_the_attributes_of_a_loop_lie_where_the_interpreter_finds_methods_fast() -> None:
    """Inside the object, as a plain class has them: `loop.call_soon` is then specialised."""
    assert LoopCore.__dictoffset__ == 0
    assert EventLoop.__dictoffset__ == -1
    with contextlib.closing(EventLoop()) as loop:
        # The interpreter keeps up to 30 there; beyond, all are in a dictionary.
        assert len(vars(loop)) < 30


class OtherTask(asyncio.Task[int]):
    """What a tool puts in place of asyncio's class."""


def test_a_class_that_was_put_in_place_of_asyncios_task_makes_the_tasks_of_the_next_run(
    on_thread: OwnThread, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def result() -> int:
        return 5

    async def main() -> type:
        task = asyncio.get_running_loop().create_task(result())
        assert await task == 5
        return type(task)

    def thread() -> list[type]:
        loop = EventLoop()
        try:
            made = [loop.run_until_complete(main())]
            with monkeypatch.context() as patch:
                patch.setattr(asyncio.tasks, "Task", OtherTask)
                made.append(loop.run_until_complete(main()))
            return [*made, loop.run_until_complete(main())]
        finally:
            loop.close()

    assert on_thread(thread) == [asyncio.Task, OtherTask, asyncio.Task]
