"""`LiveServer`: an app served by this process while a block runs."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

from treadle import monitor
from treadle.app import App
from treadle.binding import Binding, bind
from treadle.options import OptionError, Options
from treadle.process import STOP_MARGIN
from treadle.server import Server

if TYPE_CHECKING:
    from treadle.monitor.setup import Monitor

__all__ = ["LiveServer"]

_ELSEWHERE = ("workers", "log_level", "require_free_threading")
"""Options of a whole process, which a server inside another program has no say in."""


class LiveServer:
    """Serves `app` on a free port of 127.0.0.1 between enter and exit, sync or async.

    The options are those of `App.run`, with defaults of their own: `port=0`, `grace=1.0` and
    `stall_warning=0`, for a busy machine would log what is not the app's. The environment's
    `TREADLE_*` variables are not read, no signal is touched and no logging set up.

    An option that does not exist, and a value that it does not take, is an `OptionError` where the
    LiveServer is made. Entering runs the lifespans and returns once the server answers; it raises
    `StartupError` if they fail, `treadle.binding.BindError` if it cannot listen where it was told to,
    and stops what it began if it is cancelled. Leaving stops the server as a signal
    would, and raises `RuntimeError` if that goes wrong. An entered server may be used from any
    thread. It can be entered once.
    """

    __test__ = False  # for pytest: not a test case

    def __init__(self, app: App, *, lanes: int = 1, **options: Any) -> None:
        if not isinstance(app, App):
            raise TypeError(f"a LiveServer serves a treadle.App, not {app!r}")
        for name in _ELSEWHERE:
            if name in options:
                raise OptionError(f"a LiveServer has no option {name!r}.")
        given = {"port": 0, "grace": 1.0, "stall_warning": 0, **options}
        self.options = Options.resolve(env={}, lanes=lanes, **given)
        self._app = app
        self._binding: Binding | None = None
        self._server: Server | None = None
        self._starting: Server | None = None
        self._used = self._given_up = False
        self._opened = ExitStack()
        self.monitor: Monitor | None = None
        """What was asked to be shown of the server, while it runs."""

    def __repr__(self) -> str:
        return f"<LiveServer {self.url}>" if self._server is not None else "<LiveServer stopped>"

    # -- where it is --

    @property
    def url(self) -> str:
        """Base URL, such as `http://127.0.0.1:41235`; `http://localhost` on a Unix socket."""
        binding = self._bound()
        return "http://localhost" if binding.path is not None else binding.url

    @property
    def port(self) -> int:
        """The port it listens on. Raises `RuntimeError` on a Unix socket."""
        port = self._bound().port
        if port is None:
            raise RuntimeError("a server on a Unix socket has no port")
        return port

    @property
    def address(self) -> tuple[str, int] | str:
        """What to connect a socket to: host and port, or the path of the Unix socket."""
        return self._bound().address

    @property
    def server(self) -> Server:
        """The server that runs."""
        if self._server is None:
            raise RuntimeError("the LiveServer does not run: enter it with `with`")
        return self._server

    def _bound(self) -> Binding:
        if self._binding is None:
            raise RuntimeError("the LiveServer does not run: enter it with `with`")
        return self._binding

    # -- its life --

    def start(self) -> None:
        """What entering does.

        Raises `BindError` when an address or a Unix socket cannot be had, `OptionError` when the
        metrics that were asked for cannot be told, `StartupError` when a lifespan fails, and
        `RuntimeError` the second time.
        """
        if self._used:
            raise RuntimeError("a LiveServer can be entered once")
        self._used = True
        with ExitStack() as opened:
            binding = opened.enter_context(bind(self.options))
            self.monitor = opened.enter_context(monitor.asked_for(self._app, self.options))
            server = Server(self._app, self.options, binding.sockets, monitor=self.monitor)
            self._starting = server
            if self._given_up:
                server.drain()
            server.start()
            self._opened = opened.pop_all()
        self._binding, self._server = binding, server

    def stop(self) -> None:
        """What leaving does. Does nothing if the server does not run."""
        server = self._server
        if server is None:
            return
        self._binding = self._server = None
        try:
            server.drain()
            if not server.join(self.options.grace + STOP_MARGIN):
                raise RuntimeError("the server did not stop: something in the app blocks a lane")
        finally:
            self._opened.close()
        if server.failed:
            raise RuntimeError("the app failed while it ran or shut down; the log says how")

    def _give_up(self) -> None:
        """Ends a start that is under way, or yet to come."""
        self._given_up = True
        if self._starting is not None:
            self._starting.drain()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop()
        except RuntimeError:
            if kind is None:  # else the block's own exception says more
                raise

    async def __aenter__(self) -> Self:
        # In a thread: the app's lifespan may need what runs on the caller's loop.
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread goes on, and what it starts would be nobody's to stop.
            self._give_up()
            with suppress(Exception):
                await starting
                await asyncio.to_thread(self.stop)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await asyncio.to_thread(self.__exit__, kind)
