"""`httpx` clients that come with a server for the app under test."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

try:
    import httpx
except ModuleNotFoundError as error:
    if error.name != "httpx":
        raise
    raise ModuleNotFoundError(
        "treadle's test clients need httpx: pip install 'treadle[testing]'", name="httpx"
    ) from None

from treadle.testing.live import LiveServer

if TYPE_CHECKING:
    from treadle.app import App

__all__ = ["AsyncTestClient", "TestClient"]

_NOT_ENTERED = "the client has no server yet: enter it with `with TestClient(app) as client`"
_NOT_ENTERED_ASYNC = _NOT_ENTERED.replace("with T", "async with AsyncT")


class TestClient(httpx.Client):
    """An `httpx.Client` for `app`, which a `LiveServer` serves between enter and exit.

    `headers`, `cookies`, `auth`, `timeout` (seconds) and `follow_redirects` are httpx's; all other
    keyword arguments are options of the server. Proxies of the environment are not used.
    """

    __test__ = False  # for pytest: not a test case

    def __init__(
        self,
        app: App,
        *,
        lanes: int = 1,
        headers: Any = None,
        cookies: Any = None,
        auth: Any = None,
        timeout: float | None = 10.0,
        follow_redirects: bool = False,
        **options: Any,
    ) -> None:
        self.live = LiveServer(app, lanes=lanes, **options)
        super().__init__(
            headers=headers,
            cookies=cookies,
            auth=auth,
            timeout=timeout,
            follow_redirects=follow_redirects,
            trust_env=False,
            transport=httpx.HTTPTransport(uds=self.live.options.uds, trust_env=False),
        )

    def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
        """As in httpx; raises `RuntimeError` where the client was not entered."""
        if not str(self.base_url):
            raise RuntimeError(_NOT_ENTERED)
        return super().build_request(*args, **kwargs)

    def __enter__(self) -> Self:
        self.live.start()
        self.base_url = httpx.URL(self.live.url)
        return super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        # The client first: its idle connections are then closed by their own side.
        try:
            super().__exit__(kind, error, trace)
        finally:
            self.live.__exit__(kind, error, trace)


class AsyncTestClient(httpx.AsyncClient):
    """`TestClient` as an `httpx.AsyncClient`, for tests that are coroutines."""

    __test__ = False  # for pytest: not a test case

    def __init__(
        self,
        app: App,
        *,
        lanes: int = 1,
        headers: Any = None,
        cookies: Any = None,
        auth: Any = None,
        timeout: float | None = 10.0,
        follow_redirects: bool = False,
        **options: Any,
    ) -> None:
        self.live = LiveServer(app, lanes=lanes, **options)
        super().__init__(
            headers=headers,
            cookies=cookies,
            auth=auth,
            timeout=timeout,
            follow_redirects=follow_redirects,
            trust_env=False,
            transport=httpx.AsyncHTTPTransport(uds=self.live.options.uds, trust_env=False),
        )

    def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
        """As in httpx; raises `RuntimeError` where the client was not entered."""
        if not str(self.base_url):
            raise RuntimeError(_NOT_ENTERED_ASYNC)
        return super().build_request(*args, **kwargs)

    async def __aenter__(self) -> Self:
        await self.live.__aenter__()
        self.base_url = httpx.URL(self.live.url)
        return await super().__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        try:
            await super().__aexit__(kind, error, trace)
        finally:
            await self.live.__aexit__(kind, error, trace)
