"""Subprocess pipelines on the loop, and processes in handlers."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from support.lanes import LANES
from support.types import Connect, Serve

from treadle import App

Run = Callable[[Coroutine[Any, Any, Any]], Any]

PYTHON = (sys.executable, "-ISc")


def test_a_pipeline_of_three_processes(run: Run) -> None:
    async def main() -> None:
        reading, writing = os.pipe()
        second_reading, second_writing = os.pipe()
        numbers = await asyncio.create_subprocess_exec(
            *PYTHON, "for n in range(100_000): print(n)", stdout=writing
        )
        os.close(writing)
        evens = await asyncio.create_subprocess_exec(
            *PYTHON,
            "import sys\nfor line in sys.stdin:\n if int(line) % 2 == 0: sys.stdout.write(line)",
            stdin=reading,
            stdout=second_writing,
        )
        os.close(reading)
        os.close(second_writing)
        total = await asyncio.create_subprocess_exec(
            *PYTHON,
            "import sys; print(sum(map(int, sys.stdin)))",
            stdin=second_reading,
            stdout=asyncio.subprocess.PIPE,
        )
        os.close(second_reading)
        output, _ = await total.communicate()
        assert output == b"2499950000\n"
        assert [await process.wait() for process in (numbers, evens, total)] == [0, 0, 0]

    run(main())


def test_what_is_fed_in_comes_out_with_back_pressure(run: Run) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            *PYTHON,
            "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, block = process.stdin, os.urandom(65_536)

        async def feed() -> None:
            for _ in range(64):
                stdin.write(block)
                await stdin.drain()
            stdin.close()

        feeding = asyncio.create_task(feed())
        received = await process.stdout.read()
        await feeding
        assert received == block * 64
        assert await process.wait() == 0

    run(main())


def test_signals_reach_a_process_and_its_end_is_seen(run: Run) -> None:
    program = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print("ready", flush=True)
signal.sigwait({signal.SIGUSR1})
print("usr1", flush=True)
signal.pause()
"""

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            *PYTHON, program, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert await process.stdout.readline() == b"usr1\n"
        process.terminate()
        assert await process.wait() == -signal.SIGTERM

    run(main())


def test_many_processes_at_once(run: Run) -> None:
    async def main() -> None:
        async def one(number: int) -> int:
            process = await asyncio.create_subprocess_exec("sh", "-c", f"exit {number}")
            return await process.wait()

        assert await asyncio.gather(*(one(n) for n in range(20))) == list(range(20))

    run(main())


def test_a_shell_that_outlives_its_timeout_is_killed(run: Run) -> None:
    async def main() -> None:
        process = await asyncio.create_subprocess_shell(
            "exec sleep 60", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(0.01):
                await process.communicate()
        except TimeoutError:
            process.kill()
        assert await process.wait() == -signal.SIGKILL

    run(main())


# -- in handlers ----------------------------------------------------------------------------------


def test_a_handler_can_run_processes(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/{word}")
    async def upper(word: str) -> str:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-Sc",
            "import sys; sys.stdout.write(sys.stdin.read().upper())",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        output, _ = await child.communicate(word.encode())
        return f"{output.decode()} {child.returncode}"

    server = serve(app, lanes=LANES[-1])
    connections = [raw(server) for _ in range(4)]
    for number, connection in enumerate(connections):
        connection.send(f"GET /word{number} HTTP/1.1\r\nHost: t\r\n\r\n")
    for number, connection in enumerate(connections):
        assert connection.response().body == b"WORD%d 0" % number
