"""Servers: started, found ready, frozen while another one is measured, and always stopped.

Who owns what: a `Server` owns the process group it started; a `Fleet` owns servers and stops all
of them when its block is left, however it is left. One thread touches both.
"""

import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from profiling import answers
from profiling.cpu import process_tree
from profiling.environments import Prepared
from profiling.errors import ComparisonError
from profiling.interpreters import clean_environment
from profiling.paths import ROOT
from profiling.peers import Launch
from profiling.scenarios import SCENARIOS, Scenario

SERVER_CORE = "0"
LOAD_CORE = "1"
BOTH_CORES = "0,1"

_INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_READY_WITHIN = 30.0
_STOPPED_WITHIN = 5.0
_ASK_AGAIN_AFTER = 0.0005
_CONNECTION_PATIENCE = 10.0


class Server:
    """One running server."""

    def __init__(
        self, prepared: Prepared, logs: Path, cores: str = SERVER_CORE, lanes: int = 1
    ) -> None:
        """Start it on the given cores; `wait_until_ready` tells when it answers."""
        self.prepared = prepared
        self.label = prepared.entrant.label
        self.port = _free_port()
        self._log = logs / f"{self.label.replace(' ', '-')}-{self.port}.log"
        peer = prepared.entrant.peer
        launch = Launch(prepared.executable, self.port, lanes)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", cores, *peer.command(launch)],
                cwd=ROOT,
                env=clean_environment(peer.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process that was started; taskset becomes the server, so it is the server's."""
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Ask until it answers with 200; raises ComparisonError when it never does."""
        path = next(s.target for s in SCENARIOS if self.prepared.entrant.peer.serves(s))
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
        deadline = time.monotonic() + _READY_WITHIN
        while not _answers(self.port, request):
            self.require_alive()
            if time.monotonic() > deadline:
                raise ComparisonError(f"{self.label} does not answer{self._last_words()}.")
            time.sleep(_ASK_AGAIN_AFTER)

    def require_alive(self) -> None:
        """Raise ComparisonError when it has ended."""
        status = self._process.poll()
        if status is not None:
            raise ComparisonError(f"{self.label} ended with {status}{self._last_words()}.")

    def check(self, scenario: Scenario) -> None:
        """Raise ComparisonError unless the scenario's request gets the right answer."""
        wrong = answers.fault(self.port, scenario)
        self.require_alive()
        if wrong:
            raise ComparisonError(f"{self.label} {wrong} to {scenario.method} {scenario.name}.")

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
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"; it said: {lines[-1].strip().rstrip('.')}" if lines else ""


class Fleet:
    """The servers of a comparison, by their labels; leaving the block stops them all."""

    def __init__(self) -> None:
        """Start with none."""
        self._servers: dict[str, Server] = {}
        self._logs = tempfile.TemporaryDirectory(prefix="profiling-")

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop every server; a second Ctrl+C must not leave half of them behind."""
        kept = {number: signal.signal(number, signal.SIG_IGN) for number in _INTERRUPTIONS}
        try:
            for server in self._servers.values():
                server.stop()
            self._logs.cleanup()
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)

    def running(self, prepared: Prepared) -> Server:
        """The server of an entrant: started, checked and frozen the first time it is asked for."""
        label = prepared.entrant.label
        if label not in self._servers:
            server = self._started(prepared, SERVER_CORE, 1, label)
            for scenario in SCENARIOS:
                if prepared.entrant.peer.serves(scenario):
                    server.check(scenario)
            server.freeze()
        return self._servers[label]

    @contextmanager
    def fresh(
        self, prepared: Prepared, cores: str = SERVER_CORE, lanes: int = 1
    ) -> Iterator[Server]:
        """A server of its own for the block, ready when the block begins and not frozen."""
        key = f"{prepared.entrant.label}, fresh"
        server = self._started(prepared, cores, lanes, key)
        try:
            yield server
        finally:
            server.stop()
            del self._servers[key]

    def _started(self, prepared: Prepared, cores: str, lanes: int, key: str) -> Server:
        server = Server(prepared, Path(self._logs.name), cores, lanes)
        self._servers[key] = server
        server.wait_until_ready()
        return server


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int, request: bytes) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), _CONNECTION_PATIENCE) as connection:
            connection.sendall(request)
            return connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False


def _session(pid: int) -> int | None:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
