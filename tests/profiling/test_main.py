from pathlib import Path

import pytest

from profiling.__main__ import main


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["compare", "--rounds", "2"], "--rounds must be at least 3"),
        (["compare", "--only", "speed"], "no row is called 'speed'"),
        (["compare", "--peers", "gunicorn"], "no peer is called 'gunicorn'"),
        (["compare", "--python", "2.7"], "no side is called '2.7'"),
        (["compare", "--connections", "0"], "must be at least 1"),
        (["mixed", "--only", "twisted"], "no strategy is called 'twisted'"),
        (["mixed", "--sizes", "0"], "must be at least 1"),
        (["scale", "--only", "height"], "no curve is called 'height'"),
        (["soak", "--minutes", "0"], "must be more than 0"),
        (["soak", "--port", "70000"], "must be between 1 and 65535"),
        (["history", "--loud"], "unrecognized arguments: --loud"),
        ([], "the following arguments are required"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 2
    assert said in capsys.readouterr().err


def test_what_stops_a_comparison_is_one_sentence_and_a_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert main(["compare", "--quick"]) == 1
    said = capsys.readouterr().err
    assert said == "profiling: wrk is not installed: it is in Debian's package wrk.\n"


def test_a_report_of_no_file_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["report", str(tmp_path / "none.json")]) == 1
    assert "cannot be read" in capsys.readouterr().err
