"""`async def` handlers: a real Task, whose first step is taken at once."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator

import anyio
import pytest
from support.types import Connect, Serve

from treadle import App
from treadle.testing import TestClient

app = App()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


# -- what the Task is -----------------------------------------------------------------------------


@app.get("/current")
async def current() -> list[bool]:
    first = asyncio.current_task()
    seen = [type(first) is asyncio.Task, first in asyncio.all_tasks()]
    await asyncio.sleep(0)
    seen += [asyncio.current_task() is first, first in asyncio.all_tasks()]
    await asyncio.sleep(0.001)
    return [*seen, asyncio.current_task() is first]


def test_the_current_task_is_right_from_the_first_line(client: TestClient) -> None:
    assert client.get("/current").json() == [True] * 5


@app.get("/face")
async def face() -> list[object]:
    task = asyncio.current_task()
    assert task is not None
    seen: list[object] = [
        task.get_name().startswith("Task-"),
        task.get_coro().__name__,  # type: ignore[union-attr]
        "face()" in repr(task),
        asyncio.iscoroutine(task.get_coro()),
        task.done(),
        task.get_loop() is asyncio.get_running_loop(),
        task.get_stack()[-1].f_code.co_name,
    ]
    task.set_name("mine")
    await asyncio.sleep(0)
    return [*seen, task.get_name(), threading.current_thread().name]


def test_the_task_can_be_looked_at(client: TestClient) -> None:
    seen = client.get("/face").json()
    assert seen == [True, "face", True, True, False, True, "face", "mine", "treadle-lane-0"]


@app.get("/stack")
async def stack() -> list[str]:
    task = asyncio.current_task()
    assert task is not None
    looked: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()

    def look() -> None:
        looked.set_result([frame.f_code.co_name for frame in task.get_stack()])

    asyncio.get_running_loop().call_soon(look)
    return await looked


def test_the_stack_of_a_suspended_task_shows_the_handler(client: TestClient) -> None:
    assert client.get("/stack").json() == ["stack"]


@app.get("/callback")
async def callback() -> None:
    task = asyncio.current_task()
    assert task is not None
    await asyncio.sleep(0)
    task.add_done_callback(ended.append)
    task.add_done_callback(lambda task: ended_event.set())


ended: list[asyncio.Task[object]] = []
ended_event = threading.Event()


def test_done_callbacks_of_the_task_are_called(client: TestClient) -> None:
    assert client.get("/callback").status_code == 204
    assert ended_event.wait(10)
    assert ended[0].done()
    assert not ended[0].cancelled()
    assert ended[0].exception() is None


# -- asyncio's own tools, which remember the current task -----------------------------------------


@app.get("/timeout/{suspend:int}")
async def timeout(suspend: int) -> str:
    if suspend:
        await asyncio.sleep(0)
    try:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()
    except TimeoutError:
        return "timed out"
    return "not"


@app.get("/timeout-0")
async def timeout_at_once() -> str:
    try:
        async with asyncio.timeout(0):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
    except TimeoutError:
        return "timed out"
    return "not"


@app.get("/wait-for")
async def wait_for() -> str:
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)
    except TimeoutError:
        return "timed out"
    return "not"


@app.get("/timeout-unused")
async def timeout_unused() -> str:
    async with asyncio.timeout(10):  # noqa: ASYNC100
        pass
    async with asyncio.timeout(10):
        await asyncio.sleep(0)
    return "timed out" if asyncio.current_task().cancelling() else "fine"  # type: ignore[union-attr]


@pytest.mark.parametrize("path", ["/timeout/0", "/timeout/1", "/timeout-0", "/wait-for"])
def test_time_runs_out_from_the_first_step_on(client: TestClient, path: str) -> None:
    assert client.get(path).text == "timed out"


def test_a_timeout_that_is_not_reached_leaves_no_trace(client: TestClient) -> None:
    assert client.get("/timeout-unused").text == "fine"


@app.get("/group")
async def group() -> list[int]:
    async def square(n: int) -> int:
        await asyncio.sleep(0)
        return n * n

    async with asyncio.TaskGroup() as tasks:
        squares = [tasks.create_task(square(n)) for n in range(5)]
    return [task.result() for task in squares]


@app.get("/group-fails")
async def group_fails() -> list[str]:
    ended = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("sibling")

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("child")

    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(wait())
            tasks.create_task(fail())
    except* ValueError as group:
        ended.append(str(group.exceptions[0]))
    return ended


@app.get("/group-at-once")
async def group_at_once() -> str:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(10))
            raise ValueError("body")
    except ExceptionGroup as group:
        return f"ended by {group.exceptions[0]}"


@app.get("/gather")
async def gather() -> list[object]:
    async def fail() -> None:
        raise ValueError("one")

    results = await asyncio.gather(
        asyncio.sleep(0, "slept"),
        fail(),
        asyncio.to_thread(lambda: "thread"),
        return_exceptions=True,
    )
    return [str(result) for result in results]


@app.get("/shield")
async def shield() -> list[str]:
    steps = []

    async def work() -> None:
        await asyncio.sleep(0.005)
        steps.append("worked")

    inner = asyncio.ensure_future(work())
    try:
        await asyncio.wait_for(asyncio.shield(inner), 0.001)
    except TimeoutError:
        steps.append("gave up")
    await inner
    return steps


@app.get("/queue")
async def queue() -> list[int]:
    queue: asyncio.Queue[int] = asyncio.Queue(1)

    async def produce() -> None:
        for n in range(5):
            await queue.put(n)

    producer = asyncio.create_task(produce())
    got = [await queue.get() for _ in range(5)]
    await producer
    return got


@pytest.mark.parametrize(
    ("path", "result"),
    [
        ("/group", [0, 1, 4, 9, 16]),
        ("/group-fails", ["sibling", "child"]),
        ("/gather", ["slept", "one", "thread"]),
        ("/shield", ["gave up", "worked"]),
        ("/queue", [0, 1, 2, 3, 4]),
    ],
)
def test_tools_of_asyncio_work_in_a_handler(
    client: TestClient, path: str, result: list[object]
) -> None:
    assert client.get(path).json() == result


def test_a_task_group_whose_body_fails_in_the_first_step_ends(client: TestClient) -> None:
    assert client.get("/group-at-once").text == "ended by body"


@app.get("/anyio")
async def with_anyio() -> list[object]:
    steps: list[object] = []
    with anyio.move_on_after(0.001) as scope:
        await anyio.sleep(10)
    steps.append(scope.cancelled_caught)
    with pytest.raises(TimeoutError), anyio.fail_after(0.001):
        await anyio.sleep(10)
    send, receive = anyio.create_memory_object_stream[int](1)

    async def produce() -> None:
        async with send:
            for n in range(3):
                await send.send(n)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(produce)
        async with receive:
            steps.append([n async for n in receive])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep, 10)
        tasks.cancel_scope.cancel()
    steps.append(await anyio.to_thread.run_sync(lambda: "thread"))
    return steps


def test_cancel_scopes_of_anyio_work_from_the_first_step(client: TestClient) -> None:
    assert client.get("/anyio").json() == [True, [0, 1, 2], "thread"]


@app.get("/cancel-self")
async def cancel_self() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    try:
        await asyncio.sleep(10)
    except asyncio.CancelledError:
        task.uncancel()
        return "caught"
    return "not"


def test_a_handler_may_cancel_its_own_task_and_catch_it(client: TestClient) -> None:
    assert client.get("/cancel-self").text == "caught"


@app.get("/futures")
async def futures() -> int:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()
    threading.Thread(target=lambda: loop.call_soon_threadsafe(future.set_result, 7)).start()
    return await future


def test_another_thread_can_wake_a_handler(client: TestClient) -> None:
    assert [client.get("/futures").json() for _ in range(50)] == [7] * 50


# -- answered in the same poll, or many at once ---------------------------------------------------


def test_a_handler_that_never_suspends_is_answered_in_the_same_poll(
    serve: Serve, raw: Connect
) -> None:
    app = App()
    order: list[str] = []

    @app.get("/{n:int}")
    async def handler(n: int) -> int:
        # Whatever runs in the loop's turn comes after all requests of one read.
        asyncio.get_running_loop().call_soon(order.append, f"turn {n}")
        order.append(f"call {n}")
        return n

    connection = raw(serve(app))
    connection.send("".join(f"GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n" for n in range(8)))
    assert [connection.response().body for _ in range(8)] == [b"%d" % n for n in range(8)]
    assert order[:8] == [f"call {n}" for n in range(8)]


def test_handlers_of_one_lane_wait_side_by_side(serve: Serve, raw: Connect) -> None:
    app = App()
    waiting: list[asyncio.Event] = []

    @app.get("/wait")
    async def wait() -> str:
        event = asyncio.Event()
        waiting.append(event)
        if len(waiting) == 20:
            for each in waiting:
                each.set()
        await event.wait()
        return "met"

    server = serve(app)
    connections = [raw(server) for _ in range(20)]
    for connection in connections:
        connection.send("GET /wait HTTP/1.1\r\nHost: t\r\n\r\n")
    assert {connection.response().body for connection in connections} == {b"met"}


def test_a_pipelined_request_waits_for_the_one_before_it(serve: Serve, raw: Connect) -> None:
    app = App()
    order: list[str] = []

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(0.01)
        order.append("slow")
        return "slow"

    @app.get("/fast")
    async def fast() -> str:
        order.append("fast")
        return "fast"

    connection = raw(serve(app))
    connection.send("".join(f"GET /{x} HTTP/1.1\r\nHost: t\r\n\r\n" for x in ("slow", "fast")))
    assert [connection.response().body for _ in range(2)] == [b"slow", b"fast"]
    assert order == ["slow", "fast"]


CROWD = """
import socket, sys, time
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
crowd = [socket.create_connection((host, port), timeout=20) for _ in range(count)]
started = time.monotonic()
for each in crowd:
    each.sendall(b"GET / HTTP/1.1\\r\\nHost: t\\r\\n\\r\\n")
answered = sum(each.recv(4096).startswith(b"HTTP/1.1 204") for each in crowd)
print(answered, time.monotonic() - started)
"""
"""A client for many connections: a process of its own, because descriptors are limited."""


@pytest.fixture
def many_descriptors() -> Iterator[int]:
    """Raises this process's limit of descriptors as far as it goes; gives it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.timing
@pytest.mark.timeout(120)
def test_ten_thousand_handlers_sleep_at_once_on_one_lane(
    serve: Serve, many_descriptors: int
) -> None:
    count = min(10_000, many_descriptors - 200)
    app = App()
    asleep = most = 0

    @app.get("/")
    async def handler() -> None:
        nonlocal asleep, most
        asleep += 1
        most = max(most, asleep)
        await asyncio.sleep(1)
        asleep -= 1

    address = serve(app, backlog=1024).address
    crowd = subprocess.run(
        [sys.executable, "-c", CROWD, *map(str, (*address, count))],
        stdout=subprocess.PIPE,
        check=True,
    )
    answered, took = crowd.stdout.split()
    assert int(answered) == count
    assert most > 0.9 * count
    assert 1.0 <= float(took) < 5.0
