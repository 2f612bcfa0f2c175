"""Samples the Python stacks of its own process, for interpreters that nobody can look into from outside.

A thread asks `faulthandler` for the stacks of all threads, so many times a second. That holds them
still while it reads (by the GIL, or by stopping the world), which walking `sys._current_frames()`
does not do on a free-threaded build. The price is a bias: with the GIL the thread gets its turn
where others give the GIL up. So the switch interval is shortened while it samples.

The text of a stack is only counted while sampling; `stacks` reads it afterwards.
"""

from __future__ import annotations

import faulthandler
import os
import re
import sys
import tempfile
import threading
from collections import Counter
from time import monotonic

from treadle.interpreter import gil_enabled
from treadle.profile.flame import Place, Stack

__all__ = ["Watcher", "stacks"]

_SWITCH = 0.0005
_HEAD = re.compile(
    r"^(Current thread|Thread) 0x([0-9a-f]+)(?: \[(.*)\])? \(most recent call first\)"
)
_LINE = re.compile(r'^  File "(.*)", line (\d+|\?\?\?)(?: in (.*))?$')


class Watcher:
    """One sampling run; `start` and `stop` are called once each, by one thread."""

    def __init__(self, rate: float) -> None:
        """Samples `rate` times a second."""
        self._pause = 1.0 / rate
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="treadle-watcher", daemon=True)
        self._texts: Counter[str] = Counter()
        self.samples = 0
        """How often it looked."""

    def start(self) -> None:
        """Begins to sample."""
        self._thread.start()

    def stop(self) -> list[tuple[Stack, int]]:
        """Ends sampling; what was seen, by stack."""
        self._stop.set()
        self._thread.join()
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return stacks(self._texts, names)

    def _run(self) -> None:
        previous = sys.getswitchinterval()
        if gil_enabled():
            sys.setswitchinterval(min(previous, _SWITCH))
        try:
            with tempfile.TemporaryFile() as file:
                due = monotonic()
                while not self._stop.wait(max(0.0, due - monotonic())):
                    due = max(due + self._pause, monotonic())
                    self._look(file.fileno())
        finally:
            sys.setswitchinterval(previous)

    def _look(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        faulthandler.dump_traceback(fd, all_threads=True)
        size = os.lseek(fd, 0, os.SEEK_CUR)
        text = os.pread(fd, size, 0).decode("utf-8", "replace")
        self.samples += 1
        self._texts.update(part for part in text.split("\n\n") if part)


def stacks(texts: Counter[str], names: dict[int | None, str]) -> list[tuple[Stack, int]]:
    """Reads what `faulthandler` wrote: stacks from the outermost frame on, with the thread's name."""
    found: Counter[Stack] = Counter()
    for text, count in texts.items():
        lines = text.strip("\n").split("\n")
        head = _HEAD.match(lines[0])
        if head is None or head[1] == "Current thread":
            continue  # the watcher itself
        places = [
            Place(match[3] or "?", match[1], int(match[2]) if match[2].isdigit() else 0)
            for match in map(_LINE.match, lines[1:])
            if match is not None
        ]
        name = names.get(int(head[2], 16)) or head[3] or "thread"
        found[Stack(name, tuple(reversed(places)))] += count
    return list(found.items())
