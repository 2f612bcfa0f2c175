"""The ratio table: what is compared with what, and what must be reached.

A ratio is the median of the ratios of neighbouring slices, those of all rounds in one heap. Two
neighbours of a second share the machine's drift, so it cancels before anything is averaged; what
remains differs from slice to slice without memory, so every one of them counts the same. The mean
of what remains, or the ratio of the sums, is as fine while nobody disturbs, but one slice in which
somebody did moves it; the median of the medians of the rounds throws away a quarter of the precision.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from profiling import scenarios
from profiling.interpreters import Interpreter
from profiling.peers import Entrant, Product, peer_of
from profiling.results import Sample, Slice, Verdict
from profiling.scenarios import Scenario
from profiling.statistics import median

MAIN_CONNECTIONS = 64
"""The load at which ratios are taken."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One half of a ratio."""

    product: Product
    scenario: Scenario

    def on(self, side: Interpreter) -> Entrant | None:
        """The entrant on one side of the comparison; None when the product does not exist there."""
        peer = peer_of(self.product)
        if Interpreter.NATIVE in peer.interpreters:
            return Entrant(peer, Interpreter.NATIVE)
        return Entrant(peer, side) if side in peer.interpreters else None


@dataclass(frozen=True, slots=True)
class Pair:
    """Requests a second of one subject to those of another, measured in turns."""

    name: str
    text: str
    above: Subject
    below: Subject
    at_least: float
    of_cpu: bool = False
    """Of the CPU time a request takes, below to above, instead of the requests a second."""

    def reached(self, measured: float) -> bool:
        """Whether that is high enough."""
        return measured >= self.at_least

    def judge(self, samples: Iterable[Sample], side: Interpreter) -> Verdict | None:
        """Return the verdict of the samples that were taken for this row; None without any."""
        above, below = self.above.on(side), self.below.on(side)
        if above is None or below is None:
            return None
        taken = [sample for sample in samples if sample.row == self.name]
        upper = _half(taken, above, self.above.scenario)
        lower = _half(taken, below, self.below.scenario)
        by_cpu = _by_round(upper, lower, _of_cpu)
        rounds = by_cpu if self.of_cpu else _by_round(upper, lower, _of_rates)
        if not rounds:
            return None
        measured = _of_all(rounds)
        return Verdict(
            row=self.name,
            interpreter=side.value,
            measured=measured,
            rounds=[median(ratios) for ratios in rounds],
            by_cpu=_of_all(by_cpu),
            reached=self.reached(measured),
        )


def _half(samples: Iterable[Sample], entrant: Entrant, scenario: Scenario) -> dict[int, Sample]:
    """The samples of one half of a ratio, by their round."""
    return {
        sample.round: sample
        for sample in samples
        if (sample.server, sample.scenario) == (entrant.label, scenario.name)
    }


def _by_round(
    upper: Mapping[int, Sample], lower: Mapping[int, Sample], ratio: Callable[[Slice, Slice], float]
) -> list[list[float]]:
    """The ratios of neighbouring slices in each round that has both halves."""
    return [
        [ratio(*pair) for pair in zip(upper[turn].turns, lower[turn].turns, strict=True)]
        for turn in sorted(upper.keys() & lower.keys())
    ]


def _of_rates(upper: Slice, lower: Slice) -> float:
    return upper.rate / lower.rate


def _of_cpu(upper: Slice, lower: Slice) -> float:
    return lower.cpu_us / upper.cpu_us


def _of_all(rounds: Iterable[Iterable[float]]) -> float:
    """The median of the ratios of all rounds together."""
    return median([ratio for ratios in rounds for ratio in ratios])


@dataclass(frozen=True, slots=True)
class Scaling:
    """Requests a second of a CPU-bound handler with two lanes, to those with one."""

    name: str
    text: str
    scenario: Scenario
    at_least: float

    def reached(self, measured: float) -> bool:
        """Whether that is high enough."""
        return measured >= self.at_least

    def judge(self, samples: Iterable[Sample], side: Interpreter) -> Verdict | None:
        """Return the verdict of the samples that were taken for this row; None without any."""
        label = Entrant(peer_of(Product.TREADLE), side).label
        taken = [s for s in samples if s.row == self.name and s.server == label]
        one = {sample.round: sample for sample in taken if sample.lanes == 1}
        two = {sample.round: sample for sample in taken if sample.lanes == 2}
        ratios = _by_round(two, one, _of_rates)
        if not ratios:
            return None
        measured, rounds = _of_all(ratios), [median(each) for each in ratios]
        reached = self.reached(measured)
        return Verdict(self.name, side.value, measured, rounds, by_cpu=None, reached=reached)


