"""What runs before the first request and after the last: for the process, and for each lane."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from support.lanes import several_lanes
from support.types import Connect, Serve

from treadle import App, Lane, Request, StartupError, State
from treadle.server import running
from treadle.testing import LiveServer, TestClient


class Journal:
    """What happened, in order, from any thread."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def app(self, **failing: BaseException) -> App:
        """An app whose lifespans write down their beginning and end, or raise what is given."""

        def note(line: str, moment: str) -> None:
            self.lines.append(line)
            if moment in failing:
                raise failing[moment]

        app = App()

        @app.lifespan
        async def process(app: App) -> AsyncIterator[None]:
            note("process up", "up")
            yield
            note("process down", "down")

        @app.lane_lifespan
        async def each(lane: Lane) -> AsyncIterator[None]:
            note(f"lane {lane.index} up", f"up_{lane.index}")
            yield
            note(f"lane {lane.index} down", f"down_{lane.index}")

        app.get("/")(lambda: self.lines.append("request"))
        return app


@pytest.fixture
def journal() -> Journal:
    return Journal()


def test_the_process_begins_before_its_lane_and_ends_after_it(journal: Journal) -> None:
    with TestClient(journal.app()) as client:
        client.get("/")
    assert journal.lines == ["process up", "lane 0 up", "request", "lane 0 down", "process down"]


@several_lanes
def test_with_several_lanes_the_process_is_first_and_last(journal: Journal) -> None:
    with LiveServer(journal.app(), lanes=3):
        assert sorted(journal.lines[2:]) == ["lane 1 up", "lane 2 up"]
        assert journal.lines[:2] == ["process up", "lane 0 up"]
        journal.lines.clear()
    assert sorted(journal.lines[:-1]) == ["lane 0 down", "lane 1 down", "lane 2 down"]
    assert journal.lines[-1] == "process down"


@several_lanes
def test_each_lane_has_a_loop_a_thread_and_a_state_of_its_own(serve: Serve, raw: Connect) -> None:
    app = App()
    kept: dict[int, tuple[asyncio.AbstractEventLoop, int, State]] = {}

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        lane.state.number = lane.index * 10
        kept[lane.index] = asyncio.get_running_loop(), threading.get_ident(), lane.state
        yield

    @app.get("/")
    async def handler(lane: Lane, request: Request) -> list[object]:
        loop, thread, state = kept[lane.index]
        return [
            lane.index,
            lane.state.number,
            loop is asyncio.get_running_loop(),
            thread == threading.get_ident(),
            request.lane is lane and lane.state is state,
        ]

    server = serve(app, lanes=3)
    answers = [raw(server).get().body for _ in range(3)]
    assert sorted(answers) == [b"[%d,%d,true,true,true]" % (n, n * 10) for n in range(3)]
    assert len({id(row[0]) for row in kept.values()}) == 3
    assert len({row[1] for row in kept.values()}) == 3
    assert len({id(row[2]) for row in kept.values()}) == 3


def test_the_state_of_the_app_is_there_for_handlers() -> None:
    app = App()

    @app.lifespan
    async def lifespan(app: App) -> AsyncIterator[None]:
        app.state.greeting = "hello"
        yield
        del app.state.greeting

    @app.get("/")
    def handler(app: App, request: Request) -> list[str]:
        return [app.state.greeting, request.app.state.greeting]

    with TestClient(app) as client:
        assert client.get("/").json() == ["hello", "hello"]
    with pytest.raises(AttributeError, match="nothing was stored as 'greeting'"):
        _ = app.state.greeting


def test_lifespans_can_be_given_as_context_managers_to_the_app() -> None:
    lines: list[str] = []

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        lines.append("up")
        yield
        lines.append("down")

    @asynccontextmanager
    async def lane_lifespan(lane: Lane) -> AsyncIterator[None]:
        lines.append("lane up")
        yield
        lines.append("lane down")

    with LiveServer(App(lifespan=lifespan, lane_lifespan=lane_lifespan)):
        pass
    assert lines == ["up", "lane up", "lane down", "down"]


