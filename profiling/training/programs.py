"""What programs do with a loop and with a pool of loops."""

import asyncio
import contextvars
import signal
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import treadle

_variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)

Program = Callable[[int], Awaitable[None]]


async def tasks(count: int) -> None:
    """Tasks: made, awaited, gathered, grouped, cancelled, late."""

    async def brief(value: int) -> int:
        return value

    async def patient(value: int) -> int:
        _variable.set(value)
        await asyncio.sleep(0)
        return value

    for number in range(count):
        await asyncio.create_task(brief(number))
        await asyncio.create_task(patient(number))
        await asyncio.sleep(0)
        if number % 8 == 0:
            await asyncio.gather(*(patient(each) for each in range(20)))
            async with asyncio.TaskGroup() as group:
                for each in range(5):
                    group.create_task(patient(each))
            await asyncio.wait_for(asyncio.shield(patient(number)), 5)
            late = asyncio.create_task(asyncio.sleep(60))
            await asyncio.sleep(0)
            late.cancel()
            await asyncio.wait([late])
            done = [await each for each in asyncio.as_completed([brief(1), patient(2)])]
            assert sorted(done) == [1, 2]


async def together(count: int) -> None:
    """What tasks share: queue, lock, event, semaphore, condition."""
    queue: asyncio.Queue[int | None] = asyncio.Queue(4)
    lock, bound, event = asyncio.Lock(), asyncio.Semaphore(2), asyncio.Event()

    async def produce() -> None:
        for number in range(count):
            await queue.put(number)
        await queue.put(None)
        event.set()

    async def consume() -> None:
        while await queue.get() is not None:
            async with lock, bound:
                await asyncio.sleep(0)

    await asyncio.gather(produce(), consume(), event.wait())


async def callbacks(count: int) -> None:
    """Callbacks: soon, later, cancelled."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def step(left: int) -> None:
        if left:
            loop.call_soon(step, left - 1)
            loop.call_later(30, step, 0).cancel()
        elif not done.done():
            done.set_result(None)

    step(count)
    await done
    await asyncio.gather(*(asyncio.sleep(number % 7 * 0.0005) for number in range(count // 4)))


async def threads(count: int) -> None:
    """Other threads: an executor's, and one that calls into the loop."""
    loop = asyncio.get_running_loop()
    seen = asyncio.Semaphore(0)

    def call() -> None:
        for number in range(count):
            loop.call_soon_threadsafe(seen.release)
            if number % 64 == 0:
                asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()

    thread = threading.Thread(target=call)
    thread.start()
    for _ in range(count):
        await seen.acquire()
    await loop.run_in_executor(None, thread.join)
    for number in range(count // 20):
        await asyncio.to_thread(abs, number)


class _Back(asyncio.Protocol):
    """Sends back what comes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def _back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    await writer.wait_closed()


def network(folder: Path) -> Program:
    """Bytes there and back: TCP, Unix and TLS, by protocols and by streams, short and long."""
    certificate = _certificate(folder)

    async def run(count: int) -> None:
        loop = asyncio.get_running_loop()
        unix = str(folder / "unix")
        async with (
            await loop.create_server(_Back, "127.0.0.1", 0) as server,
            await asyncio.start_server(_back, "127.0.0.1", 0) as streams,
            await loop.create_unix_server(_Back, unix),
        ):
            await _exchange(count, *server.sockets[0].getsockname())
            await _exchange(count, *streams.sockets[0].getsockname())
            reader, writer = await asyncio.open_unix_connection(unix)
            await _talk(reader, writer, count)
        if certificate is not None:
            ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            ours.load_cert_chain(certificate)
            theirs = ssl.create_default_context(cafile=certificate)
            theirs.check_hostname = False
            async with await loop.create_server(_Back, "127.0.0.1", 0, ssl=ours) as server:
                host, port = server.sockets[0].getsockname()
                reader, writer = await asyncio.open_connection(host, port, ssl=theirs)
                await _talk(reader, writer, count)

    return run


async def _exchange(count: int, host: str, port: int) -> None:
    pairs = [await asyncio.open_connection(host, port) for _ in range(4)]
    await asyncio.gather(*(_talk(reader, writer, count // 4) for reader, writer in pairs))


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, count: int) -> None:
    for number in range(count):
        data = bytes(40_000 if number % 20 == 0 else 300)
        writer.write(data)
        await writer.drain()
        await reader.readexactly(len(data))
    writer.close()
    await writer.wait_closed()


def _certificate(folder: Path) -> Path | None:
    """A certificate with its key; None where there is no openssl to make it."""
    both, key = folder / "both", folder / "key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    command += ["-subj", "/CN=shop.example", "-keyout", str(key), "-out", str(both)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    both.write_text(key.read_text() + both.read_text())
    return both


async def processes(count: int) -> None:
    """A child, its output, and a signal."""
    for _ in range(max(1, count // 200)):
        child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
        said, _ = await child.communicate(bytes(1000))
        assert len(said) == 1000
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    loop.add_signal_handler(signal.SIGUSR1, came.set)
    signal.raise_signal(signal.SIGUSR1)
    await came.wait()
    loop.remove_signal_handler(signal.SIGUSR1)


def pool(count: int) -> None:
    """Work of other threads on a pool of loops."""

    async def square(value: int) -> int:
        await asyncio.sleep(0)
        return value * value

    with treadle.LoopPool(2) as lanes:
        assert sum(lanes.map(square, range(count))) == sum(n * n for n in range(count))
        for number in range(count):
            assert lanes.spawn(square(number)).result() == number * number


def run(count: int) -> None:
    """All of it."""
    with tempfile.TemporaryDirectory() as folder:
        for program in (tasks, together, callbacks, threads, network(Path(folder)), processes):
            treadle.run(program(count))
    pool(count)
