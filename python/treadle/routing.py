"""Routes: what App and Router have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypedDict, TypeVar, Unpack

from msgspec import Struct
from msgspec.structs import replace

from treadle import signature
from treadle._treadle import Route
from treadle.exceptions import RegistrationError

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
"""Those that a route can answer."""

_KINDS = (
    ("status", int, "an integer"),
    ("limit_body", int, "a number of bytes"),
    ("offload", bool, "True or False"),
    ("cancel_on_disconnect", bool, "True or False"),
)
"""What the options of a route are, timeouts left out."""

Handler = Callable[..., Any]
H = TypeVar("H", bound=Handler)


class RouteOptions(TypedDict, total=False):
    """What can be said of a route besides path and method.

    status: HTTP status of plain results (default 200; 204 for None).
    timeout: seconds until the client gets 504 and the Task is cancelled: for the body to arrive and
        the answer to start. A `def` handler that runs on the lane cannot be ended by it.
    limit_body: bytes of request body taken, instead of the server's limit; 0 is none, not no limit.
    offload: call a blocking `def` handler on the thread pool.
    cancel_on_disconnect: False lets the handler finish when its client leaves (not when its time is
        up); what it streams is closed all the same. A client that has only sent its end (`nc -N`)
        is answered then; otherwise it counts as one that left, because the two look alike.
    """

    status: int
    timeout: float
    limit_body: int
    offload: bool
    cancel_on_disconnect: bool


class Declared(Struct, frozen=True):
    """A route as declared: kept so that a Router can be included under a prefix."""

    path: str
    methods: tuple[str, ...]
    handler: Handler
    options: RouteOptions
    caller_locals: dict[str, Any]

    def compile(self) -> Route:
        """The native route.

        Raises RegistrationError, with the handler's file and line.
        """
        options = dict(self.options)
        place = signature.origin(self.handler)
        try:
            self._check()
            mode = signature.mode(self.handler, offload=bool(options.pop("offload", False)))
            methods = list(self.methods)
            if mode == "inline" and "timeout" in options and not signature.has_body(methods):
                raise signature.SignatureError(
                    "timeout= cannot end a `def` handler that runs on the lane: "
                    "make it async, or register it with offload=True"
                )

            def make(params: list[Any]) -> Route:
                return Route(
                    self.path,
                    methods,
                    self.handler,
                    mode=mode,
                    params=params,
                    origin=place,
                    **options,  # type: ignore[arg-type]
                )

            path_params = make([]).path_params
            return make(signature.params(self.handler, path_params, methods, self.caller_locals))
        except RecursionError:
            reason = "an alias in its annotations refers to itself; write Any there"
        except (
            signature.SignatureError,
            ValueError,
            TypeError,
            NameError,
            OverflowError,
        ) as error:
            reason = str(error)
        what = f"{'/'.join(self.methods)} {self.path}"
        raise RegistrationError(f"{place}: cannot answer {what}: {reason}")

    def _check(self) -> None:
        if not self.methods:
            raise signature.SignatureError("it has no methods")
        for position, method in enumerate(self.methods):
            if method not in METHODS:
                raise signature.SignatureError(
                    f"{method} is not a method that can be routed ({', '.join(METHODS)})"
                )
            if method in self.methods[:position]:
                raise signature.SignatureError(f"{method} is named twice")
        for name in self.options:
            if name not in RouteOptions.__optional_keys__:
                from difflib import get_close_matches

                close = get_close_matches(name, RouteOptions.__optional_keys__, 1)
                hint = f"; did you mean {close[0]!r}?" if close else ""
                raise signature.SignatureError(f"there is no option {name!r}{hint}")
        timeout = self.options.get("timeout", 1.0)
        if not isinstance(timeout, (int, float)):
            kind = type(timeout).__name__
            raise signature.SignatureError(f"timeout must be a number of seconds, not {kind}")
        for option, type_, spelled in _KINDS:
            value = self.options.get(option)
            if value is not None and not isinstance(value, type_):
                raise signature.SignatureError(
                    f"{option} must be {spelled}, not {type(value).__name__}"
                )
        if (self.options.get("limit_body") or 0) < 0:
            raise signature.SignatureError("limit_body must not be negative")
        status = self.options.get("status", 200)
        if isinstance(status, int) and not 200 <= status <= 999:
            raise signature.SignatureError(f"status {status} cannot be sent: use 200 to 999")


def check_prefix(prefix: str) -> None:
    """Raises RegistrationError for what cannot stand before a path."""
    if prefix and (not prefix.startswith("/") or prefix.endswith("/")):
        raise RegistrationError(f"prefix {prefix!r} must start with '/' and must not end with one")


def under(prefix: str, router: Router) -> list[Declared]:
    """The routes of `router`, each under `prefix`. Raises RegistrationError if that cannot be."""
    if not isinstance(router, Router):
        raise RegistrationError(f"only a Router can be included, not {router!r}")
    check_prefix(prefix)
    return [replace(declared, path=prefix + declared.path) for declared in router.declared]


class _Decorator(Protocol):
    def __call__(self, handler: H, /) -> H: ...


class Routes:
    """The decorators; subclasses say what becomes of a declared route."""

    def _declare(self, declared: Declared) -> None:
        raise NotImplementedError

    def route(
        self, path: str, methods: Sequence[str], **options: Unpack[RouteOptions]
    ) -> _Decorator:
        """Registers a handler for `path` and several methods; see `RouteOptions`.

        Of the routes that match, the most specific one answers: the first segment that differs
        decides, text before `{name}` before `{rest:path}`; the order of registration does not
        matter. A request matches however its path is escaped (`/a:b`, `/a%3Ab`), but `%2F` separates no
        segments; parameters are decoded once.

        Raises RegistrationError at the decorated handler when the route cannot work.
        """
        if isinstance(methods, str):
            raise RegistrationError(f"methods must be a list such as [{methods!r}], not text")
        return self._decorator(path, tuple(method.upper() for method in methods), options)

    def get(self, path: str, **options: Unpack[RouteOptions]) -> _Decorator:
        """Registers a GET handler (HEAD is answered from it, too)."""
        return self._decorator(path, ("GET",), options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> _Decorator:
        """Registers a POST handler."""
        return self._decorator(path, ("POST",), options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> _Decorator:
        """Registers a PUT handler."""
        return self._decorator(path, ("PUT",), options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> _Decorator:
        """Registers a PATCH handler."""
        return self._decorator(path, ("PATCH",), options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> _Decorator:
        """Registers a DELETE handler."""
        return self._decorator(path, ("DELETE",), options)

    def head(self, path: str, **options: Unpack[RouteOptions]) -> _Decorator:
        """Registers a HEAD handler, in place of the answer without body of a GET handler.

        The one whose path is alike, or less specific.
        """
        return self._decorator(path, ("HEAD",), options)

    def options(self, path: str, **options: Unpack[RouteOptions]) -> _Decorator:
        """Registers an OPTIONS handler, in place of the automatic answer."""
        return self._decorator(path, ("OPTIONS",), options)

    def _decorator(self, path: str, methods: tuple[str, ...], options: RouteOptions) -> _Decorator:
        if not isinstance(path, str):
            place = f"{signature.origin(path)}: " if callable(path) else ""
            raise RegistrationError(
                f"{place}the path is missing: decorators of routes are called with it, "
                'as in @app.get("/")'
            )
        # Annotations of a handler defined inside a function may name that function's locals.
        frame = sys._getframe(2)
        caller_locals = {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)

        def register(handler: H, /) -> H:
            if not callable(handler):
                raise RegistrationError(f"{handler!r} is not callable")
            self._declare(Declared(path, methods, handler, options, caller_locals))
            return handler

        return register


class Router(Routes):
    """Routes to be included in an App, under a prefix such as ``/users``."""

    def __init__(self, prefix: str = "") -> None:
        check_prefix(prefix)
        self.prefix = prefix
        self._declared: list[Declared] = []

    def _declare(self, declared: Declared) -> None:
        prefixed = self._prefixed(declared)
        prefixed.compile()  # a mistake shows here, at the handler, not at include()
        self._declared.append(prefixed)

    def _prefixed(self, declared: Declared) -> Declared:
        return replace(declared, path=self.prefix + declared.path)

    def include(self, router: Router, prefix: str = "") -> None:
        """Takes over the routes of another router, under this one's prefix and `prefix`."""
        prefixed = [self._prefixed(declared) for declared in under(prefix, router)]
        for declared in prefixed:
            declared.compile()
        self._declared.extend(prefixed)

    @property
    def declared(self) -> tuple[Declared, ...]:
        """The routes, with their prefix."""
        return tuple(self._declared)

    def __repr__(self) -> str:
        return f"Router({self.prefix!r}, {len(self._declared)} routes)"
