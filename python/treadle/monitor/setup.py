"""What a server was asked to show of itself, from the options to the sockets that answer.

`Monitor` is made before anything is started, by the process that owns the listening sockets: a port
that is taken, a path that cannot be used and a missing package are known at once, and worker
processes inherit what is bound. `start` is called in each process that serves, `close` by the one
that made it.

A process that is killed leaves its files behind. They are told by nobody answering on them, and go
when the next server of the user starts.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from treadle._treadle import Request, Response, RouteTable
from treadle.binding import BindError, Binding, bind_tcp, bind_unix
from treadle.monitor import places
from treadle.monitor.collect import Collector, Group
from treadle.monitor.service import Service
from treadle.options import OptionError
from treadle.routing import Declared

if TYPE_CHECKING:
    from treadle.app import App
    from treadle.options import Options

__all__ = ["PATH", "Monitor"]

PATH = "/metrics"
"""Where metrics are told on the app's own port."""

_BACKLOG = 64


class Monitor:
    """The sockets and the route on which one server tells its statistics.

    Raises `BindError` and `OptionError`, each in one sentence.
    """

    def __init__(self, app: App, options: Options) -> None:
        self._app = app
        self._options = options
        self._collector: Collector | None = None
        self._service: Service | None = None
        self._own: Binding | None = None
        self.table: RouteTable | None = None
        """The app's routes and that of the metrics; None where the app's are all."""
        with ExitStack() as opened:
            self.metrics = self._open_metrics(opened)
            self.stats = self._open_stats(opened)
            self._group = self._form_group(opened)
            self._opened = opened.pop_all()

    @property
    def url(self) -> str | None:
        """Where metrics are told on a listener of their own."""
        return None if self.metrics is None else self.metrics.url + PATH

    @property
    def path(self) -> str | None:
        """The path of the stats socket."""
        return None if self.stats is None else self.stats.path

    def line(self) -> str:
        """What is told where, in a line for people; empty where the app's own port is all."""
        parts = []
        if self.url is not None:
            parts.append(f"metrics at {self.url}")
        if self.path is not None:
            parts.append(f"stats at {self.path}")
        return " · ".join(parts)

    # -- in a process that serves --

    def start(self, worker: int = 0) -> None:
        """Begins to answer, from a thread of its own."""
        collector = Collector(
            self._app.stats, self._group, worker=worker, lanes=self._options.lanes
        )
        self._collector = collector
        if self._group is not None:
            self._own = _join_group(self._group.path(worker))
        service = Service()
        for binding, read, metrics in (
            (self.metrics, collector.read, True),
            (self.stats, collector.read, False),
            (self._own, collector.own, False),
        ):
            for listener in () if binding is None else binding.sockets:
                service.add(listener, read, metrics=metrics)
        if service.has_listeners:
            service.start()
            self._service = service

    def stop(self) -> None:
        """Answers no more; nothing where it did not."""
        service, self._service = self._service, None
        if service is not None:
            service.stop()
        if self._own is not None:
            self._own.close()
            self._own = None

    def close(self) -> None:
        """Closes the sockets and removes their files, where this process made them."""
        self.stop()
        self._opened.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -- before --

    def _open_metrics(self, opened: ExitStack) -> Binding | None:
        wanted = self._options.metrics
        if wanted is False:
            return None
        from treadle.monitor import prometheus

        try:
            prometheus.require()
        except prometheus.Missing as missing:
            raise OptionError(str(missing)) from None
        if wanted is True:
            self.table = self._with_metrics()
            return None
        return opened.enter_context(bind_tcp(*wanted, _BACKLOG))

    def _with_metrics(self) -> RouteTable:
        def metrics(request: Request) -> Response:
            from treadle.monitor.prometheus import exposition

            if self._collector is None:  # not before the server has started
                return Response(b"", status=503)
            body, kind = exposition(self._collector.read(), request.headers.get("accept") or "")
            return Response(body, headers={"Content-Type": kind, "Cache-Control": "no-store"})

        table = RouteTable()
        for route in self._app._table.routes():
            table.add(route)
        # Reading and spelling take longer than a lane should be held up.
        declared = Declared(PATH, ("GET",), metrics, {"offload": True}, {})
        taken = table.add(declared.compile())
        if taken is not None:
            raise OptionError(
                f"metrics cannot be told at {PATH}, beside the app's own {taken}: give them "
                "an address of their own, such as --metrics 127.0.0.1:9100."
            )
        return table

    def _open_stats(self, opened: ExitStack) -> Binding | None:
        wanted = self._options.stats_socket
        if wanted is False:
            return None
        if wanted is not True:
            return opened.enter_context(bind_unix(wanted, _BACKLOG, private=True))
        path = places.default_path(os.getpid())
        with _prepared_folder(os.path.dirname(path)):
            return opened.enter_context(bind_unix(path, _BACKLOG, private=True))

    def _form_group(self, opened: ExitStack) -> Group | None:
        if self._options.workers == 1:
            return None
        parent = os.getpid()
        path = places.default_path(parent)
        folder = path.removesuffix(".sock") + ".workers"
        with _prepared_folder(os.path.dirname(path)):
            try:
                os.mkdir(folder, 0o700)
                opened.callback(_remove, folder, parent)
                # Held until the last process that has it open is gone, however it went.
                lock = os.open(_held(folder), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                opened.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX)
            except OSError as error:
                raise BindError(f"cannot make {folder}: {error.strerror}.") from error
        return Group(folder=folder, parent=parent, size=self._options.workers)


def _join_group(path: str) -> Binding | None:
    """The socket on which a worker answers for itself, in the place of its predecessor's."""
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        return bind_unix(path, _BACKLOG, private=True)
    except (BindError, OSError) as error:
        import logging

        # The totals will lack this worker, which is no reason not to serve.
        logging.getLogger("treadle").warning("a worker's stats cannot be read: %s", error)
        return None


# -- files -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _prepared_folder(folder: str) -> Iterator[None]:
    """The user's folder, made and swept, and this process's alone to put something into meanwhile:
    what is bound and does not listen yet looks like a dead server's to another one's sweep."""
    with ExitStack() as held:
        try:
            places.ensure_folder(folder)
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            held.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            _sweep(folder)
        except places.Unsafe as unsafe:
            raise BindError(f"cannot put a stats socket there: {unsafe}") from None
        except OSError as error:
            raise BindError(
                f"cannot put a stats socket into {folder}: {error.strerror}."
            ) from error
        yield


def _sweep(folder: str) -> None:
    """Removes what servers left in `folder` that could not do it themselves."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with contextlib.suppress(OSError):
            if name.endswith(".workers") and _is_abandoned(path):
                shutil.rmtree(path)
            elif name.endswith(".sock") and _is_dead(path):
                os.unlink(path)


def _held(folder: str) -> str:
    return os.path.join(folder, "held")


def _is_abandoned(folder: str) -> bool:
    lock = os.open(_held(folder), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _is_dead(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except BlockingIOError:
            return False
    return False


def _remove(folder: str, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
