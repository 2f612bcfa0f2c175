"""One process's lanes: starting them together, stopping them in order.

The stop, each step on every lane before the next begins on it:

1. `drain()`: listening sockets close; what the kernel had queued is still taken.
2. Idle connections close; open ones get `Connection: close` with their answer.
3. Handlers have the grace period, those on the pool too; what then still runs of them and of the
   Tasks they began is cancelled and its connection closed. A Task that a lifespan began is the
   lifespan's to end.
4. The lane's lifespan ends, then its loop.
5. When all other lanes have ended, lane 0 ends the process's lifespan.
6. The pool ends. A handler that hangs there cannot be cancelled: it is named, and left behind.

A lifespan's end that raises, whatever it raises, is logged, and the rest still runs.

Threads: `start` and `join` are called by one thread, `drain` by any; each lane runs on a thread of
its own. What they tell each other goes through `concurrent.futures.Future`s, each set once.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import weakref
from concurrent.futures import Future
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from time import monotonic
from typing import TYPE_CHECKING, Any

from treadle import offload, stall
from treadle._treadle import Acceptor, HttpConfig, LaneServer, Meter
from treadle._treadle import Lane as NativeLane
from treadle.app import App, context_manager
from treadle.exceptions import ClientDisconnect, HTTPException, StartupError
from treadle.lane import Lane
from treadle.loop import EventLoop
from treadle.signature import origin
from treadle.streaming import pump

if TYPE_CHECKING:
    from treadle.monitor.setup import Monitor
    from treadle.options import Options

logger = logging.getLogger("treadle")

_running: weakref.WeakSet[Server] = weakref.WeakSet()
_running_lock = threading.Lock()


def running() -> list[Server]:
    """The servers of this process that have been started and are still there."""
    with _running_lock:
        return list(_running)


CANCEL_MARGIN = 1.0
"""Seconds that cancelled handlers have for their `finally` blocks."""

_of_lifespan: ContextVar[bool] = ContextVar("treadle_of_lifespan")
"""Set where a lane's lifespans run, and so in what they begin, but not where requests are handled."""


class Server:
    """The lanes of one process, serving `app` on listening sockets that it takes over."""

    def __init__(
        self,
        app: App,
        options: Options,
        sockets: list[socket.socket],
        *,
        worker: int = 0,
        monitor: Monitor | None = None,
    ) -> None:
        self.app = app
        self.options = options
        self.worker = worker
        self.monitor = monitor
        """What answers for the server while it starts, serves and stops."""
        self.table = app._table if monitor is None or monitor.table is None else monitor.table
        self.failed = False
        """A lane died, or a lifespan's shutdown raised; both are in the log."""
        self.config = HttpConfig(
            limit_body=options.limit_body,
            limit_connections=options.limit_connections,
            limit_concurrency=options.limit_concurrency,
            timeout_header=options.timeout_header,
            timeout_keep_alive=options.timeout_keep_alive,
            timeout_request=options.timeout_request,
            timeout_write=options.timeout_write,
            access_log=options.access_log,
            telemetry=options.telemetry,
        )
        self.left_behind = False
        """A handler on the pool still ran when all else had ended; the log names it."""
        self.pool = offload.Pool(options.offload_threads)
        """Runs the handlers registered with offload=True."""
        self.stop: Future[None] = Future()
        self.others_ended: Future[None] = Future()
        self._sockets = sockets
        self._acceptor: Acceptor | None = None
        self._stalls: stall.Watcher | None = None
        self._lanes = [_LaneThread(self, index) for index in range(options.lanes)]
        self._lock = threading.Lock()
        self._stopping = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Starts the lanes: the process's lifespan, the lanes' lifespans, then accepting.

        Raises StartupError, after undoing what was done, when a lifespan raises; its cause is what
        was raised.
        """
        first, *others = self._lanes
        with _running_lock:
            _running.add(self)
        try:
            if self.monitor is not None:
                self.monitor.start(self.worker)
            if any(route.mode == "offload" for route in self.table.routes()):
                self.pool.start()
            first.start()
            first.ready.result()
            for lane in others:
                lane.start()
            for lane in others:
                lane.ready.result()
            if self.options.stall_warning > 0:
                limit = self.options.stall_warning
                self._stalls = stall.Watcher(self.meters(), self.table.routes(), limit)
                self._stalls.start()
            self._accept()
        except BaseException as error:
            brief = _brief(error, told=self.stop.done())
            self.drain()
            self.join()
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise StartupError(f"the server did not start: {brief}") from error

    def drain(self) -> None:
        """Begins the stop and returns at once; from any thread, again without effect."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            acceptor = self._acceptor
        if acceptor is not None:
            acceptor.stop()
        for lane in self._lanes:
            lane.cancel_start()
        self.stop.set_result(None)

    def join(self, timeout: float | None = None) -> bool:
        """Waits until all lanes have ended; False when `timeout` (seconds) ran out before."""
        deadline = None if timeout is None else monotonic() + timeout
        first, *others = self._lanes
        for lane in (*others, first):
            if lane is first and not self.others_ended.done():
                self.others_ended.set_result(None)
            if lane.ident is not None:
                lane.join(None if deadline is None else max(0.0, deadline - monotonic()))
                if lane.is_alive():
                    return False
        if self._stalls is not None:
            self._stalls.stop()
        if self._acceptor is not None:
            self._acceptor.join()
        if self.monitor is not None:
            self.monitor.stop()
        for sock in self._sockets:
            sock.close()
        self._close_pool()
        return True

    def _close_pool(self) -> None:
        """Handlers that still run on it are not waited for any longer: the grace is over."""
        running = self.pool.close()
        for thread, job in running.items():
            self.left_behind = True
            number, method, route = job.request
            logger.warning(
                "request %d: %s %s (%s) still runs on a thread of the pool after the grace period "
                "of %g s; it is left behind\n%s",
                number,
                method,
                route,
                origin(job.handler),
                self.options.grace,
                stall.spell(stall.stack_of(thread.ident or 0)),
            )

    def lane_servers(self) -> list[LaneServer]:
        """Those of the lanes that serve."""
        return [lane.native for lane in self._lanes if lane.native is not None]

    def meters(self) -> list[Meter]:
        """What is counted of the lanes that serve."""
        return [server.meter for server in self.lane_servers()]

    def _accept(self) -> None:
        """Hands the listening sockets to the lane, or to the acceptor of several."""
        fds = [sock.detach() for sock in self._sockets]
        with self._lock:
            if self._stopping:
                for fd in fds:
                    socket.close(fd)
                return
            if len(self._lanes) == 1:
                self._lanes[0].call(LaneServer.listen, fds)
            else:
                self._acceptor = Acceptor(fds, self.lane_servers(), self.config)


