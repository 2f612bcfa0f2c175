"""Who answers for which exception.

Registered before the server starts and only read then, by every lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.exceptions import HTTPException, RegistrationError, RequestValidationError

__all__ = ["ExceptionHandlers"]

Handler = Callable[..., Any]


class ExceptionHandlers:
    """An application's exception handlers, by class and by status."""

    def __init__(self) -> None:
        self._handlers: dict[type[BaseException] | int, Handler] = {}

    def __bool__(self) -> bool:
        return bool(self._handlers)

    def check(self, kind: object) -> None:
        """Raises RegistrationError if nothing that is raised can be of that kind."""
        if isinstance(kind, int):
            if not 200 <= kind <= 999:
                raise RegistrationError(f"status {int(kind)} cannot be sent: use 200 to 999")
            if kind == 500:
                raise RegistrationError(
                    "an exception that nobody handles has no status yet: "
                    "register a handler for Exception instead of 500"
                )
        elif not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise RegistrationError(f"{kind!r} is neither an exception class nor a status")

    def add(self, kind: type[BaseException] | int, handler: Handler) -> None:
        """From now on `handler` answers for `kind`. Raises RegistrationError for what cannot."""
        if not callable(handler):
            raise RegistrationError(f"{handler!r} is not callable")
        self._handlers[kind] = handler

    def find(self, error: BaseException) -> Handler | None:
        """The handler of the nearest class; a status is nearer than HTTPException itself."""
        for kind in type(error).__mro__:
            if kind is HTTPException:
                handler = self._handlers.get(error.status)  # type: ignore[attr-defined]
                if handler is not None:
                    return handler
            handler = self._handlers.get(kind)
            if handler is not None:
                return handler
        return None

    # What follows stands for answers that no handler of a route gives. A handler for a class that is
    # wider than theirs does not change them: it was registered for failures, and these are none.

    def takes_no_route(self) -> bool:
        """Whether `no_route` may give an exception."""
        return not self._handlers.keys().isdisjoint((HTTPException, 404, 405))

    def no_route(self, status: int, allow: str | None) -> HTTPException | None:
        """The exception for a request that met no route, if there is a handler for it.

        status: 404, or 405 with the methods that are allowed.
        """
        if self._handlers.keys().isdisjoint((HTTPException, status)):
            return None
        return HTTPException(status, headers=None if allow is None else {"allow": allow})

    def takes_invalid(self) -> bool:
        """Whether `invalid` may give an exception."""
        return not self._handlers.keys().isdisjoint((RequestValidationError, 400, 422))

    def invalid(self, status: int, detail: Any) -> RequestValidationError | None:
        """The exception for a request that does not fit its handler, if there is a handler for it.

        status: 422, or 400 for a body that is not JSON.
        """
        if self._handlers.keys().isdisjoint((RequestValidationError, status)):
            return None
        return RequestValidationError(status, detail)
