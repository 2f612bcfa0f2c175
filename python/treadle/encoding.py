"""JSON, through msgspec."""

from collections.abc import Callable
from typing import Any, get_args, get_origin

import msgspec

_PLAIN = (Any, dict, list, str, int, float, bool)
"""Types that need no second look."""


def _encode_other(value: Any) -> Any:
    """What msgspec does not know itself: pydantic models, by their own dump."""
    dump = getattr(type(value), "model_dump", None)
    if dump is not None:
        return dump(value, mode="json")
    raise TypeError(f"objects of type {type(value).__name__} are not JSON")


def make_encoder() -> Callable[[Any], bytes]:
    """An `encode` of its own for each lane, so that lanes share no reference counts."""
    return msgspec.json.Encoder(enc_hook=_encode_other).encode


encode = make_encoder()


def make_decoder(annotation: Any) -> Callable[[], Callable[[bytes], Any]]:
    """A factory of decoders (JSON bytes to a validated value) for `annotation`.

    Raises TypeError when the type cannot be decoded from JSON.
    """
    if names_pydantic(annotation):
        from pydantic import TypeAdapter

        validate = TypeAdapter(annotation).validate_json
        return lambda: validate
    msgspec.json.Decoder(annotation)
    names = _ambiguous_names(annotation)
    if names:
        return lambda: _naming(msgspec.json.Decoder(annotation).decode, names)
    return lambda: msgspec.json.Decoder(annotation).decode


def _naming(decode: Callable[[bytes], Any], names: list[str]) -> Callable[[bytes], Any]:
    """`decode`, whose errors bring the `names` that their paths cannot be split without."""

    def decode_naming(data: bytes) -> Any:
        try:
            return decode(data)
        except msgspec.ValidationError as error:
            error.names = names  # type: ignore[attr-defined]
            raise

    return decode_naming


def names_pydantic(annotation: Any) -> bool:
    """Whether it is pydantic's, a model or a dataclass, or has one as an argument: `list[Model]`."""
    # What a generic was given does not pass on the attributes of the class.
    kind = get_origin(annotation) or annotation
    return hasattr(kind, "__pydantic_validator__") or any(
        names_pydantic(argument) for argument in get_args(annotation)
    )


def _ambiguous_names(annotation: Any) -> list[str]:
    """The names of fields in it that look like more than one step of a path: `x.y`, `a[0]`.

    Raises TypeError for classes that msgspec would take to be decoded by somebody else.
    """
    if annotation in _PLAIN:
        return []
    from msgspec import inspect

    pending: list[Any] = [inspect.type_info(annotation)]
    seen: set[int] = set()
    names: set[str] = set()
    while pending:
        node = pending.pop()
        if isinstance(node, tuple):
            pending.extend(node)
        elif isinstance(node, inspect.CustomType):
            raise TypeError(f"{node.cls.__qualname__} is no type that JSON can be decoded into")
        elif isinstance(node, inspect.Type | inspect.Field) and id(node) not in seen:
            seen.add(id(node))
            for name in ("encode_name", "tag_field"):
                names.add(getattr(node, name, None) or "")
            pending.extend(getattr(node, name) for name in node.__struct_fields__)
    return [name for name in names if not {".", "["}.isdisjoint(name)]
