"""Markers that say where a parameter comes from, where its type does not say it already.

>>> async def search(tags: Annotated[list[str], Query()], token: Annotated[str, Header("x-token")])
"""

from msgspec import Struct


class Query(Struct, frozen=True):
    """From the query string; `alias` is its name there, by default the parameter's."""

    alias: str | None = None


class Header(Struct, frozen=True):
    """From a request header; by default the parameter's name with `-` for `_`."""

    alias: str | None = None


class Cookie(Struct, frozen=True):
    """From a cookie; `alias` is its name, by default the parameter's."""

    alias: str | None = None


class Body(Struct, frozen=True):
    """The JSON body, whatever the type (a list of numbers, a string, ...)."""
