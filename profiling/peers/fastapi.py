"""FastAPI on uvicorn, with uvloop and httptools."""

from profiling.interpreters import PYTHONS
from profiling.peers.base import ALL_ENDPOINTS, Launch, Peer, Product


def _command(launch: Launch) -> list[str]:
    return [
        str(launch.executable),
        *("-m", "uvicorn", "profiling.apps.fastapi_app:app", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(launch.port)),
        *("--loop", "uvloop", "--http", "httptools"),
        # Five seconds by default: too short to hold thousands of idle connections and weigh them.
        *("--timeout-keep-alive", "75"),
        *("--no-access-log", "--log-level", "warning"),
    ]


FASTAPI = Peer(
    product=Product.FASTAPI,
    title="FastAPI {fastapi} on uvicorn {uvicorn}",
    interpreters=PYTHONS,
    endpoints=ALL_ENDPOINTS,
    command=_command,
    packages=("fastapi", "uvicorn", "uvloop", "httptools"),
    modules=("fastapi", "uvicorn", "uvloop", "httptools"),
    remark="uvloop and httptools",
)
