"""A thread of a `LoopPool`, with its event loop.

The thread owns the loop and is the only one that touches it; everyone else goes through the loop's
`call_soon_threadsafe`. The lane keeps the handles that are not settled, so that work goes on whose
handle was dropped. A lane that is retired takes no more and ends with its last handle. One whose
loop cannot run any more fails its handles, and takes no more either.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any

from treadle._treadle import Lane as NativeLane
from treadle.joining import JoinHandle
from treadle.loop import EventLoop
from treadle.polling import busy_poll

_EXIT_PATIENCE = 5.0
"""Seconds that an interpreter on its way out gives the coroutines of a forgotten pool."""


class PoolLane:
    """One thread of a pool, with its loop."""

    def __init__(self, pool: int, index: int) -> None:
        self.index = index
        self.loop: EventLoop
        self.forked = False
        self._lock = threading.RLock()
        self._handles: set[JoinHandle[Any]] = set()
        """What is not settled: a handle that its owner dropped is kept here."""
        self._retired = False
        self._ident: int | None = None
        self._started = threading.Event()
        self.failure: BaseException | None = None
        """Why its loop does not run, if it should."""
        # A daemon, so that a coroutine that blocks for ever does not keep the interpreter from
        # leaving; `_end_all` ends the others before that.
        name = f"treadle-pool-{pool}-{index}"
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.name = f"lane {index} (thread {name})"
        """What errors call it: as they do its loop."""
        _known.add(self)

    @property
    def load(self) -> int:
        """How many coroutines it has that are not done."""
        return len(self._handles)

    def start(self) -> None:
        """Starts the thread; raises what the system says when there is no loop to be had."""
        self.thread.start()
        self._started.wait()
        if self.failure is not None:
            raise self.failure

    def is_here(self) -> bool:
        """Whether the calling thread is the lane's."""
        return threading.get_ident() == self._ident and not self.forked

    def place[T](
        self,
        handle: JoinHandle[T],
        coroutine: Coroutine[Any, Any, T],
        context: contextvars.Context,
    ) -> None:
        """Starts the coroutine on this lane; RuntimeError once the lane is retired or has failed."""
        with self._lock:
            if self.failure is not None:
                raise RuntimeError(f"{self.name} has ended") from self.failure
            if self._retired:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._handles.add(handle)
        self.loop.call_soon_threadsafe(handle._start, coroutine, context=context)

    def call(self, work: Callable[[], object]) -> None:
        """Has `work` called on the lane's thread, if that goes on."""
        with suppress(RuntimeError):  # closed: what was left has been settled
            self.loop.call_soon_threadsafe(work)

    def forget(self, handle: JoinHandle[Any]) -> None:
        """The handle is settled."""
        with self._lock:
            self._handles.discard(handle)
            is_over = self._retired and not self._handles
        if is_over:
            self.call(self.loop.stop)

    def retire(self) -> None:
        """Takes no more, and ends when what it has is done."""
        with self._lock:
            is_over = not self._retired and not self._handles
            self._retired = True
        if is_over:
            self.call(self.loop.stop)

    def cancel_all(self) -> None:
        """Asks everything to end."""
        if self.forked:
            return
        with self._lock:
            handles = list(self._handles)
        for handle in handles:
            handle.cancel()

    def report(self, context: dict[str, Any]) -> None:
        """Tells the loop's exception handler."""
        self.loop.call_exception_handler(context)

    def after_fork(self) -> None:
        """In a forked child, where the thread does not exist."""
        self.forked = self._retired = True
        # Whoever held a lock, as any thread may when another one forks, is not here to release it.
        self._lock = threading.RLock()
        for handle in self._handles:
            handle.after_fork()

    def _run(self) -> None:
        try:
            loop = self.loop = EventLoop(NativeLane(self.index, busy_poll()))
            self._ident = threading.get_ident()
            _live.add(self)
            try:
                asyncio.set_event_loop(loop)
                loop.call_soon(self._started.set)
                self._turn(loop)
            finally:
                self._ident = None
                asyncio.set_event_loop(None)
                loop.close()
                _live.discard(self)
        except BaseException as error:
            if self._started.is_set():
                raise
            self.failure = error
        finally:
            self._started.set()  # whatever came of it: somebody waits

    def _turn(self, loop: EventLoop) -> None:
        """Runs the loop until the lane is retired and has nothing left."""
        try:
            while not (self._retired and not self._handles):
                # What a coroutine raises to end the process goes to who asks for its result.
                with suppress(SystemExit, KeyboardInterrupt):
                    loop.run_forever()
        except BaseException as error:
            # No descriptor is left, say: nothing goes on here. At the start `start` says so.
            if not self._started.is_set():
                raise
            self._fail(error)
        else:
            _clear(loop)

    def _fail(self, error: BaseException) -> None:
        """The loop cannot run any more: tells whoever waits, and the loop's exception handler."""
        with self._lock:
            self._retired = True
            self.failure = error
            handles = list(self._handles)
        for handle in handles:
            handle.fail(error)
        self.report({"message": f"{self.name} of a LoopPool has ended", "exception": error})


def _clear(loop: asyncio.AbstractEventLoop) -> None:
    """Ends what coroutines left behind on their loop, as `asyncio.Runner` does."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        _complete(loop, asyncio.gather(*tasks, return_exceptions=True))
    for task in tasks:
        if not task.cancelled() and task.exception() is not None:
            message = "unhandled exception during LoopPool shutdown"
            loop.call_exception_handler(
                {"message": message, "exception": task.exception(), "task": task}
            )
    _complete(loop, loop.create_task(loop.shutdown_asyncgens()))
    # Up to CPython 3.12 an interpreter that leaves has no thread for this; by then it has waited for
    # those of the executor.
    with suppress(RuntimeError):
        _complete(loop, loop.create_task(loop.shutdown_default_executor()))


def _complete(loop: asyncio.AbstractEventLoop, work: asyncio.Future[Any]) -> None:
    """Runs the loop until `work` is done, also where others stop it or raise what ends the process."""
    work.add_done_callback(lambda _: loop.stop())
    while not work.done():
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()
    work.result()


def retire(lanes: Iterable[PoolLane]) -> None:
    """Has lanes end when what they have is done."""
    for lane in lanes:
        if not lane.forked:
            lane.retire()


def forget(lanes: Iterable[PoolLane]) -> None:
    """The same for a pool that is forgotten, on whichever thread that is noticed: the lanes' own
    retire them, as this one may have any lock."""
    for lane in lanes:
        if not lane.forked:
            lane.call(lane.retire)


def join(lanes: Iterable[PoolLane], timeout: float | None) -> None:
    """Waits for the threads, at most `timeout` seconds in all."""
    deadline = None if timeout is None else time.monotonic() + timeout
    for lane in lanes:
        if not lane.forked:
            lane.thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))


_live: set[PoolLane] = set()
"""Whose threads run: kept from being forgotten."""
_known: weakref.WeakSet[PoolLane] = weakref.WeakSet()
"""All there are, also those that have ended or have not begun."""


def _end_all() -> None:
    """At exit: cancels what still runs, and waits a while for it."""
    lanes = list(_live)
    retire(lanes)
    for lane in lanes:
        lane.cancel_all()
    join(lanes, _EXIT_PATIENCE)


def _after_fork() -> None:
    for lane in _known:
        lane.after_fork()
    _live.clear()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_after_fork)
