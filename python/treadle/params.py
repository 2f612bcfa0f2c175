"""Markers that say where a parameter comes from, where its type does not say it already.

>>> async def search(tags: Annotated[list[str], Query()], token: Annotated[str, Header("x-token")])
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """From the query string; `alias` is its name there, by default the parameter's."""

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """From a request header; by default the parameter's name with `-` for `_`."""

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Cookie:
    """From a cookie; `alias` is its name, by default the parameter's."""

    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """The JSON body, whatever the type (a list of numbers, a string, ...)."""
