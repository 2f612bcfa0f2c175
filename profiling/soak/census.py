"""What is counted between two stretches of traffic, and whether it stays flat."""

import asyncio
from pathlib import Path

import msgspec

from profiling.cpu import resident_bytes
from profiling.errors import ComparisonError
from profiling.program import Program
from profiling.soak.client import Client, LostError
from profiling.statistics import median

_SETTLED_WITHIN = 20.0
_LOOK_EVERY = 0.1
_STILL_FOR = 3
_REQUEST = b"GET /census HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n"
_FEWEST = 6
"""Counts needed to say that something grew."""


class Count(msgspec.Struct, frozen=True):
    """The server at rest: nobody is connected but who counts."""

    second: float
    """Since the soak began."""
    answers: int
    """Answers that came until now."""
    rss: int
    """Resident bytes."""
    fds: int
    """Open files."""
    tasks: int
    """Tasks of all lanes."""
    objects: int
    """Objects that the garbage collector knows, after it ran."""


class Allowance(msgspec.Struct, frozen=True):
    """How much more there may be in the last third than in the first."""

    field: str
    words: str
    share: float
    amount: float


ALLOWED = (
    # Allocators give memory back when they please, and the first minutes still fill their pools.
    Allowance("rss", "bytes resident", 0.05, 4 * 2**20),
    Allowance("fds", "open files", 0.0, 1),
    Allowance("tasks", "Tasks", 0.0, 0),
    Allowance("objects", "objects", 0.005, 300),
)


async def at_rest(server: Program, second: float, answers: int) -> Count:
    """Count, once open files and Tasks have stopped changing, or after twenty seconds."""
    deadline = asyncio.get_running_loop().time() + _SETTLED_WITHIN
    seen: list[tuple[int, int]] = []
    while True:
        counted = await _ask(server)
        seen.append((_open_files(server.pid), counted.tasks))
        still = seen[-_STILL_FOR:]
        settled = len(still) == _STILL_FOR and len(set(still)) == 1
        if settled or asyncio.get_running_loop().time() > deadline:
            break
        await asyncio.sleep(_LOOK_EVERY)
    files, tasks = seen[-1]
    rss = resident_bytes(server.pid)
    return Count(round(second, 1), answers, rss, files, tasks, counted.objects)


class _Counted(msgspec.Struct):
    tasks: int
    objects: int


async def _ask(server: Program) -> _Counted:
    try:
        client = await Client.open(server.port)
        await client.send(_REQUEST)
        answer = await client.answer()
        await client.close()
        return msgspec.json.decode(answer.body, type=_Counted)
    except (LostError, msgspec.DecodeError) as error:
        server.require_alive()
        raise ComparisonError(f"{server.label} cannot be counted: {error}.") from error


def _open_files(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def growth(counts: list[Count]) -> list[str]:
    """What grew between the first and the last third, in words; the first quarter warms up."""
    steady = counts[len(counts) // 4 :]
    if len(steady) < _FEWEST:
        return []
    third = len(steady) // 3
    found = []
    for allowed in ALLOWED:
        values = [float(getattr(count, allowed.field)) for count in steady]
        before, after = median(values[:third]), median(values[-third:])
        if after > before * (1 + allowed.share) + allowed.amount:
            found.append(f"{allowed.words} grew from {before:,.0f} to {after:,.0f}")
    return found
