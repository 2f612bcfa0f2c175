"""Apps that answer chunk by chunk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from treadle import App, StreamingResponse

KINDS = ["async", "sync"]


def streams(make: Any, *, kind: str = "async", **options: Any) -> App:
    """An app whose `/` streams what `make` yields: an async or a sync generator function."""
    app = App()

    if kind == "async":

        @app.get("/", **options)
        async def root() -> StreamingResponse:
            async def chunks() -> AsyncIterator[Any]:
                for chunk in make():
                    await asyncio.sleep(0)
                    yield chunk

            return StreamingResponse(chunks())

    else:

        @app.get("/", **options)
        def root() -> StreamingResponse:
            return StreamingResponse(make())

    @app.get("/other")
    def other() -> str:
        return "other"

    return app
