"""From what a handler returns to what the client receives."""

from __future__ import annotations

import dataclasses
import enum
import logging
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pydantic
import pytest
from support.cli import RunCli
from support.types import Connect, Serve

from treadle import (
    App,
    Cookie,
    Headers,
    HTMLResponse,
    JSONResponse,
    RedirectResponse,
    Request,
    Response,
    StreamingResponse,
)
from treadle.testing import TestClient

app = App()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


class Item(msgspec.Struct):
    name: str
    price: float = 1.0


@dataclasses.dataclass
class Point:
    x: int


class Model(pydantic.BaseModel):
    when: datetime


class Colour(enum.Enum):
    RED = "red"


JSON, TEXT, BYTES = "application/json", "text/plain; charset=utf-8", "application/octet-stream"
HTML = "text/html; charset=utf-8"
MOMENT = datetime(2026, 11, 20, tzinfo=UTC)

RESULTS: dict[str, tuple[Callable[[], Any], int, str | None, bytes]] = {
    "dict": (lambda: {"a": 1, "ü": None}, 200, JSON, '{"a":1,"ü":null}'.encode()),
    "list": (lambda: [1, 2.5, "x"], 200, JSON, b'[1,2.5,"x"]'),
    "tuple": (lambda: (1, 2), 200, JSON, b"[1,2]"),
    "int": (lambda: 7, 200, JSON, b"7"),
    "float": (lambda: 0.5, 200, JSON, b"0.5"),
    "bool": (lambda: False, 200, JSON, b"false"),
    "str": (lambda: "grün", 200, TEXT, "grün".encode()),
    "empty-str": (lambda: "", 200, TEXT, b""),
    "bytes": (lambda: b"\x00\xff", 200, BYTES, b"\x00\xff"),
    "none": (lambda: None, 204, None, b""),
    "struct": (lambda: Item("a"), 200, JSON, b'{"name":"a","price":1.0}'),
    "dataclass": (lambda: Point(1), 200, JSON, b'{"x":1}'),
    "pydantic": (lambda: Model(when=MOMENT), 200, JSON, b'{"when":"2026-11-20T00:00:00Z"}'),
    "models": (lambda: [Model(when=MOMENT)], 200, JSON, b'[{"when":"2026-11-20T00:00:00Z"}]'),
    "scalars": (
        lambda: [UUID(int=0), MOMENT, Decimal("1.10"), Colour.RED],
        200,
        JSON,
        b'["00000000-0000-0000-0000-000000000000","2026-11-20T00:00:00Z","1.10","red"]',
    ),
    "response": (lambda: Response(b"x"), 200, None, b"x"),
    "response-str": (lambda: Response("grün", 201), 201, TEXT, "grün".encode()),
    "response-none": (lambda: Response(status=202), 202, None, b""),
    "response-media": (lambda: Response("<a/>", media_type="text/xml"), 200, "text/xml", b"<a/>"),
    "response-header": (
        lambda: Response("x", headers={"Content-Type": "a/b"}, media_type="c/d"),
        200,
        "a/b",
        b"x",
    ),
    "bytearray": (lambda: Response(bytearray(b"x")), 200, None, b"x"),
    "memoryview": (lambda: Response(memoryview(b"xyz")[1:]), 200, None, b"yz"),
    "json": (lambda: JSONResponse({"a": 1}, 201), 201, JSON, b'{"a":1}'),
    "json-none": (lambda: JSONResponse(), 200, JSON, b"null"),
    "json-type": (
        lambda: JSONResponse([], headers={"content-type": "application/problem+json"}),
        200,
        "application/problem+json",
        b"[]",
    ),
    "html": (lambda: HTMLResponse("<p>grün"), 200, HTML, "<p>grün".encode()),
    "redirect": (lambda: RedirectResponse("/x"), 307, None, b""),
    "stream": (lambda: StreamingResponse(["a", b"b", "ü"]), 200, None, "abü".encode()),
    "stream-type": (
        lambda: StreamingResponse(iter([b"a"]), 206, media_type="text/csv"),
        206,
        "text/csv",
        b"a",
    ),
    "stream-empty": (lambda: StreamingResponse([]), 200, None, b""),
}


def answer(name: str, make: Callable[[], Any]) -> None:
    def inline() -> Any:
        return make()

    async def task() -> Any:
        return make()

    app.get(f"/inline/{name}")(inline)
    app.get(f"/task/{name}")(task)
    app.get(f"/offload/{name}", offload=True)(inline)


for name, row in RESULTS.items():
    answer(name, row[0])


