"""A comparison of loops from beginning to end.

Every measurement is a process of its own on core 0; the client of the echoes, PostgreSQL and this
process have core 1. In a round every scenario is measured on every loop, one right after the other,
in every second round in the opposite order, so that the machine's drift cancels.
"""

import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from profiling import interpreters, machine, results
from profiling.console import Console
from profiling.cpu import CpuMeter, cores
from profiling.errors import ComparisonError, UnavailableError
from profiling.loops import client
from profiling.loops.kinds import Kind
from profiling.loops.postgres import postgres
from profiling.loops.results import LoopsResult, Taken
from profiling.loops.scenarios import FOUR_LOOPS, SCENARIOS, Echo, Micro, Scenario
from profiling.paths import PEERS, REQUIREMENTS, ROOT
from profiling.results import LeftOut
from profiling.servers import LOAD_CORE, SERVER_CORE

_WORKER_PATIENCE = 120.0
_WARM_UP = 0.2
_REQUIREMENTS = REQUIREMENTS / "loops.txt"


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """What the command line says."""

    kinds: tuple[Kind, ...] = tuple(Kind)
    scenarios: tuple[Scenario, ...] = SCENARIOS
    rounds: int = 3
    seconds: float = 2.0
    quick: bool = False
    output: Path | None = None


@dataclass(slots=True)
class _Place:
    """What workers need around them."""

    peers: Path
    certificate: Path | None = None
    database: str | None = None
    left_out: list[LeftOut] = field(default_factory=list)

    def environment(self) -> dict[str, str]:
        extra = {"PYTHONPATH": str(self.peers)}
        if self.database is not None:
            extra["LOOPS_POSTGRES"] = self.database
        return interpreters.clean_environment(extra)


def compare(options: LoopOptions, console: Console) -> tuple[LoopsResult, Path]:
    """Measure, and return the result and where it was saved.

    Raises ComparisonError when it cannot go on; what was measured until then is saved.
    """
    if not {0, 1} <= set(cores()):
        raise ComparisonError("A comparison needs cores 0 and 1, one for loops, one for load.")
    facts = interpreters.ask(Path(sys.executable), ("treadle",))
    if not facts.for_speed:
        raise ComparisonError(
            f"treadle is a {facts.profile} build here; only a release build is measured "
            "(maturin develop --release)."
        )
    peers = _peers(console)
    place = _Place(peers)
    kinds = [kind for kind in options.kinds if _present(kind, place)]
    result = LoopsResult(
        created=machine.now(),
        commit=machine.commit(),
        dirty=machine.dirty(),
        quick=options.quick,
        machine=machine.describe(),
        python=facts.version,
        gil=facts.gil,
        rounds=options.rounds,
        seconds=options.seconds,
        versions=_versions(kinds, peers, facts.treadle),
        left_out=place.left_out,
    )
    path = options.output or result.path()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    try:
        with ExitStack() as around:
            wanted = _prepared(options.scenarios, place, around, console)
            for turn in range(options.rounds):
                for scenario in wanted:
                    for kind in kinds if turn % 2 == 0 else reversed(kinds):
                        _one(kind, scenario, turn, result, place, console)
                _save(result, path)
        result.partial = None
    except (ComparisonError, KeyboardInterrupt) as error:
        result.partial = str(error) or "interrupted"
        raise
    finally:
        os.sched_setaffinity(0, before)
        if result.taken:
            _save(result, path)
            console.say(f"{'partial result' if result.partial else 'result'}: {path}")
    return result, path


def _one(
    kind: Kind,
    scenario: Scenario,
    turn: int,
    result: LoopsResult,
    place: _Place,
    console: Console,
) -> None:
    """Add a measurement; a loop other than ours that cannot do a scenario is left out of it."""
    label = f"{kind.value}, {scenario.name}"
    if any(out.label == label for out in result.left_out):
        return
    try:
        taken = _take(kind, scenario, result.seconds, turn, place)
    except UnavailableError as error:
        if kind is Kind.TREADLE:
            raise ComparisonError(f"{label}: {error}") from error
        result.left_out.append(LeftOut(label, str(error)))
        console.say(f"{label} is left out: {error}")
        return
    result.taken.append(taken)
    console.say(
        f"round {turn + 1}/{result.rounds}  {scenario.name:<13}{kind.value:<9}"
        f"{taken.wall_us:>11.3f} us {taken.cpu_us:>9.3f} CPU us"
    )


def _save(result: LoopsResult, path: Path) -> None:
    results.write(msgspec.to_builtins(result), path)


# -- what is needed -------------------------------------------------------------------------------


def _peers(console: Console) -> Path:
    """The other loops, and asyncpg, in a folder that is put on the path of every worker."""
    side = interpreters.running()
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = PEERS / f"loops-{side.value if side else 'other'}-{digest}"
    marker = folder / "installed"
    if marker.exists():
        return folder
    console.say("installing the other loops")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wanted = [line for line in _REQUIREMENTS.read_text().splitlines() if line[:1] not in ("#", "")]
    for requirement in wanted:  # one by one: what has no wheel here is left out
        subprocess.run(
            [*pip, "--only-binary", ":all:", "--no-deps", "--target", str(folder), requirement],
            capture_output=True,
            check=False,
        )
    folder.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return folder


