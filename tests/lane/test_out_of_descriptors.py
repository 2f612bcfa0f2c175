"""What making and running our loop raises when the process has no descriptor left."""

from __future__ import annotations

import errno
from contextlib import closing

import pytest
from support.loops import open_descriptors, room_for

from treadle import EventLoop


@pytest.mark.parametrize("count", range(3))
def test_a_loop_that_cannot_be_made_says_so_and_leaves_nothing(count: int) -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="Too many open files") as raised, room_for(count):
        EventLoop()
    assert raised.value.errno == errno.EMFILE
    assert open_descriptors() == before


def test_a_loop_that_cannot_run_says_so_and_runs_later() -> None:
    """Whichever descriptor it is that the runtime or the turn does not get."""
    with closing(EventLoop()) as loop:
        errors: list[OSError] = []
        done = False
        while not done:
            loop.call_soon(loop.stop)
            try:
                with room_for(len(errors)):
                    loop.run_forever()
                done = True
            except OSError as error:
                errors.append(error)
    assert {error.errno for error in errors} == {errno.EMFILE}
    # The runtime's, and for the turn the descriptor of what is watched and the timer's.
    assert len(errors) > 3
