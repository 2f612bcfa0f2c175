"""Every option of the server, declared once.

The attributes of `Options` are the table: each names its type, its default, how a value is read and
what it means. The command line (`cli`), the environment (`TREADLE_*`) and the arguments of `App.run`
are all derived from it, so an option exists in all three or in none.

`Options.resolve` is the one way in: it takes the first source that names an option, in the order
argument, command line, environment, default, reads the value, and refuses a bad one in one sentence
that names it as the user wrote it.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from treadle import interpreter
from treadle.exceptions import TreadleError

__all__ = ["Option", "OptionError", "Options"]

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off"})
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_LARGEST = (1 << 63) - 1
_LONGEST = 365 * 24 * 3600.0


class OptionError(TreadleError, ValueError):
    """An option that does not exist, or a value that it does not take. The text is one sentence."""


class _Refused(Exception):
    """What a reader raises: the text says what the value has to be."""


# -- readers: from what was given to what is stored ------------------------------------------------


def _text(value: object) -> str:
    if isinstance(value, str) and value.strip() and "\0" not in value:
        return value.strip()
    raise _Refused("a non-empty string")


def _path(value: object) -> str:
    if isinstance(value, str | os.PathLike):
        path = os.fspath(value)
        if isinstance(path, str) and path and "\0" not in path:
            return path
    raise _Refused("a path")


def _digits(value: object) -> int | None:
    """The integer that `value` is or spells; None for all else, `True`, `1_000` and `1.0` too."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        text = value.strip()
        # 19 digits reach every bound below; more would only feed int() needlessly.
        if text.isascii() and text.isdecimal() and len(text) <= 19:
            return int(text)
    return None


def _integer(low: int, high: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        number = _digits(value)
        if number is None or not low <= number <= high:
            raise _Refused(f"an integer from {low} to {high}")
        return number

    return read


def _size(value: object) -> int:
    if isinstance(value, str):
        text = value.strip().lower().removesuffix("ib").removesuffix("b")
        unit = text[-1:] if text[-1:] in ("k", "m", "g") else ""
        count = _digits(text.removesuffix(unit))
        number = None if count is None else count * _UNITS[unit]
    else:
        number = _digits(value)
    if number is None or not 0 <= number <= _LARGEST:
        raise _Refused("a number of bytes such as 65536, 512K or 16M")
    return number


def _seconds(value: object) -> float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError):
            number = float(value)
    if not 0.0 <= number <= _LONGEST:  # false for NaN too
        raise _Refused(f"a number of seconds from 0 to {_LONGEST:.0f}")
    return number


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in _YES or word in _NO:
            return word in _YES
    raise _Refused("true or false")


def _word(value: object) -> bool | None:
    """The switch that `value` is or spells; None for all else."""
    try:
        return _flag(value)
    except _Refused:
        return None


def _metrics(value: object) -> bool | tuple[str, int]:
    if (switch := _word(value)) is not None:
        return switch
    if isinstance(value, str):
        host, colon, port = value.strip().rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        number = _digits(port)
        if colon and host and "\0" not in host and number is not None and 0 <= number <= 65535:
            return host, number
    raise _Refused("HOST:PORT, or true for the path /metrics of the app")


def _stats_socket(value: object) -> bool | str:
    switch = _word(value)
    return _path(value) if switch is None else switch


def _level(value: object) -> str:
    if isinstance(value, str) and value.strip().lower() in LOG_LEVELS:
        return value.strip().lower()
    raise _Refused(f"one of {', '.join(LOG_LEVELS)}")


def _lanes(value: object) -> int:
    # 0 stands for "auto" until `resolve` knows the number of workers.
    if isinstance(value, str) and value.strip().lower() == "auto":
        return 0
    number = _digits(value)
    if number is None or not 1 <= number <= 1024:
        raise _Refused("auto or an integer from 1 to 1024")
    return number


