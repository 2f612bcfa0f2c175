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
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import msgspec

from treadle.profile import advice, attached, budget, check, lane, machine
from treadle.profile.arguments import Asked
from treadle.profile.load import LoadError, LoadJob, LoadProgress, LoadResult, LoadRun
from treadle.profile.progress import Progress
from treadle.profile.readings import Readings, note_origin
from treadle.profile.record import Load, Origin, Profile
from treadle.profile.samplers import sampling
from treadle.profile.target import Gone, NotStarted, Server
from treadle.profile.words import count

__all__ = ["Partial", "profile"]

FLAME = 3.0
"""Seconds of the load under which stacks are sampled, at most."""


class Partial(Exception):
    """The record is not complete. The text is one sentence that says why; `details` is what the
    server wrote, if it helps."""

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.details = details


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
    answer: object = None
    try:
        if asked.attach is not None:
            attached.look(asked, found, progress)
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
        try:
            note_origin(found, server.read())
            address = check.address(server.url)
            answers = check.check(address, scenario.requests, progress)
            interval = asked.interval
            job = scenario.job(address, slice=interval, progress=interval)
            result = _measure(server, job, found, progress)
            if asked.sampler != "none":
                _sample(server, job, asked.sampler, found, progress)
            _judge(result)
        except Gone as error:
            raise Partial(str(error), server.last_words()) from None
        except check.WrongAnswer as error:
            raise check.WrongAnswer(str(error), server.last_traceback()) from None
        except Partial as error:
            raise Partial(str(error), server.last_traceback()) from None
    return answers[0]


def _measure(server: Server, job: LoadJob, found: Profile, progress: Progress) -> LoadResult:
    """Drives the load; what was seen is in `found` however it ends."""
    seen = Readings(server, found)
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
        rate=_rate(result, job),
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


def _rate(result: LoadResult, job: LoadJob) -> float:
    """Answers a second. Of an open loop what came while it sent: its pace has nothing to do with how
    long the last answers took."""
    sending = sum(each.seconds for each in result.slices)
    if job.rate is None or not sending:
        return result.rate
    return sum(each.completed for each in result.slices) / sending


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


# -- what both have --------------------------------------------------------------------------------


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
