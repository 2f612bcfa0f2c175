"""A hundred thousand crossings of the bridge, with errors and cancellations, leave nothing behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from profiling.extensions import BUILDING, build

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from profiling.extensions import load_library
probe = load_library("probe", {library!r})
if {own!r}:
    sys.modules["treadle._treadle"] = probe._treadle
import asyncio, gc, json, threading, treadle

async def value(): return 1
async def later():
    await asyncio.sleep(0)
    return 1
async def fails():
    await asyncio.sleep(0)
    raise KeyError
async def generate():
    yield 1
    yield 2

async def settled(awaitable):
    try: await awaitable
    except (KeyError, asyncio.CancelledError, RuntimeError): pass

async def crossings(count):
    # Sixteen at a time.
    async def worker():
        for _ in range(count // (16 * 10)):
            await probe.ready(1)
            await probe.later((1, 2))
            await probe.call(value())
            await probe.call(later())
            await settled(probe.call(fails()))
            awaitable, gate = probe.gated()
            gate.fail(KeyError())
            await settled(awaitable)
            awaitable, gate = probe.gated()
            task = asyncio.create_task(awaitable)
            await asyncio.sleep(0)
            task.cancel()
            await settled(task)
            held = probe.hold(later())
            held.drop()
            async for _ in probe.count(1): pass
            await probe.collect(generate(), 1)
    await asyncio.gather(*(worker() for _ in range(16)))

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

async def main():
    here = probe.current_loop()
    seen = []
    for count in ({warm}, {count}):
        await crossings(count)
        thread = threading.Thread(target=here.repeat, args=(later, count // 20))
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.001)
        for _ in range(3):
            await asyncio.sleep(0)
            gc.collect()
        seen.append((probe.alive(), len(gc.get_objects()), len(asyncio.all_tasks()), resident()))
    print(json.dumps(seen))

treadle.run(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(BUILDING)
@pytest.mark.parametrize("own", [True, False], ids=["own", "beside"])
def test_nothing_is_left_behind(own: bool) -> None:
    source = SCRIPT.format(
        root=str(Path(__file__).parents[2]),
        library=str(build("probe")),
        own=own,
        warm=8_000,
        count=100_000,
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, timeout=200, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    warm, after = json.loads(done.stdout)
    assert after[0] == 0
    assert after[1] <= warm[1] + 100
    assert after[2] == 1
    assert after[3] <= warm[3] + 4 * 2**20
