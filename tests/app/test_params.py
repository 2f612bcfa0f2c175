"""What a handler's arguments are made from, and what a client hears of values that do not fit."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NewType, Optional, Union
from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest
from support.messages import refused

from treadle import App, Cookie, Header, HTTPException, Lane, Query, Request
from treadle.testing import TestClient

app = App()
WHEN = datetime(2026, 11, 21)
SOME = UUID("12345678-1234-5678-1234-567812345678")


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


type Pair = Literal["left", "right"]
type Count = int
UserId = NewType("UserId", int)
AdminId = NewType("AdminId", UserId)
Digit = NewType("Digit", Annotated[int, msgspec.Meta(ge=0, le=9)])  # type: ignore[valid-newtype]

# -- one value of each type, from each place ------------------------------------------------------

TYPES: dict[str, tuple[Any, list[tuple[str, Any]], list[tuple[str, str]]]] = {
    # name: annotation, (text, value) pairs that fit, (text, reason) pairs that do not
    "str": (str, [("a", "a"), ("7", "7"), ("ü/", "ü/"), ("a b+c", "a b+c")], []),
    "int": (
        int,
        [
            ("0", 0),
            ("-7", -7),
            ("007", 7),
            ("9223372036854775808", 2**63),
            ("1" * 100, int("1" * 100)),
        ],
        [
            *((text, "expected an integer") for text in ("x", "1.0", "+1", " 1", "1_0", "٣", "-")),
            ("9" * 5000, "too many digits for an integer"),
        ],
    ),
    "float": (
        float,
        [("1", 1.0), ("-1.5", -1.5), ("1e3", 1000.0), (".5", 0.5)],
        [(text, "expected a number") for text in ("x", "nan", "inf", "-Infinity", "1,5", "1e999")],
    ),
    "bool": (
        bool,
        [
            *((text, True) for text in ("true", "TRUE", "1", "yes", "On")),
            *((text, False) for text in ("false", "False", "0", "no", "off")),
        ],
        [(text, "expected true or false") for text in ("2", "y", "none")],
    ),
    "uuid": (
        UUID,
        [(str(SOME), SOME), (str(SOME).upper(), SOME)],
        [
            (text, "expected a UUID")
            for text in (
                *("x", SOME.hex, f"{{{SOME}}}", SOME.urn, "-" * 36, str(SOME)[:-1] + "g"),
                # As long as the usual form, and still none: UUID() takes them.
                *(f"urn:{SOME.hex}", f"{{--{SOME.hex}}}", "+" + str(SOME)[1:]),
            )
        ],
    ),
    "datetime": (
        datetime,
        [("2026-11-20T12:30:00Z", datetime.fromisoformat("2026-11-20T12:30:00Z"))],
        [("yesterday", "Invalid RFC3339 encoded datetime")],
    ),
    "date": (date, [("2026-11-20", date(2026, 11, 20))], [("2026-13-01", "Invalid")]),
    "time": (time, [("12:30:00", time(12, 30))], [("25:00:00", "Invalid")]),
    "timedelta": (timedelta, [("PT90S", timedelta(seconds=90))], [("soon", "Invalid")]),
    "decimal": (Decimal, [("1.10", Decimal("1.10"))], [("x", "Invalid decimal string")]),
    "enum": (Colour, [("red", Colour.RED)], [("green", "Invalid enum value 'green'")]),
    "int enum": (Level, [("2", Level.HIGH)], [("3", "Invalid enum value 3")]),
    "literal": (Literal["a", "b"], [("a", "a")], [("c", "Invalid enum value 'c'")]),
    "int literal": (Literal[1, 2], [("1", 1)], [("3", "Invalid enum value 3")]),
    "alias": (Pair, [("left", "left")], [("up", "Invalid enum value 'up'")]),
    "alias of an int": (Count, [("3", 3)], [("x", "expected an integer")]),
    "new type": (UserId, [("3", 3)], [("x", "expected an integer")]),
    "new type of a new type": (AdminId, [("3", 3)], [("x", "expected an integer")]),
    "new type of a UUID": (NewType("Key", UUID), [(str(SOME), SOME)], [("x", "expected a UUID")]),
    "new type, optional": (UserId | None, [("3", 3)], [("x", "expected an integer")]),
    "new type, constrained": (
        Annotated[UserId, msgspec.Meta(ge=1)],
        [("1", 1)],
        [("0", "Expected int >= 1"), ("x", "expected an integer")],
    ),
    "new type of what is constrained": (Digit, [("9", 9)], [("10", "Expected int <= 9")]),
    "optional": (Optional[int], [("3", 3)], [("x", "expected an integer")]),  # noqa: UP045
    "or none": (int | None, [("3", 3)], [("x", "expected an integer")]),
    "union": (Union[int, str], [("3", "3"), ("x", "x")], []),  # noqa: UP007
    "constrained": (
        Annotated[int, msgspec.Meta(ge=1, le=9)],
        [("1", 1), ("9", 9), ("007", 7)],
        [("0", "Expected int >= 1"), ("10", "Expected int <= 9"), ("1.0", "expected an integer")],
    ),
    "constrained float": (
        Annotated[float, msgspec.Meta(ge=0)],
        [(".5", 0.5)],
        [("-1", "Expected float >= 0.0"), ("inf", "expected a number")],
    ),
    "described bool": (
        Annotated[bool | None, msgspec.Meta(description="whether")],
        [("yes", True), ("0", False)],
        [("2", "expected true or false")],
    ),
    "described UUID": (
        Annotated[UUID, msgspec.Meta(description="which")],
        [(str(SOME), SOME)],
        [(SOME.hex, "expected a UUID")],
    ),
    "optional, constrained": (
        Annotated[int | None, msgspec.Meta(ge=1)],
        [("1", 1)],
        [("0", "Expected int >= 1"), ("null", "expected an integer")],
    ),
    "patterned": (
        Annotated[str, msgspec.Meta(pattern="^[a-z]+$", max_length=3)],
        [("abc", "abc")],
        [("A", "Expected str matching regex"), ("abcd", "Expected str of length <= 3")],
    ),
}

# No text stands for None.
for kind in ("datetime", "date", "time", "timedelta", "decimal", "enum", "int enum", "int literal"):
    fitting, unfit = TYPES[kind][1:]
    TYPES[f"{kind} or none"] = (TYPES[kind][0] | None, fitting, [*unfit, ("null", "")])
TYPES["literal or none"] = (
    Literal["null", None],
    [("null", "null")],
    [("None", "Invalid enum value")],
)

FITTING = [(name, text, value) for name, row in TYPES.items() for text, value in row[1]]
UNFIT = [(name, text, reason) for name, row in TYPES.items() for text, reason in row[2]]
IDS = {"ids": lambda value: str(value)[:20]}


def take(kind: str, hint: Any) -> None:
    """Routes that take a value from each place; what they got goes to `taken`."""

    def path(value: hint) -> None:
        taken.append(value)

    def query(value: hint) -> None:
        taken.append(value)

    def header(value: Annotated[hint, Header("x-value")]) -> None:
        taken.append(value)

    def cookie(value: Annotated[hint, Cookie]) -> None:
        taken.append(value)

    for handler, route in (
        (path, "/path/{value}"),
        (query, "/query"),
        (header, "/header"),
        (cookie, "/cookie"),
    ):
        app.get(f"/{kind}{route}")(handler)


taken: list[Any] = []
KEYS = {name: name.replace(" ", "-") for name in TYPES}
for name, (hint, _, _) in TYPES.items():
    take(KEYS[name], hint)


@pytest.mark.parametrize(("kind", "text", "value"), FITTING, **IDS)
@pytest.mark.parametrize("place", ["path", "query"])
def test_a_value_from_the_url_has_the_type_of_its_annotation(
    client: TestClient, place: str, kind: str, text: str, value: Any
) -> None:
    escaped = quote(text, safe="")
    url = f"/{KEYS[kind]}/" + (f"path/{escaped}" if place == "path" else f"query?value={escaped}")
    assert client.get(url).status_code == 204
    assert taken[-1] == value
    assert type(taken[-1]) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "value"), [case for case in FITTING if case[1].isascii()], **IDS
)
@pytest.mark.parametrize("place", ["header", "cookie"])
def test_a_value_from_the_headers_has_the_type_of_its_annotation(
    client: TestClient, place: str, kind: str, text: str, value: Any
) -> None:
    headers = {"x-value": text} if place == "header" else {"cookie": f"other=1; value={text}"}
    assert client.get(f"/{KEYS[kind]}/{place}", headers=headers).status_code == 204
    assert taken[-1] == value
    assert type(taken[-1]) is type(value)


@pytest.mark.parametrize(("kind", "text", "reason"), UNFIT, **IDS)
@pytest.mark.parametrize("place", ["path", "query"])
def test_a_value_that_does_not_fit_is_422_with_place_field_and_reason(
    client: TestClient, place: str, kind: str, text: str, reason: str
) -> None:
    escaped = quote(text, safe="")
    url = f"/{KEYS[kind]}/" + (f"path/{escaped}" if place == "path" else f"query?value={escaped}")
    ((where, why),) = refused(client.get(url))
    assert where == [place, "value"]
    assert why.startswith(reason)


def test_a_header_or_cookie_that_does_not_fit_is_named_as_the_client_sent_it(
    client: TestClient,
) -> None:
    response = client.get("/int/header", headers={"x-value": "x"})
    assert refused(response) == [(["header", "x-value"], "expected an integer")]
    response = client.get("/int/cookie", headers={"cookie": "value=x"})
    assert refused(response) == [(["cookie", "value"], "expected an integer")]


@pytest.mark.parametrize(
    ("place", "field"), [("query", "value"), ("header", "x-value"), ("cookie", "value")]
)
def test_a_value_that_is_missing_is_named(client: TestClient, place: str, field: str) -> None:
    assert refused(client.get(f"/int/{place}")) == [([place, field], "missing")]


# -- converters -----------------------------------------------------------------------------------


@app.get("/converters/int/{value:int}")
@app.get("/converters/float/{value:float}")
@app.get("/converters/uuid/{value:uuid}")
@app.get("/converters/str/{value:str}")
@app.get("/converters/path/{value:path}")
def converted(value) -> None:  # type: ignore[no-untyped-def]
    taken.append(value)


@app.get("/converters/annotated/{key:uuid}/{count:int}/{rest:path}")
def annotated(key: UUID, count: int, rest: str) -> list[object]:
    return [key, count, rest]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("int/7", 7),
        ("float/7", 7.0),
        (f"uuid/{SOME}", SOME),
        ("str/7", "7"),
        ("path/a/b%20c/", "a/b c/"),
        ("path/", ""),
    ],
)
def test_a_converter_in_the_pattern_does_without_an_annotation(
    client: TestClient, path: str, value: Any
) -> None:
    assert client.get(f"/converters/{path}").status_code == 204
    assert taken[-1] == value
    assert type(taken[-1]) is type(value)


def test_a_converter_and_an_annotation_may_agree(client: TestClient) -> None:
    response = client.get(f"/converters/annotated/{SOME}/3/x/y")
    assert response.json() == [str(SOME), 3, "x/y"]


@app.get("/converters/constrained/{key:uuid}/{count:int}")
def constrained(
    key: Annotated[UUID, "which"], count: Annotated[int, msgspec.Meta(ge=1)]
) -> list[object]:
    return [key, count]


def test_an_annotation_may_say_more_than_the_converter(client: TestClient) -> None:
    assert client.get(f"/converters/constrained/{SOME}/3").json() == [str(SOME), 3]
    response = client.get(f"/converters/constrained/{SOME}/0")
    assert refused(response) == [(["path", "count"], "Expected int >= 1")]


def test_a_path_value_that_does_not_fit_is_not_a_path_that_is_missing(client: TestClient) -> None:
    response = client.get("/converters/int/seven")
    assert refused(response) == [(["path", "value"], "expected an integer")]


def test_a_path_that_is_not_utf8_is_refused(client: TestClient) -> None:
    assert refused(client.get("/str/path/%ff%fe")) == [(["path", "value"], "not UTF-8")]
    assert refused(client.get("/converters/path/a/%80")) == [(["path", "value"], "not UTF-8")]


def test_a_broken_escape_is_taken_as_it_is(client: TestClient) -> None:
    assert client.get("/str/path/100%").status_code == 204
    assert client.get("/str/path/%zz").status_code == 204
    assert taken[-1] == "%zz"


# -- several values, defaults ---------------------------------------------------------------------


@app.get("/several/{item}")
def several(
    item: int,
    page: int,
    size: int = 10,
    tags: list[int] = [],  # noqa: B006
    q: str | None = None,
) -> list[object]:
    return [item, page, size, tags, q]


def test_defaults_stand_for_what_is_not_sent(client: TestClient) -> None:
    assert client.get("/several/1?page=2").json() == [1, 2, 10, [], None]


def test_what_is_sent_replaces_a_default(client: TestClient) -> None:
    url = "/several/1?q=a%26b&tags=3&size=4&tags=5&page=2&unknown=x"
    assert client.get(url).json() == [1, 2, 4, [3, 5], "a&b"]


def test_everything_that_is_wrong_is_told_at_once(client: TestClient) -> None:
    response = client.get("/several/x?size=y&tags=1&tags=z")
    assert refused(response) == [
        (["path", "item"], "expected an integer"),
        (["query", "page"], "missing"),
        (["query", "size"], "expected an integer"),
        (["query", "tags"], "expected an integer"),
    ]


def test_an_empty_value_is_a_value(client: TestClient) -> None:
    assert client.get("/several/1?page=2&q=").json()[4] == ""
    assert refused(client.get("/several/1?page=")) == [
        (["query", "page"], "expected an integer"),
    ]


@app.get("/optional")
def optional(a: Optional[int] = None, b: int | None = 5) -> list[object]:  # noqa: UP045
    return [a, b]


def test_an_optional_value_may_be_left_out(client: TestClient) -> None:
    assert client.get("/optional").json() == [None, 5]
    assert client.get("/optional?a=1&b=2").json() == [1, 2]


Raw = NewType("Raw", bytes)


@app.post("/named/bytes")
def named_bytes(body: Raw) -> list[object]:
    return [type(body).__name__, len(body)]


@app.get("/named/{key:int}")
def named_path(key: UserId) -> object:
    return key


def test_a_new_type_stands_for_its_supertype_everywhere(client: TestClient) -> None:
    assert client.post("/named/bytes", content=b"{").json() == ["bytes", 1]
    assert client.get("/named/7").json() == 7


@app.get("/repeated")
def repeated(q: str, request: Request) -> list[object]:
    return [q, request.query["q"]]


def test_of_a_repeated_name_the_argument_and_the_request_take_the_same_value(
    client: TestClient,
) -> None:
    argument, mapped = client.get("/repeated?q=first&q=last").json()
    assert argument == mapped


# -- markers --------------------------------------------------------------------------------------


@app.post("/markers")
def markers(
    body: dict[str, int],
    tags: Annotated[list[str], Query],
    limit: Annotated[int, Query("max"), msgspec.Meta(le=5)] = 1,
    user_agent: Annotated[str, Header] = "none",
    token: Annotated[str | None, Header("X-Token")] = None,
    session: Annotated[str, Cookie("sid")] = "anonymous",
) -> list[object]:
    return [body, tags, limit, user_agent, token, session]


def test_markers_say_where_values_come_from(client: TestClient) -> None:
    response = client.post(
        "/markers?tags=a&tags=b&max=5",
        json={"a": 1},
        headers={"user-agent": "me", "x-token": "t", "cookie": 'a=b; sid="quoted"; sid=second'},
    )
    assert response.json() == [{"a": 1}, ["a", "b"], 5, "me", "t", "quoted"]
    response = client.post("/markers?tags=a", json={}, headers={"user-agent": "me"})
    assert response.json() == [{}, ["a"], 1, "me", None, "anonymous"]


def test_a_marked_value_is_named_by_its_alias(client: TestClient) -> None:
    response = client.post("/markers?tags=a&max=6", json={})
    assert refused(response) == [(["query", "max"], "Expected int <= 5")]


# -- how arguments are passed ---------------------------------------------------------------------


@app.get("/passing/{a}/{d}")
def passing(a: int, /, b: str = "b", *, c: float = 0.5, d: str, request: Request) -> list[object]:
    return [a, b, c, d, request.method]


@app.get("/passing-async/{a}/{d}")
async def passing_async(
    a: int, /, b: str = "b", *, c: float = 0.5, d: str, request: Request
) -> list[object]:
    return [a, b, c, d, request.method]


@app.get("/passing-offload/{a}/{d}", offload=True)
def passing_offload(
    a: int, /, b: str = "b", *, c: float = 0.5, d: str, request: Request
) -> list[object]:
    return [a, b, c, d, request.method]


@pytest.mark.parametrize("kind", ["", "-async", "-offload"])
def test_positional_only_and_keyword_only_parameters_are_passed_as_they_are(
    client: TestClient, kind: str
) -> None:
    assert client.get(f"/passing{kind}/1/x?c=2").json() == [1, "b", 2.0, "x", "GET"]


@app.get("/injected")
def injected(
    lane: Lane, owner: Annotated[App, "whose"], request: Annotated[Request, "this one"]
) -> list[object]:
    return [lane.index, owner is app, request.app is app, request.lane is lane]


def test_request_lane_and_app_are_handed_in_by_type(client: TestClient) -> None:
    assert client.get("/injected").json() == [0, True, True, True]


class Callable:
    def __call__(self, n: int) -> int:
        return n + 1

    def method(self, n: int) -> int:
        return n + 2


app.get("/callable/{n}")(Callable())
app.get("/method/{n}")(Callable().method)


def test_callable_objects_and_bound_methods_are_handlers(client: TestClient) -> None:
    assert client.get("/callable/1").json() == 2
    assert client.get("/method/1").json() == 3


def test_annotations_may_name_what_the_enclosing_function_defines() -> None:
    class Local(enum.Enum):
        A = "a"

    app = App()

    @app.get("/{value}")
    def handler(value: Local) -> bool:
        return value is Local.A

    with TestClient(app) as client:
        assert client.get("/a").json() is True


# -- conversion that fails by itself --------------------------------------------------------------


@app.get("/unannotated")
def unannotated(a, b="x"):  # type: ignore[no-untyped-def]
    return [a, b]


def test_a_parameter_without_annotation_is_text_from_the_query(client: TestClient) -> None:
    assert client.get("/unannotated?a=1").json() == ["1", "x"]
    assert refused(client.get("/unannotated")) == [(["query", "a"], "missing")]


@app.get("/never")
def never(n: int) -> None:
    raise HTTPException(418)


def test_the_handler_is_not_called_with_values_that_do_not_fit(client: TestClient) -> None:
    assert client.get("/never?n=x").status_code == 422
    assert client.get("/never?n=1").status_code == 418


def test_a_default_that_can_be_changed_is_each_calls_own() -> None:
    app = App()
    lock = SimpleNamespace(held=threading.Lock())  # cannot be copied

    @app.get("/query")
    def query(values: list[int] = [], at: datetime = WHEN) -> list[int]:  # noqa: B006
        assert at is WHEN
        values.append(len(values))
        return values

    @app.post("/shared")
    def shared(body: Any = lock) -> bool:
        return body is lock

    @app.post("/body")
    async def body(data: dict[str, list[int]] = {"a": []}) -> dict[str, list[int]]:  # noqa: B006
        data["a"].append(1)
        return data

    with TestClient(app) as client:
        for _ in range(2):
            assert client.get("/query").json() == [0]
            assert client.post("/body").json() == {"a": [1]}
            assert client.post("/shared").json() is True
