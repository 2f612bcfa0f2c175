"""anyio on the loop: its run, its pytest plugin, sockets, processes, threads and cancel scopes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_process
import anyio.to_thread
import pytest

import treadle

OPTIONS = {"loop_factory": treadle.new_event_loop}


async def everything() -> str:
    """A little of each part of anyio that touches the loop."""
    async with anyio.create_task_group() as group:

        async def answer(stream: anyio.abc.SocketStream) -> None:
            async with stream:
                async for chunk in stream:
                    await stream.send(chunk.upper())

        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        group.start_soon(listener.serve, answer)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(b"x" * 300_000)
            received = b""
            while len(received) < 300_000:
                received += await stream.receive()
        assert received == b"X" * 300_000

        with anyio.move_on_after(0.01) as scope:
            await anyio.sleep_forever()
        assert scope.cancelled_caught

        done = await anyio.run_process([sys.executable, "-Sc", "print(6 * 7)"])
        assert done.stdout.strip() == b"42"
        word = await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(_word))
        async with await anyio.create_udp_socket(local_host="127.0.0.1") as udp:
            where = udp.extra(anyio.abc.SocketAttribute.local_address)
            await udp.sendto(b"datagram", *where)
            assert (await udp.receive())[0] == b"datagram"
        group.cancel_scope.cancel()
    await listener.aclose()
    return word


async def _word() -> str:
    assert isinstance(asyncio.get_running_loop(), treadle.EventLoop)
    return "word"


def test_anyio_run_takes_our_factory() -> None:
    assert anyio.run(everything, backend_options=OPTIONS) == "word"


def test_anyio_run_takes_our_factory_on_another_thread() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(anyio.run, everything, backend_options=OPTIONS).result() == "word"


def test_a_blocking_portal_runs_our_loop() -> None:
    with anyio.from_thread.start_blocking_portal(backend_options=OPTIONS) as portal:
        assert portal.call(_word) == "word"
        futures = [portal.start_task_soon(everything) for _ in range(3)]
        assert [future.result() for future in futures] == ["word"] * 3


def test_anyios_pytest_plugin_takes_our_factory(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""
import asyncio, anyio, pytest, treadle

@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": treadle.new_event_loop}

@pytest.fixture
async def number():
    await anyio.sleep(0)
    yield 3
    await anyio.sleep(0)

@pytest.mark.anyio
async def test_ours(number):
    assert number == 3
    assert isinstance(asyncio.get_running_loop(), treadle.EventLoop)
""")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:asyncio", "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_a_process_pool_of_anyios(tmp_path: Path) -> None:
    program = """
import anyio, anyio.to_process, treadle

async def main():
    print(await anyio.to_process.run_sync(abs, -21))

if __name__ == "__main__":
    anyio.run(main, backend_options={"loop_factory": treadle.new_event_loop})
"""
    (tmp_path / "main.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "21\n"
    # Before, asyncio's own `kill` may read the status of a child that ends by itself at that moment,
    # and then say that somebody read it (CPython 127049).
    if sys.version_info >= (3, 13, 2):
        assert done.stderr == ""
