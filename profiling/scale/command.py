"""`python -m profiling scale`: speed-ups and cost curves, on both builds.

One thread does everything; each point has a server of its own. Whatever happens, it is stopped and
what was measured is saved.
"""

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from profiling import html, interpreters, lines, memory, records, results
from profiling.console import Console
from profiling.cpu import CpuMeter, cores, resident_bytes
from profiling.errors import ComparisonError, UnavailableError
from profiling.files import write
from profiling.interpreters import PYTHONS, Facts, Interpreter
from profiling.load import Load, drive, require_wrk
from profiling.measuring import Pace
from profiling.program import Program, running
from profiling.records import Build
from profiling.results import LeftOut
from profiling.scale import curves, waiting
from profiling.scale import record as shown
from profiling.scale.curves import BY_NAME, CURVES, Curve
from profiling.scale.record import Sample, Scale, Skipped

_APP = "profiling.apps.scale_app:app"
_PACE = Pace(seconds=3, warmup=1)
_QUICK_PACE = Pace(seconds=1, warmup=0)
_ROUNDS = 3
_SERVER_CORE, _LOAD_CORE = "0", "1"
_FEWEST_WEIGHED = 100
"""Memory comes in pages and arenas: a few of anything weigh nothing that could be measured."""
_NO_TIMEOUTS = ("--timeout-request", "0", "--timeout-keep-alive", "0", "--timeout-header", "0")


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    curves: tuple[Curve, ...] = CURVES
    sides: tuple[Interpreter, ...] = PYTHONS
    lanes: int | None = None
    """The most lanes; None for as many as there are cores."""
    rounds: int = _ROUNDS
    pace: Pace = _PACE
    quick: bool = False
    output: Path | None = None
    pythons: dict[Interpreter, Path] = field(default_factory=dict)
    """Interpreters that have treadle installed."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Tell the command line about `scale`."""
    parser = commands.add_parser("scale", help="how throughput and cost grow")
    add = parser.add_argument
    add("--quick", action="store_true", help="few points, one round of one second: does it work?")
    add("--only", type=_curves, metavar="A,B", help=f"of {', '.join(BY_NAME)}")
    add("--lanes", type=_positive, metavar="N", help="the most (default: the number of cores)")
    add("--rounds", type=_positive, metavar="N", help="default 3")
    add("--seconds", type=_positive, metavar="S", help="of each measurement (default 3)")
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


def _curves(text: str) -> tuple[Curve, ...]:
    for name in text.split(","):
        if name not in BY_NAME:
            raise argparse.ArgumentTypeError(f"no curve is called {name!r}")
    return tuple(BY_NAME[name] for name in text.split(","))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _main(words: argparse.Namespace) -> None:
    quick: bool = words.quick
    pace = _QUICK_PACE if quick else _PACE
    options = Options(
        curves=words.only or CURVES,
        sides=tuple(side for side in PYTHONS if words.python in {side.value, "both"}),
        lanes=words.lanes,
        rounds=words.rounds or (1 if quick else _ROUNDS),
        pace=Pace(words.seconds, pace.warmup) if words.seconds else pace,
        quick=quick,
        output=words.output,
        pythons={side: path for side in PYTHONS if (path := getattr(words, side.name))},
    )
    record = scale(options, Console())
    print(shown.document(record), end="")
    if words.chart:
        remark = f"{record.created[:10]}; {record.machine.cpu}, {record.machine.cores} cores."
        write(words.chart, lines.draw("How Treadle scales", shown.charts(record), remark))
    if words.html:
        write(words.html, html.render(shown.page(record)))


def scale(options: Options, console: Console) -> Scale:
    """Measure, and return the record; raises ComparisonError when it cannot go on."""
    require_wrk()
    if not {0, 1} <= set(cores()):
        raise ComparisonError(
            "Cost curves need cores 0 and 1, one for the server, one for the load."
        )
    record = records.begin(
        Scale,
        "scale",
        quick=options.quick,
        seconds=options.pace.seconds,
        warmup_seconds=options.pace.warmup,
        rounds=options.rounds,
    )
    pythons: list[_Python] = []
    for side in options.sides:
        try:
            python, facts = interpreters.with_treadle(side, options.pythons.get(side))
        except UnavailableError as error:
            record.left_out.append(LeftOut(f"treadle {side.value}", str(error)))
            console.say(f"treadle {side.value} is left out: {error}")
            continue
        pythons.append(_Python(side, python, facts))
        record.builds.append(Build.of(side.value, facts))
    if not pythons:
        reasons = "; ".join(out.reason for out in record.left_out)
        raise ComparisonError(f"Treadle itself cannot be measured: {reasons}.")
    path = options.output or record.default_path()
    with tempfile.TemporaryDirectory(prefix="scale-") as logs, records.kept(record, path, console):
        _Run(options, record, console, Path(logs), path).all(pythons)
        record.verdicts = shown.judge(record)
    return record


@dataclass(frozen=True, slots=True)
class _Python:
    """An interpreter that has treadle."""

    side: Interpreter
    path: Path
    facts: Facts


