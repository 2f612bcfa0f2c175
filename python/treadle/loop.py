"""The event loop: asyncio's own surface on a native core.

The ready queue, handles, timers and watched descriptors are native (`LoopCore`); Tokio does the
waiting. Transports, TLS, subprocesses, signals, executors, async generators and the debug mode's
checks are inherited from asyncio.
"""

from __future__ import annotations

import asyncio
import selectors
import signal
import sys
import threading
import traceback
from asyncio import SelectorEventLoop, base_events, events, format_helpers, selector_events
from collections.abc import Coroutine, Mapping
from contextlib import nullcontext, suppress
from typing import Any

from treadle._treadle import Handle, LoopCore, Outbox
from treadle._treadle import Lane as NativeLane
from treadle.polling import busy_poll
from treadle.reporting import report
from treadle.transports import (
    SocketTransport,
    make_socket_transport,
    make_tls_transport,
    start_tls,
)


class _Watched:
    """Stands where asyncio keeps its selector; the native loop watches descriptors itself."""

    def __init__(self, loop: EventLoop) -> None:
        self._loop = loop

    def get_map(self) -> Mapping[int, selectors.SelectorKey]:
        """What is watched, by number, as a selector shows it."""
        keys = {}
        for fd, reader, writer in self._loop._watched():
            mask = selectors.EVENT_READ * bool(reader) | selectors.EVENT_WRITE * bool(writer)
            keys[fd] = selectors.SelectorKey(fd, fd, mask, (reader, writer))
        return keys

    def get_key(self, descriptor: Any) -> selectors.SelectorKey:
        """How `descriptor`, a number or an object that has one, is watched; else KeyError."""
        number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
        try:
            return self.get_map()[number]
        except KeyError:
            raise KeyError(f"{descriptor!r} is not registered") from None

    def close(self) -> None:
        """The loop closes its own descriptors."""


