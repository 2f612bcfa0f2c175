"""The report as text, for a terminal of any width: plain characters, no colours, no library.

Tables give up columns from the right until they fit; what was left out is in the JSON file.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from treadle.profile import flame
from treadle.profile.budget import SYNC, TREADLE
from treadle.profile.record import Budget, CpuSplit, Flame, Load, Origin, Profile, RouteRow
from treadle.profile.words import bytes_, count, nanoseconds, seconds, share

__all__ = ["render", "table"]

_NARROWEST = 40
_BAR = 16


def render(profile: Profile, *, width: int = 80) -> str:
    """The whole report, lines of at most `width` characters, with a newline at the end."""
    width = max(_NARROWEST, width)
    lines: list[str] = []
    for part in _parts(profile, width):
        lines += part
        lines.append("")
    return "\n".join(lines)


def _parts(profile: Profile, width: int) -> Iterator[list[str]]:
    yield _origin(profile.origin, width)
    if profile.partial:
        yield _wrapped(f"PARTIAL: {profile.partial}", width)
    if profile.load is not None:
        yield _load(profile.load, profile.cpu, width)
    for route in profile.routes:
        yield _route(route, width)
    if profile.cpu is not None:
        yield _cpu(profile.cpu, width)
    if len(profile.lanes) > 0:
        yield _lanes(profile, width)
    if profile.budget is not None:
        yield _budget(profile.budget, profile.cpu, width)
    if profile.flame is not None:
        yield _flame(profile.flame, width)
    if profile.load is not None or profile.advice:
        yield _advice(profile, width)
    if profile.notes:
        yield [line for note in profile.notes for line in _wrapped(note, width)]


def _origin(origin: Origin, width: int) -> list[str]:
    machine = origin.machine
    parts = [
        f"treadle {origin.treadle} profile of {origin.target}",
        f"{origin.python} {'GIL on' if origin.gil else 'free-threaded'}",
        f"{origin.build_profile} build",
        f"{machine.cpu}, {machine.cores} cores",
    ]
    if origin.commit:
        parts.append(f"commit {origin.commit[:10]}" + (" with changes" if origin.dirty else ""))
    return _wrapped(" · ".join(part for part in parts if part), width)


def _load(load: Load, cpu: CpuSplit | None, width: int) -> list[str]:
    asked = (
        f"asked for {count(load.wanted_rate)}/s"
        if load.wanted_rate
        else f"{load.concurrency} at once"
    )
    latency = load.latency
    head = f"{count(load.rate)} requests/s for {load.duration:.1f} s ({asked})"
    if cpu is not None:
        head += f" · {seconds(cpu.total_us / 1e6)} of CPU each"
    lines = _wrapped(head, width)
    if latency.count:
        at = "  ".join(
            f"{name} {seconds(latency.quantile(q))}"
            for name, q in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999))
        )
        lines += _wrapped(f"latency  {at}  max {seconds(latency.max)}", width)
    others = {name: n for name, n in load.statuses.items() if not name.startswith("2")}
    if others or load.errors:
        told = ", ".join(f"{name} {count(n)}" for name, n in {**others, **load.errors}.items())
        lines += _wrapped(f"other than 2xx: {told}", width)
    return lines


def _route(route: RouteRow, width: int) -> list[str]:
    head = f"{route.name}  ({route.mode}, {count(route.requests)} requests, "
    lines = _wrapped(f"{head}{seconds(route.mean)} each)", width)
    rows = [
        [
            stage.name,
            share(stage.share),
            *(seconds(value) for value in (stage.p50, stage.p90, stage.p99, stage.max)),
            "" if stage is route.whole else "#" * round(stage.share * _BAR),
        ]
        for stage in (*route.stages, route.whole)
        if stage.count
    ]
    return lines + table(["stage", "share", "p50", "p90", "p99", "max", ""], rows, width)


def _cpu(cpu: CpuSplit, width: int) -> list[str]:
    parts = (("kernel", cpu.kernel_us), ("native", cpu.native_us), ("Python", cpu.python_us))
    rows = [
        [
            name,
            seconds(us / 1e6),
            share(us / cpu.total_us),
            "#" * round(us / cpu.total_us * _BAR),
        ]
        for name, us in parts
    ]
    head = ["CPU of a request", seconds(cpu.total_us / 1e6), "share", ""]
    return table(head, rows, width) + _wrapped(cpu.exactness, width)


def _lanes(profile: Profile, width: int) -> list[str]:
    rows = [
        [
            str(lane.index),
            count(lane.requests),
            share(lane.running),
            share(lane.polling),
            share(lane.parked),
            share(lane.attach_wait),
            seconds(lane.lag_p99),
            seconds(lane.lag_max),
        ]
        for lane in profile.lanes
    ]
    head = ["lane", "requests", "running", "polling", "asleep", "attach", "lag p99", "lag max"]
    lines = table(head, rows, width)
    if profile.timeline:
        lines.append(f"memory {bytes_(profile.timeline[-1].rss)}")
    return lines


def _budget(budget: Budget, cpu: CpuSplit | None, width: int) -> list[str]:
    short = {SYNC: "sync", TREADLE: "treadle"}
    head = ["async budget", "claimed", *(short.get(name, name) for name in budget.columns)]
    rows = []
    for line in budget.lines:
        claimed = "-" if line.claimed_us is None else f"{line.claimed_us:.0f} us"
        cells = [line.figures.get(name) for name in budget.columns]
        rows.append([line.name, claimed, *(nanoseconds(c.ns if c else None) for c in cells)])
    # What counts stays where columns have to go: claimed, sync, treadle.
    lines = table(head, rows, width)
    for name, why in budget.absent.items():
        lines += _wrapped(f"{name}: {why}.", width)
    for note in budget.notes:
        lines += _wrapped(note, width)
    if budget.per_request_us is not None:
        told = f"These requests paid {seconds(budget.per_request_us / 1e6)} for being async"
        if cpu is not None and cpu.total_us:
            told += f", {share(budget.per_request_us / cpu.total_us)} of their CPU time"
        lines += _wrapped(f"{told}.", width)
    return lines


def _flame(sampled: Flame, width: int) -> list[str]:
    lines = _wrapped(
        f"{count(sampled.samples)} Python stacks seen by {sampled.sampler}, {flame.looks(sampled)}; "
        "the functions they ended in:",
        width,
    )
    rows = [[share(part), name] for name, part in flame.hottest(sampled.root, 6)]
    lines += [f"{part:>7}  {name}"[:width] for part, name in rows] or ["  no Python was seen"]
    return lines


def _advice(profile: Profile, width: int) -> list[str]:
    if not profile.advice:
        return ["Nothing to advise."]
    lines = []
    for at, advice in enumerate(profile.advice, 1):
        lines += _wrapped(f"{at}. {advice.title}", width, "   ")
        lines += _wrapped(f"   {advice.action}", width, "   ")
    return lines


# -- layout ----------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """A table without borders: the first column leans left, as does one without a heading."""
    columns = len(head)
    widths = [max(len(row[at]) for row in (head, *rows)) for at in range(columns)]
    while columns > 2 and sum(widths[:columns]) + 2 * (columns - 1) > width:
        columns -= 1
    # The first column is cut where even two do not fit.
    widths[0] = min(widths[0], max(8, width - sum(widths[1:columns]) - 2 * (columns - 1)))
    lines = []
    for row in (head, *rows):
        cells = [
            row[at][: widths[at]].ljust(widths[at])
            if at == 0 or not head[at]
            else row[at].rjust(widths[at])
            for at in range(columns)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def _wrapped(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent=indent) or [""]
