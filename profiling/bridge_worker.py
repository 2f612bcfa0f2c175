"""Measures one extension on one loop: `EXTENSION LIBRARY lane|asyncio`; prints JSON."""

import argparse
import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from profiling.extensions import load_library, use_probe
from profiling.statistics import median

_IN_FLIGHT = 64
_BATCHES = 5


async def _value() -> int:
    return 1


async def _timed(make: Callable[[], Awaitable[Any]], count: int) -> float:
    """Microseconds for one `await make()`, median of some batches."""
    taken = []
    for _ in range(_BATCHES + 1):  # the first warms up
        began = time.perf_counter()
        for _ in range(count):
            await make()
        taken.append((time.perf_counter() - began) / count * 1e6)
    return median(taken[1:])


async def _timed_together(make: Callable[[], Awaitable[Any]], count: int) -> float:
    """The same, with many in flight."""
    share = max(1, count // _IN_FLIGHT)

    async def some() -> None:
        for _ in range(share):
            await make()

    async def all_of_them() -> None:
        await asyncio.gather(*(some() for _ in range(_IN_FLIGHT)))

    return await _timed(all_of_them, 1) / (share * _IN_FLIGHT)


async def _from_thread(here: Any, count: int) -> float:
    """Microseconds for a coroutine that a Rust thread awaits."""
    taken = []
    loop = asyncio.get_running_loop()
    for _ in range(_BATCHES + 1):
        done = asyncio.Event()

        def work(done: asyncio.Event = done) -> None:
            began = time.perf_counter()
            here.repeat(_value, count)
            taken.append((time.perf_counter() - began) / count * 1e6)
            loop.call_soon_threadsafe(done.set)

        threading.Thread(target=work).start()
        await done.wait()
    return median(taken[1:])


async def _measure(extension: ModuleType, count: int) -> dict[str, float]:
    far = max(100, count // 10)
    assert await extension.ready(7) == 7
    assert await extension.call(_value()) == 1
    found = {
        "bare": await _timed(_value, count),
        "turn": await _timed(lambda: asyncio.sleep(0), count),
        "call": await _timed(lambda: extension.call(_value()), far),
    }
    if hasattr(extension, "elsewhere"):
        found["ready"] = await _timed(lambda: extension.ready(1), count)
        found["suspended"] = await _timed(lambda: extension.later(1), count)
        found["kernel"] = extension.wake_ups(far) / far * 1e6
        found["from thread"] = await _from_thread(extension.current_loop(), far)
    elsewhere = getattr(extension, "elsewhere", extension.ready)
    found["thread"] = await _timed(lambda: elsewhere(1), far)
    found["threads"] = await _timed_together(lambda: elsewhere(1), far)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("extension", choices=["probe", "interop"])
    parser.add_argument("library", type=Path)
    parser.add_argument("loop", choices=["lane", "asyncio"])
    parser.add_argument("--quick", action="store_true")
    words = parser.parse_args()
    if words.extension == "probe":
        extension = use_probe(words.library)
    else:
        extension = load_library(words.extension, words.library)
    count = 500 if words.quick else 50_000
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.SelectorEventLoop
    if words.loop == "lane":
        import treadle

        factory = treadle.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        json.dump(runner.run(_measure(extension, count)), sys.stdout)
    # Without the interpreter's end: a thread of pyo3-async-runtimes may let go of an object at that
    # moment, on asyncio's loop as on any, and then CPython 3.13 crashes.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
