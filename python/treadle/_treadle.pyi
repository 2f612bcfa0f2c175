"""The native half of Treadle. What users meet of it is exported by `treadle`."""

from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from concurrent.futures import Future
from contextvars import Context
from typing import Any, Self, final

from typing_extensions import disjoint_base

__all__ = [
    "BUILD_PROFILE",
    "FREE_THREADED",
    "Acceptor",
    "HTMLResponse",
    "Handle",
    "Headers",
    "HttpConfig",
    "JSONResponse",
    "Lane",
    "LaneServer",
    "LoopCore",
    "PanicException",
    "Param",
    "RedirectResponse",
    "Request",
    "Response",
    "Route",
    "RouteTable",
    "Sink",
    "StreamingResponse",
    "TimerHandle",
    "__version__",
]

__version__: str
FREE_THREADED: bool
"""Whether the running interpreter is the free-threaded build."""
BUILD_PROFILE: str
"""`release` or `debug`."""

class PanicException(BaseException):
    """A panic of native code, as the Python code that called it meets it."""

type _HeaderSource = Headers | Mapping[str, str] | Iterable[tuple[str, str]]

@final
class Headers:
    """Headers: case-insensitive, a name may have several values. Text is Latin-1."""

    def __new__(cls, values: _HeaderSource | None = None) -> Self: ...
    def get(self, name: str, default: Any = None) -> Any: ...
    def get_all(self, name: str) -> list[str]: ...
    def append(self, name: str, value: str) -> None: ...
    def setdefault(self, name: str, value: str) -> str: ...
    def keys(self) -> list[str]: ...
    def values(self) -> list[str]: ...
    def items(self) -> list[tuple[str, str]]: ...
    def __getitem__(self, name: str, /) -> str: ...
    def __setitem__(self, name: str, value: str, /) -> None: ...
    def __delitem__(self, name: str, /) -> None: ...
    def __contains__(self, name: str, /) -> bool: ...
    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...

