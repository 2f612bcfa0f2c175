"""The load that an app is profiled under: what to send, the process that sends it, what came of it.

    with LoadRun(job) as run:
        for progress in run:
            ...
        result = run.result()

The generator itself is native (`treadle._treadle.LoadDriver`). It runs in a process of its own,
`python -m treadle.profile.load`, so that it takes no turn of a lane and no GIL from the server. The
two talk in lines of JSON: the job goes in as one line, lines with `progress` and at last one with
`result` or `error` come out. SIGINT, SIGTERM or the end of its standard input has the generator end
early, with a result of what it has seen so far. So it cannot outlive a parent that dies.

All times are seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any, Literal, Self

import msgspec

from treadle.exceptions import TreadleError
from treadle.telemetry import Distribution

__all__ = [
    "FailureResult",
    "LoadError",
    "LoadJob",
    "LoadProgress",
    "LoadRequest",
    "LoadResult",
    "LoadRun",
    "RequestResult",
    "SliceResult",
]

type FailureKind = Literal[
    "refused", "connect", "reset", "closed", "malformed", "timeout", "status"
]


class LoadError(TreadleError):
    """The load could not be driven. The text is one sentence."""


# -- what to do ------------------------------------------------------------------------------------


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request."""

    name: str
    """How reports call it."""
    method: str = "GET"
    path: str = "/"
    """Path and query as they are sent: percent-encoded, from the slash on."""
    headers: tuple[tuple[str, str], ...] = ()
    """Beyond `Host`, unless it is here; `Content-Length` is the generator's to say."""
    body: bytes = b""
    weight: float = 1.0
    """Its share, in relation to the others' weights."""
    expect: tuple[int, ...] = ()
    """The statuses that are right; any below 400 if there is none."""


class LoadJob(msgspec.Struct, frozen=True, kw_only=True):
    """A run of the generator."""

    address: tuple[str, int] | str
    """Host and port, or the path of a Unix socket."""
    requests: tuple[LoadRequest, ...]
    connections: int = 64
    """Open at once. Closed loop: as many requests are under way; open loop: at most."""
    duration: float = 10.0
    """How long is measured."""
    warmup: float = 1.0
    """How long before that requests are sent and not counted."""
    rate: float | None = None
    """Requests a second of an open loop. None: a closed loop, in which each connection sends its
    next request when the answer to the last one is whole."""
    timeout: float = 10.0
    """How long a whole answer may take from the sending of its request."""
    grace: float = 1.0
    """How long answers are waited for after the end of sending."""
    give_up: float = 1.0
    """How long no connection may come about before the server counts as gone."""
    slice: float = 0.25
    """The length of a slice, at least: there are 480 of them at most."""
    progress: float = 0.25
    """How often progress is told."""
    seed: int = 0
    """Each seed is another sequence of the requests, the same one at every run."""
    cpus: tuple[int, ...] = ()
    """The CPUs that the generator runs on; all if there is none here."""


# -- what is told ----------------------------------------------------------------------------------


class LoadProgress(msgspec.Struct, frozen=True, kw_only=True):
    """A look at a run that goes on."""

    phase: Literal["warmup", "measure", "finish"]
    elapsed: float
    """Since the first request, the warm-up included."""
    planned: float
    """How long is to be sent, the warm-up included."""
    completed: int
    """Expected answers so far, those of the warm-up included; `failed` likewise."""
    failed: int
    rate: float
    """Expected answers a second since the last look; the latencies likewise."""
    p50: float
    p99: float


class FailureResult(msgspec.Struct, frozen=True, kw_only=True):
    """All failures of one kind.

    `refused`: nobody listens; `connect`: another reason for which no connection came about; `reset`
    and `closed`: the server ended the connection before its answer was whole; `malformed`: what came
    is no HTTP; `timeout`: no whole answer in time; `status`: an answer that was not expected.
    """

    kind: FailureKind
    count: int
    example: str
    """The first one, in words."""


