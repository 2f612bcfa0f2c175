"""What is measured of a server, and what it cost the server, at a stretch or in slices."""

from dataclasses import dataclass

from profiling.cpu import CoreMeter, CpuMeter
from profiling.errors import ComparisonError
from profiling.load import Load, Outcome, drive, joined
from profiling.results import Sample, Slice
from profiling.scenarios import Scenario
from profiling.servers import BOTH_CORES, LOAD_CORE, SERVER_CORE, Server

LANES_CONNECTIONS = 16
"""Enough to keep two lanes busy; wrk shares their cores, so it must be a small part of the work."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things are measured."""

    seconds: int
    """That count, of each measurement in each round."""
    warmup: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is measured, and for which row of the ratio table."""

    scenario: Scenario
    connections: int
    row: str | None = None
    lanes: int = 1
    both_cores: bool = False
    """Server and load share two cores, rather than having one each."""


class Measured:
    """A server that is measured once or in slices: warm up, drive, read what it cost, sum up."""

    def __init__(self, server: Server, what: Measurement) -> None:
        """Nothing happens yet; the server is awake only while it is driven."""
        self._server = server
        self._what = what
        self._load_cores = BOTH_CORES if what.both_cores else LOAD_CORE
        self._outcomes: list[Outcome] = []
        self._cpu_seconds: list[float] = []
        self._others: list[float] = []

    def warm_up(self, seconds: int) -> None:
        """Drive it for so long, or not at all, without a look at what it does."""
        if seconds:
            with self._server.awake():
                self._drive(seconds)

    def drive(self, seconds: int) -> None:
        """Drive it for so long and keep what was seen; raises ComparisonError if that is no use."""
        server, what = self._server, self._what
        with server.awake():
            core, meter = CoreMeter(int(SERVER_CORE)), CpuMeter(server.pid)
            seen = self._drive(seconds)
            used = meter.seconds()
            others = 0.0 if what.both_cores else core.share_of_others(used or 0.0)
        server.require_alive()
        if used is None:
            raise ComparisonError(f"{server.label} lost a process while it was measured.")
        asked = f"{what.scenario.method} {what.scenario.name}"
        if seen.refused:
            raise ComparisonError(f"{server.label} refuses {seen.refused} requests of {asked}.")
        if not seen.requests:
            raise ComparisonError(f"{server.label} answers nothing to {asked} under load.")
        self._outcomes.append(seen)
        self._cpu_seconds.append(used)
        self._others.append(others)

    def sample(self, turn: int) -> Sample:
        """All that was seen since the warm-up, as what a round measured."""
        what, seen = self._what, self._outcomes
        whole = joined(seen)
        slices = [
            Slice(rate=round(one.rate, 1), cpu_us=_microseconds(used, one.requests))
            for one, used in zip(seen, self._cpu_seconds, strict=True)
        ]
        return Sample(
            server=self._server.label,
            scenario=what.scenario.name,
            connections=what.connections,
            round=turn,
            row=what.row,
            lanes=what.lanes,
            cores=BOTH_CORES if what.both_cores else SERVER_CORE,
            requests=whole.requests,
            rate=round(whole.rate, 1),
            cpu_us=_microseconds(sum(self._cpu_seconds), whole.requests),
            p50_us=whole.latency.p50_us if whole.latency else None,
            p95_us=whole.latency.p95_us if whole.latency else None,
            p99_us=whole.latency.p99_us if whole.latency else None,
            broken=whole.broken,
            timeouts=whole.timeouts,
            disturbed=round(sum(self._others) / len(self._others), 3),
            slices=slices if len(slices) > 1 else [],
        )

    def _drive(self, seconds: int) -> Outcome:
        """Run wrk; when that fails because the server is gone, say so rather than what wrk says."""
        server, what = self._server, self._what
        try:
            return drive(
                what.scenario, Load(what.connections, seconds, self._load_cores), server.port
            )
        except ComparisonError as error:
            server.require_alive()
            raise ComparisonError(f"{server.label}: {error}") from error


def _microseconds(cpu_seconds: float, requests: int) -> float:
    """CPU microseconds of one request."""
    return round(cpu_seconds / requests * 1e6, 3)
