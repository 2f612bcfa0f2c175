"""Exception handlers by status, and those that answer requests which meet no route."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import msgspec
import pytest

from treadle import (
    App,
    HTTPException,
    JSONResponse,
    RegistrationError,
    Request,
    RequestValidationError,
    Response,
    StreamingResponse,
)
from treadle.testing import TestClient


def told(by: str) -> Any:
    """A handler that says who it is and what it was told."""

    def handler(request: Request, error: HTTPException) -> Response:
        return JSONResponse([by, error.status, error.detail], error.status, error.headers)

    return handler


def app_with(*kinds: Any) -> App:
    app = App()
    for kind in kinds:
        app.exception_handler(kind)(told(getattr(kind, "__name__", str(kind))))

    @app.get("/items/{id:int}")
    def item(id: int) -> None:
        raise HTTPException(404, "no item")

    @app.get("/teapot")
    async def teapot() -> None:
        raise Teapot(404, "tea")

    @app.post("/body")
    def body(data: dict[str, int]) -> None: ...

    return app


class Teapot(HTTPException): ...


# -- by status -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "by"),
    [
        ([404], "404"),
        ([404, HTTPException], "404"),
        ([404, Exception], "404"),
        ([404, Teapot], "Teapot"),
        ([405, HTTPException], "HTTPException"),
    ],
)
def test_a_status_is_nearer_than_http_exception_and_farther_than_its_subclasses(
    kinds: list[Any], by: str
) -> None:
    with TestClient(app_with(*kinds)) as client:
        assert client.get("/teapot").json() == [by, 404, "tea"]


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (99, "status 99 cannot be sent: use 200 to 999"),
        (True, "status 1 cannot be sent"),
        (500, "register a handler for Exception instead of 500"),
    ],
)
def test_a_status_that_no_exception_can_have_is_refused(kind: Any, reason: str) -> None:
    with pytest.raises(RegistrationError, match=reason):
        App().exception_handler(kind)


def test_a_status_takes_the_requests_that_do_not_fit() -> None:
    with TestClient(app_with(422, HTTPException)) as client:
        response = client.post("/body", json={"a": "b"})
        assert response.json()[:2] == ["422", 422]
        # A mistake of another status is not the app's to word, whatever takes HTTPException.
        response = client.post("/body", content=b"{")
        assert response.status_code == 400
        assert response.json()["detail"].startswith("the request body is not JSON")
    with TestClient(app_with(422, RequestValidationError)) as client:
        assert client.post("/body", json={"a": "b"}).json()[0] == "RequestValidationError"


# -- no route --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "not_found", "not_allowed"),
    [
        ([HTTPException], "HTTPException", "HTTPException"),
        ([404], "404", None),
        ([405], None, "405"),
        ([404, HTTPException], "404", "HTTPException"),
        ([404, Exception], "404", None),
        # Registered for failures, or for what the app itself raises: these are neither.
        ([Exception], None, None),
        ([Teapot, BaseException, 400, RequestValidationError], None, None),
    ],
)
def test_requests_without_a_route_go_to_the_handlers_for_their_answers(
    kinds: list[Any], not_found: str | None, not_allowed: str | None
) -> None:
    with TestClient(app_with(*kinds)) as client:
        for path in ("/nope", "/items", "/"):
            response = client.get(path)
            text = {"detail": "Not Found"}
            expected = [not_found, 404, "Not Found"] if not_found else text
            assert (response.status_code, response.json()) == (404, expected)
        response = client.post("/items/1")
        text = {"detail": "Method Not Allowed"}
        expected = [not_allowed, 405, "Method Not Allowed"] if not_allowed else text
        assert (response.status_code, response.json()) == (405, expected)
        assert response.headers["allow"] == "GET, HEAD, OPTIONS"
        response = client.options("/items/1")
        assert (response.status_code, response.content) == (204, b"")


seen = ContextVar("seen", default=0)


@pytest.mark.parametrize("kind", ["sync", "async", "suspended"])
def test_the_handler_of_no_route_sees_the_request(kind: str) -> None:
    app = App()

    def answer(request: Request, error: HTTPException) -> Any:
        assert seen.get() == 0, "each request has a context of its own"
        seen.set(1)
        head = [request.method, request.path, request.query["a"], request.headers["x-one"]]
        return JSONResponse([*head, request.path_params, request.app is app], 404)

    async def answer_in_a_task(request: Request, error: HTTPException) -> Any:
        if kind == "suspended":
            await asyncio.sleep(0)
        assert asyncio.current_task() is not None
        return answer(request, error)

    app.exception_handler(404)(answer if kind == "sync" else answer_in_a_task)
    with TestClient(app) as client:
        for _ in range(2):
            response = client.put("/no/where?a=b", headers={"x-one": "1"}, content=b"unread")
            assert response.status_code == 404
            assert response.json() == ["PUT", "/no/where", "b", "1", {}, True]
        response = client.head("/no/where?a=b", headers={"x-one": "1"})
        assert (response.status_code, response.content) == (404, b"")


def test_the_handler_of_no_route_may_stream_or_raise_again() -> None:
    app = App()

    @app.exception_handler(404)
    def handler(request: Request, error: HTTPException) -> StreamingResponse:
        def chunks() -> Iterator[str]:
            yield "a"
            yield "b"

        if request.path == "/again":
            raise error
        return StreamingResponse(chunks(), 404)

    with TestClient(app) as client:
        assert client.get("/").text == "ab"
        assert client.get("/again").json() == {"detail": "Not Found"}


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_failure_in_the_handler_of_no_route_is_500_and_logged(
    caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    app = App()

    def fail(request: Request, error: HTTPException) -> None:
        raise KeyError("secret")

    async def fail_async(request: Request, error: HTTPException) -> None:
        fail(request, error)

    app.exception_handler(404)(fail if kind == "sync" else fail_async)
    with TestClient(app) as client:
        response = client.get("/nope")
    assert (response.status_code, response.json()) == (500, {"detail": "Internal Server Error"})
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "GET - (no route) failed" in record.getMessage()
    assert "secret" in caplog.text


# -- raised as the arguments are made --------------------------------------------------------------


class Order(msgspec.Struct):
    item: str

    def __post_init__(self) -> None:
        if self.item == "taken":
            raise HTTPException(409, "it is taken")
        raise KeyError(self.item)


class Fragile:
    """A default that can be copied until the requests come."""

    def __deepcopy__(self, memo: object) -> Fragile:
        if requests_come.is_set():
            raise KeyError("default")
        return Fragile()


requests_come = threading.Event()


@pytest.fixture(autouse=True)
def no_requests_yet() -> None:
    requests_come.clear()


def making_arguments() -> App:
    app = App()

    @app.post("/def")
    def sync(order: Order) -> None: ...

    @app.post("/async")
    async def in_task(order: Order, request: Request) -> None: ...

    fragile: Any = Fragile()

    @app.get("/default")
    async def default(items: list[int] = fragile) -> None: ...

    return app


@pytest.mark.parametrize("path", ["/def", "/async"])
def test_an_http_exception_of_a_body_type_is_its_answer(path: str) -> None:
    with TestClient(making_arguments()) as client:
        response = client.post(path, json={"item": "taken"})
    assert (response.status_code, response.json()) == (409, {"detail": "it is taken"})


@pytest.mark.parametrize("kind", [KeyError, Exception])
@pytest.mark.parametrize("is_async", [False, True])
def test_what_the_arguments_raise_goes_to_its_handler(kind: Any, is_async: bool) -> None:
    app = making_arguments()

    def answer(request: Request, error: KeyError) -> Response:
        return JSONResponse([request.path, *error.args], 418)

    async def later(request: Request, error: KeyError) -> Response:
        await asyncio.sleep(0)
        return answer(request, error)

    app.exception_handler(kind)(later if is_async else answer)
    with TestClient(app) as client:
        requests_come.set()
        responses = [
            client.post("/def", json={"item": "x"}),
            client.post("/async", json={"item": "x"}),
            client.get("/default"),
        ]
    assert [(r.status_code, r.json()) for r in responses] == [
        (418, ["/def", "x"]),
        (418, ["/async", "x"]),
        (418, ["/default", "default"]),
    ]


def test_the_handler_of_what_the_arguments_raise_may_read_the_body() -> None:
    app = making_arguments()

    @app.exception_handler(KeyError)
    async def handle(request: Request, _error: KeyError) -> Any:
        return await request.json()

    with TestClient(app) as client:
        assert client.post("/async", json={"item": "x"}).json() == {"item": "x"}
