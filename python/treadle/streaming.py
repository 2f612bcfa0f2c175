"""The pump of a streaming response: iterator in, chunks out, in the handler's own Task.

A plain iterator is asked for its chunks where its handler ran: on the lane, or, for a handler that
is registered with `offload=True`, on the thread pool, one chunk at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any

from treadle._treadle import ChunkCalls, Sink

Chunk = bytes | str
Submit = Callable[[Any], Future[None]]

_END: Any = object()


async def pump(
    iterator: AsyncIterable[Chunk] | Iterable[Chunk],
    sink: Sink | None,
    submit: Submit | None = None,
    request: tuple[int, str, str] = (0, "", ""),
    calls: ChunkCalls | None = None,
) -> None:
    """Sends every chunk, each when the client took the one before, and closes the iterator.

    Without a `sink` nobody takes the chunks: the iterator is closed without being asked for any.
    With `submit`, that of the thread pool, a plain iterator runs there, for `request`: number,
    method and route. `calls` counts what it has to do there.
    """
    if submit is not None and calls is not None and not isinstance(iterator, AsyncIterable):
        await _Offloaded(iterator, submit, request, calls).pump(sink)
        return
    # An iterable may make its iterator anew: a generator, mostly.
    made: Any = iterator
    try:
        if sink is None:
            pass
        elif isinstance(iterator, AsyncIterable):
            made = aiter(iterator)
            async for chunk in _Made(made):
                await sink.send(chunk)
        else:
            made = iter(iterator)
            for chunk in _Made(made):
                await sink.send(chunk)
    finally:
        # Not left to the garbage collector: the generator's own `finally` runs now.
        try:
            await _close(made)
        finally:
            if made is not iterator:
                await _close(iterator)


class _Made:
    """An iterator to loop over, which need not be an iterable itself."""

    def __init__(self, iterator: Any) -> None:
        self._iterator = iterator

    def __iter__(self) -> Any:
        return self._iterator

    def __aiter__(self) -> Any:
        return self._iterator


async def _close(iterator: Any) -> None:
    close = getattr(iterator, "aclose", None)
    if close is not None:
        await close()
    else:
        _close_plain(iterator)


def _close_plain(iterator: Any) -> None:
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


class _Offloaded:
    """A plain iterator that is only touched by threads of the pool, one at a time."""

    def __init__(
        self,
        iterable: Iterable[Chunk],
        submit: Submit,
        request: tuple[int, str, str],
        calls: ChunkCalls,
    ) -> None:
        self._iterable = iterable
        self._iterator: Iterator[Chunk] | None = None
        self._submit = submit
        self._request = request
        self._calls = calls
        self._context = copy_context()
        self._running: Future[None] | None = None

    async def pump(self, sink: Sink | None) -> None:
        try:
            if sink is None:
                return
            await self._call(self._start)
            while (chunk := await self._call(next, self._iterator, _END)) is not _END:
                await sink.send(chunk)
        finally:
            await self._close()

    def _start(self) -> None:
        self._iterator = iter(self._iterable)

    def _end(self) -> None:
        try:
            _close_plain(self._iterator)
        finally:
            if self._iterator is not self._iterable:
                _close_plain(self._iterable)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        call, running = self._begin(function, *args)
        self._running = running
        try:
            await asyncio.wrap_future(running)
        finally:
            if running.cancelled():
                self._calls.end()
        if call.error is not None:
            raise call.error
        return call.value

    def _begin(self, function: Callable[..., Any], *args: Any) -> tuple[_Call, Future[None]]:
        call = _Call(function, args, self._context, self._request, self._calls)
        self._calls.wait()
        try:
            return call, self._submit(call)
        except RuntimeError:  # the pool has ended
            self._calls.end()
            raise

    async def _close(self) -> None:
        running = self._running
        if running is None or running.done():
            if hasattr(self._iterator, "close") or hasattr(self._iterable, "close"):
                await self._call(self._end)
            return
        # The Task was cancelled while a thread was in the iterator: it is closed after that.
        running.add_done_callback(self._close_after)

    def _close_after(self, _: Future[None]) -> None:
        # Where the pool has ended, so has the server: nothing is left to close it on.
        with suppress(RuntimeError):
            call, closing = self._begin(self._end)
            closing.add_done_callback(lambda _: _tell(call.error))


def _tell(error: BaseException | None) -> None:
    if error is not None:
        logging.getLogger("treadle").error(
            "a streaming response could not be closed", exc_info=error
        )


class _Call:
    """A call for the thread pool: a `treadle.offload.Job`."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context,
        request: tuple[int, str, str],
        calls: ChunkCalls,
    ) -> None:
        self.handler = function
        self.request = request
        self.value: Any = None
        self.error: BaseException | None = None
        self._args = args
        self._context = context
        self._calls = calls

    def begin(self) -> tuple[Context, Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """What is called, and with what."""
        self._calls.begin()
        return self._context, self.handler, self._args, {}

    def end(self, value: Any) -> None:
        """It returned `value`."""
        self.value = value
        self._calls.end()

    def fail(self, error: BaseException) -> None:
        """It raised `error`."""
        self.error = error
        self._calls.end()
