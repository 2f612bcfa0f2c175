"""HEAD from GET, OPTIONS and 405 with Allow, 404, and redirects for slashes only where asked for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.types import Connect, Serve

from treadle import App, Request, Response, StreamingResponse
from treadle.testing import TestClient

app = App()
started: list[str] = []


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@app.get("/item")
def read(request: Request) -> Response:
    return Response(request.method, 203, {"x-a": "1"})


@app.post("/item")
def write() -> str:
    return "written"


@app.get("/own")
def own_get() -> str:
    return "get"


@app.head("/own")
def own_head() -> Response:
    return Response("unseen", headers={"x-own": "1"})


@app.options("/own")
def own_options() -> Response:
    return Response(status=200, headers={"x-own": "2"})


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def chunks():  # type: ignore[no-untyped-def]
        started.append("stream")
        yield b"x"

    return StreamingResponse(chunks(), media_type="text/csv")


@app.delete("/gone/{id}")
async def delete(id: int) -> None: ...


@app.get("/none")
def none() -> None: ...


@pytest.mark.parametrize("path", ["/item", "/none", "/stream", "/missing"])
def test_head_has_the_head_of_get_and_no_body(serve: Serve, raw: Connect, path: str) -> None:
    connection = raw(serve(app))
    got = connection.get(path)
    connection.send(f"HEAD {path} HTTP/1.1\r\nHost: t\r\n\r\n")
    head = connection.response("HEAD")
    assert head.status == got.status

    def fixed(headers: list[tuple[str, str]]) -> dict[str, str]:
        # The method is the body here: the two have different lengths. A head without a body need
        # not tell how one would be framed.
        return {
            name: value
            for name, value in headers
            if name not in ("date", "content-length", "transfer-encoding")
        }

    assert fixed(head.headers) == fixed(got.headers)
    # Nothing of a body follows: the next answer is read right after the head.
    assert connection.get("/own").body == b"get"


def test_head_of_get_tells_the_length_that_get_would_have(client: TestClient) -> None:
    assert client.head("/own").headers["x-own"] == "1"
    response = client.head("/item")
    assert response.headers["content-length"] == "4"
    assert response.content == b""


def test_head_does_not_start_a_stream(client: TestClient) -> None:
    started.clear()
    assert client.head("/stream").status_code == 200
    assert started == []
    assert client.get("/stream").content == b"x"
    assert started == ["stream"]


def test_a_handler_for_head_or_options_comes_before_the_automatic_answer(
    client: TestClient,
) -> None:
    assert client.head("/own").headers["x-own"] == "1"
    response = client.options("/own")
    assert (response.status_code, response.headers["x-own"]) == (200, "2")


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/item", {"GET", "HEAD", "POST", "OPTIONS"}),
        ("/gone/1", {"DELETE", "OPTIONS"}),
        ("/own", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_another_method_hears_what_is_allowed(
    client: TestClient, path: str, allow: set[str]
) -> None:
    for method in ("PUT", "PATCH", "TRACE", "BREW"):
        response = client.request(method, path)
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == allow
        assert response.json() == {"detail": "Method Not Allowed"}


def test_options_is_answered_with_what_is_allowed(client: TestClient) -> None:
    response = client.options("/item")
    assert response.status_code == 204
    assert set(response.headers["allow"].split(", ")) == {"GET", "HEAD", "POST", "OPTIONS"}
    assert response.content == b""


def test_a_path_that_no_route_has_is_404_for_every_method(client: TestClient) -> None:
    for method in ("GET", "POST", "OPTIONS", "DELETE", "BREW"):
        response = client.request(method, "/missing")
        assert response.status_code == 404
        assert response.json() == {"detail": "Not Found"}
        assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/item/", "/gone/1/", "//item", "/item//"])
def test_a_slash_too_many_is_not_redirected(client: TestClient, path: str) -> None:
    for method in ("GET", "DELETE"):
        assert client.request(method, path).status_code == 404


def test_a_slash_too_many_or_too_few_is_redirected_where_the_app_asks_for_it() -> None:
    app = App(redirect_slashes=True)
    app.post("/plain")(write)
    app.post("/slash/{name}/")(lambda name: name)
    app.get("/all/{rest:path}")(lambda rest: [rest])
    with TestClient(app, follow_redirects=False) as client:
        for path, location in [
            ("/plain/", "/plain"),
            ("/plain/?a=%26&b", "/plain?a=%26&b"),
            ("/slash/%C3%BC", "/slash/%C3%BC/"),
        ]:
            response = client.post(path)
            assert (response.status_code, response.headers["location"]) == (307, location)
            assert response.content == b""
        assert client.post("/plain//").status_code == 404
        assert client.get("/all").headers["location"] == "/all/"
        # The route takes these: nothing to redirect.
        assert client.get("/all/").json() == [""]
        assert client.get("/all/x/").json() == ["x/"]
    with TestClient(app, follow_redirects=True) as client:
        assert client.post("/slash/ada").text == "ada"


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example"])
def test_a_redirect_for_a_slash_stays_on_this_host(serve: Serve, raw: Connect, path: str) -> None:
    app = App(redirect_slashes=True)
    app.get("//{name}/")(lambda name: name)
    app.get("/\\{name}/")(lambda name: name)
    response = raw(serve(app)).get(path)
    assert response.header("location") is None
    assert response.status == 404


def test_options_of_the_server_itself_names_all_methods(serve: Serve, raw: Connect) -> None:
    connection = raw(serve(app))
    connection.send("OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n")
    response = connection.response()
    assert response.status == 204
    allow = set((response.header("allow") or "").split(", "))
    assert allow == {"GET", "HEAD", "POST", "DELETE", "OPTIONS"}


def test_head_is_not_answered_from_anything_but_get(client: TestClient) -> None:
    assert client.head("/gone/1").status_code == 405


def test_the_body_of_a_request_nobody_wants_does_not_become_the_next_request(
    serve: Serve, raw: Connect
) -> None:
    connection = raw(serve(app))
    smuggled = "GET /own HTTP/1.1\r\nHost: t\r\n\r\n"
    connection.send(
        f"PUT /item HTTP/1.1\r\nHost: t\r\nContent-Length: {len(smuggled)}\r\n\r\n{smuggled}"
    )
    connection.finish()
    assert connection.response().status == 405
    assert connection.rest() == b""


@pytest.mark.parametrize("target", ["/item?x=1", "http://t/item", "/item?"])
def test_a_target_in_any_form_meets_its_route(serve: Serve, raw: Connect, target: str) -> None:
    assert raw(serve(app)).get(target).status == 203
