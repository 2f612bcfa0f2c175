"""The JSON file, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from treadle.profile import report_json
from treadle.profile.record import SCHEMA, Profile


def test_everything_is_in_the_file_and_comes_back(profile: Profile, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_bytes(report_json.render(profile))
    assert report_json.read(file) == profile
    content = json.loads(file.read_bytes())
    assert content["schema"] == SCHEMA
    origin = content["origin"]
    assert origin["commit"] == "0123456789abcdef"
    assert (origin["python"], origin["build_profile"]) == ("CPython 3.14.7", "release")
    assert origin["machine"]["cores"] == 4


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('{"schema": 999}', "newer Treadle"),
        ('{"schema": 1}', "is no profile"),
        ("[", "is no profile"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_profile_is_refused_in_a_sentence(
    tmp_path: Path, content: str | None, reason: str
) -> None:
    file = tmp_path / "profile.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(report_json.Unreadable, match=reason):
        report_json.read(file)
