"""Reading the statistics of a running server, from another process.

>>> with connect(12345) as server:
...     stats = server.read()
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import msgspec

from treadle.exceptions import TreadleError
from treadle.monitor import places, wire
from treadle.telemetry import Stats

__all__ = ["Connection", "MonitorError", "Unavailable", "connect", "running"]

TIMEOUT = 5.0
"""Seconds that a server has for one answer."""

_HOW = "it has to be started with --stats-socket, and if that was given a PATH, be named by it"


class MonitorError(TreadleError):
    """A server whose statistics cannot be read. The text is one sentence."""


class Unavailable(MonitorError):
    """The server is gone, or does not answer any more."""


class Connection:
    """A server whose statistics can be read; `connect` makes it. Not for two threads at once."""

    def __init__(self, label: str, reach: Callable[[], socket.socket], host: str) -> None:
        self.label = label
        """The server as it was asked for: a process, a path or a URL."""
        self._reach = reach
        self._host = host

    def read(self) -> Stats:
        """The statistics now. Raises `MonitorError`; `Unavailable` where it no longer answers."""
        deadline = time.monotonic() + TIMEOUT
        try:
            with self._reach() as connection:
                wire.ask(connection, "/stats", self._host)
                status, body = wire.receive(connection, deadline)
        except TimeoutError:
            raise Unavailable(f"{self.label} did not answer within {TIMEOUT:g} s.") from None
        except PermissionError:
            raise MonitorError(f"{self.label} belongs to another user.") from None
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(f"{self.label} does not answer: {reason}.") from None
        except wire.Malformed as malformed:
            raise MonitorError(f"{self.label} is no stats socket: {malformed}.") from None
        if status == 403:
            raise MonitorError(f"{self.label} belongs to another user.")
        if status == 404:
            raise MonitorError(f"{self.label} tells no statistics of Treadle.")
        if status != 200:
            raise MonitorError(f"{self.label} could not read its statistics; its log says why.")
        try:
            return msgspec.json.decode(body, type=Stats)
        except msgspec.DecodeError as error:
            raise MonitorError(f"{self.label} tells no statistics of Treadle: {error}.") from None

    def close(self) -> None:
        """Ends it. There is nothing to end: every reading has a connection of its own."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def connect(target: int | str) -> Connection:
    """The server at `target`: a process, a URL (`http://host:port`, of a `--metrics` listener), or
    the path of a stats socket.

    Reads once, to see that it can be read. Raises `MonitorError`.
    """
    if isinstance(target, int) or target.isdecimal():
        connection = _of_process(int(target))
    elif target.startswith(("http://", "https://")):
        connection = _of_url(target)
    else:
        connection = _of_path(target, target)
    connection.read()
    return connection


def running() -> dict[int, str]:
    """The servers of this user that can be read, by process: the paths of their stats sockets."""
    found = {}
    for pid, path in places.sockets(os.geteuid()).items():
        try:
            _reach_unix(path, os.geteuid()).close()
        except OSError:  # left by a process that is gone
            continue
        found[pid] = path
    return found


# -- by process ------------------------------------------------------------------------------------


def _of_process(pid: int) -> Connection:
    uid = places.owner(pid)
    if uid is None:
        raise MonitorError(f"there is no process {pid}.")
    if os.geteuid() not in (uid, 0):
        raise MonitorError(f"process {pid} belongs to another user.")
    for candidate in (pid, _parent(pid)):  # a worker is read with its siblings
        path = places.sockets(uid).get(candidate)
        if path is not None:
            return _of_path(path, f"process {candidate}")
    raise MonitorError(f"process {pid} cannot be looked at: {_HOW}.")


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name before may contain anything, a parenthesis too.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return 0


# -- by path ---------------------------------------------------------------------------------------


def _of_path(path: str, label: str) -> Connection:
    try:
        uid = os.stat(path).st_uid
    except FileNotFoundError:
        raise MonitorError(f"there is no stats socket at {path}.") from None
    except OSError as error:
        raise MonitorError(f"{path} cannot be reached: {error.strerror}.") from None
    if os.geteuid() not in (uid, 0):
        raise MonitorError(f"{label} belongs to another user.")
    return Connection(label, lambda: _reach_unix(path, uid), "localhost")


def _reach_unix(path: str, uid: int) -> socket.socket:
    """A connection to the socket at `path`, of a process of user `uid`."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(TIMEOUT)
        connection.connect(path)
        if places.peer(connection)[1] != uid:
            raise PermissionError
    except BaseException:
        connection.close()
        raise
    return connection


# -- by URL ----------------------------------------------------------------------------------------


def _of_url(url: str) -> Connection:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # as the connection will, without a word for people
    except ValueError as error:
        raise MonitorError(f"{url} is no URL: {error}.") from None
    if parts.scheme != "http":
        raise MonitorError(f"{url} cannot be read: a --metrics listener speaks http.")
    if not host:
        raise MonitorError(f"{url} is no URL: it lacks a host.")
    return Connection(
        url, lambda: socket.create_connection((host, port or 80), TIMEOUT), parts.netloc
    )
