"""Every way to serve the mixed workload: what is installed, and how it is started."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profiling.interpreters import PYTHONS, Interpreter


@dataclass(frozen=True, slots=True)
class Start:
    """What a command line is made for."""

    python: Path
    port: int
    size: int
    """Threads, processes or lanes."""
    gil: bool
    cores: int


@dataclass(frozen=True, slots=True)
class Strategy:
    """One way to serve, told once."""

    name: str
    title: str
    counted: str
    """What there are 1 to 32 of."""
    command: Callable[[Start], list[str]]
    packages: tuple[str, ...] = ()
    """What pip installs; none for treadle, which is there."""
    modules: tuple[str, ...] = ()
    target: str = "/"
    interpreters: tuple[Interpreter, ...] = PYTHONS

    @property
    def ours(self) -> bool:
        """Whether it is treadle."""
        return not self.packages


_WSGI = "profiling.apps.mixed_wsgi:application"
_ASGI = "profiling.apps.mixed_asgi:application"


def _gunicorn(start: Start, *options: str) -> list[str]:
    return [
        *(str(start.python), "-m", "gunicorn", _WSGI, *options),
        *("--bind", f"127.0.0.1:{start.port}", "--keep-alive", "75", "--log-level", "error"),
    ]


def _gunicorn_threads(start: Start) -> list[str]:
    return _gunicorn(start, "--worker-class", "gthread", "--threads", str(start.size))


def _gunicorn_processes(start: Start) -> list[str]:
    return _gunicorn(start, "--worker-class", "sync", "--workers", str(start.size))


def _gevent(start: Start) -> list[str]:
    return _gunicorn(start, "--worker-class", "gevent", "--workers", str(start.size))


def _granian(start: Start, app: str, *options: str) -> list[str]:
    return [
        *(str(start.python), "-m", "granian", app, "--host", "127.0.0.1"),
        *("--port", str(start.port), "--http", "1", "--no-ws", *options),
        *("--backpressure", "8192", "--no-access-log", "--log-level", "error"),
    ]


def _granian_threads(start: Start) -> list[str]:
    threads = ("--blocking-threads", str(start.size))
    return _granian(start, _WSGI, "--interface", "wsgi", "--workers", "1", *threads)


def _granian_asgi(start: Start) -> list[str]:
    loop = ("--loop", "uvloop", "--runtime-mode", "st")
    return _granian(start, _ASGI, "--interface", "asginl", "--workers", str(start.size), *loop)


def _uvicorn(start: Start) -> list[str]:
    return [
        *(str(start.python), "-m", "uvicorn", _ASGI, "--workers", str(start.size)),
        *("--host", "127.0.0.1", "--port", str(start.port), "--loop", "uvloop"),
        *("--http", "httptools", "--no-access-log", "--log-level", "warning"),
    ]


def _treadle(start: Start, *options: str) -> list[str]:
    return [
        *(str(start.python), "-m", "treadle", "run", "profiling.apps.mixed_treadle:app"),
        *("--host", "127.0.0.1", "--port", str(start.port), *options),
    ]


def _treadle_lanes(start: Start) -> list[str]:
    # With the GIL a process has one lane: there it is processes that are counted.
    word = "--workers" if start.gil else "--lanes"
    return _treadle(start, word, str(start.size))


def _treadle_offload(start: Start) -> list[str]:
    lanes = "1" if start.gil else str(min(start.size, start.cores))
    return _treadle(start, "--lanes", lanes, "--offload-threads", str(start.size))


_GUNICORN = ("gunicorn",)
_UVLOOP = ("uvloop",)

STRATEGIES = (
    Strategy("treadle-async", "Treadle, async def", "lanes", _treadle_lanes, target="/async"),
    Strategy("treadle-inline", "Treadle, def", "lanes", _treadle_lanes, target="/inline"),
    Strategy("treadle-offload", "Treadle, offload", "threads", _treadle_offload, target="/offload"),
    Strategy(
        "gunicorn-threads", "gunicorn, gthread", "threads", _gunicorn_threads, _GUNICORN, _GUNICORN
    ),
    Strategy(
        "processes", "gunicorn, processes", "processes", _gunicorn_processes, _GUNICORN, _GUNICORN
    ),
    Strategy(
        "gevent",
        "gunicorn, gevent",
        "processes",
        _gevent,
        (*_GUNICORN, "gevent"),
        (*_GUNICORN, "gevent"),
    ),
    Strategy(
        "granian-threads", "granian, WSGI", "threads", _granian_threads, ("granian",), ("granian",)
    ),
    Strategy(
        "granian-asgi",
        "granian, ASGI",
        "processes",
        _granian_asgi,
        ("granian", *_UVLOOP),
        ("granian", *_UVLOOP),
    ),
    Strategy(
        "uvicorn-asgi",
        "uvicorn, ASGI",
        "processes",
        _uvicorn,
        ("uvicorn", "httptools", *_UVLOOP),
        ("uvicorn", "httptools", *_UVLOOP),
    ),
)
BY_NAME = {strategy.name: strategy for strategy in STRATEGIES}
