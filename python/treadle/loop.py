"""The event loop: asyncio's own, whose waiting is done by Tokio.

Everything of asyncio is inherited (transports, streams, TLS, subprocesses, executors, debug
mode); these seams are replaced: `call_soon` is native, `run_forever` hands the thread to the lane,
the selector never waits, and waking up from another thread goes through Tokio instead of a socket
pair.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
from asyncio import events, format_helpers
from collections.abc import Coroutine
from typing import Any, TypeVar

from treadle._treadle import Lane as NativeLane
from treadle._treadle import LoopCore, Outbox
from treadle.transports import make_socket_transport, make_tls_transport

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    """Never waits: Tokio watches this selector's own descriptor and says when to look."""

    found = False
    """The last look found something. Level-triggered: the loop looks again."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        self.found = bool(ready)
        return ready


class EventLoop(LoopCore, asyncio.SelectorEventLoop):  # type: ignore[misc]
    """An asyncio event loop on a lane; made and run on one thread.

    `lane` is the native lane to run on; without one the loop has a lane of its own.
    """

    def __init__(self, lane: NativeLane | None = None) -> None:
        if lane is None:
            lane = NativeLane(0)
        self._lane = lane
        selector = _Selector()
        self._lane_fd = selector.fileno()
        asyncio.SelectorEventLoop.__init__(self, selector)
        self._outbox = Outbox()
        self._note_ready(self._ready.append)  # type: ignore[attr-defined]
        try:
            lane.attach_loop(self)
        except BaseException:  # on another thread than the lane's
            asyncio.SelectorEventLoop.close(self)
            raise

    def run_forever(self) -> None:
        """Runs until `stop()`; sockets, HTTP connections and callbacks take turns."""
        with _Running(self):
            self._note_running(True)
            try:
                self._lane.run(self, self._lane_fd)
            finally:
                self._note_running(False)
                self._outbox.flush()

    def close(self) -> None:
        """Closes the loop, then drops what Tokio still runs on the lane."""
        if not self.is_closed() and not self.is_running():
            self._outbox.flush()
        super().close()
        self._note_closed()
        self._lane.close()

    def set_debug(self, enabled: bool) -> None:
        """Turns asyncio's debug mode on or off."""
        super().set_debug(enabled)
        self._note_debug(bool(enabled))

    def _call_soon_checked(self, *args: Any, context: Any = None) -> Any:
        """`call_soon` of a loop that is closed or in debug mode."""
        return asyncio.SelectorEventLoop.call_soon(self, *args, context=context)

    # Where asyncio makes the transports of stream sockets.
    _make_socket_transport = make_socket_transport
    _make_ssl_transport = make_tls_transport

    def _write_to_self(self) -> None:
        self._lane.wake()

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
        self.call_exception_handler(context)


def new_event_loop() -> EventLoop:
    """A new event loop, for wherever asyncio takes a `loop_factory`."""
    return EventLoop()


def run(main: Coroutine[Any, Any, T], *, debug: bool | None = None) -> T:
    """Runs `main` on a new event loop and gives its result, as `asyncio.run` does."""
    with asyncio.Runner(debug=debug, loop_factory=new_event_loop) as runner:
        return runner.run(main)


class _Running:
    """Marks the loop as the thread's running one, as asyncio's `run_forever` does."""

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    def __enter__(self) -> None:
        loop = self._loop
        if hasattr(loop, "_run_forever_setup"):  # CPython 3.13 on
            loop._run_forever_setup()
            return
        import threading

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
