"""Reads a handler's signature once and says where each argument comes from.

The rules, in order: a parameter that the path names comes from the path; a marker
(`Annotated[T, Query()]`) decides; `Request`, `Lane` and `App` are handed in; `bytes` is the raw
body; a scalar type, or a list of scalars on a method without a body, comes from the query;
everything else (dict, list, Struct, dataclass, TypedDict, pydantic model) is the JSON body. A
`NewType` or an alias is what it stands for. What a `functools.partial` binds is no parameter any more.
"""

from __future__ import annotations

import contextlib
import copy
import enum
import functools
import inspect
import types
import typing
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, Union, get_args, get_origin
from uuid import UUID

import msgspec

from treadle._treadle import Param, Request
from treadle.encoding import make_decoder, names_pydantic
from treadle.params import Body, Cookie, Header, Query

Handler = Callable[..., Any]
Mode = Literal["inline", "task", "offload"]

_NATIVE = {str: "str", int: "int", float: "float", bool: "bool"}
_CONVERTED = (UUID, datetime, date, time, timedelta, Decimal)
_OF_CONVERTER: dict[str, Any] = {"str": str, "int": int, "float": float, "uuid": UUID, "path": str}
_MARKERS = (Query, Header, Cookie, Body)
_EMPTY = inspect.Parameter.empty
_SHARED = (type(None), str, int, float, bool, bytes, enum.Enum, *_CONVERTED)
"""Defaults that nobody can change."""


class SignatureError(Exception):
    """What is wrong with a signature; the caller adds the handler's place."""


def origin(handler: Handler) -> str:
    """`file:line name` of a handler, for messages."""
    function = _function(handler)
    code = getattr(function, "__code__", None)
    name = getattr(handler, "__qualname__", type(handler).__qualname__)
    if code is None:
        return f"{getattr(function, '__module__', '?')} {name}"
    return f"{code.co_filename}:{code.co_firstlineno} {name}"


def mode(handler: Handler, *, offload: bool) -> Mode:
    """How the handler is called.

    Raises SignatureError for `offload` on a coroutine function.
    """
    function = _function(handler)
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise SignatureError("it is a generator: return StreamingResponse(generator) instead")
    if inspect.iscoroutinefunction(function):
        if offload:
            raise SignatureError("offload=True is for blocking `def` handlers, this one is async")
        return "task"
    return "offload" if offload else "inline"


def params(
    handler: Handler,
    path_params: list[tuple[str, str | None]],
    methods: list[str],
    caller_locals: dict[str, Any],
) -> list[Param]:
    """The handler's parameters, positional ones first.

    Raises SignatureError when the handler cannot be called with what a request has.
    """
    try:
        signature = inspect.signature(_named_partial(handler))
    except (TypeError, ValueError) as error:
        raise SignatureError(f"its signature cannot be read: {error}") from error
    except Exception as error:  # what evaluating annotations raises, from 3.14 on
        raise SignatureError(f"its annotations cannot be read: {error}") from error
    hints = _hints(handler, signature, caller_locals)
    in_path = dict(path_params)
    bound = _bound(handler)
    for name in in_path:
        if name in bound:
            raise SignatureError(f"the path has {{{name}}}, but its parameter {name!r} is bound")
        if name not in signature.parameters:
            raise SignatureError(f"the path has {{{name}}}, but it has no parameter {name!r}")
    found: list[Param] = []
    body_name: str | None = None
    for parameter in signature.parameters.values():
        if parameter.name in bound:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
            raise SignatureError(f"{stars}{parameter.name} takes any number of arguments")
        param, is_body = _param(
            parameter, hints.get(parameter.name, _EMPTY), in_path, has_body=has_body(methods)
        )
        if is_body:
            if body_name is not None:
                raise SignatureError(
                    f"both {body_name!r} and {parameter.name!r} are the body: "
                    "put them into one Struct, or mark one with Annotated[..., Query()]"
                )
            body_name = parameter.name
        found.append(param)
    return found


