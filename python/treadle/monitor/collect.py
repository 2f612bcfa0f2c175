"""The statistics of a whole server: of this process, or of all its worker processes.

Each worker answers for itself on a socket in a folder that the parent made for them. Whichever
worker is asked for the whole reads the others there and adds up. What it learned of them goes into a
ledger in the same folder, because totals must not go down: a worker that does not answer counts with
what it said last, and one that was replaced goes on counting in the sum of those that are gone. So
what one answer contained is contained in all later ones, whoever gives them.

A lane's index is unique in the whole: the worker's number times the lanes of each, plus the lane's.

Threads and processes: any thread may call `Collector.read`. The ledger is read and replaced under a
file lock, by one reader of all processes at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from treadle import telemetry
from treadle.monitor import wire
from treadle.telemetry import LaneStats, OffloadStats, RouteStats, Stats, merge

__all__ = ["Collector", "Group"]

PATIENCE = 1.0
"""Seconds that the other workers have for their answers, all together."""


class Group(msgspec.Struct, frozen=True, kw_only=True):
    """The workers of one server and the folder in which they find each other."""

    folder: str
    parent: int
    """The process that started them, under whose number they are known."""
    size: int
    began: float = msgspec.field(default_factory=telemetry.began)
    """When the parent did, as `telemetry.began` has it."""

    def path(self, worker: int) -> str:
        """Where worker `worker` answers for itself."""
        return os.path.join(self.folder, f"{worker}.sock")


class Collector:
    """Reads this process's statistics from `source`, and those of the other workers of `group`."""

    def __init__(
        self,
        source: Callable[[], Stats],
        group: Group | None = None,
        *,
        worker: int = 0,
        lanes: int = 1,
    ) -> None:
        self._group = group
        self._worker = worker
        self._first_lane = worker * lanes
        self._source = source

    def own(self) -> Stats:
        """Those of this process."""
        stats = self._source()
        if not self._first_lane:
            return stats
        lanes = [
            msgspec.structs.replace(lane, index=self._first_lane + lane.index)
            for lane in stats.lanes
        ]
        return msgspec.structs.replace(stats, lanes=tuple(lanes))

    def read(self) -> Stats:
        """Those of the whole server."""
        if self._group is None:
            return self.own()
        with _ledger(self._group.folder) as ledger:
            now, clock = time.time(), time.clock_gettime(time.CLOCK_BOOTTIME)
            answers = {self._worker: self.own(), **_ask_others(self._group, self._worker)}
            total = ledger.add_up(answers)
        # The parent's: workers come and go, and what is counted is of all of them.
        return msgspec.structs.replace(
            total, pid=self._group.parent, time=now, uptime=clock - self._group.began
        )


# -- the other workers -----------------------------------------------------------------------------


def _ask_others(group: Group, worker: int) -> dict[int, Stats]:
    """What the others say: all are asked before the first answer is waited for."""
    deadline = time.monotonic() + PATIENCE
    answers = {}
    with contextlib.ExitStack() as open_sockets:
        asked = []
        for other in range(group.size):
            if other == worker:
                continue
            connection = open_sockets.enter_context(socket.socket(socket.AF_UNIX))
            connection.settimeout(PATIENCE)
            with contextlib.suppress(OSError):
                connection.connect(group.path(other))
                wire.ask(connection, "/stats")
                asked.append((other, connection))
        for other, connection in asked:
            with contextlib.suppress(OSError, wire.Malformed, msgspec.DecodeError):
                status, body = wire.receive(connection, deadline)
                if status == 200:
                    answers[other] = msgspec.json.decode(body, type=Stats)
    return answers


class _Ledger(msgspec.Struct, kw_only=True):
    """What the workers have been known to have counted."""

    gone: Stats | None = None
    """Those that were replaced, added up; only what never goes down."""
    last: dict[int, Stats] = {}
    """What each worker that is, or was last, in its place said last."""

    def add_up(self, answers: dict[int, Stats]) -> Stats:
        """The whole, with `answers` taken in."""
        for worker, stats in answers.items():
            before = self.last.get(worker)
            if before is not None and before.pid != stats.pid:
                counted = _counted(before)
                self.gone = counted if self.gone is None else merge(self.gone, counted)
            self.last[worker] = stats
        silent = [_counted(self.last[worker]) for worker in self.last.keys() - answers.keys()]
        gone = [] if self.gone is None else [self.gone]
        # Those that are gone come first: of what cannot be added up the later counts in a lane.
        return merge(*gone, *silent, *answers.values())


@contextlib.contextmanager
def _ledger(folder: str) -> Iterator[_Ledger]:
    """The ledger in `folder`, written back if the block succeeds."""
    path = os.path.join(folder, "ledger")
    lock = os.open(path + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            with open(path, "rb") as file:
                ledger = msgspec.json.decode(file.read(), type=_Ledger)
        except (FileNotFoundError, msgspec.DecodeError):
            ledger = _Ledger()
        yield ledger
        with open(path + ".new", "wb") as file:
            file.write(msgspec.json.encode(ledger))
        os.replace(path + ".new", path)
    finally:
        os.close(lock)


_NOW: dict[type, dict[str, Any]] = {
    Stats: {"rss": 0, "uptime": 0.0, "offload": OffloadStats()},
    LaneStats: {"ready": 0, "open": 0, "in_flight": 0},
    RouteStats: {"in_flight": 0},
}
"""What is true at one moment only, and what it is once that is over."""


def _counted(stats: Stats) -> Stats:
    """`stats` of a process that is gone: what it counted, without what was true then."""
    return msgspec.structs.replace(
        stats,
        lanes=tuple(msgspec.structs.replace(lane, **_NOW[LaneStats]) for lane in stats.lanes),
        routes=tuple(msgspec.structs.replace(route, **_NOW[RouteStats]) for route in stats.routes),
        **_NOW[Stats],
    )
