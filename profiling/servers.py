"""The servers of a comparison.

Who owns what: a `Fleet` owns servers and stops all of them when its block is left, however it is
left. One thread touches both.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

from profiling import answers
from profiling.environments import Prepared
from profiling.errors import ComparisonError
from profiling.peers import Launch
from profiling.program import Program, uninterrupted
from profiling.scenarios import SCENARIOS, Scenario

SERVER_CORE = "0"
LOAD_CORE = "1"
BOTH_CORES = "0,1"


class Server(Program):
    """One running server of an entrant."""

    def __init__(
        self, prepared: Prepared, logs: Path, cores: str = SERVER_CORE, lanes: int = 1
    ) -> None:
        """Start it on the given cores; `wait_until_ready` tells when it answers."""
        self.prepared = prepared
        peer = prepared.entrant.peer
        super().__init__(
            prepared.entrant.label,
            lambda port: peer.command(Launch(prepared.executable, port, lanes)),
            logs,
            cores=cores,
            environment=peer.environment,
            ready=next(s.target for s in SCENARIOS if peer.serves(s)).encode(),
        )

    def check(self, scenario: Scenario) -> None:
        """Raise ComparisonError unless the scenario's request gets the right answer."""
        wrong = answers.fault(self.port, scenario)
        self.require_alive()
        if wrong:
            raise ComparisonError(f"{self.label} {wrong} to {scenario.method} {scenario.name}.")


class Fleet:
    """The servers of a comparison, by label, fresh ones numbered; leaving the block stops all."""

    def __init__(self) -> None:
        """Start with none."""
        self._servers: dict[str, Server] = {}
        self._numbers = count(1)
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
        """Stop every server."""
        with uninterrupted():
            for server in self._servers.values():
                server.stop()
            self._logs.cleanup()

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
        key = f"{prepared.entrant.label}, fresh {next(self._numbers)}"
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
