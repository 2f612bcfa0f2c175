"""Treadle itself, on whichever interpreters have it installed; and without its telemetry."""

from profiling.interpreters import PYTHONS
from profiling.peers.base import ALL_ENDPOINTS, Launch, Peer, Product
from profiling.scenarios import Endpoint


def _command(launch: Launch) -> list[str]:
    return [
        str(launch.executable),
        *("-m", "treadle", "run", "profiling.apps.treadle_app:app"),
        *("--host", "127.0.0.1", "--port", str(launch.port), "--lanes", str(launch.lanes)),
    ]


TREADLE = Peer(
    product=Product.TREADLE,
    title="Treadle {treadle}",
    interpreters=PYTHONS,
    endpoints=ALL_ENDPOINTS,
    command=_command,
    modules=("treadle", "profiling.apps.treadle_app"),
)


def _untimed(launch: Launch) -> list[str]:
    return [*_command(launch), "--no-telemetry"]


TREADLE_UNTIMED = Peer(
    product=Product.TREADLE_UNTIMED,
    title="Treadle {treadle} without telemetry",
    interpreters=PYTHONS,
    endpoints=frozenset({Endpoint.SYNC, Endpoint.ASYNC}),
    command=_untimed,
    modules=TREADLE.modules,
)
