"""What cannot be sent is a 500 for its own request: logged, not told, and over after it."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.messages import assert_problem, assert_serves, request

from treadle import (
    App,
    Headers,
    HTMLResponse,
    HTTPException,
    JSONResponse,
    RedirectResponse,
    Request,
    Response,
    StreamingResponse,
)
from treadle._treadle import PanicException
from treadle.testing import LiveServer

SECRET = "a secret"
MODES = ["inline", "task", "suspended", "offload"]


class Failing:
    """A served app; `/MODE/{name}` calls what the test has put into `act`."""

    def __init__(self) -> None:
        self.act: Callable[[], Any] = lambda: None
        app = self.app = App()

        @app.get("/")
        def root() -> str:
            return "well"

        @app.get("/inline/{name}")
        def inline(name: str) -> Any:
            return self.act()

        @app.get("/task/{name}")
        async def task(name: str) -> Any:
            return self.act()

        @app.get("/suspended/{name}")
        async def suspended(name: str) -> Any:
            await asyncio.sleep(0)
            return self.act()

        @app.get("/offload/{name}", offload=True)
        def offload(name: str) -> Any:
            return self.act()


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Failing, LiveServer]]:
    failing = Failing()
    with LiveServer(failing.app) as live:
        yield failing, live
        assert not live.server.failed


@pytest.fixture
def fails(
    shared: tuple[Failing, LiveServer], raw: Any, caplog: pytest.LogCaptureFixture
) -> Callable[..., BaseException]:
    """`fails(act)` expects that `act` in a handler is one 500, and returns what was logged."""
    failing, live = shared

    def check(act: Callable[[], Any], mode: str = "inline") -> BaseException:
        failing.act = act
        caplog.clear()
        connection = raw(live)
        connection.send(request("GET", f"/{mode}/x") + request("GET", "/"))
        response = connection.response()
        assert_problem(response, 500, "Internal Server Error")
        names = {name for name, _ in response.headers}
        assert names <= {"content-type", "content-length", "date", "connection"}
        if response.header("connection") == "close":
            assert connection.is_closed()
        else:
            assert connection.response().body == b"well"
        assert_serves(raw(live))
        (record,) = caplog.records
        assert (record.name, record.levelno) == ("treadle", logging.ERROR)
        message = record.getMessage()
        assert re.match(
            rf"request [1-9]\d*: GET /{mode}/\{{name\}} \(.*test_resp.*\) failed", message
        )
        assert record.exc_info is not None
        assert record.exc_info[1] is not None
        return record.exc_info[1]

    return check


# -- responses that cannot be ----------------------------------------------------------------------

STATUSES = [0, 1, 99, 100, 101, 199, 1000, 70000, -1, 1 << 40, "200", 200.5, None]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "make",
    [
        lambda status: Response("x", status),
        lambda status: JSONResponse({}, status),
        lambda status: HTMLResponse("x", status),
        lambda status: StreamingResponse(iter("x"), status),
        lambda status: RedirectResponse("/", status),
        lambda status: setattr(Response(), "status", status),
    ],
    ids=["Response", "JSONResponse", "HTMLResponse", "StreamingResponse", "Redirect", "setter"],
)
def test_a_status_that_is_none(fails: Any, make: Any, status: Any) -> None:
    assert isinstance(fails(lambda: make(status)), ValueError | TypeError | OverflowError)


@pytest.mark.parametrize("status", [0, 99, 100, 1000, 70000, "x"])
@pytest.mark.parametrize("mode", MODES)
def test_a_status_that_is_none_in_an_exception(fails: Any, mode: str, status: Any) -> None:
    def act() -> None:
        raise HTTPException(status)

    assert isinstance(fails(act, mode), ValueError | TypeError)


@pytest.mark.parametrize("status", [200, 299, 404, 599, 600, 999])
def test_any_status_that_can_be_sent_is(
    shared: tuple[Failing, LiveServer], raw: Any, status: int
) -> None:
    failing, live = shared
    failing.act = lambda: Response("x", status)
    assert raw(live).get("/inline/x").status == status


EVIL = ["a\r\nX-Evil: 1", "a\nX-Evil: 1", "a\rX-Evil: 1", "a\0b", "\r\n\r\nHTTP/1.1 200 OK"]

PLACES: dict[str, Callable[[str], Any]] = {
    "a header": lambda evil: Response("x", headers={"X-A": evil}),
    "a header pair": lambda evil: Response("x", headers=[("X-A", evil)]),
    "a header name": lambda evil: Response("x", headers={evil: "x"}),
    "a header set later": lambda evil: Response("x").headers.__setitem__("X-A", evil),
    "a header appended": lambda evil: Response("x").headers.append("X-A", evil),
    "a header defaulted": lambda evil: Response("x").headers.setdefault("X-A", evil),
    "a header name set later": lambda evil: Response("x").headers.__setitem__(evil, "x"),
    "headers of their own": lambda evil: Headers({"X-A": evil}),
    "a content type": lambda evil: Response("x", media_type=evil),
    "a header of JSON": lambda evil: JSONResponse({}, headers={"X-A": evil}),
    "a header of HTML": lambda evil: HTMLResponse("x", headers={"X-A": evil}),
    "a header of a stream": lambda evil: StreamingResponse(iter("x"), headers={"X-A": evil}),
    "a content type of a stream": lambda evil: StreamingResponse(iter("x"), media_type=evil),
    "a redirect": lambda evil: RedirectResponse("/" + evil),
    "a redirect beyond ASCII": lambda evil: RedirectResponse("/é" + evil),
    "a header of a redirect": lambda evil: RedirectResponse("/", headers={"X-A": evil}),
    "a cookie's name": lambda evil: Response("x").set_cookie(evil, "x"),
    "a cookie's value": lambda evil: Response("x").set_cookie("x", evil),
    "a cookie's path": lambda evil: Response("x").set_cookie("x", "x", path=evil),
    "a cookie's domain": lambda evil: Response("x").set_cookie("x", "x", domain=evil),
    "a cookie's samesite": lambda evil: Response("x").set_cookie("x", "x", samesite=evil),
    "an exception's header": lambda evil: _raise(HTTPException(400, headers={"X-A": evil})),
    "an exception's header name": lambda evil: _raise(HTTPException(400, headers={evil: "x"})),
}


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_line_break_or_nul(fails: Any, place: Any, evil: str) -> None:
    assert isinstance(fails(lambda: place(evil)), ValueError)


@pytest.mark.parametrize("value", ["€", "\ud800", "\x7f", "\x1b[0m", 1, None, b"x", ["x"]])
def test_a_header_that_is_no_latin_1_text(fails: Any, value: Any) -> None:
    error = fails(lambda: Response("x", headers={"X-A": value}))
    assert isinstance(error, ValueError | TypeError)


@pytest.mark.parametrize("headers", [1, "x", ["x"], [("a", "b", "c")], [("a",)], {1: "x"}])
def test_headers_that_are_none(fails: Any, headers: Any) -> None:
    assert isinstance(fails(lambda: Response("x", headers=headers)), ValueError | TypeError)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "lengths", [["abc"], ["-1"], ["+5"], ["5, 5"], ["5", "6"], [""], ["0x5"], [str(1 << 64)]]
)
def test_a_content_length_of_a_stream_that_is_none(
    fails: Any, mode: str, lengths: list[str]
) -> None:
    headers = [("Content-Length", length) for length in lengths]
    error = fails(lambda: StreamingResponse(iter("hello"), headers=headers), mode)
    assert isinstance(error, ValueError)
    assert "Content-Length" in str(error)


def circular() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


class Opaque:
    def __repr__(self) -> str:
        return SECRET


UNENCODABLE: dict[str, Callable[[], Any]] = {
    "an object": Opaque,
    "an object in a dict": lambda: {"a": [Opaque()]},
    "an object as a key": lambda: {Opaque(): 1},
    "a class": lambda: Opaque,
    "a function": lambda: circular,
    "a generator": lambda: (number for number in range(3)),
    "a module": lambda: asyncio,
    "an exception": lambda: ValueError(SECRET),
    "a complex number": lambda: 1j,
    "half a surrogate": lambda: "\ud800",
    "half a surrogate in JSON": lambda: {"a": "\ud800"},
    "half a surrogate in a response": lambda: Response("\ud800"),
    "a list that contains itself": circular,
    "content of another type": lambda: Response({"a": 1}),
    "JSON content that is an object": lambda: JSONResponse(Opaque()),
    "a stream of text": lambda: StreamingResponse("text"),
    "a stream of a number": lambda: StreamingResponse(1),
    "an exception's detail": lambda: _raise(HTTPException(400, Opaque())),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", UNENCODABLE.values(), ids=UNENCODABLE)
def test_what_cannot_be_encoded(fails: Any, mode: str, make: Callable[[], Any]) -> None:
    fails(make, mode)


# -- exceptions ------------------------------------------------------------------------------------


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Base(BaseException):
    pass


def recurse() -> None:
    recurse()


EXCEPTIONS: dict[str, Callable[[], BaseException]] = {
    "an exception": lambda: ValueError(SECRET),
    "an exception without text": lambda: Unprintable(),
    "one that is no Exception": lambda: Base(SECRET),
    "SystemExit": lambda: SystemExit(SECRET),
    "SystemExit 0": lambda: SystemExit(0),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": GeneratorExit,
    "CancelledError": asyncio.CancelledError,
    "StopIteration": lambda: StopIteration(SECRET),
    "StopAsyncIteration": StopAsyncIteration,
    "MemoryError": MemoryError,
    "a group": lambda: ExceptionGroup(SECRET, [ValueError(SECRET)]),
    "a group of all kinds": lambda: BaseExceptionGroup(SECRET, [KeyboardInterrupt()]),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("make", EXCEPTIONS.values(), ids=EXCEPTIONS)
def test_an_exception_of_any_kind(fails: Any, mode: str, make: Callable[[], Any]) -> None:
    error = make()
    logged = fails(lambda: _raise(error), mode)
    # A StopIteration cannot leave a coroutine as what it is.
    assert logged is error or logged.__cause__ is error


@pytest.mark.parametrize("mode", MODES)
def test_a_recursion_without_end(fails: Any, mode: str) -> None:
    assert isinstance(fails(recurse, mode), RecursionError)


@pytest.mark.parametrize("mode", MODES)
def test_a_panic_of_the_core(
    shared: tuple[Failing, LiveServer], raw: Any, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    """Rust code that a handler calls raises `PanicException`; not even that ends anything else."""
    failing, live = shared
    failing.act = lambda: _raise(PanicException(SECRET))
    connection = raw(live)
    response = connection.get(f"/{mode}/x")
    assert_problem(response, 500, "Internal Server Error")
    assert_serves(raw(live))
    assert any(record.levelno >= logging.ERROR for record in caplog.records)


@pytest.mark.parametrize("mode", MODES)
def test_what_was_raised_is_logged_with_its_causes(fails: Any, mode: str) -> None:
    def act() -> None:
        try:
            raise KeyError("first")
        except KeyError as first:
            raise ValueError("second") from first

    error = fails(act, mode)
    assert isinstance(error, ValueError)
    assert isinstance(error.__cause__, KeyError)
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert frames[-1] == "act"


# -- exception handlers ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["def", "async def"])
@pytest.mark.parametrize("mode", ["inline", "task"])
def test_an_exception_handler_that_fails_is_one_500_with_both_failures(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, kind: str, mode: str
) -> None:
    app = App()
    if mode == "inline":

        @app.get("/")
        def root() -> None:
            raise KeyError("first")

    else:

        @app.get("/")
        async def root_task() -> None:
            raise KeyError("first")

    if kind == "def":

        @app.exception_handler(KeyError)
        def handler(request: Request, error: KeyError) -> None:
            raise ValueError("second")

    else:

        @app.exception_handler(KeyError)
        async def async_handler(request: Request, error: KeyError) -> None:
            await asyncio.sleep(0)
            raise ValueError("second")

    connection = raw(serve(app))
    for _ in range(2):
        assert_problem(connection.get("/"), 500, "Internal Server Error")
    assert len(caplog.records) == 2
    info = caplog.records[0].exc_info
    assert info is not None
    assert isinstance(info[1], ValueError)
    assert isinstance(info[1].__context__, KeyError)


@pytest.mark.parametrize("bad", [Opaque(), Response, 1j])
def test_an_exception_handler_whose_answer_cannot_be_sent_is_a_500(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture, bad: Any
) -> None:
    app = App()

    @app.get("/")
    async def root() -> None:
        raise KeyError("first")

    @app.exception_handler(KeyError)
    def handler(request: Request, error: KeyError) -> Any:
        return bad

    connection = raw(serve(app))
    assert_problem(connection.get("/"), 500, "Internal Server Error")
    assert len(caplog.records) == 1


def test_an_exception_handler_may_take_any_exception(serve: Any, raw: Any) -> None:
    app = App()

    @app.get("/")
    async def root() -> None:
        raise Base

    @app.exception_handler(BaseException)
    def handler(request: Request, error: BaseException) -> str:
        return type(error).__name__

    assert raw(serve(app)).get("/").body == b"Base"


def test_request_ids_in_the_log_are_the_requests_own(
    serve: Any, raw: Any, caplog: pytest.LogCaptureFixture
) -> None:
    app = App()
    ids: list[int] = []

    @app.get("/")
    async def root(request: Request) -> None:
        ids.append(request.id)
        raise ValueError(SECRET)

    connection = raw(serve(app))
    for _ in range(3):
        assert connection.get("/").status == 500
    logged = [re.match(r"request (\d+):", record.getMessage()) for record in caplog.records]
    assert [int(found[1]) for found in logged if found] == ids
    assert len(set(ids)) == 3
