"""A process that leaves with bridge futures pending: exit code 0 and not a word on stderr.

`TREADLE_SOAK=1` leaves 500 times.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiling.extensions import BUILDING, build

ROUNDS = 500 if os.environ.get("TREADLE_SOAK") == "1" else 20

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from profiling.extensions import load_library
probe = load_library("probe", {library!r})
own, moment = {own!r}, {moment!r}
if own:
    sys.modules["treadle._treadle"] = probe._treadle
import asyncio, random, threading, treadle

gates = []

def opener():
    # Completes futures while the interpreter goes down.
    while True:
        for gate in list(gates):
            gate.open(1)

async def pending():
    awaitable, gate = probe.gated()
    gates.append(gate)
    await awaitable

async def hold():
    await asyncio.get_running_loop().create_future()

kept = []

async def main():
    here = probe.current_loop()
    keep = [probe.gated() for _ in range(3)]  # not awaited
    kept.append(keep)
    keep += [probe.hold(hold()) for _ in range(3)]
    keep += [asyncio.ensure_future(pair[0]) for pair in keep[:3]]
    keep += [probe.spawned() for _ in range(3)]
    keep += [asyncio.create_task(probe.call(hold())) for _ in range(3)]
    keep += [asyncio.create_task(probe.collect(probe.waiting())) for _ in range(3)]
    if own:
        keep += [asyncio.create_task(probe.sleep(3600)) for _ in range(3)]

    def wait():
        try: here.spawn(hold).wait()
        except BaseException: pass

    for _ in range(2):
        threading.Thread(target=wait, daemon=True).start()
    keep += [asyncio.create_task(pending()) for _ in range(20)]
    await asyncio.sleep(random.random() / 100)
    threading.Thread(target=opener, daemon=True).start()

if moment == "cancelled":
    treadle.run(main())
elif moment == "abandoned":
    loop = treadle.new_event_loop()
    loop.run_until_complete(main())
elif moment == "closed":
    loop = treadle.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # asyncio says that pending Tasks were destroyed
    loop.run_until_complete(main())
    loop.close()
elif moment == "in the loop":
    async def leave():
        await main()
        raise SystemExit(0)
    treadle.run(leave())
else:
    pool = treadle.LoopPool(2)
    pool.map(lambda _: main(), range(2))
    pool.spawn(main())
"""


@pytest.mark.slow
@pytest.mark.timeout(BUILDING)
@pytest.mark.parametrize("own", [True, False], ids=["own", "beside"])
@pytest.mark.parametrize("moment", ["cancelled", "abandoned", "closed", "in the loop", "pool"])
def test_leaving_with_futures_pending(own: bool, moment: str) -> None:
    root = str(Path(__file__).parents[2])
    source = SCRIPT.format(root=root, library=str(build("probe")), own=own, moment=moment)
    for _ in range(ROUNDS // 5 if own else ROUNDS // 20):
        command = [sys.executable, "-X", "faulthandler", "-c", source]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
