"""The report as one HTML file: charts to play with, no network."""

from __future__ import annotations

from collections.abc import Iterable

from treadle.profile import flame, html, report_lines
from treadle.profile.budget import TREADLE
from treadle.profile.html import (
    BarRow,
    Bars,
    Box,
    Flames,
    Item,
    Items,
    Metric,
    Page,
    Table,
    Tile,
    Tiles,
)
from treadle.profile.record import Budget, Flame, Frame, Profile, RouteRow
from treadle.profile.words import bytes_, count, nanoseconds, seconds, share
from treadle.telemetry import STAGES

__all__ = ["page", "render"]

_LEAST = 0.001
"""Frames with less than this share of the samples are left out of the page."""


def render(profile: Profile) -> bytes:
    """The document, in UTF-8."""
    return html.render(page(profile)).encode()


def page(profile: Profile) -> Page:
    """What the document shows."""
    origin = profile.origin
    machine = origin.machine
    gil = "GIL on" if origin.gil else "free-threaded"
    commit = f"commit {origin.commit[:10]}" + (" with changes" if origin.dirty else "")
    facts = (
        f"{origin.created} · treadle {origin.treadle} ({origin.build_profile} build)",
        f"{origin.python} {gil}" + (f" · {commit}" if origin.commit else ""),
        f"{machine.cpu} · {machine.cores} cores · {machine.memory_gib:g} GiB · {machine.kernel}",
    )
    sections = [
        _figures(profile),
        _advice(profile),
        *_stages(profile.routes),
        report_lines.latency(profile),
        report_lines.over_time(profile.timeline),
        *_flame(profile.flame),
        *_budget(profile.budget),
        _cpu(profile),
        _lanes(profile),
    ]
    return Page(
        title=f"Profile of {origin.target}",
        facts=list(facts),
        warnings=[f"PARTIAL: {profile.partial}"] if profile.partial else [],
        sections=[section for section in sections if section is not None],
        notes=[*profile.notes, *_remarks(profile)],
        without_script="The same figures are in the JSON file (--json) and on the terminal.",
    )


def _remarks(profile: Profile) -> Iterable[str]:
    if profile.cpu is not None:
        yield f"CPU split: {profile.cpu.exactness}"
    if profile.budget is not None:
        for line in profile.budget.lines:
            yield f"{line.name}: {line.what}."


def _figures(profile: Profile) -> Tiles | None:
    load = profile.load
    if load is None:
        return None
    asked = (
        f"of {count(load.wanted_rate)} asked for"
        if load.wanted_rate
        else f"{load.concurrency} at once"
    )
    tiles = [
        Tile("requests/s", count(load.rate), asked),
        Tile(
            "median latency", seconds(load.latency.quantile(0.5)), f"{count(load.requests)} asked"
        ),
        Tile(
            "p99 latency",
            seconds(load.latency.quantile(0.99)),
            f"at most {seconds(load.latency.max)}",
        ),
    ]
    if profile.cpu is not None:
        python = share(profile.cpu.python_us / profile.cpu.total_us)
        tiles.append(
            Tile("CPU a request", seconds(profile.cpu.total_us / 1e6), f"{python} of it Python")
        )
    if profile.budget is not None and profile.budget.per_request_us is not None:
        paid = seconds(profile.budget.per_request_us / 1e6)
        tiles.append(Tile("paid for async", paid, "a request"))
    if profile.timeline:
        tiles.append(Tile("memory", bytes_(max(m.rss for m in profile.timeline)), "at most"))
    failed = sum(load.errors.values()) + load.statuses.get("5xx", 0)
    tiles.append(Tile("failed", count(failed), f"{share(failed / max(1, load.requests))} of all"))
    return Tiles("At a glance", tiles)


def _advice(profile: Profile) -> Items | None:
    items = [Item(each.title, each.action, each.severity) for each in profile.advice]
    return Items("What to do about it", items) if items else None


# -- stages ----------------------------------------------------------------------------------------


