"""Where stats sockets are, and who may be behind them.

A server of process 123 that was started with `--stats-socket` has `123.sock` in its user's folder,
which is `treadle` in `$XDG_RUNTIME_DIR` if that is the user's, else `/tmp/treadle-UID`. The folder
is its owner's alone, and refused where it is not: anybody could have put something of that name into
`/tmp`. What binds there is checked again at either end of a connection, by the credentials that the
kernel has of the process at the other.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import struct

__all__ = ["Unsafe", "default_path", "ensure_folder", "owner", "peer", "sockets", "user_folders"]

_UCRED = struct.Struct("=iII")
_SOCKET = re.compile(r"([1-9]\d*)\.sock")


class Unsafe(Exception):
    """A folder that others could have tampered with. The text is one sentence."""


def user_folders(uid: int) -> list[str]:
    """The folders in which a server of user `uid` may have put its socket, likeliest first."""
    folders = [f"/run/user/{uid}/treadle", f"/tmp/treadle-{uid}"]
    own = os.environ.get("XDG_RUNTIME_DIR")
    if own and uid == os.geteuid():
        folders.insert(0, os.path.join(own, "treadle"))
    return list(dict.fromkeys(folders))


def default_path(pid: int) -> str:
    """Where process `pid`, of this user, has its stats socket unless it was told otherwise."""
    own = os.environ.get("XDG_RUNTIME_DIR")
    # `su` leaves that of the user who called it.
    if own and _is_folder_of_this_user(own):
        return os.path.join(own, "treadle", f"{pid}.sock")
    return f"/tmp/treadle-{os.geteuid()}/{pid}.sock"


def _is_folder_of_this_user(path: str) -> bool:
    try:
        found = os.stat(path)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()


def ensure_folder(path: str) -> None:
    """Makes the folder `path`, for this user alone. Raises `Unsafe`, or OSError."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise Unsafe(f"{path} exists and is not a folder.")
    if found.st_uid != os.geteuid():
        raise Unsafe(f"{path} belongs to another user.")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise Unsafe(f"{path} is open to other users; it has to have mode 0700.")


def sockets(uid: int) -> dict[int, str]:
    """The stats sockets of user `uid`'s processes, by process; some may have been left by dead ones."""
    found: dict[int, str] = {}
    for folder in user_folders(uid):
        with contextlib.suppress(OSError):
            for name in sorted(os.listdir(folder)):
                matched = _SOCKET.fullmatch(name)
                if matched is not None:
                    found.setdefault(int(matched[1]), os.path.join(folder, name))
    return found


def owner(pid: int) -> int | None:
    """The user whom process `pid` belongs to; None where there is none of that number."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def peer(connection: socket.socket) -> tuple[int, int]:
    """The process and the user at the other end of a Unix socket, as the kernel knows them."""
    pid, uid, _ = _UCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    )
    return pid, uid
