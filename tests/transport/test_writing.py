"""What is written to a stream transport: when it is sent, held back, refused."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
from support.transports import MEGABYTE, connected, elsewhere, read, run

import treadle


def test_write_takes_its_data_by_position_or_name_and_nothing_else() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        write: Any = transport.write
        assert write(b"one ") is None
        assert write(data=bytearray(b"two")) is None
        refused = {
            r"write\(\) missing 1 required positional argument: 'data'": ((), {}),
            r"write\(\) takes 1 argument but 2 were given": ((b"a", b"b"), {}),
            r"write\(\) got an unexpected keyword argument": ((), {"date": b"a"}),
        }
        for words, (positional, named) in refused.items():
            with pytest.raises(TypeError, match=words):
                write(*positional, **named)
        transport.close()
        assert theirs.recv(100) == b"one two"
        theirs.close()

    run(main)


def test_writes_of_a_turn_go_out_together() -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        theirs.setblocking(False)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=ours)
        transport.write(b"one ")
        transport.writelines([b"two ", bytearray(b"three "), memoryview(b"four")])
        assert transport.get_write_buffer_size() == len(b"one two three four")
        with pytest.raises(BlockingIOError):
            theirs.recv(100)
        assert await loop.sock_recv(theirs, 100) == b"one two three four"
        assert transport.get_write_buffer_size() == 0
        transport.close()
        theirs.close()

    run(main)


def test_a_bytearray_may_be_changed_after_it_was_written() -> None:
    async def main() -> None:
        transport, _, theirs = await connected()
        for size in (10, 100_000):
            data = bytearray(b"x" * size)
            transport.write(data)
            data[:] = b"y" * size
            data.extend(b"more")
            assert await elsewhere(read, theirs, size) == b"x" * size
        transport.write(memoryview(b"abcdef")[::2])
        assert await elsewhere(read, theirs, 3) == b"ace"
        transport.close()
        theirs.close()

    run(main)


def test_what_was_written_is_sent_before_the_end() -> None:
    async def main() -> None:
        for end in ("close", "abort", "write_eof"):
            transport, _, theirs = await connected()
            transport.write(b"last words")
            getattr(transport, end)()
            assert theirs.recv(100) == b"last words"
            assert await elsewhere(theirs.recv, 100) == b""
            transport.close()
            theirs.close()

    run(main)


def test_what_was_written_is_sent_when_the_loop_stops() -> None:
    loop = treadle.new_event_loop()
    try:
        transport, _, theirs = loop.run_until_complete(connected(asyncio.Protocol))

        async def write() -> None:
            transport.write(b"before the stop")

        loop.run_until_complete(write())
        assert theirs.recv(100) == b"before the stop"
        transport.write(b"while stopped")
        loop.run_until_complete(asyncio.sleep(0))
        assert theirs.recv(100) == b"while stopped"
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))
        assert theirs.recv(100) == b""
        theirs.close()
    finally:
        loop.close()


def test_water_marks_pause_and_resume_the_protocol() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected(small=True)
        assert transport.get_write_buffer_limits() == (16384, 65536)
        transport.set_write_buffer_limits(high=1000, low=10)
        transport.write(b"x" * MEGABYTE)
        assert protocol.calls == ["made", "pause"]
        assert transport.get_write_buffer_size() > 1000
        transport.write(b"y")
        assert await elsewhere(read, theirs, MEGABYTE + 1) == b"x" * MEGABYTE + b"y"
        await protocol.resumed.wait()
        assert protocol.calls == ["made", "pause", "resume"]
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=1, low=2)
        transport.close()
        assert await protocol.lost is None
        theirs.close()

    run(main)


def test_a_protocol_that_the_system_keeps_up_with_is_never_paused() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected()
        transport.set_write_buffer_limits(high=0)
        for _ in range(100):
            transport.write(b"x" * 10)
        assert transport.get_write_buffer_size() == 0
        assert await elsewhere(read, theirs, 1000)
        assert protocol.calls == ["made"]
        transport.close()
        theirs.close()

    run(main)


def test_close_waits_until_everything_is_sent() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected(small=True)
        transport.write(b"x" * MEGABYTE)
        transport.close()
        assert transport.is_closing()
        await asyncio.sleep(0)
        assert not protocol.lost.done()
        assert len(await elsewhere(read, theirs, MEGABYTE)) == MEGABYTE
        assert await protocol.lost is None
        assert theirs.recv(1) == b""
        theirs.close()

    run(main)


def test_write_eof_waits_until_everything_is_sent() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected(small=True)
        transport.write(b"x" * MEGABYTE)
        transport.write_eof()
        with pytest.raises(RuntimeError, match=r"Cannot call write\(\) after write_eof\(\)"):
            transport.write(b"more")
        with pytest.raises(RuntimeError, match=r"Cannot call writelines\(\) after write_eof\(\)"):
            transport.writelines([b"more"])
        assert len(await elsewhere(read, theirs, MEGABYTE)) == MEGABYTE
        assert await elsewhere(theirs.recv, 1) == b""
        theirs.sendall(b"answer")
        assert await protocol.has(6) == b"answer"
        transport.close()
        theirs.close()

    run(main)


def test_water_marks_need_not_be_whole_bytes() -> None:
    async def main() -> None:
        transport, protocol, theirs = await connected(small=True)
        for given, limits in (
            ({"high": 10.5, "low": 2.5}, (2, 10)),
            ({"high": 10.5}, (2, 10)),
            ({"low": 2.5}, (2, 10)),
            ({"high": float("inf"), "low": 0.0}, (0, sys.maxsize)),
        ):
            transport.set_write_buffer_limits(**given)
            assert transport.get_write_buffer_limits() == limits
        with pytest.raises(ValueError, match="must be >="):
            transport.set_write_buffer_limits(high=float("nan"))
        transport.set_write_buffer_limits(high=10.5)
        transport.write(b"x" * MEGABYTE)
        assert protocol.calls == ["made", "pause"]
        assert await elsewhere(read, theirs, MEGABYTE)
        await protocol.resumed.wait()
        transport.close()
        theirs.close()

    run(main)


@pytest.mark.parametrize("data", ["text", 5, None, [1]])
def test_only_bytes_can_be_written(data: Any) -> None:
    async def main() -> None:
        transport, _, theirs = await connected()
        with pytest.raises(TypeError, match="data argument must be a bytes"):
            transport.write(data)
        with pytest.raises(TypeError):
            transport.writelines([b"fine", data])
        transport.write(b"")
        transport.writelines([])
        assert transport.get_write_buffer_size() == 0
        transport.close()
        theirs.close()

    run(main)


@pytest.mark.parametrize("fallback", [False, True])
def test_sendfile_after_what_was_written(fallback: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MEGABYTE)

    async def main() -> None:
        transport, protocol, theirs = await connected()
        transport.write(b"head")
        received = asyncio.ensure_future(elsewhere(read, theirs, 4 + MEGABYTE + 4))
        loop = asyncio.get_running_loop()
        if fallback:
            transport._sendfile_compatible = asyncio.constants._SendfileMode.FALLBACK  # type: ignore[attr-defined]
        with path.open("rb") as file:
            assert await loop.sendfile(transport, file) == MEGABYTE
        transport.write(b"tail")
        assert await received == b"head" + b"f" * MEGABYTE + b"tail"
        transport.close()
        assert await protocol.lost is None
        theirs.close()

    run(main)


@pytest.mark.parametrize("end", ["close", "abort"])
def test_sendfile_that_waits_for_what_was_written_fails_when_the_transport_ends(
    end: str, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"f" * MEGABYTE)

    async def main() -> None:
        transport, protocol, theirs = await connected(small=True)
        transport.write(b"x" * MEGABYTE)
        loop = asyncio.get_running_loop()
        with path.open("rb") as file:
            sending = loop.create_task(loop.sendfile(transport, file))
            await asyncio.sleep(0)
            assert not transport._empty_waiter.done()
            getattr(transport, end)()
            received = asyncio.ensure_future(elsewhere(read_all, theirs))
            with pytest.raises(ConnectionError, match="Connection is closed by peer"):
                await sending
        assert await protocol.lost is None
        assert set(await received) == set(b"x")
        assert end == "abort" or len(received.result()) == MEGABYTE
        theirs.close()

    run(main)


def read_all(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(MEGABYTE), b""))
