"""What one request keeps, and what requests share."""

from __future__ import annotations

import asyncio

import pytest
from support.lanes import LANES, several_lanes
from support.types import Connect, Serve

from treadle import App, Lane, Request


@pytest.mark.parametrize("mode", ["inline", "task", "offload"])
def test_the_state_of_a_request_is_its_own(serve: Serve, raw: Connect, mode: str) -> None:
    app = App()

    def note(request: Request) -> list[str]:
        before = sorted(vars(request.state))
        request.state.user = "ada"
        return before

    async def note_async(request: Request) -> list[str]:
        before = note(request)
        await asyncio.sleep(0)
        return before

    handler = note_async if mode == "task" else note
    app.get("/", offload=mode == "offload")(handler)
    server = serve(app, lanes=LANES[-1])
    connections = [raw(server) for _ in range(4)]
    for _ in range(3):
        for connection in connections:
            assert connection.get().body == b"[]"


def test_pipelined_requests_have_states_of_their_own(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/{n}")
    def handler(request: Request, n: int) -> list[int]:
        request.state.numbers = [*getattr(request.state, "numbers", []), n]
        return request.state.numbers

    connection = raw(serve(app))
    connection.send("".join(f"GET /{n} HTTP/1.1\r\nHost: t\r\n\r\n" for n in range(10)))
    assert [connection.response().body for _ in range(10)] == [b"[%d]" % n for n in range(10)]


@several_lanes
def test_lanes_share_the_state_of_the_app_but_not_that_of_a_lane(
    serve: Serve, raw: Connect
) -> None:
    app = App()
    app.state.total = 0

    @app.get("/")
    def handler(lane: Lane) -> list[int]:
        app.state.total += 1
        lane.state.count = getattr(lane.state, "count", 0) + 1
        return [lane.index, lane.state.count, app.state.total]

    server = serve(app, lanes=2)
    first, second = raw(server), raw(server)
    seen = [connection.get().body for connection in (first, second, first, second)]
    a, b = seen[0][1:2], seen[1][1:2]
    assert {a, b} == {b"0", b"1"}
    assert seen == [
        b"[%s,1,1]" % a,
        b"[%s,1,2]" % b,
        b"[%s,2,3]" % a,
        b"[%s,2,4]" % b,
    ]


def test_values_of_one_request_do_not_reach_another_through_caches(
    serve: Serve, raw: Connect
) -> None:
    app = App()

    @app.post("/{name}")
    async def handler(request: Request, name: str) -> list[object]:
        first = await request.json()
        first.append("changed")
        request.cookies["added"] = "x"
        request.path_params["added"] = "x"
        return [
            name,
            await request.json(),
            request.query.get("q"),
            sorted(request.cookies),
            request.path_params.get("name"),
        ]

    connection = raw(serve(app))

    def ask(name: str, query: str, cookie: str, body: str) -> bytes:
        connection.send(
            f"POST /{name}{query} HTTP/1.1\r\nHost: t\r\n{cookie}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        return connection.response().body

    assert ask("a", "?q=1", "Cookie: c=1\r\n", "[1]") == b'["a",[1],"1",["added","c"],"a"]'
    assert ask("b", "", "", "[]") == b'["b",[],null,["added"],"b"]'
