"""In which order things are measured, so that the machine's drift cancels.

A round measures everything once. The two halves of a ratio take turns of a second, every second
time the other way about (A B B A A B B A): what the machine does slowly hits both halves alike, and
what being first or second does hits each as often. Every second round begins with the other half.
What no ratio needs follows, server beside server, each at a stretch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from profiling.interpreters import Interpreter
from profiling.measuring import LANES_CONNECTIONS, Measurement
from profiling.peers import Entrant, Product
from profiling.ratios import LANES, MAIN_CONNECTIONS, Pair, Row
from profiling.scenarios import AT_FULL_LOAD, AT_OTHER_LOADS

SLICE_SECONDS = 1
"""A turn of a half: wrk takes whole seconds, and the shorter, the less the machine's speed drifts."""


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement of one entrant."""

    entrant: Entrant
    what: Measurement


def plan(
    entrants: Sequence[Entrant],
    sides: Sequence[Interpreter],
    rows: Sequence[Row],
    connections: Sequence[int],
    only_rows: bool,
) -> list[list[Step]]:
    """Return what a round measures, in groups that must not be torn apart."""
    main = main_connections(connections)
    groups: list[list[Step]] = []
    for side in sides:
        for row in rows:
            if isinstance(row, Pair):
                groups += _pair(row, side, entrants, main)
            elif row is LANES:
                groups += _lanes(side, entrants)
    if not only_rows:
        groups += _rest(entrants, connections, main, _covered(groups))
    return groups


def main_connections(connections: Sequence[int]) -> int:
    """The load of the ratios, and of the table that shows every scenario."""
    return MAIN_CONNECTIONS if MAIN_CONNECTIONS in connections else connections[0]


def in_round(groups: Iterable[list[Step]], turn: int) -> Iterator[list[Step]]:
    """The groups of one round, each turned round in every second one."""
    for group in groups:
        yield group if turn % 2 == 0 else group[::-1]


def slices[T](group: Sequence[T], seconds: int) -> Iterator[tuple[T, int]]:
    """Who is measured when and for how many seconds, so that each is for `seconds` in all."""
    if len(group) == 1:
        yield group[0], seconds
        return
    for turn in range(seconds // SLICE_SECONDS):
        for member in group if turn % 2 == 0 else reversed(group):
            yield member, SLICE_SECONDS


def _pair(
    row: Pair, side: Interpreter, entrants: Sequence[Entrant], connections: int
) -> Iterator[list[Step]]:
    above, below = row.above.on(side), row.below.on(side)
    if above in entrants and below in entrants and above is not None and below is not None:
        yield [
            Step(above, Measurement(row.above.scenario, connections, row.name)),
            Step(below, Measurement(row.below.scenario, connections, row.name)),
        ]


def _lanes(side: Interpreter, entrants: Sequence[Entrant]) -> Iterator[list[Step]]:
    # With the GIL two lanes of one process take turns: there is nothing to scale.
    if side is not Interpreter.FREE_THREADED:
        return
    for entrant in entrants:
        if entrant.peer.product is Product.TREADLE and entrant.interpreter is side:
            yield [
                Step(
                    entrant,
                    Measurement(LANES.scenario, LANES_CONNECTIONS, LANES.name, lanes, True),
                )
                for lanes in (2, 1)
            ]


def _covered(groups: Iterable[list[Step]]) -> set[tuple[str, str, int]]:
    return {_cell(step) for group in groups for step in group if not step.what.both_cores}


def _cell(step: Step) -> tuple[str, str, int]:
    return step.entrant.label, step.what.scenario.name, step.what.connections


def _rest(
    entrants: Sequence[Entrant],
    connections: Sequence[int],
    main: int,
    covered: set[tuple[str, str, int]],
) -> Iterator[list[Step]]:
    for number in (main, *(other for other in connections if other != main)):
        for scenario in AT_FULL_LOAD if number == main else AT_OTHER_LOADS:
            for entrant in entrants:
                step = Step(entrant, Measurement(scenario, number))
                if entrant.peer.serves(scenario) and _cell(step) not in covered:
                    yield [step]
