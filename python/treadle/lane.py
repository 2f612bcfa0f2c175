"""A lane as handlers see it."""

from msgspec import Struct, field

from treadle.datastructures import State


class Lane(Struct, frozen=True, eq=False):
    """One thread that serves: its number and what its lifespan keeps for its handlers."""

    index: int
    """Position in the process, from 0."""
    state: State = field(default_factory=State)
    """What belongs to the lane's own event loop: connection pools, clients, locks."""

    def __repr__(self) -> str:
        return f"Lane(index={self.index})"
