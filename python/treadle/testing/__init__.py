"""Testing an app through the real server: sockets, lanes and lifespans included.

`LiveServer` serves an app on a free port while a test runs. `TestClient` and `AsyncTestClient` are
`httpx` clients with a server of their own; they need `pip install 'treadle[testing]'`.

`treadle.testing.plugin` is a pytest plugin: its docstring says how to take it.

    def test_hello():
        with TestClient(app) as client:
            assert client.get("/hello/ada").json() == {"message": "hello ada", "times": 1}

Handlers run on the server's lanes, which are threads of their own: a test, sync or async, blocks
nothing but itself.
"""

from typing import TYPE_CHECKING

from treadle.testing.live import LiveServer as LiveServer

if TYPE_CHECKING:
    from treadle.testing.client import AsyncTestClient as AsyncTestClient
    from treadle.testing.client import TestClient as TestClient

__all__ = ["AsyncTestClient", "LiveServer", "TestClient"]


def __getattr__(name: str) -> object:
    """Imports the clients, and httpx with them, at their first use."""
    if name in ("AsyncTestClient", "TestClient"):
        from treadle.testing import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
