"""A served app that answers with what it was asked, and remembers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from treadle import App, Request
from treadle.testing import LiveServer

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that reached a handler."""

    method: str
    path: str
    body: str | None
    """Latin-1; None for a handler that does not look at bodies."""


class Echo:
    """`/` and `/echo/*` answer with method, path and body; `/deaf` leaves the body unread."""

    def __init__(self, **options: Any) -> None:
        self.seen: list[Seen] = []
        self.app = App()
        self.app.route("/", METHODS)(self._echo)
        self.app.route("/echo/{name}", METHODS)(self._echo_name)
        self.app.route("/deaf", METHODS)(self._deaf)
        self.live = LiveServer(self.app, **options)

    async def _echo(self, request: Request) -> dict[str, str]:
        body = (await request.body()).decode("latin-1")
        self.seen.append(Seen(request.method, request.raw_path, body))
        return {"method": request.method, "path": request.raw_path, "body": body}

    async def _echo_name(self, request: Request, name: str) -> dict[str, str]:
        return await self._echo(request)

    def _deaf(self, request: Request) -> dict[str, str]:
        self.seen.append(Seen(request.method, request.raw_path, None))
        return {"method": request.method, "path": request.raw_path}

    @property
    def address(self) -> tuple[str, int] | str:
        return self.live.address

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.live.stop()
