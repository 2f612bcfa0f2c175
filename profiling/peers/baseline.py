"""The floor: hyper alone, with treadle's crates and build, and no Python (../baseline)."""

from profiling.interpreters import Interpreter
from profiling.peers.base import Launch, Peer, Product
from profiling.scenarios import Endpoint


def _command(launch: Launch) -> list[str]:
    return [str(launch.executable), str(launch.port)]


BASELINE = Peer(
    product=Product.BASELINE,
    title="bare hyper {hyper}",
    interpreters=(Interpreter.NATIVE,),
    # Every route gets the same bytes; asking for more than these would say nothing.
    endpoints=frozenset({Endpoint.SYNC, Endpoint.PLAIN}),
    command=_command,
    remark="no Python, the same fixed bytes for every route: the floor, not a framework",
)
