"""Robyn: actix, with `def` handlers on a thread and `async def` handlers on a uvloop."""

from profiling.interpreters import Interpreter
from profiling.peers.base import HELLO_ENDPOINTS, Launch, Peer, Product
from profiling.scenarios import Endpoint


def _command(launch: Launch) -> list[str]:
    return [
        str(launch.executable),
        *("-m", "profiling.apps.robyn_app", str(launch.port)),
        *("--processes", "1", "--workers", "1", "--disable-openapi", "--log-level", "ERROR"),
    ]


ROBYN = Peer(
    product=Product.ROBYN,
    title="Robyn {robyn}",
    interpreters=(Interpreter.GIL,),
    endpoints=HELLO_ENDPOINTS | {Endpoint.CPU, Endpoint.PLAIN},
    command=_command,
    packages=("robyn",),
    modules=("robyn",),
)
