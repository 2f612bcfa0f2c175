"""Signals on the main thread, whatever else the program does with them.

Each runs on asyncio's loop as well: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest
from support.loops import LoopFactory, pair

from treadle import EventLoop


@contextmanager
def ctrl_c_soon() -> Iterator[None]:
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()


@contextmanager
def own_descriptor() -> Iterator[socket.socket]:
    """Where the program itself has the interpreter write its signals."""
    with pair() as (here, there):
        before = signal.set_wakeup_fd(there.fileno())
        try:
            yield here
        finally:
            assert signal.set_wakeup_fd(before) in (there.fileno(), -1)


def wakeup_descriptor() -> int:
    """Where the interpreter writes its signals; -1 is nowhere."""
    current = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(current)
    return current


def test_ctrl_c_ends_a_sleep_after_the_last_signal_handler_was_removed(
    factory: LoopFactory,
) -> None:
    loop = factory()

    async def main() -> None:
        loop.add_signal_handler(signal.SIGUSR1, print)
        assert loop.remove_signal_handler(signal.SIGUSR1)
        with ctrl_c_soon():
            await asyncio.sleep(20)

    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(main())
    loop.run_until_complete(asyncio.wait(asyncio.all_tasks(loop), timeout=0))
    for task in asyncio.all_tasks(loop):
        task.cancel()
        loop.run_until_complete(asyncio.wait([task]))
    loop.close()


def test_ctrl_c_ends_a_sleep_after_another_loop_took_the_signals_and_closed(
    factory: LoopFactory,
) -> None:
    loop = factory()

    async def main() -> None:
        other = factory()
        other.add_signal_handler(signal.SIGUSR1, print)
        other.close()
        with ctrl_c_soon():
            await asyncio.sleep(20)

    task = loop.create_task(main())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    task.cancel()
    loop.run_until_complete(asyncio.wait([task]))
    loop.close()


def test_a_descriptor_of_the_programs_own_hears_of_signals_while_a_loop_runs(
    factory: LoopFactory,
) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    loop = factory()

    async def main() -> None:
        signal.raise_signal(signal.SIGUSR1)
        await asyncio.sleep(0)

    try:
        with own_descriptor() as here:
            loop.run_until_complete(main())
            assert here.recv(10) == bytes([signal.SIGUSR1])
            with ctrl_c_soon(), pytest.raises(KeyboardInterrupt):
                loop.run_until_complete(asyncio.sleep(20))
            assert here.recv(10) == bytes([signal.SIGINT])
    finally:
        signal.signal(signal.SIGUSR1, before)
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.wait([task]))
        loop.close()
    assert heard == [signal.SIGUSR1]


def test_a_handler_that_the_run_removed_leaves_no_descriptor_to_the_signals(
    factory: LoopFactory,
) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    loop = factory()
    loop.add_signal_handler(signal.SIGUSR1, print)

    async def main() -> None:
        assert loop.remove_signal_handler(signal.SIGUSR1)

    try:
        loop.run_until_complete(main())
        assert wakeup_descriptor() == -1
        loop.close()
        signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
        with ExitStack() as opened:
            # The lowest numbers that are free, which the loop's own were among.
            ends = [end for _ in range(8) for end in opened.enter_context(pair())]
            os.kill(os.getpid(), signal.SIGUSR1)
            for end in ends:
                with pytest.raises(BlockingIOError):
                    end.recv(1)
    finally:
        loop.close()
        signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]


def test_a_handler_that_stays_is_heard_of_in_the_next_run(factory: LoopFactory) -> None:
    loop = factory()
    numbers: list[int] = []

    async def main() -> None:
        called = asyncio.Event()
        loop.add_signal_handler(signal.SIGUSR1, called.set)
        os.kill(os.getpid(), signal.SIGUSR1)
        await asyncio.wait_for(called.wait(), 10)

    try:
        loop.add_signal_handler(signal.SIGUSR2, print)
        for _ in range(2):
            loop.run_until_complete(main())
            numbers.append(wakeup_descriptor())
    finally:
        loop.close()
    assert numbers[0] == numbers[1] != -1
    assert wakeup_descriptor() == -1


def test_a_closed_loop_leaves_no_descriptor_to_the_signals() -> None:
    """However it came to have it; one of the program's own stays."""
    loop = EventLoop()
    signal.set_wakeup_fd(loop._csock.fileno())  # type: ignore[attr-defined]
    loop.close()
    assert wakeup_descriptor() == -1
    with own_descriptor():
        own = wakeup_descriptor()
        EventLoop().close()
        assert wakeup_descriptor() == own != -1


def test_a_descriptor_that_the_program_closed_disturbs_no_loop(factory: LoopFactory) -> None:
    loops = [factory(), factory()]
    with pair() as (_, there):
        before = signal.set_wakeup_fd(there.fileno())
    try:
        loops[0].run_until_complete(asyncio.sleep(0))
    finally:
        for loop in loops:
            loop.close()
        signal.set_wakeup_fd(before)
