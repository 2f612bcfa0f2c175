"""What a peer is: a product to compare with, how it is installed and how it is started."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from profiling.interpreters import Interpreter
from profiling.scenarios import Endpoint, Scenario


class Product(Enum):
    """Who is compared; the value is its name in options, tables and files."""

    TREADLE = "treadle"
    TREADLE_UNTIMED = "treadle-untimed"
    BASELINE = "baseline"
    TURBOAPI = "turboapi"
    GRANIAN_RSGI = "granian-rsgi"
    GRANIAN_ASGI = "granian-asgi"
    FASTAPI = "fastapi"
    DJANGO_BOLT = "django-bolt"
    ROBYN = "robyn"


@dataclass(frozen=True, slots=True)
class Launch:
    """What a command line is made for."""

    executable: Path
    """The Python of the server's venv, or the program itself when it is native."""
    port: int
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class Peer:
    """A product to compare, told once; nothing about it is decided anywhere else."""

    product: Product
    title: str
    """Its name in tables; `{package}` stands for the version of that package."""
    interpreters: tuple[Interpreter, ...]
    endpoints: frozenset[Endpoint]
    command: Callable[[Launch], list[str]]
    packages: tuple[str, ...] = ()
    """What pip installs, the product first; the versions are those of ../requirements."""
    modules: tuple[str, ...] = ()
    """What it imports: tells whether that switches the GIL on."""
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    pipelines: bool = True
    """Whether it answers requests that were sent at once."""
    remark: str = ""

    def serves(self, scenario: Scenario) -> bool:
        """Whether the scenario can be measured here."""
        return scenario.endpoint in self.endpoints and (scenario.depth == 1 or self.pipelines)


@dataclass(frozen=True, slots=True)
class Entrant:
    """A peer on one interpreter: one row of a table."""

    peer: Peer
    interpreter: Interpreter

    @property
    def label(self) -> str:
        """How tables and result files name it."""
        if self.interpreter is Interpreter.NATIVE:
            return self.peer.product.value
        return f"{self.peer.product.value} {self.interpreter.value}"


ASYNC_ENDPOINTS = frozenset({Endpoint.ASYNC, Endpoint.SLEEP0, Endpoint.SLEEP})
HELLO_ENDPOINTS = ASYNC_ENDPOINTS | {Endpoint.SYNC}
ALL_ENDPOINTS = frozenset(Endpoint)
