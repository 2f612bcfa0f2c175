"""The request body as an argument: decoded, validated, or as bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import httpx
import msgspec
import pydantic
import pydantic.dataclasses
import pytest

from treadle import App, Body, Request
from treadle.testing import TestClient

app = App()


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def refused(response: httpx.Response) -> list[tuple[list[object], str]]:
    """Places and reasons of a 422."""
    assert response.status_code == 422, response.text
    return [(problem["loc"], problem["msg"]) for problem in response.json()["detail"]]


def post(client: TestClient, path: str, text: str | bytes) -> httpx.Response:
    return client.post(path, content=text, headers={"content-type": "application/json"})


class Tag(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1)]


class Item(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(max_length=5)]
    price: Annotated[float, msgspec.Meta(gt=0)]
    tags: list[Tag] = []
    made: datetime | None = None


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Range(TypedDict):
    low: int
    high: NotRequired[int]


class Model(pydantic.BaseModel):
    name: str = pydantic.Field(max_length=5)
    points: list[int] = []


@pydantic.dataclasses.dataclass
class Size:
    width: pydantic.PositiveInt


@pydantic.dataclasses.dataclass
class Sized[T]:
    size: pydantic.PositiveInt
    value: T


class Renamed(msgspec.Struct, forbid_unknown_fields=True):
    part: int = msgspec.field(name="x.y", default=0)
    many: list[Tag] = msgspec.field(name="a[0]", default=[])
    x: Tag | None = None
    none: Tag | None = msgspec.field(name="", default=None)
    digits: int = msgspec.field(name="12", default=0)
    quoted: dict[str, int] = msgspec.field(name="a`b", default={})


class Row(msgspec.Struct, array_like=True):
    id: int
    tag: Tag


class Nested(msgspec.Struct):
    key: dict[str, dict[int, list[Tag]]] = {}
    pets: dict[str, Cat | Dog] = {}
    pair: tuple[int, Row] | None = None


class Parrot(msgspec.Struct, tag="parrot", tag_field="is.a"):
    words: list[str]


class Hen(msgspec.Struct, tag="hen", tag_field="is.a"):
    eggs: int


class Shelf(pydantic.BaseModel):
    sizes: dict[str, int] = {}


class Cat(msgspec.Struct, tag="cat"):
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str


got: list[Any] = []


def take(path: str, hint: Any, **options: Any) -> None:
    def handler(value: hint) -> None:
        got.append(value)

    async def handler_async(value: hint) -> None:
        got.append(value)

    app.post(path, **options)(handler)
    app.post(f"/async{path}", **options)(handler_async)
    app.post(f"/offload{path}", offload=True, **options)(handler)


HINTS: dict[str, Any] = {
    "/dict": dict,
    "/dict-int": dict[str, int],
    "/keys": list[dict[int, str]],
    "/list": list,
    "/list-int": list[int],
    "/struct": Item,
    "/structs": list[Item],
    "/dataclass": Point,
    "/typeddict": Range,
    "/pydantic": Model,
    "/pydantics": list[Model],
    "/pydantic-dataclass": Size,
    "/pydantic-generic": Sized[int],
    "/pydantics-two": Annotated[list[Model], pydantic.Field(max_length=2)],
    "/union": Cat | Dog,
    "/renamed": list[Renamed],
    "/nested": Nested,
    "/birds": Parrot | Hen,
    "/shelf": Shelf,
    "/any": Any,
    "/number": Annotated[int, Body],
    "/text": Annotated[str, Body()],
    "/bytes": bytes,
    "/bytes-described": Annotated[bytes, "which"],
    "/bytes-short": Annotated[bytes, msgspec.Meta(max_length=3)],
    "/bytes-or-none": bytes | None,
}
for path, hint in HINTS.items():
    take(path, hint)

NOT_OBJECTS = ("/list", "/renamed", "/list-int", "/structs", "/keys", "/number", "/text")
NOT_JSON = ("/bytes", "/bytes-described", "/bytes-short", "/bytes-or-none")

FIT = [
    ("/dict", '{"a": [1, null]}', {"a": [1, None]}),
    ("/dict-int", '{"a": 1}', {"a": 1}),
    ("/list", '[1, "x"]', [1, "x"]),
    ("/list-int", "[1, 2]", [1, 2]),
    ("/struct", '{"name": "a", "price": 1}', Item("a", 1.0)),
    (
        "/struct",
        '{"name": "\\u00fc", "price": 0.5, "tags": [{"name": "t"}], "made": "2026-11-20T00:00:00Z"}',
        Item("ü", 0.5, [Tag("t")], datetime.fromisoformat("2026-11-20T00:00:00Z")),
    ),
    ("/structs", '[{"name": "a", "price": 1}]', [Item("a", 1.0)]),
    ("/dataclass", '{"x": 1}', Point(1)),
    ("/typeddict", '{"low": 1, "high": 2}', {"low": 1, "high": 2}),
    ("/pydantic", '{"name": "a", "points": [1]}', Model(name="a", points=[1])),
    ("/pydantics", '[{"name": "a"}]', [Model(name="a")]),
    ("/pydantic-dataclass", '{"width": 1}', Size(1)),
    ("/union", '{"type": "dog", "name": "rex"}', Dog("rex")),
    ("/any", "null", None),
    ("/any", ' {"a" : 1.5} \n', {"a": 1.5}),
    ("/number", "7", 7),
    ("/text", '"seven"', "seven"),
    ("/renamed", '[{"x.y": 1}]', [Renamed(1)]),
    ("/bytes", b"\x00\xff", b"\x00\xff"),
    ("/bytes", b"", b""),
    ("/bytes-described", b"\x00\xff", b"\x00\xff"),
    ("/bytes-short", b"\x00\xff", b"\x00\xff"),
    ("/bytes-or-none", b"null", b"null"),
]


@pytest.mark.parametrize("mode", ["", "/async", "/offload"])
@pytest.mark.parametrize(("path", "text", "value"), FIT)
def test_a_body_has_the_type_of_its_annotation(
    client: TestClient, mode: str, path: str, text: str | bytes, value: Any
) -> None:
    assert post(client, mode + path, text).status_code == 204
    assert got[-1] == value
    assert type(got[-1]) is type(value)


_TOO_SHORT = "Expected str of length >= 1"
_MISSING_LIVES = "Object missing required field lives"
_NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer"

UNFIT: list[tuple[str, str, list[object], str]] = [
    ("/dict", "[]", [], "Expected object, got array"),
    ("/dict-int", '{"a": 1, "key": "x"}', ["*"], "Expected int, got str"),
    ("/bytes-short", "four", [], "Expected bytes of length <= 3"),
    ("/keys", '[{"1": "a"}, {"x": "b"}]', [1], "Expected int, got str as a key"),
    ("/list-int", '[1, 2, "x"]', [2], "Expected int, got str"),
    ("/struct", '{"price": 1}', ["name"], "Object missing required field name"),
    ("/struct", '{"name": 1, "price": 1}', ["name"], "Expected str, got int"),
    ("/struct", '{"name": "toolong", "price": 1}', ["name"], "Expected str of length <= 5"),
    ("/struct", '{"name": "a", "price": 0}', ["price"], "Expected float > 0.0"),
    (
        "/struct",
        '{"name": "a", "price": 1, "cost": 1}',
        ["cost"],
        "Object contains unknown field cost",
    ),
    (
        "/struct",
        '{"name": "a", "price": 1, "tags": [{"name": "a"}, {"name": ""}]}',
        ["tags", 1, "name"],
        "Expected str of length >= 1",
    ),
    ("/structs", '[{"name": "a"}]', [0, "price"], "Object missing required field price"),
    ("/dataclass", '{"x": null}', ["x"], "Expected int, got null"),
    ("/typeddict", "{}", ["low"], "Object missing required field low"),
    ("/pydantic", '{"name": "toolong"}', ["name"], "String should have at most 5 characters"),
    ("/pydantic", "{}", ["name"], "Field required"),
    ("/pydantic-dataclass", '{"width": 0}', ["width"], "Input should be greater than 0"),
    (
        "/pydantic-generic",
        '{"size": 0, "value": 1}',
        ["size"],
        "Input should be greater than 0",
    ),
    ("/pydantics", '[{"name": "a"}, {"name": 7}]', [1, "name"], "Input should be a valid string"),
    (
        "/pydantics-two",
        '[{"name": "a"}, {"name": "b"}, {"name": "c"}]',
        [],
        "List should have at most 2 items after validation, not 3",
    ),
    ("/union", '{"type": "cow"}', ["type"], "Invalid value 'cow'"),
    ("/number", '"7"', [], "Expected int, got str"),
    (
        "/nested",
        '{"key": {"a": {"1": [{"name": "b"}, {"name": 2}]}}}',
        ["key", "*", "*", 1, "name"],
        "Expected str, got int",
    ),
    (
        "/nested",
        '{"key": {"a": {"1": [{}]}}}',
        ["key", "*", "*", 0, "name"],
        "Object missing required field name",
    ),
    ("/nested", '{"key": {"a": {"b": []}}}', ["key", "*"], "Expected int, got str as a key"),
    ("/nested", '{"pets": {"a": {"type": "cow"}}}', ["pets", "*", "type"], "Invalid value 'cow'"),
    ("/nested", '{"pets": {"a": {"type": "cat"}}}', ["pets", "*", "lives"], _MISSING_LIVES),
    ("/nested", '{"pair": [1, [2, {"name": ""}]]}', ["pair", 1, 1, "name"], _TOO_SHORT),
    ("/nested", '{"pair": [1, ["x", {"name": "a"}]]}', ["pair", 1, 0], "Expected int, got str"),
    ("/renamed", '[{"x.y": "a"}]', [0, "x.y"], "Expected int, got str"),
    ("/renamed", '[{"a[0]": [{"name": ""}]}]', [0, "a[0]", 0, "name"], _TOO_SHORT),
    ("/renamed", '[{"x": {"name": ""}}]', [0, "x", "name"], _TOO_SHORT),
    ("/renamed", '[{"": {"name": ""}}]', [0, "", "name"], _TOO_SHORT),
    ("/renamed", '[{"12": "a"}]', [0, "12"], "Expected int, got str"),
    ("/renamed", '[{"a`b": {"c": "d"}}]', [0, "a`b", "*"], "Expected int, got str"),
    ("/renamed", '[{"34": 1}]', [0, "34"], "Object contains unknown field 34"),
    ("/renamed", '[{"z.z": 1}]', [0, "z.z"], "Object contains unknown field z.z"),
    ("/birds", '{"is.a": "cow"}', ["is.a"], "Invalid value 'cow'"),
    ("/birds", '{"is.a": "parrot", "words": [1]}', ["words", 0], "Expected str, got int"),
    ("/shelf", '{"sizes": {"1": "x"}}', ["sizes", "1"], _NO_INTEGER),
]


@pytest.mark.parametrize("mode", ["", "/async", "/offload"])
@pytest.mark.parametrize(("path", "text", "field", "reason"), UNFIT)
def test_a_body_that_does_not_fit_is_422_with_field_and_reason(
    client: TestClient, mode: str, path: str, text: str, field: list[object], reason: str
) -> None:
    ((place, why),) = refused(post(client, mode + path, text))
    assert place == ["body", *field]
    assert why == reason


def test_pydantic_tells_all_that_is_wrong(client: TestClient) -> None:
    response = post(client, "/pydantic", '{"name": 1, "points": ["x"]}')
    assert [place for place, _ in refused(response)] == [
        ["body", "name"],
        ["body", "points", 0],
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        *((path, "{") for path in HINTS if path not in (*NOT_OBJECTS, *NOT_JSON)),
        ("/struct", "{'name': 1}"),
        ("/struct", '{"name": "a", "price": 1} x'),
        ("/list", "[1,]"),
        ("/any", "nope"),
        ("/any", '{"a": "\x01"}'),
        ("/pydantic", '{"name": "a",}'),
    ],
)
def test_what_is_not_json_is_400(client: TestClient, path: str, text: str) -> None:
    response = post(client, path, text)
    assert response.status_code == 400, response.text
    assert response.json()["detail"].startswith("the request body is not JSON: ")


@pytest.mark.parametrize("path", ["/dict", "/any"])
def test_a_body_that_is_nested_too_deeply_is_400(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    response = post(client, path, '{"a":' + "[" * 300_000 + "]" * 300_000 + "}")
    assert response.status_code == 400
    assert response.json() == {"detail": "the request body is not JSON: it is nested too deeply"}
    # The client's mistake is not the log's.
    assert caplog.records == []


@pytest.mark.parametrize("path", ["/dict", "/struct", "/pydantic"])
def test_json_that_is_not_utf8_is_400(client: TestClient, path: str) -> None:
    assert post(client, path, b'{"name": "\xff", "price": 1}').status_code == 400


@pytest.mark.parametrize("path", [path for path in HINTS if path != "/bytes"])
def test_a_body_that_is_missing_is_422(client: TestClient, path: str) -> None:
    assert refused(client.post(path)) == [(["body"], "missing")]


@app.post("/default")
def with_default(value: dict[str, int] | None = None, n: int = 0) -> list[object]:
    return [value, n]


def test_a_body_with_a_default_may_be_missing(client: TestClient) -> None:
    assert client.post("/default?n=1").json() == [None, 1]
    assert client.post("/default", json={"a": 1}).json() == [{"a": 1}, 0]
    assert refused(client.post("/default", json=[])) == [
        (["body"], "Expected object | null, got array"),
    ]


@app.post("/default-bytes")
def with_default_bytes(value: bytes = b"default") -> bytes:
    return value


def test_a_body_of_bytes_with_a_default_may_be_missing(client: TestClient) -> None:
    assert client.post("/default-bytes").content == b"default"
    assert client.post("/default-bytes", content=b"sent").content == b"sent"


@app.post("/together/{kind}")
async def together(
    kind: Literal["a", "b"], request: Request, item: Item, verbose: bool = False
) -> list[object]:
    return [kind, item, verbose, len(await request.body()), (await request.json())["name"]]


def test_the_request_still_has_a_body_that_was_an_argument(client: TestClient) -> None:
    text = '{"name": "a", "price": 1}'
    response = post(client, "/together/b?verbose=1", text)
    assert response.json() == [
        "b",
        {"name": "a", "price": 1.0, "tags": [], "made": None},
        True,
        len(text),
        "a",
    ]


def test_a_wrong_path_value_is_told_before_the_body_is_looked_at(client: TestClient) -> None:
    assert refused(post(client, "/together/c", "{"))[0][0] == ["path", "kind"]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_other_methods_have_bodies_too(method: str) -> None:
    app = App()

    @app.route("/", [method])
    def handler(item: Item) -> str:
        return item.name

    with TestClient(app) as client:
        response = client.request(method, "/", content='{"name": "a", "price": 1}')
    assert response.text == "a"


def test_the_content_type_does_not_decide(client: TestClient) -> None:
    assert client.post("/dict", content="{}", headers={"content-type": "x/y"}).status_code == 204


def test_a_large_body_is_decoded_whole(client: TestClient) -> None:
    numbers = list(range(200_000))
    assert client.post("/list-int", json=numbers).status_code == 204
    assert got[-1] == numbers


def test_a_decoder_that_fails_by_itself_is_500_and_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    response = post(client, "/broken", '{"name": "a"}')
    assert response.status_code == 500
    assert "secret" not in response.text
    assert "LookupError: secret" in caplog.text


class Broken(msgspec.Struct):
    name: str

    def __post_init__(self) -> None:
        raise LookupError("secret")


take("/broken", Broken)
