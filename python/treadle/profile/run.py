"""A profile, step by step, each adding to the same record.

1. The app is started, or the running server found; each request is sent once, to see that it is
   answered as it should.
2. The load is driven, while the statistics are read again and again. Nothing else runs meanwhile.
3. A shorter load is driven while stacks are sampled, so that sampling is in no figure of step 2.
4. The app is stopped, and the async budget measured where nothing disturbs it.

What goes wrong after step 1 leaves the record with what it has by then: `Partial` says why.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec

from treadle.profile import advice, budget, check, lane, machine, stages
from treadle.profile.arguments import Asked
from treadle.profile.load import LoadError, LoadJob, LoadProgress, LoadResult, LoadRun
from treadle.profile.progress import Progress
from treadle.profile.record import Load, Moment, Origin, Profile
from treadle.profile.samplers import sampling
from treadle.profile.target import Facts, Gone, NotStarted, Server, Target
from treadle.profile.words import count
from treadle.telemetry import Stats

__all__ = ["Partial", "profile"]

FLAME = 3.0
"""Seconds of the load under which stacks are sampled, at most."""
READINGS = 40
"""How often the statistics are read in a run, about."""


class Partial(Exception):
    """The record is not complete. The text is one sentence that says why."""


def start(asked: Asked) -> Profile:
    """The record of a profile that has found nothing yet."""
    head, dirty = machine.commit()
    origin = Origin(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        target=asked.name,
        treadle="",
        build_profile="",
        commit=head,
        dirty=dirty,
        machine=machine.describe(),
    )
    return Profile(origin=origin)


def profile(asked: Asked, found: Profile, progress: Progress) -> None:
    """Fills `found`. Raises `Partial`, `NotStarted`, and what `check` and `monitor` raise."""
    foreign = None if asked.bridge is None else budget.foreign(asked.bridge)
    answer = None
    try:
        if asked.attach is not None:
            _attached(asked, found, progress)
        else:
            answer = _started(asked, found, progress)
        if asked.budget:
            _budget(answer, foreign, found, progress)
    except (Gone, LoadError, lane.LaneError) as error:
        raise Partial(str(error)) from None
    finally:
        found.advice = advice.advise(found)


# -- an app that is started ------------------------------------------------------------------------


def _started(asked: Asked, found: Profile, progress: Progress) -> object:
    """Returns what the first request was answered."""
    scenario = asked.scenario
    assert scenario is not None
    progress.say(f"starting {asked.app}")
    options = ["--host", "127.0.0.1", "--port", str(asked.port)]
    options += [] if asked.lanes is None else ["--lanes", str(asked.lanes)]
    assert asked.app is not None
    with Server(asked.app, factory=asked.factory, options=options) as server:
        facts = server.facts()
        _note_origin(found, server.read(), facts)
        address = check.address(server.url)
        answers = check.check(address, scenario.requests, progress)
        interval = max(0.1, min(1.0, asked.duration / READINGS))
        job = scenario.job(address, slice=interval, progress=interval)
        result = _measure(server, job, found, progress)
        if asked.sampler != "none":
            _sample(server, job, asked.sampler, found, progress)
    _judge(result)
    return answers[0]


def _measure(server: Server, job: LoadJob, found: Profile, progress: Progress) -> LoadResult:
    """Drives the load; what was seen is in `found` however it ends."""
    seen = _Seen(server, found)
    with LoadRun(job) as run:
        try:
            for tick in run:
                _show(progress, tick)
                if tick.phase == "measure":
                    seen.look(tick)
            result = run.result()
            seen.end()
        except BaseException:
            run.stop()
            with contextlib.suppress(LoadError):
                found.load = _load(run.result(), job)
            seen.keep()
            raise
    found.load = _load(result, job)
    if result.ending == "server gone":
        server.check()
        raise Gone(f"the server is gone: {result.reason.rstrip('.')}.")
    return result


class _Seen:
    """The readings of one run."""

    def __init__(self, target: Target, found: Profile, *, workers: bool = False) -> None:
        self._target = target
        self._found = found
        self._workers = workers
        self._first = self._last = target.read()
        self._cpu_first = self._cpu_last = self._cpu()
        self._timeline: list[Moment] = []
        self._began = False

    def look(self, tick: LoadProgress | None = None) -> Stats:
        """Reads; the first time the run begins. Raises `Gone`."""
        now, cpu = self._target.read(), self._cpu()
        if not self._began:
            self._began = True
            self._first, self._cpu_first = now, cpu
        else:
            moment = stages.moment(self._last, now, began=self._first.time)
            if tick is not None:
                moment = msgspec.structs.replace(moment, latency_p99=tick.p99)
            self._timeline.append(moment)
        self._last, self._cpu_last = now, cpu
        return now

    def end(self) -> None:
        """The last look. Raises `Gone`."""
        self._last, self._cpu_last = self._target.read(), self._cpu()
        self.keep()

    def keep(self) -> None:
        """Puts what was read into the record."""
        first, last, found = self._first, self._last, self._found
        found.before, found.after = first, last
        found.routes = stages.route_rows(first, last)
        found.lanes = stages.lane_rows(first, last)
        found.timeline = tuple(self._timeline)
        kernel = offload = None
        if self._cpu_first is not None and self._cpu_last is not None:
            kernel = self._cpu_last.system - self._cpu_first.system
            if self._cpu_last.offload is not None:
                offload = self._cpu_last.offload - (self._cpu_first.offload or 0.0)
        found.cpu = stages.cpu_split(first, last, kernel=kernel, offload=offload)

    def _cpu(self) -> machine.CpuTimes | None:
        return machine.cpu_times(self._target.pid, workers=self._workers)


def _sample(server: Server, job: LoadJob, name: str, found: Profile, progress: Progress) -> None:
    duration = min(FLAME, job.duration)
    shorter = msgspec.structs.replace(job, duration=duration, warmup=0.0)
    sampler, refused = sampling(name, server.pid, server)
    if sampler is None:
        found.notes = (*found.notes, f"No flame graph: {' '.join(refused)}")
        return
    try:
        with LoadRun(shorter) as run:
            for tick in run:
                progress.part("sampling stacks, s", tick.elapsed, tick.planned)
    finally:
        found.flame = sampler.stop()
    server.check()


def _show(progress: Progress, tick: LoadProgress) -> None:
    what = "warming up" if tick.phase == "warmup" else "measuring"
    progress.part(f"{what} ({count(tick.rate)} requests/s), s", tick.elapsed, tick.planned)


def _load(result: LoadResult, job: LoadJob) -> Load:
    statuses: dict[str, int] = {}
    for request in result.requests:
        for status, number in request.statuses.items():
            group = f"{status // 100}xx"
            statuses[group] = statuses.get(group, 0) + number
    errors: dict[str, int] = {
        each.kind: each.count for each in result.failures if each.kind != "status"
    }
    for name in ("unsent", "unfinished"):
        if number := getattr(result, name):
            errors[name] = number
    return Load(
        duration=result.seconds,
        requests=result.completed + result.failed + result.unsent + result.unfinished,
        rate=result.rate,
        concurrency=job.connections,
        wanted_rate=job.rate,
        statuses=dict(sorted(statuses.items())),
        errors=errors,
        unexpected=sum(each.count for each in result.failures if each.kind == "status"),
        latency=result.latency,
        routes={
            request.name: part.latency
            for request, part in zip(job.requests, result.requests, strict=False)
        },
    )


def _judge(result: LoadResult) -> None:
    """Raises `Partial` if the server answered wrong, or not at all."""
    if result.failed:
        kinds = ", ".join(
            f"{each.kind} {count(each.count)}: {each.example.rstrip('.')}"
            for each in result.failures
        )
        asked = result.completed + result.failed
        raise Partial(f"{count(result.failed)} of {count(asked)} requests failed ({kinds}).")
    if not result.completed:
        raise Partial("no request was answered.")


# -- a server that runs ----------------------------------------------------------------------------


def _attached(asked: Asked, found: Profile, progress: Progress) -> None:
    from treadle.monitor import client

    assert asked.attach is not None
    progress.say(f"reading {asked.attach}")
    with client.connect(asked.attach) as connection:
        running = _Running(connection, asked.attach)
        _note_origin(found, running.read(), Facts())
        seen = _Seen(running, found, workers=True)
        sampler = None
        if running.pid and asked.sampler != "none":
            sampler, refused = sampling(asked.sampler, running.pid, None)
            if sampler is None:
                found.notes = (*found.notes, f"No flame graph: {' '.join(refused)}")
        try:
            interval = max(0.1, min(1.0, asked.duration / READINGS))
            ends = time.monotonic() + asked.duration
            while (left := ends - time.monotonic()) > 0:
                seen.look()
                progress.part("reading, s", asked.duration - left, asked.duration)
                time.sleep(min(interval, left))
            seen.end()
        except BaseException:
            seen.keep()
            raise
        finally:
            if sampler is not None:
                found.flame = sampler.stop()


class _Running:
    """A server that somebody else started, read over its stats socket."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self._is_here = name.isdecimal() or "://" not in name or _is_local(name)
        self.pid = 0
        """0 where its process is not on this machine."""

    def read(self) -> Stats:
        """Its statistics. Raises `Gone`."""
        from treadle.monitor.client import MonitorError

        try:
            stats: Stats = self._connection.read()
        except MonitorError as error:
            raise Gone(str(error)) from None
        if self._is_here:
            self.pid = stats.pid
        return stats


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")


