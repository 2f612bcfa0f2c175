"""A comparison from beginning to end.

One thread does everything, pinned to the core of the load; every server is a process of its own
that the fleet stops, whatever happens here. The result grows as things are measured and is saved
after every round, marked partial until the last step is done.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from profiling import environments, machine, memory, results, startup
from profiling.console import Console
from profiling.cpu import cores
from profiling.environments import Prepared
from profiling.errors import ComparisonError, UnavailableError
from profiling.interpreters import PYTHONS, Interpreter
from profiling.load import require_wrk
from profiling.measuring import Measured, Pace
from profiling.peers import Entrant, Product, entrants
from profiling.ratios import MEMORY, ROWS, STARTUP, Ceiling, Pair, Row
from profiling.results import LeftOut, Method, Result, Sample, ServerFacts, Start, Weight
from profiling.schedule import SLICE_SECONDS, Step, in_round, plan, slices
from profiling.servers import BOTH_CORES, LOAD_CORE, SERVER_CORE, Fleet, Server
from profiling.statistics import median

_PACE = Pace(seconds=4, warmup=1)
_NEEDED_CORES = (0, 1)
_MEASUREMENT_OVERHEAD = 0.4
"""Seconds that a measurement takes beyond those that wrk is told."""
_MEMORY_RUNS = 3
_QUICK_MEMORY_RUNS = 1


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    products: frozenset[Product] = frozenset(Product)
    sides: tuple[Interpreter, ...] = PYTHONS
    rows: tuple[Row, ...] = ROWS
    only_rows: bool = False
    """Leave out what no ratio needs."""
    connections: tuple[int, ...] = (64, 8, 256)
    rounds: int = 3
    pace: Pace = _PACE
    quick: bool = False
    output: Path | None = None
    pythons: dict[Interpreter, Path] = field(default_factory=dict)
    """Interpreters that have treadle installed."""


def compare(options: Options, console: Console) -> tuple[Result, Path]:
    """Compare, and return the result and where it was saved.

    Raises ComparisonError when it cannot go on; what was measured until then is saved.
    """
    tool = require_wrk()
    if not set(_NEEDED_CORES) <= set(cores()):
        raise ComparisonError("A comparison needs cores 0 and 1, one for servers, one for load.")
    result = _empty(options, tool)
    path = options.output or results.default_path(result)
    ready = _prepare(options, result, console)
    memory.require_files(memory.CONNECTIONS)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {int(LOAD_CORE)})
    try:
        with Fleet() as fleet:
            _Comparison(options, console, result, path, fleet, ready).run()
        result.partial = None
        if not (result.samples or result.verdicts):
            raise ComparisonError("There is nothing to measure: a ratio lacks one of its servers.")
    except ComparisonError as error:
        result.partial = str(error)
        raise
    except KeyboardInterrupt:
        result.partial = "interrupted"
        raise
    finally:
        os.sched_setaffinity(0, before)
        if result.samples or result.verdicts:
            results.save(result, path)
            console.say(f"{'partial result' if result.partial else 'result'}: {path}")
    return result, path


def _empty(options: Options, tool: str) -> Result:
    return Result(
        created=machine.now(),
        commit=machine.commit(),
        dirty=machine.dirty(),
        quick=options.quick,
        machine=machine.describe(),
        method=Method(
            load_tool=tool,
            rounds=options.rounds,
            seconds=options.pace.seconds,
            warmup_seconds=options.pace.warmup,
            connections=list(options.connections),
            server_cores=SERVER_CORE,
            load_cores=LOAD_CORE,
            slice_seconds=SLICE_SECONDS,
        ),
        harness_python=machine.python(),
    )


def _prepare(options: Options, result: Result, console: Console) -> dict[Entrant, Prepared]:
    """Make every entrant ready to start; those that cannot take part are told and left out."""
    ready: dict[Entrant, Prepared] = {}
    for entrant in entrants(options.products, options.sides):
        try:
            prepared = environments.prepare(entrant, options.pythons, console.say)
        except UnavailableError as error:
            result.left_out.append(LeftOut(entrant.label, str(error)))
            console.say(f"{entrant.label} is left out: {error}")
            continue
        ready[entrant] = prepared
        result.servers.append(_facts(prepared))
    if not any(entrant.peer.product is Product.TREADLE for entrant in ready):
        reasons = [out.reason for out in result.left_out if out.label.startswith("treadle")]
        raise ComparisonError(f"Treadle itself cannot be measured: {'; '.join(reasons)}.")
    return ready


def _facts(prepared: Prepared) -> ServerFacts:
    peer, facts = prepared.entrant.peer, prepared.facts
    return ServerFacts(
        label=prepared.entrant.label,
        product=peer.product.value,
        title=prepared.title,
        interpreter=prepared.entrant.interpreter.value,
        python=facts.version if facts else None,
        gil=facts.gil if facts else None,
        build_profile=facts.profile if facts else None,
        remark=peer.remark,
    )


@dataclass(frozen=True, slots=True)
class _Comparison:
    options: Options
    console: Console
    result: Result
    path: Path
    fleet: Fleet
    ready: dict[Entrant, Prepared]

    def run(self) -> None:
        """Measure everything that was asked for."""
        groups = plan(
            list(self.ready),
            self.options.sides,
            self.options.rows,
            self.options.connections,
            self.options.only_rows,
        )
        steps = sum(len(group) for group in groups) * self.options.rounds
        pace = self.options.pace
        if steps:
            self.console.begin(steps, steps * (pace.seconds + pace.warmup + _MEASUREMENT_OVERHEAD))
        for turn in range(self.options.rounds):
            for group in in_round(groups, turn):
                for sample in self._measure(group, turn):
                    self.result.samples.append(sample)
                    self.console.measured(sample, self.options.rounds)
            self._judge_rates()
            if self.result.samples:
                results.save(self.result, self.path)
        self._weigh()
        self._time_starts()

    def _measure(self, group: Sequence[Step], turn: int) -> list[Sample]:
        """Measure the halves of a ratio, or what stands alone; every server is frozen but one."""
        with ExitStack() as fresh:
            members = [Measured(self._server(step, fresh), step.what) for step in group]
            for member in members:
                member.warm_up(self.options.pace.warmup)
            for member, seconds in slices(members, self.options.pace.seconds):
                member.drive(seconds)
            return [member.sample(turn) for member in members]

    def _server(self, step: Step, fresh: ExitStack) -> Server:
        """The frozen server of a step; one of its own, which `fresh` stops, has both cores."""
        prepared, what = self.ready[step.entrant], step.what
        if not what.both_cores:
            return self.fleet.running(prepared)
        server = fresh.enter_context(self.fleet.fresh(prepared, BOTH_CORES, what.lanes))
        server.check(what.scenario)
        server.freeze()
        return server

    def _judge_rates(self) -> None:
        verdicts = [
            row.judge(self.result.samples, side)
            for side in self.options.sides
            for row in self.options.rows
            if not isinstance(row, Ceiling)
        ]
        self.result.verdicts = [verdict for verdict in verdicts if verdict is not None]

    def _weigh(self) -> None:
        if MEMORY not in self.options.rows:
            return
        quick = self.options.quick
        runs = _QUICK_MEMORY_RUNS if quick else _MEMORY_RUNS
        connections = memory.QUICK_CONNECTIONS if quick else memory.CONNECTIONS

        def weigh(prepared: Prepared) -> float:
            with self.fleet.fresh(prepared) as server:
                return memory.bytes_per_connection(server, connections)

        for label, values in self._alternated(memory.PRODUCTS, runs, weigh).items():
            self.result.weights.append(Weight(label, median(values), values, connections))
            self.console.say(f"idle connection, {label}: {median(values) / 1024:.1f} KiB")
        self._judge_ceiling(MEMORY, {w.server: w.runs for w in self.result.weights}, 1 / 1024)

    def _time_starts(self) -> None:
        if STARTUP not in self.options.rows:
            return
        runs = startup.QUICK_RUNS if self.options.quick else startup.RUNS

        def start(prepared: Prepared) -> float:
            return startup.milliseconds(self.fleet, prepared)

        for label, values in self._alternated(startup.PRODUCTS, runs, start).items():
            self.result.starts.append(Start(label, median(values), values))
            self.console.say(f"start to first answer, {label}: {median(values):.0f} ms")
        self._judge_ceiling(STARTUP, {s.server: s.runs for s in self.result.starts}, 1.0)

    def _alternated(
        self, products: Sequence[Product], runs: int, take: Callable[[Prepared], float]
    ) -> dict[str, list[float]]:
        """Take a value of every entrant of these products, all of them in every run."""
        chosen = [p for e, p in self.ready.items() if e.peer.product in products]
        values: dict[str, list[float]] = {p.entrant.label: [] for p in chosen}
        for _ in range(runs):
            for prepared in chosen:
                values[prepared.entrant.label].append(take(prepared))
        return values

    def _judge_ceiling(self, row: Ceiling, runs: dict[str, list[float]], unit: float) -> None:
        for entrant in self.ready:
            if entrant.peer.product is Product.TREADLE and entrant.label in runs:
                values = [value * unit for value in runs[entrant.label]]
                verdict = row.judge(values, entrant.interpreter)
                if verdict is not None:
                    self.result.verdicts.append(verdict)


def products_of(rows: Sequence[Row]) -> frozenset[Product]:
    """The products that some rows of the ratio table speak of."""
    spoken_of = {Product.TREADLE}
    for row in rows:
        if isinstance(row, Pair):
            spoken_of |= {row.above.product, row.below.product}
        elif row is MEMORY:
            spoken_of.update(memory.PRODUCTS)
        elif row is STARTUP:
            spoken_of.update(startup.PRODUCTS)
    return frozenset(spoken_of)
