"""What `scale` found: the shape of its files, and the tables and charts made of them."""

import msgspec

from profiling import records
from profiling.interpreters import PYTHONS
from profiling.records import Record
from profiling.report import table
from profiling.results import Verdict
from profiling.scale.curves import CURVES, Curve
from profiling.statistics import deviation, median
from treadle.profile.html import Axis, Line, Lines, Metric, Page, Point, Table

_NEAR_IDEAL = 0.9


class Sample(msgspec.Struct, frozen=True):
    """One point of one curve, in one round."""

    curve: str
    interpreter: str
    value: int
    """What grows, here."""
    round: int
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    bytes_each: float | None
    """What one more of it weighs; None where that was not asked."""
    timeouts: int


class Skipped(msgspec.Struct, frozen=True):
    """A point that cannot be had here."""

    curve: str
    interpreter: str
    value: int
    reason: str


class Scale(Record, kw_only=True):
    """One run of `scale`."""

    seconds: int
    warmup_seconds: int
    rounds: int
    samples: list[Sample] = msgspec.field(default_factory=list)
    skipped: list[Skipped] = msgspec.field(default_factory=list)


class Cell(msgspec.Struct, frozen=True):
    """The medians of one point."""

    value: int
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    bytes_each: float | None
    speed_up: float
    """Over the first point, the median of the rounds'."""
    speed_up_noise: float


def cells(record: Scale, curve: Curve, interpreter: str) -> list[Cell]:
    """The points of a curve, in order."""
    grouped: dict[int, list[Sample]] = {}
    for sample in record.samples:
        if (sample.curve, sample.interpreter) == (curve.name, interpreter):
            grouped.setdefault(sample.value, []).append(sample)
    found = []
    for value, taken in sorted(grouped.items()):
        weights = [s.bytes_each for s in taken if s.bytes_each is not None]
        ups = speed_ups(record, curve, interpreter, value)
        found.append(
            Cell(
                value,
                median([s.rate for s in taken]),
                median([s.cpu_us for s in taken]),
                median([s.p50_us for s in taken]),
                median([s.p99_us for s in taken]),
                median(weights) if weights else None,
                median(ups) if ups else 1.0,
                deviation(ups) if ups else 0.0,
            )
        )
    return found


def speed_ups(record: Scale, curve: Curve, interpreter: str, value: int) -> list[float]:
    """The rate at one point over that at the first, of every round that has both."""
    here = [
        sample
        for sample in record.samples
        if (sample.curve, sample.interpreter) == (curve.name, interpreter)
    ]
    first = min((sample.value for sample in here), default=value)
    base = {sample.round: sample.rate for sample in here if sample.value == first}
    return [s.rate / base[s.round] for s in here if s.value == value and s.round in base]


def judge(record: Scale) -> list[Verdict]:
    """How near to the ideal the last point of each speed-up comes."""
    verdicts = []
    for curve in CURVES:
        for side in _sides(record):
            known = cells(record, curve, side)
            if curve.is_speed_up and len(known) > 1:
                most = known[-1].value
                parts = [up / most for up in speed_ups(record, curve, side, most)]
                measured = median(parts)
                reached = measured >= _NEAR_IDEAL
                verdicts.append(
                    Verdict(f"scale-{curve.name}", side, measured, parts, None, reached)
                )
    return verdicts


def _sides(record: Scale) -> list[str]:
    here = {sample.interpreter for sample in record.samples}
    return [side.value for side in PYTHONS if side.value in here]


def document(record: Scale) -> str:
    """The tables, for the terminal and for Markdown."""
    parts = [records.origin(record), _method(record)]
    for curve in CURVES:
        head, rows = _rows(record, curve)
        if rows:
            parts.append(f"{curve.title}:\n\n{table(head, rows, left=0)}")
    parts.append("\n".join(_skipped(record)))
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(record: Scale, curve: Curve) -> tuple[list[str], list[list[str]]]:
    head = [curve.axis, "Python", "requests/s", "CPU us", "P50 ms", "P99 ms"]
    head += ["speed-up"] if curve.is_speed_up else ["bytes each"] if curve.weighs else []
    rows = []
    for side in _sides(record):
        for cell in cells(record, curve, side):
            row = [f"{cell.value:,}", side, f"{cell.rate:,.0f}", f"{cell.cpu_us:,.2f}"]
            row += [f"{time / 1000:,.2f}" for time in (cell.p50_us, cell.p99_us)]
            if curve.is_speed_up:
                row.append(f"{cell.speed_up:.2f}")
            elif curve.weighs:
                row.append("-" if cell.bytes_each is None else f"{cell.bytes_each:,.0f}")
            rows.append(row)
    return head, rows


def _method(record: Scale) -> str:
    return (
        f"{record.rounds} {'round' if record.rounds == 1 else 'rounds'} of {record.seconds} s after "
        f"{record.warmup_seconds} s, each point on a fresh server; medians. For lanes, server and "
        "load share all cores; with the GIL it is processes that grow. For the rest the server has "
        "one lane on core 0, the load core 1."
    )


def _skipped(record: Scale) -> list[str]:
    return [
        f"Skipped: {s.curve} {s.value:,} on {s.interpreter}: {s.reason}" for s in record.skipped
    ]


_COSTS = [
    Metric("CPU us/request", "us", 2, more_is_better=False),
    Metric("requests/s"),
    Metric("P50", "ms", 2, more_is_better=False),
    Metric("P99", "ms", 2, more_is_better=False),
]


def charts(record: Scale) -> list[Lines]:
    """A chart for every curve that has points."""
    found = []
    for curve in CURVES:
        metrics = list(_COSTS)
        if curve.is_speed_up:
            metrics.insert(0, Metric("speed-up", "", 2))
        elif curve.weighs:
            metrics.append(Metric("memory of each", "bytes", more_is_better=False))
        lines = []
        for side in _sides(record):
            known = cells(record, curve, side)
            points = [
                Point(
                    cell.value,
                    _values(curve, cell),
                    cell.speed_up - cell.speed_up_noise if curve.is_speed_up else None,
                    cell.speed_up + cell.speed_up_noise if curve.is_speed_up else None,
                )
                for cell in known
            ]
            if points:
                lines.append(Line("Treadle", points, side))
        if lines and curve.is_speed_up:
            most = int(max(point.x for line in lines for point in line.points))
            ideal = [Point(n, [float(n), *([None] * len(_COSTS))]) for n in range(1, most + 1)]
            lines.append(Line("ideal", ideal, dashed=True))
        if lines:
            axis = Axis(curve.axis, log=not curve.is_speed_up)
            found.append(Lines(curve.title, axis, metrics, lines))
    return found


def _values(curve: Curve, cell: Cell) -> list[float | None]:
    values: list[float | None] = [cell.cpu_us, cell.rate, cell.p50_us / 1000, cell.p99_us / 1000]
    if curve.is_speed_up:
        return [cell.speed_up, *values]
    return [*values, cell.bytes_each] if curve.weighs else values


def page(record: Scale) -> Page:
    """Everything, to play with."""
    lines = records.origin(record).splitlines()
    trouble = [line for line in lines if line.startswith(("QUICK", "PARTIAL"))]
    left_out = [line for line in lines if line.startswith("Left out")]
    facts = [line for line in lines if line not in [*trouble, *left_out]]
    tables = []
    for curve in CURVES:
        head, rows = _rows(record, curve)
        if rows:
            tables.append(Table(f"Figures: {curve.title}", head, rows, left=0))
    return Page(
        "How Treadle scales",
        [*facts, _method(record)],
        trouble,
        [*charts(record), *tables],
        [*left_out, *_skipped(record)],
    )
