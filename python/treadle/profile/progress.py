"""One line on standard error that says what is going on; nothing where nobody watches."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Self, TextIO

__all__ = ["Progress"]


class Progress:
    """Rewrites one line of a terminal; leaving the block wipes it, however it is left."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Writes to `stream`, standard error if None, if that is a terminal."""
        self._stream = sys.stderr if stream is None else stream
        self._shown = self._stream is not None and self._stream.isatty()
        self._dirty = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()

    def say(self, text: str) -> None:
        """Shows `text` instead of what was shown before."""
        if not self._shown:
            return
        self._write(f"\r\x1b[K{text[: self._columns() - 1]}")
        self._dirty = True

    def part(self, what: str, done: float, of: float) -> None:
        """Shows how far `what` is: `measuring [####....] 4 of 10 s`."""
        filled = round(20 * min(1.0, done / of)) if of else 0
        self.say(f"{what} [{'#' * filled}{'.' * (20 - filled)}] {done:.0f} of {of:.0f}")

    def clear(self) -> None:
        """Wipes the line."""
        if self._dirty:
            self._write("\r\x1b[K")
            self._dirty = False

    def _columns(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        return 80

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
