"""Worker processes: forked from one parent, sharing its listening sockets, replaced when they die.

The parent imports the app, binds, and forks before any thread exists; it never runs the app and
never gets a thread, so it can fork again at any time. Each worker is one process that serves
(`process.serve`). Between the two:

- Signals. The parent polls for SIGINT, SIGTERM and SIGCHLD. The first two make it send SIGTERM to
  every worker. A Ctrl+C reaches the workers as well; a worker takes the first signal it gets as
  "stop" and ignores the rest. Signals are blocked across the fork, so that none is handled by a
  child that still has its parent's handlers.
- A status pipe per worker, written by the worker: `READY` once it answers, or why it did not start.
- One life pipe, that nobody writes: the parent alone holds its writing end, so that a worker reads
  its end when the parent is gone, however it went, and stops as if told to.

A worker that dies is replaced at once, then after pauses that double while replacements die young.
A worker that fails before the first full set has started ends everything: the app does not start.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NoReturn

from treadle.console import complain, leave_word
from treadle.process import EXIT_INTERRUPTED, STOP_MARGIN, explain, serve
from treadle.signals import STOP_SIGNALS, Signals, poll

if TYPE_CHECKING:
    from treadle.app import App
    from treadle.binding import Binding
    from treadle.monitor.setup import Monitor
    from treadle.options import Options

__all__ = ["run"]

READY = b"\0"
"""What a worker writes once it answers; never the start of an explanation."""

SETTLED = 5.0
"""Seconds after which a worker that dies does not count as one that died young."""

LONGEST_PAUSE = 10.0
"""Seconds between two replacements at most."""

KILL_MARGIN = STOP_MARGIN + 2.0
"""Seconds beyond the grace period after which a worker that has not left by itself is killed."""

_BLOCKED = (*STOP_SIGNALS, signal.SIGCHLD)


class _Worker:
    """One running worker process, as the parent sees it."""

    def __init__(self, pid: int, status: int) -> None:
        self.pid = pid
        self.status = status
        """Reading end of its status pipe, non-blocking."""
        self.started = time.monotonic()
        self.ready = False
        self.said = b""

    def listen(self) -> bool:
        """Reads what the worker wrote. False once there will be no more."""
        try:
            while chunk := os.read(self.status, 65536):
                self.said += chunk
                self.ready = self.ready or self.said.startswith(READY)
        except BlockingIOError:
            return True
        return False


class _Slot:
    """The place of one worker: who holds it, or when it is to be filled again."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.worker: _Worker | None = None
        self.deaths = 0
        """Workers in a row that died young here."""
        self.due = 0.0
        """When to fork; meaningful while there is no worker."""

    def vacate(self, lived: float) -> None:
        """Sets when the next worker is due."""
        self.worker = None
        self.deaths = 0 if lived >= SETTLED else self.deaths + 1
        pause = 0.0 if self.deaths < 2 else min(LONGEST_PAUSE, 0.1 * 2.0 ** (self.deaths - 2))
        self.due = time.monotonic() + pause


def run(
    app: App,
    options: Options,
    binding: Binding,
    signals: Signals,
    *,
    check: Callable[[], None],
    announce: Callable[[], None],
    monitor: Monitor | None = None,
) -> int:
    """Serves `app` from `options.workers` processes until told to stop. Returns the exit status.

    `signals` must watch SIGCHLD too. `check` is called in each worker once it answers, and may
    raise `Refusal`; `announce` is called in the parent once every worker answers.
    """
    return _Parent(app, options, binding, signals, check, announce, monitor).run()


