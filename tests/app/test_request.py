"""What a handler sees of a request, and how it reads the body."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Annotated, Any

import httpx
import pytest
from support.types import Connect, Serve

from treadle import App, Cookie, Header, Headers, QueryParams, Request, State
from treadle.testing import TestClient

app = App()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


# -- the head -------------------------------------------------------------------------------------


@app.route("/head/{name}/{rest:path}", ["GET", "POST", "PATCH"])
def head(request: Request, name: str, rest: str) -> dict[str, Any]:
    return {
        "method": request.method,
        "path": request.path,
        "raw_path": request.raw_path,
        "query_string": request.query_string,
        "http_version": request.http_version,
        "path_params": request.path_params,
        "query": dict(request.query),
        "cookies": request.cookies,
        "client": request.client,
        "repr": repr(request),
    }


def test_a_request_says_what_was_asked_for(client: TestClient) -> None:
    seen = client.patch(
        "/head/a%20b/%C3%BC/x?q=1&r=%26&r=2&empty",
        headers={"cookie": 'sid=1; theme="dark"; sid=2; =x; broken'},
    ).json()
    host, port = seen.pop("client")
    assert host == "127.0.0.1"
    assert 0 < port < 65536
    assert seen == {
        "method": "PATCH",
        "path": "/head/a b/ü/x",
        "raw_path": "/head/a%20b/%C3%BC/x",
        "query_string": "q=1&r=%26&r=2&empty",
        "http_version": "1.1",
        "path_params": {"name": "a b", "rest": "ü/x"},
        "query": {"q": "1", "r": "&", "empty": ""},
        "cookies": {"sid": "1", "theme": "dark", "": "x"},
        "repr": "<Request PATCH /head/a%20b/%C3%BC/x>",
    }


@app.get("/one-cookie")
def one_cookie(theme: Annotated[str, Cookie()], other: Annotated[str, Cookie("ü")] = "") -> str:
    return theme + other


def test_cookies_beyond_ascii_are_latin_1_and_hide_no_others(client: TestClient) -> None:
    headers = {"cookie": 'sid=1; theme="é\xff"; ü=ß'.encode("latin-1")}
    assert client.get("/head/a/b", headers=headers).json()["cookies"] == {
        "sid": "1",
        "theme": "é\xff",
        "ü": "ß",
    }
    assert client.get("/one-cookie", headers=headers).text == "é\xffß"
    # As a browser sends it that was told by a script: what was meant can be had back.
    text = client.get("/one-cookie", headers={"cookie": "theme=日本".encode()}).text
    assert text.encode("latin-1").decode() == "日本"


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ('"dark"', "dark"),
        ('""', ""),
        ('""dark""', '"dark"'),
        ('"dark', '"dark'),
        ('dark"', 'dark"'),
        ('"', '"'),
        ('a"b', 'a"b'),
    ],
)
def test_of_the_quotes_of_a_cookie_one_pair_is_taken_away(
    client: TestClient, sent: str, value: str
) -> None:
    headers = {"cookie": f"theme={sent}; sid=1"}
    cookies = client.get("/head/a/b", headers=headers).json()["cookies"]
    assert cookies == {"theme": value, "sid": "1"}
    assert client.get("/one-cookie", headers=headers).text == value


def test_a_request_without_extras_has_empty_ones(client: TestClient) -> None:
    seen = client.get("/head/a/b").json()
    assert (seen["query"], seen["cookies"], seen["query_string"]) == ({}, {}, "")


def test_an_old_client_is_told_apart(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/")
    def version(request: Request) -> str:
        return request.http_version

    connection = raw(serve(app))
    connection.send("GET / HTTP/1.0\r\n\r\n")
    assert connection.response().body == b"1.0"


def test_a_request_over_a_unix_socket_has_no_client(serve: Serve, raw: Connect, tmp_path) -> None:  # type: ignore[no-untyped-def]
    app = App()

    @app.get("/")
    def client(request: Request) -> bool:
        return request.client is None

    assert raw(serve(app, uds=str(tmp_path / "s"))).get().body == b"true"


class Seen:
    """What handlers leave for their tests to look at."""

    request: Request
    values: list[Any]


seen = Seen()


@app.route("/keep", ["GET", "POST"])
def keep(request: Request) -> None:
    seen.request = request


def test_headers_are_a_mapping_that_ignores_case(client: TestClient) -> None:
    client.get("/keep", headers=[("X-One", "1"), ("x-many", "a"), ("X-Many", "b")])
    headers = seen.request.headers
    assert isinstance(headers, Headers)
    assert headers["x-ONE"] == headers.get("X-One") == "1"
    assert headers["x-many"] == "a"
    assert headers.get_all("x-many") == ["a", "b"]
    assert "X-ONE" in headers
    assert "x-none" not in headers
    assert (headers.get("x-none"), headers.get("x-none", "?")) == (None, "?")
    assert headers.get_all("x-none") == []
    assert set(headers) >= {"x-one", "x-many", "host"}
    assert [pair for pair in headers.items() if pair[0] == "x-many"] == [
        ("x-many", "a"),
        ("x-many", "b"),
    ]
    assert headers is seen.request.headers
    with pytest.raises(KeyError, match="x-none"):
        headers["x-none"]


def test_headers_of_a_request_cannot_be_changed(client: TestClient) -> None:
    client.get("/keep")
    headers = seen.request.headers
    for change in (
        lambda: headers.__setitem__("x", "1"),
        lambda: headers.__delitem__("host"),
        lambda: headers.append("x", "1"),
        lambda: headers.setdefault("x", "1"),
    ):
        with pytest.raises(TypeError, match="the headers of a request cannot be changed"):
            change()


def test_header_bytes_beyond_ascii_are_latin_1(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.get("/")
    def handler(request: Request, x_name: Annotated[str, Header()]) -> list[str]:
        return [request.headers["x-name"], x_name]

    connection = raw(serve(app))
    connection.send(b"GET / HTTP/1.1\r\nHost: t\r\nX-Name: Fran\xe7ois\r\n\r\n")
    assert connection.response().body.decode() == '["François","François"]'


def test_query_parameters_are_a_mapping_that_knows_repeated_ones(client: TestClient) -> None:
    client.get("/keep?a=1&b=x+y&a=2&%C3%BC=%C3%BC&bad=%ff")
    query = seen.request.query
    assert isinstance(query, QueryParams)
    assert query.get_all("a") == ["1", "2"]
    assert query["b"] == "x y"
    assert query["ü"] == "ü"
    assert query["bad"] == "\ufffd"
    assert list(query) == ["a", "b", "ü", "bad"]
    assert len(query) == 4
    assert "c" not in query
    assert query.get("c") is None
    assert query.get_all("c") == []
    assert query is seen.request.query


def test_every_request_has_a_number_and_a_state_of_its_own(client: TestClient) -> None:
    client.get("/keep")
    first = seen.request
    client.get("/keep")
    second = seen.request
    assert first.id != second.id
    assert isinstance(first.state, State)
    first.state.user = "ada"
    assert first.state is first.state
    assert first.state.user == "ada"
    with pytest.raises(AttributeError, match="nothing was stored as 'user'"):
        _ = second.state.user


def test_the_head_outlives_the_answer(client: TestClient) -> None:
    client.post("/keep?q=1", content=b"x")
    assert (seen.request.method, seen.request.query["q"]) == ("POST", "1")
    assert seen.request.headers["content-length"] == "1"


def test_a_request_cannot_be_made_or_changed_by_hand(client: TestClient) -> None:
    with pytest.raises(TypeError):
        Request()  # type: ignore[call-arg]
    client.get("/keep")
    with pytest.raises(AttributeError):
        seen.request.method = "X"  # type: ignore[misc]


def test_a_request_is_gone_when_nobody_keeps_it(client: TestClient) -> None:
    client.get("/keep")
    reference = weakref.ref(seen.request)
    del seen.request
    gc.collect()
    assert reference() is None


# -- the body -------------------------------------------------------------------------------------


@app.post("/body")
async def body(request: Request) -> bytes:
    return await request.body()


@app.post("/text")
async def text(request: Request) -> list[str]:
    return [await request.text()]


@app.post("/json")
async def json(request: Request) -> list[Any]:
    return [await request.json()]


@app.post("/stream")
async def stream(request: Request) -> list[int]:
    return [len(chunk) async for chunk in request.stream()]


@app.post("/twice")
async def twice(request: Request) -> list[Any]:
    return [
        (await request.body()).decode(),
        await request.text(),
        await request.json(),
        b"".join([chunk async for chunk in request.stream()]).decode(),
    ]


@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_is_what_was_sent(client: TestClient, size: int, chunked: bool) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    data = data[:size]
    content: Any = iter([data[: size // 2], data[size // 2 :]]) if chunked else data
    assert client.post("/body", content=content).content == data


def test_text_is_utf8(client: TestClient) -> None:
    assert client.post("/text", content="ü").json() == ["ü"]
    response = client.post("/text", content=b"\xff")
    assert response.status_code == 400
    assert response.json() == {"detail": "the request body is not UTF-8"}


def test_json_is_decoded(client: TestClient) -> None:
    assert client.post("/json", json={"a": [1.5, None]}).json() == [{"a": [1.5, None]}]
    for broken in ("", "{", "nope"):
        response = client.post("/json", content=broken)
        assert response.status_code == 400
        assert response.json()["detail"].startswith("the request body is not JSON: ")


def test_json_that_is_nested_too_deeply_is_400(client: TestClient) -> None:
    response = client.post("/json", content="[" * 300_000 + "]" * 300_000)
    assert response.status_code == 400
    assert response.json() == {"detail": "the request body is not JSON: it is nested too deeply"}


def test_a_body_can_be_read_again_in_another_form(client: TestClient) -> None:
    assert client.post("/twice", content="[1]").json() == ["[1]", "[1]", [1], "[1]"]


def test_a_read_that_was_given_up_is_told_to_the_next(serve: Serve, raw: Connect) -> None:
    app = App()

    @app.post("/")
    async def handler(request: Request) -> str:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await request.body()
        with pytest.raises(RuntimeError, match="was not read to its end"):
            await request.body()
        return "told"

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 8\r\n\r\nhalf")
    assert connection.response().body == b"told"


def test_a_stream_gives_chunks_as_they_come(serve: Serve, raw: Connect) -> None:
    app = App()
    arrived: list[bytes] = []
    wake = threading.Semaphore(0)

    @app.post("/")
    async def handler(request: Request) -> int:
        async for chunk in request.stream():
            arrived.append(chunk)
            wake.release()
        return len(arrived)

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")
    for part in (b"one", b"two", b"three"):
        connection.send(b"%x\r\n%s\r\n" % (len(part), part))
        assert wake.acquire(timeout=10)
        assert arrived[-1] == part
    connection.send("0\r\n\r\n")
    assert connection.response().body == b"3"


def test_a_stream_of_nothing_is_empty(client: TestClient) -> None:
    assert client.post("/stream").json() == []
    assert sum(client.post("/stream", content=b"x" * 500_000).json()) == 500_000


@app.post("/after-stream")
async def after_stream(request: Request) -> list[str]:
    chunks = [chunk async for chunk in request.stream()]
    again = [chunk async for chunk in request.stream()]
    try:
        await request.body()
    except RuntimeError as error:
        return [b"".join(chunks).decode(), b"".join(again).decode(), str(error)]
    return ["no error"]


def test_a_body_that_was_streamed_is_gone(client: TestClient) -> None:
    sent, again, reason = client.post("/after-stream", content=b"data").json()
    assert (sent, again) == ("data", "")
    assert "read already" in reason


@app.post("/half-stream")
async def half_stream(request: Request) -> int:
    async for chunk in request.stream():
        return len(chunk)
    return 0


def test_a_handler_may_answer_before_it_read_everything(client: TestClient) -> None:
    for _ in range(2):
        assert client.post("/half-stream", content=b"x" * 200_000).json() > 0


def test_two_readers_at_once_are_told(serve: Serve, raw: Connect) -> None:
    app = App()
    reading = threading.Event()

    @app.post("/")
    async def handler(request: Request) -> str:
        first = asyncio.ensure_future(request.body())
        await asyncio.sleep(0)
        reading.set()
        try:
            await request.body()
        except RuntimeError as error:
            return f"{error}; {(await first).decode()}"
        return "no error"

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\n")
    assert reading.wait(10)
    connection.send("data")
    error, data = connection.response().body.split(b"; ")
    assert error.startswith(b"the body is being read already, ")
    assert data == b"data"


def test_a_body_cannot_be_read_from_another_thread(client: TestClient) -> None:
    client.post("/keep", content=b"x")
    for read in (
        seen.request.body,
        seen.request.json,
        seen.request.text,
        seen.request.stream,
    ):
        with pytest.raises(RuntimeError, match="on its own lane only"):
            read()


@app.post("/offload", offload=True)
def offloaded(request: Request) -> str:
    try:
        request.body()
    except RuntimeError as error:
        return str(error)
    return "no error"


def test_an_offloaded_handler_cannot_read_from_the_connection(client: TestClient) -> None:
    assert "on its own lane only" in client.post("/offload", content=b"x").text


@app.post("/late")
async def late(request: Request) -> None:
    seen.values = [request, asyncio.get_running_loop()]


def test_a_body_that_nobody_read_is_gone_after_the_answer(client: TestClient) -> None:
    client.post("/late", content=b"x" * 100_000)
    request, loop = seen.values

    async def read() -> bytes | RuntimeError:
        try:
            return await request.body()
        except RuntimeError as error:
            return error

    future = asyncio.run_coroutine_threadsafe(read(), loop)
    assert isinstance(future.result(10), RuntimeError)


def test_a_request_that_is_kept_does_not_hold_up_its_connection(serve: Serve, raw: Connect) -> None:
    live = serve(app)
    for _ in range(2):
        connection = raw(live)
        connection.send("POST /late HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n")
        connection.send(b"x" * 1_000_000)
        assert connection.response().status == 204
        # So much that nobody reads is not drained: the connection ends, and does not wait.
        assert connection.is_closed()
    assert raw(live).get("/head/a/b").status == 200


def test_a_client_that_leaves_while_sending_ends_the_reader(serve: Serve, raw: Connect) -> None:
    app = App()
    ended: list[BaseException] = []
    done = threading.Event()
    reading = threading.Event()

    @app.post("/")
    async def handler(request: Request) -> None:
        reading.set()
        try:
            await request.body()
        except BaseException as error:
            ended.append(error)
            raise
        finally:
            done.set()

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 10\r\n\r\nhalf")
    assert reading.wait(10)
    connection.reset()
    assert done.wait(10)
    assert type(ended[0]).__name__ in ("ClientDisconnect", "CancelledError")


def test_httpx_sees_the_limit_of_the_route(client: TestClient) -> None:
    app = App()

    @app.post("/", limit_body=10)
    async def handler(request: Request) -> bytes:
        return await request.body()

    with TestClient(app) as client:
        assert client.post("/", content=b"x" * 10).status_code == 200
        assert client.post("/", content=b"x" * 11).status_code == 413
        assert client.post("/", content=iter([b"x" * 6, b"x" * 6])).status_code == 413
        assert httpx.codes.is_success(client.post("/", content=b"").status_code)


@pytest.mark.parametrize("way", ["body", "stream"])
@pytest.mark.parametrize(
    ("framing", "first", "rest"),
    [
        ("Content-Length: 8", "half", "half"),
        ("Content-Length: 1000000", "half", ""),
        ("Transfer-Encoding: chunked", "4\r\nhalf\r\n", ""),
    ],
)
def test_a_reader_in_the_background_does_not_hold_up_its_connection(
    serve: Serve, raw: Connect, way: str, framing: str, first: str, rest: str
) -> None:
    app = App()
    read: list[bytes] = []
    failed: Future[BaseException] = Future()
    tasks = []

    async def in_background(request: Request) -> None:
        try:
            if way == "body":
                await request.body()
            async for chunk in request.stream():
                read.append(chunk)
        except BaseException as error:
            failed.set_result(error)

    @app.post("/")
    async def handler(request: Request) -> str:
        tasks.append(asyncio.create_task(in_background(request)))
        await asyncio.sleep(0)
        return "answered"

    app.get("/next")(lambda: "next")
    connection = raw(serve(app))
    connection.send(f"POST / HTTP/1.1\r\nHost: t\r\n{framing}\r\n\r\n{first}")
    assert connection.response().body == b"answered"
    # The reader is told at once, and not only when the rest arrives or never does.
    error = failed.result(10)
    assert (type(error), str(error)) == (
        RuntimeError,
        "the request was answered: its body is gone",
    )
    assert read == ([] if way == "body" else [b"half"])
    if rest:
        connection.send(rest)
        assert connection.get("/next").body == b"next"
    else:
        assert connection.is_closed()


def test_a_reader_in_the_background_gets_what_has_arrived(serve: Serve, raw: Connect) -> None:
    app = App()
    read: Future[bytes] = Future()
    tasks = []

    async def in_background(request: Request) -> None:
        read.set_result(await request.body())

    @app.post("/")
    async def handler(request: Request) -> None:
        tasks.append(asyncio.create_task(in_background(request)))
        await asyncio.sleep(0)

    connection = raw(serve(app))
    connection.send("POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 4\r\n\r\nbody")
    assert connection.response().status == 204
    assert read.result(10) == b"body"