# -- what both have --------------------------------------------------------------------------------


def _note_origin(found: Profile, stats: Stats, facts: Facts) -> None:
    found.origin = msgspec.structs.replace(
        found.origin,
        treadle=stats.version,
        build_profile=facts.build_profile or "unknown",
        python=stats.python,
        gil=stats.gil,
        gil_culprit=facts.culprit,
        free_threaded_build=stats.free_threaded,
    )


def _budget(
    answer: object, foreign: budget.MakeAwaitable | None, found: Profile, progress: Progress
) -> None:
    with _lane_server() as path:

        def drive(tick: Callable[[], None]) -> budget.LaneTimes:
            return lane.drive(path, rounds=budget.ROUNDS, count=budget.COUNT, tick=tick)

        measured = budget.measure(
            lane=drive,
            answer=answer,
            foreign=foreign,
            tick=lambda done, of: progress.part("async budget, rounds", done, of),
        )
    paid = budget.per_request(measured, found.routes)
    found.budget = msgspec.structs.replace(measured, per_request_us=paid)


@contextlib.contextmanager
def _lane_server() -> Iterator[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TREADLE_")}
    with tempfile.TemporaryDirectory(prefix="treadle-") as folder:
        path = os.path.join(folder, "lane.sock")
        options = ["--uds", path, "--lanes", "1"]
        try:
            server = Server("treadle.profile.lane_app:app", options=options, env=env)
        except NotStarted as error:
            raise Gone(f"the budget's own app does not run: {error}") from None
        with server:
            yield path
