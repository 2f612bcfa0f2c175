from collections.abc import Callable
from pathlib import Path

import pytest

from profiling import results
from profiling.errors import ComparisonError
from profiling.results import LeftOut, Result, Sample, Start, Verdict, Weight

MakeSample = Callable[..., Sample]


def test_a_result_comes_back_as_it_was_saved(
    result: Result, make_sample: MakeSample, tmp_path: Path
) -> None:
    result.samples = [
        make_sample("treadle 3.14t", "/sync x16", 1.5, p50_us=None),
        make_sample("treadle 3.14t", "/sync", 1.5, slices=[(1.0, 6.0), (2.0, 6.5)]),
    ]
    result.verdicts = [Verdict("async-to-sync", "3.14t", 0.97, [0.97], 0.98, True)]
    result.weights = [Weight("treadle 3.14t", 9_000.0, [9_000.0], 4_000)]
    result.starts = [Start("treadle 3.14t", 65.0, [65.0])]
    result.left_out = [LeftOut("robyn 3.14", "pip failed")]
    file = tmp_path / "deep" / "result.json"
    results.save(result, file)
    assert results.load(file) == result
    assert [left.name for left in file.parent.iterdir()] == ["result.json"]


def test_a_result_is_partial_until_it_is_said_to_be_whole(result: Result) -> None:
    assert result.partial == "not finished"


def test_a_quick_result_shows_it_in_its_name(result: Result) -> None:
    assert results.default_path(result).name == "20261120-201500-01234567.json"
    result.quick = True
    assert results.default_path(result).name == "20261120-201500-01234567-quick.json"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("not json", "is no result of a comparison"),
        ("{}", "is no result of a comparison"),
    ],
)
def test_a_file_that_is_no_result_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ComparisonError, match=said):
        results.load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match="cannot be read: No such file"):
        results.load(tmp_path / "none.json")


def test_another_format_is_refused(result: Result, tmp_path: Path) -> None:
    result.format = results.FORMAT + 1
    results.save(result, tmp_path / "later.json")
    with pytest.raises(ComparisonError, match="format"):
        results.load(tmp_path / "later.json")


def test_only_whole_results_are_quoted(
    result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    with pytest.raises(ComparisonError, match="no complete comparison"):
        results.newest()
    results.save(result, tmp_path / "3-partial.json")
    result.partial = None
    results.save(result, tmp_path / "1-whole.json")
    result.quick = True
    results.save(result, tmp_path / "2-quick.json")
    assert results.newest().name == "1-whole.json"
