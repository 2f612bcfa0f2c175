"""`def` handlers: called on the lane itself."""

from __future__ import annotations

import asyncio
import threading

from support.types import Connect, Serve

from treadle import App, Request, StreamingResponse


def test_a_def_handler_runs_on_the_lane_and_in_no_task(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/")
    def handler() -> list[object]:
        loop = asyncio.get_running_loop()
        return [threading.current_thread().name, asyncio.current_task() is None, loop.is_running()]

    assert raw(serve(app)).get().body == b'["treadle-lane-0",true,true]'


def test_a_def_handler_can_leave_work_to_the_loop(serve: Serve, raw: Connect) -> None:
    app = App()
    done = threading.Event()

    @app.get("/soon")
    def soon() -> None:
        asyncio.get_running_loop().call_soon(done.set)

    @app.get("/later")
    def later() -> None:
        asyncio.get_running_loop().call_later(0.001, done.set)

    @app.get("/task")
    def task() -> None:
        async def work() -> None:
            await asyncio.sleep(0)
            done.set()

        tasks.append(asyncio.get_running_loop().create_task(work()))

    tasks: list[asyncio.Task[None]] = []
    connection = raw(serve(app))
    for path in ("/soon", "/later", "/task"):
        done.clear()
        assert connection.get(path).status == 204
        assert done.wait(10)


def test_a_coroutine_that_a_def_handler_returns_is_awaited(serve: Serve, raw: Connect) -> None:
    app = App()

    async def fetch(name: str) -> list[object]:
        await asyncio.sleep(0)
        return [name, asyncio.current_task() is not None]

    @app.get("/{name}")
    def handler(name: str) -> object:
        return fetch(name)

    @app.get("/lambda/{name}")
    def through_lambda(name: str) -> object:
        return (lambda: fetch(name))()

    connection = raw(serve(app))
    assert connection.get("/ada").body == b'["ada",true]'
    assert connection.get("/lambda/ada").body == b'["ada",true]'


def test_a_coroutine_that_an_awaited_coroutine_returns_is_awaited_too(
    serve: Serve, raw: Connect
) -> None:
    app = App()

    async def inner() -> str:
        await asyncio.sleep(0)
        return "inner"

    @app.get("/")
    async def outer() -> object:
        await asyncio.sleep(0)
        return inner()

    assert raw(serve(app)).get().body == b"inner"


def test_pipelined_requests_are_answered_in_order(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/{n:int}")
    def handler(n: int) -> int:
        return n

    connection = raw(serve(app))
    connection.send("".join(f"GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n" for n in range(1000)))
    assert [int(connection.response().body) for _ in range(1000)] == list(range(1000))


def test_a_stream_from_a_def_handler_runs_in_a_task(serve: Serve, raw: Connect) -> None:
    app = App()
    closed: list[str] = []

    @app.get("/sync")
    def sync() -> StreamingResponse:
        def chunks():  # type: ignore[no-untyped-def]
            try:
                for n in range(3):
                    yield f"{n} {asyncio.current_task() is not None};"
            finally:
                closed.append("sync")

        return StreamingResponse(chunks())

    @app.get("/async")
    def asynchronous() -> StreamingResponse:
        async def chunks():  # type: ignore[no-untyped-def]
            try:
                for n in range(3):
                    await asyncio.sleep(0)
                    yield f"{n} {asyncio.current_task() is not None};"
            finally:
                closed.append("async")

        return StreamingResponse(chunks())

    connection = raw(serve(app))
    for path in ("/sync", "/async"):
        response = connection.get(path)
        assert response.body == b"0 True;1 True;2 True;"
        assert response.chunks == [b"0 True;", b"1 True;", b"2 True;"]
    assert closed == ["sync", "async"]


def test_a_handler_that_recurses_without_end_is_500(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/")
    def handler(request: Request) -> object:
        return handler(request)

    app.get("/next")(lambda: "fine")
    connection = raw(serve(app))
    assert connection.get().status == 500
    assert connection.get("/next").body == b"fine"
