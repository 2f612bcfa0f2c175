from xml.etree import ElementTree

import pytest

from profiling import lines, records
from profiling.html import Bars
from profiling.mixed import record as shown
from profiling.mixed.record import Mixed, Sample, Subject


@pytest.fixture
def record() -> Mixed:
    made = records.begin(
        Mixed,
        "mixed",
        quick=False,
        waits=4,
        wait_us=2_000,
        compute_us=200.0,
        turns=4_000,
        connections=64,
        seconds=4,
        warmup_seconds=1,
        rounds=3,
        server_cores="0,1",
        load_cores="0,1",
    )
    for name, ours in (("treadle-async", True), ("gevent", False)):
        made.subjects.append(Subject(name, name.title(), "3.14", "3.14.7", True, "processes", ours))
        for size in (1, 2, 4):
            for turn in range(3):
                rate = (200.0 if ours else 100.0) * size + turn
                made.samples.append(
                    Sample(
                        strategy=name,
                        interpreter="3.14",
                        size=size,
                        round=turn,
                        rate=rate,
                        cpu_us=300.0,
                        p50_us=9_000.0,
                        p95_us=10_000.0,
                        p99_us=12_000.0,
                        rss=30 * 2**20,
                        pss=20 * 2**20,
                        processes=size,
                        timeouts=0,
                    )
                )
    return made


def test_the_table_has_each_strategy_at_its_best(record: Mixed) -> None:
    text = shown.document(record)
    assert "| Treadle-Async" in text
    assert "4 processes" in text
    assert "801" in text
    assert "12.0 ms" in text
    assert "20 MiB" in text


def test_a_cell_is_the_median_of_its_rounds(record: Mixed) -> None:
    cells = shown.cells(record, record.subjects[1])
    assert [(cell.size, cell.rate) for cell in cells] == [(1, 101.0), (2, 201.0), (4, 401.0)]


def test_the_verdict_is_our_best_over_theirs_in_each_round(record: Mixed) -> None:
    (verdict,) = shown.judge(record)
    assert (verdict.row, verdict.interpreter) == ("mixed-to-best-other", "3.14")
    assert verdict.rounds == [800 / 400, 801 / 401, 802 / 402]
    assert verdict.reached


def test_there_is_a_chart_for_each_build(record: Mixed) -> None:
    charts = shown.charts(record)
    assert [chart.title for chart in charts] == ["CPython 3.14"]
    picture = ElementTree.fromstring(lines.draw("Mixed", charts, "remark"))
    words = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Mixed", "CPython 3.14", "Treadle-Async", "Gevent", "remark"} <= set(words)


def test_the_bars_of_the_best_strategies_are_told_apart(record: Mixed) -> None:
    best = shown.page(record).sections[0]
    assert isinstance(best, Bars)
    assert best.whole


def test_a_record_that_measured_nothing_is_still_a_page(record: Mixed) -> None:
    record.samples = []
    assert shown.page(record).sections == []
    assert shown.judge(record) == []
