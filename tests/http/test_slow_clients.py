"""Responses made chunk by chunk, no faster than their client takes them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import RunCli
from support.messages import assert_serves, request
from support.streams import KINDS, streams

from treadle.testing import LiveServer

MIB = 1 << 20


class Endless:
    """Chunks without end; counts how many were asked for."""

    def __init__(self, size: int) -> None:
        self.chunk = b"x" * size
        self.produced = 0

    def __call__(self) -> Iterator[bytes]:
        while True:
            self.produced += 1
            yield self.chunk

    def settled(self, live: LiveServer, raw: Any) -> int:
        """How many were asked for once no more are, however often the lane turns."""
        with raw(live) as other:
            quiet, last = 0, -1
            while quiet < 30:
                assert_serves(other, "/other")
                quiet = quiet + 1 if self.produced == last else 0
                last = self.produced
        return last


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("behind", [b"", request("GET")], ids=["alone", "pipelined"])
def test_a_slow_client_slows_the_generator(serve: Any, raw: Any, kind: str, behind: bytes) -> None:
    endless = Endless(64 * 1024)
    live = serve(streams(endless, kind=kind))
    connection = raw(live)
    connection.send(request("GET") + behind)
    stopped = endless.settled(live, raw)
    # What the system's buffers take; nothing of ours grows.
    assert stopped * len(endless.chunk) < 16 * MIB
    connection.exactly(32 * MIB)
    assert endless.produced > stopped
    assert endless.settled(live, raw) * len(endless.chunk) < 48 * MIB


def test_chunks_of_any_size_are_held_back(serve: Any, raw: Any) -> None:
    for size in (100, 8 * MIB):
        endless = Endless(size)
        live = serve(streams(endless, kind="sync"))
        connection = raw(live)
        connection.send(request("GET"))
        assert endless.settled(live, raw) * size < 40 * MIB
        connection.close()


LONG = """
from treadle import App, StreamingResponse

app = App()

@app.get("/{mib:int}")
async def root(mib: int):
    async def chunks():
        chunk = bytes(256 * 1024)
        for _ in range(mib * 4):
            yield chunk
    return StreamingResponse(chunks())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_long_stream_takes_no_more_memory_than_a_short_one(run_cli: RunCli, raw: Any) -> None:
    command = run_cli(LONG, "--lanes", "1")
    connection = raw(command)

    def peak_after(mib: int) -> int:
        """The most memory the server has had, in bytes, once it has sent so much."""
        connection.send(request("GET", f"/{mib}"))
        connection.until(b"\r\n\r\n")
        received = 0
        while size := int(connection.until(b"\r\n"), 16):
            connection.exactly(size + 2)
            received += size
        assert connection.exactly(2) == b"\r\n"
        assert received == mib * MIB
        status = Path(f"/proc/{command.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024  # type: ignore[index]

    short = peak_after(8)
    assert peak_after(128) - short < 8 * MIB