@pytest.mark.parametrize("mode", ["inline", "task", "offload"])
@pytest.mark.parametrize("name", RESULTS)
def test_a_result_becomes_a_response(client: TestClient, mode: str, name: str) -> None:
    _, status, media_type, body = RESULTS[name]
    response = client.get(f"/{mode}/{name}")
    assert response.status_code == status
    assert response.headers.get("content-type") == media_type
    assert response.content == body


@pytest.mark.parametrize("name", [name for name in RESULTS if "stream" not in name])
def test_a_whole_body_has_its_length_in_the_head(client: TestClient, name: str) -> None:
    response = client.get(f"/inline/{name}")
    expected = None if response.status_code == 204 else str(len(response.content))
    assert response.headers.get("content-length") == expected
    assert "transfer-encoding" not in response.headers


# -- the status of a route ------------------------------------------------------------------------


@app.post("/created", status=201)
def created() -> dict[str, int]:
    return {"id": 1}


@app.post("/created-none", status=201)
async def created_none() -> None:
    return None


@app.post("/created-response", status=201)
def created_response() -> Response:
    return Response("x", 202)


@app.post("/emptied", status=204)
def emptied() -> dict[str, int]:
    return {"id": 1}


def test_a_result_that_its_status_leaves_out_has_no_type(client: TestClient) -> None:
    response = client.post("/emptied")
    assert (response.status_code, response.content) == (204, b"")
    assert not {"content-type", "content-length"} & set(response.headers)


def test_the_status_of_a_route_is_that_of_its_plain_results(client: TestClient) -> None:
    assert client.post("/created").status_code == 201
    assert client.post("/created-none").status_code == 201
    assert client.post("/created-response").status_code == 202


# -- headers and cookies --------------------------------------------------------------------------


def test_headers_of_a_response_can_be_changed_until_it_is_sent() -> None:
    response = Response("x", headers=[("X-A", "1"), ("x-a", "2")])
    headers = response.headers
    assert isinstance(headers, Headers)
    assert headers.get_all("X-A") == ["1", "2"]
    headers["x-a"] = "3"
    assert headers.get_all("x-a") == ["3"]
    headers.append("x-a", "4")
    assert headers.setdefault("x-a", "5") == "3"
    assert headers.setdefault("x-b", "5") == "5"
    del headers["x-a"]
    assert "x-a" not in headers
    with pytest.raises(KeyError):
        del headers["x-a"]
    assert dict(headers.items()) == {"content-type": TEXT, "x-b": "5"}
    assert len(headers) == 2
    assert sorted(headers.keys()) == ["content-type", "x-b"]
    assert sorted(headers.values()) == ["5", TEXT]
    assert Headers({"A": "1"}) == Headers([("a", "1")])
    assert Headers({"A": "1"}) != Headers({"a": "2"})
    assert repr(Headers({"A": "1"})) == 'Headers([("a", "1")])'


@app.get("/headers")
def with_headers() -> Response:
    response = Response("x", headers={"X-Latin": "François", "Content-Length": "99"})
    response.headers.append("x-many", "1")
    response.headers.append("x-many", "2")
    response.headers["transfer-encoding"] = "chunked"
    response.headers["connection"] = "upgrade"
    response.status = 203
    return response


def test_headers_go_out_but_framing_is_not_the_handlers(serve: Serve, raw: Connect) -> None:
    response = raw(serve(app)).get("/headers")
    assert response.status == 203
    assert response.header("x-latin") == "François"
    assert [value for name, value in response.headers if name == "x-many"] == ["1", "2"]
    assert response.header("content-length") == "1"
    assert response.header("transfer-encoding") is None
    assert response.header("connection") is None
    assert response.body == b"x"


@app.get("/cookies")
def with_cookies() -> Response:
    response = JSONResponse([])
    response.set_cookie("plain", "1")
    response.set_cookie(
        "full",
        "x=y",
        max_age=60,
        path="/a",
        domain="example.org",
        secure=True,
        httponly=True,
        samesite="strict",
    )
    response.set_cookie("bare", path=None, samesite=None)
    return response


def test_cookies_are_set_each_with_a_header_of_its_own(client: TestClient) -> None:
    assert client.get("/cookies").headers.get_list("set-cookie") == [
        "plain=1; Path=/; SameSite=Lax",
        "full=x=y; Path=/a; Domain=example.org; Max-Age=60; Secure; HttpOnly; SameSite=Strict",
        "bare=",
    ]


