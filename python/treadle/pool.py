"""Event loops on threads of their own, without a server.

The locks of a pool, of its lanes and of its handles may be taken by who has them: a finalizer or a
signal handler that comes in between may spawn and cancel.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import inspect
import itertools
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self

from treadle._treadle import FREE_THREADED
from treadle.eager import eager_task
from treadle.joining import JoinHandle, checked_timeout
from treadle.pool_lane import PoolLane, forget, join, retire

_MAP_LIMIT_PER_LANE = 32

# For so many seconds `map` goes on with work that never waits before others of its lane have a turn.
_LONGEST_HOLD = 0.001


class LoopPool:
    """Event loops on `lanes` threads: runs coroutines for sync code and for other loops.

    `lanes` is the number of threads, one for each core by default; with the GIL, where they take
    turns, one. The threads start at once; `OSError` says that the system has none of what they
    need. A lane whose loop cannot run any more fails its handles with the reason; others go on.

    As a context manager it waits for the work it was given, as `ThreadPoolExecutor` does; when the
    block is left by an exception, the work is cancelled first. A pool that is forgotten finishes its
    work and ends. An interpreter that leaves cancels what still runs.

    A pool does not survive `fork`: in the child, `spawn` raises `RuntimeError`, as does waiting for,
    cancelling or awaiting a handle of the parent's that is not done. Make pools after forking.

    >>> with LoopPool(lanes=4) as pool:
    ...     handle = pool.spawn(fetch(url))
    ...     page = handle.result(timeout=5)
    """

    def __init__(self, lanes: int | None = None) -> None:
        if lanes is None:
            lanes = (os.cpu_count() or 1) if FREE_THREADED else 1
        if not isinstance(lanes, int) or isinstance(lanes, bool):
            raise TypeError(f"lanes must be an integer, got {lanes!r}")
        if lanes < 1:
            raise ValueError("lanes must be greater than 0")
        self._lock = threading.RLock()
        _pools.add(self)
        number = _next_number()
        self._lanes = [PoolLane(number, index) for index in range(lanes)]
        started: list[PoolLane] = []
        try:
            for lane in self._lanes:
                lane.start()
                started.append(lane)
        except BaseException:
            retire(started)
            join(started, None)
            raise
        weakref.finalize(self, forget, self._lanes).atexit = False

    @property
    def lanes(self) -> int:
        """How many threads it has."""
        return len(self._lanes)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.shutdown(0 if kind else None)
        except KeyboardInterrupt:
            self.shutdown(0)
            raise

    def spawn[T](self, coroutine: Coroutine[Any, Any, T]) -> JoinHandle[T]:
        """Starts a coroutine on the lane that has the fewest, in a copy of the current context.

        From any thread, a pool's own included. Raises `TypeError` for what is no coroutine, and
        `RuntimeError` after `shutdown`, for a coroutine that was started before, or when no lane's
        loop can run any more.
        """
        if not asyncio.iscoroutine(coroutine):
            raise TypeError(f"a coroutine was expected, got {coroutine!r}")
        _claim(coroutine)
        context = contextvars.copy_context()
        try:
            with self._lock:
                lane = min(self._lanes, key=_load)
                if lane.failure is not None:  # it has none: others, if there are
                    lane = min(self._lanes, key=_load_if_it_runs)
                if lane.forked:
                    raise RuntimeError("a LoopPool does not survive fork: make one in the child")
                handle: JoinHandle[T] = JoinHandle(lane)
                lane.place(handle, coroutine, context)
        except BaseException:
            coroutine.close()
            raise
        return handle

    def map[S, T](
        self,
        work: Callable[[S], Awaitable[T]],
        items: Iterable[S],
        *,
        limit: int | None = None,
    ) -> list[T]:
        """`[await work(item) for item in items]`, many at a time; waits for it.

        `work(item)` is called on the lanes, each in a Task and a copy of the current context of its
        own, at most `limit` at a time in all (32 a lane by default). `items` is read to its end
        first. The first exception cancels the rest, and is raised when that has ended.

        Raises `RuntimeError` on a thread of the pool, which would wait for itself.
        """
        if not callable(work):
            raise TypeError(f"a callable object was expected, got {work!r}")
        if limit is None:
            limit = _MAP_LIMIT_PER_LANE * len(self._lanes)
        if limit < 1:
            raise ValueError("limit must be greater than 0")
        self._refuse_own_threads("map")
        return _Mapping(work, list(items)).run(self, limit)

    def close(self) -> None:
        """Takes no more work, waits until that it has is done, and ends the threads."""
        self.shutdown()

    def shutdown(self, timeout: float | None = None) -> None:
        """The same; what is not done after `timeout` seconds, from 0 down at once, is cancelled, then
        waited for."""
        timeout = checked_timeout(timeout)
        self._refuse_own_threads("shutdown")
        with self._lock:
            retire(self._lanes)
        join(self._lanes, timeout)
        if timeout is not None:
            for lane in self._lanes:
                lane.cancel_all()
            join(self._lanes, None)

    def _refuse_own_threads(self, what: str) -> None:
        if any(lane.is_here() for lane in self._lanes):
            raise RuntimeError(f"{what}() cannot be called on a thread of the pool")

    def __repr__(self) -> str:
        running = sum(lane.load for lane in self._lanes)
        return f"<LoopPool lanes={len(self._lanes)} running={running}>"


def _load(lane: PoolLane) -> int:
    return lane.load


def _load_if_it_runs(lane: PoolLane) -> tuple[bool, int]:
    return lane.failure is not None, lane.load


class _Mapping[S, T]:
    """One `map`: runners that take the next item when they are done with one."""

    def __init__(self, work: Callable[[S], Awaitable[T]], items: list[S]) -> None:
        self._work = work
        self._items = items
        self._results: list[Any] = [None] * len(items)
        self._lock = threading.Lock()
        self._next = 0
        self._error: BaseException | None = None
        self._running = 0
        self._over = threading.Event()

    def run(self, pool: LoopPool, limit: int) -> list[T]:
        self._running = count = min(limit, len(self._items))
        if not count:
            return []
        context = contextvars.copy_context()
        handles: list[JoinHandle[None]] = []
        try:
            for _ in range(count):
                handles.append(pool.spawn(self._runner(context)))
            for handle in handles:
                handle.when_done(self._ended)
                if self._error is not None:
                    break
            self._over.wait()
            if self._error is not None:
                raise self._error
        finally:
            # After an error, or an interrupt: nothing goes on behind the caller's back.
            self._stop()
            for handle in handles:
                handle.cancel()
            for handle in handles:
                handle._wait(None)
                handle._retrieved = True
            # The traceback of what is raised names this frame.
            handles.clear()
            handle = self._error = None  # type: ignore[assignment]
        return self._results

    async def _runner(self, context: contextvars.Context) -> None:
        loop = asyncio.get_running_loop()
        since = loop.time()
        task: asyncio.Task[T] | None = None
        try:
            while (index := self._take()) is not None:
                made = self._work(self._items[index])
                coroutine = made if asyncio.iscoroutine(made) else _await(made)
                task = eager_task(coroutine, loop, context.copy())
                if not task.done():
                    self._results[index] = await task
                    since = loop.time()
                    continue
                self._results[index] = task.result()
                if loop.time() - since >= _LONGEST_HOLD:
                    await asyncio.sleep(0)
                    since = loop.time()
        finally:
            task = None  # it has the exception whose traceback names this frame

    def _take(self) -> int | None:
        with self._lock:
            index = self._next
            if index >= len(self._items):
                return None
            self._next = index + 1
            return index

    def _stop(self) -> None:
        with self._lock:
            self._next = len(self._items)

    def _ended(self, handle: JoinHandle[None]) -> None:
        with self._lock:
            self._running -= 1
            if self._error is None:
                if handle._exception is not None:
                    self._error = handle._exception
                elif handle.cancelled():
                    self._error = concurrent.futures.CancelledError(*handle._result)
            is_over = self._running == 0 or self._error is not None
        if is_over:
            self._over.set()


async def _await[T](awaitable: Awaitable[T]) -> T:
    return await awaitable


_next_number = itertools.count().__next__
_pools: weakref.WeakSet[LoopPool] = weakref.WeakSet()
_claimed: weakref.WeakSet[Any] = weakref.WeakSet()
_claim_lock = threading.RLock()


def _claim(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Refuses a coroutine that was started, or spawned and not yet started, before.

    Two threads that step one coroutine would break the interpreter, not only the coroutine.
    """
    started = inspect.iscoroutine(coroutine) and (
        inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED
    )
    with _claim_lock:
        try:
            if started or coroutine in _claimed:
                raise RuntimeError("cannot reuse already awaited coroutine")
            _claimed.add(coroutine)
        except TypeError:
            pass  # a coroutine of somebody's own make that has no weak references


def _after_fork() -> None:
    """In a forked child, where nobody is left to release what was held."""
    global _claim_lock
    _claim_lock = threading.RLock()
    for pool in _pools:
        pool._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
