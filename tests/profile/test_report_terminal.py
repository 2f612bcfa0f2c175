"""The report as text."""

from __future__ import annotations

import pytest
from support.profiles import made_profile

from treadle.profile import report_terminal, words
from treadle.profile.record import Profile
from treadle.profile.report_terminal import table


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_no_line_is_wider_than_the_terminal(profile: Profile, width: int) -> None:
    text = report_terminal.render(profile, width=width)
    assert max(map(len, text.splitlines())) <= width
    assert text.isascii() is ("·" not in text)


def test_everything_a_reader_looks_for_is_told(profile: Profile) -> None:
    text = report_terminal.render(profile, width=120)
    for told in (
        "main:app",
        "CPython 3.14.7 free-threaded",
        "120 requests/s for 10.0 s (64 at once)",
        "GET /users/{id}  (task, 1,000 requests",
        "suspended",
        "CPU of a request",
        "kernel",
        "async budget",
        "20 us",
        "pyo3-async-runtimes: not installed.",
        "These requests paid 1.61 us for being async",
        "Python stacks seen by py-spy",
        "30 %  Table.render (orm/query.py)",
        "1. GET /users/{id} failed 1.0 % of the time",
    ):
        assert told in text


def test_a_partial_profile_says_so_before_its_figures() -> None:
    text = report_terminal.render(made_profile(partial="the server is gone."))
    assert text.index("PARTIAL: the server is gone.") < text.index("requests/s")


def test_a_profile_that_found_nothing_is_still_a_report(profile: Profile) -> None:
    text = report_terminal.render(Profile(origin=profile.origin))
    assert "main:app" in text


def test_a_table_gives_up_columns_until_it_fits() -> None:
    head, rows = ["stage", "p50", "p99", "max"], [["run", "1 ms", "2 ms", "3 ms"]]
    assert table(head, rows, 80) == ["stage   p50   p99   max", "run    1 ms  2 ms  3 ms"]
    assert table(head, rows, 20) == ["stage   p50   p99", "run    1 ms  2 ms"]
    assert table(head, rows, 4) == ["stage   p50", "run    1 ms"]
    assert table(["a long name", "p50"], [["run", "1 ms"]], 14) == [
        "a long n   p50",
        "run       1 ms",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (3e-9, "3 ns"),
        (9.996e-7, "1.00 us"),
        (1.23456e-5, "12.3 us"),
        (0.00456, "4.56 ms"),
        (0.09999, "100 ms"),
        (1.2, "1.20 s"),
        (250.0, "250 s"),
    ],
)
def test_durations_have_three_digits_and_the_unit_that_fits(value: float, text: str) -> None:
    assert words.seconds(value) == text


def test_shares_sizes_and_counts_as_words() -> None:
    assert [words.share(part) for part in (0, 0.0001, 0.034, 0.0996, 0.5, 1)] == [
        *("0 %", "< 0.1 %", "3.4 %", "10 %", "50 %", "100 %")
    ]
    assert [words.bytes_(n) for n in (12, 2048, 60 << 20, 3 << 30)] == [
        *("12.0 B", "2.00 KiB", "60.0 MiB", "3.00 GiB")
    ]
    assert [words.count(n) for n in (0, 0.5, 3, 1234.4)] == ["0", "0.5", "3", "1,234"]
    assert words.nanoseconds(None) == "-"
