"""Exceptions as answers: HTTPException, handlers by type, and those that nobody takes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from treadle import (
    App,
    ClientDisconnect,
    HTTPException,
    JSONResponse,
    RegistrationError,
    Request,
    RequestValidationError,
    Response,
    StartupError,
    StreamingResponse,
    TreadleError,
)
from treadle.testing import TestClient

started: list[bool] = []
MODES = ["inline", "task", "suspended", "offload"]


def raising(app: App, path: str, make: Callable[[], BaseException]) -> None:
    """Routes below `path` that raise what `make` gives, one for each way to call a handler."""

    def plain() -> None:
        raise make()

    async def task() -> None:
        raise make()

    async def suspended() -> None:
        await asyncio.sleep(0)
        raise make()

    app.get(f"{path}/inline")(plain)
    app.get(f"{path}/offload", offload=True)(plain)
    app.get(f"{path}/task")(task)
    app.get(f"{path}/suspended")(suspended)


class Base(Exception): ...


class Derived(Base): ...


class Mixed(KeyError, Derived): ...


class Other(Exception): ...


class Failing(Exception): ...


class Passing(Exception): ...


class Streaming(Exception): ...


class Json(Exception): ...


class Exiting(BaseException): ...


app = App()
for name, make in {
    "http": lambda: HTTPException(418, {"brew": "tea"}, {"x-a": "1"}),
    "base": lambda: Base("b"),
    "derived": lambda: Derived("d"),
    "mixed": lambda: Mixed("m"),
    "other": lambda: Other("o"),
    "failing": lambda: Failing("secret"),
    "failing-async": lambda: Passing("secret"),
    "streaming": lambda: Streaming(),
    "json": lambda: Json(),
    "unhandled": lambda: ValueError("secret"),
    "exiting": lambda: Exiting("secret"),
    "system-exit": lambda: SystemExit("secret"),
    "interrupt": lambda: KeyboardInterrupt("secret"),
    "stop": lambda: StopIteration("secret"),
    "stop-async": lambda: StopAsyncIteration("secret"),
    "cancelled": lambda: asyncio.CancelledError("secret"),
    "bad-http": lambda: HTTPException(99),
    "bad-header": lambda: HTTPException(400, headers={"x": "a\r\nb"}),
    "bad-detail": lambda: HTTPException(400, object()),
}.items():
    raising(app, f"/{name}", make)


@app.exception_handler(Base)
def on_base(request: Request, error: Base) -> list[str]:
    return ["base", type(error).__name__, str(error), request.path, request.method]


@app.exception_handler(Derived)
async def on_derived(request: Request, error: Derived) -> Response:
    await asyncio.sleep(0)
    return Response(f"derived {type(error).__name__}", 409, {"x-from": request.headers["host"]})


@app.exception_handler(Other)
async def on_other(request: Request, error: Other) -> None:
    return None


@app.exception_handler(Failing)
def on_failing(request: Request, error: Failing) -> None:
    raise LookupError("the handler's own")


@app.exception_handler(Passing)
async def on_passing(request: Request, error: Passing) -> None:
    raise LookupError("the handler's own")


@app.exception_handler(Streaming)
def on_streaming(request: Request, error: Streaming) -> Response:
    def chunks() -> Iterator[str]:
        started.append(True)
        yield "a"
        yield "b"

    return StreamingResponse(chunks(), 500)


@app.exception_handler(Json)
def on_json(request: Request, error: Json) -> Any:
    return JSONResponse({"error": True}, 422)


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


each_mode = pytest.mark.parametrize("mode", MODES)


@each_mode
def test_an_http_exception_is_the_answer(
    client: TestClient, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    response = client.get(f"/http/{mode}")
    assert (response.status_code, response.headers["x-a"]) == (418, "1")
    assert response.json() == {"detail": {"brew": "tea"}}
    assert errors(caplog) == []


@each_mode
@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("base", 200, '["base","Base","b","/base/{mode}","GET"]'),
        ("derived", 409, "derived Derived"),
        ("mixed", 409, "derived Mixed"),
        ("other", 204, ""),
        ("streaming", 500, "ab"),
        ("json", 422, '{"error":true}'),
    ],
)
def test_the_handler_of_the_nearest_class_answers(
    client: TestClient,
    caplog: pytest.LogCaptureFixture,
    mode: str,
    name: str,
    status: int,
    body: str,
) -> None:
    response = client.get(f"/{name}/{mode}")
    assert (response.status_code, response.text) == (status, body.replace("{mode}", mode))
    assert errors(caplog) == []


@each_mode
def test_a_handler_that_streams_sends_its_head_alone_to_head(
    client: TestClient, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    started.clear()
    response = client.head(f"/streaming/{mode}")
    assert (response.status_code, response.content) == (500, b"")
    assert (started, errors(caplog)) == ([], [])


@each_mode
@pytest.mark.parametrize("name", ["unhandled", "exiting", "system-exit", "interrupt"])
def test_what_nobody_takes_is_500_with_the_traceback_in_the_log_alone(
    client: TestClient, caplog: pytest.LogCaptureFixture, mode: str, name: str
) -> None:
    response = client.get(f"/{name}/{mode}?token=hidden", headers={"authorization": "hidden"})
    assert response.status_code == 500
    assert response.json() == {"detail": "Internal Server Error"}
    (message,) = errors(caplog)
    assert f"GET /{name}/{mode} ({__file__}:" in message
    assert message.startswith("request ")
    assert "secret" in caplog.text
    assert "raise make()" in caplog.text
    assert "hidden" not in caplog.text
    assert client.get(f"/http/{mode}").status_code == 418


@each_mode
@pytest.mark.parametrize("name", ["stop", "stop-async", "cancelled"])
def test_an_exception_that_means_something_to_the_interpreter_is_500(
    client: TestClient, caplog: pytest.LogCaptureFixture, mode: str, name: str
) -> None:
    assert client.get(f"/{name}/{mode}").status_code == 500
    assert len(errors(caplog)) == 1
    assert client.get(f"/http/{mode}").status_code == 418


@each_mode
@pytest.mark.parametrize("name", ["failing", "failing-async"])
def test_a_handler_that_fails_is_500_and_both_exceptions_are_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture, mode: str, name: str
) -> None:
    response = client.get(f"/{name}/{mode}")
    assert response.status_code == 500
    assert response.json() == {"detail": "Internal Server Error"}
    assert len(errors(caplog)) == 1
    assert "LookupError: the handler's own" in caplog.text
    assert "secret" in caplog.text


@each_mode
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bad-http", "status 99 cannot be sent"),
        ("bad-header", "control character"),
        ("bad-detail", "objects of type object are not JSON"),
    ],
)
def test_an_http_exception_that_cannot_be_sent_is_500(
    client: TestClient, caplog: pytest.LogCaptureFixture, mode: str, name: str, reason: str
) -> None:
    assert client.get(f"/{name}/{mode}").status_code == 500
    assert reason in caplog.text


@each_mode
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_handler_that_raises_what_it_handles_is_not_called_for_that(
    caplog: pytest.LogCaptureFixture, mode: str, kind: str
) -> None:
    app = App()
    raising(app, "/x", lambda: Base("first"))
    calls: list[Base] = []

    def fail(request: Request, error: Base) -> None:
        calls.append(error)
        if len(calls) == 100:  # rather than to hang
            raise KeyError
        raise Base("second")

    async def fail_async(request: Request, error: Base) -> None:
        fail(request, error)

    app.exception_handler(Base)(fail if kind == "sync" else fail_async)
    with TestClient(app) as client:
        assert client.get(f"/x/{mode}").status_code == 500
    assert [str(error) for error in calls] == ["first"]
    assert "Base: first" in caplog.text
    assert "Base: second" in caplog.text


@each_mode
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_handler_may_answer_with_an_http_exception(mode: str, kind: str) -> None:
    app = App()
    raising(app, "/x", lambda: Base("first"))

    def refuse(request: Request, error: Base) -> None:
        raise HTTPException(409, "taken")

    async def refuse_async(request: Request, error: Base) -> None:
        raise HTTPException(409, "taken")

    app.exception_handler(Base)(refuse if kind == "sync" else refuse_async)
    with TestClient(app) as client:
        response = client.get(f"/x/{mode}")
    assert (response.status_code, response.json()) == (409, {"detail": "taken"})


@each_mode
def test_http_exceptions_can_be_handled_by_the_app(mode: str) -> None:
    app = App()
    raising(app, "/x", lambda: HTTPException(404, "no such thing"))

    @app.exception_handler(HTTPException)
    def handler(request: Request, error: HTTPException) -> Response:
        return Response(f"{error.status} {error.detail} {error}", error.status)

    with TestClient(app) as client:
        response = client.get(f"/x/{mode}")
    assert (response.status_code, response.text) == (404, "404 no such thing 404: no such thing")


@each_mode
def test_a_handler_for_everything_takes_what_no_other_does(mode: str) -> None:
    app = App()
    raising(app, "/value", lambda: ValueError("v"))
    raising(app, "/exit", lambda: Exiting("e"))

    @app.exception_handler(Exception)
    def on_exception(request: Request, error: Exception) -> str:
        return f"exception {error}"

    @app.exception_handler(Exiting)
    def on_exit(request: Request, error: Exiting) -> str:
        return f"exit {error}"

    with TestClient(app) as client:
        assert client.get(f"/value/{mode}").text == "exception v"
        assert client.get(f"/exit/{mode}").text == "exit e"


@each_mode
def test_a_subclass_of_http_exception_is_an_answer_too(mode: str) -> None:
    class NotFound(HTTPException):
        def __init__(self) -> None:
            super().__init__(404, "mine")

    app = App()
    raising(app, "/x", NotFound)
    with TestClient(app) as client:
        assert client.get(f"/x/{mode}").json() == {"detail": "mine"}


@each_mode
@pytest.mark.parametrize(("status", "detail"), [(404, "Not Found"), (499, "Error"), (200, "OK")])
def test_an_http_exception_has_the_phrase_of_its_status(
    mode: str, status: int, detail: str
) -> None:
    app = App()
    raising(app, "/x", lambda: HTTPException(status))
    with TestClient(app) as client:
        response = client.get(f"/x/{mode}")
    assert (response.status_code, response.json()) == (status, {"detail": detail})


@pytest.mark.parametrize("mode", MODES)
def test_an_http_exception_that_is_raised_again_and_again_keeps_no_frames(mode: str) -> None:
    """A module may make one for all requests: its traceback would grow with each."""
    app, shared = App(), HTTPException(403, "no")
    raising(app, "", lambda: shared)
    with TestClient(app) as client:
        answers = [client.get(f"/{mode}").json() for _ in range(3)]
    assert answers == [{"detail": "no"}] * 3
    assert shared.__traceback__ is None


@each_mode
@pytest.mark.parametrize("status", [204, 304])
def test_an_http_exception_of_a_status_without_body_has_none(mode: str, status: int) -> None:
    app = App()
    raising(app, "/x", lambda: HTTPException(status, "unseen"))
    with TestClient(app) as client:
        response = client.get(f"/x/{mode}")
    assert (response.status_code, response.content) == (status, b"")


def test_the_request_of_an_exception_handler_is_the_handlers() -> None:
    app = App()

    @app.get("/{name}")
    async def handler(request: Request, name: str) -> None:
        request.state.seen = name
        raise Base

    @app.exception_handler(Base)
    def on_base(request: Request, error: Base) -> object:
        return [request.state.seen, request.path_params]

    with TestClient(app) as client:
        assert client.get("/ada").json() == ["ada", {"name": "ada"}]


@pytest.mark.parametrize("name", ["first-step", "suspended"])
def test_a_request_made_for_the_exception_handler_is_whole(name: str) -> None:
    """The handler itself takes no request: its head is kept all the same."""
    app = App()

    @app.get("/{name}")
    async def handler(name: str) -> None:
        if name == "suspended":
            await asyncio.sleep(0)
        raise Base

    @app.exception_handler(Base)
    def on_base(request: Request, error: Base) -> object:
        assert request.client is not None
        return [request.method, request.path_params, request.query["a"], request.headers["x-one"]]

    with TestClient(app) as client:
        answer = client.get(f"/{name}?a=b", headers={"x-one": "1"}).json()
    assert answer == ["GET", {"name": name}, "b", "1"]


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_request_that_does_not_fit_can_have_an_answer_of_the_apps_own(kind: str) -> None:
    app = App()

    @app.get("/query/{name}")
    def query(name: str, count: int) -> None: ...

    @app.post("/body")
    async def body(data: dict[str, int]) -> None: ...

    @app.post("/request/{id:int}")
    async def with_request(request: Request, id: int, data: dict[str, int]) -> None: ...

    seen = ContextVar("seen", default=0)

    def answer(request: Request, error: RequestValidationError) -> object:
        assert seen.get() == 0, "each request has a context of its own"
        seen.set(1)
        if "again" in request.query:
            raise error
        return JSONResponse([error.status, error.detail, request.path_params], 418)

    async def answer_late(request: Request, error: RequestValidationError) -> object:
        await asyncio.sleep(0)
        return answer(request, error)

    app.exception_handler(RequestValidationError)(answer if kind == "sync" else answer_late)
    with TestClient(app) as client:
        for _ in range(2):
            response = client.get("/query/ada")
            assert response.status_code == 418
            problem = {"loc": ["query", "count"], "msg": "missing"}
            assert response.json() == [422, [problem], {"name": "ada"}]
        response = client.post("/body", content=b"{")
        assert response.json()[0] == 400
        assert response.json()[1].startswith("the request body is not JSON")
        response = client.post("/request/7", json={"a": "b"})
        assert (response.json()[0], response.json()[2]) == (422, {"id": "7"})
        response = client.post("/request/x", json={})
        assert response.json()[1][0]["loc"] == ["path", "id"]
        # Raised again, it is the answer that it would have been.
        response = client.get("/query/ada?again=1")
        assert (response.status_code, response.json()) == (422, {"detail": [problem]})


def test_a_request_that_does_not_fit_is_no_failure_for_other_handlers() -> None:
    app = App()

    @app.get("/")
    def handler(count: int) -> None: ...

    @app.exception_handler(Exception)
    def failed(request: Request, error: Exception) -> str:
        raise AssertionError("not asked")

    app.exception_handler(HTTPException)(failed)
    with TestClient(app) as client:
        assert client.get("/").status_code == 422


def test_our_own_errors_have_one_base() -> None:
    assert issubclass(RegistrationError, TreadleError)
    assert issubclass(StartupError, TreadleError)
    assert issubclass(ClientDisconnect, OSError)
