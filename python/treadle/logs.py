"""Logging for apps that set up none of their own.

What the server says goes to the loggers `treadle` and, a line per request, `treadle.access`. Where
a handler is set on one of them or on the root logger, the app has its own logging, and nothing is
done here but what it asked for: with `access_log` access lines pass their logger, and a `log_level`
other than the default becomes that of `treadle`, unless it has one.
Otherwise both get one handler on standard error while the app runs:

    2026-11-20 19:43:22,123 WARNING treadle: ...
    2026-11-20 19:43:22,125 INFO 127.0.0.1:51764 "GET /hello/ada" 200 27B 0.4ms lane=0

An access record carries its values as attributes, for handlers of other shapes: `client`, `method`,
`path`, `status`, `bytes`, `duration_ms`, `lane` and `complete`, which says whether all of the body was
sent off: False where it broke off. A status of 499 stands for no response at all: the client had
left, or the server gave the request up at its end. `method` and `path` are `-` where the head was
refused: it was malformed, too large or too late.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.options import Options

__all__ = ["Formatter", "configured", "silenced"]

_USUAL = "info"
"""The level that nobody asked for."""

_ACCESS = (
    '{0.client} "{0.method} {0.path}" {0.status} {0.bytes}B {0.duration_ms:.1f}ms lane={0.lane}'
)


class Formatter(logging.Formatter):
    """One line per record; access records as above, whatever their message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._access = logging.Formatter("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line for `record`."""
        if record.name != "treadle.access":
            return super().format(record)
        try:
            line = _ACCESS.format(record)
        except (AttributeError, ValueError, TypeError):  # not a record of ours
            return super().format(record)
        # The caller's record stays as it is: other handlers format it as well.
        shown = logging.makeLogRecord({**record.__dict__, "msg": line, "args": None})
        return self._access.format(shown)


@contextlib.contextmanager
def configured(options: Options) -> Iterator[None]:
    """Sets logging up as `options` ask while the block runs, unless the app already has."""
    server = logging.getLogger("treadle")
    access = logging.getLogger("treadle.access")
    levels = [(logger, logger.level) for logger in (server, access)]
    propagate = server.propagate
    handler = None
    if options.access_log and access.level == logging.NOTSET:
        access.setLevel(logging.INFO)
    if not (server.handlers or access.handlers or logging.root.handlers):
        handler = logging.StreamHandler()
        handler.setFormatter(Formatter())
        server.addHandler(handler)
        # A handler that the app gives the root logger later would say everything twice.
        server.propagate = False
        if server.level == logging.NOTSET:
            server.setLevel(options.log_level.upper())
    elif server.level == logging.NOTSET and options.log_level != _USUAL:
        server.setLevel(options.log_level.upper())
    try:
        yield
    finally:
        if handler is not None:
            server.removeHandler(handler)
        server.propagate = propagate
        for logger, level in levels:
            logger.setLevel(level)


def silenced(options: Options) -> str:
    """What says that the app disabled a logger of ours; empty if it did not.

    `logging.config` disables the loggers that are there unless it is told not to: few mean that.
    """
    asked = ("treadle", "treadle.access") if options.access_log else ("treadle",)
    names = [name for name in asked if logging.getLogger(name).disabled]
    if not names:
        return ""
    return (
        f"treadle: the app's logging configuration disabled {' and '.join(map(repr, names))}, so "
        "nothing is logged there; set disable_existing_loggers to False.\n"
    )
