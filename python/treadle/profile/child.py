"""The profiled server's process: `python -m treadle.profile.child FD run main:app ...`.

It is `treadle run` with one thread beside it, which answers on the socket FD what the profile asks:
the statistics, and stacks where nobody can look at them from outside. While it
is not asked it sleeps outside the interpreter. When the profile is gone, however that came, the
server stops as by SIGTERM.

One JSON document a line in either direction; answers come in the order of the questions.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec

__all__ = ["Answer", "Question", "main"]


class Question(msgspec.Struct):
    """What the profile asks."""

    what: str
    """`stats`, `watch` or `watched`."""
    rate: float = 0.0


class Answer(msgspec.Struct):
    """What the server says; `error` instead of `value` where it cannot."""

    value: Any = None
    error: str = ""


class _Control:
    """Belongs to the control thread."""

    def __init__(self) -> None:
        self._watcher: Any = None
        self._known: dict[str, Callable[[Question], Any]] = {
            "stats": self._stats,
            "watch": self._watch,
            "watched": self._watched,
        }

    def answer(self, line: bytes) -> Answer:
        try:
            question = msgspec.json.decode(line, type=Question)
            return Answer(self._known[question.what](question))
        except Exception as error:
            return Answer(error=f"{type(error).__name__}: {error}")

    def _stats(self, question: Question) -> Any:
        import treadle

        return treadle.stats()

    def _watch(self, question: Question) -> None:
        from treadle.profile.watcher import Watcher

        self._watcher = Watcher(question.rate)
        self._watcher.start()

    def _watched(self, question: Question) -> Any:
        watcher, self._watcher = self._watcher, None
        stacks = watcher.stop()
        return [watcher.samples, [[s.thread, s.places, s.running, n] for s, n in stacks]]


def _serve(fd: int) -> None:
    control = _Control()
    encode = msgspec.json.encode
    try:
        with socket.socket(fileno=fd) as sock, sock.makefile("rwb") as file:
            for line in file:
                file.write(encode(control.answer(line)) + b"\n")
                file.flush()
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main(argv: list[str]) -> int:
    """Serves; the first word is the socket's number, the rest `treadle`'s command line."""
    fd = int(argv[0])
    os.set_inheritable(fd, False)
    threading.Thread(target=_serve, args=(fd,), name="treadle-profile", daemon=True).start()
    from treadle.cli import main as run

    return run(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
