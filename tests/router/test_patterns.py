"""What a route's pattern matches, and which route wins."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from treadle import App, RegistrationError, Request, Router
from treadle.testing import TestClient

app = App()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def answers(pattern: str) -> None:
    """A route that says its own pattern and what it took from the path."""

    @app.get(pattern)
    def route(
        request: Request,
        name: str = "",
        number: str = "",
        rest: str = "",
        first: str = "",
        second: str = "",
        major: str = "",
        stem: str = "",
    ) -> object:
        return [pattern, request.path_params]


for pattern in (
    "/",
    "/users/{name}",
    "/users/me",
    "/users/{name}/posts",
    "/users/{name}/posts/{number}",
    "/files/{rest:path}",
    "/files/readme",
    "/own/{rest:path}",
    "/own/",
    "/{first}/between/{second}",
    "/v{major}/x",
    "/download/{stem}.json",
    "/trailing/",
    "/straße/{name}",
    "/a b",
):
    answers(pattern)


@pytest.mark.parametrize(
    ("path", "pattern", "params"),
    [
        ("/", "/", {}),
        ("/users/ada", "/users/{name}", {"name": "ada"}),
        ("/users/me", "/users/me", {}),
        ("/users/meg", "/users/{name}", {"name": "meg"}),
        ("/users/ada/posts", "/users/{name}/posts", {"name": "ada"}),
        ("/users/me/posts", "/users/{name}/posts", {"name": "me"}),
        ("/users/ada/posts/7", "/users/{name}/posts/{number}", {"name": "ada", "number": "7"}),
        ("/files/a", "/files/{rest:path}", {"rest": "a"}),
        ("/files/a/b//c/", "/files/{rest:path}", {"rest": "a/b//c/"}),
        ("/files/", "/files/{rest:path}", {"rest": ""}),
        ("/own/", "/own/", {}),
        ("/own/x", "/own/{rest:path}", {"rest": "x"}),
        ("/files/readme", "/files/readme", {}),
        ("/files/readme/x", "/files/{rest:path}", {"rest": "readme/x"}),
        ("/q/between/r", "/{first}/between/{second}", {"first": "q", "second": "r"}),
        ("/v3/x", "/v{major}/x", {"major": "3"}),
        ("/download/a.json", "/download/{stem}.json", {"stem": "a"}),
        ("/trailing/", "/trailing/", {}),
    ],
)
def test_a_path_meets_its_most_exact_route(
    client: TestClient, path: str, pattern: str, params: dict[str, str]
) -> None:
    assert client.get(path).json() == [pattern, params]


@pytest.mark.parametrize(
    "path",
    [
        "/users",
        "/users/",
        "/users/ada/",
        "/users/ada/posts/",
        "/users/ada/posts/7/8",
        "/files",
        "//users/ada",
        "/Users/ada",
        "/trailing",
        "/download/a.xml",
    ],
)
def test_a_path_that_only_resembles_a_route_is_not_found(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/users/a%20b", "a b"),
        ("/users/%C3%A9t%C3%A9", "été"),
        ("/users/a%2Fb", "a/b"),
        ("/users/100%25", "100%"),
        ("/users/%2e%2e", ".."),
        ("/users/a+b", "a+b"),
    ],
)
def test_an_escape_in_a_segment_is_text_and_never_a_separator(
    client: TestClient, path: str, name: str
) -> None:
    assert client.get(path).json() == ["/users/{name}", {"name": name}]


@pytest.mark.parametrize(
    ("path", "pattern"),
    [("/stra%C3%9Fe/x", "/straße/{name}"), ("/a%20b", "/a b")],
)
def test_a_literal_that_cannot_be_sent_as_it_is_matches_its_escaped_form(
    client: TestClient, path: str, pattern: str
) -> None:
    assert client.get(path).json()[0] == pattern


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("users", "must start with '/'"),
        ("", "must start with '/'"),
        ("/{id:integer}", 'unknown converter "integer" (known: str, int, float, uuid, path)'),
        ("/{id:}", 'unknown converter ""'),
        ("/{id", "'{' is never closed"),
        ("/id}", "'}' without '{'"),
        ("/{}", '"" is not a parameter name'),
        ("/{1st}", '"1st" is not a parameter name'),
        ("/{a b}", '"a b" is not a parameter name'),
        ("/{id}/{id}", 'parameter "id" appears twice'),
        ("/{rest:path}/more", "takes the rest of the path and must be last"),
        ("/x{rest:path}", "must follow a '/'"),
        ("/x?y=1", "cannot be part of a path"),
        ("/x#y", "cannot be part of a path"),
        ("/x\ny", "cannot be part of a path"),
        ("/{a}{b}", "only one parameter"),
        ("/{a}-{b}", "only one parameter"),
    ],
)
def test_a_pattern_that_cannot_work_is_refused_with_its_reason(pattern: str, reason: str) -> None:
    def handler(id: str = "", rest: str = "", a: str = "", b: str = "") -> None: ...

    with pytest.raises(RegistrationError) as caught:
        App().get(pattern)(handler)
    assert reason in str(caught.value)
    assert f"{__file__}:{handler.__code__.co_firstlineno}" in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a", "/a"),
        ("/u/{id}", "/u/{name}"),
        ("/u/{id:int}", "/u/{name:str}"),
        ("/f/{rest:path}", "/f/{other:path}"),
    ],
)
def test_two_routes_alike_are_refused_and_the_first_is_named(first: str, second: str) -> None:
    app = App()

    @app.get(first)
    def one(id=0, name="", rest="", other=""): ...  # type: ignore[no-untyped-def]

    def two(id=0, name="", rest="", other=""): ...  # type: ignore[no-untyped-def]

    with pytest.raises(RegistrationError) as caught:
        app.get(second)(two)
    assert f"{__file__}:{one.__code__.co_firstlineno}" in str(caught.value)
    assert f"{__file__}:{two.__code__.co_firstlineno}" in str(caught.value)
    assert f"GET {second} collides with GET {first}" in str(caught.value)


def test_a_route_refused_for_one_method_is_not_there_for_the_others() -> None:
    app = App()

    @app.post("/a")
    def one() -> str:
        return "one"

    with pytest.raises(RegistrationError, match="collides"):
        app.route("/a", ["GET", "POST"])(lambda: "two")
    with TestClient(app) as client:
        assert client.get("/a").status_code == 405
        assert client.post("/a").text == "one"


def test_the_same_path_may_have_a_handler_for_each_method() -> None:
    app = App()
    methods = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

    def make(method: str) -> None:
        app.route("/a", [method])(lambda: method)

    for method in methods:
        make(method)
    with TestClient(app) as client:
        for method in methods:
            assert client.request(method, "/a").text == method


def test_hundreds_of_routes_are_told_apart() -> None:
    app, router = App(), Router("/api")

    def make(number: int) -> None:
        router.get(f"/item{number}/{{id}}/part{number % 7}")(lambda id: f"{number} {id}")

    for number in range(500):
        make(number)
    app.include(router)
    with TestClient(app) as client:
        for number in (0, 1, 77, 499):
            assert client.get(f"/api/item{number}/x/part{number % 7}").text == f"{number} x"
        assert client.get("/api/item77/x/part1").status_code == 404
