"""From `module:attribute` on the command line to the app."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.app import App

__all__ = ["AppRaised", "NoSuchApp", "load"]


class NoSuchApp(Exception):
    """The target names no app. The text is one sentence."""


class AppRaised(Exception):
    """The app's own code raised while it was imported or made; the cause is what it raised."""


def load(target: str, *, factory: bool = False) -> App:
    """The app that `target` names, imported from the working directory or `sys.path`.

    With `factory` the target is a callable without parameters that returns the app. Raises
    `NoSuchApp` and `AppRaised`.
    """
    name, colon, path = target.partition(":")
    if not (colon and name and path):
        raise NoSuchApp(f"{target!r} names no app; write module:attribute, such as main:app.")
    if name.endswith(".py") or "/" in name:
        dotted = name.removesuffix(".py").removeprefix("./").replace("/", ".")
        raise NoSuchApp(f"{name!r} is a file, not a module; write {dotted}:{path}.")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.insert(0, os.getcwd())
    module = _import(name)
    found = _attribute(module, path)
    if factory:
        found = _make(found, target)
    return _checked(found, target, factory=factory)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (error.name == name or name.startswith(error.name + ".")):
            raise NoSuchApp(
                f"there is no module {error.name!r} in {os.getcwd()} or on sys.path."
            ) from None
        raise AppRaised(f"importing {name!r} failed.") from _trimmed(error)
    except Exception as error:
        raise AppRaised(f"importing {name!r} failed.") from _trimmed(error)


def _attribute(module: ModuleType, path: str) -> Any:
    found: Any = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            missing = f"module {module.__name__!r} has no {path!r}"
            others = _apps(module)
            hint = f"; its apps: {', '.join(others)}." if others else "."
            raise NoSuchApp(missing + hint) from None
    return found


def _make(found: Any, target: str) -> Any:
    if not callable(found):
        raise NoSuchApp(f"{target!r} is {_kind(found)}, not a function that makes an app.")
    try:
        return found()
    except Exception as error:
        raise AppRaised(f"{target} raised.") from _trimmed(error)


def _checked(found: Any, target: str, *, factory: bool) -> App:
    from treadle import App

    if isinstance(found, App):
        return found
    if factory:
        raise NoSuchApp(f"{target!r} made {_kind(found)}, not a treadle.App.")
    hint = "; if it makes one, add --factory." if callable(found) else "."
    raise NoSuchApp(f"{target!r} is {_kind(found)}, not a treadle.App{hint}")


def _apps(module: ModuleType) -> list[str]:
    from treadle import App

    return [
        f"{module.__name__}:{name}"
        for name, value in vars(module).items()
        if isinstance(value, App) and not name.startswith("_")
    ]


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def _trimmed(error: Exception) -> Exception:
    """`error` with a traceback that begins in the app's code, not in how it was reached."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in (__file__, importlib.__file__) and not file.startswith("<frozen importlib"):
            break
        trace = trace.tb_next
    return error.with_traceback(trace)
