"""One measurement: warm up, drive, and what it cost the server."""

from dataclasses import dataclass

from profiling.cpu import CoreMeter, CpuMeter
from profiling.errors import ComparisonError
from profiling.load import Load, Outcome, drive
from profiling.results import Sample
from profiling.scenarios import Scenario
from profiling.servers import BOTH_CORES, LOAD_CORE, SERVER_CORE, Server

LANES_CONNECTIONS = 16
"""Enough to keep two lanes busy; wrk shares their cores, so it must be a small part of the work."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things are measured."""

    seconds: int
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


def measure(server: Server, what: Measurement, pace: Pace, turn: int) -> Sample:
    """Drive a server that is running (not frozen) and return what it did."""
    load_cores = BOTH_CORES if what.both_cores else LOAD_CORE
    if pace.warmup:
        _drive(server, what, Load(what.connections, pace.warmup, load_cores))
    core, meter = CoreMeter(int(SERVER_CORE)), CpuMeter(server.pid)
    seen = _drive(server, what, Load(what.connections, pace.seconds, load_cores))
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
    return Sample(
        server=server.label,
        scenario=what.scenario.name,
        connections=what.connections,
        round=turn,
        row=what.row,
        lanes=what.lanes,
        cores=BOTH_CORES if what.both_cores else SERVER_CORE,
        requests=seen.requests,
        rate=round(seen.rate, 1),
        cpu_us=round(used / seen.requests * 1e6, 3),
        p50_us=seen.latency.p50_us if seen.latency else None,
        p95_us=seen.latency.p95_us if seen.latency else None,
        p99_us=seen.latency.p99_us if seen.latency else None,
        broken=seen.broken,
        timeouts=seen.timeouts,
        disturbed=round(others, 3),
    )


def _drive(server: Server, what: Measurement, load: Load) -> Outcome:
    """Run wrk; when that fails because the server is gone, say so rather than what wrk says."""
    try:
        return drive(what.scenario, load, server.port)
    except ComparisonError as error:
        server.require_alive()
        raise ComparisonError(f"{server.label}: {error}") from error
