"""`python -m profiling mixed`: every strategy at every size, on both builds.

One thread does everything; each measurement has a server of its own, and all of them one upstream
service. Whatever happens, both are stopped and what was measured is saved.
"""

import argparse
import http.client
import json
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from profiling import environments, html, interpreters, lines, memory, records, results
from profiling.apps import mixed_work
from profiling.console import Console
from profiling.cpu import CpuMeter, cores, process_tree, proportional_bytes, resident_bytes
from profiling.errors import ComparisonError, UnavailableError
from profiling.files import write
from profiling.interpreters import PYTHONS, Interpreter
from profiling.load import Load, Request, drive, require_wrk
from profiling.measuring import Pace
from profiling.mixed import record as shown
from profiling.mixed.record import Mixed, Sample, Subject
from profiling.mixed.strategies import BY_NAME, STRATEGIES, Start, Strategy
from profiling.program import Program, running
from profiling.records import Build
from profiling.results import LeftOut

SIZES = (1, 2, 4, 8, 16, 32)
_QUICK_SIZES = (1, 2)
_WAIT_US = 2_000
_COMPUTE_US = 200.0
_CONNECTIONS = 64
_OPEN_FILES = 4_000
_PACE = Pace(seconds=4, warmup=1)
_CALIBRATION_TURNS = 20_000
_CALIBRATIONS = 15
_ANSWER_PATIENCE = 10.0
_START_OVERHEAD = 2.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    strategies: tuple[Strategy, ...] = STRATEGIES
    sides: tuple[Interpreter, ...] = PYTHONS
    sizes: tuple[int, ...] = SIZES
    rounds: int = 3
    pace: Pace = _PACE
    quick: bool = False
    output: Path | None = None
    pythons: dict[Interpreter, Path] = field(default_factory=dict)
    """Interpreters that have treadle installed."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Tell the command line about `mixed`."""
    parser = commands.add_parser("mixed", help="a request of waits and work, under every strategy")
    add = parser.add_argument
    add("--quick", action="store_true", help="one round of one second: does it work?")
    add("--only", type=_strategies, metavar="A,B", help=f"of {', '.join(BY_NAME)}")
    add("--sizes", type=_sizes, metavar="N,N", help="threads, processes, lanes (1,2,4,8,16,32)")
    add("--rounds", type=_positive, metavar="N", help="default 3")
    add("--seconds", type=_positive, metavar="S", help="of each measurement (default 4)")
    add("--python", choices=[*(side.value for side in PYTHONS), "both"], default="both")
    for side in PYTHONS:
        add(
            f"--python-{side.value}",
            dest=side.name,
            type=Path,
            metavar="PATH",
            help=f"a Python {side.value} that has treadle installed (or {side.variable})",
        )
    add("--output", type=Path, metavar="FILE", help="where the result goes (default results/)")
    add("--chart", type=Path, metavar="FILE", help="draw it, as SVG")
    add("--html", type=Path, metavar="FILE", help="draw it, as one HTML page")
    parser.set_defaults(run=_main)


def _strategies(text: str) -> tuple[Strategy, ...]:
    for name in text.split(","):
        if name not in BY_NAME:
            raise argparse.ArgumentTypeError(f"no strategy is called {name!r}")
    return tuple(BY_NAME[name] for name in text.split(","))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(part) for part in text.split(",")}))


def _main(words: argparse.Namespace) -> None:
    quick: bool = words.quick
    pace = Pace(seconds=1, warmup=0) if quick else _PACE
    options = Options(
        strategies=words.only or STRATEGIES,
        sides=tuple(side for side in PYTHONS if words.python in {side.value, "both"}),
        sizes=words.sizes or (_QUICK_SIZES if quick else SIZES),
        rounds=words.rounds or (1 if quick else 3),
        pace=Pace(words.seconds, pace.warmup) if words.seconds else pace,
        quick=quick,
        output=words.output,
        pythons={side: path for side in PYTHONS if (path := getattr(words, side.name))},
    )
    record = mixed(options, Console())
    print(shown.document(record), end="")
    if words.chart:
        remark = f"{record.created[:10]}; {record.machine.cpu}, {record.machine.cores} cores."
        title = "Four waits of 2 ms and 200 us of Python a request"
        write(words.chart, lines.draw(title, shown.charts(record), remark))
    if words.html:
        write(words.html, html.render(shown.page(record)))


