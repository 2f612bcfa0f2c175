"""What `faulthandler` writes, read as stacks."""

from __future__ import annotations

import threading
from collections import Counter

from treadle.profile.flame import Place, Stack
from treadle.profile.watcher import Watcher, stacks

TEXT = """Thread 0x00000000000000ff [named by the system] (most recent call first):
  File "/srv/main.py", line 7 in inner
  File "/srv/a, b.py", line 3 in outer"""


def test_stacks_are_read_from_the_outermost_frame_on() -> None:
    places = (Place("outer", "/srv/a, b.py", 3), Place("inner", "/srv/main.py", 7))
    assert stacks(Counter({TEXT: 4}), {}) == [(Stack("named by the system", places), 4)]
    assert stacks(Counter({TEXT: 4}), {255: "lane"}) == [(Stack("lane", places), 4)]


def test_the_watcher_itself_and_what_is_no_stack_are_left_out() -> None:
    own = 'Current thread 0x01 (most recent call first):\n  File "watcher.py", line 1 in _look'
    older = 'Thread 0x02 (most recent call first):\n  File "x.py", line ??? in f\n  ...'
    found = stacks(Counter({own: 1, "nonsense": 1, older: 2}), {})
    assert found == [(Stack("thread", (Place("f", "x.py", 0),)), 2)]


def test_it_sees_a_thread_of_its_process() -> None:
    stop = threading.Event()

    def stand_here() -> None:
        stop.wait()

    thread = threading.Thread(target=stand_here, name="standing")
    thread.start()
    watcher = Watcher(500.0)
    watcher.start()
    while watcher.samples < 3:
        threading.Event().wait(0.001)
    found = watcher.stop()
    stop.set()
    thread.join()
    standing = [stack for stack, _ in found if stack.thread == "standing"]
    assert any(place.function == "stand_here" for stack in standing for place in stack.places)
