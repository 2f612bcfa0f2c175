"""The server under a profile: one that the profile starts, or one that already runs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Protocol, Self

import msgspec

from treadle.profile.child import Answer, Question
from treadle.profile.flame import Place, Stack
from treadle.telemetry import Stats

__all__ = ["Gone", "NotStarted", "Server", "Target"]

START = 60.0
"""Seconds that an app has to start."""
STOP = 5.0
PATIENCE = 10.0
"""Seconds that the server's control thread has to answer; lanes may keep the interpreter from it."""

_START_LINE = re.compile(r"^treadle \S+ · .* (http://\S+|unix:.+)$")
_SAID = 20
"""Lines of its standard error that are told when it ends before its time."""
_RAISED = ("Traceback", '  File "')
"""What an exception's report has; that of a syntax error in the app's module is no traceback."""


class NotStarted(Exception):
    """The app does not run. The text is one sentence; `details` is what it wrote, if it helps."""

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


class Gone(Exception):
    """The server ended, or does not answer. The text is one sentence."""


class Target(Protocol):
    """What is profiled."""

    @property
    def pid(self) -> int:
        """The process."""
        ...

    def read(self) -> Stats:
        """Its statistics. Raises `Gone`."""
        ...


class Server:
    """`treadle run` in a process of its own; a context that ends with it.

    One thread uses it. A second one, its own, reads what the server prints.
    """

    def __init__(
        self,
        app: str,
        *,
        factory: bool = False,
        options: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> None:
        """Starts `app` with these options of `treadle run`, and returns when it serves.

        Raises `NotStarted`.
        """
        self._ours, theirs = socket.socketpair()
        self._ours.settimeout(PATIENCE)
        self._answers = self._ours.makefile("rb")
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        words = [sys.executable, "-m", "treadle.profile.child", str(theirs.fileno()), "run", app]
        words += [
            "--workers",
            "1",
            "--grace",
            "1",
            "--telemetry",
            *(["--factory"] if factory else []),
            *options,
        ]
        with theirs:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                pass_fds=[theirs.fileno()],
                env=env,
                # Ctrl+C is for the profile, which stops the server when it has read it.
                start_new_session=True,
            )
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()
        try:
            self.url = self._wait_until_served()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    # -- what it says --

    def read(self) -> Stats:
        """Its statistics. Raises `Gone`."""
        return msgspec.convert(self._ask("stats"), Stats)

    def watch(self, rate: float) -> None:
        """Has it sample its own stacks. Raises `Gone`."""
        self._ask("watch", rate=rate)

    def watched(self) -> tuple[list[tuple[Stack, int]], int]:
        """Ends that; the stacks, and how often it looked. Raises `Gone`."""
        samples, stacks = self._ask("watched")
        found = [
            (Stack(thread, tuple(Place(*place) for place in places), running), count)
            for thread, places, running, count in stacks
        ]
        return found, samples

    def check(self) -> None:
        """Raises `Gone` if it has ended."""
        if self._process.poll() is not None:
            raise Gone(self._ending())

    def _ask(self, what: str, **details: Any) -> Any:
        question = msgspec.json.encode(Question(what, **details))
        try:
            self._ours.sendall(question + b"\n")
            line = self._answers.readline()
        except OSError as error:
            line = b""
            if isinstance(error, TimeoutError):
                raise Gone(f"the server did not answer for {PATIENCE:.0f} s.") from None
        if not line.endswith(b"\n"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP)
            raise Gone(self._ending())
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            raise Gone(f"the server cannot say: {answer.error}.")
        return answer.value

    def _ending(self) -> str:
        code = self._process.poll()
        if code is None:
            return "the server does not answer."
        how = f"signal {_name(-code)}" if code < 0 else f"status {code}"
        return f"the server ended with {how}."

    # -- its start and its end --

    def _wait_until_served(self) -> str:
        deadline = monotonic() + START
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - monotonic()))
            except Empty:
                raise NotStarted(f"the app did not start within {START:.0f} s.") from None
            if line is None:
                self._process.wait()
                raise self._why()
            found = _START_LINE.match(line)
            if found is not None:
                return found[1]

    def _why(self) -> NotStarted:
        """Its own words: the last line of `treadle: ...`, and the traceback where there is one."""
        text = self.said()
        own = [line for line in text.splitlines() if line.startswith("treadle: ")]
        if not own:
            return NotStarted(f"the app did not start: {self._ending()}", text)
        details = text if any(sign in text for sign in _RAISED) else ""
        return NotStarted(
            own[-1].removeprefix("treadle: "), details.replace(own[-1], "").rstrip("\n")
        )

    def said(self) -> str:
        """The end of what it wrote to standard error."""
        text = self._written()
        return text if "Traceback" in text else "\n".join(text.splitlines()[-_SAID:])

    def last_words(self) -> str:
        """Its last traceback with what came after it, or its last lines."""
        return self.last_traceback() or "\n".join(self._written().splitlines()[-_SAID:])

    def last_traceback(self) -> str:
        """The last traceback that it wrote, with the line above and what came after it, if any."""
        lines = self._written().splitlines()
        for at in range(len(lines) - 1, -1, -1):
            if lines[at].startswith("Traceback"):
                return "\n".join(lines[max(0, at - 1) :])
        return ""

    def _written(self) -> str:
        size = os.fstat(self._stderr.fileno()).st_size
        start = max(0, size - (1 << 16))
        return os.pread(self._stderr.fileno(), size - start, start).decode("utf-8", "replace")

    def _read_output(self) -> None:
        """Reads all it prints, so that it never waits for a full pipe."""
        assert self._process.stdout is not None
        served = False
        with contextlib.suppress(ValueError):  # closed
            for raw in self._process.stdout:
                if not served:
                    line = raw.decode("utf-8", "replace").rstrip("\n")
                    served = _START_LINE.match(line) is not None
                    self._lines.put(line)
        self._lines.put(None)

    def close(self) -> None:
        """Stops it: as by a signal, then by force."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP)
            except subprocess.TimeoutExpired:
                pass
            except BaseException:
                self._kill()
                raise
        self._kill()
        self._reader.join(STOP)
        for open_file in (self._process.stdout, self._answers, self._ours, self._stderr):
            if open_file is not None:
                with contextlib.suppress(OSError):
                    open_file.close()

    def _kill(self) -> None:
        """Ends what is left of its session, children of the app's included."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _name(signum: int) -> str:
    """A signal's name; its number if it has none, as most real-time signals."""
    with contextlib.suppress(ValueError):
        return signal.Signals(signum).name
    return str(signum)
