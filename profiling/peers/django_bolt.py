"""django-bolt: actix under Django's project layout."""

from profiling.interpreters import Interpreter
from profiling.peers.base import ALL_ENDPOINTS, Launch, Peer, Product


def _command(launch: Launch) -> list[str]:
    return [
        str(launch.executable),
        *("-m", "django", "runbolt", "--settings", "profiling.apps.django_bolt_settings"),
        *("--host", "127.0.0.1", "--port", str(launch.port)),
        *("--processes", "1", "--workers", "1", "--no-admin", "--skip-checks"),
    ]


DJANGO_BOLT = Peer(
    product=Product.DJANGO_BOLT,
    title="django-bolt {django-bolt}",
    interpreters=(Interpreter.GIL,),
    endpoints=ALL_ENDPOINTS,
    command=_command,
    packages=("django-bolt",),
    modules=("django_bolt._core",),
)
