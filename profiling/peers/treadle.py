"""Treadle itself, on whichever interpreters have it installed."""

from profiling.interpreters import PYTHONS
from profiling.peers.base import ALL_ENDPOINTS, Launch, Peer, Product


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
