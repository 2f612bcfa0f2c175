"""What the running interpreter is, and who turned its GIL on.

A free-threaded build turns the GIL on when it imports an extension module that does not declare
itself safe without it, warns once, and never turns it off again. Besides, it has the GIL on for the
moment in which any thread loads any extension module: that is not what is asked here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

__all__ = ["describe", "gil_culprit", "gil_enabled", "why_gil"]

FREE_THREADED_BUILD = "free-threading build" in sys.version


_LOADING = 0.25
"""Seconds after which a GIL that stays on is not on for an import alone."""

_stays = False
"""Whether the GIL was found to be on for good. Any thread sets it; it never goes back."""


def gil_enabled() -> bool:
    """Whether the GIL is on, and stays on."""
    global _stays
    ask: Callable[[], bool] | None = getattr(sys, "_is_gil_enabled", None)  # 3.13
    if ask is None or _stays:
        return True
    if not ask():
        return False
    _stays = _told_to() or gil_culprit() is not None or not _is_off_within(_LOADING, ask)
    return _stays


def _told_to() -> bool:
    """Whether the build or who started the interpreter wants a GIL."""
    return not FREE_THREADED_BUILD or getattr(sys.flags, "gil", None) == 1


def _is_off_within(seconds: float, ask: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.0005)
        if not ask():
            return True
    return False


def gil_culprit() -> str | None:
    """The extension module whose import turned the GIL on, if CPython warned of it; else None.

    CPython keeps what it has warned of in the warning registry of the module at fault: here the
    import system itself. Reading it there finds the name whenever the import happened, and leaves
    warning filters and hooks to the user. Under `-W ignore` nothing is kept.
    """
    import re
    from importlib import _bootstrap

    registry = getattr(_bootstrap, "__warningregistry__", {})
    for key in list(registry):
        if isinstance(key, tuple) and key[1] is RuntimeWarning:
            found = re.match(r"The global interpreter lock .* load module '([^']+)'", str(key[0]))
            if found is not None:
                return found[1]
    return None


def why_gil() -> str:
    """Why the GIL is on, to follow a refusal: "because ..." or "on ..."."""
    if not FREE_THREADED_BUILD:
        return f"on {describe()}, which has the GIL"
    if getattr(sys.flags, "gil", None) == 1:
        return "because PYTHON_GIL=1 or -X gil=1 turned the GIL on"
    culprit = gil_culprit()
    name = "the import of an extension module" if culprit is None else f"importing {culprit!r}"
    return f"because {name} turned the GIL on"


def describe() -> str:
    """The interpreter and its version, such as "CPython 3.14.7"."""
    name = "CPython" if sys.implementation.name == "cpython" else sys.implementation.name
    return f"{name} {sys.version.split()[0]}"
