"""Runs of the event loop: start, stop, errors, debug mode.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import gc
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from typing import Any

import pytest
from support.loops import LoopFactory, OwnThread, Run, pair


def test_a_loop_can_run_several_times(factory: LoopFactory, on_thread: OwnThread) -> None:
    def thread() -> list[object]:
        loop = factory()
        try:

            async def value(n: int) -> int:
                await asyncio.sleep(0)
                return n

            left: list[str] = []

            async def leave() -> None:
                loop.call_soon(left.append, "left for the next run")

            results: list[object] = [loop.run_until_complete(value(n)) for n in range(5)]
            loop.run_until_complete(leave())
            loop.run_until_complete(asyncio.sleep(0.001))
            return [*results, *left, loop.is_running(), loop.is_closed()]
        finally:
            loop.close()

    assert on_thread(thread) == [0, 1, 2, 3, 4, "left for the next run", False, False]


def test_a_stop_before_the_run_runs_what_is_ready_once(
    factory: LoopFactory, on_thread: OwnThread
) -> None:
    def thread() -> list[str]:
        order: list[str] = []
        loop = factory()
        loop.call_soon(lambda: (order.append("ready"), loop.call_soon(order.append, "next")))
        loop.stop()
        loop.run_forever()
        order.append("stopped")
        loop.stop()
        loop.run_forever()
        loop.close()
        return order

    assert on_thread(thread) == ["ready", "stopped", "next"]


def test_a_stop_ends_the_turn_it_is_called_in(factory: LoopFactory, on_thread: OwnThread) -> None:
    def thread() -> list[int]:
        order: list[int] = []
        loop = factory()
        loop.call_soon(order.append, 1)
        loop.call_soon(loop.stop)
        loop.call_soon(order.append, 2)
        loop.call_later(60, order.append, 3)
        loop.run_forever()
        loop.close()
        return order

    assert on_thread(thread) == [1, 2]


def test_another_thread_can_stop_the_loop(factory: LoopFactory, on_thread: OwnThread) -> None:
    def thread() -> bool:
        loop = factory()
        stopper = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
        loop.call_soon(stopper.start)
        loop.run_forever()
        stopper.join()
        loop.close()
        return loop.is_closed()

    assert on_thread(thread) is True


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("source", ["callback", "timer", "reader", "task"])
def test_an_order_to_leave_comes_out_of_the_run(
    factory: LoopFactory, on_thread: OwnThread, kind: type[BaseException], source: str
) -> None:
    def thread() -> str:
        loop = factory()

        def leave() -> None:
            raise kind("leave")

        async def leave_async() -> None:
            await asyncio.sleep(0)
            raise kind("leave")

        with pair() as (here, there):
            there.send(b"x")
            if source == "callback":
                loop.call_soon(leave)
            elif source == "timer":
                loop.call_later(0.001, leave)
            elif source == "reader":
                loop.add_reader(here, leave)
            else:
                task = loop.create_task(leave_async())
            with pytest.raises(kind, match="leave"):
                loop.run_forever()
            loop.remove_reader(here)
            if source == "task":
                with pytest.raises(kind):
                    task.result()
            # It is not broken by that.
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()
        return "left"

    assert on_thread(thread) == "left"


def test_an_exception_in_a_callback_goes_to_the_handler_and_the_loop_goes_on(run: Run) -> None:
    async def main() -> list[tuple[str, str]]:
        loop = asyncio.get_running_loop()
        reported: list[tuple[str, str]] = []

        def report(loop: object, context: dict[str, Any]) -> None:
            reported.append((context["message"].split(" at ")[0], repr(context["exception"])))
            assert isinstance(context["handle"], asyncio.Handle)

        loop.set_exception_handler(report)

        def fail(what: str) -> None:
            raise ValueError(what)

        loop.call_soon(fail, "soon")
        loop.call_later(0, fail, "later")
        with pair() as (here, there):
            there.send(b"x")
            loop.add_reader(here, lambda: (loop.remove_reader(here), fail("reader")))
            await asyncio.sleep(0.005)
        return sorted(row[1] for row in reported)

    assert run(main) == ["ValueError('later')", "ValueError('reader')", "ValueError('soon')"]


def test_an_exception_in_a_callback_is_logged_without_a_handler(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    run(main)
    assert "Exception in callback" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_async_generators_that_were_left_are_closed_at_the_end(run: Run) -> None:
    closed: list[str] = []

    async def numbers(name: str) -> Any:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    kept = []

    async def main() -> None:
        kept.append(numbers("kept"))
        async for _ in kept[0]:
            break
        dropped = numbers("dropped")
        async for _ in dropped:
            break
        del dropped
        gc.collect()
        await asyncio.sleep(0.001)

    run(main)
    assert closed == ["dropped", "kept"]


def test_debug_mode_finds_slow_callbacks_and_wrong_threads(
    factory: LoopFactory, on_thread: OwnThread, caplog: pytest.LogCaptureFixture
) -> None:
    def thread() -> str:
        async def main() -> str:
            loop = asyncio.get_running_loop()
            loop.slow_callback_duration = 0.0
            assert loop.get_debug()
            await asyncio.sleep(0)

            def other() -> str:
                try:
                    loop.call_soon(print)
                except RuntimeError as error:
                    return str(error)
                return "no error"

            return await asyncio.to_thread(other)

        with asyncio.Runner(debug=True, loop_factory=factory) as runner:
            return runner.run(main())

    assert "Non-thread-safe operation" in on_thread(thread)
    assert "Executing" in caplog.text


def test_debug_mode_finds_a_slow_reader_that_takes_itself_away(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        loop.slow_callback_duration = 0.0
        called = loop.create_future()

        def slow_reader(end: socket.socket) -> None:
            loop.remove_reader(end)
            called.set_result(None)

        with pair() as (left, right):
            loop.add_reader(left, slow_reader, left)
            right.send(b"x")
            await called

    run(main)
    assert re.search(r"Executing <Handle .*slow_reader.* took 0\.\d{3} seconds", caplog.text)


class Late(Exception):
    """Of a time limit."""


def test_what_a_signal_handler_raises_comes_out_of_the_run(factory: LoopFactory) -> None:
    def handler(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGUSR1, handler)
    loop = factory()
    reports: list[Any] = []
    loop.set_exception_handler(lambda _, context: reports.append(context))
    waits = loop.create_future()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Late):
            loop.run_until_complete(asyncio.wait_for(waits, 10))
        # The loop is as it was.
        assert loop.run_until_complete(asyncio.sleep(0.001, 5)) == 5
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
        loop.close()
    assert not reports


def test_a_child_that_was_forked_inside_a_run_can_run_a_loop() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    refused = "cannot run inside the run of another lane, nor in a process that was forked there"
    assert done.stderr == ""
    assert done.stdout == f"lane 0 {refused}\n7\nthe parent goes on\n"


FORKS = """
import asyncio, os, sys, treadle