def _present(kind: Kind, place: _Place) -> bool:
    program = f"import {kind.module}, sys; sys.exit(getattr(sys, '_is_gil_enabled', bool)())"
    if interpreters.running() is not interpreters.Interpreter.FREE_THREADED:
        program = f"import {kind.module}"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=place.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["importing it turns the GIL on"]
        place.left_out.append(LeftOut(kind.value, said[-1]))
    return done.returncode == 0


def _versions(kinds: Sequence[Kind], peers: Path, treadle: str | None) -> dict[str, str]:
    found = {"treadle": str(treadle)}
    for package in importlib.metadata.distributions(path=[str(peers)]):
        if package.name in {*(kind.value for kind in kinds), "asyncpg"}:
            found[package.name] = package.version
    return found


def _prepared(
    scenarios: Sequence[Scenario], place: _Place, around: ExitStack, console: Console
) -> list[Scenario]:
    """The scenarios that can be measured here, with what they need started."""
    wanted = list(scenarios)
    if FOUR_LOOPS in wanted and not {0, 1, 2, 3} <= set(cores()):
        wanted.remove(FOUR_LOOPS)
    if any(isinstance(scenario, Echo) and scenario.tls for scenario in wanted):
        folder = Path(around.enter_context(tempfile.TemporaryDirectory(prefix="profiling-")))
        place.certificate = _certificate(folder)
    if any(isinstance(scenario, Micro) and scenario.postgres for scenario in wanted):
        try:
            place.database = around.enter_context(postgres())
        except UnavailableError as error:
            console.say(str(error))
            place.left_out.append(LeftOut("asyncpg", str(error)))
            wanted = [s for s in wanted if not (isinstance(s, Micro) and s.postgres)]
    return wanted


def _certificate(folder: Path) -> Path:
    """A certificate of its own signing, with its key, in one file."""
    both = folder / "both.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost"]
    try:
        subprocess.run(
            [*command, "-keyout", folder / "key", "-out", folder / "cert"],
            check=True,
            capture_output=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise ComparisonError(f"openssl makes no certificate: {error}") from error
    both.write_text((folder / "key").read_text() + (folder / "cert").read_text())
    return both


# -- measuring ------------------------------------------------------------------------------------


def _take(kind: Kind, scenario: Scenario, seconds: float, turn: int, place: _Place) -> Taken:
    if isinstance(scenario, Micro):
        count, wall, cpu = _measure(kind, scenario, seconds, place)
    else:
        count, wall, cpu = _echo(kind, scenario, seconds, place)
    return Taken(
        loop=kind.value,
        scenario=scenario.name,
        round=turn,
        operations=count,
        wall_us=round(wall / count * 1e6, 4),
        cpu_us=round(cpu / count * 1e6, 4),
    )


def _command(what: str, kind: Kind, scenario: Scenario, at: str) -> list[str]:
    worker = [sys.executable, "-m", "profiling.loops.worker"]
    return ["taskset", "-c", at, *worker, what, kind.value, scenario.name]


def _measure(
    kind: Kind, scenario: Micro, seconds: float, place: _Place
) -> tuple[int, float, float]:
    try:
        done = subprocess.run(
            [*_command("measure", kind, scenario, scenario.cores), str(seconds)],
            cwd=ROOT,
            env=place.environment(),
            capture_output=True,
            text=True,
            timeout=_WORKER_PATIENCE,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["it says nothing"]
        raise UnavailableError(said[-1]) from error
    except subprocess.TimeoutExpired as error:
        raise UnavailableError("it never ends") from error
    count, wall, cpu = json.loads(done.stdout)
    return count, wall, cpu


def _echo(kind: Kind, scenario: Echo, seconds: float, place: _Place) -> tuple[int, float, float]:
    with _served(kind, scenario, place) as (process, where):
        try:
            with client.connected(scenario, where) as connections:
                client.drive(connections, scenario.size, _WARM_UP)
                meter = CpuMeter(process.pid)
                count, wall = client.drive(connections, scenario.size, seconds)
                used = meter.seconds()
        except OSError as error:
            raise UnavailableError(f"the client fails: {error}") from error
    if used is None:
        raise UnavailableError("its process ended")
    return count, wall, used


@contextmanager
def _served(
    kind: Kind, scenario: Echo, place: _Place
) -> Iterator[tuple[subprocess.Popen[str], str | int]]:
    command = _command("serve", kind, scenario, SERVER_CORE)
    if scenario.tls:
        command.append(str(place.certificate))
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(
            command,
            cwd=ROOT,
            env=place.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                errors.seek(0)
                said = errors.read().strip().splitlines() or ["it says nothing"]
                raise UnavailableError(f"it does not serve: {said[-1]}")
            yield process, json.loads(line)
        finally:
            process.kill()
