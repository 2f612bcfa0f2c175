"""The measured process: `python -m profiling.loops.worker measure|serve LOOP SCENARIO ...`.

`measure LOOP SCENARIO SECONDS` prints `[operations, wall seconds, CPU seconds]`, best of three.
`serve LOOP SCENARIO [CERTIFICATE]` prints a port or a path, and serves until its input ends.
"""

import asyncio
import json
import os
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable

from profiling.loops.kinds import Kind
from profiling.loops.scenarios import BY_NAME, Echo, Micro

_REPEATS = 3
_STREAM_LIMIT = 256 * 1024


def measure(kind: Kind, scenario: Micro, seconds: float) -> tuple[int, float, float]:
    """Operations, wall and CPU seconds of the fastest of some repeats, about `seconds` in all."""
    os.environ["LOOPS_KIND"] = kind.value
    with asyncio.Runner(loop_factory=kind.factory()) as runner:

        def take(count: int) -> tuple[float, float]:
            wall, cpu = time.perf_counter(), time.process_time()
            runner.run(_awaited(scenario.run(count)))
            return time.perf_counter() - wall, time.process_time() - cpu

        count = 1000
        take(count)  # what is imported and connected for the first time is not what is measured
        share = seconds / (_REPEATS + 1)
        while (took := take(count)[0]) < share / 4:
            count = count * 4 if took < share / 16 else count * 2
        count = max(1000, int(count * share / took) // 1000 * 1000)
        taken = [take(count) for _ in range(_REPEATS)]
        if scenario.end is not None:
            runner.run(_awaited(scenario.end()))
    return count, min(wall for wall, _ in taken), min(cpu for _, cpu in taken)


async def _awaited(what: Awaitable[None]) -> None:
    await what


class _Echo(asyncio.Protocol):
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_STREAM_LIMIT):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def serve(scenario: Echo, certificate: str | None) -> None:
    """Serve the scenario's echo until standard input ends."""
    loop = asyncio.get_running_loop()
    context = None
    if scenario.tls:
        assert certificate is not None
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    with tempfile.TemporaryDirectory() as folder:
        if scenario.unix:
            path = f"{folder}/echo"
            server = await loop.create_unix_server(_Echo, path)
            where: str | int = path
        elif scenario.streams:
            server = await asyncio.start_server(_echo, "127.0.0.1", 0, limit=_STREAM_LIMIT)
            where = server.sockets[0].getsockname()[1]
        else:
            server = await loop.create_server(_Echo, "127.0.0.1", 0, ssl=context)
            where = server.sockets[0].getsockname()[1]
        print(json.dumps(where), flush=True)
        ended = loop.create_future()

        def wait() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(ended.set_result, None)

        threading.Thread(target=wait, daemon=True).start()
        await ended
        server.close()


def main() -> None:
    """Do what the command line says."""
    what, loop, name, *rest = sys.argv[1:]
    kind, scenario = Kind(loop), BY_NAME[name]
    if isinstance(scenario, Micro):
        assert what == "measure"
        print(json.dumps(measure(kind, scenario, float(rest[0]))))
    else:
        with asyncio.Runner(loop_factory=kind.factory()) as runner:
            runner.run(serve(scenario, rest[0] if rest else None))


if __name__ == "__main__":
    main()
