"""What a pool says when the process has no descriptor left."""

from __future__ import annotations

import asyncio
import errno
import re
import threading

import pytest
from support.loops import no_room, open_descriptors, room_for
from support.pools import Gate, value, where

from treadle import LoopPool


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_pool_that_cannot_be_made_says_so_and_leaves_nothing(lanes: int) -> None:
    """Whichever descriptor it is that the loops, their runtimes or the turns do not get."""
    LoopPool(lanes).close()
    before, threads = open_descriptors(), threading.active_count()
    errors: list[OSError] = []
    done = False
    while not done:
        try:
            with room_for(len(errors)), LoopPool(lanes) as pool:
                assert pool.spawn(value(7)).result(10) == 7
            done = True
        except OSError as error:
            errors.append(error)
        assert open_descriptors() == before
    assert {error.errno for error in errors} == {errno.EMFILE}
    assert len(errors) > 3 * lanes
    for thread in threading.enumerate():
        if thread.name.startswith("treadle-pool"):
            thread.join(10)
    assert threading.active_count() == threads


async def stop() -> threading.Thread:
    """Has the lane, whose thread this gives, run its loop anew, which takes descriptors."""
    asyncio.get_running_loop().stop()
    return threading.current_thread()


def test_a_lane_that_cannot_go_on_fails_its_handles(caplog: pytest.LogCaptureFixture) -> None:
    ended = r"lane 0 \(thread treadle-pool-\d+-0\) has ended"
    gate = Gate()
    told = threading.Event()
    with LoopPool(1) as pool:
        held = pool.spawn(gate.wait())
        held.add_done_callback(lambda _: told.set())
        gate.wait_entered()
        with no_room():
            pool.spawn(stop()).result(10)
            with pytest.raises(OSError, match="Too many open files") as raised:
                held.result(10)
        assert raised.value.errno == errno.EMFILE
        assert told.wait(10)
        with pytest.raises(RuntimeError, match=ended) as refused:
            pool.spawn(value(1))
        assert refused.value.__cause__ is raised.value
        with pytest.raises(RuntimeError, match=ended):
            pool.map(value, [1])
    assert re.search(r"lane 0 \(thread treadle-pool-\d+-0\) of a LoopPool has ended", caplog.text)


async def _where(_: object) -> str:
    return await where()


def test_other_lanes_go_on() -> None:
    with LoopPool(3) as pool:
        with no_room():
            ended = pool.spawn(stop()).result(10)
            ended.join(10)
        assert not ended.is_alive()
        assert pool.map(value, range(50)) == list(range(50))
        assert ended.name not in pool.map(_where, range(50))
        assert [pool.spawn(value(n)).result(10) for n in range(9)] == list(range(9))