@final
class Request:
    """One HTTP request. The head is readable from any thread, the body on its own lane."""

    @property
    def method(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def raw_path(self) -> str: ...
    @property
    def query_string(self) -> str: ...
    @property
    def http_version(self) -> str: ...
    @property
    def id(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def query(self) -> Any: ...
    @property
    def cookies(self) -> dict[str, str]: ...
    @property
    def path_params(self) -> dict[str, str]: ...
    @property
    def client(self) -> tuple[str, int] | None: ...
    @property
    def state(self) -> Any: ...
    @property
    def app(self) -> Any: ...
    @property
    def lane(self) -> Any: ...
    def body(self) -> Awaitable[bytes]: ...
    def text(self) -> Awaitable[str]: ...
    def json(self) -> Awaitable[Any]: ...
    def stream(self) -> AsyncIterator[bytes]: ...

@disjoint_base
class Response:
    """An HTTP response: content (bytes, str or None), status, headers, media type."""

    def __new__(
        cls,
        content: bytes | bytearray | memoryview | str | None = None,
        status: int = 200,
        headers: _HeaderSource | None = None,
        media_type: str | None = None,
    ) -> Self: ...
    @property
    def status(self) -> int: ...
    @status.setter
    def status(self, value: int) -> None: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def body(self) -> bytes: ...
    def set_cookie(
        self,
        name: str,
        value: str = "",
        *,
        max_age: int | None = None,
        path: str | None = "/",
        domain: str | None = None,
        secure: bool = False,
        httponly: bool = False,
        samesite: str | None = "lax",
    ) -> None: ...

class JSONResponse(Response):
    """Any object that msgspec encodes, as JSON."""

    def __new__(
        cls, content: Any = None, status: int = 200, headers: _HeaderSource | None = None
    ) -> Self: ...

class HTMLResponse(Response):
    """Text sent as HTML."""

    def __new__(
        cls,
        content: bytes | str | None = None,
        status: int = 200,
        headers: _HeaderSource | None = None,
    ) -> Self: ...

class RedirectResponse(Response):
    """Sends the client elsewhere; 307 keeps method and body."""

    def __new__(cls, url: str, status: int = 307, headers: _HeaderSource | None = None) -> Self: ...

@disjoint_base
class StreamingResponse(Response):
    """A body made chunk by chunk from an async or sync iterator of bytes or str."""

    def __new__(
        cls,
        content: AsyncIterable[bytes | str] | Iterable[bytes | str],
        status: int = 200,
        headers: _HeaderSource | None = None,
        media_type: str | None = None,
    ) -> Self: ...

@final
class Param:
    """What the Python side found out about one parameter of a handler."""

    def __new__(
        cls,
        alias: str,
        source: str,
        *,
        scalar: str = "str",
        convert: Callable[[str], Any] | None = None,
        list: bool = False,
        default: tuple[Any] | None = None,
        keyword: str | None = None,
        decoder: Callable[[], Callable[[bytes], Any]] | None = None,
    ) -> Self: ...

@final
class Route:
    """A handler with its path, methods and plan, as registered."""

    def __new__(
        cls,
        path: str,
        methods: list[str],
        handler: Callable[..., Any],
        *,
        mode: str,
        params: list[Param],
        origin: str,
        status: int | None = None,
        timeout: float | None = None,
        cancel_on_disconnect: bool = True,
        limit_body: int | None = None,
    ) -> Self: ...
    @property
    def path(self) -> str: ...
    @property
    def path_params(self) -> list[tuple[str, str | None]]: ...
    @property
    def methods(self) -> list[str]: ...
    @property
    def origin(self) -> str: ...
    @property
    def mode(self) -> str: ...

@final
class RouteTable:
    """The routes of an application, checked against each other as they are added."""

    def __new__(cls) -> Self: ...
    def add(self, route: Route) -> str | None: ...
    def routes(self) -> list[Route]: ...

@final
class Sink:
    """What the pump of a streaming response sends chunks to."""

    def send(self, chunk: bytes | str) -> Awaitable[None]: ...

@disjoint_base
class Handle:
    """What `call_soon` gives back; behaves as `asyncio.Handle`."""

    def cancel(self) -> None: ...
    def cancelled(self) -> bool: ...
    def get_context(self) -> Context: ...
    @property
    def _cancelled(self) -> bool: ...
    @property
    def _callback(self) -> Callable[..., object] | None: ...
    @property
    def _args(self) -> tuple[Any, ...] | None: ...
    @property
    def _context(self) -> Context: ...
    @property
    def _loop(self) -> LoopCore: ...
    @property
    def _source_traceback(self) -> None: ...
    def _run(self) -> None: ...

@final
class TimerHandle(Handle):
    """What `call_later` and `call_at` give back; behaves as `asyncio.TimerHandle`."""

    def when(self) -> float: ...
    @property
    def _when(self) -> float: ...
    @property
    def _scheduled(self) -> bool: ...
    def __lt__(self, other: object, /) -> bool: ...
    def __le__(self, other: object, /) -> bool: ...
    def __gt__(self, other: object, /) -> bool: ...
    def __ge__(self, other: object, /) -> bool: ...

@disjoint_base
class LoopCore:
    """The native half of the event loop."""

    _stopping: bool

    def __new__(cls, *_arguments: Any, **_keywords: Any) -> Self: ...
    def _note_debug(self, enabled: bool) -> None: ...
    def _note_running(self, running: bool) -> None: ...
    def _note_task_factory(self, has_one: bool) -> None: ...
    def _close_core(self) -> None: ...
    def get_debug(self) -> bool: ...
    def is_running(self) -> bool: ...
    def is_closed(self) -> bool: ...
    def time(self) -> float: ...
    def stop(self) -> None: ...
    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any: ...
    def call_soon_threadsafe(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> Any: ...
    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Any: ...
    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> Any: ...
    def _add_timer(self, when: float, timer: Any) -> None: ...
    def _timer_handle_cancelled(self, handle: Any) -> None: ...
    def _add_callback(self, handle: Any) -> None: ...
    def _write_to_self(self) -> None: ...
    def _timer_count(self) -> int: ...
    def _watched(self) -> list[tuple[int, Handle | None, Handle | None]]: ...
    def _add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> Handle: ...
    def _remove_reader(self, fd: Any) -> bool: ...
    def _add_writer(self, fd: Any, callback: Callable[..., object], *args: Any) -> Handle: ...
    def _remove_writer(self, fd: Any) -> bool: ...
    def create_future(self) -> Any: ...
    def create_task(self, coro: Any, **keywords: Any) -> Any: ...

@final
class Lane:
    """A thread's Tokio runtime, driven by the Python loop that owns it."""

    def __new__(cls, index: int) -> Self: ...
    @property
    def index(self) -> int: ...
    def run(self, event_loop: LoopCore, keep: bool) -> None: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...

@final
class HttpConfig:
    """The HTTP options of one process, and the limits that its lanes share."""

    def __new__(
        cls,
        *,
        limit_body: int,
        limit_connections: int,
        limit_concurrency: int,
        timeout_header: float,
        timeout_keep_alive: float,
        timeout_request: float,
        access_log: bool,
    ) -> Self: ...

@final
class LaneServer:
    """One lane's share of a server; used on its lane only."""

    def __new__(
        cls,
        lane: Lane,
        table: RouteTable,
        config: HttpConfig,
        *,
        app: Any,
        face: Any,
        find_handler: Callable[[BaseException], Any] | None,
        pump: Callable[..., Any],
        report: Callable[..., None],
        http_exception: type[BaseException],
        disconnect: type[BaseException],
        submit: Callable[..., Future[Any]],
    ) -> Self: ...
    def listen(self, fds: list[int]) -> None: ...
    def stop_accepting(self) -> Awaitable[None]: ...
    def drain(self) -> None: ...
    def wait_idle(self) -> Awaitable[None]: ...
    def abort(self) -> None: ...
    @property
    def running(self) -> int: ...
    @property
    def connections(self) -> int: ...

@final
class Acceptor:
    """Accepts on all listeners and places each connection on the least loaded lane."""

    def __new__(cls, fds: list[int], lanes: list[LaneServer], config: HttpConfig) -> Self: ...
    def stop(self) -> None: ...
    def join(self) -> None: ...
