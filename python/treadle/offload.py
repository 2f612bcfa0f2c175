"""The threads on which handlers registered with `offload=True` are called.

They are daemons: a call that hangs cannot be cancelled, and the interpreter would wait for it at its
end, without limit. What waits for these calls is the stop of the server instead, for the grace
period; one that is still at it then is left behind, and named.

Who touches what: lanes `submit`, threads of the pool `_work`, and the server starts, asks and closes.
The counts are behind one lock, held for a few operations at a time, so a lane never waits here. For
that reason, too, a thread is not started by the lane that has a job for it: starting one takes as
long as the system takes to run it. The first is there from the start, and one that takes a job while
no other is free starts the next, until there are `size`; from then on jobs wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import Any, Protocol

__all__ = ["Job", "Pool"]


class Job(Protocol):
    """A call of a handler for a request: to be begun once, and then ended or failed."""

    @property
    def handler(self) -> Callable[..., object]:
        """What is called."""

    @property
    def request(self) -> tuple[int, str, str]:
        """Number, method and route of the request that it is called for."""

    def begin(self) -> tuple[Context, Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """The context to call the handler in, the handler, its arguments."""

    def end(self, value: Any) -> None:
        """The handler returned `value`."""

    def fail(self, error: BaseException) -> None:
        """The handler raised `error`."""


class Pool:
    """At most `size` threads that make the calls they are given, in order."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._queue: SimpleQueue[tuple[Job, Future[None]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0
        """Threads that wait for a job, less the jobs that wait for a thread."""
        self._open = 0
        """Jobs that have not ended."""
        self._running: dict[threading.Thread, Job] = {}
        self._waiters: list[Future[None]] = []
        self._closed = False

    @property
    def threads(self) -> int:
        """How many threads there are."""
        return self._threads

    def start(self) -> None:
        """Starts the first thread, if there is none. Raises RuntimeError if the system has none."""
        with self._lock:
            if self._threads:
                return
            self._reserve()
        self._start_thread(0)

    def submit(self, job: Job) -> Future[None]:
        """Has `job` called; what is returned is done after it, and can be cancelled before it.

        Raises RuntimeError once the pool is closed.
        """
        future: Future[None] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the server has stopped: nothing is offloaded any more")
            self._open += 1
            self._free -= 1
            self._queue.put((job, future))
        return future

    def idle(self) -> Future[None]:
        """Done once no job waits or runs."""
        waiter: Future[None] = Future()
        with self._lock:
            if self._open:
                self._waiters.append(waiter)
                return waiter
        waiter.set_result(None)
        return waiter

    def close(self) -> dict[threading.Thread, Job]:
        """Ends the threads, and takes back what waits for one. Returns the jobs that still run."""
        with self._lock:
            self._closed = True
            threads = self._threads
            running = dict(self._running)
        with suppress(Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None:
                    item[1].cancel()
                    with self._lock:
                        self._open -= 1
        for _ in range(threads):
            self._queue.put(None)
        return running

    def _reserve(self) -> int:
        """Counts a thread that is about to be started; returns its number. Under the lock."""
        self._threads += 1
        self._free += 1
        return self._threads - 1

    def _start_thread(self, number: int) -> None:
        thread = threading.Thread(target=self._work, name=f"treadle-offload_{number}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            with self._lock:
                self._threads -= 1
                self._free -= 1
            raise

    def _work(self) -> None:
        """What a thread of the pool does, to its end."""
        me = threading.current_thread()
        while (item := self._queue.get()) is not None:
            job, future = item
            if future.set_running_or_notify_cancel():
                self._begin_job(me, job)
                try:
                    _make_call(job)
                except BaseException as error:
                    future.set_exception(error)
                else:
                    future.set_result(None)
            # Not kept until the next one comes.
            del item, job, future
            for waiter in self._end_of_job(me):
                if waiter.set_running_or_notify_cancel():
                    waiter.set_result(None)

    def _begin_job(self, thread: threading.Thread, job: Job) -> None:
        """Notes what it does, and sees to it that the next job finds a thread."""
        with self._lock:
            self._running[thread] = job
            if self._free > 0 or self._threads >= self.size or self._closed:
                return
            number = self._reserve()
        # The system may have no more of them: jobs wait for those that there are.
        with suppress(RuntimeError):
            self._start_thread(number)

    def _end_of_job(self, thread: threading.Thread) -> list[Future[None]]:
        """Counts it. Returns those who have waited for the last."""
        with self._lock:
            self._running.pop(thread, None)
            self._free += 1
            self._open -= 1
            if self._open:
                return []
            waiters, self._waiters = self._waiters, []
            return waiters


def _make_call(job: Job) -> None:
    try:
        context, handler, args, kwargs = job.begin()
        value = context.run(handler, *args, **kwargs)
    except BaseException as error:
        # What is told of it begins with the handler.
        trace = error.__traceback__ and error.__traceback__.tb_next
        job.fail(error.with_traceback(trace))
    else:
        job.end(value)
