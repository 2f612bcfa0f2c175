import pytest

from profiling import records
from profiling.scale import curves
from profiling.scale import record as shown
from profiling.scale.record import Sample, Scale, Skipped


def sample(curve: str, value: int, rate: float, turn: int, each: float | None = None) -> Sample:
    return Sample(
        curve=curve,
        interpreter="3.14t",
        value=value,
        round=turn,
        rate=rate,
        cpu_us=10.0,
        p50_us=500.0,
        p99_us=900.0,
        bytes_each=each,
        timeouts=0,
    )


@pytest.fixture
def record() -> Scale:
    made = records.begin(Scale, "scale", quick=False, seconds=3, warmup_seconds=1, rounds=3)
    for turn, part in enumerate((1.0, 0.9, 0.95)):
        made.samples += [
            sample("cpu", 1, 100.0, turn),
            sample("cpu", 2, 200.0 * part, turn),
            sample("routes", 1, 1_000.0, turn),
            sample("routes", 5_000, 900.0, turn, each=2_048.0),
        ]
    made.skipped.append(Skipped("waiting", "3.14t", 50_000, "too few open files"))
    return made


def test_a_speed_up_is_the_median_of_the_rounds(record: Scale) -> None:
    one, two = shown.cells(record, curves.CPU, "3.14t")
    assert (one.speed_up, two.speed_up) == (1.0, 1.9)
    assert two.speed_up_noise == pytest.approx(0.1)


def test_only_speed_ups_are_judged_by_how_near_the_ideal_they_come(record: Scale) -> None:
    (verdict,) = shown.judge(record)
    assert (verdict.row, verdict.measured, verdict.reached) == ("scale-cpu", 0.95, True)


def test_the_tables_say_what_grew_what_it_weighs_and_what_was_skipped(record: Scale) -> None:
    text = shown.document(record)
    assert "CPU-bound handler" in text
    assert "1.90" in text
    assert "2,048" in text
    assert "Skipped: waiting 50,000 on 3.14t: too few open files" in text


def test_a_speed_up_is_drawn_beside_the_ideal(record: Scale) -> None:
    speed_up, routes = shown.charts(record)
    assert [line.name for line in speed_up.lines] == ["Treadle", "ideal"]
    assert [point.values[0] for point in speed_up.lines[1].points] == [1.0, 2.0]
    assert [line.name for line in routes.lines] == ["Treadle"]
    for chart in (speed_up, routes):
        for line in chart.lines:
            assert all(len(point.values) == len(chart.metrics) for point in line.points)
