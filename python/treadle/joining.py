"""The handle of a coroutine that runs on a loop of a `LoopPool`.

A handle is shared by everyone who holds it; its lock guards what it knows, and no foreign code runs
under it. Only a handle that is not settled has it taken: the lane, which has all of those, renews
their locks in a forked child. It is settled once, by whoever comes first: the Task, or a cancellation
that came before there was one. Who waits after that is told at once. An outcome reaches a loop, for a
coroutine that waits and for a callback, through its `call_soon_threadsafe`, and a waiting thread
through a lock of its own. A coroutine that is cancelled while it waits asks the work to end and goes
on waiting, for the outcome: its loop is still the only one that touches what it waits for.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import math
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Protocol

from treadle.eager import eager_task

_PENDING, _DONE, _FAILED, _CANCELLED = range(4)


class Host(Protocol):
    """What a handle needs of the lane that runs its coroutine."""

    name: str
    forked: bool

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The lane's loop."""

    def is_here(self) -> bool:
        """Whether the calling thread is the lane's."""

    def call(self, work: Callable[[], object]) -> None:
        """Has `work` called on the lane's thread, if that goes on."""

    def forget(self, handle: JoinHandle[Any]) -> None:
        """The handle is settled."""

    def report(self, context: dict[str, Any]) -> None:
        """Tells the loop's exception handler."""


def checked_timeout(timeout: float | None) -> float | None:
    """What a lock takes: at least 0, for a deadline has passed where the standard library gives up at
    once too. Raises as that does for what is no timeout."""
    if timeout is None:
        return None
    if math.isnan(timeout):
        raise ValueError("Invalid value NaN (not a number)")
    return min(max(timeout, 0), threading.TIMEOUT_MAX)


