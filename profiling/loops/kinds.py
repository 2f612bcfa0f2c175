"""The loops that are compared, and where each comes from. Imports nothing but the standard library."""

import asyncio
import importlib
from collections.abc import Callable
from enum import Enum


class Kind(Enum):
    """A loop; the value is how tables and options spell it."""

    ASYNCIO = "asyncio"
    UVLOOP = "uvloop"
    ZUVLOOP = "zuvloop"
    RLOOP = "rloop"
    TREADLE = "treadle"

    @property
    def module(self) -> str:
        """The module that has its `new_event_loop`; of asyncio and uvloop alike."""
        return self.value

    def factory(self) -> Callable[[], asyncio.AbstractEventLoop]:
        """What makes one. Raises ImportError where it is not installed."""
        found: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module(
            self.module
        ).new_event_loop
        return found
