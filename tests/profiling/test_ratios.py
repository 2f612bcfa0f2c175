from collections.abc import Callable

import pytest

from profiling import results
from profiling.interpreters import Interpreter
from profiling.paths import RESULTS
from profiling.ratios import LANES, MEMORY, PAIRS, ROWS, STARTUP, Pair
from profiling.results import Sample

MakeSample = Callable[..., Sample]

FREE_THREADED, GIL = Interpreter.FREE_THREADED, Interpreter.GIL


def row(name: str) -> Pair:
    return next(pair for pair in PAIRS if pair.name == name)


def test_the_table_asks_what_was_promised() -> None:
    asked = {pair.name: pair.at_least for pair in PAIRS}
    assert asked == {
        "async-to-sync": 0.97,
        "sync-to-hyper": 0.95,
        "sleep0-to-sync": 0.90,
        "sync-to-turboapi": 1.5,
        "async-to-turboapi": 1.8,
        "sleep0-to-turboapi": 2.5,
        "async-to-granian": 1.8,
        "async-to-fastapi": 11.0,
        "pipelined-sync-to-hyper": 0.6,
        "pipelined-async-to-sync": 0.75,
        "pipelined-sleep0-to-sync": 0.45,
        "sync-telemetry": 0.98,
        "async-telemetry": 0.98,
        "items-to-plain": 0.8,
    }
    assert (LANES.at_least, MEMORY.at_most, STARTUP.at_most) == (1.9, 10.0, 150.0)
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_a_pair_is_judged_by_the_median_of_its_rounds(make_sample: MakeSample) -> None:
    samples = []
    for turn, (above, below) in enumerate([(97.0, 100.0), (60.0, 61.0), (50.0, 100.0)]):
        for scenario, rate in (("/async", above), ("/sync", below)):
            samples.append(
                make_sample("treadle 3.14t", scenario, rate, turn=turn, row="async-to-sync")
            )
    verdict = row("async-to-sync").judge(samples, FREE_THREADED)
    assert verdict is not None
    assert verdict.measured == pytest.approx(0.97)
    assert verdict.reached
    assert len(verdict.rounds) == 3


def test_the_slices_of_all_rounds_count_alike(make_sample: MakeSample) -> None:
    # In the first two rounds somebody disturbed one slice: of the sums it would be 3.7 and 0.4.
    rounds = [
        ([(10.0, 6.0), (90.0, 6.0), (10.0, 6.0)], [(10.0, 3.0), (10.0, 3.0), (10.0, 3.0)]),
        ([(20.0, 6.0), (20.0, 6.0), (20.0, 6.0)], [(20.0, 3.0), (99.0, 6.0), (20.0, 9.0)]),
        ([(10.0, 6.0), (10.0, 6.0), (10.0, 6.0)], [(20.0, 3.0), (20.0, 3.0), (20.0, 3.0)]),
    ]
    samples = []
    for turn, (above, below) in enumerate(rounds):
        for scenario, slices in (("/async", above), ("/sync", below)):
            samples.append(
                make_sample(
                    "treadle 3.14t", scenario, 1.0, turn=turn, row="async-to-sync", slices=slices
                )
            )
    verdict = row("async-to-sync").judge(samples, FREE_THREADED)
    assert verdict is not None
    assert (verdict.rounds, verdict.measured) == ([1.0, 1.0, 0.5], 1.0)
    assert verdict.by_cpu == 0.5


def test_all_slices_are_more_than_the_rounds(make_sample: MakeSample) -> None:
    told = {0: [1.0, 1.0, 1.0], 1: [0.5, 0.5, 0.9], 2: [0.5, 0.5, 1.0]}
    samples = []
    for turn, ratios in told.items():
        samples += [
            make_sample(
                "treadle 3.14t",
                "/cpu",
                1.0,
                turn=turn,
                row="lanes",
                lanes=lanes,
                slices=[(ratio if lanes == 2 else 1.0, 6.0) for ratio in ratios],
            )
            for lanes in (2, 1)
        ]
    verdict = LANES.judge(samples, FREE_THREADED)
    assert verdict is not None
    assert verdict.rounds == [1.0, 0.5, 0.5]
    assert verdict.measured == 0.9


