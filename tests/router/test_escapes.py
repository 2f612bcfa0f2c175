"""Spellings of a path that mean the same meet the same route, and nothing is decoded twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from support.raw import Raw
from support.types import Connect

from treadle import App
from treadle.testing import LiveServer

app = App(redirect_slashes=True)


def answers(pattern: str) -> None:
    """A route that says its own pattern and its parameter."""

    @app.get(pattern)
    def route(name: str = "", rest: str = "") -> object:
        return [pattern, name or rest]


for pattern in (
    "/café",
    "/a:b",
    "/x~y",
    "/a b",
    "/100%",
    "/%7Bbraces%7D",
    "/escaped%2fslash",
    "/slash/ü/",
    "/v1/projects:search",
    "/v1/{name}:rename",
    "/v1/{name}",
    "/p/{name}",
    "/all/{rest:path}",
):
    answers(pattern)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with LiveServer(app) as server:
        yield server


@pytest.fixture
def connection(server: LiveServer, raw: Connect) -> Raw:
    return raw(server)


def get(connection: Raw, path: bytes) -> Any:
    connection.send(b"GET " + path + b" HTTP/1.1\r\nHost: test\r\n\r\n")
    response = connection.response()
    return json.loads(response.body) if response.status == 200 else response.status


@pytest.mark.parametrize(
    ("path", "pattern"),
    [
        (b"/caf%C3%A9", "/café"),
        (b"/caf%c3%a9", "/café"),
        (b"/%63af%C3%a9", "/café"),
        (b"/caf\xc3\xa9", "/café"),
        (b"/a:b", "/a:b"),
        (b"/a%3Ab", "/a:b"),
        (b"/a%3ab", "/a:b"),
        (b"/x~y", "/x~y"),
        (b"/x%7Ey", "/x~y"),
        (b"/a%20b", "/a b"),
        (b"/100%25", "/100%"),
        (b"/100%", "/100%"),
        (b"/%7bbraces%7d", "/%7Bbraces%7D"),
        (b"/escaped%2Fslash", "/escaped%2fslash"),
        (b"/v1/projects%3Asearch", "/v1/projects:search"),
    ],
)
def test_equivalent_spellings_of_a_literal_meet_its_route(
    connection: Raw, path: bytes, pattern: str
) -> None:
    assert get(connection, path) == [pattern, ""]


def test_a_literal_beside_a_parameter_and_around_one_counts_in_any_spelling(
    connection: Raw,
) -> None:
    assert get(connection, b"/v1/projects%3asearch") == ["/v1/projects:search", ""]
    assert get(connection, b"/v1/7%3Arename") == ["/v1/{name}:rename", "7"]
    assert get(connection, b"/v%31/7") == ["/v1/{name}", "7"]


@pytest.mark.parametrize(
    "path",
    [
        b"/caf%E9",
        b"/caf\xe9",
        b"/CAF%C3%89",
        b"/a%253Ab",
        b"/a+b",
        b"/100%2525",
        b"/%257Bbraces%257D",
        b"/escaped/slash",
        b"/escaped%252Fslash",
        b"/p%2Fname",
        b"%2Fp/name",
        b"/p/%2E%2E/x",
        b"/x/../x~y",
        b"/x/%2e%2e/x~y",
        b"/x~y%00",
    ],
)
def test_a_spelling_of_something_else_does_not(connection: Raw, path: bytes) -> None:
    assert get(connection, path) in (400, 404)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"a%3Ab", "a:b"),
        (b"a%2Fb", "a/b"),
        (b"a%2fb", "a/b"),
        (b"%2541", "%41"),
        (b"%252F", "%2F"),
        (b"%25252F", "%252F"),
        (b"%%34%31", "%41"),
        (b"100%", "100%"),
        (b"%7Bx%7d", "{x}"),
        (b"%2e%2e", ".."),
        (b"%00", "\0"),
        (b"%C3%A9", "é"),
        (b"\xc3\xa9", "é"),
        (b"%C3\xc3\xa9", 422),
        (b"%FF", 422),
    ],
)
def test_a_parameter_is_decoded_exactly_once(connection: Raw, text: bytes, value: Any) -> None:
    for prefix, pattern in ((b"/p/", "/p/{name}"), (b"/all/", "/all/{rest:path}")):
        expected = value if value == 422 else [pattern, value]
        assert get(connection, prefix + text) == expected


def test_a_redirect_for_a_slash_leads_to_the_path_as_it_was_sent(connection: Raw) -> None:
    response = connection.get("/slash/%c3%bc")
    assert (response.status, response.header("location")) == (307, "/slash/%c3%bc/")
    response = connection.get("/escaped%2fslash/")
    assert (response.status, response.header("location")) == (307, "/escaped%2fslash")
