"""What the loop's exception handler sees of an exception that came out of a callback.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import traceback
import weakref
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from support.loops import LoopFactory, OwnThread, Run, pair

import treadle

Arrange = Callable[[asyncio.AbstractEventLoop, Callable[..., None], Any], object]


def by_call_soon(loop: asyncio.AbstractEventLoop, fail: Callable[..., None], _: Any) -> None:
    loop.call_soon(fail)


def by_call_later(loop: asyncio.AbstractEventLoop, fail: Callable[..., None], _: Any) -> None:
    loop.call_later(0, fail)


def by_call_soon_threadsafe(
    loop: asyncio.AbstractEventLoop, fail: Callable[..., None], _: Any
) -> None:
    loop.call_soon_threadsafe(fail)


def by_add_reader(loop: asyncio.AbstractEventLoop, fail: Callable[..., None], sock: Any) -> None:
    def ready() -> None:
        loop.remove_reader(sock)
        fail()

    loop.add_reader(sock, ready)


def by_data_received(loop: asyncio.AbstractEventLoop, fail: Callable[..., None], sock: Any) -> Any:
    class Failing(asyncio.Protocol):
        def data_received(self, data: bytes) -> None:
            fail()

    return loop.create_task(loop.create_connection(Failing, sock=sock))  # type: ignore[arg-type]


def by_pause_writing(loop: asyncio.AbstractEventLoop, fail: Callable[..., None], sock: Any) -> Any:
    class Failing(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.set_write_buffer_limits(high=1)
            transport.write(bytes(10_000_000))
            loop.call_soon(transport.abort)

        def pause_writing(self) -> None:
            fail()

    return loop.create_task(loop.create_connection(Failing, sock=sock))  # type: ignore[arg-type]


WAYS = pytest.mark.parametrize(
    "arrange",
    [
        by_call_soon,
        by_call_later,
        by_call_soon_threadsafe,
        by_add_reader,
        by_data_received,
        by_pause_writing,
    ],
)


async def reported(arrange: Arrange, fail: Callable[..., None], handler: Any) -> None:
    """Returns when `handler` was told of what `fail` raises, called as `arrange` has it."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        told.set()
        handler(loop, context)

    loop.set_exception_handler(handle)
    with pair() as (ours, theirs), closing(ours):
        theirs.send(b"x")
        made = arrange(loop, fail, ours)
        await told.wait()
        await asyncio.sleep(0)
        if isinstance(made, asyncio.Task):
            transport, _ = await made
            transport.abort()
            await asyncio.sleep(0)


def fail() -> None:
    try:
        raise KeyError("first")
    except KeyError:
        _ = 1 / 0


@WAYS
@pytest.mark.parametrize("debug", [False, True])
def test_the_handler_is_called_while_the_exception_is_handled(
    run: Run, arrange: Arrange, debug: bool
) -> None:
    async def main() -> list[Any]:
        seen: list[Any] = []

        def handler(_: Any, context: dict[str, Any]) -> None:
            error = context["exception"]
            seen.append(sys.exc_info() == (ZeroDivisionError, error, error.__traceback__))
            seen.append(repr(error.__context__))
            seen.append(traceback.extract_tb(error.__traceback__)[-1].name)
            frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(error.__traceback__)]
            seen.append("report" in frames)

        asyncio.get_running_loop().set_debug(debug)
        await reported(arrange, fail, handler)
        seen.append(sys.exc_info())
        return seen

    assert run(main) == [True, "KeyError('first')", "fail", False, (None, None, None)]


@WAYS
def test_what_is_handled_where_the_loop_was_started_is_not_chained(
    factory: LoopFactory, on_thread: OwnThread, arrange: Arrange
) -> None:
    async def main() -> list[BaseException | None]:
        contexts: list[BaseException | None] = []
        await reported(
            arrange, fail, lambda _, said: contexts.append(said["exception"].__context__)
        )
        return contexts

    def thread() -> list[BaseException | None]:
        try:
            raise ValueError("outside")
        except ValueError:
            with asyncio.Runner(loop_factory=factory) as runner:
                return runner.run(main())

    (context,) = on_thread(thread)
    assert isinstance(context, KeyError)


@WAYS
def test_the_log_of_a_handler_that_fails_shows_the_callback_too(
    run: Run, arrange: Arrange, caplog: pytest.LogCaptureFixture
) -> None:
    def handler(*_: Any) -> None:
        raise LookupError("of the handler")

    async def main() -> None:
        await reported(arrange, fail, handler)

    run(main)
    (record,) = caplog.records
    assert record.message.startswith("Unhandled error in exception handler")
    assert record.exc_text is not None
    assert "in fail" in record.exc_text
    first, second = record.exc_text.split("LookupError: of the handler")[0].rsplit(
        "During handling of the above exception, another exception occurred", 1
    )
    assert "ZeroDivisionError: division by zero" in first
    assert "in handler" in second


@WAYS
def test_an_exception_goes_with_its_report(on_thread: OwnThread, arrange: Arrange) -> None:
    """Of ours: asyncio's handle is left in a cycle with it."""

    class Special(Exception):
        def __setattr__(self, name: str, value: object) -> None:
            raise AttributeError(f"{name} is not to be set")

    def fail() -> None:
        raise Special

    async def main() -> list[bool]:
        known: list[weakref.ref[BaseException]] = []
        await reported(
            arrange, fail, lambda _, context: known.append(weakref.ref(context["exception"]))
        )
        return [error() is None for error in known]

    gc.disable()  # No cycle may be left for it.
    try:
        assert on_thread(lambda: treadle.run(main())) == [True]
    finally:
        gc.enable()
