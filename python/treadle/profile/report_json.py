"""The JSON file: everything a profile found, and back."""

from __future__ import annotations

from pathlib import Path

import msgspec

from treadle.profile.record import SCHEMA, Profile

__all__ = ["Unreadable", "read", "render"]


class Unreadable(Exception):
    """No profile of ours, or one of a newer Treadle. The text is one sentence."""


def render(profile: Profile) -> bytes:
    """The document, indented, in UTF-8."""
    return msgspec.json.format(msgspec.json.encode(profile), indent=1) + b"\n"


def read(file: Path) -> Profile:
    """The profile in `file`. Raises `Unreadable`."""
    try:
        data = file.read_bytes()
        schema = msgspec.json.decode(data, type=_Head).schema
        if schema > SCHEMA:
            raise Unreadable(f"{file} was written by a newer Treadle (schema {schema}).")
        return msgspec.json.decode(data, type=Profile)
    except OSError as error:
        raise Unreadable(f"{file} cannot be read: {error.strerror}.") from None
    except msgspec.MsgspecError as error:
        raise Unreadable(f"{file} is no profile: {error}.") from None


class _Head(msgspec.Struct):
    schema: int