def _function(handler: Handler) -> Any:
    """The function under partials, bound methods and callable objects."""
    function: Any = inspect.unwrap(handler)
    while hasattr(function, "func"):
        function = function.func
    if inspect.isfunction(function) or inspect.ismethod(function) or inspect.isbuiltin(function):
        return function
    return type(function).__call__


def _named_partial(handler: Handler) -> Handler:
    """A partial that `functools.update_wrapper` has named, without the signature it got with that."""
    if isinstance(handler, functools.partial) and not hasattr(handler, "__signature__"):
        return functools.partial(handler.func, *handler.args, **handler.keywords)
    return handler


def _bound(handler: Handler) -> set[str]:
    """The parameters to which a partial gives a value: the request has no say in them."""
    bound: set[str] = set()
    function: Any = handler
    while True:
        if isinstance(function, functools.partial):
            bound.update(function.keywords)
            function = function.func
        elif hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        else:
            return bound


def _hints(
    handler: Handler, signature: inspect.Signature, caller_locals: dict[str, Any]
) -> dict[str, Any]:
    annotated = function = _function(handler)
    if _says_its_signature(handler):
        named = signature.parameters.values()
        known = {each.name: each.annotation for each in named if each.annotation is not _EMPTY}
        annotated = types.SimpleNamespace(__annotations__=known)
    names = getattr(inspect.unwrap(function), "__globals__", None)
    try:
        return typing.get_type_hints(annotated, names, caller_locals, include_extras=True)
    except Exception as error:
        raise SignatureError(f"its annotations cannot be read: {error}") from error


def _says_its_signature(handler: Handler) -> bool:
    """Whether a decorator has set `__signature__`: what is under it has other annotations."""
    function = handler
    while True:
        function = inspect.unwrap(function, stop=lambda each: hasattr(each, "__signature__"))
        if not isinstance(function, functools.partial):
            return hasattr(function, "__signature__")
        function = function.func


def has_body(methods: list[str]) -> bool:
    """Whether requests of one of the methods usually have a body."""
    return any(method in ("POST", "PUT", "PATCH") for method in methods)


def _param(
    parameter: inspect.Parameter, hint: Any, in_path: dict[str, str | None], *, has_body: bool
) -> tuple[Param, bool]:
    name = parameter.name
    keyword = name if parameter.kind is parameter.KEYWORD_ONLY else None
    default = None if parameter.default is _EMPTY else (parameter.default,)
    if _is_marker(parameter.default):
        kind = "str" if hint is _EMPTY else _name(hint)
        raise SignatureError(
            f"parameter {name!r} has a marker for its default: "
            f"write {name}: Annotated[{kind}, {parameter.default!r}]"
        )
    hint, marker = _marker(name, _named(hint))
    hint = _named(hint)
    if not names_pydantic(hint):
        _refuse_foreign(name, hint)
    for member in _alternatives(_plain(hint)):
        _, hidden = _marker(name, member)
        if hidden is not None:
            raise SignatureError(
                f"parameter {name!r} has a marker inside a union: "
                f"write Annotated[... | None, {hidden!r}]"
            )

    if name in in_path:
        if marker is not None:
            raise SignatureError(f"parameter {name!r} is in the path and marked as {marker!r}")
        converter = in_path[name]
        if hint is _EMPTY:
            hint = _OF_CONVERTER[converter or "str"]
        elif (
            converter not in (None, "path", "str") and _plain(hint) is not _OF_CONVERTER[converter]
        ):
            raise SignatureError(
                f"the path says {{{name}:{converter}}}, the annotation {_name(hint)}"
            )
        scalar, convert = _scalar(name, hint)
        return Param(name, "path", scalar=scalar, convert=convert, keyword=keyword), False

    injected = _injected(_plain(hint))
    if injected is not None:
        return Param(name, injected, keyword=keyword), False

    if isinstance(marker, Body) or (marker is None and not _is_query(hint, has_body=has_body)):
        if hint is bytes and default is None:
            return Param(name, "raw_body", keyword=keyword), True
        try:
            decoder = make_decoder(Any if hint is _EMPTY else hint)
        except TypeError as error:
            raise SignatureError(f"parameter {name!r}: {error}") from error
        if [_plain(member) for member in _alternatives(_plain(hint))] == [bytes]:
            # Like any body with a default or constraints; what is there is its own decoding.
            decoder = lambda: functools.partial(msgspec.convert, type=hint)  # noqa: E731
        return Param(
            name,
            "body",
            default=default,
            copy=_copier(default),
            keyword=keyword,
            decoder=decoder,
        ), True

    source, alias = _textual(name, marker)
    element, is_list = _element(hint)
    if is_list and source != "query":
        raise SignatureError(f"parameter {name!r}: a {source} has one value, not a list")
    scalar, convert = _scalar(name, str if element is _EMPTY else element)
    return Param(
        alias,
        source,
        scalar=scalar,
        convert=convert,
        list=is_list,
        check=_list_check(name, hint) if is_list else None,
        default=default,
        copy=_copier(default),
        keyword=keyword,
    ), False


