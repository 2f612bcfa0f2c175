"""Tables of a result: for the terminal and, being Markdown, for the README."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from profiling import scenarios
from profiling.console import DISTURBED
from profiling.interpreters import PYTHONS, Interpreter
from profiling.peers import Product
from profiling.ratios import LANES, MEMORY, ROWS, STARTUP, Ceiling, Pair, Row, Scaling
from profiling.results import Result, Sample, ServerFacts, Verdict
from profiling.scenarios import SCENARIOS
from profiling.schedule import main_connections
from profiling.statistics import median, spread

_NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Cell:
    """The medians of one server, scenario and load."""

    server: str
    scenario: str
    connections: int
    rate: float
    rate_spread: float
    cpu_us: float
    p50_us: float | None
    p95_us: float | None
    p99_us: float | None
    timeouts: int


Cells = dict[tuple[str, str, int], Cell]


def cells(samples: Iterable[Sample]) -> Cells:
    """Join the samples of each cell; those of servers that had both cores are not comparable."""
    grouped: dict[tuple[str, str, int], list[Sample]] = {}
    for sample in samples:
        if sample.row != LANES.name:
            key = (sample.server, sample.scenario, sample.connections)
            grouped.setdefault(key, []).append(sample)
    return {key: _joined(*key, taken) for key, taken in grouped.items()}


def _joined(server: str, scenario: str, connections: int, taken: Sequence[Sample]) -> Cell:
    rates = [sample.rate for sample in taken]
    return Cell(
        server=server,
        scenario=scenario,
        connections=connections,
        rate=median(rates),
        rate_spread=spread(rates),
        cpu_us=median([sample.cpu_us for sample in taken]),
        p50_us=_median_of_known(sample.p50_us for sample in taken),
        p95_us=_median_of_known(sample.p95_us for sample in taken),
        p99_us=_median_of_known(sample.p99_us for sample in taken),
        timeouts=sum(sample.timeouts for sample in taken),
    )


def _median_of_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None


def document(result: Result) -> str:
    """Everything the README shows of a result: what it was taken on, and the tables."""
    parts = [origin(result), ratio_table(result), overview(result), latencies(result)]
    parts += [sides(result), quantities(result), left_out(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def full(result: Result) -> str:
    """Everything a result holds, for the terminal."""
    parts = [origin(result), absolutes(result), sides(result)]
    parts += [quantities(result), left_out(result)]
    return "\n\n".join([part for part in parts if part] + [ratio_table(result)]) + "\n"


def origin(result: Result) -> str:
    """When, where and of what a result was taken, and what is wrong with it."""
    at, how = result.machine, result.method
    builds = [
        f"{server.title} ({server.build_profile} build) on CPython {server.python}, "
        f"GIL {'on' if server.gil else 'off'}"
        for server in result.servers
        if server.product == Product.TREADLE.value
    ]
    dirty = " with changes" if result.dirty else ""
    lines = [
        f"{result.created[:10]}, commit {result.commit[:12]}{dirty}; "
        f"{at.cpu}, {at.cores} cores, Linux {at.kernel}.",
        f"{'; '.join(builds) or 'treadle did not take part'}.",
        f"Server on core {how.server_cores}, {how.load_tool} on core {how.load_cores}, "
        f"{_counted(how.rounds, 'round')} of {how.seconds} s after {how.warmup_seconds} s of "
        "warm-up, alternated; medians, and for ratios medians of the ratios of neighbours"
        + (f" of {how.slice_seconds} s." if how.slice_seconds else "."),
    ]
    taken = [sample.disturbed for sample in result.samples]
    doubtful = sum(part > DISTURBED for part in taken)
    if doubtful:
        lines.append(
            f"In {doubtful} of {len(taken)} measurements others took more than {DISTURBED:.0%} "
            f"of the server's core ({median(taken):.0%} in the median)."
        )
    if result.quick:
        lines.append("QUICK: shows that the harness works, proves nothing.")
    if result.partial:
        lines.append(f"PARTIAL: {result.partial}")
    return "\n".join(lines)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def overview(result: Result) -> str:
    """Requests a second and CPU time a request of every server, at the main load."""
    main = main_connections(result.method.connections)
    known = cells(result.samples)
    columns = (scenarios.SYNC, scenarios.ASYNC, scenarios.SLEEP0)
    head = ["server", "Python", *(scenario.name for scenario in columns), "/sleep, P50"]
    rows: list[list[str]] = []
    for server in result.servers:
        here = [known.get((server.label, scenario.name, main)) for scenario in columns]
        sleep = known.get((server.label, scenarios.SLEEP.name, main))
        if any(here):
            rates = [f"{c.rate:,.0f} ({c.cpu_us:.1f})" if c else _NOTHING for c in here]
            slept = _milliseconds(sleep.p50_us if sleep else None)
            rows.append([server.title, python_of(server), *rates, slept])
    if not rows:
        return ""
    return (
        f"Requests/s (and CPU us/request), {main} connections:\n\n"
        + table(head, rows, left=2)
        + _remarks(result)
    )


def python_of(server: ServerFacts) -> str:
    """The interpreter of a server, as tables name it."""
    if server.interpreter == Interpreter.NATIVE.value:
        return _NOTHING
    switched = server.gil and server.interpreter == Interpreter.FREE_THREADED.value
    return f"{server.interpreter}, GIL on" if switched else server.interpreter


def _remarks(result: Result) -> str:
    told = {server.title: server.remark for server in result.servers if server.remark}
    return "".join(f"\n\n{title}: {remark}." for title, remark in told.items())


def latencies(result: Result) -> str:
    """Requests a second and latencies of `/async` at every load."""
    known = cells(result.samples)
    head = ["/async", "Python"]
    loads = sorted(result.method.connections)
    head += [f"{load} connections" for load in loads]
    rows = []
    for server in result.servers:
        here = [known.get((server.label, scenarios.ASYNC.name, load)) for load in loads]
        if any(here):
            rows.append([server.title, python_of(server), *(_rate_and_latency(c) for c in here)])
    if not rows:
        return ""
    return "Requests/s and P50 / P95 / P99 in ms:\n\n" + table(head, rows, left=2)


def _rate_and_latency(cell: Cell | None) -> str:
    if cell is None:
        return _NOTHING
    parts = (cell.p50_us, cell.p95_us, cell.p99_us)
    return f"{cell.rate:,.0f} · " + " / ".join(_bare_milliseconds(part) for part in parts)


def absolutes(result: Result) -> str:
    """Every cell that was measured, the fastest server first."""
    head, rows = absolute_rows(result)
    return table(head, rows, left=2) if rows else ""


def absolute_rows(result: Result) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of every cell."""
    known = cells(result.samples)
    order = [scenario.name for scenario in SCENARIOS]
    listed = sorted(
        known.values(), key=lambda c: (-c.connections, order.index(c.scenario), -c.rate)
    )
    head = ["scenario", "server", "conn.", "requests/s", "spread", "CPU us", "P50", "P95", "P99"]
    rows = [
        [
            cell.scenario,
            cell.server + (f" ({cell.timeouts} timeouts)" if cell.timeouts else ""),
            str(cell.connections),
            f"{cell.rate:,.0f}",
            f"{cell.rate_spread:.0%}",
            f"{cell.cpu_us:.2f}",
            *(_milliseconds(value) for value in (cell.p50_us, cell.p95_us, cell.p99_us)),
        ]
        for cell in listed
    ]
    return head, rows


