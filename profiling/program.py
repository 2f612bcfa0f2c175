"""A program that listens on a port: started, found ready, frozen, and always stopped.

Who owns what: a `Program` owns the process group that it started. Whoever starts one stops it.
"""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from profiling.cpu import process_tree
from profiling.errors import ComparisonError
from profiling.interpreters import clean_environment
from profiling.paths import ROOT

_READY_WITHIN = 30.0
_STOPPED_WITHIN = 5.0
_ASK_AGAIN_AFTER = 0.0005
_CONNECTION_PATIENCE = 10.0


class Program:
    """One running program, in a process group of its own."""

    def __init__(
        self,
        label: str,
        command: Callable[[int], list[str]],
        logs: Path,
        *,
        cores: str,
        environment: Mapping[str, str] | None = None,
        ready: bytes | None = None,
        port: int | None = None,
    ) -> None:
        """Start what `command` makes of a port, on the given cores (as taskset takes them).

        `ready` is the target that is asked until it answers 200; None for what speaks no HTTP.
        Without a `port` it gets a free one; a port that is given must be free, or ComparisonError.
        """
        self.label = label
        self.port = free_port() if port is None else _require_free(port)
        self._ready = ready
        self._log = logs / f"{label.replace(' ', '-')}-{self.port}.log"
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    ["taskset", "-c", cores, *command(self.port)],
                    cwd=ROOT,
                    env=clean_environment(environment),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except FileNotFoundError as error:
                message = "taskset is not installed: it is in Debian's package util-linux."
                raise ComparisonError(message) from error

    @property
    def pid(self) -> int:
        """The process that was started; taskset becomes the program, so it is the program's."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Ask until it answers; raises ComparisonError when it never does."""
        deadline = time.monotonic() + _READY_WITHIN
        while not _answers(self.port, self._ready):
            self.require_alive()
            if time.monotonic() > deadline:
                raise ComparisonError(f"{self.label} does not answer{self._last_words()}.")
            time.sleep(_ASK_AGAIN_AFTER)

    def require_alive(self) -> None:
        """Raise ComparisonError when it has ended."""
        status = self._process.poll()
        if status is not None:
            raise ComparisonError(f"{self.label} ended with {status}{self._last_words()}.")

    def freeze(self) -> None:
        """Stop the clock of every one of its processes: it uses no CPU until `thaw`."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        self._signal_all(signal.SIGCONT)

    @contextmanager
    def awake(self) -> Iterator[Self]:
        """Thawed inside the block, frozen outside."""
        self.thaw()
        try:
            yield self
        finally:
            self.freeze()

    def ask_to_stop(self, patience: float) -> int | None:
        """Send SIGTERM and return the exit status; None when it has not ended after `patience`."""
        self._process.terminate()
        try:
            return self._process.wait(patience)
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> str:
        """Everything it has written."""
        return self._log.read_text(errors="replace")

    def stop(self) -> None:
        """End it and all of its processes, with force if it does not go by itself."""
        members = process_tree(self.pid)
        self.thaw()
        self._signal_group(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOPPED_WITHIN)
        self._signal_group(signal.SIGKILL)
        for pid in members:
            # A worker may have left the group; a number that was freed may be another's by now.
            if _session(pid) == self.pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()

    def _signal_all(self, number: signal.Signals) -> None:
        for pid in process_tree(self.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _signal_group(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    def _last_words(self) -> str:
        lines = self.said().strip().splitlines()
        return f"; it said: {lines[-1].strip().rstrip('.')}" if lines else ""


@contextmanager
def running(program: Program) -> Iterator[Program]:
    """The program, ready; stopped when the block is left, however it is left."""
    try:
        program.wait_until_ready()
        yield program
    finally:
        with uninterrupted():
            program.stop()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """A second Ctrl+C inside the block must not leave half of the children behind."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _require_free(port: int) -> int:
    try:
        with socket.create_server(("127.0.0.1", port)):
            return port
    except OSError as error:
        raise ComparisonError(
            f"Port {port} of 127.0.0.1 cannot be had: {error.strerror}."
        ) from error


def _answers(port: int, ready: bytes | None) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), _CONNECTION_PATIENCE) as connection:
            if ready is None:
                return True
            connection.sendall(
                b"GET " + ready + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            )
            return connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
