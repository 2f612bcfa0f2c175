"""A lane as handlers see it."""

from dataclasses import dataclass, field

from treadle.datastructures import State


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """One thread that serves: its number and what its lifespan keeps for its handlers."""

    index: int
    """Position in the process, from 0."""
    state: State = field(default_factory=State, repr=False)
    """What belongs to the lane's own event loop: connection pools, clients, locks."""
