"""CPU time and processes of a server, read from Linux.

The time wanted is the sum of the first field of /proc/PID/task/*/schedstat. Threads that have
ended drop out of that sum, and a server with a thread per connection ends many between two
readings. The CPU clock of a process is the same sum with them in it, so that is what is read.
"""

import os
import time
from collections.abc import Iterable
from pathlib import Path

_NANOSECONDS = 1e9
_CLOCK_OF_ALL_THREADS = 2


def process_tree(pid: int) -> list[int]:
    """Return `pid` and the processes below it, parents first; empty when it is gone."""
    found = [pid] if Path(f"/proc/{pid}").exists() else []
    for parent in found:
        found.extend(_children(parent))
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children.extend(int(child) for child in listing.read_text().split())
        except OSError:  # the thread, or the process, ended while we looked
            continue
    return children


def process_seconds(pid: int) -> float | None:
    """CPU seconds of one process, all its threads, ended ones too; None when it is gone."""
    # The kernel's own encoding of "the CPU clock of process pid" (clock_getcpuclockid(3)).
    clock = (~pid << 3) | _CLOCK_OF_ALL_THREADS
    try:
        return time.clock_gettime_ns(clock) / _NANOSECONDS
    except OSError:
        return None


def schedstat_seconds(pid: int) -> float:
    """CPU seconds of the living threads of a process: what the process clock must agree with."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except OSError:  # it ended while we looked
            continue
    return total / _NANOSECONDS


class CpuMeter:
    """The CPU time that a process and everything below it use from now on."""

    def __init__(self, pid: int) -> None:
        """Start reading."""
        self._pid = pid
        self._before = _readings(process_tree(pid))

    def seconds(self) -> float | None:
        """CPU seconds since the start; None when a process that was there is gone."""
        now = _readings(process_tree(self._pid))
        if not self._before or not self._before.keys() <= now.keys():
            return None
        return sum(now.values()) - sum(self._before.values())


def _readings(pids: Iterable[int]) -> dict[int, float]:
    readings = {pid: process_seconds(pid) for pid in pids}
    return {pid: seconds for pid, seconds in readings.items() if seconds is not None}


class CoreMeter:
    """How busy one core is from now on, whoever uses it."""

    def __init__(self, core: int) -> None:
        """Start reading."""
        self._core = core
        self._began = time.monotonic()
        self._before = _busy_seconds(core)

    def share_of_others(self, own: float) -> float:
        """The part of the time since the start in which others than `own` seconds had the core.

        Time the hypervisor gave to other machines counts; interrupts do not, they are the load's.
        """
        busy = _busy_seconds(self._core) - self._before
        return max(0.0, busy - own) / (time.monotonic() - self._began)


def _busy_seconds(core: int) -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        words = line.split()
        if words[0] == f"cpu{core}":
            user, nice, system, stolen = (int(words[at]) for at in (1, 2, 3, 8))
            return (user + nice + system + stolen) / os.sysconf("SC_CLK_TCK")
    return 0.0


def resident_bytes(pid: int) -> int:
    """Resident memory of a process and everything below it; what they share counts each time."""
    return _rollup(pid, "Rss")


def proportional_bytes(pid: int) -> int:
    """The same, with what processes share divided among them."""
    return _rollup(pid, "Pss")


def _rollup(pid: int, name: str) -> int:
    total = 0
    for member in process_tree(pid):
        try:
            # statm counts in batches per CPU; this one is exact.
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue
        fields = dict(line.split(":", 1) for line in rollup.splitlines()[1:])
        total += int(fields[name].split()[0]) * 1024
    return total


def cores() -> tuple[int, ...]:
    """The cores this process may use, lowest first."""
    return tuple(sorted(os.sched_getaffinity(0)))