async def main():
    child = os.fork()
    if child == 0:
        loop = treadle.EventLoop()
        try:
            loop.run_forever()
        except RuntimeError as error:
            print(error)
        loop.close()
        print(treadle.run(asyncio.sleep(0.001, 7)), flush=True)
        os._exit(0)
    await asyncio.to_thread(os.waitpid, child, 0)
    print("the parent goes on")

treadle.run(main())
"""


def test_tasks_that_are_left_are_cancelled_by_the_runner(run: Run) -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(forever()))
        await asyncio.sleep(0)

    run(main)
    assert ended == ["cancelled"]


def test_eager_tasks_of_asyncio_work(run: Run) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        steps: list[object] = []

        async def work() -> str:
            steps.append(asyncio.current_task() is not outer)
            await asyncio.sleep(0)
            steps.append("resumed")
            return "done"

        outer = asyncio.current_task()
        task = asyncio.create_task(work())
        steps.append(asyncio.current_task() is outer)
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
        steps.append(await task)
        return steps

    assert run(main) == [True, True, True, "resumed", "resumed", "done"]


def test_contexts_of_callbacks_are_kept(run: Run) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        done = loop.create_future()
        other = contextvars.copy_context()
        other.run(variable.set, "other")
        variable.set("mine")
        loop.call_soon(lambda: seen.append(variable.get()))
        loop.call_soon(lambda: seen.append(variable.get()), context=other)
        loop.call_later(0, lambda: seen.append(variable.get()))
        loop.call_later(0.001, done.set_result, None)
        await done
        return seen

    assert run(main) == ["mine", "other", "mine"]


def test_a_loop_can_be_closed_inside_another(run: Run, factory: LoopFactory) -> None:
    async def main() -> bool:
        other = factory()
        with pytest.raises(RuntimeError, match="while another loop is running"):
            other.run_forever()
        other.close()
        return other.is_closed()

    assert run(main)


@pytest.mark.parametrize("method", ["call_soon", "call_soon_threadsafe", "call_later", "call_at"])
def test_debug_mode_knows_where_a_callback_was_made(run: Run, method: str) -> None:
    async def main() -> str:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        when = () if "soon" in method else (0,)
        handle: Any = getattr(loop, method)(*when, print)
        handle.cancel()
        return str(handle._source_traceback[-1].name)

    assert run(main) == "main"


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_debug_mode_knows_where_a_descriptor_was_watched_from(run: Run, method: str) -> None:
    """Told with what its callback raises, and with its description."""

    async def main() -> tuple[bool, bool]:
        loop = asyncio.get_running_loop()
        loop.set_debug(True)
        told = loop.create_future()
        loop.set_exception_handler(lambda loop, context: told.done() or told.set_result(context))
        with pair() as (here, there):
            there.send(b"x")
            getattr(loop, method)(here, divmod, 1, 0)
            context = await told
            described = repr(context["handle"])
            getattr(loop, method.replace("add", "remove"))(here)
        names = [frame.name for frame in context["source_traceback"]]
        return "main" in names, " created at " in described

    assert run(main) == (True, True)


def test_debug_mode_knows_where_a_task_was_made(run: Run) -> None:
    async def main() -> list[str]:
        asyncio.get_running_loop().set_debug(True)
        task: Any = asyncio.create_task(asyncio.sleep(0))
        await task
        return [frame.name for frame in task._source_traceback[-2:]]

    assert run(main) == ["main", "create_task"]
