"""What refers to itself, as handlers' objects often do, is collected: on any thread."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from support.lanes import wait_connections
from support.memory import rss
from support.messages import request as message
from support.types import Connect, Serve

from treadle import App, Lane, Request, StreamingResponse
from treadle.testing import LiveServer

alive: list[weakref.ref[Any]] = []


@pytest.fixture(autouse=True)
def collects_by_hand() -> Iterator[None]:
    """The collector runs on the thread that asks for it, which is none of a lane's."""
    alive.clear()
    gc.disable()
    yield
    gc.enable()


class Referrer:
    """What an object refers to that it is referred to by."""

    def __init__(self, held: Any) -> None:
        self.held = held
        alive.append(weakref.ref(self))


def keeps_itself(request: Request) -> None:
    request.state.referrer = Referrer(request)


def in_its_cookies(request: Request) -> None:
    request.cookies["referrer"] = Referrer(request)  # type: ignore[assignment]


def streams_itself(request: Request) -> StreamingResponse:
    async def chunks() -> AsyncIterator[str]:
        yield repr(referrer)

    response = StreamingResponse(chunks())
    referrer = Referrer(response)
    return response


@pytest.mark.parametrize("handler", [keeps_itself, in_its_cookies, streams_itself])
def test_requests_and_responses_in_cycles_are_collected(
    handler: Callable[[Request], Any], serve: Serve, raw: Connect
) -> None:
    app = App()
    app.get("/")(handler)
    connection = raw(serve(app))
    for _ in range(5):
        assert connection.get("/").status in {200, 204}
    assert connection.get("/unknown").status == 404  # nothing of the last one is on a stack
    gc.collect()
    assert [found() for found in alive] == [None] * 5


def raises_what_it_keeps(request: Request) -> None:
    try:
        raise ValueError
    except ValueError as error:
        request.state.referrer = Referrer((request, error))
        raise


@pytest.mark.parametrize("handler", [keeps_itself, raises_what_it_keeps])
def test_what_offloaded_handlers_leave_is_collected(
    handler: Callable[[Request], Any], serve: Serve, raw: Connect
) -> None:
    app = App()
    app.exception_handler(ValueError)(lambda request, error: None)  # else a log keeps the error
    app.get("/", offload=True)(handler)
    app.get("/next", offload=True)(lambda: None)
    connection = raw(serve(app, offload_threads=1))
    for _ in range(5):
        assert connection.get("/").status == 204
    # By the same thread, which is done with the others.
    assert connection.get("/next").status == 204
    gc.collect()
    assert [found() for found in alive] == [None] * 5


def test_what_an_offloaded_handler_raises_for_nobody_is_collected(
    serve: Serve, raw: Connect
) -> None:
    app = App()
    begun, left = threading.Event(), threading.Event()

    @app.get("/", offload=True)
    def root(request: Request) -> None:
        begun.set()
        assert left.wait(10)
        raise ValueError(Referrer(request))

    app.get("/next", offload=True)(lambda: None)
    server = serve(app, offload_threads=1)
    with raw(server) as connection:
        connection.send(message("GET", "/"))
        assert begun.wait(10)
    wait_connections(server, 0)
    left.set()
    assert raw(server).get("/next").status == 204  # as above
    gc.collect()
    assert [found() for found in alive] == [None]


def test_an_app_that_its_handlers_refer_to_is_collected() -> None:
    def make() -> None:
        app = App()
        referrer = Referrer(app)

        @app.get("/")
        def root(number: int = 0) -> str:
            return repr(referrer)

    make()
    gc.collect()
    assert [found() for found in alive] == [None]


def test_an_app_that_was_served_is_collected(raw: Connect) -> None:
    def serve_once() -> None:
        app = App()
        referrer = Referrer(app)

        @app.lane_lifespan
        async def of_lane(lane: Lane) -> AsyncIterator[None]:
            lane.state.referrer = referrer
            yield

        @app.get("/")
        async def root() -> str:
            return type(referrer).__name__

        with LiveServer(app) as server:
            assert raw(server).get("/").body == b"Referrer"

    serve_once()
    gc.collect()
    assert [found() for found in alive] == [None]


def test_bodies_of_requests_collected_on_another_thread_are_freed(
    serve: Serve, raw: Connect
) -> None:
    """The lane drops them: they are the lane's, whoever finds that nobody needs them."""
    app = App()
    mebibyte = 1024 * 1024

    @app.post("/")
    async def root(request: Request) -> int:
        keeps_itself(request)
        return len(await request.body())

    connection = raw(serve(app))
    upload = message("POST", "/", body=bytes(8 * mebibyte))

    def ask() -> None:
        connection.send(upload)
        assert connection.response().body == b"%d" % (8 * mebibyte)
        gc.collect()

    for _ in range(3):
        ask()
    before = rss()
    for _ in range(10):
        ask()
    assert rss() - before < 40 * mebibyte
