"""Event loops to test: ours, and asyncio's, whose behaviour ours has to have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from treadle import EventLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

FACTORIES: dict[str, LoopFactory] = {
    "treadle": EventLoop,
    "asyncio": asyncio.SelectorEventLoop,
}

Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def room_for(count: int) -> Iterator[None]:
    """Inside, the process can open `count` more descriptors."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with open("/dev/null") as lowest:  # every number below is taken
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest.fileno() + 1 + count, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def no_room() -> Iterator[None]:
    """Inside, the process can open none, also in the place of those that it closes."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a non-blocking socket pair."""
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


class OwnThread:
    """Calls a function on a thread made for it."""

    def __call__(self, function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result(25)
