"""`python -m profiling soak`: the run, from the server's start to its exit status.

One event loop in this process plays all clients; the server is a child. Stretches of traffic and
counts at rest alternate. The record is saved whatever happens.
"""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from profiling import interpreters, memory, records
from profiling.console import Console
from profiling.cpu import cores
from profiling.errors import ComparisonError, UnavailableError
from profiling.program import Program, running
from profiling.records import Build, Record
from profiling.soak import census
from profiling.soak.census import Count
from profiling.soak.traffic import Tally, Traffic

APP = "profiling.apps.soak_app:app"
_CLIENTS = 24
_CYCLES = 12
_LONGEST_CYCLE = 30.0
_STOPS_WITHIN = 20.0
_OPEN_FILES = 1_000
_PANIC = "panicked at"


class Soak(Record, kw_only=True):
    """What a soak saw."""

    minutes: float
    seed: int
    clients: int
    counts: list[Count] = msgspec.field(default_factory=list)
    operations: dict[str, int] = msgspec.field(default_factory=dict)
    answers: int = 0
    lost: int = 0
    losses: list[str] = msgspec.field(default_factory=list)
    """The first of what was lost."""
    faults: list[str] = msgspec.field(default_factory=list)
    """Why the soak failed; empty when it did not."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    minutes: float = 10.0
    port: int | None = None
    seed: int = 1
    output: Path | None = None
    app: str = APP


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Tell the command line about `soak`."""
    parser = commands.add_parser("soak", help="mixed traffic: nothing grows, no answer is lost")
    parser.add_argument("--minutes", type=_minutes, default=10.0, metavar="M", help="default 10")
    parser.add_argument("--port", type=_port, help="of the server (default: a free one)")
    parser.add_argument("--seed", type=int, default=1, help="of what clients choose (default 1)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: in results/")
    parser.set_defaults(run=_main)


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes <= 24 * 60:
        raise argparse.ArgumentTypeError("must be more than 0 and at most 1440")
    return minutes


def _port(text: str) -> int:
    port = int(text)
    if not 0 < port < 2**16:
        raise argparse.ArgumentTypeError("must be between 1 and 65535")
    return port


def _main(words: argparse.Namespace) -> None:
    options = Options(words.minutes, words.port, words.seed, words.output)
    print(summary(soak(options, Console())), end="")


def soak(options: Options, console: Console) -> Soak:
    """Run the soak and return what it saw.

    Raises ComparisonError when something grew, an answer was lost or the server fails; what was
    seen is saved first.
    """
    try:
        facts = interpreters.ask(Path(sys.executable), ("treadle",))
    except UnavailableError as error:
        raise ComparisonError(f"There is no treadle to soak: {error}.") from error
    record = records.begin(
        Soak,
        "soak",
        quick=options.minutes < 1,
        minutes=options.minutes,
        seed=options.seed,
        clients=_CLIENTS,
        builds=[Build.of(_interpreter(), facts)],
    )
    memory.require_files(_OPEN_FILES)
    lanes = 1 if facts.gil else 2

    def command(port: int) -> list[str]:
        serve = [sys.executable, "-m", "treadle", "run", options.app, "--port", str(port)]
        return [*serve, "--lanes", str(lanes), "--grace", "5", "--log-level", "error"]

    path = options.output or record.default_path()
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as logs,
        records.kept(record, path, console),
    ):
        everywhere = ",".join(str(core) for core in cores())
        program = Program(
            "the server", command, Path(logs), cores=everywhere, ready=b"/census", port=options.port
        )
        with running(program) as server:
            asyncio.run(_run(record, server, console))
            _judge_end(record, server)
        if record.faults:
            raise ComparisonError(f"The soak failed: {'; '.join(record.faults)}.")
    return record


def _interpreter() -> str:
    """This one, as tables name it; the soak also runs on those that no comparison has."""
    side = interpreters.running()
    return side.value if side else ".".join(map(str, sys.version_info[:2]))


async def _run(record: Soak, server: Program, console: Console) -> None:
    tally = Tally()
    traffic = Traffic(server.port, tally, record.seed)
    seconds = record.minutes * 60
    cycle = min(seconds / _CYCLES, _LONGEST_CYCLE)
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        # Counting takes time of its own, on a busy machine more: the minutes are those of traffic.
        for _ in range(round(seconds / cycle)):
            await traffic.flow(cycle, record.clients)
            server.require_alive()
            count = await census.at_rest(server, clock() - began, tally.answers)
            record.counts.append(count)
            console.say(
                f"{count.second:>6.0f} s  {count.answers:>9,} answers  {tally.lost} lost  "
                f"{count.rss / 2**20:>6.1f} MiB  {count.fds} files  {count.tasks} tasks  "
                f"{count.objects:,} objects"
            )
    finally:
        record.operations = dict(tally.done)
        record.answers, record.lost, record.losses = tally.answers, tally.lost, tally.told
    if tally.lost:
        record.faults.append(f"{tally.lost} answers lost, first {tally.told[0]}")
    record.faults += census.growth(record.counts)


def _judge_end(record: Soak, server: Program) -> None:
    """The server must end when told, with status 0, and must not have panicked."""
    status = server.ask_to_stop(_STOPS_WITHIN)
    if status is None:
        record.faults.append(f"the server did not stop within {_STOPS_WITHIN:g} s")
    elif status != 0:
        record.faults.append(f"the server ended with {status}")
    panics = [line for line in server.said().splitlines() if _PANIC in line]
    if panics:
        record.faults.append(f"a panic: {panics[0].strip()}")


def summary(record: Soak) -> str:
    """What a soak saw, for the terminal."""
    lines = [records.origin(record), ""]
    done: Sequence[tuple[str, int]] = sorted(record.operations.items())
    lines.append(
        f"{record.answers:,} answers in {record.minutes:g} minutes from {record.clients} clients, "
        f"{record.lost} lost: " + ", ".join(f"{name} {times:,}" for name, times in done) + "."
    )
    if record.counts:
        first, last = record.counts[0], record.counts[-1]
        lines.append(
            f"Memory {first.rss / 2**20:.1f} -> {last.rss / 2**20:.1f} MiB, "
            f"files {first.fds} -> {last.fds}, Tasks {first.tasks} -> {last.tasks}, "
            f"objects {first.objects:,} -> {last.objects:,}."
        )
    return "\n".join(lines) + "\n"
