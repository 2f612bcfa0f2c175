"""The traffic against a server that does what it is told, and against ones that do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from profiling.soak import client, traffic
from profiling.soak.client import Client, LostError
from profiling.soak.traffic import OPERATIONS, Tally, Traffic
from treadle.testing import LiveServer


@asynccontextmanager
async def _answering(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """A server that answers each request line with these bytes, and closes where there are none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                reply = answer(head.split(b"\r\n")[0])
                if not reply:
                    break
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _json(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda _: _json(b'{"token":"another"}'), "the answer to t0 is"),
        (lambda _: _json(b"", 503), "status 503 instead of 200"),
        (lambda _: b"", "a broken answer (IncompleteReadError)"),
        (lambda _: b"SSH-2.0\r\n\r\n", "a broken answer (IndexError)"),
    ],
)
async def test_an_answer_that_is_not_the_right_one_is_lost(
    answer: Callable[[bytes], bytes], said: str
) -> None:
    async with _answering(answer) as port:
        asking = await Client.open(port)
        with pytest.raises(LostError) as lost:
            await traffic._inline(Traffic(port, Tally(), 1), asking)
        await asking.leave()
    assert said in str(lost.value)


async def test_what_is_lost_is_counted_and_the_traffic_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.05)
    tally = Tally()
    async with _answering(lambda _: _json(b"{}")) as port:
        await Traffic(port, tally, seed=1).flow(0.1, clients=2)
    assert tally.lost > 2
    assert tally.told[0]


async def test_no_server_is_a_loss_and_no_crash() -> None:
    with pytest.raises(LostError, match="no connection"):
        await Client.open(1)


async def test_every_operation_ends_well_on_a_server_that_is_sound() -> None:
    from profiling.apps.soak_app import app

    with LiveServer(app, lanes=1) as server:
        for operation in traffic._OPERATIONS:
            flow = Traffic(server.port, Tally(), seed=1)
            asking = await Client.open(server.port)
            await operation.run(flow, asking)
            await asking.leave()
            assert (flow._tally.answers > 0) != operation.name.startswith(("leaves", "reads"))
    assert len(set(OPERATIONS)) == len(OPERATIONS)
