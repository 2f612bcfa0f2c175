from collections.abc import Callable
from xml.etree import ElementTree

import msgspec

from profiling import chart, report
from profiling.html import comparison
from profiling.results import LeftOut, Result, Sample, Start, Verdict, Weight
from treadle.profile.html import Table

MakeSample = Callable[..., Sample]


def test_cells_are_medians_and_leave_out_what_had_two_cores(make_sample: MakeSample) -> None:
    samples = [make_sample("treadle 3.14t", "/cpu", 15_000.0, row="lanes", lanes=2)]
    samples += [make_sample("treadle 3.14t", "/sync", rate) for rate in (100.0, 300.0, 200.0)]
    known = report.cells(samples)
    assert list(known) == [("treadle 3.14t", "/sync", 64)]
    cell = known["treadle 3.14t", "/sync", 64]
    assert (cell.rate, cell.rate_spread) == (200.0, 1.0)


def test_the_ratio_table_says_what_was_reached_and_what_missed(result: Result) -> None:
    result.verdicts = [
        Verdict("async-to-sync", "3.14t", 0.981, [0.981], 0.99, True),
        Verdict("async-to-sync", "3.14", 0.95, [0.95], 0.94, False),
        Verdict("memory", "3.14t", 9.5, [9.5], None, True),
    ]
    lines = report.ratio_table(result).splitlines()
    assert [" ".join(line.replace("|", " ").split()) for line in lines if "--" not in line] == [
        "ratio to reach 3.14t by CPU 3.14 by CPU",
        "/async to /sync >= 0.97 0.981 0.99 pass 0.950 0.94 miss",
        "idle keep-alive connection, memory <= 10 KiB 9.5 - pass - -",
    ]


def test_an_older_result_is_judged_by_what_is_to_be_reached_now(result: Result) -> None:
    # It was enough then: the file says so.
    result.verdicts = [Verdict("async-to-sync", "3.14t", 0.90, [0.90], 0.90, True)]
    assert "miss |" in report.ratio_table(result)
    assert "pass" not in report.ratio_table(result)
    table = next(each for each in comparison.page(result).sections if isinstance(each, Table))
    assert table.note.startswith("0 of 1 reached.")


def test_nothing_measured_is_no_table(result: Result) -> None:
    assert report.ratio_table(result) == ""
    assert report.overview(result) == ""
    assert report.latencies(result) == ""
    assert report.quantities(result) == ""
    assert report.absolutes(result) == ""


def test_a_document_names_machine_commit_and_what_is_wrong_with_it(result: Result) -> None:
    result.left_out = [LeftOut("robyn 3.14", "pip failed")]
    text = report.document(result)
    assert "2026-11-20, commit 0123456789ab; a CPU, 2 cores" in text
    assert "Treadle 0.1.0 (release build) on CPython 3.14.7, GIL off" in text
    assert "PARTIAL: not finished" in text
    assert "Left out: robyn 3.14: pip failed." in text


def test_a_document_says_how_the_halves_took_turns(result: Result) -> None:
    assert "ratios of neighbours.\n" in report.document(result)  # as before there were slices
    result.method = msgspec.structs.replace(result.method, slice_seconds=1)
    assert "ratios of neighbours of 1 s.\n" in report.document(result)


def test_the_overview_has_a_line_for_every_server(result: Result, make_sample: MakeSample) -> None:
    result.samples = [
        make_sample("treadle 3.14t", "/sync", 154_000.0, cpu_us=6.2),
        make_sample("treadle 3.14t", "/sleep", 20_000.0, p50_us=2_790.0),
        make_sample("fastapi 3.14t", "/async", 11_000.0, cpu_us=90.0),
    ]
    text = report.overview(result)
    assert "154,000 (6.2)" in text
    assert "2.79 ms" in text
    # The GIL came back on where it should be off: a reader must see that.
    assert "3.14t, GIL on" in text
    assert "FastAPI 0.165.0: uvloop and httptools." in text


def test_quantities_show_memory_and_start(result: Result) -> None:
    result.weights = [Weight("treadle 3.14t", 9_523.2, [9_523.2], 4_000)]
    result.starts = [Start("fastapi 3.14t", 645.0, [645.0])]
    text = report.quantities(result)
    assert "9.3 KiB" in text
    assert "645 ms" in text


def test_every_row_of_a_table_is_equally_wide() -> None:
    lines = report.table(["a", "b"], [["long cell", "1"], ["x", "1,000"]], left=1).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| --------- | ----: |"


def test_the_chart_is_well_formed_and_shows_every_server(
    result: Result, make_sample: MakeSample
) -> None:
    result.samples = [
        make_sample("treadle 3.14t", "/sync", 154_000.0, cpu_us=6.0),
        make_sample("treadle 3.14t", "/async", 151_000.0, cpu_us=6.5),
        make_sample("fastapi 3.14t", "/sync", 4_400.0, cpu_us=227.0),
    ]
    picture = ElementTree.fromstring(chart.draw(result))
    words = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Treadle 0.1.0", "FastAPI 0.165.0", "154,000", "227.0"} <= set(words)


def test_the_chart_of_nothing_is_still_a_picture(result: Result) -> None:
    assert ElementTree.fromstring(chart.draw(result)).tag.endswith("svg")


def test_both_builds_stand_side_by_side_where_a_product_ran_on_both(
    result: Result, make_sample: MakeSample
) -> None:
    assert report.sides(result) == ""
    gil = msgspec.structs.replace(result.servers[0], label="treadle 3.14", interpreter="3.14")
    result.servers.append(gil)
    result.samples = [
        make_sample("treadle 3.14t", "/sync", 90_000.0, cpu_us=8.0),
        make_sample("treadle 3.14", "/sync", 120_000.0, cpu_us=6.0),
        make_sample("fastapi 3.14t", "/sync", 4_000.0),
    ]
    lines = report.sides(result).splitlines()
    assert " ".join(lines[-1].replace("|", " ").split()) == (
        "Treadle 0.1.0 /sync 90,000 120,000 0.75 8.0 6.0"
    )
    assert len(lines) == 5
