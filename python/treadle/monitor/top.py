"""The command `treadle top`: finds the server, shows its screen, says why it ended."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from treadle.console import complain
from treadle.monitor.client import Connection, MonitorError, connect, running

if TYPE_CHECKING:
    from treadle.monitor.screen import Screen

__all__ = ["run"]


def run(target: str | None, interval: float) -> int:
    """Shows the server at `target`, or the only one there is, until told to stop.

    Returns the exit status: 0, or 1 after one sentence on standard error.
    """
    try:
        screen = _screen()
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise MonitorError("top needs a terminal.")
        shown = screen(connect(target) if target is not None else _only(), interval=interval)
    except MonitorError as error:
        complain(f"treadle: {error}\n")
        return 1
    shown.run()
    if shown.failure is not None:
        complain(f"treadle: {shown.failure}\n")
    return shown.return_code or 0


def _screen() -> type[Screen]:
    try:
        import textual  # noqa: F401
    except ImportError:
        raise MonitorError("top needs textual: pip install 'treadle[top]'.") from None
    from treadle.monitor.screen import Screen

    return Screen


def _only() -> Connection:
    found = running()
    if not found:
        raise MonitorError(
            "no server of yours can be looked at: it has to be started with --stats-socket."
        )
    if len(found) > 1:
        servers = "".join(f"\n  treadle top {pid}  # {_command(pid)}" for pid in sorted(found))
        raise MonitorError(f"there are several servers, so say which:{servers}")
    return connect(*found)


def _command(pid: int) -> str:
    """The command line of a process, in short."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().decode("utf-8", "replace").rstrip("\0").split("\0")
    except OSError:
        return "gone"
    line = " ".join(words).replace("\n", " ")
    return line if len(line) <= 60 else line[:59] + "…"
