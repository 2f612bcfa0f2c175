"""The pump of a streaming response: iterator in, chunks out, in the handler's own Task.

A plain iterator is asked for its chunks where its handler ran: on the lane, or, for a handler that
is registered with `offload=True`, on the thread pool, one chunk at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterable, Callable, Iterable
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any

from treadle._treadle import Sink

Chunk = bytes | str
Submit = Callable[[Any], Future[None]]

_END: Any = object()


async def pump(
    iterator: AsyncIterable[Chunk] | Iterable[Chunk],
    sink: Sink | None,
    submit: Submit | None = None,
    request: tuple[int, str, str] = (0, "", ""),
) -> None:
    """Sends every chunk, each when the client took the one before, and closes the iterator.

    Without a `sink` nobody takes the chunks: the iterator is closed without being asked for any.
    With `submit`, that of the thread pool, a plain iterator runs there, for `request`: number,
    method and route.
    """
    if submit is not None and not isinstance(iterator, AsyncIterable):
        await _Offloaded(iterator, submit, request).pump(sink)
        return
    try:
        if sink is None:
            pass
        elif isinstance(iterator, AsyncIterable):
            async for chunk in iterator:
                await sink.send(chunk)
        else:
            for chunk in iterator:
                await sink.send(chunk)
    finally:
        # Not left to the garbage collector: the generator's own `finally` runs now.
        close: Any = getattr(iterator, "aclose", None)
        if close is not None:
            await close()
        else:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()


class _Offloaded:
    """A plain iterator that is only touched by threads of the pool, one at a time."""

    def __init__(
        self, iterable: Iterable[Chunk], submit: Submit, request: tuple[int, str, str]
    ) -> None:
        self._iterable = iterable
        self._submit = submit
        self._request = request
        self._context = copy_context()
        self._running: Future[None] | None = None

    async def pump(self, sink: Sink | None) -> None:
        try:
            if sink is None:
                return
            iterator = await self._call(iter, self._iterable)
            while (chunk := await self._call(next, iterator, _END)) is not _END:
                await sink.send(chunk)
        finally:
            if (close := getattr(self._iterable, "close", None)) is not None:
                await self._close(close)

    async def _call(self, function: Callable[..., Any], *args: Any) -> Any:
        call = _Call(function, args, self._context, self._request)
        self._running = self._submit(call)
        await asyncio.wrap_future(self._running)
        if call.error is not None:
            raise call.error
        return call.value

    async def _close(self, close: Callable[[], object]) -> None:
        running = self._running
        if running is None or running.done():
            await self._call(close)
            return
        # The Task was cancelled while a thread was in the iterator: it is closed after that.
        call = _Call(close, (), self._context, self._request)

        def closed(_: Future[None]) -> None:
            if call.error is not None:
                logging.getLogger("treadle").error(
                    "a streaming response could not be closed", exc_info=call.error
                )

        running.add_done_callback(lambda _: self._submit(call).add_done_callback(closed))


class _Call:
    """A call for the thread pool: a `treadle.offload.Job`."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        context: Context,
        request: tuple[int, str, str],
    ) -> None:
        self.handler = function
        self.request = request
        self.value: Any = None
        self.error: BaseException | None = None
        self._args = args
        self._context = context

    def begin(self) -> tuple[Context, Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
        """What is called, and with what."""
        return self._context, self.handler, self._args, {}

    def end(self, value: Any) -> None:
        """It returned `value`."""
        self.value = value

    def fail(self, error: BaseException) -> None:
        """It raised `error`."""
        self.error = error