class _LaneThread(threading.Thread):
    """One lane: the thread, its loop, and its part of the server's life."""

    def __init__(self, server: Server, index: int) -> None:
        super().__init__(name=f"treadle-lane-{index}", daemon=True)
        self.server = server
        self.index = index
        self.ready: Future[None] = Future()
        """Set when the lane can serve; its exception is why it cannot."""
        self.native: LaneServer | None = None
        self.face = Lane(index)
        self._loop: EventLoop | None = None
        self._starting: asyncio.Task[None] | None = None
        self._begun_before: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
        """The Tasks there were when the lane began to serve."""

    def call(self, function: Any, *args: Any) -> None:
        """Calls `function(native server, *args)` on the lane and waits for it."""
        done: Future[None] = Future()

        def run() -> None:
            try:
                function(self.native, *args)
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(None)

        assert self._loop is not None, "called before the lane was ready"
        self._loop.call_soon_threadsafe(run)
        done.result()

    def cancel_start(self) -> None:
        """Cancels a lifespan that has not finished starting; from any thread."""
        loop = self._loop
        if loop is None or self._starting is None or self.ready.done():
            return

        def cancel() -> None:
            if self._starting is not None and not self.ready.done():
                self._starting.cancel()

        # RuntimeError: the loop has been closed meanwhile, the lane has ended.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(cancel)

    def run(self) -> None:
        """The thread's whole life."""
        try:
            native = NativeLane(self.index)
            with asyncio.Runner(loop_factory=lambda: EventLoop(native)) as runner:
                self._loop = runner.get_loop()  # type: ignore[assignment]
                runner.run(self._main(native))
        except BaseException as error:
            if not self.ready.done():
                self.ready.set_exception(error)
            else:
                self.server.failed = True
                logger.error("lane %d ended", self.index, exc_info=error)
                self.server.drain()

    async def _main(self, native: NativeLane) -> None:
        self._starting = asyncio.current_task()
        _of_lifespan.set(True)
        process = AsyncExitStack()
        lane = AsyncExitStack()
        try:
            await self._enter(process, lane)
            self.native = self._assemble(native)
        except BaseException as error:
            # What is being undone already is not broken into.
            self._starting = None
            await self._leave(lane)
            await self._leave(process)
            self.ready.set_exception(error)
            return
        self._begun_before = weakref.WeakSet(asyncio.all_tasks())
        self.ready.set_result(None)
        try:
            await _told(self.server.stop)
            await self._drain(self.native)
        except BaseException:
            # Not told to, so the app ended its lane's loop or this Task: the others end with it,
            # and lane 0 waits for them below.
            self.server.drain()
            raise
        finally:
            await self._leave(lane)
            if self.index == 0:
                await _told(self.server.others_ended)
                await self._leave(process)
            self.native.release()

    async def _enter(self, process: AsyncExitStack, lane: AsyncExitStack) -> None:
        app = self.server.app
        if self.server.stop.done():
            raise asyncio.CancelledError
        if self.index == 0 and app._lifespan is not None:
            await process.enter_async_context(context_manager(app._lifespan, app))
        if app._lane_lifespan is not None:
            await lane.enter_async_context(context_manager(app._lane_lifespan, self.face))

    async def _leave(self, stack: AsyncExitStack) -> None:
        try:
            await stack.aclose()
        # A CancelledError, too: it is that of a Task that the lifespan cancelled and awaited, or
        # the lane's loop is being closed. Either way the rest has yet to end.
        except BaseException:
            self.server.failed = True
            logger.exception("a lifespan failed while shutting down")

    def _assemble(self, native: NativeLane) -> LaneServer:
        app = self.server.app
        handlers = app._exception_handlers
        return LaneServer(
            native,
            self.server.table,
            self.server.config,
            app=app,
            face=self.face,
            find_handler=handlers.find if handlers else None,
            pump=pump,
            report=report,
            http_exception=HTTPException,
            no_route=handlers.no_route if handlers.takes_no_route() else None,
            invalid=handlers.invalid if handlers.takes_invalid() else None,
            disconnect=ClientDisconnect,
            submit=self.server.pool.submit,
        )

    async def _drain(self, native: LaneServer) -> None:
        await native.stop_accepting()
        # Weakly: a Task that ends meanwhile is not kept.
        before = weakref.WeakSet(asyncio.all_tasks())
        native.drain()
        try:
            async with asyncio.timeout(self.server.options.grace):
                await native.wait_idle()
                # Handlers that go on without their client have the same grace.
                while native.running:
                    await _first_of(asyncio.all_tasks() - {asyncio.current_task()})
                await asyncio.wrap_future(self.server.pool.idle())
        except TimeoutError:
            native.abort()
            # A connection that closes cancels its handler, and says why.
            with suppress(TimeoutError):
                async with asyncio.timeout(CANCEL_MARGIN):
                    await native.wait_idle()
            tasks = {task for task in asyncio.all_tasks() if self._is_of_handlers(task)}
            for task in tasks & set(before):
                # Once is enough: a second one would break into the `finally` of the first.
                if not task.cancelling():
                    task.cancel()
            if tasks:
                await asyncio.wait(tasks, timeout=CANCEL_MARGIN)

    def _is_of_handlers(self, task: asyncio.Task[Any]) -> bool:
        """Whether a handler runs in `task` or began it, as opposed to the lane and its lifespans."""
        return task not in self._begun_before and not task.get_context().get(_of_lifespan)


async def _told(news: Future[None]) -> None:
    """Waits for `news`, which is for all lanes: one that dies waiting does not cancel it."""
    loop = asyncio.get_running_loop()
    here = loop.create_future()

    def arrived() -> None:
        if not here.done():
            here.set_result(None)

    def tell(_: object) -> None:
        # RuntimeError: the loop has been closed meanwhile, the lane has ended.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(arrived)

    news.add_done_callback(tell)
    await here


async def _first_of(tasks: set[Any]) -> None:
    if tasks:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    else:
        await asyncio.sleep(0)


def report(error: BaseException, request: int, method: str, route: str, origin: str) -> None:
    """Logs an exception that no handler took: the client got 500 and nothing of it."""
    logger.error(
        "request %d: %s %s (%s) failed",
        request,
        method,
        route,
        origin,
        exc_info=(type(error), error, error.__traceback__),
    )


def _brief(error: BaseException, *, told: bool) -> str:
    """Why a start failed; `told`: somebody had told the server to stop by then."""
    if isinstance(error, asyncio.CancelledError):
        return "it was told to stop" if told else "a lifespan raised CancelledError"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
