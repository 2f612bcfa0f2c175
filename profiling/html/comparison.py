"""A comparison as a page."""

from collections.abc import Iterable

from profiling import report, scenarios
from profiling.console import DISTURBED
from profiling.interpreters import Interpreter
from profiling.peers import Product
from profiling.report import Cell
from profiling.results import Result, ServerFacts
from profiling.scenarios import SCENARIOS
from profiling.schedule import main_connections
from treadle.profile.html import Axis, BarRow, Bars, Line, Lines, Metric, Page, Point, Table

_RATE = Metric("requests/s")
_CPU = Metric("CPU us/request", "us", 1, more_is_better=False)
_LATENCIES = tuple(Metric(name, "ms", 2, more_is_better=False) for name in ("P50", "P95", "P99"))
_METRICS = [_RATE, _CPU, *_LATENCIES]
_SHOWN = (scenarios.SYNC, scenarios.ASYNC, scenarios.SLEEP0)


def page(result: Result, trend: Iterable[Lines | Table] = ()) -> Page:
    """Everything a result holds, and what became of its ratios over time."""
    sections = [
        _ratios(result),
        _overview(result),
        _sides(result),
        *_loads(result),
        *_quantities(result),
        *trend,
        _everything(result),
    ]
    return Page(
        title="Treadle beside other servers",
        facts=_facts(result),
        warnings=_warnings(result),
        sections=[section for section in sections if section is not None],
        notes=[
            *(f"Left out: {out.label}: {out.reason.rstrip('.')}." for out in result.left_out),
            *dict.fromkeys(f"{s.title}: {s.remark}." for s in result.servers if s.remark),
            "Ratios are medians of the ratios of neighbouring measurements; by CPU is the same "
            "ratio of CPU time a request, the steadier of the two.",
        ],
    )


def _facts(result: Result) -> list[str]:
    lines = report.origin(result).splitlines()
    return [line for line in lines if line not in _warnings(result)]


def _warnings(result: Result) -> list[str]:
    warnings = []
    if result.quick:
        warnings.append("QUICK: shows that the harness works, proves nothing.")
    if result.partial:
        warnings.append(f"PARTIAL: {result.partial}")
    warnings += [line for line in report.origin(result).splitlines() if "others took more" in line]
    return warnings


def _ratios(result: Result) -> Table | None:
    head, rows = report.ratio_rows(result)
    if not rows:
        return None
    # Three columns a side there; here what counts comes first, where a phone shows it.
    sides = (len(head) - 2) // 3
    words = [word for row in rows for word in row[4::3] if word]
    head = [*head[:2], *head[2::3], *(f"{name}, by CPU" for name in head[2::3])]
    rows = [
        [
            row[0].replace("`", ""),
            row[1],
            *(f"{row[2 + 3 * at]} {row[4 + 3 * at]}".strip() for at in range(sides)),
            *row[3::3],
        ]
        for row in rows
    ]
    note = f"{words.count('pass')} of {len(words)} reached. Tap a column to sort by it."
    return Table("What was to be reached", head, rows, note)


def _overview(result: Result) -> Bars | None:
    main = main_connections(result.method.connections)
    known = report.cells(result.samples)
    rows = []
    for server in _by_product(result.servers):
        cells = {s.name: known.get((server.label, s.name, main)) for s in SCENARIOS}
        values = {name: _values(cell) for name, cell in cells.items() if cell is not None}
        if values:
            rows.append(_row(server, values))
    series = [s.name for s in SCENARIOS if any(s.name in row.values for row in rows)]
    if not rows:
        return None
    return Bars(
        "Every server, GIL and free-threaded",
        _METRICS,
        series,
        rows,
        f"{main} connections, one server core; medians. A cut bar goes on to its number.",
        hidden=[name for name in series if name not in {s.name for s in _SHOWN}],
    )


def _values(cell: Cell) -> list[float | None]:
    times = (cell.p50_us, cell.p95_us, cell.p99_us)
    return [cell.rate, cell.cpu_us, *(None if t is None else t / 1000 for t in times)]


def _by_product(servers: list[ServerFacts]) -> list[ServerFacts]:
    """In the order of tables, the interpreters of one product beside each other."""
    order = list(dict.fromkeys(server.product for server in servers))
    return sorted(servers, key=lambda server: order.index(server.product))


def _row(server: ServerFacts, values: dict[str, list[float | None]]) -> BarRow:
    ours = server.product == Product.TREADLE.value
    native = server.interpreter == Interpreter.NATIVE.value
    side = "" if native else server.interpreter
    under = "no Python" if native else report.python_of(server)
    return BarRow(server.title, side, under, server.remark, ours, values)


def _sides(result: Result) -> Table | None:
    head, rows = report.side_rows(result)
    if not rows:
        return None
    note = "Requests/s of the same product on both builds; above 1 free-threading is the faster."
    return Table("Free-threaded beside the GIL", head, rows, note, left=2)


def _loads(result: Result) -> Iterable[Lines]:
    known = report.cells(result.samples)
    loads = sorted(result.method.connections)
    if len(loads) < 2:
        return
    for scenario in (scenarios.ASYNC, scenarios.SYNC, scenarios.SLEEP0):
        lines = []
        for server in _by_product(result.servers):
            cells = {load: known.get((server.label, scenario.name, load)) for load in loads}
            points = [Point(load, _values(cell)) for load, cell in cells.items() if cell]
            if points:
                native = server.interpreter == Interpreter.NATIVE.value
                side = "" if native else server.interpreter
                lines.append(Line(server.title, points, side))
        if lines:
            axis = Axis("connections", log=True)
            yield Lines(f"{scenario.name} as connections grow", axis, _METRICS, lines)


def _quantities(result: Result) -> Iterable[Bars]:
    weights = {weight.server: weight.bytes / 1024 for weight in result.weights}
    starts = {start.server: start.milliseconds for start in result.starts}
    kib = Metric("memory", "KiB", 1, more_is_better=False)
    ms = Metric("time", "ms", more_is_better=False)
    for title, known, metric in (
        ("One idle keep-alive connection", weights, kib),
        ("Start to first answer", starts, ms),
    ):
        servers = [server for server in _by_product(result.servers) if server.label in known]
        rows = [_row(server, {metric.name: [known[server.label]]}) for server in servers]
        if rows:
            yield Bars(title, [metric], [metric.name], rows)


def _everything(result: Result) -> Table | None:
    head, rows = report.absolute_rows(result)
    doubtful = sum(sample.disturbed > DISTURBED for sample in result.samples)
    note = f"{len(result.samples)} measurements, {doubtful} of them disturbed; medians."
    return Table("Every figure", head, rows, note, left=2) if rows else None
