"""JSON, through msgspec."""

from collections.abc import Callable
from typing import Any

import msgspec


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
    validate = getattr(annotation, "model_validate_json", None)
    if validate is not None:
        return lambda: validate
    msgspec.json.Decoder(annotation)
    return lambda: msgspec.json.Decoder(annotation).decode