def _marker(name: str, hint: Any) -> tuple[Any, Any]:
    """Takes one of our markers off an `Annotated`; other metadata stays (msgspec's Meta)."""
    if get_origin(hint) is not typing.Annotated:
        return hint, None
    base, *metadata = get_args(hint)
    marker = None
    rest = []
    for item in metadata:
        if _is_marker(item):
            if marker is not None:
                raise SignatureError(f"parameter {name!r} has two markers: it comes from one place")
            marker = item() if isinstance(item, type) else item
        else:
            rest.append(item)
    if rest:
        base = typing.Annotated[(base, *rest)]
    return base, marker


def _refuse_foreign(name: str, hint: Any) -> None:
    """Raises SignatureError for constraints that nobody would look at: only pydantic does."""
    arguments = get_args(hint)
    if get_origin(hint) is typing.Annotated:
        for item in hint.__metadata__:
            if type(item).__module__.partition(".")[0] in ("annotated_types", "pydantic"):
                raise SignatureError(
                    f"parameter {name!r}: {item!r} counts in pydantic's models alone: "
                    "write msgspec.Meta(...)"
                )
        arguments = (hint.__origin__,)
    for argument in arguments:
        _refuse_foreign(name, argument)


def _is_marker(item: Any) -> bool:
    return isinstance(item, _MARKERS) or (isinstance(item, type) and issubclass(item, _MARKERS))


def _copier(default: tuple[Any] | None) -> Callable[[Any], Any] | None:
    """What gives each call a default of its own; None where they may share it."""
    if default is None or isinstance(default[0], (*_SHARED, type)):
        return None
    with contextlib.suppress(Exception):  # what cannot be copied is shared
        if copy.deepcopy(default[0]) is not default[0]:
            return copy.deepcopy
    return None


def _injected(hint: Any) -> str | None:
    from treadle.app import App
    from treadle.lane import Lane

    if isinstance(hint, type):
        for kind, source in ((Request, "request"), (Lane, "lane"), (App, "app")):
            if issubclass(hint, kind):
                return source
    return None


def _textual(name: str, marker: Any) -> tuple[str, str]:
    if isinstance(marker, Header):
        return "header", (marker.alias or name.replace("_", "-")).lower()
    if isinstance(marker, Cookie):
        return "cookie", marker.alias or name
    return "query", (marker.alias if isinstance(marker, Query) else None) or name


def _named(hint: Any) -> Any:
    """The type that a `NewType` or a `type` statement gave a name to.

    Raises RecursionError for one that stands for itself.
    """
    seen = []
    while True:
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif isinstance(hint, typing.TypeAliasType):
            if hint in seen:
                raise RecursionError
            seen.append(hint)
            hint = hint.__value__
        else:
            return hint