@pytest.mark.parametrize(
    ("arguments", "options", "reason"),
    [
        (("a b", "x"), {}, "is not a cookie name"),
        (("", "x"), {}, "is not a cookie name"),
        (("a=b", "x"), {}, "is not a cookie name"),
        *((("a", f"x{octet}y"), {}, "must be quoted") for octet in ' ",;\\\t'),
        *((("a", text), {}, "beyond ASCII: encode it") for text in ("é", "\x80", "日本")),
        (("a", "x\r\ny"), {}, "control character"),
        (("a", "x"), {"path": "/;x"}, "has a ';'"),
        (("a", "x"), {"domain": "x\r\nSet-Cookie: b=1"}, "control character"),
        (("a", "x"), {"samesite": "some"}, "is not lax, strict, none or None"),
    ],
)
def test_a_cookie_that_would_be_misread_is_refused(
    arguments: tuple[str, str], options: dict[str, Any], reason: str
) -> None:
    response = Response()
    with pytest.raises(ValueError, match=reason):
        response.set_cookie(*arguments, **options)
    assert "set-cookie" not in response.headers


def test_a_cookie_comes_back_as_it_was_set() -> None:
    app = App()
    octets = "".join(chr(octet) for octet in range(0x21, 0x7F) if chr(octet) not in '",;\\')

    @app.get("/set")
    def set_cookie() -> Response:
        response = Response()
        response.set_cookie("value", octets)
        response.set_cookie("other", "1")
        return response

    @app.get("/get")
    def get_cookies(request: Request, value: Annotated[str, Cookie()]) -> list[object]:
        return [request.cookies, value]

    with TestClient(app) as client:
        client.get("/set")
        assert client.get("/get").json() == [{"value": octets, "other": "1"}, octets]


# -- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("/a?b=c#d", "/a?b=c#d"),
        ("https://example.org/ü", "https://example.org/%C3%BC"),
        ("/already%20escaped", "/already%20escaped"),
        ("/a b", "/a%20b"),
        ('/\\\\elsewhere/{x}|"<>^`', "/%5C%5Celsewhere/%7Bx%7D%7C%22%3C%3E%5E%60"),
    ],
)
def test_a_redirect_names_its_target(url: str, location: str) -> None:
    response = RedirectResponse(url, 303, {"x-a": "1"})
    assert (response.status, response.headers["location"], response.headers["x-a"]) == (
        303,
        location,
        "1",
    )


def test_a_redirect_is_followed_with_method_and_body() -> None:
    app = App()

    @app.post("/old")
    def old() -> Response:
        return RedirectResponse("/new")

    @app.post("/new")
    async def new(request: Request) -> bytes:
        return await request.body()

    with TestClient(app, follow_redirects=True) as client:
        assert client.post("/old", content=b"kept").content == b"kept"


# -- what is wrong raises where it is written -----------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda status: Response(status=status),
        lambda status: JSONResponse(None, status),
        lambda status: HTMLResponse("", status),
        lambda status: StreamingResponse([], status),
        lambda status: setattr(Response(), "status", status),
    ],
)
@pytest.mark.parametrize("status", [0, 99, 100, 199, 1000, 70000])
def test_a_status_that_cannot_be_sent_raises(make: Callable[[int], object], status: int) -> None:
    with pytest.raises(ValueError, match=f"status {status} cannot be sent: use 200 to 999"):
        make(status)


@pytest.mark.parametrize("status", [200, 299, 400])
def test_only_a_redirect_status_redirects(status: int) -> None:
    with pytest.raises(ValueError, match="is not a redirect"):
        RedirectResponse("/", status)


@pytest.mark.parametrize("text", ["a\r\nb", "a\nb", "a\rb", "a\0b", "a\x7fb"])
@pytest.mark.parametrize(
    "make",
    [
        lambda text: Response(headers={"x-a": text}),
        lambda text: Response(headers=[("x-a", text)]),
        lambda text: Response(headers={text: "a"}),
        lambda text: Response(media_type=text),
        lambda text: Response().headers.append("x-a", text),
        lambda text: Response().headers.setdefault("x-a", text),
        lambda text: Response().headers.__setitem__("x-a", text),
        lambda text: Response().headers.__setitem__(text, "a"),
        lambda text: RedirectResponse(f"/{text}"),
        lambda text: Response().set_cookie("a", text),
    ],
)
def test_a_control_character_in_a_header_raises(make: Callable[[str], object], text: str) -> None:
    with pytest.raises(ValueError, match=r"control character|not a header name"):
        make(text)


def test_a_header_beyond_latin_1_raises() -> None:
    with pytest.raises(ValueError, match="beyond Latin-1"):
        Response(headers={"x-a": "日本"})


