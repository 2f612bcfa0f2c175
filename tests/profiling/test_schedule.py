from profiling.interpreters import PYTHONS, Interpreter
from profiling.peers import Product, entrants
from profiling.ratios import LANES, PAIRS, ROWS
from profiling.schedule import in_round, main_connections, plan, slices

BOTH = list(PYTHONS)
EVERYBODY = entrants(frozenset(Product), PYTHONS)


def test_the_halves_of_a_ratio_stand_side_by_side_in_every_round() -> None:
    groups = plan(EVERYBODY, BOTH, ROWS, (64,), only_rows=True)
    for turn in range(2):
        for above, below in in_round(groups, turn):
            assert above.what.row == below.what.row is not None


def test_every_second_round_turns_them_about() -> None:
    groups = plan(EVERYBODY, [Interpreter.FREE_THREADED], PAIRS[:1], (64,), only_rows=True)
    (there,), (back,) = in_round(groups, 0), in_round(groups, 1)
    assert there == back[::-1]
    assert [step.what.scenario.name for step in there] == ["/async", "/sync"]


def test_the_halves_take_turns_of_a_second() -> None:
    taken = list(slices(["A", "B"], 4))
    assert "".join(half for half, _ in taken) == "ABBAABBA"
    assert {seconds for _, seconds in taken} == {1}


def test_what_stands_alone_is_measured_at_a_stretch() -> None:
    assert list(slices(["A"], 4)) == [("A", 4)]


def test_a_pair_needs_both_of_its_servers() -> None:
    alone = entrants(frozenset({Product.TREADLE}), PYTHONS)
    rows = {step.what.row for group in plan(alone, BOTH, PAIRS, (64,), True) for step in group}
    assert rows == {
        "async-to-sync",
        "sleep0-to-sync",
        "pipelined-async-to-sync",
        "pipelined-sleep0-to-sync",
        "items-to-plain",
    }


def test_lanes_are_compared_where_threads_are_free() -> None:
    groups = plan(EVERYBODY, BOTH, [LANES], (64,), only_rows=True)
    told = [(s.entrant.label, s.what.lanes, s.what.both_cores) for g in groups for s in g]
    assert told == [("treadle 3.14t", 2, True), ("treadle 3.14t", 1, True)]


def test_what_a_ratio_measures_anyway_is_not_measured_again() -> None:
    groups = plan(EVERYBODY, BOTH, ROWS, (8, 64), only_rows=False)
    rest = [group[0] for group in groups if group[0].what.row is None]
    again = [
        step
        for step in rest
        if step.entrant.label == "treadle 3.14t"
        and (step.what.scenario.name, step.what.connections) == ("/sync", 64)
    ]
    assert again == []
    assert len({(s.entrant.label, s.what) for s in rest}) == len(rest)


def test_every_server_is_measured_only_at_what_it_serves() -> None:
    for group in plan(EVERYBODY, BOTH, ROWS, (8, 64, 256), only_rows=False):
        for step in group:
            assert step.entrant.peer.serves(step.what.scenario)


def test_ratios_are_taken_at_64_connections_where_that_is_a_load() -> None:
    assert main_connections((8, 64, 256)) == 64
    assert main_connections((8, 256)) == 8