def test_no_request_is_answered_before_the_lifespans_have_begun(raw: Connect) -> None:
    app = App()
    begun, release = threading.Event(), threading.Event()

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        begun.set()
        await asyncio.to_thread(release.wait, 10)
        lane.state.ready = True
        yield

    app.get("/")(lambda: "answered")

    @app.get("/ready")
    def ready(lane: Lane) -> bool:
        return bool(lane.state.ready)

    server = LiveServer(app)
    starting = threading.Thread(target=server.start)
    starting.start()
    try:
        assert begun.wait(10)
        with pytest.raises(RuntimeError, match="does not run"):
            _ = server.address
    finally:
        release.set()
        starting.join()
    try:
        assert raw(server).get("/ready").body == b"true"
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("failing", "lines"),
    [
        ("up", ["process up"]),
        ("up_0", ["process up", "lane 0 up", "process down"]),
    ],
)
def test_a_start_that_fails_undoes_what_was_done(
    journal: Journal, failing: str, lines: list[str]
) -> None:
    error = ValueError("no database")
    server = LiveServer(journal.app(**{failing: error}))
    with pytest.raises(StartupError, match="ValueError: no database") as caught:
        server.start()
    assert caught.value.__cause__ is error
    assert journal.lines == lines


@pytest.mark.parametrize("failing", ["up", "up_0"])
def test_a_start_that_cancels_itself_was_not_told_to_stop(journal: Journal, failing: str) -> None:
    server = LiveServer(journal.app(**{failing: asyncio.CancelledError()}))
    with pytest.raises(StartupError) as caught:
        server.start()
    assert str(caught.value) == "the server did not start: a lifespan raised CancelledError"
    assert isinstance(caught.value.__cause__, asyncio.CancelledError)


def test_a_start_that_was_told_to_stop_says_so() -> None:
    app = App()

    @app.lifespan
    async def lifespan(app: App) -> AsyncIterator[None]:
        for server in running():
            if server.app is app:
                server.drain()
        await asyncio.Event().wait()
        yield

    with pytest.raises(StartupError, match="did not start: it was told to stop"):
        LiveServer(app).start()


@several_lanes
def test_a_lane_that_fails_to_start_takes_the_others_down(journal: Journal) -> None:
    server = LiveServer(journal.app(up_1=ValueError("no pool")), lanes=3)
    with pytest.raises(StartupError, match="ValueError: no pool"):
        server.start()
    assert journal.lines[:2] == ["process up", "lane 0 up"]
    assert journal.lines[-1] == "process down"
    ups = {line.split(" up")[0] for line in journal.lines if line.endswith("up")}
    downs = {line.split(" down")[0] for line in journal.lines if line.endswith("down")}
    assert ups - downs == {"lane 1"}


@pytest.mark.parametrize("failing", ["down", "down_0"])
def test_an_end_that_fails_is_logged_and_the_rest_still_runs(
    journal: Journal, caplog: pytest.LogCaptureFixture, failing: str
) -> None:
    server = LiveServer(journal.app(**{failing: ValueError("cannot close")}))
    server.start()
    with pytest.raises(RuntimeError, match="the app failed"):
        server.stop()
    assert journal.lines == ["process up", "lane 0 up", "lane 0 down", "process down"]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "a lifespan failed while shutting down"
    assert "ValueError: cannot close" in caplog.text


@pytest.mark.parametrize("failing", ["down", "down_0"])
@pytest.mark.parametrize("error", [asyncio.CancelledError(), SystemExit(3), KeyboardInterrupt()])
def test_an_end_that_is_broken_off_is_one_that_fails(
    journal: Journal, caplog: pytest.LogCaptureFixture, failing: str, error: BaseException
) -> None:
    server = LiveServer(journal.app(**{failing: error}))
    server.start()
    with pytest.raises(RuntimeError, match="the app failed"):
        server.stop()
    assert journal.lines == ["process up", "lane 0 up", "lane 0 down", "process down"]
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.getMessage() == "a lifespan failed while shutting down"
    assert record.exc_info is not None
    assert record.exc_info[1] is error


