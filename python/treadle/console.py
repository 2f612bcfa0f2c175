"""What the command says to people, outside the logs.

The start line goes to standard output and everything that went wrong to standard error, so a clean
run leaves standard error empty.
"""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO

__all__ = ["complain", "say"]


def say(text: str) -> None:
    """Writes to standard output."""
    _write(sys.stdout, text)


def complain(text: str) -> None:
    """Writes to standard error."""
    _write(sys.stderr, text)


def _write(stream: TextIO | None, text: str) -> None:
    """Writes and flushes. A stream that is missing or closed is no reason to fail."""
    if stream is None:  # a process that was started without it
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError, ValueError):
        # What the stream cannot spell becomes a question mark.
        stream.write(text.encode(encoding, "replace").decode(encoding))
        stream.flush()
