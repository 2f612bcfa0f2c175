"""Signals as bytes that the main thread reads.

While `Signals` is entered, the signals it was made for do nothing but write their number into a
socket pair (`signal.set_wakeup_fd`), which the main thread polls beside whatever else it waits for.
So a signal is never lost, runs no code in the middle of other code, wakes the main thread whichever
thread the kernel gave it to, and works for process 1, which has no default actions.

Another thread of this process may put a byte of its own there with `wake`; 0 is never a signal.
"""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
from collections.abc import Iterable
from types import FrameType
from typing import Any, Self

__all__ = ["STOP_SIGNALS", "Signals", "poll"]

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What tells a server to stop."""

WAKE = 0
"""The byte that `Signals.wake` writes."""


def _noted(signum: int, frame: FrameType | None) -> None:
    """Installed only so that the interpreter writes the signal's number to the wake-up socket."""


class Signals:
    """Takes over `signums` between enter and exit. Main thread only, except for `wake`."""

    def __init__(self, signums: Iterable[int] = STOP_SIGNALS) -> None:
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError(
                "an app can be run from the main thread only; "
                "treadle.testing.LiveServer serves from any thread"
            )
        self._signums = tuple(signums)
        self._previous: list[tuple[int, Any]] = []
        self._previous_fd = -1

    def __enter__(self) -> Self:
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._previous_fd = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for signum in self._signums:
            self._previous.append((signum, signal.signal(signum, _noted)))
        return self

    def __exit__(self, *exc: object) -> None:
        for signum, handler in self._previous:
            # None: the handler was not set from Python, and Python cannot set it again.
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._previous_fd)
        self._reader.close()
        self._writer.close()

    def fileno(self) -> int:
        """What to poll for reading."""
        return self._reader.fileno()

    def read(self) -> bytes:
        """The signals that arrived since the last call, and `WAKE`s, a byte each; never blocks."""
        noted = b""
        with contextlib.suppress(BlockingIOError):
            while chunk := self._reader.recv(4096):
                noted += chunk
        return noted

    def wake(self) -> None:
        """Adds a `WAKE`. Thread-safe. A full socket already holds a reason to wake up."""
        with contextlib.suppress(OSError):
            self._writer.send(bytes([WAKE]))

    def abandon(self) -> None:
        """In a forked child: drops what it has of its parent, without touching the parent's."""
        signal.set_wakeup_fd(-1)
        for signum, _ in self._previous:
            signal.signal(signum, signal.SIG_DFL)
        self._reader.close()
        self._writer.close()


def poll(readers: Iterable[int], timeout: float | None = None) -> list[int]:
    """Those of the file descriptors `readers` that can be read or have ended.

    Waits for at least one, or `timeout` seconds; Python's signal handlers run meanwhile.
    """
    poller = select.poll()
    for fd in readers:
        poller.register(fd, select.POLLIN)
    # Rounded up: waking a moment too early would poll again and again until the time has come.
    milliseconds = None if timeout is None else int(max(0.0, timeout) * 1000) + 1
    return [fd for fd, _ in poller.poll(milliseconds)]