@pytest.mark.parametrize("whose", ["process", "lane"])
def test_an_end_that_awaits_a_task_that_it_cancelled_is_logged(
    caplog: pytest.LogCaptureFixture, whose: str
) -> None:
    app = App()
    lines: list[str] = []

    async def worker() -> None:
        await asyncio.Event().wait()

    async def life(name: str) -> AsyncIterator[None]:
        task = asyncio.create_task(worker())
        yield
        task.cancel()
        if name == whose:
            await task
        lines.append(f"{name} down")

    @app.lifespan
    async def process(app: App) -> AsyncIterator[None]:
        async with asynccontextmanager(life)("process"):
            yield

    @app.lane_lifespan
    async def each(lane: Lane) -> AsyncIterator[None]:
        async with asynccontextmanager(life)("lane"):
            yield

    server = LiveServer(app)
    server.start()
    with pytest.raises(RuntimeError, match="the app failed"):
        server.stop()
    assert lines == [name + " down" for name in ("lane", "process") if name != whose]
    assert "a lifespan failed while shutting down" in caplog.text
    assert "CancelledError" in caplog.text


def test_tasks_of_a_lifespan_run_between_requests_and_can_be_ended(serve: Serve) -> None:
    app = App()

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        queue: asyncio.Queue[asyncio.Future[str]] = asyncio.Queue()

        async def work() -> None:
            while True:
                (await queue.get()).set_result("worked")

        task = asyncio.create_task(work())
        lane.state.queue = queue
        yield
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @app.get("/")
    async def handler(lane: Lane) -> str:
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        lane.state.queue.put_nowait(answer)
        return await answer

    with TestClient(app) as client:
        assert [client.get("/").text for _ in range(3)] == ["worked"] * 3


def test_a_lifespan_that_swallows_the_yield_is_a_failed_start() -> None:
    app = App()

    @app.lifespan
    async def lifespan(app: App) -> AsyncIterator[None]:
        if app is None:
            yield

    with pytest.raises(StartupError, match="didn't yield"):
        LiveServer(app).start()


def test_a_lifespan_of_another_kind_is_a_failed_start_that_names_it() -> None:
    async def plain(_: object) -> None: ...

    def generator(_: object) -> Iterator[None]:
        yield

    for wrong in (plain, generator):
        place = (
            f"{__file__}:{wrong.__code__.co_firstlineno} .*{wrong.__name__}: a lifespan is `async"
        )
        for app in (App(lifespan=wrong), App(lane_lifespan=wrong)):  # type: ignore[arg-type]
            with pytest.raises(StartupError, match=place):
                LiveServer(app).start()


def test_handlers_end_before_their_lanes_lifespan(raw: Connect) -> None:
    app = App()
    lines: list[str] = []
    inside, draining = threading.Event(), threading.Event()

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        yield
        lines.append("lifespan ended")

    @app.get("/")
    async def handler() -> str:
        inside.set()
        await asyncio.to_thread(draining.wait, 10)
        lines.append("handler ended")
        return "whole"

    server = LiveServer(app, grace=10.0)
    server.start()
    connection = raw(server)
    connection.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
    assert inside.wait(10)
    server.server.drain()
    draining.set()
    response = connection.response()
    server.stop()
    assert response.body == b"whole"
    assert lines == ["handler ended", "lifespan ended"]


def test_a_handler_that_outlasts_the_grace_is_cancelled_before_the_lifespan_ends(
    raw: Connect,
) -> None:
    app = App()
    lines: list[str] = []
    inside = threading.Event()

    @app.lane_lifespan
    async def lifespan(lane: Lane) -> AsyncIterator[None]:
        yield
        lines.append("lifespan ended")

    @app.get("/")
    async def handler() -> None:
        inside.set()
        try:
            await asyncio.Event().wait()
        finally:
            lines.append("handler ended")

    server = LiveServer(app, grace=0.0)
    server.start()
    connection = raw(server)
    connection.send("GET / HTTP/1.1\r\nHost: t\r\n\r\n")
    assert inside.wait(10)
    server.stop()
    assert lines == ["handler ended", "lifespan ended"]
    connection.rest()