def test_a_kept_result_is_judged_again_as_it_was() -> None:
    for file in sorted(RESULTS.glob("[0-9]*.json")):
        result = results.load(file)
        again = [
            verdict
            for kind in (*PAIRS, LANES)
            for side in Interpreter
            if (verdict := kind.judge(result.samples, side)) is not None
        ]
        assert again
        kept = {(verdict.row, verdict.interpreter): verdict for verdict in result.verdicts}
        for verdict in again:
            then = kept[verdict.row, verdict.interpreter]
            assert (verdict.measured, verdict.rounds) == (then.measured, then.rounds)


def test_the_cost_of_telemetry_is_judged_by_cpu(make_sample: MakeSample) -> None:
    samples = [
        make_sample("treadle 3.14t", "/sync", 50.0, cpu_us=5.05, row="sync-telemetry"),
        make_sample("treadle-untimed 3.14t", "/sync", 100.0, cpu_us=5.0, row="sync-telemetry"),
    ]
    verdict = row("sync-telemetry").judge(samples, FREE_THREADED)
    assert verdict is not None
    assert verdict.measured == pytest.approx(5.0 / 5.05)
    assert verdict.reached


def test_what_was_measured_for_another_row_is_not_mixed_in(make_sample: MakeSample) -> None:
    samples = [
        make_sample("treadle 3.14t", "/async", 90.0, row="async-to-sync"),
        make_sample("treadle 3.14t", "/sync", 100.0, row="async-to-sync"),
        make_sample("treadle 3.14t", "/sync", 10.0, row="sync-to-hyper"),
        make_sample("treadle 3.14t", "/sync", 10.0),
    ]
    verdict = row("async-to-sync").judge(samples, FREE_THREADED)
    assert verdict is not None
    assert verdict.measured == pytest.approx(0.9)
    assert not verdict.reached


def test_the_ratio_by_cpu_is_how_much_less_the_numerator_costs(make_sample: MakeSample) -> None:
    samples = [
        make_sample("treadle 3.14t", "/sync", 150.0, row="sync-to-turboapi", cpu_us=6.0),
        make_sample("turboapi 3.14t", "/sync", 95.0, row="sync-to-turboapi", cpu_us=12.0),
    ]
    verdict = row("sync-to-turboapi").judge(samples, FREE_THREADED)
    assert verdict is not None
    assert verdict.by_cpu == pytest.approx(2.0)


def test_the_baseline_stands_beside_both_interpreters(make_sample: MakeSample) -> None:
    samples = [
        make_sample("treadle 3.14", "/sync", 95.0, row="sync-to-hyper"),
        make_sample("baseline", "/sync", 100.0, row="sync-to-hyper"),
    ]
    verdict = row("sync-to-hyper").judge(samples, GIL)
    assert verdict is not None
    assert verdict.measured == pytest.approx(0.95)


def test_a_row_without_its_rival_has_no_verdict(make_sample: MakeSample) -> None:
    alone = [make_sample("treadle 3.14", "/sync", 95.0, row="sync-to-turboapi")]
    assert row("sync-to-turboapi").judge(alone, GIL) is None
    assert row("sync-to-turboapi").judge(alone, FREE_THREADED) is None
    assert row("async-to-sync").judge([], FREE_THREADED) is None


def test_scaling_compares_two_lanes_with_one(make_sample: MakeSample) -> None:
    samples = [
        make_sample("treadle 3.14t", "/cpu", 15_000.0, row="lanes", lanes=2),
        make_sample("treadle 3.14t", "/cpu", 7_500.0, row="lanes", lanes=1),
    ]
    verdict = LANES.judge(samples, FREE_THREADED)
    assert verdict is not None
    assert verdict.measured == 2.0
    assert LANES.judge(samples, GIL) is None


def test_a_ceiling_is_reached_from_below() -> None:
    below, above = MEMORY.judge([9.0, 9.5, 30.0], GIL), MEMORY.judge([10.1], GIL)
    assert below is not None
    assert above is not None
    assert below.reached
    assert not above.reached
    assert MEMORY.judge([], GIL) is None
