"""The statistics of a target, read again and again while it is profiled."""

from __future__ import annotations

import msgspec

from treadle.profile import machine, stages
from treadle.profile.load import LoadProgress
from treadle.profile.record import Moment, Profile
from treadle.profile.target import Target
from treadle.telemetry import Stats

__all__ = ["Readings", "note_origin"]


class Readings:
    """The readings of one run, of which the record gets what lies between the first and the last."""

    def __init__(self, target: Target, found: Profile, *, workers: bool = False) -> None:
        self._target = target
        self._found = found
        self._workers = workers
        self._first = self._last = target.read()
        self._cpu_first = self._cpu_last = self._cpu()
        self._timeline: list[Moment] = []
        self._began = False

    def look(self, tick: LoadProgress | None = None) -> Stats:
        """Reads; the first time the run begins. Raises `Gone`."""
        now, cpu = self._target.read(), self._cpu()
        if not self._began:
            self._began = True
            self._first, self._cpu_first = now, cpu
        else:
            since = self._timeline[-1].at if self._timeline else 0.0
            moment = stages.moment(self._last, now, since=since)
            if tick is not None:
                # 0 is that of no answer at all.
                moment = msgspec.structs.replace(moment, latency_p99=tick.p99 or None)
            self._timeline.append(moment)
        self._last, self._cpu_last = now, cpu
        return now

    def end(self) -> None:
        """The last look. Raises `Gone`."""
        self._last, self._cpu_last = self._target.read(), self._cpu()
        self.keep()

    def keep(self) -> None:
        """Puts what was read into the record."""
        first, last, found = self._first, self._last, self._found
        # Again: a handler may have imported what turned the GIL on.
        note_origin(found, last)
        if last is first:
            return  # one reading is no interval
        found.before, found.after = first, last
        found.routes = stages.route_rows(first, last)
        found.lanes = stages.lane_rows(first, last)
        found.timeline = tuple(self._timeline)
        kernel = offload = None
        if self._cpu_first is not None and self._cpu_last is not None:
            kernel = self._cpu_last.system - self._cpu_first.system
            if self._cpu_last.offload is not None:
                offload = self._cpu_last.offload - (self._cpu_first.offload or 0.0)
        found.cpu = stages.cpu_split(first, last, kernel=kernel, offload=offload)

    def _cpu(self) -> machine.CpuTimes | None:
        return machine.cpu_times(self._target.pid, workers=self._workers)


def note_origin(found: Profile, stats: Stats) -> None:
    """Puts into the record what the server says of itself."""
    found.origin = msgspec.structs.replace(
        found.origin,
        treadle=stats.version,
        build_profile=stats.build_profile,
        python=stats.python,
        gil=stats.gil,
        gil_culprit=stats.gil_culprit,
        free_threaded_build=stats.free_threaded,
    )
