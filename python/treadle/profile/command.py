"""`treadle profile`: runs a profile, prints it, writes it.

Exit status: 0 when all went well; 1 if the app did not run, answered wrong or was lost, also when a
partial result was kept; 2 if the command line asks for what cannot be; 130 after Ctrl+C and 143
after SIGTERM, with what was found by then.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from treadle.console import complain, say
from treadle.exceptions import TreadleError
from treadle.profile import report_html, report_json, report_terminal, run
from treadle.profile.arguments import Asked, UsageError, read
from treadle.profile.check import WrongAnswer
from treadle.profile.progress import Progress
from treadle.profile.record import Profile
from treadle.profile.target import NotStarted

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
_WIDTH = 100
"""Of a report that goes to no terminal."""


def main(given: dict[str, Any]) -> int:
    """Does what the command line asks for; returns the exit status."""
    try:
        asked = read(given)
    except UsageError as error:
        complain(f"treadle profile: {error}\n")
        return EXIT_USAGE
    with _stop_signals() as stopped_by:
        return _run(asked, stopped_by)


def _run(asked: Asked, stopped_by: Callable[[], int]) -> int:
    found = run.start(asked)
    status = 0
    try:
        with Progress() as progress:
            run.profile(asked, found, progress)
    except run.Partial as error:
        complain(f"{error.details}\n" if error.details else "")
        found.partial, status = str(error), EXIT_FAILED
    except KeyboardInterrupt:
        found.partial, status = "it was interrupted.", 128 + stopped_by()
    except (NotStarted, WrongAnswer) as error:
        complain(f"{error.details}\n" if error.details else "")
        complain(f"treadle profile: {error}\n")
        return EXIT_FAILED
    except TreadleError as error:
        complain(f"treadle profile: {error}\n")
        return EXIT_FAILED
    if found.partial:
        complain(f"treadle profile: {found.partial}\n")
        if not found.measured:
            return status  # no report of nothing, which would replace an older file
    return _tell(asked, found) or status


def _tell(asked: Asked, found: Profile) -> int:
    """Prints and writes; the exit status."""
    width = shutil.get_terminal_size((_WIDTH, 24)).columns if sys.stdout.isatty() else _WIDTH
    say(report_terminal.render(found, width=width))
    status = 0
    files: list[tuple[str, Path | None, Callable[[Profile], bytes]]] = [
        ("Everything", asked.json, report_json.render),
        ("Charts", asked.output, report_html.render),
    ]
    for what, file, render in files:
        if file is None:
            continue
        try:
            _write(file, render(found))
        except OSError as error:
            complain(f"treadle profile: {file} cannot be written: {error.strerror}.\n")
            status = EXIT_FAILED
        else:
            say(f"{what}: {file}\n")
    return status


def _write(file: Path, data: bytes) -> None:
    """Replaces the file as a whole: an older one stays if this fails."""
    if file.exists() and not (file.is_file() or file.is_dir()):
        file.write_bytes(data)  # a device or a pipe, such as /dev/stdout, which has to stay one
        return
    file = file.resolve()  # what a link leads to, not the link
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        beside.write_bytes(data)
        beside.replace(file)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def _stop_signals() -> Iterator[Callable[[], int]]:
    """Makes a stop by signal a `KeyboardInterrupt`; gives what tells which signal it was."""
    told = [int(signal.SIGINT)]

    def stop(signum: int, frame: FrameType | None) -> None:
        told[0] = signum
        raise KeyboardInterrupt

    previous = {
        each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield lambda: told[0]
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)
