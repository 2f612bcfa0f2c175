"""Where and of what a comparison was taken."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from profiling.paths import ROOT
from profiling.results import Machine


def describe() -> Machine:
    """The machine, in the words that a result needs."""
    return Machine(
        cpu=_cpu_model(),
        cores=os.cpu_count() or 1,
        memory_gib=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        kernel=platform.release(),
        load_before=round(os.getloadavg()[0], 2),
    )


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def python() -> str:
    """What runs the harness."""
    return platform.python_version()


def commit() -> str:
    """The commit that is checked out; "none" where there is none."""
    return _git("rev-parse", "HEAD") or "none"


def dirty() -> bool:
    """Whether the tree differs from the commit, results of earlier comparisons aside."""
    return bool(_git("status", "--porcelain", "--", ".", ":!profiling/results"))


def _git(*words: str) -> str:
    try:
        done = subprocess.run(
            ["git", *words], cwd=ROOT, capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def now() -> str:
    """The date and time, to the second, in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