def sides(result: Result) -> str:
    """Every product on both builds, side by side: requests a second, and how they compare."""
    head, rows = side_rows(result)
    return "Free-threaded beside the GIL, requests/s:\n\n" + table(head, rows, 2) if rows else ""


def side_rows(result: Result) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of both builds; no rows unless a product ran on both."""
    main = main_connections(result.method.connections)
    known = cells(result.samples)
    labels: dict[str, dict[str, ServerFacts]] = {}
    for server in result.servers:
        labels.setdefault(server.product, {})[server.interpreter] = server
    rows = []
    for product in labels.values():
        both = [product.get(side.value) for side in PYTHONS]
        for scenario in SCENARIOS:
            found = [s and known.get((s.label, scenario.name, main)) for s in both]
            first, second = found
            if both[0] and first and second:
                rows.append(
                    [
                        both[0].title,
                        scenario.name,
                        *(f"{cell.rate:,.0f}" for cell in (first, second)),
                        f"{first.rate / second.rate:.2f}",
                        *(f"{cell.cpu_us:.1f}" for cell in (first, second)),
                    ]
                )
    names = [side.value for side in PYTHONS]
    ratio = f"{names[0]} / {names[1]}"
    return ["server", "scenario", *names, ratio, *(f"{name}, CPU us" for name in names)], rows


def quantities(result: Result) -> str:
    """Memory of an idle connection and time to the first answer, where they were measured."""
    weights = {weight.server: weight for weight in result.weights}
    starts = {start.server: start for start in result.starts}
    rows = [
        [
            server.title,
            python_of(server),
            f"{weights[server.label].bytes / 1024:.1f} KiB" if server.label in weights else "-",
            f"{starts[server.label].milliseconds:.0f} ms" if server.label in starts else "-",
        ]
        for server in result.servers
        if server.label in weights or server.label in starts
    ]
    if not rows:
        return ""
    return table(["server", "Python", "idle connection", "start to first answer"], rows, left=2)


def left_out(result: Result) -> str:
    """Who could not take part, and why."""
    return "\n".join(f"Left out: {out.label}: {out.reason}." for out in result.left_out)


def ratio_table(result: Result) -> str:
    """Every row of the ratio table that was measured: what it must reach, and what it did."""
    head, rows = ratio_rows(result)
    return table(head, rows, left=1) if rows else ""


def ratio_rows(result: Result) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the ratio table; older results are judged by what is to be reached now."""
    known = {(verdict.row, verdict.interpreter): verdict for verdict in result.verdicts}
    sides = [side for side in PYTHONS if any(side.value == key[1] for key in known)]
    head = ["ratio", "to reach"]
    for side in sides:
        head += [side.value, "by CPU", ""]
    rows: list[list[str]] = []
    for row in ROWS:
        here = [known.get((row.name, side.value)) for side in sides]
        if any(here):
            verdicts = [part for verdict in here for part in _verdict(row, verdict)]
            rows.append([row.text, _target(row), *verdicts])
    return head, rows


