"""The tables of a comparison of loops."""

from profiling.loops.kinds import Kind
from profiling.loops.results import LoopsResult
from profiling.loops.scenarios import FOUR_LOOPS, ONE_LOOP, SCENARIOS, TWO_LOOPS
from profiling.report import table
from profiling.statistics import median, paired_ratio

_NOTHING = "-"
_OVER_ZUVLOOP = 1.0
_SCALING = ((TWO_LOOPS, 1.9), (FOUR_LOOPS, 3.0))


def document(result: LoopsResult) -> str:
    """Everything a result shows, as Markdown."""
    parts = [_origin(result), _times(result), _ratios(result), _scaling(result)]
    parts += [f"Left out: {out.label}: {out.reason}." for out in result.left_out]
    return "\n\n".join(part for part in parts if part) + "\n"


def _origin(result: LoopsResult) -> str:
    at = result.machine
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    lines = [
        f"{result.created[:10]}, commit {result.commit[:12]}{' with changes' if result.dirty else ''}; "
        f"{at.cpu}, {at.cores} cores, Linux {at.kernel}; CPython {result.python}, "
        f"GIL {'on' if result.gil else 'off'}; {versions}.",
        f"{result.rounds} rounds of about {result.seconds:g} s, alternated; medians, and for ratios "
        "medians of the ratios of neighbours.",
    ]
    if result.quick:
        lines.append("QUICK: shows that the harness works, proves nothing.")
    if result.partial:
        lines.append(f"PARTIAL: {result.partial}")
    return "\n".join(lines)


Values = dict[tuple[str, str], list[float]]


def values(result: LoopsResult, what: str) -> Values:
    """`what` (`wall_us` or `cpu_us`) by loop and scenario, in the order of the rounds."""
    found: Values = {}
    for taken in sorted(result.taken, key=lambda taken: taken.round):
        found.setdefault((taken.loop, taken.scenario), []).append(getattr(taken, what))
    return found


def _loops(result: LoopsResult) -> list[str]:
    here = {taken.loop for taken in result.taken}
    return [kind.value for kind in Kind if kind.value in here]


def _times(result: LoopsResult) -> str:
    wall, cpu = values(result, "wall_us"), values(result, "cpu_us")
    loops = _loops(result)
    rows = []
    for scenario in SCENARIOS:
        if any((loop, scenario.name) in wall for loop in loops):
            cells = [
                f"{median(wall[key]):,.3f} ({median(cpu[key]):,.3f})" if key in wall else _NOTHING
                for key in ((loop, scenario.name) for loop in loops)
            ]
            rows.append([scenario.text, *cells])
    return "Microseconds an operation (and of CPU):\n\n" + table(["", *loops], rows, left=1)


def ratio(found: Values, other: str, scenario: str) -> float | None:
    """How many times as fast treadle is as another loop; None where one was not measured."""
    ours, theirs = found.get(("treadle", scenario)), found.get((other, scenario))
    if not ours or not theirs:
        return None
    pairs = min(len(ours), len(theirs))
    return paired_ratio(theirs[:pairs], ours[:pairs])


def _ratios(result: LoopsResult) -> str:
    wall, cpu = values(result, "wall_us"), values(result, "cpu_us")
    others = [loop for loop in _loops(result) if loop != "treadle"]
    rows = []
    for scenario in SCENARIOS:
        target = getattr(scenario, "at_least", None)
        here = [(ratio(wall, o, scenario.name), ratio(cpu, o, scenario.name)) for o in others]
        if all(by_wall is None for by_wall, _ in here):
            continue
        cells = [
            _NOTHING if by_wall is None or by_cpu is None else f"{by_wall:.2f} ({by_cpu:.2f})"
            for by_wall, by_cpu in here
        ]
        rows.append([scenario.text, f">= {target:g}" if target else "", *cells])
    if not rows:
        return ""
    head = ["treadle is so many times as fast as", "uvloop to reach", *others]
    return "By time (and by CPU time):\n\n" + table(head, rows, left=1)


def _scaling(result: LoopsResult) -> str:
    wall = values(result, "wall_us")
    lines = []
    for scenario, target in _SCALING:
        for loop in _loops(result):
            one, many = wall.get((loop, ONE_LOOP.name)), wall.get((loop, scenario.name))
            if one and many:
                pairs = min(len(one), len(many))
                factor = paired_ratio(one[:pairs], many[:pairs])
                lines.append([scenario.text, loop, f">= {target:g}", f"{factor:.2f}"])
    if not lines:
        return ""
    return table(
        ["switches a second, over one loop", "loop", "to reach", "measured"], lines, left=2
    )
