"""The pages in a real browser: nothing on the console, nothing fetched, readable everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import browser
from support.browser import Browser

from profiling import html
from profiling.html import Axis, BarRow, Bars, Line, Lines, Metric, Page, Point, Table, comparison
from profiling.results import LeftOut, Result, Sample, Start, Verdict, Weight

MakeSample = Callable[..., Sample]

pytestmark = pytest.mark.slow

PHONE = (390, 844)
DESK = (1200, 900)

ALL_KINDS = Page(
    title="</script><b>A page",
    facts=["<i>facts</i>"],
    warnings=["QUICK: proves nothing."],
    sections=[
        Bars(
            "Bars",
            [Metric("requests/s"), Metric("P99", "ms", 2)],
            ["/sync", "/async"],
            [
                BarRow("ours", "3.14t", ours=True, values={"/sync": [1e6, 0.5], "/async": [10, 1]}),
                BarRow("theirs", "3.14", values={"/sync": [None, 2.5], "/async": [8, None]}),
            ],
            hidden=["/async"],
        ),
        Lines(
            "Lines",
            Axis("lanes", log=True),
            [Metric("speed-up", "x", 1)],
            [
                Line("ideal", [Point(1, [1]), Point(8, [8])], dashed=True),
                Line("cpu", [Point(1, [1], 0.9, 1.1), Point(8, [6], 5, 7, mark="regression")]),
                Line("one point", [Point(2, [2])]),
                Line("nothing", [Point(2, [None])]),
            ],
        ),
        Table("Table", ["name", "n"], [["a", "1,000 pass"], ["b", "20 miss"], ["c", "-"]]),
    ],
    notes=["a & b"],
)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    lacking = browser.missing()
    if lacking:
        pytest.skip(lacking)
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def shown(chromium: Browser, tmp_path: Path) -> Callable[..., Browser]:
    """`shown(page)` is the browser with that page in it."""

    def show(page: Page, *, screen: tuple[int, int] = DESK, dark: bool = False) -> Browser:
        file = tmp_path / "page.html"
        file.write_text(html.render(page))
        chromium.console()
        chromium.screen(*screen, dark=dark)
        chromium.open(file)
        return chromium

    return show


@pytest.mark.parametrize("screen", [PHONE, DESK])
@pytest.mark.parametrize("dark", [False, True])
def test_every_kind_of_section_is_drawn_without_a_word_on_the_console(
    shown: Callable[..., Browser], tmp_path: Path, screen: tuple[int, int], dark: bool
) -> None:
    page = shown(ALL_KINDS, screen=screen, dark=dark)
    assert page.console() == []
    assert page.run("return document.querySelectorAll('section').length") == 3
    assert page.run("return document.querySelectorAll('path.series').length") == 3
    assert page.run("return document.querySelectorAll('circle.marked').length") == 1
    # Nothing sticks out sideways: what is wide scrolls in its own frame.
    assert page.run("return document.documentElement.scrollWidth") == screen[0]
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(13, 17, 23)") == dark
    page.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_words_of_a_result_are_never_markup(shown: Callable[..., Browser]) -> None:
    page = shown(ALL_KINDS)
    assert page.run("return document.title") == "</script><b>A page"
    assert page.run("return document.querySelector('h1').textContent") == "</script><b>A page"
    assert page.run("return document.querySelectorAll('h1 b, .facts i').length") == 0


def test_buttons_choose_quantity_side_and_series(shown: Callable[..., Browser]) -> None:
    page = shown(ALL_KINDS)

    def press(words: str) -> None:
        page.run(
            f"[...document.querySelectorAll('button')].find(b => b.textContent === '{words}').click()"
        )

    def values() -> list[str]:
        return list(
            page.run("return [...document.querySelectorAll('.bar .value')].map(v => v.textContent)")
        )

    assert values() == ["1,000,000"]
    press("/async")
    assert values() == ["1,000,000", "10", "8"]
    press("P99")
    assert values() == ["0.50 ms", "1.00 ms", "2.50 ms"]
    press("3.14")
    assert values() == ["2.50 ms"]
    press("/sync")
    press("/async")
    assert values() == []
    assert page.console() == []


def test_a_pointer_over_a_chart_is_told_the_figures(shown: Callable[..., Browser]) -> None:
    page = shown(ALL_KINDS)
    page.run(
        "const svg = document.querySelector('svg'); const box = svg.getBoundingClientRect();"
        "svg.dispatchEvent(new PointerEvent('pointermove', {clientX: box.right - 5, clientY: 200}))"
    )
    told = page.run("return document.getElementById('tip').innerText")
    assert "8 lanes" in told
    assert "cpu (regression)" in told
    assert "6.0 x" in told


def test_a_table_sorts_by_the_column_that_is_tapped(shown: Callable[..., Browser]) -> None:
    page = shown(ALL_KINDS)
    cells = "return [...document.querySelectorAll('tbody td.first')].map(c => c.textContent)"
    page.run("document.querySelectorAll('th')[1].click()")
    assert page.run(cells) == ["a", "b", "c"]
    page.run("document.querySelectorAll('th')[1].click()")
    assert page.run(cells) == ["c", "b", "a"]


def test_the_button_overrules_what_the_device_prefers(shown: Callable[..., Browser]) -> None:
    page = shown(ALL_KINDS, dark=True)
    page.run("document.getElementById('theme').click()")
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert background == "rgb(246, 247, 249)"


def test_a_comparison_is_a_page(
    shown: Callable[..., Browser], result: Result, make_sample: MakeSample
) -> None:
    result.quick = True
    result.samples = [
        make_sample(server, scenario, rate, connections=connections)
        for connections in (8, 64, 256)
        for server, rate in (("treadle 3.14t", 154_000.0), ("fastapi 3.14t", 4_400.0))
        for scenario in ("/sync", "/async", "/sleep0", "/sleep")
    ]
    result.verdicts = [Verdict("async-to-sync", "3.14t", 0.981, [0.981], 0.99, True)]
    result.weights = [Weight("treadle 3.14t", 9_523.2, [9_523.2], 4_000)]
    result.starts = [Start("fastapi 3.14t", 645.0, [645.0])]
    result.left_out = [LeftOut("robyn 3.14", "pip failed")]
    page = shown(comparison.page(result), screen=PHONE, dark=True)
    assert page.console() == []
    text = page.run("return document.body.innerText")
    for words in ("0.981 pass", "154,000", "9.3 KiB", "645 ms", "QUICK", "Left out: robyn 3.14"):
        assert words in text


def test_a_comparison_that_measured_nothing_is_still_a_page(
    shown: Callable[..., Browser], result: Result
) -> None:
    page = shown(comparison.page(result))
    assert page.console() == []
    assert "PARTIAL: not finished" in page.run("return document.body.innerText")
