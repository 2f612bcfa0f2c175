"""From stacks to a flame graph.

A stack is cut to what the app can change: the frames that a lane's thread always has below a
handler (threading, asyncio, the loop) are taken off, and its root is the kind of thread it was seen
on. It is a graph of Python: a lane in native code is left out, because from outside nobody can tell
one that computes there from one that waits for a core. Threads that wait where every program waits
are left out, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from treadle.profile.record import Flame, Frame

__all__ = ["Place", "Stack", "build", "hottest", "looks"]

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_SITE = re.compile(r"^.*/(site|dist)-packages/")
_LIBRARY = re.compile(r"^.*/lib/python3\.\d+t?/")
_WAITS = {
    ("threading.py", "wait"),
    ("threading.py", "_wait_for_tstate_lock"),
    ("threading.py", "join"),
    ("selectors.py", "select"),
    ("thread.py", "_worker"),
    ("offload.py", "_work"),
    ("queue.py", "get"),
    ("socket.py", "accept"),
    ("signals.py", "poll"),
}
"""File and function of the frame in which a thread that does nothing stands."""


_DEEPEST = 200
"""Frames of a stack that are kept, and the innermost: what goes deeper repeats itself, and nobody can
read it, nor the reports' own recursion follow."""

_OWN_THREADS = ("treadle-profile", "treadle-watcher", "treadle-monitor", "treadle-stall")


class Place(NamedTuple):
    """One frame of a stack."""

    function: str
    file: str
    line: int = 0


class Stack(NamedTuple):
    """A thread's frames, the outermost first."""

    thread: str
    places: tuple[Place, ...]
    running: bool | None = None
    """Whether the thread was on a core; None where that is not known."""


def build(stacks: Iterable[tuple[Stack, int]]) -> Frame:
    """The tree of all stacks that were running, the widest branch first."""
    root = Frame(name="all")
    index: dict[int, dict[tuple[str, str], Frame]] = {}
    for stack, count in stacks:
        path = _path(stack)
        if path is None:
            continue
        node = root
        node.count += count
        for name, file in path:
            known = index.setdefault(id(node), {})
            child = known.get((name, file))
            if child is None:
                child = known[name, file] = Frame(name=name, file=file)
                node.children.append(child)
            child.count += count
            node = child
    _sort(root)
    return root


def _path(stack: Stack) -> list[tuple[str, str]] | None:
    """Names and files from the kind of thread on; None for one that waits."""
    places = stack.places
    loop = max((at for at, place in enumerate(places) if _is_loop(place)), default=-1)
    inner = places[loop + 1 :]
    thread = _kind(stack.thread, loop >= 0)
    if not inner or stack.thread.startswith(_OWN_THREADS):
        return None
    if stack.running is False or (stack.running is None and _waits(inner[-1])):
        return None
    inner = tuple(place for place in inner if not _is_boilerplate(place))
    if not inner:
        return None
    if len(inner) > _DEEPEST:
        inner = (*inner[: _DEEPEST - 1], inner[-1])
    return [(thread, ""), *((place.function, _where(place)) for place in inner)]


def _is_loop(place: Place) -> bool:
    return place.function.endswith("run_forever") and place.file.startswith(_PACKAGE)


def _waits(place: Place) -> bool:
    return (os.path.basename(place.file), place.function.rpartition(".")[2]) in _WAITS


_STARTS = {"_bootstrap", "_bootstrap_inner", "_worker"}


def _is_boilerplate(place: Place) -> bool:
    """Whether it only starts a thread, or hands an offloaded handler to one."""
    name, file = place.function.rpartition(".")[2], os.path.basename(place.file)
    if file == "threading.py":
        return name in _STARTS or name == "run"
    if file == "offload.py":
        return name in {"_work", "_make_call"}
    return file == "thread.py" and name in {"_worker", "run"}


def _kind(thread: str, on_loop: bool) -> str:
    if on_loop or thread.startswith("treadle-lane"):
        return "lanes"
    return "offloaded handlers" if thread.startswith("treadle-offload") else thread


def _where(place: Place) -> str:
    """The file as a person knows it: below site-packages, the library or the working directory."""
    for mark in (_SITE, _LIBRARY):
        found = mark.search(place.file)
        if found is not None:
            return place.file[found.end() :]
    here = os.getcwd() + "/"
    return place.file.removeprefix(here)


def _sort(frame: Frame) -> None:
    pending = [frame]
    while pending:
        node = pending.pop()
        node.children.sort(key=lambda child: (-child.count, child.name))
        pending.extend(node.children)


# -- what a tree says ------------------------------------------------------------------------------


def hottest(root: Frame, most: int = 8) -> list[tuple[str, float]]:
    """The functions with the largest share of samples that ended in them."""
    own: dict[str, int] = {}
    pending = [root]
    while pending:
        node = pending.pop()
        pending.extend(node.children)
        if node.file:
            left = node.count - sum(child.count for child in node.children)
            name = f"{node.name} ({node.file})"
            own[name] = own.get(name, 0) + left
    ranked = sorted(own.items(), key=lambda item: -item[1])
    return [(name, count / root.count) for name, count in ranked[:most] if count]


def looks(sampled: Flame) -> str:
    """How often it was looked: `540 looks, 200 a second asked for (2 failed)`."""
    if sampled.looks is None:
        return f"{sampled.rate:.0f} looks a second"
    failed = f" ({sampled.failed:,} failed)" if sampled.failed else ""
    return (
        f"{sampled.looks + sampled.failed:,} looks, {sampled.rate:.0f} a second asked for{failed}"
    )