def _target(row: Row) -> str:
    match row:
        case Pair() | Scaling():
            return f">= {row.at_least:g}"
        case Ceiling():
            return f"<= {row.at_most:g} {row.quantity.value}"


def _verdict(row: Row, verdict: Verdict | None) -> list[str]:
    if verdict is None:
        return [_NOTHING, _NOTHING, ""]
    measured = f"{verdict.measured:.3f}" if verdict.measured < 2 else f"{verdict.measured:.2f}"
    if row in (MEMORY, STARTUP):
        measured = f"{verdict.measured:.1f}"
    by_cpu = _NOTHING if verdict.by_cpu is None else f"{verdict.by_cpu:.2f}"
    return [measured, by_cpu, "pass" if row.reached(verdict.measured) else "miss"]


def _milliseconds(microseconds: float | None) -> str:
    return _NOTHING if microseconds is None else f"{_bare_milliseconds(microseconds)} ms"


def _bare_milliseconds(microseconds: float | None) -> str:
    return _NOTHING if microseconds is None else f"{microseconds / 1000:.2f}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table, padded so that it reads well unrendered; `left` columns lean left."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    widths = [max(width, 3) for width in widths]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * w if column < left else "-" * (w - 1) + ":" for column, w in enumerate(widths)]
    return "\n".join([line(head), f"| {' | '.join(rule)} |", *map(line, rows)])
