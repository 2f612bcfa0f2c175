"""The Task of a handler as others see it: call graphs, another process, other threads."""

from __future__ import annotations

import asyncio
import gc
import itertools
import queue
import re
import subprocess
import sys
import threading
import types

import pytest
from support.cli import RunCli
from support.gate import SOURCE, Gate
from support.tasks import this_task
from support.types import Connect, Serve

from treadle import App


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in CPython 3.14")
def test_the_call_graph_shows_the_handler(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/")
    async def handler() -> list[str]:
        task = this_task()

        async def look() -> list[str]:
            graph = asyncio.capture_call_graph(task)  # type: ignore[attr-defined, unused-ignore]
            assert graph is not None
            return [entry.frame.f_code.co_name for entry in graph.call_stack]

        await asyncio.sleep(0)
        return await asyncio.create_task(look())

    assert raw(serve(app)).get().body == b'["handler"]'


WAITING = (
    SOURCE
    + """
@app.get("/{n:int}")
async def handler(n: int) -> None:
    if n:
        await pause()
"""
)


@pytest.mark.skipif(sys.version_info < (3, 14), reason="new in CPython 3.14")
def test_asyncio_ps_can_read_a_process_whose_handlers_wait(
    run_cli: RunCli, raw: Connect, gate: Gate
) -> None:
    """What it reads is memory: a Task that is not what it looks like makes it fail.

    It lists the main thread only (3.14), so there is no handler in its list.
    """
    command = run_cli(WAITING, env=gate.env)
    connection = raw(command)
    connection.get("/0")
    connection.send("GET /1 HTTP/1.1\r\nHost: t\r\n\r\n")
    arrival = gate.arrival()
    seen = subprocess.run(
        [sys.executable, "-m", "asyncio", "ps", str(command.pid)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    arrival.release()
    assert connection.response().status == 204
    if re.search("permission|not supported", seen.stdout + seen.stderr, re.IGNORECASE):
        pytest.skip("the system does not let a process look into another")
    assert seen.returncode == 0, seen.stderr
    assert "coroutine stack" in seen.stdout


@pytest.mark.skipif(sys.version_info < (3, 14), reason="all_tasks of another thread's loop")
def test_other_threads_may_look_at_the_tasks_of_a_lane(serve: Serve, raw: Connect) -> None:
    app = App()
    loops: list[asyncio.AbstractEventLoop] = []
    failures: list[BaseException] = []
    # A look and a collection stop all threads: looks without end would leave the lane no time, and
    # a collection takes the longer the more modules the tests before have loaded.
    looks = queue.SimpleQueue[bool]()

    @app.get("/{n:int}")
    async def handler(n: int) -> int:
        if not loops:
            loops.append(asyncio.get_running_loop())
        if n % 3 == 0:
            await asyncio.sleep(0)
        if n % 5 == 0:
            this_task().set_name(f"request {n}")
        return n

    def look() -> None:
        try:
            for number in itertools.takewhile(lambda _: looks.get(), itertools.count()):
                for task in asyncio.all_tasks(loops[0]):
                    assert isinstance(task.get_name(), str)
                    # Often: a stand-in would be there for well under a microsecond.
                    for _ in range(300):
                        assert isinstance(task.get_coro(), (types.CoroutineType, type(None)))
                    task.done()
                if number % 20 == 0:
                    gc.collect(0)
        except BaseException as error:
            failures.append(error)

    connection = raw(serve(app))
    assert connection.get("/1").body == b"1"
    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for start in range(0, 4000, 20):
            for _ in threads:
                looks.put(True)
            burst = range(start, start + 20)
            connection.send("".join(f"GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n" for n in burst))
            assert [int(connection.response().body) for _ in burst] == list(burst)
    finally:
        for _ in threads:
            looks.put(False)
        for thread in threads:
            thread.join()
    assert failures == []
