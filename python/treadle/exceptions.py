"""Exceptions that Treadle raises or understands.

TreadleError
├── RegistrationError   a mistake in a route, found when it is registered
└── StartupError        the server did not start; its cause is the application's exception
HTTPException           an answer: raise it to end the handler with a status
└── RequestValidationError  a request that does not fit its handler, for an exception handler
ClientDisconnect        the client left while the handler read from it or wrote to it
"""

from collections.abc import Mapping
from typing import Any

from treadle._treadle import JSONResponse, Response


class TreadleError(Exception):
    """Base of the mistakes that Treadle reports to its user."""


class RegistrationError(TreadleError):
    """A route cannot work; the text names the handler's file and line and what to change."""


class StartupError(TreadleError):
    """The server did not start. `__cause__` is what the application raised."""


class HTTPException(Exception):
    """Ends a handler with `status` (200 to 999) and a JSON body ``{"detail": detail}``.

    `detail` is anything that can be encoded as JSON; the status's own phrase by default.
    """

    def __init__(
        self, status: int, detail: Any = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = _phrase(status) if detail is None else detail
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.status}: {self.detail}"

    def response(self) -> Response:
        """The response that stands for this exception.

        Raises ValueError for a status or a header that cannot be sent.
        """
        if self.status in (204, 304):
            return Response(status=self.status, headers=self.headers)
        return JSONResponse({"detail": self.detail}, self.status, self.headers)


class RequestValidationError(HTTPException):
    """A request whose values do not fit the handler's signature, or whose body is not JSON.

    It goes to the exception handler that is registered for this class itself; without one the client
    gets `status` (422, or 400) and ``{"detail": detail}``. `detail` is a list of ``{"loc": [place,
    step, ...], "msg": reason}``, or for a body that is not JSON a text. The steps lead to the value:
    names of fields and positions in lists, and ``"*"`` for a value in a `dict`, since msgspec does not
    tell under which key it is.
    """


class ClientDisconnect(OSError):
    """The client left before its request was read or its response was sent.

    A handler is told once: a Task that gets this from its own read is not cancelled as well.
    """


def _phrase(status: int) -> str:
    from http import HTTPStatus

    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
