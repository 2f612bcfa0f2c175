"""What `treadle profile` sends: from a scenario file, or from the command line.

A scenario is a TOML file:

    duration = 10       # seconds that are measured
    warmup = 1          # seconds before that
    concurrency = 64    # connections
    rate = 5000         # requests a second; left out: each connection sends as fast as it is answered

    [[request]]
    name = "user"             # what reports call it; method and path by default
    method = "GET"            # GET by default, POST with a body
    path = "/users/7?full=1"  # percent-encoded
    weight = 3                # its share among the requests, 1 by default
    expect = [200]            # the statuses that are right; any below 400 by default
    headers = { accept = "text/html", cookie = ["a=1", "b=2"] }

    [[request]]
    path = "/users"
    json = { name = "ada" }   # or body = "text", or body-file = "a/file", which is looked for beside
                              # the scenario

What cannot be meant is refused in one sentence that names the file, the request and the key.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from treadle.exceptions import TreadleError
from treadle.profile.load import LoadJob, LoadRequest

__all__ = ["MAX_CONCURRENCY", "MAX_RATE", "Scenario", "ScenarioError", "from_arguments", "read"]

MAX_CONCURRENCY = 65_536
MAX_RATE = 1e7
_MAX_SECONDS = 30 * 24 * 3600.0
_MAX_REQUESTS = 1024
_MAX_HEADERS = 1024

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_TARGET = re.compile(r"/[!$-;=?-\[\]_a-z|~]*")
"""What a request line can carry of a path and a query, as `http` takes it."""

_OURS = ("content-length", "transfer-encoding")
_BODIES = ("body", "json", "body-file")


class ScenarioError(TreadleError, ValueError):
    """A scenario that cannot be meant. The text is one sentence."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """What to send, and how fast. What is None is left to the defaults of `LoadJob`."""

    requests: tuple[LoadRequest, ...]
    duration: float | None = None
    """Seconds that are measured."""
    warmup: float | None = None
    """Seconds before that."""
    concurrency: int | None = None
    """Connections."""
    rate: float | None = None
    """Requests a second of an open loop; None for a closed one."""

    def job(self, address: tuple[str, int] | str, **options: Any) -> LoadJob:
        """The run of it against the server at `address`; `options` are fields of `LoadJob`."""
        given = {
            "duration": self.duration,
            "warmup": self.warmup,
            "connections": self.concurrency,
            "rate": self.rate,
        }
        known = {name: value for name, value in given.items() if value is not None}
        return LoadJob(address=address, requests=self.requests, **(known | options))


# -- readers: from what was given to what is sent --------------------------------------------------


class _Refused(Exception):
    """What a reader raises: the text says what the value has to be."""


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused(f"must be a number, not {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise _Refused("must be a number, not NaN")
    return number


def _seconds(*, zero: bool) -> Callable[[object], float]:
    def read(value: object) -> float:
        number = _number(value)
        if not 0 <= number <= _MAX_SECONDS or (number == 0 and not zero):
            least = "from 0" if zero else "above 0"
            raise _Refused(f"must be a number of seconds {least} to {_MAX_SECONDS:.0f}")
        return number

    return read


def _concurrency(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _Refused(f"must be a whole number, not {_kind(value)}")
    if not 1 <= value <= MAX_CONCURRENCY:
        raise _Refused(f"must be from 1 to {MAX_CONCURRENCY}")
    return value


def _rate(value: object) -> float:
    number = _number(value)
    if not 0 < number <= MAX_RATE:
        raise _Refused(f"must be above 0 and at most {MAX_RATE:.0f} requests a second")
    return number


def _weight(value: object) -> float:
    number = _number(value)
    if not 0 <= number < math.inf:
        raise _Refused("must be finite and not negative")
    return number


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _Refused(f"must be a string, not {_kind(value)}")
    return value


def _name(value: object) -> str:
    name = _text(value)
    if not name.strip() or not name.isprintable():
        raise _Refused("must be a printable text that is not empty")
    return name


def _method(value: object) -> str:
    method = _text(value).upper()
    if not _TOKEN.fullmatch(method) or method == "CONNECT":
        raise _Refused(f"must be a method such as GET, not {value!r}")
    return method


def _path(value: object) -> str:
    path = _text(value)
    if not path.startswith("/"):
        raise _Refused(f"must start with a slash, not be {path!r}")
    if not _TARGET.fullmatch(path):
        raise _Refused(f"must be percent-encoded, which {path!r} is not")
    return path


def _status(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 200 <= value <= 999:
        raise _Refused(f"must be a status from 200 to 999 or a list of them, not {value!r}")
    return value


def _expect(value: object) -> tuple[int, ...]:
    statuses = value if isinstance(value, list) else [value]
    if not statuses:
        raise _Refused("must have a status; leave it out for any below 400")
    return tuple(sorted({_status(each) for each in statuses}))


def _headers(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise _Refused(f"must be a table, not {_kind(value)}")
    pairs = []
    for name, given in value.items():
        for each in given if isinstance(given, list) else [given]:
            if not isinstance(each, str):
                raise _Refused(f"must have a string for {name!r}, not {_kind(each)}")
            pairs.append(_header(name, each))
    if len(pairs) > _MAX_HEADERS:
        raise _Refused(f"must be {_MAX_HEADERS} at most")
    return tuple(pairs)


def _header(name: str, value: str) -> tuple[str, str]:
    if not _TOKEN.fullmatch(name):
        raise _Refused(f"cannot have the name {name!r}")
    if name.lower() in _OURS:
        raise _Refused(f"cannot have {name!r}: the length of the body is known")
    if not _VALUE.fullmatch(value) or not value.isascii():
        raise _Refused(f"cannot have the value {value!r} for {name!r}")
    return name, value


def _body(value: object) -> bytes:
    return _text(value).encode()


def _json(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise _Refused(f"cannot be JSON: {error}") from None


def _file(value: object, folder: Path) -> bytes:
    name = _text(value)
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise _Refused(f"cannot read {name!r}: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte
        raise _Refused(f"cannot read {name!r}: {error}") from None


def _kind(value: object) -> str:
    """The TOML type of a value, with its article."""
    names = {bool: "a boolean", int: "an integer", float: "a float", str: "a string"}
    names |= {list: "an array", dict: "a table"}
    return names.get(type(value), "a date or a time")


# -- files -----------------------------------------------------------------------------------------

_SCENARIO: dict[str, Callable[[object], Any]] = {
    "duration": _seconds(zero=False),
    "warmup": _seconds(zero=True),
    "concurrency": _concurrency,
    "rate": _rate,
}
_REQUEST: dict[str, Callable[[object], Any]] = {
    "name": _name,
    "method": _method,
    "path": _path,
    "weight": _weight,
    "headers": _headers,
    "expect": _expect,
}


def read(file: str | Path) -> Scenario:
    """The scenario in a TOML file. Raises `ScenarioError`."""
    path = Path(file)

    def refuse(text: str) -> NoReturn:
        raise ScenarioError(f"{file}: {text}.") from None

    try:
        with path.open("rb") as source:
            content = tomllib.load(source)
    except OSError as error:
        refuse(f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError:
        refuse("is not UTF-8")
    except tomllib.TOMLDecodeError as error:
        refuse(f"is not TOML: {error}")
    except (ValueError, RecursionError) as error:  # a zero byte in its name; too deep a table
        refuse(f"cannot be read: {error}")
    given = content.pop("request", None)
    settings = _read_table(content, _SCENARIO, refuse, also=("request",))
    if given is None:
        refuse("has no [[request]]")
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        refuse("'request' must be an array of tables: write [[request]] above each")
    if not 1 <= len(given) <= _MAX_REQUESTS:
        refuse(f"must have from 1 to {_MAX_REQUESTS} requests, not {len(given)}")
    requests = [
        _read_request(table, index, path.parent, refuse) for index, table in enumerate(given, 1)
    ]
    _check_weights(requests, refuse)
    return Scenario(requests=_with_own_names(requests), **settings)


def _read_request(
    table: dict[str, Any], index: int, folder: Path, refuse: Callable[[str], NoReturn]
) -> LoadRequest:
    name = table.get("name")
    called = f"request {index}" + (f" ({name!r})" if isinstance(name, str) else "")

    def refuse_request(text: str) -> NoReturn:
        refuse(f"{called}: {text}")

    readers = _REQUEST | {
        "body": _body,
        "json": _json,
        "body-file": lambda value: _file(value, folder),
    }
    found = _read_table(table, readers, refuse_request)
    bodies = [key for key in _BODIES if key in found]
    if len(bodies) > 1:
        refuse_request(f"{bodies[0]!r} and {bodies[1]!r} cannot both be its body")
    body = found.pop(bodies[0]) if bodies else None
    if "path" not in found:
        refuse_request("'path' is missing")
    return _request(found, body, is_json="json" in bodies)


def _read_table(
    table: Mapping[str, object],
    readers: Mapping[str, Callable[[object], Any]],
    refuse: Callable[[str], NoReturn],
    also: Iterable[str] = (),
) -> dict[str, Any]:
    found = {}
    for key, value in table.items():
        reader = readers.get(key)
        if reader is None:
            refuse(f"there is no key {key!r}; there are {', '.join((*readers, *also))}")
        try:
            found[key] = reader(value)
        except _Refused as refused:
            refuse(f"{key!r} {refused}")
    return found


def _request(found: dict[str, Any], body: bytes | None, *, is_json: bool) -> LoadRequest:
    method = found.setdefault("method", "GET" if body is None else "POST")
    found.setdefault("name", f"{method} {found['path']}")
    headers = found.get("headers", ())
    if is_json and "content-type" not in {name.lower() for name, _ in headers}:
        found["headers"] = (*headers, ("content-type", "application/json"))
    return LoadRequest(body=body or b"", **found)


def _check_weights(requests: list[LoadRequest], refuse: Callable[[str], NoReturn]) -> None:
    total = sum(request.weight for request in requests)
    if total == 0:
        refuse("'weight' is 0 in every request: one must be above")
    if math.isinf(total):
        refuse("the sum of all 'weight' is too large")


def _with_own_names(requests: list[LoadRequest]) -> tuple[LoadRequest, ...]:
    """Tells requests of the same name apart by a number."""
    taken: set[str] = set()
    named = []
    for request in requests:
        name, number = request.name, 1
        while name in taken:
            number += 1
            name = f"{request.name} #{number}"
        taken.add(name)
        named.append(msgspec.structs.replace(request, name=name))
    return tuple(named)


# -- the command line ------------------------------------------------------------------------------


def from_arguments(
    *,
    path: str,
    method: str | None = None,
    body: str | bytes | None = None,
    headers: Iterable[str] = (),
    concurrency: int | None = None,
    duration: float | None = None,
    warmup: float | None = None,
    rate: float | None = None,
) -> Scenario:
    """The scenario of one request, as the options of the command line say it.

    `headers` are as in ``accept: text/html``; `method` is GET by default, POST with a body. A body
    that is ``@file`` is that file's content. Raises `ScenarioError`, which names the option.
    """

    def refuse(text: str) -> NoReturn:
        raise ScenarioError(f"{text}.") from None

    def checked(option: str, reader: Callable[[Any], Any], value: object) -> Any:
        try:
            return reader(value)
        except _Refused as refused:
            refuse(f"{option} {refused}")

    found: dict[str, Any] = {"path": checked("--path", _path, path)}
    if method is not None:
        found["method"] = checked("--method", _method, method)
    pairs = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon:
            refuse(f"--header must be written 'name: value', not {header!r}")
        pairs.append(checked("--header", lambda pair: _header(*pair), (name, value.strip())))
    found["headers"] = tuple(pairs)
    if isinstance(body, str):
        if body.startswith("@"):
            content = checked("--body", lambda name: _file(name, Path()), body[1:])
        else:
            content = body.encode()
    else:
        content = body
    given = {"duration": duration, "warmup": warmup, "concurrency": concurrency, "rate": rate}
    settings = {
        name: checked(f"--{name}", _SCENARIO[name], value)
        for name, value in given.items()
        if value is not None
    }
    return Scenario(requests=(_request(found, content, is_json=False),), **settings)
