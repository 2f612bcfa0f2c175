"""What a comparison of loops found: the shape of its file in results/."""

from pathlib import Path

import msgspec

from profiling.paths import RESULTS
from profiling.results import LeftOut, Machine


class Taken(msgspec.Struct, frozen=True):
    """One measurement of one loop."""

    loop: str
    scenario: str
    round: int
    operations: int
    wall_us: float
    """Microseconds an operation, or an echo, took."""
    cpu_us: float
    """CPU microseconds of the measured process for one."""


class LoopsResult(msgspec.Struct):
    """One comparison of loops on one interpreter."""

    created: str
    commit: str
    dirty: bool
    quick: bool
    machine: Machine
    python: str
    gil: bool
    rounds: int
    seconds: float
    versions: dict[str, str]
    format: int = 1
    partial: str | None = "not finished"
    left_out: list[LeftOut] = msgspec.field(default_factory=list)
    taken: list[Taken] = msgspec.field(default_factory=list)

    def path(self) -> Path:
        """Where it is kept when nobody says."""
        moment = self.created[:19].replace(":", "").replace("-", "").replace("T", "-")
        side = "3.14" if self.gil else "3.14t"
        quick = "-quick" if self.quick else ""
        return RESULTS / f"loops-{side}-{moment}-{self.commit[:8]}{quick}.json"
