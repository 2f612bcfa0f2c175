"""The Task of a handler: what follows the handler, what is left in the end, another class of Task."""

from __future__ import annotations

import asyncio
import gc
import resource
import subprocess
import sys
from typing import Any

import pytest
from support.hold import Hold
from support.tasks import VAR, future, soon, this_task
from support.types import Connect, Serve

from treadle import App, StreamingResponse


def test_a_stream_of_a_handler_that_suspended_keeps_its_context(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/")
    async def handler() -> StreamingResponse:
        token = VAR.set("set")
        await asyncio.sleep(0)

        async def chunks() -> Any:
            yield VAR.get()
            await asyncio.sleep(0)
            yield this_task().get_context()[VAR]
            VAR.reset(token)
            yield VAR.get()

        return StreamingResponse(chunks())

    assert raw(serve(app)).get().body == b"setsetunset"


@pytest.mark.parametrize("path", ["/stream", "/rescue"])
def test_what_follows_a_handler_that_suspended_is_cancelled_when_the_client_leaves(
    serve: Serve, raw: Connect, hold: Hold, path: str
) -> None:
    app = App()

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def chunks() -> Any:
            with hold.watched():
                yield "part"
                await future()

        await asyncio.sleep(0)
        return StreamingResponse(chunks())

    @app.get("/rescue")
    async def rescue() -> None:
        await asyncio.sleep(0)
        raise KeyError

    @app.exception_handler(KeyError)
    async def handle(request: object, error: KeyError) -> None:
        await asyncio.sleep(0)
        with hold.watched():
            await future()

    connection = raw(serve(app))
    connection.send(f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n")
    hold.wait_arrival()
    connection.reset()
    assert hold.outcome() == "CancelledError"


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("path", ["/none", "/suspends", "/notices", "/fails"])
def test_a_hundred_thousand_tasks_leave_nothing(serve: Serve, raw: Connect, path: str) -> None:
    app = App()

    @app.get("/none")
    async def none() -> None: ...

    @app.get("/suspends")
    async def suspends() -> None:
        await asyncio.sleep(0)

    @app.get("/notices")
    async def notices() -> None:
        this_task().get_name()
        await soon(future())

    @app.exception_handler(KeyError)
    def handle(request: object, error: KeyError) -> None: ...

    @app.get("/fails")
    async def fails() -> None:
        this_task().get_name()
        await asyncio.sleep(0)
        raise KeyError

    connection = raw(serve(app))

    def ask(count: int) -> tuple[int, int]:
        burst = f"GET {path} HTTP/1.1\r\nHost: t\r\n\r\n" * 50
        for _ in range(count // 50):
            connection.send(burst)
            assert {connection.response().status for _ in range(50)} == {204}
        gc.collect()
        return len(gc.get_objects()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    objects, memory = ask(5_000)
    objects_later, memory_later = ask(100_000)
    assert objects_later - objects < 500
    assert memory_later - memory < 8_000


OTHER_CLASS = """
import asyncio, sys
class Counted(asyncio.Task):
    made = 0

    def __init__(self, *args, **keywords):
        Counted.made += 1
        super().__init__(*args, **keywords)

asyncio.Task = asyncio.tasks.Task = Counted
import httpx
from treadle import App, StreamingResponse
from treadle.testing import LiveServer

app = App()

async def maybe(suspend):
    if suspend:
        await asyncio.sleep(0)
    assert type(asyncio.current_task()) is Counted

@app.get("/{suspend:int}")
async def plain(suspend: int) -> str:
    await maybe(suspend)
    return "x"

@app.get("/fails/{suspend:int}")
async def fails(suspend: int) -> str:
    await maybe(suspend)
    raise KeyError

@app.exception_handler(KeyError)
async def handle(request, error) -> str:
    await maybe(True)
    return "handled"

@app.get("/stream/{suspend:int}")
async def stream(suspend: int):
    await maybe(suspend)
    async def chunks():
        yield "a"
        await asyncio.sleep(0)
        yield "b"
    return StreamingResponse(chunks())

with LiveServer(app) as server:
    base = "http://%s:%d" % server.address
    for path in ("/", "/fails/", "/stream/"):
        for suspend in (0, 1, 0, 1):
            before = Counted.made
            print(httpx.get(f"{base}{path}{suspend}").text, Counted.made > before)
"""


def test_a_class_that_somebody_put_in_place_of_asyncios_is_used() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", OTHER_CLASS],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stderr == ""
    assert run.stdout.split() == ["x", "True"] * 4 + ["handled", "True"] * 4 + ["ab", "True"] * 4
    assert run.returncode == 0