class JoinHandle[T]:
    """What `LoopPool.spawn` gives: the outcome of a coroutine on one of the pool's loops.

    Sync code asks `result()`; coroutines await the handle, on any event loop and several at a time.
    A coroutine that is cancelled while it awaits the handle cancels the work and goes on when that has
    ended, with the result if the work has one all the same, as with a Task of asyncio;
    `asyncio.shield(handle)` prevents that. `gather`, `wait`, `wait_for` and `as_completed` of asyncio
    take handles; those of `concurrent.futures` take `handle.future()`. Dropping the handle cancels
    nothing: the pool finishes the work. All methods may be called from any thread.
    """

    __slots__ = (
        "__weakref__", "_callbacks", "_coroutine", "_exception", "_lane", "_lock", "_result",
        "_retrieved", "_state", "_task", "_traceback", "_wanted",
    )  # fmt: skip

    def __init__(self, lane: Host) -> None:
        self._lane = lane
        self._lock = threading.RLock()
        self._state = _PENDING
        self._result: Any = None
        """What it returned; the arguments of its `CancelledError` if it was cancelled."""
        self._exception: BaseException | None = None
        self._traceback: TracebackType | None = None
        """The exception's when it came: whoever raises it adds to that, and not to what others did."""
        self._coroutine: object = None
        """While it is not done."""
        self._task: asyncio.Task[Any] | None = None
        self._wanted: tuple[Any, ...] | None = None
        """What to cancel it with, if it is to be: asked when it is to start."""
        self._retrieved = False
        self._callbacks: list[_Callback[T]] | None = []
        """Until it is settled."""

    # What callers ask.

    def result(self, timeout: float | None = None) -> T:
        """The coroutine's result; waits for it, at most `timeout` seconds, not at all from 0 down.

        Raises what the coroutine raised, `concurrent.futures.CancelledError` if it was cancelled,
        `TimeoutError` if it is not done by then, and `RuntimeError` on the thread of the loop that
        runs the coroutine: waiting there would keep it from ever being done.
        """
        self._wait(timeout)
        try:
            return self._outcome(concurrent.futures.CancelledError)
        finally:
            # The traceback of what is raised names this frame, and the handle has what is raised.
            self = None  # type: ignore[assignment]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The coroutine's exception, None if it returned; waits and raises as `result` does."""
        self._wait(timeout)
        if self._state == _CANCELLED:
            raise concurrent.futures.CancelledError(*self._result)
        self._retrieved = True
        return self._exception

    def done(self) -> bool:
        """Whether it has returned, raised or was cancelled."""
        return self._state != _PENDING

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state == _CANCELLED

    def cancel(self, msg: Any = None) -> bool:
        """Asks the coroutine to end, as `Task.cancel` does; False when it is done already."""
        if self._state != _PENDING:
            return False
        self._refuse_child()
        with self._lock:
            if self._state != _PENDING:
                return False
            self._wanted = () if msg is None else (msg,)
        self._lane.call(partial(self._cancel_task, msg))
        return True

    def future(self) -> concurrent.futures.Future[T]:
        """A `concurrent.futures.Future` of the work, for what takes nothing else.

        That is `concurrent.futures.wait` and `as_completed`, and `asyncio.wrap_future`. Cancelling it
        asks the coroutine to end. It does not know the lane's thread: waiting for it there, for work
        of the same lane, never ends.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()

        def finish(_: object) -> None:
            if self._state == _CANCELLED:
                future.cancel()
            if not future.set_running_or_notify_cancel():
                return
            self._retrieved = True
            if self._exception is not None:
                future.set_exception(self._exception)
            else:
                future.set_result(self._result)

        def cancel(future: concurrent.futures.Future[T]) -> None:
            if future.cancelled():
                self.cancel()

        self.when_done(finish)
        future.add_done_callback(cancel)
        return future

    def add_done_callback(self, callback: Callable[[JoinHandle[T]], object]) -> None:
        """Has `callback(handle)` called when it is done.

        A callback that is added where an event loop runs is called on that loop, soon, in a copy of
        the current context, as those of asyncio's futures are. Any other is called on the lane's
        thread, or at once on this one if the handle is done, as those of `concurrent.futures` are;
        what it raises goes to the exception handler of the lane's loop.
        """
        if not callable(callback):
            raise TypeError(f"a callable object was expected, got {callback!r}")
        loop = asyncio._get_running_loop()
        if loop is None:
            self.when_done(callback)
        else:
            soon = partial(_call_soon, loop, callback, contextvars.copy_context())
            self.when_done(soon, callback)

    def when_done(
        self,
        tell: Callable[[JoinHandle[T]], object],
        name: Callable[[JoinHandle[T]], object] | None = None,
    ) -> None:
        """Has `tell(handle)` called on the lane's thread when it is done; at once if it is.

        `name` is what `remove_done_callback` knows it by, if it is something else.
        """
        if self._state == _PENDING:
            self._refuse_child()
            with self._lock:
                if self._callbacks is not None:
                    self._callbacks.append((name or tell, tell))
                    return
        self._call(tell)

    def remove_done_callback(self, callback: Callable[[JoinHandle[T]], object]) -> int:
        """Takes a callback back; how many times it was there."""
        if self._state != _PENDING:
            return 0
        with self._lock:
            if self._callbacks is None:
                return 0
            kept = [known for known in self._callbacks if known[0] != callback]
            removed = len(self._callbacks) - len(kept)
            self._callbacks = kept
        return removed

    def __await__(self) -> Generator[Any, None, T]:
        if self._state == _PENDING:
            self._refuse_child()
            loop = asyncio.get_running_loop()
            if (current := asyncio.current_task()) and current.get_coro() is self._coroutine:
                raise RuntimeError(f"Task cannot await on itself: {current!r}")
            waiter = _Waiter(self, loop)

            def tell(_: object) -> None:
                with suppress(RuntimeError):  # that loop is closed: nobody waits there
                    loop.call_soon_threadsafe(_release, waiter)

            self.when_done(tell)
            try:
                yield from waiter
            except BaseException:
                self.remove_done_callback(tell)
                raise
            del waiter, tell  # which know the handle, as this frame does
        try:
            return self._outcome(asyncio.CancelledError)
        finally:
            self = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        state = ("pending", "finished", "failed", "cancelled")[self._state]
        return f"<JoinHandle {state} on {self._lane.name}>"

    def __del__(self) -> None:
        if self._state == _FAILED and not self._retrieved and not self._lane.forked:
            self._lane.report(
                {
                    "message": "The exception of work in a LoopPool was never retrieved",
                    "exception": self._exception,
                    "task": self._task,
                }
            )

    def __reduce__(self) -> NoReturn:
        # A copy would never hear of the outcome.
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")

    # What the lane does.

    def after_fork(self) -> None:
        """In a forked child: who held the lock is not there to release it."""
        self._lock = threading.RLock()

    def fail(self, error: BaseException) -> None:
        """Settles it with `error`: its loop does not run any more."""
        self._settle(_FAILED, None, error)

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> None:
        """On the lane, in the context of the caller."""
        with self._lock:
            wanted = self._wanted
        if wanted is not None:
            try:
                coroutine.close()
            finally:
                self._settle(_CANCELLED, wanted, None)
            return
        self._coroutine = coroutine
        try:
            task = eager_task(coroutine, self._lane.loop, contextvars.copy_context())
        except BaseException as error:  # no memory for a Task: nobody shall wait for it
            self._settle(_FAILED, None, error)
            return
        self._task = task
        if task.done():
            self._finished(task)
        else:
            task.add_done_callback(self._finished)

    def _cancel_task(self, msg: Any) -> None:
        """On the lane, after `_start`: a request that came during the first step is no exception."""
        if self._task is not None:
            self._task.cancel(msg)

    def _finished(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            try:
                task.result()
            except asyncio.CancelledError as error:
                self._settle(_CANCELLED, error.args, None)
        elif (exception := task.exception()) is not None:
            self._settle(_FAILED, None, exception)
        else:
            self._settle(_DONE, task.result(), None)

    def _settle(self, state: int, result: Any, exception: BaseException | None) -> None:
        with self._lock:
            if self._state != _PENDING:
                return
            if exception is not None:
                self._traceback = exception.__traceback__
            self._result, self._exception, self._state = result, exception, state
            callbacks, self._callbacks = self._callbacks, None
            self._coroutine = None
        self._lane.forget(self)
        for _, callback in callbacks or ():
            # What would end the process has been reported, and keeps no one else from being told.
            with suppress(SystemExit, KeyboardInterrupt):
                self._call(callback)

    def _call(self, callback: Callable[[JoinHandle[T]], object]) -> None:
        try:
            callback(self)
        except BaseException as error:
            message = f"Exception in callback {callback!r}"
            self._lane.report({"message": message, "exception": error})
            if isinstance(error, SystemExit | KeyboardInterrupt):
                raise

    def _wait(self, timeout: float | None) -> None:
        timeout = checked_timeout(timeout)
        if self._state != _PENDING:
            return
        self._refuse_child()
        if self._lane.is_here():
            raise RuntimeError(
                f"waiting for this result on {self._lane.name}, which is to produce it, would "
                "never end: await the handle instead"
            )
        gate = threading.Lock()
        gate.acquire()

        def open_gate(_: object) -> None:
            gate.release()

        self.when_done(open_gate)
        if not gate.acquire(timeout=-1 if timeout is None else timeout):
            self.remove_done_callback(open_gate)
            if self._state == _PENDING:
                raise TimeoutError

    def _refuse_child(self) -> None:
        if self._lane.forked:
            raise RuntimeError("the work of a LoopPool goes on in the process that forked")

    def _outcome(self, cancelled: type[BaseException]) -> T:
        if self._state == _CANCELLED:
            raise cancelled(*self._result)
        if self._exception is not None:
            self._retrieved = True
            try:
                raise self._exception.with_traceback(self._traceback)
            finally:
                self = None  # type: ignore[assignment]
        result: T = self._result
        return result


type _Callback[T] = tuple[Callable[[JoinHandle[T]], object], Callable[[JoinHandle[T]], object]]
"""What a callback is known by, and what is called."""


class _Waiter(asyncio.Future[None]):
    """What a coroutine that awaits a handle waits for, on its own loop.

    `Task.cancel` cancels what its coroutine waits for. This passes that on to the work, and stays
    pending until the work has ended.
    """

    __slots__ = ("_handle",)

    def __init__(self, handle: JoinHandle[Any], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._handle = handle

    def cancel(self, msg: Any = None) -> bool:
        return not self.done() and self._handle.cancel(msg)


def _call_soon[T](
    loop: asyncio.AbstractEventLoop,
    callback: Callable[[JoinHandle[T]], object],
    context: contextvars.Context,
    handle: JoinHandle[T],
) -> None:
    with suppress(RuntimeError):  # that loop is closed
        loop.call_soon_threadsafe(callback, handle, context=context)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
