"""`treadle run` as a process of its own."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

DEADLINE = 20.0
"""Seconds a process may take to start or to stop before the test fails."""

_URL = re.compile(r" (?:http://(?P<host>\[.*\]|[^ :]*):(?P<port>\d+)|unix:(?P<path>.*))$")


class Command:
    """A running command. Killed when the test ends, if it is not gone by then."""

    def __init__(
        self, argv: Sequence[str], folder: Path, env: Mapping[str, str], *, listens: bool
    ) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TREADLE_")}
        self._stderr = folder / "stderr"
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                argv,
                cwd=folder,
                # Tests stop lanes on purpose: what the stall watch says of that is in its own tests.
                env={**inherited, "TREADLE_STALL_WARNING": "0", **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                # A group of its own: a test may send it what a terminal sends.
                start_new_session=True,
            )
        self._stdout = b""
        self.line = ""
        if listens:
            self.line = self._read_line()

    # -- what it says --

    @property
    def stderr(self) -> str:
        """All of standard error so far."""
        return self._stderr.read_text("utf-8")

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> tuple[str, int] | str:
        """Where it listens, by its start line."""
        found = _URL.search(self.line)
        assert found is not None, self.line
        if found["path"] is not None:
            return str(found["path"])
        return found["host"].strip("[]"), int(found["port"])

    @property
    def port(self) -> int:
        assert isinstance(self.address, tuple)
        return self.address[1]

    @property
    def url(self) -> str:
        return self.line.rsplit(" ", 1)[1]

    def rest(self) -> str:
        """What it wrote to standard output after its start line, once it is gone."""
        assert self.process.stdout is not None
        return (self._stdout + self.process.stdout.read()).decode()

    def _read_line(self) -> str:
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        deadline = time.monotonic() + DEADLINE
        while b"\n" not in self._stdout:
            ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(fd, 65536) if ready else b""
            if not chunk:
                self.close()
                state = f"status {self.process.returncode}" if ready else "it hung"
                raise AssertionError(f"it did not start ({state}): {self.stderr}")
            self._stdout += chunk
        line, _, self._stdout = self._stdout.partition(b"\n")
        return line.decode()

    def wait_for_stderr(self, pattern: str) -> str:
        """Waits until standard error has a match for `pattern`; returns the match."""
        deadline = time.monotonic() + DEADLINE
        while (found := re.search(pattern, self.stderr)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} is not in {self.stderr!r}"
            os.sched_yield()
        return found[0]

    # -- its end --

    def send(self, signum: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(signum)

    def wait_taken(self) -> None:
        """Waits until no signal is pending: of two that are, the kernel hands out the lower first."""
        status = Path(f"/proc/{self.pid}/status")
        deadline = time.monotonic() + DEADLINE
        while any(
            int(line.split()[1], 16)
            for line in status.read_text().splitlines()
            if line.startswith(("SigPnd", "ShdPnd"))
        ):
            assert time.monotonic() < deadline, "a signal stays pending"

    def wait(self) -> int:
        """Waits for its end; returns the exit status, negative for a signal."""
        return self.process.wait(DEADLINE)

    def stop(self, signum: signal.Signals = signal.SIGTERM) -> int:
        """Sends `signum` and waits for its end; returns the exit status."""
        self.send(signum)
        return self.wait()

    def wait_refusing(self) -> None:
        """Waits until it listens no more, which is how a stop begins."""
        deadline = time.monotonic() + DEADLINE
        while True:
            assert time.monotonic() < deadline, "it still listens"
            try:
                if isinstance(self.address, str):
                    with socket.socket(socket.AF_UNIX) as probe:
                        probe.connect(self.address)
                else:
                    socket.create_connection(self.address, timeout=DEADLINE).close()
            except OSError:
                return

    def close(self) -> None:
        """Kills it if it still runs."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RunCli:
    """Starts commands in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._commands: list[Command] = []

    def __call__(
        self,
        source: str,
        *args: str,
        target: str = "main:app",
        env: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        before: Sequence[str] = (),
        listens: bool = True,
    ) -> Command:
        """`treadle run TARGET --port 0 ARGS` where `source` is main.py.

        Returns once it printed its start line, or at once where it is not to get so far (`listens`).
        `flags` are the interpreter's; `before` is a command to run it under.
        """
        (self.folder / "main.py").write_text(source)
        run = ["-m", "treadle", "run", target, "--port", "0", *args]
        return self.python(run, env=env, flags=flags, before=before, listens=listens)

    def python(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        flags: Sequence[str] = (),
        before: Sequence[str] = (),
        listens: bool = True,
    ) -> Command:
        """Any command line of this interpreter."""
        command = Command(
            [*before, sys.executable, *flags, *argv], self.folder, env or {}, listens=listens
        )
        self._commands.append(command)
        return command

    def close(self) -> None:
        for command in self._commands:
            command.close()
