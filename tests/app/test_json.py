"""What a handler returns as JSON is the text that msgspec writes, whoever wrote it."""

from __future__ import annotations

import enum
import logging
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from treadle import App
from treadle.testing import TestClient

app = App()
given: list[Any] = []


@app.get("/given")
def give() -> Any:
    return given[0]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


class Text(str):
    __slots__ = ()


class Mapping(dict[str, Any]):
    pass


class Level(enum.IntEnum):
    LOW = 1


def nested(depth: int, value: Any = 1) -> Any:
    for level in range(depth):
        value = [value] if level % 2 else {"deeper": value}
    return {"value": value}


VALUES: dict[str, Any] = {
    "empty": {},
    "constants": {"none": None, "true": True, "false": False},
    "empty containers": {"a": [], "b": {}, "": ""},
    "lists": [1, "two", [3, [4, []]], {"five": [5]}, None],
    "tuples": {"a": (1, (2, 3)), "b": ()},
    "controls": {"".join(map(chr, range(0x20))): "".join(map(chr, range(0x20)))},
    "latin": {"text": "".join(map(chr, range(0x20, 0x180)))},
    "wide": {"\u2028 \uffff": "\U0001f600 \u00e9", "emoji \U0001f600": 1},
    "integers": [0, -1, 9, 10, -10, 99, 100, 2**31, 2**63 - 1, -(2**63)],
    "large integers": [2**63, 2**64 - 1, -(2**63) - 1],
    "floats": {"a": 1.0, "b": [1e16, 1e-7, 0.1, float("nan"), float("inf"), -0.0]},
    "keys": {1: "one", 2: "two"},
    "mixed keys": {"one": 1, 2: "two"},
    "subclasses": {"a": Mapping(b=1), Text("key"): 2, "level": Level.LOW},
    "other types": {"when": datetime(2026, 11, 21, tzinfo=UTC), "bytes": b"abc", "set": {1}},
    "long text": {"a": "x" * 5000, "b": "\n" * 5000},
    "long list": list(range(5000)),
    "many keys": {f"key {number}": str(number) for number in range(500)},
    "special at the end": {**{str(number): number for number in range(50)}, "last": 0.5},
    **{f"depth {depth}": nested(depth) for depth in (14, 15, 16, 17, 100)},
}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_written_as_msgspec_writes_it(client: TestClient, name: str) -> None:
    given[:] = [VALUES[name]]
    answer = client.get("/given")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.content == msgspec.json.encode(VALUES[name])


@pytest.mark.parametrize("length", range(18))
@pytest.mark.parametrize("special", ['"', "\\", "\n", "\x1f", "\x7f", "\u00e9", " ", "!", "#"])
def test_a_special_character_is_found_anywhere(
    client: TestClient, special: str, length: int
) -> None:
    # Texts are looked at in words and a rest.
    texts = ["a" * at + special + "z" * (length - at) for at in range(length + 1)]
    given[:] = [{text: text for text in texts}]
    assert client.get("/given").content == msgspec.json.encode(given[0])


def looped() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"\udfff": 1}, [looped()]])
def test_what_cannot_be_written_is_one_failed_request(
    client: TestClient, caplog: pytest.LogCaptureFixture, value: Any
) -> None:
    given[:] = [value]
    with caplog.at_level(logging.ERROR, "treadle"):
        assert client.get("/given").status_code == 500
    assert any(record.exc_info for record in caplog.records)
    given[:] = [{"after": "that"}]
    assert client.get("/given").json() == {"after": "that"}


def test_a_value_that_another_thread_changes_is_written_whole(client: TestClient) -> None:
    shared: dict[str, Any] = {"stays": 1}
    given[:] = [shared]
    done = threading.Event()

    def change() -> None:
        number = 0
        while not done.is_set():
            number += 1
            for key in ("a", "b", "c", "d"):
                shared[key] = [str(number), {"number": number, "list": [number] * (number % 7)}]
            for key in ("a", "b", "c", "d"):
                shared[key].append(str(number))
                del shared[key]

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(300):
            answer = client.get("/given")
            # A dict that changes while it is written may fail its own request, in msgspec's hands.
            assert answer.status_code == 200, answer
            assert answer.json()["stays"] == 1
    finally:
        done.set()
        thread.join()
