"""Listening sockets: opened from the options, described for people, removed at the end.

Sockets are bound before anything is started, by the process that owns them all: a port that is
taken is known at once, and worker processes inherit them by fork. They are non-blocking, because
several threads or processes may race to accept one connection. Only the thread that calls `bind`
touches a `Binding`.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Self

from treadle.options import Options

__all__ = ["BindError", "Binding", "bind", "bind_tcp", "bind_unix"]

# The machine lacks the address or its family: no reason to fail while another address will do.
_ABSENT = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

UNSENT = 128 * 1024
"""Bytes that the kernel takes of an answer beyond what is on its way, by connection.

Otherwise it takes megabytes: a generator would be as far ahead of a slow client, and one that reads
steadily would look as if it took nothing for as long as those last."""


class BindError(Exception):
    """No listening socket could be opened. The text is one sentence."""


class Binding:
    """The listening sockets of one server. On exit closes them and removes a Unix socket's file.

    A server that starts takes the sockets over and leaves none of them open here; what a binding
    says of itself does not change by that.
    """

    def __init__(self, sockets: list[socket.socket], url: str, file: _SocketFile | None) -> None:
        self.sockets = sockets
        self.url = url
        """Where clients reach it: `http://127.0.0.1:8000`, `http://[::1]:8000` or `unix:/path`."""
        self.address: tuple[str, int] | str
        """What to connect a socket to: host and port, or the path of the Unix socket."""
        name = sockets[0].getsockname()
        self.address = (name[0], name[1]) if file is None else file.path
        self._file = file

    @property
    def port(self) -> int | None:
        """The port, the real one where 0 was asked for; None for a Unix socket."""
        return None if isinstance(self.address, str) else self.address[1]

    @property
    def path(self) -> str | None:
        """The path of the Unix socket; None for a port."""
        return None if self._file is None else self._file.path

    def close(self) -> None:
        """Closes the sockets and removes the Unix socket's file, unless another took its place."""
        if self._file is not None:
            self._file.remove()
        for listener in self.sockets:
            listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def bind(options: Options) -> Binding:
    """Opens what `options` asks for. Raises `BindError`."""
    if options.uds is not None:
        return bind_unix(options.uds, options.backlog)
    return bind_tcp(options.host, options.port, options.backlog)


# -- TCP -------------------------------------------------------------------------------------------


def bind_tcp(name: str, port: int, backlog: int) -> Binding:
    """Listens on a port of an address, or of all that a name stands for. Raises `BindError`."""
    host = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    addresses = _addresses(host)
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in addresses:
        try:
            listener = _listen(family, address, port, backlog, only_v6=len(addresses) > 1)
        except OSError as error:
            if error.errno in _ABSENT and len(addresses) > 1:
                absent = error
                continue
            for each in sockets:
                each.close()
            raise BindError(_refusal(_authority(host, port), error)) from error
        sockets.append(listener)
        # With port 0, the first address picks the port for all of them.
        port = listener.getsockname()[1]
    if not sockets:
        raise BindError(_refusal(_authority(host, port), absent)) from absent
    return Binding(sockets, f"http://{_authority(host, port)}", None)


def _addresses(host: str) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """What `host` stands for: addresses, each with the scope it is in (0 is none)."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except (OSError, ValueError):
            continue
        return [(family, (host, 0))]
    try:
        # As bytes: a str makes getaddrinfo import the IDNA codec, slower than the look-up itself.
        query = host.encode("ascii") if host.isascii() else host.encode("idna")
        found = socket.getaddrinfo(query, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise BindError(f"cannot listen on {host}: no address is known for it.") from error
    # A name may stand for one address twice; the order is the resolver's.
    return list(
        dict.fromkeys(
            # A link-local address of IPv6 (fe80::1%eth0) is one of a certain interface.
            (family, (str(address[0]), address[3] if len(address) == 4 else 0))
            for family, _, _, _, address in found
        )
    )


def _listen(
    family: socket.AddressFamily,
    address: tuple[str, int],
    port: int,
    backlog: int,
    *,
    only_v6: bool,
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # A name's IPv4 address has its own socket; a literal `::` is meant for both.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only_v6))
        # Accepted sockets inherit it.
        if lowat := getattr(socket, "TCP_NOTSENT_LOWAT", None):
            listener.setsockopt(socket.IPPROTO_TCP, lowat, UNSENT)
        listener.setblocking(False)
        host, scope = address
        listener.bind((host, port, 0, scope) if family == socket.AF_INET6 else (host, port))
        listener.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _authority(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# -- Unix sockets ----------------------------------------------------------------------------------


class _SocketFile:
    """The file of a Unix socket that this process bound."""

    def __init__(self, path: str) -> None:
        # Absolute, because the app may change the working directory before the file is removed.
        self.path = os.path.abspath(path)
        self._identity = self._look()
        self._owner = os.getpid()

    def _look(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def remove(self) -> None:
        """Removes the file if it is still the one bound here, by this very process."""
        if self._owner == os.getpid() and self._identity is not None:
            if self._look() == self._identity:
                os.unlink(self.path)
            self._identity = None


def bind_unix(path: str, backlog: int, *, private: bool = False) -> Binding:
    """Listens on a Unix socket. Raises `BindError`.

    Like a port it is open to all users of the machine, a proxy's among them: the folder is what
    keeps them out. To a `private` one its owner alone can connect.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise BindError("cannot listen on a Unix socket: this system has none.")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        listener.setblocking(False)
        listener.bind(path)
        os.chmod(path, 0o600 if private else 0o666)  # nobody can connect before it listens
        listener.listen(backlog)
    except BindError:
        listener.close()
        raise
    except OSError as error:
        listener.close()
        raise BindError(_refusal(path, error)) from error
    return Binding([listener], f"unix:{path}", _SocketFile(path))


def _clear(path: str) -> None:
    """Removes the socket that a dead server left at `path`; refuses anything else found there."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise BindError(f"cannot listen on {path}: it exists and is not a socket.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # bound once, and nobody listens now
            return
        except FileNotFoundError:
            return
        except BlockingIOError:
            pass  # somebody listens, with a full queue
    raise BindError(f"cannot listen on {path}: another process listens there.")


# -- failures --------------------------------------------------------------------------------------


def _refusal(where: str, error: OSError | None) -> str:
    if error is None:
        reason = "it is not an address of this machine"
    elif error.errno == errno.EADDRINUSE:
        reason = "the address is in use"
    elif error.errno in _ABSENT:
        reason = "it is not an address of this machine"
    elif error.errno == errno.EACCES:
        reason = "permission denied"
    else:
        reason = error.strerror or str(error)
    return f"cannot listen on {where}: {reason}."
