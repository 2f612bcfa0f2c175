"""The application: routes, exception handlers, lifespans, state."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import isasyncgenfunction, iscoroutine
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from treadle._treadle import Route, RouteTable
from treadle.datastructures import State
from treadle.exception_handlers import ExceptionHandlers
from treadle.exceptions import RegistrationError
from treadle.lane import Lane
from treadle.routing import Declared, Router, Routes, under
from treadle.signature import origin

if TYPE_CHECKING:
    from treadle.run_options import RunOptions
    from treadle.telemetry import Stats

E_ = TypeVar("E_", bound=Callable[..., Any])
Lifespan = Callable[["App"], AbstractAsyncContextManager[None] | AsyncIterator[None]]
LaneLifespan = Callable[[Lane], AbstractAsyncContextManager[None] | AsyncIterator[None]]


class App(Routes):
    """A web application.

    lifespan: ``async def lifespan(app): ...; yield; ...``, entered once a process before it
    serves and left after its last answer. `lane_lifespan` is the same with the lane as argument,
    once for each lane, on the lane's own loop: connection pools belong there (`lane.state`).

    redirect_slashes: a path that only a slash at its end keeps from a route is answered with 307 to
    that route's path; otherwise, as any path without a route, with 404.
    """

    def __init__(
        self,
        *,
        lifespan: Lifespan | None = None,
        lane_lifespan: LaneLifespan | None = None,
        redirect_slashes: bool = False,
    ) -> None:
        self.state = State()
        self._table = RouteTable(redirect_slashes=redirect_slashes)
        self._exception_handlers = ExceptionHandlers()
        self._lifespan = lifespan
        self._lane_lifespan = lane_lifespan

    def lifespan(self, function: E_) -> E_:
        """Decorator: sets the process's lifespan."""
        self._lifespan = function
        return function

    def lane_lifespan(self, function: E_) -> E_:
        """Decorator: sets the lanes' lifespan."""
        self._lane_lifespan = function
        return function

    def exception_handler(self, kind: type[BaseException] | int) -> Callable[[E_], E_]:
        """Decorator: ``handler(request, exception)``, sync or async, answers for exceptions of
        `kind` and its subclasses; the nearest class wins.

        A status such as 404 stands for each HTTPException that has it, and is nearer than
        HTTPException itself. A handler of one of these two also answers requests for which there is
        no route (404, or 405 with ``exception.headers["allow"]``); one for RequestValidationError,
        or its status, those that do not fit their route. Raises RegistrationError for a `kind` that
        nothing can be of.
        """
        self._exception_handlers.check(kind)

        def register(handler: E_) -> E_:
            self._exception_handlers.add(kind, handler)
            return handler

        return register

    def include(self, router: Router, prefix: str = "") -> None:
        """Adds a router's routes, under `prefix` and the router's own.

        Raises RegistrationError when one collides with a route that is there, and adds none then.
        """
        declared = under(prefix, router)
        routes = [each.compile() for each in declared]
        if (collision := self._table.add_all(routes)) is not None:
            position, other = collision
            raise _collides(declared[position], routes[position], other)

    def run(self, **options: Unpack[RunOptions]) -> None:
        """Serves the application until SIGINT or SIGTERM.

        Takes the options of `treadle run` by name (`host`, `port`, `lanes`, `workers`, ...);
        what is not given comes from TREADLE_* variables, then from the defaults. Raises
        SystemExit with the status of `treadle run` when serving failed, `treadle.options.OptionError`
        (a ValueError) for an option that does not exist or a value that it does not take, and
        RuntimeError on another thread than the main one, and in a module that `treadle run` is
        importing: there it goes under ``if __name__ == "__main__":``.
        """
        from treadle.loading import refuse_to_run
        from treadle.options import Options
        from treadle.supervisor import run

        refuse_to_run()
        if status := run(self, Options.resolve(**options)):
            raise SystemExit(status)

    def stats(self) -> Stats:
        """What the lanes that serve this application in this process, and its routes, have counted.

        From any thread, at any time; it waits for nobody. The shapes are those of
        `treadle.telemetry.Stats`: times in seconds, sizes in bytes.
        """
        from treadle.telemetry import read

        return read(self)

    def _declare(self, declared: Declared) -> None:
        route = declared.compile()
        other = self._table.add(route)
        if other is not None:
            raise _collides(declared, route, other)

    def __repr__(self) -> str:
        return f"App({len(self._table.routes())} routes)"


def _collides(declared: Declared, route: Route, other: str) -> RegistrationError:
    what = f"{'/'.join(declared.methods)} {declared.path}"
    return RegistrationError(f"{route.origin}: {what} collides with {other}")


def stats() -> Stats:
    """What all lanes of this process, and the routes they serve, have counted since they started.

    From any thread, at any time; it waits for nobody. The shapes are those of
    `treadle.telemetry.Stats`: times in seconds, sizes in bytes. `App.stats` reads one app's.
    """
    from treadle.telemetry import read

    return read()


def context_manager(lifespan: Any, argument: Any) -> AbstractAsyncContextManager[None]:
    """A lifespan as a context manager, whether it is one or an async generator function."""
    if isasyncgenfunction(lifespan):
        lifespan = asynccontextmanager(lifespan)
    manager = lifespan(argument)
    if not hasattr(type(manager), "__aenter__"):
        if iscoroutine(manager):
            manager.close()  # nobody will await it
        raise TypeError(
            f"{origin(lifespan)}: a lifespan is `async def` with one `yield`, "
            "or what gives an async context manager"
        )
    return manager  # type: ignore[no-any-return]
