"""The mixed workload over ASGI."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from profiling.apps.mixed_work import awaiting

_Message = MutableMapping[str, Any]


async def application(
    scope: _Message,
    receive: Callable[[], Awaitable[_Message]],
    send: Callable[[_Message], Awaitable[None]],
) -> None:
    """Answer any request."""
    if scope["type"] != "http":
        return
    body = json.dumps(await awaiting()).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
