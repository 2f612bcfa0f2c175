"""What is asked of every server: a frozen table of requests and the answers they must get."""

from dataclasses import dataclass
from enum import Enum

ANSWER: dict[str, object] = {"message": "hello", "n": 1}
"""The JSON that every route answers, on every server."""

JSON_TYPE = "application/json"
_BODY = '{"name":"shuttle","price":12.5,"tags":["weaving","wood"]}'
_BAD_BODY = '{"name":"shuttle","price":"much","tags":["weaving","wood"]}'


class Endpoint(Enum):
    """A route of the measured apps; the value is what an app registers it for."""

    SYNC = "/sync"
    ASYNC = "/async"
    SLEEP0 = "/sleep0"
    SLEEP = "/sleep"
    CPU = "/cpu"
    PLAIN = "/plain"
    ITEMS = "/items"


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of request, sent over and over."""

    name: str
    endpoint: Endpoint
    target: str
    """The request target: path and query."""
    isolates: str
    """What a difference in this scenario is about."""
    body: str | None = None
    """JSON sent with a POST; without it the request is a GET."""
    bad_body: str | None = None
    """A body that a server which really validates must refuse."""
    depth: int = 1
    """How many requests are sent at once (pipelining)."""

    @property
    def method(self) -> str:
        """The HTTP method."""
        return "GET" if self.body is None else "POST"


SYNC = Scenario("/sync", Endpoint.SYNC, "/sync", "a def")
ASYNC = Scenario("/async", Endpoint.ASYNC, "/async", "an async def that never suspends")
SLEEP0 = Scenario("/sleep0", Endpoint.SLEEP0, "/sleep0", "one real suspension")
SLEEP = Scenario("/sleep", Endpoint.SLEEP, "/sleep", "a timer of one millisecond")
CPU = Scenario("/cpu", Endpoint.CPU, "/cpu", "about 130 us of pure Python")
PLAIN = Scenario("/plain", Endpoint.PLAIN, "/plain", "a POST whose body is ignored", body=_BODY)
ITEMS = Scenario(
    "/items",
    Endpoint.ITEMS,
    "/items/1?q=hello&limit=5",
    "path int, query, JSON body validated into a typed object",
    body=_BODY,
    bad_body=_BAD_BODY,
)
SYNC_X16 = Scenario("/sync x16", Endpoint.SYNC, "/sync", "a def, 16 pipelined", depth=16)
SLEEP0_X16 = Scenario(
    "/sleep0 x16", Endpoint.SLEEP0, "/sleep0", "one real suspension, 16 pipelined", depth=16
)
ASYNC_X16 = Scenario("/async x16", Endpoint.ASYNC, "/async", "an async def, 16 pipelined", depth=16)

SCENARIOS = (SYNC, ASYNC, SLEEP0, SLEEP, CPU, PLAIN, ITEMS, SYNC_X16, ASYNC_X16, SLEEP0_X16)

AT_FULL_LOAD = (SYNC, ASYNC, SLEEP0, SLEEP, PLAIN, ITEMS)
"""Measured on every server that has the route, at the main number of connections."""

AT_OTHER_LOADS = (SYNC, ASYNC, SLEEP0)
"""Measured on every server that has the route, at the other numbers of connections."""
