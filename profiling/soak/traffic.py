"""The traffic of the soak: what clients do, well-behaved ones and others.

Every request whose answer is wanted carries a token of its own, and the answer must have it.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count

from profiling.soak.client import Client, LostError

_MOST_TOLD = 20
_PIPELINED = 8
_KIB = 1024
_RETRY_AFTER = 0.1


@dataclass
class Tally:
    """What the traffic did and what it missed; shared by the tasks of one event loop."""

    done: Counter[str] = field(default_factory=Counter)
    """Operations that ended as they should, by name."""
    answers: int = 0
    lost: int = 0
    told: list[str] = field(default_factory=list)
    """The first of what was lost, in words."""

    def lose(self, operation: str, why: str) -> None:
        """Note an answer that is missing or wrong."""
        self.lost += 1
        if len(self.told) < _MOST_TOLD:
            self.told.append(f"{operation}: {why}")


class Traffic:
    """Clients that ask one server without a pause, each choosing what to do next by chance."""

    def __init__(self, port: int, tally: Tally, seed: int) -> None:
        """Ask the server on this port; the same seed gives the same choices."""
        self._port = port
        self._tally = tally
        self._random = random.Random(seed)
        self._tokens = count()
        self._until = 0.0

    async def flow(self, seconds: float, clients: int) -> None:
        """Let so many clients loose for so long; what each is doing then, it finishes."""
        self._until = asyncio.get_running_loop().time() + seconds
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(self._one())

    async def _one(self) -> None:
        clock = asyncio.get_running_loop().time
        client: Client | None = None
        try:
            while clock() < self._until:
                client = client or await self._connected()
                if client is None:
                    continue
                operation = self._random.choices(_OPERATIONS, _WEIGHTS)[0]
                whole = await self._perform(operation, client)
                if not whole or operation.spoils:
                    await client.leave()
                    client = None
        finally:
            if client is not None:
                await client.leave()

    async def _connected(self) -> Client | None:
        try:
            return await Client.open(self._port)
        except LostError as error:
            self._tally.lose("connecting", str(error))
            await asyncio.sleep(_RETRY_AFTER)
            return None

    async def _perform(self, operation: "Operation", client: Client) -> bool:
        """Whether it ended as it should."""
        try:
            await operation.run(self, client)
        except LostError as error:
            self._tally.lose(operation.name, str(error))
            return False
        self._tally.done[operation.name] += 1
        return True

    def token(self) -> str:
        """A word that no other request has."""
        return f"t{next(self._tokens)}"

    def pause(self) -> float:
        """A few milliseconds."""
        return self._random.uniform(0.001, 0.01)

    async def expect(self, client: Client, status: int, token: str | None = None) -> None:
        """Read an answer; raises LostError when it is another."""
        answer = await client.answer()
        if answer.status != status:
            raise LostError(f"status {answer.status} instead of {status}")
        if token is not None and answer.json() != {"token": token}:
            raise LostError(f"the answer to {token} is {answer.body[:60]!r}")
        self._tally.answers += 1

    async def expect_bytes(self, client: Client, size: int) -> None:
        """Read an answer of a stream; raises LostError when it is not whole."""
        answer = await client.answer()
        if (answer.status, len(answer.body)) != (200, size):
            raise LostError(f"{len(answer.body)} of {size} streamed bytes")
        self._tally.answers += 1


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: soak\r\n\r\n".encode()


def _post(path: str, body: bytes) -> bytes:
    head = (
        f"POST {path} HTTP/1.1\r\nHost: soak\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _echo(traffic: Traffic, client: Client, path: str) -> None:
    token = traffic.token()
    await client.send(_get(f"/{path}/{token}"))
    await traffic.expect(client, 200, token)


async def _inline(traffic: Traffic, client: Client) -> None:
    await _echo(traffic, client, "echo")


async def _suspended(traffic: Traffic, client: Client) -> None:
    await _echo(traffic, client, "later")


async def _offloaded(traffic: Traffic, client: Client) -> None:
    await _echo(traffic, client, "offload")


async def _pipelined(traffic: Traffic, client: Client) -> None:
    tokens = [traffic.token() for _ in range(_PIPELINED)]
    paths = ("echo", "later")
    await client.send(b"".join(_get(f"/{paths[n % 2]}/{t}") for n, t in enumerate(tokens)))
    for token in tokens:
        await traffic.expect(client, 200, token)


async def _body(traffic: Traffic, client: Client) -> None:
    token = traffic.token()
    numbers = list(range(200))
    await client.send(_post("/items", json.dumps({"token": token, "numbers": numbers}).encode()))
    await traffic.expect(client, 200, f"{token}-{sum(numbers)}")


async def _streamed(traffic: Traffic, client: Client) -> None:
    await client.send(_get("/stream/32"))
    await traffic.expect_bytes(client, 32 * _KIB)


async def _failing(traffic: Traffic, client: Client) -> None:
    await client.send(_get(f"/fail/{traffic.token()}"))
    await traffic.expect(client, 500)


async def _refused(traffic: Traffic, client: Client) -> None:
    await client.send(_get("/nowhere"))
    await traffic.expect(client, 404)
    await client.send(_get("/items"))
    await traffic.expect(client, 405)
    await client.send(_post("/items", b'{"token": 1}'))
    await traffic.expect(client, 422)


async def _leaves_waiting(traffic: Traffic, client: Client) -> None:
    await client.send(_get("/hang"))
    await asyncio.sleep(traffic.pause())
    await client.leave()


async def _leaves_streaming(_: Traffic, client: Client) -> None:
    await client.send(_get("/stream/100000"))
    await client.some(_KIB)
    await client.leave()


async def _leaves_sending(traffic: Traffic, client: Client) -> None:
    whole = _post("/items", b'{"token": "never", "numbers": []}')
    await client.send(whole[: len(whole) * 2 // 3])
    await asyncio.sleep(traffic.pause())
    await client.leave()


async def _sends_slowly(traffic: Traffic, client: Client) -> None:
    token = traffic.token()
    request = _get(f"/later/{token}")
    for at in range(0, len(request), 4):
        await client.send(request[at : at + 4])
        await asyncio.sleep(traffic.pause())
    await traffic.expect(client, 200, token)
    await client.close()


async def _reads_slowly(traffic: Traffic, client: Client) -> None:
    await client.send(_get("/stream/256"))
    for _ in range(10):
        await client.some(512)
        await asyncio.sleep(traffic.pause())
    await client.leave()


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that a client may do."""

    name: str
    run: Callable[[Traffic, Client], Awaitable[None]]
    weight: int
    spoils: bool = False
    """Nothing more can be asked on its connection."""


_OPERATIONS = (
    Operation("inline", _inline, 20),
    Operation("suspended", _suspended, 20),
    Operation("offloaded", _offloaded, 8),
    Operation("pipelined", _pipelined, 8),
    Operation("body", _body, 12),
    Operation("streamed", _streamed, 6),
    Operation("failing", _failing, 3),
    Operation("refused", _refused, 6),
    Operation("leaves waiting", _leaves_waiting, 5, spoils=True),
    Operation("leaves streaming", _leaves_streaming, 4, spoils=True),
    Operation("leaves sending", _leaves_sending, 4, spoils=True),
    Operation("sends slowly", _sends_slowly, 2, spoils=True),
    Operation("reads slowly", _reads_slowly, 2, spoils=True),
)
_WEIGHTS = [operation.weight for operation in _OPERATIONS]
OPERATIONS = tuple(operation.name for operation in _OPERATIONS)
