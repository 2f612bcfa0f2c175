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
from contextlib import contextmanager

import pytest
from support.loops import LoopFactory, pair


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