def mixed(options: Options, console: Console) -> Mixed:
    """Measure, and return the record; raises ComparisonError when it cannot go on."""
    require_wrk()
    memory.require_files(_OPEN_FILES)
    server_cores, load_cores = _split(cores())
    turns, compute_us = _calibrated()
    record = records.begin(
        Mixed,
        "mixed",
        quick=options.quick,
        waits=mixed_work.WAITS,
        wait_us=_WAIT_US,
        compute_us=round(compute_us, 1),
        turns=turns,
        connections=_CONNECTIONS,
        seconds=options.pace.seconds,
        warmup_seconds=options.pace.warmup,
        rounds=options.rounds,
        server_cores=server_cores,
        load_cores=load_cores,
    )
    chosen = _prepare(options, record, console)
    program = environments.built("upstream", console.say)
    path = options.output or record.default_path()
    with tempfile.TemporaryDirectory(prefix="mixed-") as logs, records.kept(record, path, console):
        folder = Path(logs)
        service = Program(
            "the upstream", lambda port: [str(program), str(port)], folder, cores=load_cores
        )
        with running(service) as upstream:
            _Run(options, record, console, folder, upstream, path).all(chosen)
        record.verdicts = shown.judge(record)
    return record


def _split(available: tuple[int, ...]) -> tuple[str, str]:
    """The cores of servers and of the load; they share where there are few."""
    if len(available) < 4:
        both = ",".join(map(str, available))
        return both, both
    return ",".join(map(str, available[:-2])), ",".join(map(str, available[-2:]))


def _calibrated() -> tuple[int, float]:
    """How often `compute` turns in 200 us here, and how long that takes."""

    def seconds(turns: int) -> float:
        began = time.perf_counter()
        mixed_work.compute(turns)
        return time.perf_counter() - began

    # The shortest: whatever else the machine does only makes it longer.
    each = min(seconds(_CALIBRATION_TURNS) for _ in range(_CALIBRATIONS)) / _CALIBRATION_TURNS
    turns = max(1, round(_COMPUTE_US / 1e6 / each))
    return turns, each * turns * 1e6


def _prepare(
    options: Options, record: Mixed, console: Console
) -> list[tuple[Strategy, Subject, Path]]:
    """What can take part; the others are told and left out."""
    chosen = []
    for side in options.sides:
        for strategy in options.strategies:
            label = f"{strategy.name} {side.value}"
            try:
                if strategy.ours:
                    python, facts = interpreters.with_treadle(side, options.pythons.get(side))
                    build = Build.of(side.value, facts)
                    if build not in record.builds:
                        record.builds.append(build)
                else:
                    python, facts = environments.with_packages(
                        side, strategy.name, strategy.packages, strategy.modules, console.say
                    )
            except UnavailableError as error:
                record.left_out.append(LeftOut(label, str(error)))
                console.say(f"{label} is left out: {error}")
                continue
            subject = Subject(
                strategy.name,
                strategy.title,
                side.value,
                facts.version,
                facts.gil,
                strategy.counted,
                strategy.ours,
            )
            record.subjects.append(subject)
            chosen.append((strategy, subject, python))
    if not chosen:
        reasons = "; ".join(f"{out.label}: {out.reason}" for out in record.left_out)
        raise ComparisonError(f"Nothing can be measured: {reasons}.")
    return chosen