@pytest.mark.parametrize("name", ["", "a b", "a:", "ü"])
def test_a_header_name_that_is_none_raises(name: str) -> None:
    with pytest.raises(ValueError, match="is not a header name"):
        Response(headers={name: "x"})


@pytest.mark.parametrize("headers", [{"a": 1}, [("a",)], [("a", "b", "c")], {1: "a"}, 7])
def test_headers_that_are_no_pairs_of_text_raise(headers: Any) -> None:
    with pytest.raises(TypeError):
        Response(headers=headers)


@pytest.mark.parametrize("content", [1, {"a": 1}, [b"a"], object()])
def test_content_that_is_no_content_raises(content: Any) -> None:
    with pytest.raises(TypeError, match=r"use JSONResponse for other objects"):
        Response(content)


@pytest.mark.parametrize("content", ["text", b"bytes", 7, None])
def test_a_stream_of_something_that_is_no_iterable_raises(content: Any) -> None:
    with pytest.raises(TypeError, match="must be an async or sync iterable of bytes or str"):
        StreamingResponse(content)


def test_json_that_cannot_be_encoded_raises() -> None:
    with pytest.raises(TypeError, match="objects of type object are not JSON"):
        JSONResponse(object())


def test_a_response_says_what_it_is() -> None:
    assert repr(JSONResponse({}, 201)) == "<JSONResponse 201>"
    assert Response("ü").body == "ü".encode()


class Teapot(Response):
    """A class of the user's own."""

    def __init__(self, brew: str) -> None:
        self.brew = brew

    def __new__(cls, brew: str) -> Teapot:
        return super().__new__(cls, brew, 418)


def test_response_classes_can_be_derived_from() -> None:
    app = App()

    @app.get("/")
    def handler() -> Response:
        return Teapot("tea")

    with TestClient(app) as client:
        response = client.get("/")
    assert (response.status_code, response.text) == (418, "tea")


# -- results that cannot be sent ------------------------------------------------------------------

BROKEN: dict[str, tuple[Callable[[], Any], str]] = {
    "object": (object, "the handler returned a object that cannot be encoded as JSON"),
    "set": (lambda: {1: object()}, "the handler returned a dict that cannot be encoded as JSON"),
    "surrogate": (lambda: "\ud800", "surrogates not allowed"),
    "class": (lambda: Response, "the handler returned a type that cannot be encoded as JSON"),
    "status": (lambda: Response(status=99), "status 99 cannot be sent"),
    "cycle": (lambda: (cycle := [], cycle.append(cycle))[0], "RecursionError"),
}
for name, (make, _) in BROKEN.items():
    answer(f"broken-{name}", make)


@pytest.mark.parametrize("mode", ["inline", "task", "offload"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_result_that_cannot_be_sent_is_500_and_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture, mode: str, name: str
) -> None:
    response = client.get(f"/{mode}/broken-{name}")
    assert response.status_code == 500
    assert response.json() == {"detail": "Internal Server Error"}
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert record.name == "treadle"
    assert f"GET /{mode}/broken-{name}" in record.getMessage()
    assert __file__ in record.getMessage()
    assert BROKEN[name][1] in caplog.text
    assert client.get(f"/{mode}/dict").status_code == 200


# -- shared by threads -----------------------------------------------------------------------------


def test_a_response_may_be_read_while_another_thread_sets_its_status() -> None:
    """A module's own response, which the handlers of all lanes return."""
    shared = Response("x")
    together = threading.Barrier(2, timeout=10)
    failed: list[BaseException] = []

    def repeat(use: Callable[[], object]) -> None:
        try:
            together.wait()
            for _ in range(200_000):
                use()
        except BaseException as error:
            failed.append(error)

    def change() -> None:
        shared.status = 201 if shared.status == 200 else 200

    threads = [
        threading.Thread(target=repeat, args=(use,)) for use in (change, lambda: repr(shared))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert shared.status in (200, 201)


# -- made when the process ends --------------------------------------------------------------------

ENCODING = """
import threading, treadle

working = threading.Semaphore(0)

class Model:
    def model_dump(self, mode):
        working.release()
        while True:
            pass

threading.Thread(target=treadle.JSONResponse, args=(Model(),), daemon=True).start()
working.acquire()
"""


def test_a_model_that_encodes_itself_does_not_disturb_the_exit(run_cli: RunCli) -> None:
    """A handler on the thread pool may be at it when the program ends."""
    command = run_cli.python(["-c", ENCODING], listens=False)
    assert (command.wait(), command.stderr) == (0, "")
