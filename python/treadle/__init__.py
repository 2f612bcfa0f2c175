"""Treadle: a web framework and runtime in which Python coroutines are cheap.

>>> from treadle import App
>>> app = App()
>>> @app.get("/hello/{name}")
... async def hello(name: str, times: int = 1):
...     return {"message": f"hello {name}", "times": times}

`app.run()` or `treadle run main:app` serves it. `FREE_THREADED` says whether the running
interpreter is a free-threaded build, `__version__` is Treadle's.
"""

from treadle._treadle import (
    FREE_THREADED,
    Headers,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Request,
    Response,
    StreamingResponse,
    __version__,
)
from treadle.app import App, stats
from treadle.datastructures import QueryParams, State
from treadle.exceptions import (
    ClientDisconnect,
    HTTPException,
    RegistrationError,
    RequestValidationError,
    StartupError,
    TreadleError,
)
from treadle.joining import JoinHandle
from treadle.lane import Lane
from treadle.loop import EventLoop, new_event_loop, run
from treadle.params import Body, Cookie, Header, Query
from treadle.pool import LoopPool
from treadle.routing import Router

__all__ = [
    "FREE_THREADED",
    "App",
    "Body",
    "ClientDisconnect",
    "Cookie",
    "EventLoop",
    "HTMLResponse",
    "HTTPException",
    "Header",
    "Headers",
    "JSONResponse",
    "JoinHandle",
    "Lane",
    "LoopPool",
    "Query",
    "QueryParams",
    "RedirectResponse",
    "RegistrationError",
    "Request",
    "RequestValidationError",
    "Response",
    "Router",
    "StartupError",
    "State",
    "StreamingResponse",
    "TreadleError",
    "__version__",
    "new_event_loop",
    "run",
    "stats",
]
