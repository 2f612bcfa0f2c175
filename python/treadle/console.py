"""What the command says to people, outside the logs.

The start line goes to standard output and everything that went wrong to standard error, so a clean
run leaves standard error empty.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

__all__ = ["complain", "leave_word", "say"]


def say(text: str) -> None:
    """Writes to standard output."""
    _write(sys.stdout, text)


def complain(text: str) -> None:
    """Writes to standard error."""
    _write(sys.stderr, text)


_PATIENCE = 1.0
"""Seconds for which a process that leaves waits for its standard error to take a piece of text."""

_PIECE = 1024
"""Characters of a piece: what a pipe that takes anything takes at once."""


def leave_word(text: str) -> None:
    """`complain` for a process that leaves: a pipe that nobody reads does not keep it."""
    for start in range(0, len(text), _PIECE):
        if not _takes(sys.stderr):
            return
        complain(text[start : start + _PIECE])


def _takes(stream: TextIO | None) -> bool:
    """Whether writing to `stream` will not block, now or in a moment."""
    import select

    poller = select.poll()
    try:
        poller.register(stream.fileno(), select.POLLOUT)  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):  # it is missing, closed, or not a file
        return True
    return bool(poller.poll(_PATIENCE * 1000))


def _write(stream: TextIO | None, text: str) -> None:
    """Writes and flushes. A stream that is missing or closed is no reason to fail."""
    if stream is None:  # a process that was started without it
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        # What the stream cannot spell becomes a question mark.
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