class Quantity(Enum):
    """What a ceiling is set for; the value is its unit."""

    IDLE_CONNECTION = "KiB"
    START = "ms"


@dataclass(frozen=True, slots=True)
class Ceiling:
    """A quantity of treadle's that must not be higher."""

    name: str
    text: str
    quantity: Quantity
    at_most: float

    def reached(self, measured: float) -> bool:
        """Whether that is low enough."""
        return measured <= self.at_most

    def judge(self, values: Sequence[float], side: Interpreter) -> Verdict | None:
        """Return the verdict of the values in the quantity's unit; None without any."""
        if not values:
            return None
        measured = median(values)
        reached = self.reached(measured)
        return Verdict(self.name, side.value, measured, list(values), by_cpu=None, reached=reached)


Row = Pair | Scaling | Ceiling


def _treadle(scenario: Scenario) -> Subject:
    return Subject(Product.TREADLE, scenario)


PAIRS = (
    Pair(
        "async-to-sync",
        "/async to /sync",
        _treadle(scenarios.ASYNC),
        _treadle(scenarios.SYNC),
        0.97,
    ),
    Pair(
        "sync-to-hyper",
        "/sync (dict to JSON) to bare hyper",
        _treadle(scenarios.SYNC),
        Subject(Product.BASELINE, scenarios.SYNC),
        0.95,
    ),
    Pair(
        "sleep0-to-sync",
        "/sleep0 to /sync",
        _treadle(scenarios.SLEEP0),
        _treadle(scenarios.SYNC),
        0.90,
    ),
    Pair(
        "sync-to-turboapi",
        "/sync to TurboAPI /sync",
        _treadle(scenarios.SYNC),
        Subject(Product.TURBOAPI, scenarios.SYNC),
        1.5,
    ),
    Pair(
        "async-to-turboapi",
        "/async to TurboAPI /async",
        _treadle(scenarios.ASYNC),
        Subject(Product.TURBOAPI, scenarios.ASYNC),
        1.8,
    ),
    Pair(
        "sleep0-to-turboapi",
        "/sleep0 to TurboAPI /sleep0",
        _treadle(scenarios.SLEEP0),
        Subject(Product.TURBOAPI, scenarios.SLEEP0),
        2.5,
    ),
    Pair(
        "async-to-granian",
        "/async to granian RSGI",
        _treadle(scenarios.ASYNC),
        Subject(Product.GRANIAN_RSGI, scenarios.ASYNC),
        1.8,
    ),
    Pair(
        "async-to-fastapi",
        "/async to FastAPI on uvicorn, same interpreter",
        _treadle(scenarios.ASYNC),
        Subject(Product.FASTAPI, scenarios.ASYNC),
        11.0,
    ),
    Pair(
        "pipelined-sync-to-hyper",
        "pipelined x16: /sync to bare hyper",
        _treadle(scenarios.SYNC_X16),
        Subject(Product.BASELINE, scenarios.SYNC_X16),
        0.6,
    ),
    Pair(
        "pipelined-async-to-sync",
        "pipelined x16: /async to /sync",
        _treadle(scenarios.ASYNC_X16),
        _treadle(scenarios.SYNC_X16),
        0.75,
    ),
    Pair(
        "pipelined-sleep0-to-sync",
        "pipelined x16: /sleep0 to /sync",
        _treadle(scenarios.SLEEP0_X16),
        _treadle(scenarios.SYNC_X16),
        0.45,
    ),
    Pair(
        "sync-telemetry",
        "/sync with telemetry to without, CPU",
        _treadle(scenarios.SYNC),
        Subject(Product.TREADLE_UNTIMED, scenarios.SYNC),
        0.98,
        of_cpu=True,
    ),
    Pair(
        "async-telemetry",
        "/async with telemetry to without, CPU",
        _treadle(scenarios.ASYNC),
        Subject(Product.TREADLE_UNTIMED, scenarios.ASYNC),
        0.98,
        of_cpu=True,
    ),
    Pair(
        "items-to-plain",
        "path int + query + JSON body into a Struct, to the plain POST",
        _treadle(scenarios.ITEMS),
        _treadle(scenarios.PLAIN),
        0.80,
    ),
)
LANES = Scaling("lanes", "CPU-bound handler: two lanes to one, two cores", scenarios.CPU, 1.9)
MEMORY = Ceiling(
    "memory", "idle keep-alive connection, memory", Quantity.IDLE_CONNECTION, at_most=10.0
)
STARTUP = Ceiling("startup", "`treadle run` to first answer", Quantity.START, at_most=150.0)

ROWS: tuple[Row, ...] = (*PAIRS, LANES, MEMORY, STARTUP)
