"""Says when a lane stands still: a handler, or a callback, that does not give it back.

While one runs, nothing else on the lane does. A lane that comes to nothing new for `--stall-warning`
seconds is logged, once, with what it runs and where that is; and once more, with how long it took,
when it goes on. Lifespans that start are not watched: to load things there, blocking, is usual.

The watching is native (`StallWatch`) and takes neither the interpreter nor a lane's time; only when
there is something to say, this thread runs Python. The stack is the interpreter's own dump, which
stops all threads for the moment: reading the frames of a thread that runs is not safe without a GIL.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from treadle import interpreter
from treadle._treadle import StallWatch

if TYPE_CHECKING:
    from treadle._treadle import Meter, Route

__all__ = ["Watcher", "spell", "stack_of"]

logger = logging.getLogger("treadle")

_OUTERMOST = {("loop.py", "run_forever"), ("offload.py", "_work"), ("offload.py", "_make_call")}
"""The frames below which everything is the lane's own, or the pool's."""

Frame = tuple[str, int, str]
"""File, line and name of a function."""


class Watcher(threading.Thread):
    """Watches the lanes of one server from its start to its end."""

    def __init__(self, meters: Sequence[Meter], routes: Sequence[Route], limit: float) -> None:
        super().__init__(name="treadle-stall-watch", daemon=True)
        self._watch = StallWatch(list(meters), limit)
        self._routes = routes

    def stop(self) -> None:
        """Ends it, once it has said what had happened by then."""
        self._watch.stop()
        self.join()

    def run(self) -> None:
        """The thread's whole life."""
        while (news := self._watch.wait()) is not None:
            lane, stalled, seconds, waits, thread, route, request = news
            try:
                if not stalled:
                    logger.warning("lane %d goes on after %.2f s", lane, seconds)
                elif waits:
                    what = "the GIL" if interpreter.gil_enabled() else "a pause of all threads"
                    logger.warning("lane %d has waited for %s for %.2f s", lane, what, seconds)
                else:
                    self._say(lane, seconds, thread, self._request(route, request))
            except Exception:
                logger.exception("the stall of lane %d cannot be told", lane)

    def _request(self, route: int, request: int) -> str:
        if not 0 < route <= len(self._routes):
            return ""
        known = self._routes[route - 1]
        return f" in request {request}: {','.join(known.methods)} {known.path} ({known.origin})"

    def _say(self, lane: int, seconds: float, thread: int, where: str) -> None:
        logger.warning(
            "lane %d has not turned for %.2f s%s\n%s",
            lane,
            seconds,
            where,
            spell(stack_of(thread)),
        )


def stack_of(thread: int) -> list[Frame]:
    """The functions that the thread with this identifier is in, the outermost first.

    Empty for one that is not there, and for one of more than a hundred, which the interpreter does
    not tell.
    """
    import re

    with open(os.memfd_create("stacks"), "w+b") as file:
        faulthandler.dump_traceback(file, all_threads=True)
        file.seek(0)
        dump = file.read().decode("ascii", "backslashreplace")
    frames: list[Frame] = []
    inside = False
    for line in dump.splitlines():
        if begun := re.match(r"(?:Current thread|Thread) 0x([0-9a-f]+)\b", line):
            inside = int(begun[1], 16) == thread
        elif inside and (frame := re.fullmatch(r'  File "(.*)", line (\d+) in (.*)', line)):
            frames.append((frame[1], int(frame[2]), frame[3]))
    return frames[::-1]


def spell(frames: list[Frame]) -> str:
    """The stack as tracebacks have it, without what every lane's, or pool's, begins with."""
    import linecache

    if not frames:
        return "  its stack is not known"
    for place in range(len(frames), 0, -1):
        file, _, name = frames[place - 1]
        if (os.path.basename(file), name) in _OUTERMOST:
            frames = frames[place:]
            break
    if not frames:
        return "  in no Python code: it waits, or runs native code"
    lines = []
    for file, number, name in frames:
        lines.append(f'  File "{file}", line {number}, in {name}')
        if source := linecache.getline(file, number).strip():
            lines.append(f"    {source}")
    return "\n".join(lines)