class EventLoop(LoopCore, SelectorEventLoop):  # type: ignore[misc]
    """An asyncio event loop on a lane.

    It runs on one thread at a time, any thread; but open connections and suspended Rust futures
    stay with their thread, so that a loop which has some refuses to run on another. `lane` is the
    native lane to run on; without one the loop has a lane of its own.

    Another `time`, in a derived class or set on the loop, is its clock: timers go by it.
    """

    def __init__(self, lane: NativeLane | None = None) -> None:
        self._note_time()
        try:
            self._lane = NativeLane(None, busy_poll()) if lane is None else lane
            SelectorEventLoop.__init__(self, _Watched(self))  # type: ignore[arg-type]
        except BaseException:
            self._close_core()  # nothing is left of it for its end to close
            raise
        self._outbox = Outbox()
        self._ran_on: threading.Thread | None = None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} running={self.is_running()} closed={self.is_closed()} "
            f"debug={self.get_debug()} on {self._lane.name}>"
        )

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name == "time":
            self._note_time()

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        if name == "time":
            self._note_time()

    def run_forever(self) -> None:
        """Runs until `stop()`; sockets, HTTP connections and callbacks take turns."""
        self._refuse_to_move()
        on_main = threading.current_thread() is threading.main_thread()
        with _Running(self), _Signals(self) if on_main else nullcontext():
            self._note_running(True)
            try:
                self._lane.run(self, on_main)
            finally:
                self._note_running(False)
                self._outbox.flush()

    def _refuse_to_move(self) -> None:
        """Raises RuntimeError when connections are open on another thread, where the loop ran."""
        here = threading.current_thread()
        if self._ran_on is here or self.is_running():
            return
        open_there = sum(
            isinstance(known, SocketTransport) and known._sock is not None and known._is_elsewhere()
            for known in list(self._transports.values())  # type: ignore[attr-defined]
        )
        if open_there:
            raise RuntimeError(
                f"{open_there} connection(s) are open on another thread, where the event loop ran: "
                f"it cannot run on thread {here.name} before they are closed"
            )
        self._ran_on = here

    def close(self) -> None:
        """Closes the loop, then drops what Tokio still runs on the lane."""
        if not self.is_closed() and not self.is_running():
            self._outbox.flush()
            if threading.current_thread() is threading.main_thread():
                # Whoever has the number next is no place for signals.
                _unlisten(self._csock.fileno())  # type: ignore[attr-defined]
        SelectorEventLoop.close(self)
        for transport in list(self._transports.values()):  # type: ignore[attr-defined]
            if isinstance(transport, SocketTransport):
                with suppress(RuntimeError):  # of another thread, which alone can
                    transport._leave()
        self._close_core()
        self._lane.close()

    def set_debug(self, enabled: bool) -> None:
        """Turns asyncio's debug mode on or off."""
        SelectorEventLoop.set_debug(self, enabled)
        self._note_debug(bool(enabled))

    def set_task_factory(self, factory: Any) -> None:
        """Has `factory(loop, coro, **kwargs)` make the Tasks of `create_task`; None: asyncio's."""
        SelectorEventLoop.set_task_factory(self, factory)
        self._note_task_factory(factory is not None)

    def remove_reader(self, fd: Any) -> bool:
        """Stops watching `fd` for reading; whether it was watched. ValueError for a negative one."""
        self._check_descriptor(fd)
        return SelectorEventLoop.remove_reader(self, fd)

    def remove_writer(self, fd: Any) -> bool:
        """Stops watching `fd` for writing; whether it was watched. ValueError for a negative one."""
        self._check_descriptor(fd)
        return SelectorEventLoop.remove_writer(self, fd)

    def remove_signal_handler(self, sig: int) -> bool:
        """Removes the handler of a signal; whether there was one."""
        removed = SelectorEventLoop.remove_signal_handler(self, sig)
        if removed and self.is_running():
            _listen(self._csock.fileno())  # type: ignore[attr-defined]
        return removed

    def _check_descriptor(self, fd: Any) -> None:
        # Not in `_remove_reader`: closing, the loop gives that its own sockets, which may be gone.
        if isinstance(fd, int) and fd < 0 and not self.is_closed():
            raise ValueError(f"Invalid file descriptor: {fd}")

    # Where asyncio makes the transports of stream sockets.
    _make_socket_transport = make_socket_transport
    _make_ssl_transport = make_tls_transport
    start_tls = start_tls

    # What the native half leaves to asyncio: debug mode, and what a closed loop answers.

    def _create_future_elsewhere(self) -> asyncio.Future[Any]:
        return SelectorEventLoop.create_future(self)

    def _create_task_checked(self, *args: Any, **keywords: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = SelectorEventLoop.create_task(self, *args, **keywords)
        _forget_own_frames(task)
        return task

    def _call_soon_checked(self, *args: Any, context: Any = None) -> Any:
        handle = SelectorEventLoop.call_soon(self, *args, context=context)
        _forget_own_frames(handle)
        return handle

    def _call_soon(self, callback: Any, args: Any, context: Any) -> Any:
        handle = events.Handle(callback, args, self, context)
        if handle._source_traceback:  # type: ignore[attr-defined]
            del handle._source_traceback[-1]  # type: ignore[attr-defined]
        self._add_callback(handle)
        return handle

    def _call_soon_threadsafe_checked(
        self, callback: Any, *args: Any, context: Any = None
    ) -> events.Handle:
        self._check_closed()  # type: ignore[attr-defined]
        self._check_callback(callback, "call_soon_threadsafe")  # type: ignore[attr-defined]
        kind = getattr(events, "_ThreadSafeHandle", events.Handle)
        handle: events.Handle = kind(callback, args, self, context)
        _forget_own_frames(handle)
        self._add_callback(handle)
        return handle

    def _call_at_checked(
        self, when: float, callback: Any, *args: Any, context: Any = None
    ) -> events.TimerHandle:
        self._check_closed()  # type: ignore[attr-defined]
        self._check_thread()  # type: ignore[attr-defined]
        self._check_callback(callback, "call_at")  # type: ignore[attr-defined]
        timer = events.TimerHandle(when, callback, args, self, context)
        _forget_own_frames(timer)
        timer._scheduled = True  # type: ignore[attr-defined]
        self._add_timer(when, timer)
        return timer

    def _run_handle(self, handle: Any) -> None:
        """Runs a handle of asyncio's, as its own loop does."""
        if handle._cancelled:
            return
        self._current_handle = handle
        # Cancelled by its own callback, as a reader that takes itself away, a handle of asyncio's
        # knows in debug mode what it was; a native one does not.
        callback, args = handle._callback, handle._args
        started = self.time()
        try:
            handle._run()
            took = self.time() - started
            if self.get_debug() and took >= self.slow_callback_duration:
                if handle._callback is None and isinstance(handle, Handle):
                    source = format_helpers._format_callback_source(callback, args)
                    described: str = f"<Handle cancelled {source}{_created_at(handle)}>"
                else:
                    described = base_events._format_handle(handle)  # type: ignore[attr-defined]
                base_events.logger.warning(  # type: ignore[attr-defined]
                    "Executing %s took %.3f seconds", described, took
                )
        finally:
            self._current_handle = None
            # The traceback of what was raised inside refers to this frame.
            del handle, callback, args

    def _report_callback_error(self, handle: Any, error: BaseException) -> None:
        """What `Handle._run` does with an exception."""
        callback = format_helpers._format_callback_source(handle._callback, handle._args)
        context: dict[str, Any] = {
            "message": f"Exception in callback {callback}",
            "exception": error,
            "handle": handle,
        }
        if handle._source_traceback:
            context["source_traceback"] = handle._source_traceback
        report(self, context)

    def _callers_stack(self) -> list[traceback.FrameSummary]:
        """Where `add_reader` or `add_writer` was called."""
        stack: list[traceback.FrameSummary] = format_helpers.extract_stack(sys._getframe(1))
        while stack and stack[-1].filename in {*_OWN_FILES, selector_events.__file__}:
            del stack[-1]
        return stack


_OWN_FILES = {__file__, events.__file__, base_events.__file__}


def _forget_own_frames(made: Any) -> None:
    """Takes the loop's frames off the stack that debug mode keeps: the caller's is the last."""
    stack = getattr(made, "_source_traceback", None)
    while stack and stack[-1].filename in _OWN_FILES:
        del stack[-1]


def _created_at(handle: Handle) -> str:
    """What asyncio adds to a handle's description in debug mode."""
    if not handle._source_traceback:
        return ""
    frame = handle._source_traceback[-1]
    return f" created at {frame.filename}:{frame.lineno}"


def new_event_loop() -> EventLoop:
    """A new event loop, for wherever asyncio takes a `loop_factory`.

    Tokio cannot start anew in a child process that was forked inside a running loop: there it is
    asyncio's own loop.
    """
    if events._get_running_loop() is None and not NativeLane.can_run_here():
        return SelectorEventLoop()  # type: ignore[return-value]
    return EventLoop()


def run[T](main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Runs `main` on a new event loop and gives its result, as `asyncio.run` does.

    Raises `RuntimeError` where an event loop runs already.
    """
    if events._get_running_loop() is not None:
        # Before there is a loop: closing one, as a Runner does, takes a thread where none runs.
        raise RuntimeError("treadle.run() cannot be called from a running event loop")
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)


class _Signals:
    """Has signals wake the loop while it runs on the main thread.

    A signal ends the lane's sleep, and the lane runs Python's handlers. But the system may give a
    signal to another thread: the byte that the interpreter writes into the loop's own socket pair
    wakes it then as well. A program that set a descriptor of its own keeps that, as with asyncio.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        self._fd = self._loop._csock.fileno()
        _listen(self._fd)

    def __exit__(self, *_: object) -> None:
        if not self._loop._signal_handlers:  # asked now: the run may have removed the last
            _unlisten(self._fd)


def _listen(fd: int) -> None:
    """Has signals written to `fd`, unless they are to another already."""
    current = signal.set_wakeup_fd(fd, warn_on_full_buffer=False)
    if current not in (-1, fd):
        _give_back(current)


def _unlisten(fd: int) -> None:
    """Has signals not written to `fd` any more; to another they still are."""
    current = signal.set_wakeup_fd(-1)
    if current not in (-1, fd):
        _give_back(current)


def _give_back(fd: int) -> None:
    with suppress(OSError):  # whoever set it has closed it since
        signal.set_wakeup_fd(fd)


class _Running:
    """Marks the loop as the thread's running one, as asyncio's `run_forever` does."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        loop = self._loop
        if hasattr(loop, "_run_forever_setup"):  # CPython 3.13 on
            loop._run_forever_setup()
            return
        loop._check_closed()
        loop._check_running()
        loop._set_coroutine_origin_tracking(loop._debug)
        self._agen_hooks = sys.get_asyncgen_hooks()
        loop._thread_id = threading.get_ident()
        sys.set_asyncgen_hooks(
            firstiter=loop._asyncgen_firstiter_hook, finalizer=loop._asyncgen_finalizer_hook
        )
        events._set_running_loop(loop)

    def __exit__(self, *_: object) -> None:
        loop = self._loop
        if hasattr(loop, "_run_forever_cleanup"):
            loop._run_forever_cleanup()
            return
        loop._stopping = False
        loop._thread_id = None
        events._set_running_loop(None)
        loop._set_coroutine_origin_tracking(False)
        sys.set_asyncgen_hooks(*self._agen_hooks)
