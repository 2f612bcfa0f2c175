"""The load: wrk, pinned to its own core, told what to send by wrk/scenario.lua."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from profiling.errors import ComparisonError
from profiling.paths import WRK_SCRIPT
from profiling.scenarios import JSON_TYPE, Scenario
from profiling.statistics import median

_MARK = "@@"
_GRACE = 15.0
"""Seconds that wrk may take beyond what it was told, before it counts as stuck."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is no scenario of the comparison."""

    name: str
    target: str
    body_bytes: int | None = None
    """Bytes of a body that is sent with a POST; None for a GET."""
    headers: int = 0
    """Headers beyond those that wrk sends."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "GET" if self.body_bytes is None else "POST"

    @property
    def body(self) -> None:
        """wrk makes the body itself: it may be larger than a command line."""
        return None

    @property
    def depth(self) -> int:
        """One at a time."""
        return 1


@dataclass(frozen=True, slots=True)
class Load:
    """How a scenario is driven."""

    connections: int
    seconds: int
    cores: str
    """A list of cores as taskset(1) takes it."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long answers took, in microseconds, as wrk reports it."""

    p50_us: float
    p95_us: float
    p99_us: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one run of wrk saw."""

    requests: int
    seconds: float
    latency: Latency | None
    """None for pipelined requests: wrk times the batch there, not the request."""
    broken: int
    """Connections that were refused, reset or closed early."""
    timeouts: int
    """Requests that waited longer than wrk's two seconds."""
    refused: int
    """Answers with a status above 399."""

    @property
    def rate(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.seconds


def joined(runs: Sequence[Outcome]) -> Outcome:
    """What several runs of the same load saw; raises ValueError without any.

    Counts and times add up. Percentiles do not: of each, the median of the runs is taken.
    """
    return Outcome(
        requests=sum(run.requests for run in runs),
        seconds=sum(run.seconds for run in runs),
        latency=_median_latency([run.latency for run in runs if run.latency is not None]),
        broken=sum(run.broken for run in runs),
        timeouts=sum(run.timeouts for run in runs),
        refused=sum(run.refused for run in runs),
    )


def _median_latency(known: Sequence[Latency]) -> Latency | None:
    if not known:
        return None
    return Latency(
        p50_us=median([latency.p50_us for latency in known]),
        p95_us=median([latency.p95_us for latency in known]),
        p99_us=median([latency.p99_us for latency in known]),
    )


def require_wrk() -> str:
    """Return wrk's version; raises ComparisonError when it cannot be run."""
    for tool, package in (("wrk", "wrk"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            raise ComparisonError(f"{tool} is not installed: it is in Debian's package {package}.")
    told = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)
    return " ".join(told.stdout.split()[:2])


def arguments(scenario: Scenario | Request, load: Load, port: int) -> list[str]:
    """The command line that drives one scenario."""
    told = [f"method={scenario.method}", f"depth={scenario.depth}"]
    if scenario.body is not None:
        told += [f"type={JSON_TYPE}", f"body={scenario.body}"]
    if isinstance(scenario, Request):
        told += [f"headers={scenario.headers}"]
        told += [] if scenario.body_bytes is None else [f"size={scenario.body_bytes}"]
    return [
        *("taskset", "-c", load.cores, "wrk", "-t1", f"-c{load.connections}"),
        *(f"-d{load.seconds}s", "--latency", "-s", str(WRK_SCRIPT)),
        f"http://127.0.0.1:{port}{scenario.target}",
        *("--", *told),
    ]


def drive(scenario: Scenario | Request, load: Load, port: int) -> Outcome:
    """Run wrk once and return what it saw; raises ComparisonError when it fails."""
    command = arguments(scenario, load, port)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=load.seconds + _GRACE
        )
    except subprocess.TimeoutExpired as error:
        raise ComparisonError(f"wrk did not end in time on {scenario.name}.") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise ComparisonError(f"wrk failed on {scenario.name}: {said[-1]}.")
    return parse(done.stdout, scenario.depth)


def parse(output: str, depth: int = 1) -> Outcome:
    """Read what wrk/scenario.lua reports; raises ComparisonError when it is not there."""
    for line in output.splitlines():
        if line.startswith(_MARK):
            told = json.loads(line.removeprefix(_MARK))
            latency = Latency(told["p50_us"], told["p95_us"], told["p99_us"])
            return Outcome(
                requests=told["requests"],
                seconds=told["duration_us"] / 1e6,
                latency=latency if depth == 1 else None,
                broken=told["connect"] + told["read"] + told["write"],
                timeouts=told["timeout"],
                refused=told["status"],
            )
    raise ComparisonError("wrk ended without a report.")
