"""One process that serves: a `Server`, the thread that waits for it, and the signals that end it.

Two threads meet here, beside the server's own lanes:

1. The main thread owns `Signals` and does nothing but poll: for a signal, for the end of the parent
   process (workers only), for a wake-up from the other thread. It alone calls `drain`.
2. `treadle-serve` starts the server and then waits in `join`. What it learns goes into `_Progress`,
   each field written once, before the wake-up that tells the main thread to look.

So a signal works at any moment: during a start that hangs in the app's lifespan, while serving,
and while draining. The order of a stop is the server's; here it only begins, and is waited for,
though not forever: code of the app that blocks its lane cannot be cancelled, and `STOP_MARGIN` after
the grace period the process leaves without it, and says where it stood.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from msgspec import Struct

from treadle import stall
from treadle.console import leave_word
from treadle.exceptions import StartupError
from treadle.server import Server
from treadle.signals import STOP_SIGNALS, Signals, poll

if TYPE_CHECKING:
    from treadle.app import App
    from treadle.monitor.setup import Monitor
    from treadle.options import Options

__all__ = ["EXIT_INTERRUPTED", "STOP_MARGIN", "Ending", "Refusal", "explain", "serve"]

EXIT_INTERRUPTED = 130
"""Exit status after a second Ctrl+C, as shells have it for a process that SIGINT ended."""

STOP_MARGIN = 5.0
"""Seconds beyond the grace period that a stop may take, the app's own shutdown included."""


class Refusal(Exception):
    """Raised by `ready`: the server started, and is not to serve. The text is one sentence."""


class Ending(Struct, frozen=True):
    """How a server ended."""

    error: BaseException | None
    """Why it did not start; None if it did, or was told to stop before it could."""
    failed: bool
    """It served, and a lane died, the app's shutdown raised or a handler was left behind; the log
    says which."""


class _Progress:
    def __init__(self) -> None:
        self.started = False
        self.error: BaseException | None = None
        self.over = False


def serve(
    app: App,
    options: Options,
    sockets: list[socket.socket],
    signals: Signals,
    *,
    ready: Callable[[], None],
    worker: int = 0,
    parent: int | None = None,
    monitor: Monitor | None = None,
) -> Ending:
    """Serves until told to stop, then until everything has ended.

    `ready` is called in the main thread once the server answers; it may raise `Refusal`. `parent`
    is what a worker passes: a descriptor that can be read once the parent process is gone.

    The first signal in `STOP_SIGNALS` begins the stop, and so does the parent's end. A SIGINT after
    that leaves at once with `EXIT_INTERRUPTED`, except in a worker, whose parent decides; a SIGTERM
    after that changes nothing.
    """
    server = Server(app, options, sockets, worker=worker, monitor=monitor)
    progress = _Progress()
    thread = threading.Thread(
        target=_start_and_join, args=(server, progress, signals), name="treadle-serve", daemon=True
    )
    thread.start()
    announced = stopping = False
    refusal: Refusal | None = None
    deadline: float | None = None
    watched = [signals.fileno()] if parent is None else [signals.fileno(), parent]
    while not progress.over:
        timeout = None if deadline is None else deadline - time.monotonic()
        if timeout is not None and timeout <= 0:
            _leave_behind(options)
        readable = poll(watched, timeout)
        stop = stopping
        if parent is not None and parent in readable:
            watched.remove(parent)
            stop = True
        for signum in signals.read():
            if signum == signal.SIGINT and stop and parent is None:
                os._exit(EXIT_INTERRUPTED)
            stop = stop or signum in STOP_SIGNALS
        if progress.started and not announced and not stop:
            announced = True
            try:
                ready()
            except Refusal as refused:
                refusal = refused
                stop = True
        if stop and not stopping:
            stopping = True
            deadline = time.monotonic() + options.grace + STOP_MARGIN
            server.drain()
    thread.join()
    error = progress.error
    if stopping and _was_cut_short(error):
        error = None
    failed = server.failed or server.left_behind
    return Ending(refusal or error, progress.started and failed)


def _start_and_join(server: Server, progress: _Progress, signals: Signals) -> None:
    try:
        server.start()
        progress.started = True
        signals.wake()
        server.join()
    except BaseException as error:
        progress.error = error
    finally:
        progress.over = True
        signals.wake()


def _was_cut_short(error: BaseException | None) -> bool:
    """Whether a start failed only because it was told to stop."""
    if not isinstance(error, StartupError):
        return False
    return error.__cause__ is None or isinstance(error.__cause__, asyncio.CancelledError)


def _leave_behind(options: Options) -> NoReturn:
    seconds = options.grace + STOP_MARGIN
    leave_word(
        f"treadle: not stopped {seconds:g} s after it was told to: something in the app blocks a "
        "lane, or its shutdown takes too long. Leaving without it.\n"
    )
    # Nothing that goes wrong here is a reason to stay.
    with contextlib.suppress(Exception):
        leave_word(_whereabouts())
    os._exit(1)


def _whereabouts() -> str:
    """Where the lanes stand that have not ended, and the calls that they may wait for."""
    told = []
    for thread in threading.enumerate():
        stack = stall.stack_of(thread.ident or 0)
        if thread.name.startswith("treadle-lane-") or _is_in_a_call(stack):
            told.append(f"{thread.name} is here:\n{stall.spell(stack)}\n")
    return "".join(told)


def _is_in_a_call(stack: list[stall.Frame]) -> bool:
    """Whether it is that of a thread of an executor (a loop waits for its own) that has a call."""
    places = [(os.path.basename(file), name) for file, _, name in stack]
    return ("thread.py", "_worker") in places[:-1]


def explain(error: BaseException) -> str:
    """Why a server did not start, for people: the app's own traceback, then one sentence."""
    if isinstance(error, Refusal):
        return f"treadle: {error}\n"
    from traceback import format_exception

    if not isinstance(error, StartupError):
        return "".join(format_exception(error))
    trace = "" if error.__cause__ is None else "".join(format_exception(error.__cause__))
    return f"{trace}treadle: {error}\n"