def _stages(routes: tuple[RouteRow, ...]) -> Iterable[Bars | Table]:
    if not routes:
        return
    quantities = ("mean", "p50", "p90", "p99", "max")
    digits = 3 if min(route.mean for route in routes) < 0.01 else 1
    metrics = [Metric(name, "ms", digits, more_is_better=False) for name in quantities]
    rows = [
        BarRow(
            route.name,
            under=f"{route.mode or 'no handler'} · {count(route.requests)} requests",
            values={
                # Not every request has every stage: the mean of the bar is a request's.
                stage.name: [
                    stage.mean * min(1.0, stage.count / max(1, route.requests)) * 1e3,
                    *(value * 1e3 for value in (stage.p50, stage.p90, stage.p99, stage.max)),
                ]
                for stage in route.stages
                if stage.count
            },
        )
        for route in routes
    ]
    yield Bars(
        "Where a request's time goes",
        metrics,
        list(STAGES),
        rows,
        "By stage. The mean adds up to a request; the others are each stage's own and do not.",
        stacked=True,
    )
    yield Table(
        "Stages",
        ["route", "stage", "share", "mean", "p50", "p90", "p99", "max", "count"],
        [
            [
                route.name,
                stage.name,
                share(stage.share),
                *(seconds(v) for v in (stage.mean, stage.p50, stage.p90, stage.p99, stage.max)),
                count(stage.count),
            ]
            for route in routes
            for stage in (*route.stages, route.whole)
            if stage.count
        ],
        left=2,
        grouped=True,
    )


# -- flame graph -----------------------------------------------------------------------------------


def _flame(sampled: Flame | None) -> Iterable[Flames]:
    if sampled is None:
        return
    note = f"{count(sampled.samples)} Python stacks seen by {sampled.sampler}, {flame.looks(sampled)}. "
    note = f"{note}{sampled.remark}".rstrip()
    least = sampled.root.count * _LEAST
    yield Flames("Flame graph", _box(sampled.root, least), note)


def _box(frame: Frame, least: float) -> Box:
    children = [_box(child, least) for child in frame.children if child.count >= least]
    return Box(frame.name, frame.file, frame.count, children)


# -- the rest --------------------------------------------------------------------------------------


def _budget(budget: Budget | None) -> Iterable[Bars | Table]:
    if budget is None:
        return
    rows = []
    for line in budget.lines:
        figure = line.figures.get(TREADLE)
        measured = figure.ns / 1e3 if figure else None
        rows.append(
            BarRow(line.name, values={"claimed": [line.claimed_us], "measured": [measured]})
        )
    yield Bars(
        "The async budget: claimed and measured",
        [Metric("microseconds", "us", 3, more_is_better=False)],
        ["claimed", "measured"],
        rows,
        "Claimed by a widely read estimate of what an async request costs; measured on treadle, "
        "here.",
        whole=True,
    )
    absent = "".join(f" {name}: {why}." for name, why in budget.absent.items())
    yield Table(
        "The async budget, beside others",
        ["", "claimed", *budget.columns],
        [
            [
                line.name,
                "-" if line.claimed_us is None else f"{line.claimed_us:.0f} us",
                *(_figure(line.figures.get(name)) for name in budget.columns),
            ]
            for line in budget.lines
        ],
        ("Medians of alternating rounds." + absent + " ".join(("", *budget.notes))).strip(),
    )


def _figure(figure: object) -> str:
    return nanoseconds(getattr(figure, "ns", None))


def _cpu(profile: Profile) -> Bars | None:
    cpu = profile.cpu
    if cpu is None:
        return None
    values = {"kernel": [cpu.kernel_us], "native": [cpu.native_us], "Python": [cpu.python_us]}
    return Bars(
        "CPU time of a request",
        [Metric("CPU", "us", 2, more_is_better=False)],
        list(values),
        [BarRow("a request", values={name: [*us] for name, us in values.items()})],
        "Kernel: sockets. Native: HTTP, routing, the loop. Python: handlers and JSON.",
        stacked=True,
    )


def _lanes(profile: Profile) -> Table | None:
    if not profile.lanes:
        return None
    head = ["lane", "requests", "running", "polling", "asleep", "waits for the interpreter"]
    return Table(
        "Lanes",
        [*head, "lag p99", "lag max", "tasks", "suspended"],
        [
            [
                str(lane.index),
                count(lane.requests),
                *(share(p) for p in (lane.running, lane.polling, lane.parked, lane.attach_wait)),
                seconds(lane.lag_p99),
                seconds(lane.lag_max),
                count(lane.tasks_started),
                count(lane.tasks_suspended),
            ]
            for lane in profile.lanes
        ],
    )
