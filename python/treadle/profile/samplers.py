"""Who samples the stacks: py-spy, the interpreter's remote sampling, or the server itself.

The first that works is taken. py-spy and the remote sampling of CPython 3.14 read the server's
memory from outside and cost it nothing; py-spy knows no free-threaded builds, remote sampling knows
both. On 3.14 both see a stack only down to where native code called Python, so a callback that C
called begins a stack of its own. The watcher in the server sees whole stacks on every build, but
takes a little of the server's time and sees threads where they can be stopped, which is not always
where they spend their time; it only exists in servers that this command started.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from treadle.profile.flame import Place, Stack, build
from treadle.profile.record import Flame
from treadle.profile.target import Gone

__all__ = ["NAMES", "RATE", "Sampler", "SamplerError", "Watching", "sampling"]

NAMES = ("auto", "py-spy", "remote", "watcher", "none")
RATE = 200.0
"""Samples a second."""
_PATIENCE = 10.0
_FROM_NATIVE = (
    "A stack begins where native code called Python: a callback that C code called stands beside "
    "its caller, not above it. --sampler watcher sees whole stacks."
)


class SamplerError(Exception):
    """This one does not work here; the text says why."""


class Sampler(Protocol):
    """One run of sampling."""

    def stop(self) -> Flame:
        """Ends it; what it saw."""
        ...


class Watching(Protocol):
    """A server that can sample itself."""

    def watch(self, rate: float) -> None:
        """Begins to sample."""
        ...

    def watched(self) -> tuple[list[tuple[Stack, int]], int]:
        """Ends sampling: the stacks, and how often it looked."""
        ...


def sampling(
    name: str, pid: int, server: Watching | None, *, rate: float = RATE
) -> tuple[Sampler | None, list[str]]:
    """Begins to sample with the sampler of that name, or with the first that works ("auto").

    None, with the reasons, when none does.
    """
    makers: dict[str, Callable[[], Sampler]] = {
        "py-spy": lambda: _PySpy(pid, rate),
        "remote": lambda: _Remote(pid, rate),
        "watcher": lambda: _Inside(server, rate),
    }
    refused: list[str] = []
    for each in makers if name == "auto" else [name] if name != "none" else []:
        try:
            return makers[each](), refused
        except SamplerError as error:
            refused.append(f"{each}: {error}")
    return None, refused


# -- py-spy ----------------------------------------------------------------------------------------


class _PySpy:
    """py-spy as a process beside the server; it writes folded stacks when it is interrupted."""

    def __init__(self, pid: int, rate: float) -> None:
        tool = shutil.which("py-spy")
        if tool is None:
            raise SamplerError("not installed.")
        # Whether it knows this build it says at once when asked for one look.
        ask = [tool, "dump", "--nonblocking", "--pid", str(pid)]
        try:
            tried = subprocess.run(
                ask, capture_output=True, text=True, timeout=_PATIENCE, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SamplerError(f"it did not answer ({error}).") from None
        if tried.returncode:
            said = next((line for line in tried.stderr.splitlines() if line.strip()), "no reason")
            raise SamplerError(f"{said.removeprefix('Error: ').rstrip('.')}.")
        self._rate = rate
        self._folder = tempfile.TemporaryDirectory(prefix="treadle-profile-")
        self._file = Path(self._folder.name) / "stacks"
        command = [
            tool,
            "record",
            "--nonblocking",
            "--full-filenames",
            "--threads",
            "--format",
            "raw",
            "--duration",
        ]
        command += ["86400", "--rate", f"{rate:.0f}", "--output", str(self._file)]
        self._process = subprocess.Popen(
            [*command, "--pid", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> Flame:
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._folder:
            text = self._file.read_text("utf-8", "replace") if self._file.exists() else ""
        root = build(folded(text))
        remark = _FROM_NATIVE if sys.version_info >= (3, 14) else ""
        return Flame(
            sampler="py-spy", remark=remark, rate=self._rate, samples=root.count, root=root
        )


def folded(text: str) -> Iterator[tuple[Stack, int]]:
    """Reads py-spy's raw format: `thread (0x..);name (file:line);... count`."""
    for line in text.splitlines():
        path, _, count = line.rpartition(" ")
        if not count.isdigit():
            continue
        names = path.split(";")
        thread = "thread"
        if names and names[0].startswith("thread ("):
            thread = names.pop(0).removeprefix("thread (").rstrip(")").partition(": ")[2] or thread
        places = []
        for name in names:
            function, _, where = name.rpartition(" (")
            file, _, number = where.rstrip(")").rpartition(":")
            at = int(number) if number.isdigit() else 0
            places.append(Place(function or name, file or where.rstrip(")"), at))
        yield Stack(thread, tuple(places), running=True), int(count)


