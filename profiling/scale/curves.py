"""The curves: what grows, through which values, and how a point of each is asked for."""

from dataclasses import dataclass

from profiling.load import Request

_KIB, _MIB = 2**10, 2**20


@dataclass(frozen=True, slots=True)
class Curve:
    """One thing that grows."""

    name: str
    title: str
    axis: str
    values: tuple[int, ...]
    """What it grows through; none for lanes, which grow to the number of cores."""
    quick: tuple[int, ...]
    weighs: bool = False
    """Whether one more of it has a weight in memory."""

    @property
    def is_speed_up(self) -> bool:
        """Whether it is lanes that grow, and the rate that is wanted of them."""
        return not self.values


CPU = Curve("cpu", "CPU-bound handler, 130 us of Python", "lanes", (), ())
JSON = Curve("json", "JSON of a hundred objects", "lanes", (), ())
SUSPENDED = Curve("suspended", "A handler that suspends once", "lanes", (), ())
ASKING = Curve(
    "asking",
    "Connections that ask without a pause",
    "connections",
    (1, 4, 16, 64, 256, 1_000),
    (1, 64),
)
CONNECTIONS = Curve(
    "connections",
    "Idle connections, 64 more ask",
    "idle connections",
    (1, 10, 100, 1_000, 5_000, 10_000, 20_000),
    (1, 100),
    weighs=True,
)
ROUTES = Curve(
    "routes", "Routes of the app", "routes", (1, 10, 100, 1_000, 5_000), (1, 100), weighs=True
)
BODY = Curve(
    "body",
    "Size of the request body",
    "bytes",
    (0, _KIB, 16 * _KIB, 64 * _KIB, 256 * _KIB, _MIB, 10 * _MIB),
    (0, 64 * _KIB),
)
# With Host the last has a hundred headers, the most that treadle takes.
HEADERS = Curve(
    "headers", "Headers of a request", "headers beside Host", (0, 10, 25, 50, 75, 99), (0, 50)
)
WAITING = Curve(
    "waiting",
    "Suspended handlers, 64 connections ask",
    "suspended handlers",
    (1, 10, 100, 1_000, 10_000, 50_000),
    (1, 100),
    weighs=True,
)

CURVES = (CPU, JSON, SUSPENDED, ASKING, CONNECTIONS, ROUTES, BODY, HEADERS, WAITING)
BY_NAME = {curve.name: curve for curve in CURVES}

_FEW = 8
_USUAL = 64
_A_LANE = 16


def request(curve: Curve, value: int) -> Request:
    """What is asked at one point."""
    match curve.name:
        case "cpu" | "json" | "suspended":
            return Request(curve.name, f"/{curve.name}")
        case "routes":
            return Request(curve.name, f"/r{value - 1}/7")
        case "body":
            return Request(curve.name, "/body", body_bytes=value)
        case "headers":
            return Request(curve.name, "/sync", headers=value)
        case _:
            return Request(curve.name, "/sync")


def connections(curve: Curve, value: int) -> int:
    """How many connections ask at one point."""
    if curve.is_speed_up:
        return _A_LANE * value
    if curve is ASKING:
        return value
    return _FEW if curve is BODY else _USUAL
