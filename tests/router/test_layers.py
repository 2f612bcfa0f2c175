"""Routes that match the same paths stand beside each other, and the most specific one answers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest

from treadle import App, Request
from treadle.testing import TestClient


def answers(app: App, pattern: str, *methods: str) -> None:
    """A route that says its own pattern and its parameters."""

    def route(
        request: Request, a: str = "", b: str = "", id: int = 0, rest: str = ""
    ) -> dict[str, object]:
        return {pattern: list(request.path_params.values())}

    app.route(pattern, methods or ("GET",))(route)


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (
            ("/{a}", "/{rest:path}"),
            {"/x": ("/{a}", "x"), "/x/y": ("/{rest:path}", "x/y"), "/": ("/{rest:path}", "")},
        ),
        (
            ("/{a}/x", "/{rest:path}", "/{a}"),
            {
                "/1/x": ("/{a}/x", "1"),
                "/1/y": ("/{rest:path}", "1/y"),
                "/1": ("/{a}", "1"),
                "/1/": ("/{rest:path}", "1/"),
            },
        ),
        (
            ("/a/{b}/b", "/a/{rest:path}", "/{a}/{b}"),
            {
                "/a/1/b": ("/a/{b}/b", "1"),
                "/a/1": ("/a/{rest:path}", "1"),
                "/a/": ("/a/{rest:path}", ""),
                "/b/1": ("/{a}/{b}", "b", "1"),
            },
        ),
        (
            ("/f/{a}.json", "/f/{rest:path}", "/f/{a}"),
            {
                "/f/1.json": ("/f/{a}.json", "1"),
                "/f/1": ("/f/{a}", "1"),
                "/f/1.json/2": ("/f/{rest:path}", "1.json/2"),
            },
        ),
        (
            ("/{a}.a", "/pre{a}", "/{a}"),
            {
                "/1.a": ("/{a}.a", "1"),
                "/pre1": ("/pre{a}", "1"),
                "/pre1.a": ("/pre{a}", "1.a"),
                "/1": ("/{a}", "1"),
            },
        ),
        (
            ("/{a}.a/x", "/{b}/y", "/{rest:path}"),
            {
                "/1.a/x": ("/{a}.a/x", "1"),
                "/1.a/y": ("/{b}/y", "1.a"),
                "/1.a/z": ("/{rest:path}", "1.a/z"),
            },
        ),
        (
            ("/api/items/{id:int}", "/{rest:path}", "/api/items/all", "/api/{rest:path}"),
            {
                "/api/items/7": ("/api/items/{id:int}", "7"),
                "/api/items/all": ("/api/items/all",),
                "/api/items": ("/api/{rest:path}", "items"),
                "/api": ("/{rest:path}", "api"),
            },
        ),
        (
            ("/a/{rest:path}", "/{a}/"),
            {"/a/": ("/a/{rest:path}", ""), "/b/": ("/{a}/", "b")},
        ),
    ],
)
def test_the_most_specific_route_answers_in_whichever_order_they_were_registered(
    patterns: Sequence[str], expected: dict[str, tuple[str, ...]]
) -> None:
    for order in itertools.permutations(patterns):
        app = App()
        for pattern in order:
            answers(app, pattern)
        with TestClient(app) as client:
            for path, (pattern, *params) in expected.items():
                assert client.get(path).json() == {pattern: params}, (order, path)


def test_a_value_that_does_not_convert_is_no_reason_to_try_another_route() -> None:
    app = App()
    answers(app, "/{id:int}")
    answers(app, "/{rest:path}")
    with TestClient(app) as client:
        assert client.get("/7").json() == {"/{id:int}": ["7"]}
        assert client.get("/seven").status_code == 422


def test_a_method_is_looked_for_in_all_routes_of_a_path_before_it_is_refused() -> None:
    app = App(redirect_slashes=True)
    answers(app, "/{a}")
    answers(app, "/{rest:path}", "POST")
    answers(app, "/{a}/y", "POST")  # in front of the other route for POST
    answers(app, "/users/{a}", "PUT")
    with TestClient(app, follow_redirects=False) as client:
        assert client.get("/x").json() == {"/{a}": ["x"]}
        assert client.post("/x").json() == {"/{rest:path}": ["x"]}
        assert client.post("/users/x").json() == {"/{rest:path}": ["users/x"]}
        assert client.head("/x").status_code == 200
        for method, status in (("DELETE", 405), ("OPTIONS", 204)):
            response = client.request(method, "/x")
            assert response.status_code == status
            assert response.headers["allow"] == "GET, POST, HEAD, OPTIONS"
        assert client.get("/users/x").headers["allow"] == "POST, PUT, OPTIONS"
        # A route of another method has the path: no redirect to where GET has one.
        assert client.get("/x/").status_code == 405


def test_a_slash_is_redirected_to_a_route_behind_another() -> None:
    app = App(redirect_slashes=True)
    answers(app, "/a/{b}/b")
    answers(app, "/a/{rest:path}")
    with TestClient(app, follow_redirects=False) as client:
        assert client.get("/a").headers["location"] == "/a/"


def test_head_is_answered_by_what_answers_get_unless_a_route_for_head_is_as_specific() -> None:
    app = App()
    app.get("/x/me")(lambda: "me")
    app.head("/x/{id}")(lambda id: None)
    app.get("/x/{id}")(lambda id: "get")
    with TestClient(app) as client:
        for path in ("/x/me", "/x/you"):
            assert client.get(path).status_code == 200
        assert client.head("/x/me").headers["content-length"] == "2"
        assert client.head("/x/you").status_code == 204
