"""The types of the shared fixtures, for tests to annotate them with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from support.raw import Raw
from treadle import App
from treadle.testing import LiveServer


class Serve(Protocol):
    """`serve`: a server for the app, running until the test ends."""

    def __call__(self, app: App, *, lanes: int = 1, **options: Any) -> LiveServer: ...


Connect = Callable[..., Raw]
"""`raw`: a connection to a server, a command or an address, open until the test ends."""
