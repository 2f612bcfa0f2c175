"""A profile of a server that somebody else started: its statistics are read, nothing is sent."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from treadle.profile import machine
from treadle.profile.arguments import Asked
from treadle.profile.progress import Progress
from treadle.profile.readings import Readings, note_origin
from treadle.profile.record import Profile
from treadle.profile.samplers import sampling
from treadle.profile.target import Gone
from treadle.telemetry import Stats

__all__ = ["look"]


def look(asked: Asked, found: Profile, progress: Progress) -> None:
    """Fills `found` with what the server does meanwhile. Raises `MonitorError` and `Gone`."""
    from treadle.monitor import client

    assert asked.attach is not None
    progress.say(f"reading {asked.attach}")
    with client.connect(asked.attach) as connection:
        running = _Running(connection, asked.attach)
        note_origin(found, running.read())
        worker = machine.busiest(running.pid) if running.pid and asked.sampler != "none" else 0
        seen = Readings(running, found, workers=True)
        sampler = None
        if worker:
            if worker != running.pid:
                found.notes = (*found.notes, f"Stacks are those of the worker process {worker}.")
            sampler, refused = sampling(asked.sampler, worker, None)
            if sampler is None:
                found.notes = (*found.notes, f"No flame graph: {' '.join(refused)}")
        try:
            interval = asked.interval
            ends = time.monotonic() + asked.duration
            while (left := ends - time.monotonic()) > 0:
                seen.look()
                progress.part("reading, s", asked.duration - left, asked.duration)
                time.sleep(min(interval, left))
            seen.end()
            if not found.routes:
                found.notes = (*found.notes, "No request was counted meanwhile.")
        except BaseException:
            seen.keep()
            raise
        finally:
            if sampler is not None:
                found.flame = sampler.stop()


class _Running:
    """A server that somebody else started, read over its stats socket."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._is_here = name.isdecimal() or "://" not in name or _is_local(name)
        self.pid = 0
        """0 where its process is not on this machine."""

    def read(self) -> Stats:
        """Its statistics. Raises `Gone`."""
        from treadle.monitor.client import MonitorError

        try:
            stats: Stats = self._connection.read()
        except MonitorError as error:
            raise Gone(str(error)) from None
        if self._is_here:
            self.pid = stats.pid
        return stats


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
