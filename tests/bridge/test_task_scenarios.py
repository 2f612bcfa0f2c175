"""The Task of a handler in each of its moments, beside an eager one that asyncio started itself."""

from __future__ import annotations

import asyncio
import io
import re
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from typing import Any

import pytest
from support.eager import outcome_of_eager_task
from support.tasks import VAR, future, soon, this_task

from treadle import App
from treadle.testing import TestClient

Scenario = Callable[[], Coroutine[Any, Any, Any]]


class Bare:
    """Awaits by yielding what it is given, which asyncio may not like."""

    def __init__(self, value: object) -> None:
        self.value = value

    def __await__(self) -> Generator[Any, Any, Any]:
        return (yield self.value)


class Stubborn(asyncio.Future[Any]):
    """Refuses to be cancelled."""

    def cancel(self, msg: Any = None) -> bool:
        return False


SCENARIOS: dict[str, Scenario] = {}


def scenario(function: Scenario) -> Scenario:
    SCENARIOS[function.__name__] = function
    return function


async def caught(awaitable: Awaitable[Any]) -> object:
    try:
        return await awaitable
    except BaseException as error:
        return [type(error).__name__, *map(str, error.args)]


def requests_to_cancel(task: asyncio.Task[Any]) -> list[object]:
    return [task.cancelling(), task._must_cancel]  # type: ignore[attr-defined]


async def cancelled_by_itself(wait: Callable[[], Awaitable[Any]]) -> list[object]:
    task = this_task()
    log: list[object] = [task.cancel("why"), requests_to_cancel(task)]
    log.append(await caught(wait()))
    log += [requests_to_cancel(task), task.uncancel(), requests_to_cancel(task)]
    log.append(await caught(asyncio.sleep(0, "slept")))
    return log


@scenario
async def cancel_then_wait_for_a_future() -> object:
    waited = future()
    return [await cancelled_by_itself(lambda: waited), waited.cancelled()]


@scenario
async def cancel_then_sleep() -> object:
    return await cancelled_by_itself(lambda: asyncio.sleep(10))


@scenario
async def cancel_then_yield() -> object:
    return await cancelled_by_itself(lambda: asyncio.sleep(0))


@scenario
async def cancel_then_wait_for_what_refuses() -> object:
    stubborn = Stubborn()
    return await cancelled_by_itself(lambda: soon(stubborn, "never seen"))


@scenario
async def cancel_then_wait_for_what_is_done() -> object:
    done = future()
    done.set_result("done")
    return await cancelled_by_itself(lambda: done)


@scenario
async def cancel_then_bad_yield() -> object:
    return await cancelled_by_itself(lambda: Bare(1))


@scenario
async def cancel_twice_and_take_one_back() -> object:
    task = this_task()
    task.cancel("a")
    task.cancel("b")
    log: list[object] = [task.uncancel(), requests_to_cancel(task)]
    log.append(await caught(future()))
    return [*log, requests_to_cancel(task)]


@scenario
async def cancel_and_take_it_back() -> object:
    task = this_task()
    task.cancel()
    task.uncancel()
    return [await caught(asyncio.sleep(0, "slept")), requests_to_cancel(task)]


@scenario
async def cancelled_while_it_waits() -> object:
    task = this_task()
    asyncio.get_running_loop().call_soon(task.cancel, "from outside")
    log: list[object] = [await caught(asyncio.sleep(10)), task.cancelling()]
    asyncio.get_running_loop().call_soon(task.cancel, "again")
    return [*log, await caught(future()), task.cancelling()]


@scenario
async def yields_that_asyncio_refuses() -> object:
    other = asyncio.new_event_loop()
    try:
        foreign = other.create_future()
        log = [await caught(Bare(value)) for value in (1, future(), (x for x in "ab"))]
        log += [await caught(this_task()), await caught(foreign)]
    finally:
        other.close()
    # Without what differs between any two Tasks: their names, addresses and listeners.
    return [re.sub("Task-[0-9]+|0x[0-9a-f]+| cb=.*?]|coro=<[^>]*>", "", str(each)) for each in log]


@scenario
async def refused_at_once() -> object:
    return (await caught(Bare(1)))[:1]  # type: ignore[index]


@scenario
async def awaits_itself_at_once() -> object:
    return (await caught(this_task()))[:1]  # type: ignore[index]


@scenario
async def a_future_that_fails() -> object:
    failing = future()
    asyncio.get_running_loop().call_soon(failing.set_exception, ValueError("late"))
    return await caught(failing)


@scenario
async def a_timeout_around_the_first_suspension() -> object:
    try:
        async with asyncio.timeout(0.001) as timeout:
            await future()
    except TimeoutError:
        return [timeout.expired(), this_task().cancelling()]


@scenario
async def a_timeout_that_is_over_at_once() -> object:
    try:
        async with asyncio.timeout(-1):
            await future()
    except TimeoutError:
        return this_task().cancelling()


@scenario
async def a_group_whose_child_fails_at_once() -> object:
    async def fail() -> None:
        raise ValueError("child")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            await future()
    except ExceptionGroup as errors:
        return [str(error) for error in errors.exceptions] + [this_task().cancelling()]
    return "not"


@scenario
async def shielded_work_goes_on() -> object:
    inner = asyncio.ensure_future(asyncio.sleep(0.002, "worked"))
    asyncio.get_running_loop().call_soon(this_task().cancel)
    return [await caught(asyncio.shield(inner)), await inner]


@scenario
async def waited_for_in_vain() -> object:
    return await caught(asyncio.wait_for(asyncio.shield(future()), 0.001))


@scenario
async def identity() -> object:
    task, loop = this_task(), asyncio.get_running_loop()
    first = [task in asyncio.all_tasks(), task.get_loop() is loop, task.done(), type(task).__name__]
    await asyncio.sleep(0)
    later = [task is this_task(), task in asyncio.all_tasks(), task.get_loop() is loop, task.done()]
    await soon(future())
    return [*first, *later, task is this_task(), isinstance(task, asyncio.Task)]


@scenario
async def contexts() -> object:
    task = this_task()
    token = VAR.set("first")
    context = task.get_context()
    log: list[object] = [context[VAR]]
    await asyncio.sleep(0)
    log += [VAR.get(), task.get_context() is context]
    VAR.set("second")
    await soon(future())
    log += [VAR.get(), context[VAR]]
    VAR.reset(token)
    return [*log, VAR.get()]


@scenario
async def frames() -> object:
    task = this_task()
    out = io.StringIO()
    log: list[object] = [task.get_stack()[-1].f_code.co_name]
    await asyncio.sleep(0)
    log.append(task.get_stack()[-1].f_code.co_name)
    looked = future()

    def look() -> None:
        task.print_stack(file=out)
        looked.set_result([frame.f_code.co_name for frame in task.get_stack()])

    asyncio.get_running_loop().call_soon(look)
    log.append(await looked)
    code: Any = task.get_coro()
    return [log, "await looked" in out.getvalue(), type(code).__name__, code.cr_code.co_name]


@scenario
async def an_exception_has_its_frames() -> object:
    async def inner() -> None:
        await asyncio.sleep(0)
        raise ValueError("inside")

    try:
        await inner()
    except ValueError as error:
        return [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    return "not"


app = App()


@app.get("/{name}")
async def run_scenario(name: str) -> Any:
    return await SCENARIOS[name]()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_task_does_what_an_eager_task_of_asyncio_does(client: TestClient, name: str) -> None:
    expected = outcome_of_eager_task(lambda: run_scenario(name))
    for _ in range(3):
        assert client.get(f"/{name}").json() == expected
