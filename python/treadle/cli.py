"""The command `treadle`.

Exit status: 0 after a stop by signal, however early; 1 if the app raised while it was imported,
could not start, or did not end cleanly, or if the server that `top` is to show cannot be read; 2 if
the command line or the environment asks for what does not exist; 130 after a second Ctrl+C. An app
that calls `sys.exit` while it is imported chooses its own, if that is not 0.

The options come from `Options.table()`; nothing here knows any of them by name.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from treadle import interpreter
from treadle.console import complain, leave_word, say
from treadle.options import OptionError, Options

if TYPE_CHECKING:
    from treadle.app import App

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line `argv` (`sys.argv[1:]` if None). Returns the exit status."""
    with _stopped_by_signals():
        words = sys.argv[1:] if argv is None else list(argv)
        given = vars(_parser(words[:1]).parse_args(words))
        command: Callable[[dict[str, Any]], int] = given.pop("command")
        return command(given)


def _top(given: dict[str, Any]) -> int:
    from treadle.monitor import top

    return top.run(given["target"], given["interval"])


def _profile(given: dict[str, Any]) -> int:
    from treadle.profile import command

    return command.main(given)


def _run(given: dict[str, Any]) -> int:
    from treadle import loading

    target, factory = given.pop("app"), given.pop("factory")

    try:
        options = Options.resolve(cli=given)
        gil_before = interpreter.gil_enabled()
        app: App = loading.load(target, factory=factory)
        if interpreter.gil_enabled() and not gil_before:
            # The app's imports turned the GIL on: fewer lanes make sense, or the wish is refused.
            options = Options.resolve(cli=given)
    except (OptionError, loading.NoSuchApp) as error:
        complain(f"treadle: {error}\n")
        return EXIT_USAGE
    except loading.AppRaised as error:
        from traceback import format_exception

        trace = "" if error.__cause__ is None else "".join(format_exception(error.__cause__))
        complain(f"{trace}treadle: {error}\n")
        return EXIT_FAILED
    except SystemExit as left:
        if isinstance(left, _Told):
            raise
        complain(f"treadle: loading {target!r} called sys.exit(){loading.place(left)}.\n")
        if not left.code:
            return EXIT_FAILED  # nothing was served, and nobody told it to stop
        raise
    from treadle import supervisor

    code = supervisor.run(app, options)
    _leave_threads_behind(code)
    return code


def _leave_threads_behind(code: int) -> None:
    """Bounds how long threads that the app left running keep the process from ending.

    The interpreter waits for them without limit: for one in a handler that hangs, forever.
    """
    from treadle.process import STOP_MARGIN

    main = threading.main_thread()
    names = [each.name for each in threading.enumerate() if each is not main and not each.daemon]
    if not names:
        return

    def leave() -> None:
        time.sleep(STOP_MARGIN)
        leave_word(
            f"treadle: the app's threads still run: {', '.join(names)}. Leaving without them.\n"
        )
        os._exit(code or EXIT_FAILED)

    threading.Thread(target=leave, name="treadle-leave", daemon=True).start()


class _Told(SystemExit):
    """What a signal raises; the app's own `sys.exit` is another matter."""


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Makes SIGINT and SIGTERM leave with status 0 until the server takes them over.

    Importing the app may take long, and hang; there is nothing to drain yet.
    """

    def leave(signum: int, frame: FrameType | None) -> NoReturn:
        raise _Told(0)

    previous = [(each, signal.signal(each, leave)) for each in (signal.SIGINT, signal.SIGTERM)]
    try:
        yield
    finally:
        for signum, handler in previous:
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


# -- the command line ------------------------------------------------------------------------------


class _Version(argparse.Action):
    """Prints the version; reads it only when asked, because it is in the native module."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from treadle._treadle import __version__

        gil = "GIL on" if interpreter.gil_enabled() else "free-threaded"
        say(f"treadle {__version__} ({interpreter.describe()} {gil})\n")
        parser.exit()


def _parser(command: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="treadle",
        description="Serves Python web apps on merged Tokio/asyncio lanes.",
        formatter_class=_narrow,
    )
    parser.add_argument(
        "--version",
        action=_Version,
        nargs=0,
        default=argparse.SUPPRESS,
        help="say the version and leave",
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        allow_abbrev=False,
        help="serve an app",
        description="Serves an app until SIGINT or SIGTERM. Every option but --factory can also be set "
        "by the environment variable named with it; the command line wins.",
        formatter_class=_narrow,
    )
    run.add_argument("app", metavar="MODULE:ATTRIBUTE", help="the app, such as main:app")
    run.add_argument(
        "--factory", action="store_true", help="MODULE:ATTRIBUTE is a function that makes the app"
    )
    run.set_defaults(command=_run)
    for option in Options.table():
        # Values stay text, and unset ones absent: `Options.resolve` reads them.
        note = f"{option.help} (default: {option.default}; {option.env})".replace("%", "%%")
        common: dict[str, Any] = {
            "dest": option.name,
            "default": argparse.SUPPRESS,
            "help": note,
        }
        if option.boolean:
            run.add_argument(option.flag, action=argparse.BooleanOptionalAction, **common)
        elif option.bare is not None:
            run.add_argument(
                option.flag, nargs="?", const=option.bare, metavar=option.metavar, **common
            )
        else:
            run.add_argument(option.flag, metavar=option.metavar, **common)
    top = _add_top(commands)
    profile = _add_profile(commands, filled=command == ["profile"])
    for each in (parser, run, top, profile):
        each.formatter_class = argparse.HelpFormatter
    return parser


def _add_profile(commands: Any, *, filled: bool) -> argparse.ArgumentParser:
    """The options are only read, and their module imported, when they are asked for."""
    profile: argparse.ArgumentParser = commands.add_parser(
        "profile",
        allow_abbrev=False,
        help="see where an app's time goes",
        description="Starts an app, drives it, and tells where the time of its requests goes.",
        formatter_class=_narrow,
    )
    if filled:
        from treadle.profile import arguments

        arguments.fill(profile)
    profile.set_defaults(command=_profile)
    return profile


def _add_top(commands: Any) -> argparse.ArgumentParser:
    top: argparse.ArgumentParser = commands.add_parser(
        "top",
        allow_abbrev=False,
        help="watch a running server",
        description="Shows the lanes and routes of a server that was started with --stats-socket, "
        "or with --metrics HOST:PORT. Keys: q quits, s sorts by the next column, r reverses, space "
        "pauses, + and - change the pace, the arrows choose the route whose stages are shown.",
        formatter_class=_narrow,
    )
    top.add_argument(
        "target",
        nargs="?",
        metavar="PID|URL|PATH",
        help="the server's process, its metrics' http://host:port, or its stats socket (default: the "
        "only one there is)",
    )
    top.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="time between two readings (default: 1)",
    )
    top.set_defaults(command=_top)
    return top


def _interval(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.25 <= (seconds := float(text)) <= 60.0:
            return seconds
    raise argparse.ArgumentTypeError(f"must be a number of seconds from 0.25 to 60, not {text!r}.")


def _narrow(prog: str) -> argparse.HelpFormatter:
    """Stands in while the parser is built, when argparse makes a formatter for every argument.

    Its own would ask for the width of the terminal each time, and import what that takes: 6 ms.
    """
    return argparse.HelpFormatter(prog, width=80)
