"""The apps of the comparison on granian alone: no framework, over RSGI and over ASGI.

granian only serves: routing is one dict lookup, the answer is encoded on each request.
"""
# mypy: disable-error-code="import-not-found"

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import msgspec

from profiling.apps.work import hello

_ENCODE = msgspec.json.Encoder().encode
_RSGI_HEADERS = [("content-type", "application/json")]
_ASGI_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json")],
}


async def _async() -> bytes:
    return _ENCODE(hello())


async def _sleep0() -> bytes:
    await asyncio.sleep(0)
    return _ENCODE(hello())


async def _sleep() -> bytes:
    await asyncio.sleep(0.001)
    return _ENCODE(hello())


_ROUTES: dict[str, Callable[[], Awaitable[bytes]]] = {
    "/async": _async,
    "/sleep0": _sleep0,
    "/sleep": _sleep,
}


async def rsgi(scope: Any, protocol: Any) -> None:
    """Answer over RSGI."""
    if scope.proto != "http":
        protocol.close()
        return
    route = _ROUTES.get(scope.path)
    if route is None:
        protocol.response_empty(404, [])
        return
    protocol.response_bytes(200, _RSGI_HEADERS, await route())


async def asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Answer over ASGI."""
    if scope["type"] != "http":
        return
    route = _ROUTES.get(scope["path"])
    if route is None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})
        return
    body = await route()
    await send(_ASGI_START)
    await send({"type": "http.response.body", "body": body})