class SliceResult(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived in a span of the run, what had been sent before it included."""

    start: float
    """Its begin, after the end of the warm-up."""
    seconds: float
    completed: int
    failed: int
    p50: float
    p99: float
    bytes: int
    """Bytes received."""


class RequestResult(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request."""

    completed: int
    """Expected answers."""
    failed: int
    """Failures of all kinds."""
    statuses: dict[int, int]
    """Answers by status, ascending, the unexpected ones included."""
    latency: Distribution
    """From when the request was to be sent to the last byte of its expected answer. In an open loop
    that is corrected for coordinated omission: a stall counts for every request it held up."""
    service: Distribution | None
    """From when it was really sent, uncorrected; None in a closed loop, where it is the same."""


class LoadResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run. Its size does not grow with the run's length.

    A request counts if it was due after the warm-up and before the end of sending, and is then one of
    `completed`, `failed`, `unsent` and `unfinished`.
    """

    ending: Literal["complete", "stopped", "server gone"]
    reason: str
    """The failure that told that the server is gone; else empty."""
    seconds: float
    """From the end of the warm-up to the end of sending, or to the last answer that counts if that
    came later."""
    completed: int
    """Expected answers."""
    failed: int
    """Requests that failed; `failures` says how."""
    unsent: int
    """Requests of an open loop that were due, and for which no connection was free in time."""
    unfinished: int
    """Requests that had no answer at the end of the grace period."""
    connections: int
    """Connections made, those of the warm-up included: more than asked for if the server closes
    them."""
    bytes: int
    """Bytes received while it was measured, heads and bodies."""
    latency: Distribution
    """As in `RequestResult`, over all kinds."""
    service: Distribution | None
    """As in `RequestResult`, over all kinds."""
    requests: tuple[RequestResult, ...]
    """In the order of the job's."""
    failures: tuple[FailureResult, ...]
    """The kinds that occurred."""
    slices: tuple[SliceResult, ...]
    """From the end of the warm-up to the end of sending, without gaps."""

    @property
    def rate(self) -> float:
        """Expected answers a second."""
        return self.completed / self.seconds if self.seconds else 0.0


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    progress: LoadProgress | None = None
    result: LoadResult | None = None
    error: str | None = None


# -- the parent's side -----------------------------------------------------------------------------


class LoadRun:
    """A run in a process of its own, which starts on enter and is gone on exit, however that comes.

    Iterating gives each `LoadProgress` and ends with the run; `result` waits for the end. Whoever
    does neither for long blocks the generator. Used by one thread, but for `stop`.
    """

    def __init__(self, job: LoadJob) -> None:
        self._job = job
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._result: LoadResult | None = None
        self._lines = msgspec.json.Decoder(_Line)

    def __repr__(self) -> str:
        return f"<LoadRun {self.pid}>" if self._process is not None else "<LoadRun not running>"

    @property
    def pid(self) -> int:
        """The generator's process."""
        return self._running().pid

    def __enter__(self) -> Self:
        if self._errors is not None:
            raise RuntimeError("a LoadRun can be entered once")
        self._errors = tempfile.TemporaryFile()
        try:
            self._process = subprocess.Popen(
                # -P: a module of the app's folder must not stand in for one of the library's.
                [sys.executable, "-P", "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                # Ctrl+C is for the parent, which may want the result.
                process_group=0,
            )
        except OSError as error:
            self._errors.close()
            raise LoadError(f"the load generator did not start: {error}.") from None
        try:
            assert self._process.stdin is not None
            # An end that comes this early is told by `result`.
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.write(msgspec.json.encode(self._job) + b"\n")
                self._process.stdin.flush()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __iter__(self) -> Iterator[LoadProgress]:
        process = self._running()
        assert process.stdout is not None
        while self._result is None:
            line = process.stdout.readline()
            if not line:
                raise LoadError(f"the load generator ended without a result: {self._last_words()}")
            try:
                told = self._lines.decode(line)
            except msgspec.MsgspecError as error:
                raise LoadError(f"the load generator told nonsense: {error}.") from None
            if told.error is not None:
                raise LoadError(told.error)
            self._result = told.result
            if told.progress is not None:
                yield told.progress

    def result(self) -> LoadResult:
        """Waits for the end, and returns what was seen; after `stop` that is a partial result.

        Raises `LoadError` if the generator could not do the job.
        """
        for _ in self:
            pass
        assert self._result is not None
        return self._result

    def stop(self) -> None:
        """Has the run end early; asked again, without waiting for the last answers. Any thread."""
        process = self._running()
        assert process.stdin is not None
        if process.stdin.closed:
            process.terminate()
        else:
            process.stdin.close()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the LoadRun does not run: enter it with `with`")
        return self._process

    def _last_words(self) -> str:
        status = self._running().wait()
        assert self._errors is not None
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip().splitlines()
        return said[-1] if said else f"its exit status is {status}."

    def _end(self) -> None:
        process = self._process
        if process is None or self._errors is None:
            return
        with self._errors:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None
                with contextlib.suppress(OSError):
                    pipe.close()
            process.wait()


# -- the generator's process -----------------------------------------------------------------------


def main() -> int:
    """Does the job on standard input; returns the exit status."""
    signals = (signal.SIGINT, signal.SIGTERM)
    # One that comes before there is something to stop waits until there is.
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    out = sys.stdout.buffer

    def tell(line: dict[str, Any]) -> None:
        out.write(msgspec.json.encode(line) + b"\n")
        out.flush()

    try:
        job = msgspec.json.decode(sys.stdin.buffer.readline(), type=LoadJob)
        _claim(job)
        tell({"result": _drive(job, tell, signals)})
    except BrokenPipeError:
        # Nobody listens any more. What is left in the buffer must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
        return 1
    except (ValueError, OSError) as error:  # a job that makes no sense, or cannot be done here
        tell({"error": f"the load generator cannot do this: {error}"})
        return 1
    return 0


def _claim(job: LoadJob) -> None:
    """Takes the CPUs that were asked for, and as many descriptors as the connections may need."""
    if job.cpus:
        os.sched_setaffinity(0, job.cpus)
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _drive(job: LoadJob, tell: Any, signals: tuple[signal.Signals, ...]) -> dict[str, Any]:
    """Runs the native generator on a thread, while this one waits for a reason to stop it."""
    import select

    from treadle._treadle import LoadDriver

    driver = LoadDriver(job)
    outcome: list[dict[str, Any] | BaseException] = []
    ended, ending = os.pipe()

    def run() -> None:
        try:
            outcome.append(driver.run(lambda progress: tell({"progress": progress})))
        except BaseException as error:
            outcome.append(error)
        finally:
            os.close(ending)

    for each in signals:
        signal.signal(each, lambda *_: driver.stop())
    thread = threading.Thread(target=run, name="treadle-load")
    thread.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    waiting_for = [ended, sys.stdin.fileno()]
    while ended not in (ready := select.select(waiting_for, [], [])[0]):
        if not os.read(ready[0], 4096):  # the parent is gone, or says that it wants no more
            waiting_for = [ended]
            driver.stop()
    thread.join()
    os.close(ended)
    [found] = outcome
    if isinstance(found, BaseException):
        raise found
    return found


if __name__ == "__main__":
    sys.exit(main())
