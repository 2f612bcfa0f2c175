"""granian, serving a bare function: no framework on top, so it has no `def` handlers."""

from profiling.interpreters import PYTHONS
from profiling.peers.base import ASYNC_ENDPOINTS, Launch, Peer, Product

# uvloop and the single-threaded runtime were its fastest settings, on both interpreters.
_OPTIONS = (
    *("--host", "127.0.0.1", "--workers", "1", "--http", "1", "--no-ws"),
    *("--loop", "uvloop", "--runtime-mode", "st"),
    # 1,024 by default, and idle connections count: too few to hold thousands and weigh them.
    *("--backpressure", "8192"),
    *("--no-access-log", "--log-level", "error"),
)


def _rsgi(launch: Launch) -> list[str]:
    return _command(launch, "rsgi", "profiling.apps.granian_app:rsgi")


def _asgi(launch: Launch) -> list[str]:
    return _command(launch, "asginl", "profiling.apps.granian_app:asgi")


def _command(launch: Launch, interface: str, app: str) -> list[str]:
    return [
        str(launch.executable),
        *("-m", "granian", app, "--interface", interface, "--port", str(launch.port)),
        *_OPTIONS,
    ]


GRANIAN_RSGI = Peer(
    product=Product.GRANIAN_RSGI,
    title="granian {granian}, RSGI",
    interpreters=PYTHONS,
    endpoints=ASYNC_ENDPOINTS,
    command=_rsgi,
    packages=("granian", "uvloop", "msgspec"),
    modules=("granian", "uvloop", "msgspec"),
    remark="a bare function on uvloop, no framework, so no def handlers",
)

GRANIAN_ASGI = Peer(
    product=Product.GRANIAN_ASGI,
    title="granian {granian}, ASGI",
    interpreters=PYTHONS,
    endpoints=ASYNC_ENDPOINTS,
    command=_asgi,
    packages=("granian", "uvloop", "msgspec"),
    modules=("granian", "uvloop", "msgspec"),
    remark="a bare function on uvloop, no framework, so no def handlers",
)