class _Parent:
    def __init__(
        self,
        app: App,
        options: Options,
        binding: Binding,
        signals: Signals,
        check: Callable[[], None],
        announce: Callable[[], None],
        monitor: Monitor | None,
    ) -> None:
        self._app = app
        self._options = options
        self._binding = binding
        self._signals = signals
        self._check = check
        self._announce = announce
        self._monitor = monitor
        self._slots = [_Slot(index) for index in range(options.workers)]
        self._life_reader, self._life_writer = os.pipe()
        self._complete = False
        """Whether all workers have been ready once."""
        self._stopping = False
        self._kill_at: float | None = None
        """When to kill what is left: from the beginning of the stop until that was done."""
        self._code = 0

    def run(self) -> int:
        """One turn: fork what is due, wait, read signals, statuses and deaths."""
        try:
            while True:
                self._fill()
                if self._stopping and not self._workers():
                    return self._code
                fds = [self._signals.fileno(), *(w.status for w in self._workers() if not w.ready)]
                poll(fds, self._timeout())
                self._read_signals()
                self._listen()
                self._reap()
                if self._kill_at is not None and time.monotonic() >= self._kill_at:
                    self._kill_at = None
                    self._code = 1
                    self._kill()
        finally:
            os.close(self._life_reader)
            os.close(self._life_writer)

    def _workers(self) -> list[_Worker]:
        return [slot.worker for slot in self._slots if slot.worker is not None]

    def _timeout(self) -> float | None:
        """Seconds until there is something to do without being told; None for never."""
        if self._stopping:
            return None if self._kill_at is None else self._kill_at - time.monotonic()
        due = [slot.due for slot in self._slots if slot.worker is None]
        return min(due) - time.monotonic() if due else None

    # -- what happens --

    def _read_signals(self) -> None:
        for signum in self._signals.read():
            self._on_signal(signum)

    def _on_signal(self, signum: int) -> None:
        if signum == signal.SIGINT and self._stopping:
            self._kill()
            os._exit(EXIT_INTERRUPTED)
        if signum in STOP_SIGNALS:
            self._stop()

    def _stop(self) -> None:
        if not self._stopping:
            self._stopping = True
            self._kill_at = time.monotonic() + self._options.grace + KILL_MARGIN
            # The workers close their own copies when they begin to drain.
            self._binding.close()
            self._signal_all(signal.SIGTERM)

    def _kill(self) -> None:
        self._signal_all(signal.SIGKILL)
        leave_word("treadle: killed the workers that had not stopped.\n")

    def _signal_all(self, signum: int) -> None:
        for worker in self._workers():
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signum)

    def _listen(self) -> None:
        for worker in self._workers():
            if not worker.ready:
                worker.listen()
        if not self._complete and all(s.worker and s.worker.ready for s in self._slots):
            self._complete = True
            if not self._stopping:
                self._announce()

    def _reap(self) -> None:
        # Once more after each round that found some: the signal of another's death may be among
        # those that were read meanwhile.
        while self._reap_those_gone():
            pass

    def _reap_those_gone(self) -> bool:
        """Whether there was any."""
        found = False
        for slot in self._slots:
            worker = slot.worker
            if worker is None:
                continue
            try:
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
            except ChildProcessError:  # the app waited for all children, and took ours
                pid, status = worker.pid, 0
            if pid == 0:
                continue
            worker.listen()
            os.close(worker.status)
            slot.vacate(time.monotonic() - worker.started)
            # It may have stopped because of a signal to all, which is only now there to be read.
            self._read_signals()
            self._on_death(slot.index, worker, os.waitstatus_to_exitcode(status))
            found = True
        return found

    def _on_death(self, index: int, worker: _Worker, code: int) -> None:
        said = b"" if worker.ready else worker.said
        if self._stopping:
            self._code = self._code or int(code != 0)
            if code < 0 and self._kill_at is not None:
                _log(f"worker {index} (process {worker.pid}) {_fate(code)} while it stopped")
        elif not (self._complete or worker.ready):
            text = said.decode("utf-8", "replace")
            complain(text or f"treadle: worker {index} {_fate(code)} while it was starting.\n")
            self._code = 1
            self._stop()
        else:
            if said:
                complain(said.decode("utf-8", "replace"))
            _log(f"worker {index} (process {worker.pid}) {_fate(code)}; starting another")

    # -- forking --

    def _fill(self) -> None:
        """Forks the workers that are due."""
        if self._stopping:
            return
        for slot in self._slots:
            if slot.worker is None and slot.due <= time.monotonic():
                try:
                    slot.worker = self._fork(slot.index)
                except OSError as error:
                    slot.vacate(0.0)
                    if not self._complete:
                        complain(f"treadle: cannot start worker {slot.index}: {error.strerror}.\n")
                        self._code = 1
                        self._stop()
                        return
                    _log(f"cannot start worker {slot.index}: {error.strerror}; trying again")

    def _fork(self, index: int) -> _Worker:
        reader, writer = os.pipe()
        # What is buffered now would otherwise be written by both.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(reader)
                self._become(index, writer, mask)
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.set_blocking(reader, False)
        return _Worker(pid, reader)

    # -- in the worker --

    def _become(self, index: int, status: int, mask: Iterable[int]) -> NoReturn:
        """What a forked child does, to its end. It never returns into the parent's stack."""
        code = 1
        try:
            # They are the parent's to run: one may remove what all processes use.
            atexit._clear()
            os.close(self._life_writer)
            for worker in self._workers():
                os.close(worker.status)
            self._signals.abandon()
            # Never left again: after a Ctrl+C, which reaches both, the parent's SIGTERM may come
            # while this process, already done, ends.
            signals = Signals().__enter__()
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            code = self._work(index, status, signals)
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            _leave(code)

    def _work(self, index: int, status: int, signals: Signals) -> int:
        def ready() -> None:
            self._check()
            _say(status, READY)

        ending = serve(
            self._app,
            self._options,
            self._binding.sockets,
            signals,
            ready=ready,
            worker=index,
            parent=self._life_reader,
            monitor=self._monitor,
        )
        if ending.error is not None:
            _say(status, explain(ending.error).encode("utf-8", "replace"))
            return 1
        return int(ending.failed)


def _say(status: int, message: bytes) -> None:
    """Writes to the status pipe; a parent that is gone does not listen."""
    with contextlib.suppress(BrokenPipeError):
        while message:
            message = message[os.write(status, message) :]


def _leave(code: int) -> NoReturn:
    """Ends a forked child as the interpreter would, but without unwinding the parent's stack."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
    finally:
        os._exit(code)


def _fate(code: int) -> str:
    if code >= 0:
        return f"ended with status {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"


def _log(message: str) -> None:
    import logging

    logging.getLogger("treadle").error(message)
