"""Small containers that handlers meet."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any


class State(SimpleNamespace):
    """A namespace: set any attribute. `app.state`, `lane.state` and `request.state` are ones."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"nothing was stored as {name!r}")


class QueryParams(Mapping[str, str]):
    """Query parameters: the first value of each name; `get_all` for repeated ones."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = pairs

    def __getitem__(self, name: str) -> str:
        for known, value in self._pairs:
            if known == name:
                return value
        raise KeyError(name)

    def get_all(self, name: str) -> list[str]:
        """All values of `name`, in order; empty when there is none."""
        return [value for known, value in self._pairs if known == name]

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for name, _ in self._pairs))

    def __len__(self) -> int:
        return len({name for name, _ in self._pairs})

    def __repr__(self) -> str:
        return f"QueryParams({self._pairs!r})"
