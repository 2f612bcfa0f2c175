"""TurboAPI, a Zig server with a FastAPI-like surface."""

from profiling.interpreters import Interpreter
from profiling.peers.base import HELLO_ENDPOINTS, Launch, Peer, Product
from profiling.scenarios import Endpoint


def _command(launch: Launch) -> list[str]:
    return [str(launch.executable), "-m", "profiling.apps.turboapi_app", str(launch.port)]


TURBOAPI = Peer(
    product=Product.TURBOAPI,
    title="TurboAPI {turboapi}",
    interpreters=(Interpreter.FREE_THREADED,),
    endpoints=HELLO_ENDPOINTS | {Endpoint.CPU, Endpoint.PLAIN},
    command=_command,
    packages=("turboapi",),
    modules=("turboapi",),
    # It would answer from a cache after the first call; each of the two sides reads its own name.
    environment={
        "TURBO_DISABLE_CACHE": "1",
        "TURBO_DISABLE_RESPONSE_CACHE": "1",
        "TURBO_DISABLE_RATE_LIMITING": "1",
    },
    pipelines=False,
    # A pool of 300 serves all connections and is slower by a sixth: the default is its best.
    remark="24 threads by default, one per connection: further connections wait unanswered, "
    "and its latencies are those of the 24",
)
