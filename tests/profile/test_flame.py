"""From stacks to a flame graph."""

from __future__ import annotations

import os

from support.profiles import collapsed, made_profile

import treadle
from treadle.profile import report_html, report_json
from treadle.profile.flame import Place, Stack, build, hottest, looks
from treadle.profile.record import Flame

LOOP = (
    Place("Thread._bootstrap", "/usr/lib/python3.14/threading.py"),
    Place("EventLoop.run_forever", os.path.join(os.path.dirname(treadle.__file__), "loop.py")),
)
HANDLER = Place("get_user", "/srv/main.py")
POOL = Place("Pool._work", "/srv/treadle/offload.py")
CALL = Place("_make_call", "/srv/treadle/offload.py")
EXECUTOR = Place("_worker", "/usr/lib/python3.14/concurrent/futures/thread.py")
QUERY = Place("query", "/v/lib/python3.14t/site-packages/orm/core.py")


def test_stacks_begin_at_the_handler_and_lanes_are_one() -> None:
    root = build(
        [
            (Stack("treadle-lane-0", (*LOOP, HANDLER, QUERY), running=True), 3),
            (Stack("treadle-lane-1", (*LOOP, HANDLER), running=True), 2),
            # As the interpreter's remote sampling tells it: from native code on.
            (Stack("treadle-lane-1", (HANDLER,), running=True), 1),
        ]
    )
    assert collapsed(root) == [
        "lanes;get_user (/srv/main.py) 3",
        "lanes;get_user (/srv/main.py);query (orm/core.py) 3",
    ]
    assert root.count == 6


def test_what_waits_or_is_no_python_is_left_out() -> None:
    root = build(
        [
            (Stack("treadle-lane-0", LOOP, running=True), 5),
            (Stack("treadle-lane-0", LOOP), 5),
            (Stack("treadle-offload_0", (Place("sleepy", "/srv/main.py"),), running=False), 5),
            (Stack("thread", (Place("Event.wait", "/usr/lib/python3.14/threading.py"),)), 5),
            (Stack("treadle-profile", (HANDLER,)), 5),
            (Stack("treadle-lane-0", ()), 5),
            (Stack("treadle-offload_0", (POOL,), running=True), 5),
            (Stack("asyncio_0", (EXECUTOR,), running=True), 5),
        ]
    )
    assert (root.count, root.children) == (0, [])
    assert hottest(root) == []


def test_offloaded_handlers_have_a_root_of_their_own() -> None:
    root = build([(Stack("treadle-offload_3", (POOL, CALL, HANDLER)), 2)])
    assert collapsed(root) == ["offloaded handlers;get_user (/srv/main.py) 2"]
    root = build([(Stack("asyncio_0", (EXECUTOR, HANDLER)), 2)])
    assert collapsed(root) == ["asyncio_0;get_user (/srv/main.py) 2"]


def test_a_recursion_without_end_has_an_end_in_the_report() -> None:
    stack = Stack("treadle-lane-0", (*LOOP, *[HANDLER] * 5000, QUERY), running=True)
    root = build([(stack, 3)])
    assert hottest(root)[0] == ("query (orm/core.py)", 1.0)
    profile = made_profile(flame=Flame(sampler="py-spy", samples=root.count, root=root))
    assert report_html.render(profile).count(b'"get_user"') == 199
    assert report_json.render(profile).count(b'"get_user"') == 199


def test_the_functions_that_most_stacks_ended_in_come_first() -> None:
    root = build(
        [
            (Stack("worker", (HANDLER, QUERY)), 3),
            (Stack("worker", (QUERY,)), 4),
            (Stack("worker", (HANDLER,)), 3),
        ]
    )
    assert hottest(root) == [("query (orm/core.py)", 0.7), ("get_user (/srv/main.py)", 0.3)]
    [worker] = root.children
    assert [child.name for child in worker.children] == ["get_user", "query"]


def test_how_often_was_looked_is_told_as_far_as_it_is_known() -> None:
    assert looks(Flame(sampler="py-spy", rate=200.0)) == "200 looks a second"
    counted = Flame(sampler="remote", rate=200.0, looks=1_538, failed=2)
    assert looks(counted) == "1,540 looks, 200 a second asked for (2 failed)"
    assert looks(Flame(sampler="remote", rate=99.6, looks=9)) == "9 looks, 100 a second asked for"
