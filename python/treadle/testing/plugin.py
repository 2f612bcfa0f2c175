"""A pytest plugin: tests of coroutines run on Treadle's loop, and apps are fixtures.

One line in the root `conftest.py` takes it:

    pytest_plugins = ["treadle.testing.plugin"]

Then pytest-asyncio (1.4 or later) runs its tests and fixtures on `treadle.EventLoop`; a
`pytest_asyncio_loop_factories` hook of one's own still wins. Two factories are fixtures; what they
start is stopped when the test ends:

    def test_hello(test_client):
        assert test_client(app).get("/hello/ada").status_code == 200

    async def test_served(live_server):
        reader, writer = await asyncio.open_connection(*live_server(app, lanes=2).address)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from treadle.loop import EventLoop, new_event_loop
from treadle.testing.live import LiveServer

if TYPE_CHECKING:
    from treadle.app import App
    from treadle.testing.client import TestClient


def pytest_configure(config: pytest.Config) -> None:
    """Refuses a pytest-asyncio that would take no notice of `pytest_asyncio_loop_factories`."""
    plugins = config.pluginmanager
    # The hook is there in any case, made by the implementation below.
    if plugins.has_plugin("asyncio") and not plugins.hook.pytest_asyncio_loop_factories.has_spec():
        raise pytest.UsageError(
            "treadle.testing.plugin needs a pytest-asyncio whose loop can be chosen: 1.4 or later."
        )


@pytest.hookimpl(optionalhook=True, trylast=True)
def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], EventLoop]]:
    """The loops that pytest-asyncio runs each test on: ours."""
    return {"treadle": new_event_loop}


@pytest.fixture
def live_server() -> Iterator[Callable[..., LiveServer]]:
    """`live_server(app, **options)` is a `LiveServer` that serves until the test ends."""
    with ExitStack() as servers:

        def serve(app: App, **options: Any) -> LiveServer:
            return servers.enter_context(LiveServer(app, **options))

        yield serve


@pytest.fixture
def test_client() -> Iterator[Callable[..., TestClient]]:
    """`test_client(app, **options)` is a `TestClient` with a server until the test ends."""
    from treadle.testing.client import TestClient  # httpx, where it is used

    with ExitStack() as clients:

        def connect(app: App, **options: Any) -> TestClient:
            return clients.enter_context(TestClient(app, **options))

        yield connect
