"""From `module:attribute` on the command line to the app."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.app import App

__all__ = ["AppRaised", "NoSuchApp", "load", "place", "refuse_to_run"]


# What a traceback begins with, before the app's code.
_OURS = (os.path.dirname(__file__) + os.sep, importlib.__file__, "<frozen importlib")


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
        raise NoSuchApp(f"{name!r} is a file, not a module; {_as_module(name, path)}.")
    if not all(name.split(".")):
        raise NoSuchApp(f"{name!r} is no module's name; write it in full, such as main:app.")
    folder = _working_directory()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    with _under_way(target):
        module = _import(name, folder)
        found = _attribute(module, path)
        if factory:
            found = _make(found, target)
    return _checked(found, target, factory=factory)


def refuse_to_run() -> None:
    """Raises `RuntimeError` in code that runs because `load` imports it: it would serve at once,
    with options of its own, and keep `treadle run` from serving."""
    if _loading:
        raise RuntimeError(
            f"{_loading[-1]} is being loaded to be served, and may not serve by itself: "
            'put app.run() under `if __name__ == "__main__":`'
        )


_loading: list[str] = []
"""The target that `load` is importing or making."""


@contextlib.contextmanager
def _under_way(target: str) -> Iterator[None]:
    _loading.append(target)
    try:
        yield
    finally:
        _loading.pop()


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise NoSuchApp("the working directory has been removed: change to another.") from None


def _as_module(name: str, path: str) -> str:
    """What to write instead of the file `name`, to follow a semicolon."""
    folder, file = os.path.split(os.path.normpath(name))
    file = file.removesuffix(".py")
    if os.path.isabs(folder) or folder.startswith(os.pardir):
        return f"change to {folder} and write {file}:{path}"
    return f"write {'.'.join((*filter(None, folder.split(os.sep)), file))}:{path}"


def _import(name: str, folder: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (error.name == name or name.startswith(error.name + ".")):
            raise NoSuchApp(
                f"there is no module {error.name!r} in {folder} or on sys.path."
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
            if part.endswith("()"):
                raise NoSuchApp(
                    f"{missing}; for a function that makes the app write "
                    f"{module.__name__}:{path[:-2]} --factory."
                ) from None
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
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def place(error: BaseException) -> str:
    """Where the app's own code raised `error`, to follow a verb; empty if none of it did."""
    trace = _own(error)
    return "" if trace is None else f", at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


def _trimmed(error: Exception) -> Exception:
    """`error` with a traceback that begins in the app's code, not in how it was reached."""
    return error.with_traceback(_own(error))


def _own(error: BaseException) -> TracebackType | None:
    """The part of the traceback of `error` that begins in the app's code."""
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_OURS):
            break
        trace = trace.tb_next
    return trace
