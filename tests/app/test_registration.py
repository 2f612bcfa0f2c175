"""A mistake in a route is told when it is registered, with the handler's file and line."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from treadle import App, Body, Cookie, Header, Query, RegistrationError, Request, Router
from treadle.testing import TestClient


class Item(msgspec.Struct):
    name: str


class Opaque:
    """Nothing that a text or JSON could be made into."""


type Json = dict[str, Json] | list[Json] | str | int | None
type Itself = Itself
type Unknown = Nowhere  # type: ignore[name-defined]  # noqa: F821


def kinds(register: Callable[[App | Router], object]) -> list[str]:
    """What registering says, on an app and on a router."""
    said = []
    for target in (App(), Router()):
        with pytest.raises(RegistrationError) as caught:
            register(target)
        said.append(str(caught.value))
    return said


def plain() -> None: ...
def lacks() -> None: ...
def one(id: int) -> None: ...
def star(*args: int) -> None: ...
def stars(**kwargs: int) -> None: ...
def two_bodies(a: Item, b: dict) -> None: ...  # type: ignore[type-arg]
def two_raw(a: bytes, b: bytes) -> None: ...
def marked_path(id: Annotated[int, Query]) -> None: ...
def wrong_converter(id: str) -> None: ...
def opaque_path(id: Opaque) -> None: ...
def opaque_query(a: Annotated[Opaque, Query]) -> None: ...
def opaque_body(a: Opaque) -> None: ...
def opaque_field(a: list[dict[str, Opaque]]) -> None: ...
def header_list(a: Annotated[list[str], Header]) -> None: ...
def cookie_list(a: Annotated[list[str], Cookie]) -> None: ...
def unknown_name(a: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def list_path(id: list[int]) -> None: ...
def undecodable(a: Annotated[dict[bytes, int] | list[int] | set[int], Body]) -> None: ...
def of_pydantic(a: Annotated[int, pydantic.Field(ge=1)]) -> None: ...
def of_pydantic_too(a: list[pydantic.PositiveInt] | None = None) -> None: ...
def recursive(a: Json) -> None: ...
def itself(a: Itself) -> None: ...
def unknown_alias(a: Unknown) -> None: ...
def constrained_bytes(a: Annotated[bytes, msgspec.Meta(gt=1)]) -> None: ...
def two_markers(a: Annotated[str, Query(), Header()]) -> None: ...
def hidden_marker(a: Annotated[str, Header("x-a")] | None = None) -> None: ...
def constrained_wrong(a: Annotated[str, msgspec.Meta(ge=1), Query]) -> None: ...


def generator() -> Any:
    yield b""


async def async_generator() -> Any:
    yield b""


async def coroutine() -> None: ...


MISTAKES: list[tuple[Callable[..., Any], str, dict[str, Any], str]] = [
    (lacks, "/{id}", {}, "the path has {id}, but it has no parameter 'id'"),
    (one, "/{id:integer}", {}, "unknown converter"),
    (one, "id", {}, "must start with '/'"),
    (star, "/", {}, "*args takes any number of arguments"),
    (stars, "/", {}, "**kwargs takes any number of arguments"),
    (two_bodies, "/", {}, "both 'a' and 'b' are the body"),
    (two_raw, "/", {}, "both 'a' and 'b' are the body"),
    (marked_path, "/{id}", {}, "parameter 'id' is in the path and marked as Query(alias=None)"),
    (wrong_converter, "/{id:int}", {}, "the path says {id:int}, the annotation str"),
    (opaque_path, "/{id}", {}, "parameter 'id': Opaque cannot be made from text"),
    (list_path, "/{id}", {}, "parameter 'id': list[int] cannot be made from text"),
    (opaque_query, "/", {}, "parameter 'a': Opaque cannot be made from text"),
    (opaque_body, "/", {}, "parameter 'a': Opaque is no type that JSON can be decoded into"),
    (opaque_field, "/", {}, "parameter 'a': Opaque is no type that JSON can be decoded into"),
    (undecodable, "/", {}, "parameter 'a': "),
    (header_list, "/", {}, "parameter 'a': a header has one value, not a list"),
    (cookie_list, "/", {}, "parameter 'a': a cookie has one value, not a list"),
    (constrained_wrong, "/", {}, "parameter 'a': "),
    (unknown_name, "/", {}, "its annotations cannot be read: name 'Nowhere' is not defined"),
    (generator, "/", {}, "it is a generator: return StreamingResponse(generator) instead"),
    (async_generator, "/", {}, "it is a generator: return StreamingResponse(generator) instead"),
    (coroutine, "/", {"offload": True}, "offload=True is for blocking `def` handlers"),
    *(
        (plain, "/", {"timeout": timeout}, "timeout must be a positive number")
        for timeout in (0, -1, float("nan"), float("inf"), 1e300)
    ),
    (plain, "/", {"timeout": "soon"}, "timeout must be a number of seconds, not str"),
    *(
        (plain, "/", {"status": status}, f"status {status} cannot be sent: use 200 to 999")
        for status in (0, 99, 100, 1000)
    ),
    (plain, "/", {"status": 70000}, "70000"),
    (plain, "/", {"status": "200"}, "status must be an integer, not str"),
    (plain, "/", {"limit_body": "1 MiB"}, "limit_body must be a number of bytes, not str"),
    (plain, "/", {"limit_body": -1}, "limit_body must not be negative"),
    (plain, "/", {"offload": "no"}, "offload must be True or False, not str"),
    (
        plain,
        "/",
        {"cancel_on_disconnect": 0},
        "cancel_on_disconnect must be True or False, not int",
    ),
    (recursive, "/", {}, "an alias in its annotations refers to itself; write Any there"),
    (itself, "/", {}, "an alias in its annotations refers to itself; write Any there"),
    (unknown_alias, "/", {}, "name 'Nowhere' is not defined"),
    (constrained_bytes, "/", {}, "parameter 'a': Can only set `gt` on a numeric type"),
    (of_pydantic, "/{a}", {}, "counts in pydantic's models alone: write msgspec.Meta(...)"),
    (of_pydantic_too, "/", {}, "counts in pydantic's models alone: write msgspec.Meta(...)"),
    (two_markers, "/", {}, "parameter 'a' has two markers"),
    (
        hidden_marker,
        "/",
        {},
        "parameter 'a' has a marker inside a union: write Annotated[... | None, ",
    ),
    (plain, "/", {"tiemout": 1}, "there is no option 'tiemout'; did you mean 'timeout'?"),
    (plain, "/", {"colour": 1}, "there is no option 'colour'"),
]


@pytest.mark.parametrize(
    ("handler", "path", "options", "reason"),
    MISTAKES,
    ids=lambda value: getattr(value, "__name__", str(value)[:30]),
)
def test_a_mistake_is_told_with_the_handlers_file_and_line(
    handler: Callable[..., Any], path: str, options: dict[str, Any], reason: str
) -> None:
    place = f"{__file__}:{handler.__code__.co_firstlineno} {handler.__name__}"
    for said in kinds(lambda target: target.post(path, **options)(handler)):
        assert said.startswith(f"{place}: cannot answer POST {path}: ")
        assert reason in said


@pytest.mark.parametrize("target", [App(), Router("/prefix")])
def test_a_decorator_without_its_path_is_told_with_the_handlers_file_and_line(
    target: App | Router,
) -> None:
    for decorator in (target.get, target.post):
        with pytest.raises(RegistrationError) as caught:
            decorator(plain)  # type: ignore[arg-type]
        place = f"{__file__}:{plain.__code__.co_firstlineno} plain"
        assert str(caught.value).startswith(f"{place}: the path is missing: ")
    with pytest.raises(RegistrationError, match=r"^the path is missing: "):
        target.get(None)  # type: ignore[arg-type]


def test_methods_that_are_no_list_are_told() -> None:
    with pytest.raises(RegistrationError, match=r"methods must be a list such as \['GET'\]"):
        App().route("/", "GET")


def test_an_app_goes_on_without_a_route_that_was_refused() -> None:
    app = App()
    with pytest.raises(RegistrationError):
        app.get("/{id}")(lacks)
    app.get("/{id}")(lambda id: id)
    with TestClient(app) as client:
        assert client.get("/x").text == "x"


@pytest.mark.parametrize(
    ("methods", "reason"),
    [
        (["GE T"], "GE T is not a method that can be routed"),
        (["TRACE"], "TRACE is not a method that can be routed"),
        (["CONNECT"], "CONNECT is not a method that can be routed"),
        (["BREW"], "BREW is not a method that can be routed"),
        ([], "it has no methods"),
        (["GET", "get"], "GET is named twice"),
    ],
)
def test_methods_that_cannot_be_routed_are_told(methods: list[str], reason: str) -> None:
    for said in kinds(lambda target: target.route("/", methods)(plain)):
        assert said.startswith(f"{__file__}:{plain.__code__.co_firstlineno} plain: ")
        assert reason in said


def test_methods_are_named_in_any_case() -> None:
    app = App()
    app.route("/", ["post", "Put"])(plain)
    with TestClient(app) as client:
        assert client.post("/").status_code == 204
        assert client.put("/").status_code == 204


@pytest.mark.parametrize("thing", [None, 7, "handler", Item("x")])
def test_what_cannot_be_called_is_no_handler(thing: Any) -> None:
    for said in kinds(lambda target: target.get("/")(thing)):
        assert said == f"{thing!r} is not callable"


def test_the_line_is_that_of_the_function_under_decorators() -> None:
    @functools.wraps(lacks)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return lacks(*args, **kwargs)

    for said in kinds(lambda target: target.get("/{id}")(wrapper)):
        assert f"{__file__}:{lacks.__code__.co_firstlineno} lacks" in said


def test_a_wrapped_handler_has_the_signature_of_what_it_wraps() -> None:
    calls = []

    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            calls.append((args, kwargs))
            return function(*args, **kwargs)

        return wrapper

    app = App()

    @app.get("/{id}")
    @logged
    def handler(id: int, *, q: str = "q") -> list[object]:
        return [id, q]

    with TestClient(app) as client:
        assert client.get("/1").json() == [1, "q"]
    assert calls == [((1,), {"q": "q"})]


def test_an_async_wrapper_around_a_plain_function_is_still_awaited() -> None:
    def plain_function(id: int) -> int:
        return id

    @functools.wraps(plain_function)
    async def wrapper(id: int) -> int:
        return plain_function(id)

    app = App()
    app.get("/{id}")(wrapper)
    with TestClient(app) as client:
        assert client.get("/1").json() == 1


def test_a_decorator_may_say_the_signature_itself() -> None:
    def signed(handler: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handler)
        def inner(*args: Any, who: str, **kwargs: Any) -> Any:
            return handler(*args, user=who, **kwargs)

        known = inspect.signature(handler).parameters
        kind = inspect.Parameter.KEYWORD_ONLY
        who = inspect.Parameter("who", kind, annotation=Annotated[str, Header("x-who")])
        inner.__signature__ = inspect.Signature([known["item"], who])  # type: ignore[attr-defined]
        return inner

    @signed
    def handler(item: int, user: str, more: int = 1) -> list[object]:
        return [item, user, more]

    app = App()
    app.get("/{item}")(handler)
    app.get("/partial")(functools.partial(handler, item=2))
    with TestClient(app, headers={"x-who": "ada"}) as client:
        assert client.get("/7?who=eve").json() == [7, "ada", 1]
        assert client.get("/partial?item=7").json() == [2, "ada", 1]


@pytest.mark.skipif(sys.version_info < (3, 14), reason="annotations are evaluated by `def`")
def test_an_annotation_that_cannot_be_evaluated_is_told_with_the_handlers_place() -> None:
    names: dict[str, Any] = {}
    exec(compile("def handler(a: Nowhere): ...", "its.py", "exec", dont_inherit=True), names)
    for said in kinds(lambda target: target.get("/")(names["handler"])):
        assert said.startswith("its.py:1 handler: cannot answer GET /: its annotations cannot be")


def test_a_partial_is_a_handler_with_the_parameters_that_are_left() -> None:
    def handler(greeting: str, name: str, *, mark: str) -> str:
        return f"{greeting} {name}{mark}"

    app = App()
    app.get("/{name}")(functools.partial(handler, "hello", mark="!"))
    with TestClient(app) as client:
        assert client.get("/ada").text == "hello ada!"
        assert client.get("/ada?mark=?&greeting=bye").text == "hello ada!"


def test_what_a_partial_binds_is_not_the_requests_to_change() -> None:
    async def handler(tenant: str, store: Opaque, size: int = 1) -> list[object]:
        return [tenant, isinstance(store, Opaque), size]

    app = App()
    bound = functools.partial(handler, tenant="ours", store=Opaque())
    app.get("/")(bound)
    app.get("/twice")(functools.partial(bound, size=2))
    with TestClient(app) as client:
        assert client.get("/?tenant=theirs&size=3").json() == ["ours", True, 3]
        assert client.get("/twice?size=3").json() == ["ours", True, 2]
    with pytest.raises(RegistrationError, match="but its parameter 'tenant' is bound"):
        app.get("/{tenant}")(bound)


def test_a_partial_that_is_named_after_its_function_binds_all_the_same() -> None:
    def handler(tenant: str, name: str, *, mark: str) -> list[str]:
        return [tenant, name, mark]

    named = functools.update_wrapper(functools.partial(handler, "ours", mark="!"), handler)
    app = App()
    app.get("/{name}")(named)
    with TestClient(app) as client:
        assert client.get("/ada?tenant=theirs&mark=?").json() == ["ours", "ada", "!"]


def test_annotations_are_read_where_they_were_written() -> None:
    """Not where a decorator was, though a partial or an object is around what it gave."""
    elsewhere: dict[str, Any] = {"functools": functools}
    exec(
        "def logged(function):\n"
        "    @functools.wraps(function)\n"
        "    def inner(*args, **kwargs): return function(*args, **kwargs)\n"
        "    return inner\n",
        elsewhere,
    )
    names: dict[str, Any] = {"Size": int, "logged": elsewhere["logged"]}
    exec(
        "@logged\n"
        "def handler(factor: 'Size', size: 'Size'): return factor * size\n"
        "class Handler:\n"
        "    @logged\n"
        "    def __call__(self, size: 'Size'): return size\n",
        names,
    )
    app = App()
    app.get("/partial/{size}")(functools.partial(names["handler"], 2))
    app.get("/object/{size}")(names["Handler"]())
    with TestClient(app) as client:
        assert client.get("/partial/3").json() == 6
        assert client.get("/object/3").json() == 3


def test_a_mistake_in_a_callable_object_names_its_call() -> None:
    class Handler:
        def __call__(self) -> None: ...

    line = Handler.__call__.__code__.co_firstlineno
    for said in kinds(lambda target: target.get("/{id}")(Handler())):
        assert f"{__file__}:{line}" in said


def test_a_decorator_gives_the_function_back_as_it_was() -> None:
    app = App()

    @app.get("/")
    @app.post("/")
    def handler(request: Request) -> int:
        return 7

    assert handler(None) == 7  # type: ignore[arg-type]
    assert repr(app) == "App(2 routes)"


@pytest.mark.parametrize("prefix", ["users", "/users/", "/"])
def test_a_bad_prefix_is_refused(prefix: str) -> None:
    reason = f"prefix {prefix!r} must start with '/' and must not end with one"
    with pytest.raises(RegistrationError) as caught:
        Router(prefix)
    assert str(caught.value) == reason
    for target in (App(), Router()):
        with pytest.raises(RegistrationError) as caught:
            target.include(Router(), prefix=prefix)
        assert str(caught.value) == reason


@pytest.mark.parametrize("kind", [None, "404", "ValueError", object, ValueError("x")])
def test_only_an_exception_class_or_a_status_can_have_a_handler(kind: Any) -> None:
    with pytest.raises(RegistrationError, match="is neither an exception class nor a status"):
        App().exception_handler(kind)


def test_what_cannot_be_called_is_no_exception_handler() -> None:
    with pytest.raises(RegistrationError, match="7 is not callable"):
        App().exception_handler(404)(7)  # type: ignore[type-var]


@pytest.mark.parametrize("default", [Query("q"), Header(), Cookie, Body()])
def test_a_marker_for_a_default_is_told_where_it_belongs(default: Any) -> None:
    def handler(name: str = default) -> None: ...

    with pytest.raises(RegistrationError) as caught:
        App().get("/")(handler)
    assert f"write name: Annotated[str, {default!r}]" in str(caught.value)
    assert f"{__file__}:{handler.__code__.co_firstlineno}" in str(caught.value)


def test_a_time_limit_that_cannot_be_kept_is_refused() -> None:
    def handler() -> None: ...

    with pytest.raises(RegistrationError, match="make it async, or register it with offload=True"):
        App().get("/", timeout=1)(handler)
    App().get("/", timeout=1, offload=True)(handler)
    # It is for the body as well.
    App().post("/", timeout=1)(handler)