@dataclass(frozen=True, slots=True)
class _Run:
    options: Options
    record: Scale
    console: Console
    folder: Path
    path: Path

    def all(self, pythons: list[_Python]) -> None:
        """Every point of every curve, in rounds; every second round the other way about."""
        steps = [
            (curve, value, python)
            for curve in self.options.curves
            for value in self._values(curve)
            for python in pythons
        ]
        total = len(steps) * self.options.rounds
        pace = self.options.pace
        minutes = total * (pace.seconds + pace.warmup + 2) / 60
        self.console.say(f"{total} measurements, about {minutes:.0f} min")
        done = 0
        for turn in range(self.options.rounds):
            for curve, value, python in steps if turn % 2 == 0 else steps[::-1]:
                done += 1
                self._step(curve, value, python, turn, f"[{done:>3}/{total}]")
            results.save(self.record, self.path)

    def _values(self, curve: Curve) -> tuple[int, ...]:
        if curve.is_speed_up:
            return tuple(range(1, (self.options.lanes or len(cores())) + 1))
        return curve.quick if self.options.quick else curve.values

    def _step(
        self,
        curve: Curve,
        value: int,
        python: _Python,
        turn: int,
        done: str,
    ) -> None:
        side = python.side
        words = f"{done} {curve.name} {value:,} {side.value}"
        held = value if curve in {curves.WAITING, curves.CONNECTIONS} else 0
        try:
            memory.require_files(curves.connections(curve, value) + held)
        except ComparisonError as error:
            skipped = Skipped(curve.name, side.value, value, str(error))
            if skipped not in self.record.skipped:
                self.record.skipped.append(skipped)
            self.console.say(f"{words}  skipped: {error}")
            return
        with self._server(curve, value, python) as server:
            sample = self._sample(server, curve, value, python, turn)
        self.record.samples.append(sample)
        each = "" if sample.bytes_each is None else f"  {sample.bytes_each:,.0f} bytes each"
        self.console.say(
            f"{words:<36} {sample.rate:>10,.0f}/s {sample.cpu_us:>10,.2f} us "
            f"P99 {sample.p99_us / 1000:>8.2f} ms{each}"
        )

    @contextmanager
    def _server(
        self,
        curve: Curve,
        value: int,
        python: _Python,
        routes: int | None = None,
    ) -> Iterator[Program]:
        lanes = value if curve.is_speed_up else 1
        word = "--workers" if python.facts.gil else "--lanes"
        everywhere = ",".join(map(str, cores()))
        if routes is None:
            routes = value if curve is curves.ROUTES else 0

        def command(port: int) -> list[str]:
            serve = [str(python.path), "-m", "treadle", "run", _APP, "--port", str(port)]
            return [*serve, word, str(lanes), *_NO_TIMEOUTS]

        program = Program(
            f"treadle {python.side.value} with {value:,} {curve.axis}",
            command,
            self.folder,
            cores=everywhere if curve.is_speed_up else _SERVER_CORE,
            environment={"SCALE_ROUTES": str(routes)},
            ready=b"/sync",
        )
        with running(program) as server:
            yield server

    def _sample(
        self, server: Program, curve: Curve, value: int, python: _Python, turn: int
    ) -> Sample:
        side = python.side
        if curve is curves.WAITING:
            with waiting.handlers(server, value) as each:
                return self._drive(server, curve, value, side, turn, each)
        if curve is curves.CONNECTIONS:
            with memory.held(server, value, "/sync") as each:
                return self._drive(server, curve, value, side, turn, each)
        if curve is curves.ROUTES:
            # Beside a server that has none of them.
            with self._server(curve, value, python, routes=0) as bare:
                each = (resident_bytes(server.pid) - resident_bytes(bare.pid)) / value
            return self._drive(server, curve, value, side, turn, each)
        return self._drive(server, curve, value, side, turn, None)

    def _drive(
        self,
        server: Program,
        curve: Curve,
        value: int,
        side: Interpreter,
        turn: int,
        each: float | None,
    ) -> Sample:
        asked, connections = curves.request(curve, value), curves.connections(curve, value)
        load_cores = ",".join(map(str, cores())) if curve.is_speed_up else _LOAD_CORE
        pace = self.options.pace
        if pace.warmup:
            drive(asked, Load(connections, pace.warmup, load_cores), server.port)
        meter = CpuMeter(server.pid)
        seen = drive(asked, Load(connections, pace.seconds, load_cores), server.port)
        used = meter.seconds()
        server.require_alive()
        if used is None:
            raise ComparisonError(f"{server.label} lost a process while it was measured.")
        if seen.refused or not seen.requests or seen.latency is None:
            raise ComparisonError(
                f"{server.label} answers {seen.requests} requests, {seen.refused} of them "
                "with an error."
            )
        return Sample(
            curve=curve.name,
            interpreter=side.value,
            value=value,
            round=turn,
            rate=round(seen.rate, 1),
            cpu_us=round(used / seen.requests * 1e6, 3),
            p50_us=seen.latency.p50_us,
            p99_us=seen.latency.p99_us,
            bytes_each=None if each is None or value < _FEWEST_WEIGHED else round(each, 1),
            timeouts=seen.timeouts,
        )
