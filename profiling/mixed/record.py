"""What `mixed` found: the shape of its files, and the tables and charts made of them."""

from collections.abc import Iterable

import msgspec

from profiling import records
from profiling.interpreters import PYTHONS
from profiling.records import Record
from profiling.report import table
from profiling.results import Verdict
from profiling.statistics import median
from treadle.profile.html import Axis, BarRow, Bars, Line, Lines, Metric, Page, Point

ROW = "mixed-to-best-other"


class Subject(msgspec.Struct, frozen=True):
    """A strategy on one interpreter."""

    strategy: str
    title: str
    interpreter: str
    python: str
    gil: bool
    counted: str
    ours: bool


class Sample(msgspec.Struct, frozen=True):
    """One run of the load tool on a fresh server."""

    strategy: str
    interpreter: str
    size: int
    """Threads, processes or lanes."""
    round: int
    rate: float
    cpu_us: float
    p50_us: float
    p95_us: float
    p99_us: float
    rss: int
    """Resident bytes of all processes, at the end of the load."""
    pss: int
    """The same, what is shared counted once."""
    processes: int
    timeouts: int


class Mixed(Record, kw_only=True):
    """One run of `mixed`."""

    waits: int
    wait_us: int
    compute_us: float
    """Of `turns`, on the interpreter of the harness."""
    turns: int
    connections: int
    seconds: int
    warmup_seconds: int
    rounds: int
    server_cores: str
    load_cores: str
    subjects: list[Subject] = msgspec.field(default_factory=list)
    samples: list[Sample] = msgspec.field(default_factory=list)


class Cell(msgspec.Struct, frozen=True):
    """The medians of one subject and size."""

    size: int
    rate: float
    cpu_us: float
    p50_us: float
    p99_us: float
    rss: float
    pss: float
    timeouts: int


def cells(record: Mixed, subject: Subject) -> list[Cell]:
    """What one subject did, by size."""
    grouped: dict[int, list[Sample]] = {}
    for sample in record.samples:
        if (sample.strategy, sample.interpreter) == (subject.strategy, subject.interpreter):
            grouped.setdefault(sample.size, []).append(sample)
    return [
        Cell(
            size,
            median([s.rate for s in taken]),
            median([s.cpu_us for s in taken]),
            median([s.p50_us for s in taken]),
            median([s.p99_us for s in taken]),
            median([s.rss for s in taken]),
            median([s.pss for s in taken]),
            sum(s.timeouts for s in taken),
        )
        for size, taken in sorted(grouped.items())
    ]


def judge(record: Mixed) -> list[Verdict]:
    """Treadle's best over the best of the others, a verdict for each interpreter."""
    ours = {subject.strategy for subject in record.subjects if subject.ours}
    verdicts = []
    for side in (side.value for side in PYTHONS):
        ratios = []
        for turn in range(record.rounds):
            here = [s for s in record.samples if s.interpreter == side and s.round == turn]
            best = max((s.rate for s in here if s.strategy in ours), default=None)
            other = max((s.rate for s in here if s.strategy not in ours), default=None)
            if best and other:
                ratios.append(best / other)
        if ratios:
            measured = median(ratios)
            verdicts.append(Verdict(ROW, side, measured, ratios, None, measured >= 1))
    return verdicts


def document(record: Mixed) -> str:
    """The tables, for the terminal and for Markdown."""
    parts = [records.origin(record), _method(record)]
    for side in _sides(record):
        rows = []
        for subject in _of(record, side):
            known = cells(record, subject)
            if known:
                best = max(known, key=lambda cell: cell.rate)
                on = ", GIL on" if subject.gil and side.endswith("t") else ""
                rows.append(
                    [
                        subject.title + on,
                        f"{best.size} {subject.counted}",
                        f"{best.rate:,.0f}",
                        f"{best.p50_us / 1000:.1f} ms",
                        f"{best.p99_us / 1000:.1f} ms",
                        f"{best.cpu_us:,.0f}",
                        f"{best.pss / 2**20:,.0f} MiB",
                        f"{best.rss / 2**20:,.0f} MiB",
                        str(best.timeouts or ""),
                    ]
                )
        if rows:
            head = ["CPython " + side, "best with", "requests/s", "P50", "P99", "CPU us"]
            parts.append(table([*head, "PSS", "RSS", "timeouts"], rows, left=2))
    return "\n\n".join(parts) + "\n"


def _method(record: Mixed) -> str:
    return (
        f"A request is {record.waits} waits of {record.wait_us / 1000:g} ms for another process and "
        f"one piece of {record.compute_us:.0f} us of pure Python (as long as that takes on "
        f"{record.harness_python}).\n{record.connections} connections, {record.rounds} "
        f"{'round' if record.rounds == 1 else 'rounds'} of {record.seconds} s after "
        f"{record.warmup_seconds} s, each on a fresh server; servers on cores "
        f"{record.server_cores}, load and upstream on {record.load_cores}; medians."
    )


def _sides(record: Mixed) -> list[str]:
    return [s.value for s in PYTHONS if any(one.interpreter == s.value for one in record.subjects)]


def _of(record: Mixed, side: str) -> Iterable[Subject]:
    return (subject for subject in record.subjects if subject.interpreter == side)


METRICS = [
    Metric("requests/s"),
    Metric("P99", "ms", 1, more_is_better=False),
    Metric("P50", "ms", 1, more_is_better=False),
    Metric("CPU us/request", "us", more_is_better=False),
    Metric("memory (PSS)", "MiB", more_is_better=False),
    Metric("memory (RSS)", "MiB", more_is_better=False),
]


def _values(cell: Cell) -> list[float | None]:
    times = (cell.p99_us / 1000, cell.p50_us / 1000)
    return [cell.rate, *times, cell.cpu_us, cell.pss / 2**20, cell.rss / 2**20]


def charts(record: Mixed) -> list[Lines]:
    """One chart for each build of CPython."""
    found = []
    for side in _sides(record):
        drawn = [
            Line(subject.title, [Point(cell.size, _values(cell)) for cell in known])
            for subject in _of(record, side)
            if (known := cells(record, subject))
        ]
        if drawn:
            axis = Axis("threads, processes or lanes", log=True)
            found.append(Lines(f"CPython {side}", axis, METRICS, drawn))
    return found


def page(record: Mixed) -> Page:
    """Everything, to play with."""
    rows = []
    for subject in record.subjects:
        known = cells(record, subject)
        if known:
            best = max(known, key=lambda cell: cell.rate)
            under = f"{subject.interpreter}, {best.size} {subject.counted}"
            rows.append(
                BarRow(
                    subject.title,
                    subject.interpreter,
                    under,
                    ours=subject.ours,
                    values={"best": _values(best)},
                )
            )
    lines = records.origin(record).splitlines()
    trouble = [line for line in lines if line.startswith(("QUICK", "PARTIAL"))]
    left_out = [line for line in lines if line.startswith("Left out")]
    # The high ones are what is looked for here: their bars tell them apart.
    best = Bars("The best of every strategy", METRICS, ["best"], rows, whole=True)
    return Page(
        "Mostly waiting, some work",
        [line for line in lines if line not in [*trouble, *left_out]] + [_method(record)],
        trouble,
        [*([best] if rows else []), *charts(record)],
        left_out,
    )
