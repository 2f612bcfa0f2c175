"""Routers: prefixes, nesting, collisions."""

from __future__ import annotations

import pytest

from treadle import App, RegistrationError, Request, Router
from treadle.testing import TestClient


def reader(router: App | Router, path: str, text: str) -> None:
    router.get(path)(lambda: text)


def test_a_router_answers_under_its_prefix_and_that_of_the_include() -> None:
    app, router = App(), Router("/users")

    @router.get("/{id:int}")
    async def user(id: int, request: Request) -> list[object]:
        return [id, request.path_params]

    app.include(router)
    app.include(router, prefix="/v2")
    with TestClient(app) as client:
        assert client.get("/users/7").json() == [7, {"id": "7"}]
        assert client.get("/v2/users/8").json() == [8, {"id": "8"}]
        assert client.get("/7").status_code == 404


def test_routers_can_be_nested() -> None:
    app, outer, inner = App(), Router("/a"), Router("/b")
    reader(inner, "/c", "c")
    outer.include(inner)
    outer.include(inner, prefix="/x")
    app.include(outer, "/api")
    with TestClient(app) as client:
        assert client.get("/api/a/b/c").text == "c"
        assert client.get("/api/a/x/b/c").text == "c"


def test_a_prefix_may_have_parameters() -> None:
    app, router = App(), Router("/teams/{team}")

    @router.get("/members/{member:int}")
    def member(team: str, member: int) -> list[object]:
        return [team, member]

    app.include(router)
    with TestClient(app) as client:
        assert client.get("/teams/red/members/3").json() == ["red", 3]


def test_a_parameter_of_the_prefix_that_a_handler_lacks_fails_at_the_handler() -> None:
    router = Router("/teams/{team}")

    def handler() -> None: ...

    with pytest.raises(RegistrationError) as caught:
        router.get("/x")(handler)
    assert f"{__file__}:{handler.__code__.co_firstlineno}" in str(caught.value)
    assert "has {team}" in str(caught.value)


def test_a_parameter_of_the_includes_prefix_is_checked_too() -> None:
    router = Router()
    reader(router, "/x", "x")
    with pytest.raises(RegistrationError, match=r"has \{team\}"):
        App().include(router, prefix="/{team}")


def test_a_router_without_prefix_may_have_the_root() -> None:
    app, router = App(), Router()
    reader(router, "/", "root")
    app.include(router)
    with TestClient(app) as client:
        assert client.get("/").text == "root"


def test_the_root_of_a_prefixed_router_has_its_slash_and_no_other() -> None:
    app, router = App(), Router("/users")
    reader(router, "/", "all")
    app.include(router)
    with TestClient(app) as client:
        assert client.get("/users/").text == "all"
        assert client.get("/users").status_code == 404


def test_what_collides_with_a_route_of_the_app_is_refused() -> None:
    app, router = App(), Router("/a")
    reader(app, "/a/b", "first")
    reader(router, "/b", "second")
    with pytest.raises(RegistrationError, match="GET /a/b collides with GET /a/b"):
        app.include(router)
    with TestClient(app) as client:
        assert client.get("/a/b").text == "first"


def test_a_router_that_collides_adds_none_of_its_routes() -> None:
    app, router = App(), Router("/a")
    reader(app, "/a/b", "first")
    for path in ("/before", "/b", "/after"):
        reader(router, path, "second")
    with pytest.raises(RegistrationError, match="GET /a/b collides with GET /a/b"):
        app.include(router)
    with TestClient(app) as client:
        assert client.get("/a/b").text == "first"
        assert client.get("/a/before").status_code == 404
        assert client.get("/a/after").status_code == 404
    mixed = Router()
    mixed.get("/ok")(lambda id=0: id)
    mixed.get("/lacks")(lambda: None)
    with pytest.raises(RegistrationError, match=r"GET /a/x/\{id\}/lacks: .* has no parameter 'id'"):
        router.include(mixed, "/x/{id}")
    assert len(router.declared) == 3


@pytest.mark.parametrize("target", [App(), Router()])
def test_only_a_router_can_be_included(target: App | Router) -> None:
    for thing in (App(), None):
        with pytest.raises(RegistrationError, match="only a Router can be included, not"):
            target.include(thing)  # type: ignore[arg-type]


def test_a_router_included_twice_alike_is_refused() -> None:
    app, router = App(), Router("/a")
    reader(router, "/b", "b")
    app.include(router)
    with pytest.raises(RegistrationError, match="collides"):
        app.include(router)


def test_routes_added_after_the_include_are_not_part_of_it() -> None:
    app, router = App(), Router("/a")
    reader(router, "/b", "b")
    app.include(router)
    reader(router, "/c", "c")
    with TestClient(app) as client:
        assert client.get("/a/b").text == "b"
        assert client.get("/a/c").status_code == 404


def test_options_of_a_route_go_with_it() -> None:
    app, router = App(), Router()

    @router.post("/", status=201, limit_body=3)
    async def create(request: Request) -> bytes:
        return await request.body()

    app.include(router, "/made")
    with TestClient(app) as client:
        assert client.post("/made/", content=b"abc").status_code == 201
        assert client.post("/made/", content=b"abcd").status_code == 413


def test_a_router_says_what_it_has() -> None:
    router = Router("/a")
    reader(router, "/b", "b")
    router.route("/c", ["GET", "POST"])(lambda: "c")
    assert repr(router) == "Router('/a', 2 routes)"
    assert [(route.path, route.methods) for route in router.declared] == [
        ("/a/b", ("GET",)),
        ("/a/c", ("GET", "POST")),
    ]


def test_a_router_can_serve_two_apps() -> None:
    router = Router()
    reader(router, "/x", "x")
    for _ in range(2):
        app = App()
        app.include(router)
        with TestClient(app) as client:
            assert client.get("/x").text == "x"


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete", "head", "options"])
def test_a_router_has_every_verb(method: str) -> None:
    app, router = App(), Router("/r")
    getattr(router, method)("/x")(lambda: None)
    app.include(router)
    with TestClient(app) as client:
        assert client.request(method, "/r/x").status_code == 204
