"""What the system says of this machine, of a process's CPU time, and of the code that is profiled."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from treadle.options import cores
from treadle.profile.record import Machine

__all__ = ["CpuTimes", "busiest", "commit", "cpu_times", "describe"]

_LOOK = 0.2
"""Seconds after which it shows which process works: CPU time is told in ticks of 10 ms."""


class CpuTimes(NamedTuple):
    """CPU seconds of a process so far."""

    system: float
    offload: float | None
    """User time of the threads of offloaded handlers; None where threads have no names."""


def cpu_times(pid: int, *, workers: bool = False) -> CpuTimes | None:
    """From /proc, with those of its children if `workers`; None where there is no such process."""
    try:
        system = _stat(f"/proc/{pid}/stat")[1]
    except (OSError, ValueError, IndexError):
        return None
    offload, named = _offload(pid)
    for child in _children(pid) if workers else ():
        times = cpu_times(child)
        if times is not None:
            system += times.system
            offload += times.offload or 0.0
    return CpuTimes(system, offload if named else None)


def busiest(pid: int) -> int:
    """The process, or the child of it, that uses most CPU time now: of workers one that works."""
    before = _spent(pid)
    if len(before) < 2:
        return pid
    time.sleep(_LOOK)
    now = _spent(pid)
    # Those that are alike in that, and idle ones, by what they have used before.
    return max(before, key=lambda each: (now.get(each, 0.0) - before[each], before[each]))


def _spent(pid: int) -> dict[int, float]:
    """CPU seconds so far of the process and its children."""
    found = {}
    for each in (pid, *_children(pid)):
        with contextlib.suppress(OSError, ValueError, IndexError):
            found[each] = sum(_stat(f"/proc/{each}/stat"))
    return found


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                words = Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
                found += map(int, words)
    return found


def _offload(pid: int) -> tuple[float, bool]:
    """User time of the threads for offloaded handlers, and whether threads have names here."""
    offload = 0.0
    named = False
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            folder = f"/proc/{pid}/task/{thread}"
            with contextlib.suppress(OSError, ValueError, IndexError):
                name = Path(folder, "comm").read_text()
                named = named or name.startswith("treadle-")
                if name.startswith("treadle-offload"):
                    offload += _stat(f"{folder}/stat")[0]
    return offload, named


def _stat(file: str) -> tuple[float, float]:
    """User and system time, seconds."""
    words = Path(file).read_bytes().rpartition(b") ")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return int(words[11]) / tick, int(words[12]) / tick


def describe() -> Machine:
    """This machine, as far as this process may use it."""
    memory = 0.0
    with contextlib.suppress(ValueError, OSError):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Machine(
        cpu=_cpu_model(),
        cores=cores(),
        memory_gib=round(memory, 1),
        kernel=f"{platform.system()} {platform.release()}",
    )


def _cpu_model() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> tuple[str, bool]:
    """The commit of the working directory, and whether files differ from it; empty without git."""
    head = _git("rev-parse", "HEAD")
    return head, bool(head) and bool(_git("status", "--porcelain", "--untracked-files=no"))


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
