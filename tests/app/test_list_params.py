"""Parameters that take all values of a name from the query."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import Annotated, Any, List, NewType  # noqa: UP035
from uuid import UUID

import msgspec
import pytest
from support.messages import refused

from treadle import App, Query, RegistrationError
from treadle.testing import TestClient

app = App()
taken: list[Any] = []
SOME = UUID("12345678-1234-5678-1234-567812345678")
UserId = NewType("UserId", int)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@app.get("/lists")
def lists(
    plain: list = ["x"],  # type: ignore[type-arg]  # noqa: B006
    colours: list[Colour] | None = None,
    ids: Annotated[list[UUID], Query("id")] = [],  # noqa: B006
) -> list[object]:
    return [plain, colours, ids]


def test_lists_collect_all_values_of_a_name(client: TestClient) -> None:
    assert client.get("/lists").json() == [["x"], None, []]
    url = f"/lists?plain=1&plain=2&colours=red&colours=blue&id={SOME}"
    assert client.get(url).json() == [["1", "2"], ["red", "blue"], [str(SOME)]]
    assert refused(client.get("/lists?colours=red&colours=green")) == [
        (["query", "colours"], "Invalid enum value 'green'"),
    ]


type Ids = list[UserId]


@app.get("/lists/named")
def named_lists(
    ids: list[UserId] = [],  # noqa: B006
    optional: list[UserId | None] | None = None,
    alias: Annotated[Ids, Query("a")] = [],  # noqa: B006
) -> list[object]:
    return [ids, optional, alias]


def test_lists_of_named_types_are_lists_of_what_they_name(client: TestClient) -> None:
    url = "/lists/named?ids=1&ids=2&optional=3&a=4&a=5"
    assert client.get(url).json() == [[1, 2], [3], [4, 5]]
    assert refused(client.get("/lists/named?ids=1&a=x")) == [
        (["query", "a"], "expected an integer"),
    ]


# -- constraints on the list -----------------------------------------------------------------------

TWO = msgspec.Meta(min_length=2, max_length=2)
type Two = Annotated[list[UUID], TWO]
CONSTRAINED = {
    "list": Annotated[list[int], TWO],
    "bare": Annotated[list, TWO],
    "bare, of typing": Annotated[List, TWO],  # noqa: UP006
    "marked": Annotated[list[int], Query("value"), TWO],
    "optional": Annotated[list[Colour], TWO] | None,
    "around the union": Annotated[list[int] | None, TWO],
    "named": Two,
    "in steps": Annotated[
        Annotated[list[int], msgspec.Meta(min_length=2)], msgspec.Meta(max_length=2)
    ],
    "of what is constrained": Annotated[list[Annotated[int, msgspec.Meta(le=1)]], TWO],
}
FITS = {"optional": "red", "named": str(SOME)}


def constrain(kind: str, hint: Any) -> None:
    def handler(value: hint = None) -> None:
        taken.append(value)

    app.get(f"/constrained/{kind.replace(' ', '-')}")(handler)


for name, hint in CONSTRAINED.items():
    constrain(name, hint)


@pytest.mark.parametrize("kind", CONSTRAINED)
def test_a_list_that_breaks_a_constraint_is_422_with_place_field_and_reason(
    client: TestClient, kind: str
) -> None:
    url = f"/constrained/{kind.replace(' ', '-')}"
    value = FITS.get(kind, "1")
    assert client.get(url).status_code == 204  # the default is the handler's own affair
    assert taken[-1] is None
    assert client.get(url, params={"value": [value] * 2}).status_code == 204
    assert len(taken[-1]) == 2
    place = ["query", "value"]
    assert refused(client.get(url, params={"value": [value]})) == [
        (place, "Expected array of length >= 2")
    ]
    assert refused(client.get(url, params={"value": [value] * 3})) == [
        (place, "Expected array of length <= 2")
    ]


def test_a_constraint_that_does_not_suit_a_list_is_refused_at_registration() -> None:
    def handler(value: Annotated[list[int], msgspec.Meta(gt=1)]) -> None: ...

    with pytest.raises(RegistrationError, match=r"parameter 'value': .*gt"):
        App().get("/")(handler)