def _plain(hint: Any) -> Any:
    """Without `Annotated` and without names."""
    hint = _named(hint)
    return _plain(get_args(hint)[0]) if get_origin(hint) is typing.Annotated else hint


def _alternatives(hint: Any) -> list[Any]:
    """The members of a union, None left out; the hint alone where it is none."""
    hint = _named(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return [_named(member) for member in get_args(hint) if member is not type(None)]
    return [hint]


def _not_none(hint: Any) -> Any:
    """The hint without None, which no text stands for: msgspec would take `null` for it."""
    hint = _named(hint)
    if get_origin(hint) is typing.Annotated:
        base, *metadata = get_args(hint)
        return typing.Annotated[(_not_none(base), *metadata)]
    if get_origin(hint) in (Union, types.UnionType):
        return Union[tuple(_not_none(member) for member in _alternatives(hint))]  # noqa: UP007
    if get_origin(hint) is Literal:
        return Literal[tuple(value for value in get_args(hint) if value is not None)]
    return hint


def _is_scalar(hint: Any) -> bool:
    hint = _plain(hint)
    members = _alternatives(hint)
    if len(members) > 1 or members[0] is not hint:
        return all(_is_scalar(member) for member in members)
    if get_origin(hint) is Literal:
        return True
    return isinstance(hint, type) and (
        hint in _NATIVE or issubclass(hint, (*_CONVERTED, enum.Enum))
    )


def _element(hint: Any) -> tuple[Any, bool]:
    """The element type of a list (or of an optional list), and whether it is one."""
    members = _alternatives(_plain(hint))
    if len(members) == 1:
        member = _plain(members[0])
        if member is list:
            return str, True
        if get_origin(member) is list:
            return (get_args(member) or (str,))[0], True
    return hint, False


def _is_query(hint: Any, *, has_body: bool) -> bool:
    if hint is _EMPTY or _is_scalar(hint):
        return True
    element, is_list = _element(hint)
    return is_list and not has_body and _is_scalar(element)


def _scalar(name: str, hint: Any) -> tuple[str, Callable[[str], Any] | None]:
    """The native conversion for a type, or none, and a callable that raises ValueError.

    The callable takes what the native conversion made, or the text.
    """
    hint = _not_none(hint)
    plain = _plain(hint)
    check = None if plain is hint else _converter(name, hint)
    if plain in _NATIVE:
        return _NATIVE[plain], check
    if plain is UUID:
        return "call", _uuid
    if not _is_scalar(hint):
        raise SignatureError(f"parameter {name!r}: {_name(hint)} cannot be made from text")
    return "call", _converter(name, hint)


def _list_check(name: str, hint: Any) -> Callable[[list[Any]], Any] | None:
    """What raises ValueError for a list that breaks a constraint on it as a whole, its length."""
    metadata: list[Any] = []
    while get_origin(hint := _named(hint)) is not list and hint is not list:
        if get_origin(hint) is typing.Annotated:
            hint, *outer = get_args(hint)
            metadata = [*outer, *metadata]
        else:
            (hint,) = _alternatives(hint)
    if not metadata:
        return None
    return _converter(name, typing.Annotated[(list, *metadata)])


def _converter(name: str, hint: Any) -> Callable[[Any], Any]:
    """msgspec's conversion, raising ValueError."""
    try:
        msgspec.json.Decoder(hint)  # constraints that do not suit the type
    except TypeError as error:
        raise SignatureError(f"parameter {name!r}: {error}") from error

    def convert(value: Any) -> Any:
        try:
            return msgspec.convert(value, hint, strict=False)
        except msgspec.ValidationError as error:
            raise ValueError(str(error).replace("`", "")) from None

    return convert


def _uuid(text: str) -> UUID:
    try:
        value = UUID(text)
    except ValueError:
        value = None
    # UUID() also takes braces, URNs, dashes anywhere and what int() does; the usual form is enough.
    if value is None or str(value) != text.lower():
        raise ValueError("expected a UUID")
    return value


def _name(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) else str(hint)
