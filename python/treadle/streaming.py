"""The pump of a streaming response: iterator in, chunks out, in the handler's own Task."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any

from treadle._treadle import Sink

Chunk = bytes | str


async def pump(iterator: AsyncIterable[Chunk] | Iterable[Chunk], sink: Sink) -> None:
    """Sends every chunk, each when the client took the one before, and closes the iterator."""
    try:
        if isinstance(iterator, AsyncIterable):
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
