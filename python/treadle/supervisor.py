"""What running an app is, from the options to the exit status.

In this order, each step undone in reverse:

1. Signals: from here on SIGINT and SIGTERM mean "stop", whatever has been reached by then.
2. The GIL: said or refused, if an import turned it on.
3. Logs, if the app has not configured any.
4. Listening sockets: the app's, then those on which statistics are told, if they are.
5. The server: in this process, or in worker processes that are forked before any thread exists.
6. One line on standard output once it answers, and one for the statistics. A clean run writes
   nothing to standard error.

Exit status: 0 after a stop by signal, however early; 1 if it could not start or did not end
cleanly; 130 after a second Ctrl+C.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from treadle import interpreter, logs, monitor
from treadle.binding import BindError, Binding, bind
from treadle.console import complain, say
from treadle.options import OptionError
from treadle.process import Refusal, explain, serve
from treadle.signals import STOP_SIGNALS, Signals

if TYPE_CHECKING:
    from treadle.app import App
    from treadle.monitor.setup import Monitor
    from treadle.options import Options

__all__ = ["run", "start_line"]


def run(app: App, options: Options) -> int:
    """Serves `app` until it is told to stop. Main thread only. Returns the exit status.

    Failures are told on standard error and by the status; signal handlers and log handlers are as
    before when it returns.
    """
    signums = STOP_SIGNALS if options.workers == 1 else (*STOP_SIGNALS, signal.SIGCHLD)
    with Signals(signums) as signals:
        try:
            _check_gil(options)
            with (
                logs.configured(options),
                bind(options) as binding,
                monitor.asked_for(app, options) as monitoring,
            ):
                return _serve(app, options, binding, signals, monitoring)
        except (BindError, OptionError, Refusal) as refusal:
            complain(f"treadle: {refusal}\n")
            return 1


def _serve(
    app: App, options: Options, binding: Binding, signals: Signals, monitoring: Monitor | None
) -> int:
    gil_before = interpreter.gil_enabled()

    def check() -> None:
        # The app's lifespan may have imported something, too, or set up logging.
        if not gil_before:
            _check_gil(options)
        if line := logs.silenced(options):
            complain(line)

    def announce() -> None:
        say(start_line(options, binding.url) + "\n")
        if monitoring is not None and (line := monitoring.line()):
            say(f"treadle: {line}\n")

    if options.workers > 1:
        from treadle import workers

        return workers.run(
            app, options, binding, signals, check=check, announce=announce, monitor=monitoring
        )

    def ready() -> None:
        check()
        announce()

    ending = serve(app, options, binding.sockets, signals, ready=ready, monitor=monitoring)
    if ending.error is not None:
        complain(explain(ending.error))
        return 1
    return int(ending.failed)


def _check_gil(options: Options) -> None:
    """Says that the GIL was turned on where it need not be; refuses where that was asked for."""
    if not interpreter.gil_enabled():
        return
    if options.require_free_threading:
        raise Refusal(f"free threading is required, and missing {interpreter.why_gil()}.")
    if interpreter.FREE_THREADED_BUILD:
        complain(f"treadle: no free threading, {interpreter.why_gil()}.\n")


def start_line(options: Options, url: str) -> str:
    """The line that says what is being served, by what."""
    from treadle._treadle import __version__

    gil = "GIL on" if interpreter.gil_enabled() else "free-threaded"
    return " · ".join(
        (
            f"treadle {__version__}",
            f"{interpreter.describe()} {gil}",
            _count(options.lanes, "lane"),
            _count(options.workers, "worker"),
            url,
        )
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