# -- the interpreter's own -------------------------------------------------------------------------


class _Remote:
    """Reads the server's memory from a thread of this process; needs CPython 3.14 on both sides."""

    def __init__(self, pid: int, rate: float) -> None:
        try:
            RemoteUnwinder = import_module("_remote_debugging").RemoteUnwinder
        except ImportError:
            raise SamplerError("this interpreter has none (CPython 3.14 has).") from None
        try:
            # One look tells whether the system and the two versions allow it.
            unwinder = RemoteUnwinder(pid, all_threads=True)
            unwinder.get_stack_trace()
        except Exception as error:
            raise SamplerError(f"{type(error).__name__}: {error}".rstrip(".") + ".") from None
        self._unwinder: Any = unwinder
        self._pid = pid
        self._rate = rate
        self._looks = self._failed = 0
        self._seen: Counter[tuple[str, tuple[Place, ...], bool | None]] = Counter()
        self._names: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="treadle-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> Flame:
        self._stop.set()
        self._thread.join()
        root = build((Stack(*key), count) for key, count in self._seen.items())
        return Flame(
            sampler="remote sampling of CPython 3.14",
            remark=_FROM_NATIVE,
            rate=self._rate,
            looks=self._looks,
            samples=root.count,
            failed=self._failed,
            root=root,
        )

    def _run(self) -> None:
        due = monotonic()
        while not self._stop.wait(max(0.0, due - monotonic())):
            due = max(due + 1.0 / self._rate, monotonic())
            try:
                threads = self._unwinder.get_stack_trace()
            except (RuntimeError, OSError, ValueError, MemoryError, PermissionError):
                # A stack that changed while it was read, or a server that is gone.
                self._failed += 1
                continue
            self._looks += 1
            for thread in threads:
                ident, frames = thread[0], thread[1]
                places = tuple(
                    Place(frame.funcname, frame.filename, 0) for frame in reversed(frames)
                )
                self._seen[self._name(ident), places, self._running(ident)] += 1

    def _name(self, ident: int) -> str:
        name = self._names.get(ident)
        if name is None:
            name = "thread"
            with contextlib.suppress(OSError):
                name = Path(f"/proc/{self._pid}/task/{ident}/comm").read_text().strip()
            self._names[ident] = name
        return name

    def _running(self, ident: int) -> bool | None:
        try:
            with open(f"/proc/{self._pid}/task/{ident}/stat", "rb") as file:
                return file.read().rpartition(b") ")[2][:1] == b"R"
        except OSError:
            return None  # gone, or a system without /proc


# -- the server itself -----------------------------------------------------------------------------


class _Inside:
    """The watcher that this command put into the server."""

    def __init__(self, server: Watching | None, rate: float) -> None:
        if server is None:
            raise SamplerError("it is only in servers that this command started.")
        self._server = server
        self._rate = rate
        try:
            server.watch(rate)
        except Gone as error:
            raise SamplerError(str(error)) from None

    def stop(self) -> Flame:
        failed = 0
        try:
            stacks, looks = self._server.watched()
        except Gone:
            stacks, looks, failed = [], 0, 1
        root = build(stacks)
        return Flame(
            sampler="watcher in the server",
            remark="Threads are seen where they can be stopped: at calls, loops and awaits.",
            rate=self._rate,
            looks=looks,
            samples=root.count,
            failed=failed,
            root=root,
        )