@dataclass(frozen=True, slots=True)
class _Run:
    options: Options
    record: Mixed
    console: Console
    folder: Path
    upstream: Program
    path: Path

    def all(self, chosen: list[tuple[Strategy, Subject, Path]]) -> None:
        """Every strategy at every size, in rounds; every second round the other way about."""
        pace = self.options.pace
        steps = [(size, one) for size in self.options.sizes for one in chosen]
        each = pace.seconds + pace.warmup + _START_OVERHEAD
        total = len(steps) * self.options.rounds
        self.console.say(f"{total} measurements, about {total * each / 60:.0f} min")
        done = 0
        for turn in range(self.options.rounds):
            for size, (strategy, subject, python) in steps if turn % 2 == 0 else steps[::-1]:
                sample = self._one(strategy, subject, python, size, turn)
                self.record.samples.append(sample)
                done += 1
                trouble = f"  {sample.timeouts} timeouts" if sample.timeouts else ""
                self.console.say(
                    f"[{done:>3}/{total}] round {turn + 1}/{self.options.rounds}  "
                    f"{subject.strategy + ' ' + subject.interpreter:<24} {size:>3} "
                    f"{subject.counted:<10}{sample.rate:>8,.0f}/s "
                    f"P99 {sample.p99_us / 1000:>7.1f} ms {sample.pss / 2**20:>5.0f} MiB{trouble}"
                )
            results.save(self.record, self.path)

    def _one(
        self, strategy: Strategy, subject: Subject, python: Path, size: int, turn: int
    ) -> Sample:
        record, pace = self.record, self.options.pace

        def command(port: int) -> list[str]:
            available = len(record.server_cores.split(","))
            return strategy.command(Start(python, port, size, subject.gil, available))

        program = Program(
            f"{subject.strategy} {subject.interpreter} with {size}",
            command,
            self.folder,
            cores=record.server_cores,
            environment={
                "MIXED_UPSTREAM": str(self.upstream.port),
                "MIXED_WAIT_US": str(record.wait_us),
                "MIXED_TURNS": str(record.turns),
            },
            ready=strategy.target.encode(),
        )
        with running(program) as server:
            _check(server, strategy.target, record.turns)
            asked = Request("mixed", strategy.target)
            if pace.warmup:
                drive(asked, Load(record.connections, pace.warmup, record.load_cores), server.port)
            meter = CpuMeter(server.pid)
            seen = drive(
                asked, Load(record.connections, pace.seconds, record.load_cores), server.port
            )
            used = meter.seconds()
            self.upstream.require_alive()
            server.require_alive()
            if used is None:
                raise ComparisonError(f"{server.label} lost a process while it was measured.")
            if seen.refused or not seen.requests or seen.latency is None:
                raise ComparisonError(
                    f"{server.label} answers {seen.requests} requests, {seen.refused} of them "
                    "with an error."
                )
            return Sample(
                strategy=subject.strategy,
                interpreter=subject.interpreter,
                size=size,
                round=turn,
                rate=round(seen.rate, 1),
                cpu_us=round(used / seen.requests * 1e6, 1),
                p50_us=seen.latency.p50_us,
                p95_us=seen.latency.p95_us,
                p99_us=seen.latency.p99_us,
                rss=resident_bytes(server.pid),
                pss=proportional_bytes(server.pid),
                processes=len(process_tree(server.pid)),
                timeouts=seen.timeouts,
            )


def _check(server: Program, target: str, turns: int) -> None:
    """Raise ComparisonError unless the answer is the right one: all waits done, the work done."""
    expected = mixed_work.answer(mixed_work.compute(turns))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_ANSWER_PATIENCE)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        server.require_alive()
        raise ComparisonError(
            f"{server.label} does not answer ({type(error).__name__})."
        ) from error
    finally:
        connection.close()
    try:
        right = response.status == 200 and json.loads(body) == expected
    except ValueError:
        right = False
    if not right:
        raise ComparisonError(f"{server.label} answers {response.status}, {body[:80]!r}.")