def cores() -> int:
    """Cores this process may run on; at least 1."""
    count = getattr(os, "process_cpu_count", None)  # 3.13
    if count is not None:
        return count() or 1
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _auto_lanes(workers: int = 1) -> int:
    return 1 if interpreter.gil_enabled() else max(1, cores() // workers)


def _offload_threads() -> int:
    return min(32, cores() + 4)


# -- the table -------------------------------------------------------------------------------------


class Option:
    """What is known of one option; `Options.table()` has them all."""

    name: str
    """As argument of `App.run` and as attribute of `Options`."""

    def __init__(
        self,
        read: Callable[[object], Any],
        default: Any,
        help: str,
        metavar: str = "",
        *,
        shown: str | None = None,
        bare: str | None = None,
    ) -> None:
        """`shown` is the default as text where the value is not what users type; a default that is
        computed needs one."""
        self.read = read
        """Turns what was given into what is stored."""
        self.help = help
        self.metavar = metavar
        self.bare = bare
        """What the flag stands for without a value; None where it needs one, or takes none."""
        self._default = default
        self._shown = shown

    def __set_name__(self, owner: type[Options], name: str) -> None:
        self.name = name

    @property
    def default(self) -> str:
        """The default, as text for people."""
        shown = self._default if self._shown is None else self._shown
        return f"{shown:g}" if isinstance(shown, float) else str(shown)

    def unset(self) -> Any:
        """What is stored when nobody sets it."""
        return self._default() if callable(self._default) else self._default

    @property
    def flag(self) -> str:
        """As option of the command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def env(self) -> str:
        """As environment variable."""
        return "TREADLE_" + self.name.upper()

    @property
    def boolean(self) -> bool:
        """Whether the command line takes it without a value (`--x`, `--no-x`)."""
        return self.read is _flag


_option: Any = Option
"""Any, because what an attribute is declared to be is the option's value."""


class Options:
    """The options of one server, read and checked. Durations are seconds, sizes are bytes."""

    host: str = _option(
        _text, "127.0.0.1", "address or name to listen on; :: is IPv6 and IPv4", "ADDRESS"
    )
    port: int = _option(_integer(0, 65535), 8000, "port to listen on; 0 picks a free one", "PORT")
    uds: str | None = _option(
        _path, None, "Unix socket to listen on, instead of host and port", "PATH", shown="none"
    )
    backlog: int = _option(
        _integer(1, 65535), 2048, "connections the kernel may queue before they are accepted", "N"
    )
    lanes: int = _option(
        _lanes,
        _auto_lanes,
        "threads that each serve connections and run handlers; auto is one a core when "
        "free-threaded, 1 with the GIL",
        "auto|N",
        shown="auto",
    )
    workers: int = _option(
        _integer(1, 1024), 1, "processes that share the port, respawned when they die", "N"
    )
    offload_threads: int = _option(
        _integer(1, 4096),
        _offload_threads,
        "threads for handlers registered with offload=True",
        "N",
        shown="cores + 4, at most 32",
    )
    limit_body: int = _option(
        _size,
        16 << 20,
        "bytes a request body may have (512K, 16M); 0 is no limit",
        "SIZE",
        shown="16M",
    )
    limit_connections: int = _option(
        _integer(0, _LARGEST), 0, "connections open at once, per process; 0 is no limit", "N"
    )
    limit_concurrency: int = _option(
        _integer(0, _LARGEST),
        0,
        "requests in flight at once, per process, before 503; 0 is no limit",
        "N",
    )
    timeout_header: float = _option(
        _seconds, 10.0, "time a client has to send the head of a request; 0 is no limit", "SECONDS"
    )
    timeout_keep_alive: float = _option(
        _seconds, 75.0, "time an idle connection is kept open; 0 is no limit", "SECONDS"
    )
    timeout_request: float = _option(
        _seconds,
        60.0,
        "time from a request's head until its answer starts, and without a byte of a body that is "
        "read while the answer is sent; 0 is no limit",
        "SECONDS",
    )
    timeout_write: float = _option(
        _seconds, 60.0, "time a client may take nothing of its answer; 0 is no limit", "SECONDS"
    )
    grace: float = _option(
        _seconds, 10.0, "time requests have to finish once the server is told to stop", "SECONDS"
    )
    log_level: str = _option(_level, "info", f"one of {', '.join(LOG_LEVELS)}", "LEVEL")
    access_log: bool = _option(_flag, False, "log a line per request", shown="off")
    telemetry: bool = _option(_flag, True, "count and time what lanes and routes do", shown="on")
    require_free_threading: bool = _option(
        _flag, False, "refuse to start when the GIL is on", shown="off"
    )
    metrics: bool | tuple[str, int] = _option(
        _metrics,
        False,
        "answer GET /metrics in Prometheus' format: on a listener of its own, or without an address "
        "on the app's",
        "HOST:PORT",
        shown="off",
        bare="true",
    )
    stats_socket: bool | str = _option(
        _stats_socket,
        False,
        "Unix socket on which `treadle top` reads this server, for its owner only; without PATH one "
        "that `treadle top` finds by itself",
        "PATH",
        shown="off",
        bare="true",
    )
    stall_warning: float = _option(
        _seconds,
        0.1,
        "log the Python stack of a lane that does not turn for so long; 0 is never",
        "SECONDS",
    )

    def __init__(self, **values: Any) -> None:
        """Takes what is to be stored as it is; what is not given is at its default."""
        for option in self.table():
            name = option.name
            vars(self)[name] = values.pop(name) if name in values else option.unset()
        if values:
            raise TypeError(f"there is no option {next(iter(values))!r}")

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"options do not change once they are read: {name!r}")

    def __repr__(self) -> str:
        return f"Options({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    @classmethod
    def table(cls) -> tuple[Option, ...]:
        """All options, in the order of the help text."""
        return tuple(each for each in vars(cls).values() if isinstance(each, Option))

    @classmethod
    def resolve(
        cls,
        *,
        cli: Mapping[str, object] | None = None,
        env: Mapping[str, str] | None = None,
        **arguments: object,
    ) -> Options:
        """Options from arguments, then `cli`, then `env` (`os.environ` if None), then defaults.

        A value of None and an empty environment variable count as not given. Raises `OptionError`.
        """
        environ = os.environ if env is None else env
        table = {option.name: option for option in cls.table()}
        for name in (*arguments, *(cli or ())):
            if name not in table:
                raise OptionError(_unknown(name, table))
        values: dict[str, Any] = {}
        labels: dict[str, str] = {}
        for name, option in table.items():
            for given, label in (
                (arguments.get(name), name),
                ((cli or {}).get(name), option.flag),
                (environ.get(option.env) or None, option.env),
            ):
                if given is not None:
                    values[name] = _read(option, given, label)
                    labels[name] = label
                    break
        workers = values.get("workers", 1)
        if workers > 1 and not hasattr(os, "fork"):
            raise OptionError(f"{labels['workers']} must be 1 on this system, which has no fork.")
        lanes = values.get("lanes", 0)
        if lanes > 1 and interpreter.gil_enabled():
            raise OptionError(
                f"{labels['lanes']} must be 1, not {lanes}, {interpreter.why_gil()}: "
                f"use --workers {lanes} to serve on {lanes} cores."
            )
        values["lanes"] = lanes or _auto_lanes(workers)
        return cls(**values)


def _read(option: Option, value: object, label: str) -> Any:
    try:
        return option.read(value)
    except _Refused as expected:
        raise OptionError(f"{label} must be {expected}, not {value!r}.") from None


def _unknown(name: str, known: Mapping[str, Option]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, known, n=1)
    return f"there is no option {name!r}" + (f"; did you mean {close[0]!r}?" if close else ".")
