"""Answers for the server on sockets of its own, from threads of its own.

So it answers while every lane is busy, and also while one is stalled, which is when it is looked at.
`GET /stats` is one JSON document (`treadle.telemetry.Stats`), `GET /metrics` the same in
Prometheus' format, where that was asked for.

One thread waits for connections to all sockets; each connection is answered by a thread that ends
with it, at most `MOST` at a time. On a Unix socket only processes of the same user, or of root, are
answered. Several processes may wait on one inherited socket: whoever accepts first answers.
"""

from __future__ import annotations

import io
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import msgspec

from treadle.monitor import places
from treadle.telemetry import Stats

__all__ = ["Service"]

logger = logging.getLogger("treadle")

MOST = 16
"""Connections answered at once; one more is closed without an answer."""

TIMEOUT = 5.0
"""Seconds that a client has to say what it wants, and then to take its answer."""


class Service:
    """Answers on listening sockets, which stay the caller's to close, until `stop`."""

    def __init__(self) -> None:
        self._listeners: dict[int, tuple[socket.socket, Callable[[], Stats], bool]] = {}
        self._places = threading.Semaphore(MOST)
        self._thread = threading.Thread(target=self._run, name="treadle-monitor", daemon=True)

    def add(self, listener: socket.socket, read: Callable[[], Stats], *, metrics: bool) -> None:
        """Adds a listening socket, before `start`; `metrics`: whether it has `/metrics` too."""
        self._listeners[listener.fileno()] = listener, read, metrics

    @property
    def has_listeners(self) -> bool:
        """Whether there is anything to start for."""
        return bool(self._listeners)

    def start(self) -> None:
        """Begins to answer."""
        self._stopped, self._stop = os.pipe()
        self._thread.start()

    def stop(self) -> None:
        """Accepts no more, and returns; answers that were begun may go on until the process ends."""
        # Its closing alone would not be seen while a process that was forked meanwhile has it open.
        os.write(self._stop, b"\0")
        self._thread.join()
        os.close(self._stop)
        os.close(self._stopped)

    def _run(self) -> None:
        poller = select.poll()
        for fd in (self._stopped, *self._listeners):
            poller.register(fd, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._stopped:
                    return
                self._accept(*self._listeners[fd])

    def _accept(self, listener: socket.socket, read: Callable[[], Stats], metrics: bool) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:  # another process was faster
            return
        except OSError as error:
            # Out of descriptors or memory. The connection waits, and so do we.
            logger.warning("the stats cannot be read: %s", error.strerror)
            select.poll().poll(100)
            return
        if not self._places.acquire(blocking=False):
            connection.close()
            return
        thread = threading.Thread(
            target=self._answer,
            args=(connection, read, metrics),
            name="treadle-monitor-answer",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads
            self._places.release()
            connection.close()

    def _answer(self, connection: socket.socket, read: Callable[[], Stats], metrics: bool) -> None:
        try:
            with connection:
                _Answer(connection, read, metrics)
        except OSError:
            pass  # the client left
        except Exception:
            logger.exception("the stats cannot be read")
        finally:
            self._places.release()


class _Asked(io.RawIOBase):
    """What a client says until `deadline`, of `time.monotonic`: however little of it at a time."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Answer(BaseHTTPRequestHandler):
    """One connection."""

    server_version = "treadle"
    sys_version = ""
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(message)s\n"

    def __init__(self, connection: socket.socket, read: Callable[[], Stats], metrics: bool) -> None:
        self._read = read
        self._metrics = metrics
        # Its base wants the server's object only to pass it on to subclasses.
        super().__init__(connection, ("", 0), None)  # type: ignore[arg-type]

    def setup(self) -> None:
        """Has the whole request read within the time."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Asked(self.connection, time.monotonic() + TIMEOUT))

    def parse_request(self) -> bool:
        """Reads the rest of the request; then the time of the answer begins."""
        is_request = super().parse_request()
        self.connection.settimeout(TIMEOUT)
        return is_request

    def do_GET(self) -> None:
        """Answers `/stats` and `/metrics`."""
        if not self._is_welcome():
            self.send_error(403, "These are for the user whose process this is.")
            return
        path = self.path.partition("?")[0]
        try:
            if path == "/stats":
                body, kind = msgspec.json.encode(self._read()), "application/json"
            elif path == "/metrics" and self._metrics:
                from treadle.monitor.prometheus import exposition

                body, kind = exposition(self._read(), self.headers.get("Accept", ""))
            else:
                self.send_error(
                    404,
                    "There are /stats and /metrics here."
                    if self._metrics
                    else "There is /stats here.",
                )
                return
        except Exception:
            logger.exception("the stats cannot be read")
            self.send_error(500, "The statistics could not be read; the server's log says why.")
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def _is_welcome(self) -> bool:
        if self.connection.family != socket.AF_UNIX:
            return True
        _, uid = places.peer(self.connection)
        return uid in (os.geteuid(), 0)

    def log_message(self, *_: Any) -> None:
        """Says nothing: what goes wrong here is the client's business."""
