"""The HTML file in a real browser: nothing on the console, nothing fetched, readable everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from support import browser
from support.browser import Browser
from support.profiles import made_profile

from treadle.profile import report_html
from treadle.profile.record import Flame, Profile

PHONE = (375, 812)
DESK = (1200, 900)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    lacking = browser.missing()
    if lacking:
        pytest.skip(lacking)
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture
def shown(chromium: Browser, tmp_path: Path) -> Callable[..., Browser]:
    """`shown(profile)` is the browser with its report in it."""

    def show(profile: Profile, *, screen: tuple[int, int] = DESK, dark: bool = False) -> Browser:
        file = tmp_path / "profile.html"
        file.write_bytes(report_html.render(profile))
        chromium.console()
        chromium.screen(*screen, dark=dark)
        chromium.open(file)
        return chromium

    return show


@pytest.mark.slow
@pytest.mark.parametrize("screen", [PHONE, DESK], ids=["phone", "desk"])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_report_is_drawn_without_a_word_on_the_console(
    shown: Callable[..., Browser],
    profile: Profile,
    tmp_path: Path,
    screen: tuple[int, int],
    dark: bool,
) -> None:
    page = shown(profile, screen=screen, dark=dark)
    assert page.console() == []
    # Nothing sticks out sideways: what is wide scrolls in its own frame.
    assert page.run("return document.documentElement.scrollWidth") == screen[0]
    assert page.run("return performance.getEntriesByType('resource').length") == 0
    background = page.run("return getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(13, 17, 23)") == dark
    titles = page.run("return [...document.querySelectorAll('h2')].map(h => h.textContent)")
    assert titles == [
        "At a glance",
        "What to do about it",
        "Where a request's time goes",
        "Stages",
        "Latency in ms",
        "Over time",
        "Flame graph",
        "The async budget: claimed and measured",
        "The async budget, beside others",
        "CPU time of a request",
        "Lanes",
    ]
    page.picture(tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_words_of_the_app_are_never_markup(shown: Callable[..., Browser]) -> None:
    profile = made_profile(partial="<b>gone</b></script>")
    profile.origin = msgspec.structs.replace(profile.origin, target="</script><i>app")
    page = shown(profile)
    assert page.run("return document.title") == "Profile of </script><i>app"
    assert page.run("return document.querySelectorAll('h1 i, header b').length") == 0
    assert "PARTIAL: <b>gone</b>" in page.run("return document.body.innerText")
    assert page.console() == []


@pytest.mark.slow
def test_the_flame_graph_zooms_and_is_searched(
    shown: Callable[..., Browser], profile: Profile
) -> None:
    page = shown(profile)

    def names() -> list[str]:
        return list(
            page.run("return [...document.querySelectorAll('.box text')].map(t => t.textContent)")
        )

    def press(name: str) -> None:
        page.run(
            "[...document.querySelectorAll('.box')].find(g => g.textContent === "
            f"'{name}').dispatchEvent(new MouseEvent('click', {{bubbles: true}}))"
        )

    whole = names()
    assert {"all", "lanes", "get_user", "query", "report"} <= set(whole)
    press("get_user")
    zoomed = names()
    assert "report" not in zoomed
    assert {"all", "lanes", "get_user", "query", "price"} <= set(zoomed)
    page.run(
        "[...document.querySelectorAll('button')].find(b => b.textContent === 'Zoom out').click()"
    )
    assert names() == whole
    page.run(
        "const i = document.querySelector('input[type=search]'); i.value = 'ORM';"
        "i.dispatchEvent(new Event('input'))"
    )
    assert page.run("return document.querySelectorAll('.box.hit').length") == 2
    assert "48.3 % of the samples" in page.run("return document.body.innerText")
    page.run(
        "document.querySelector('.box.hit').dispatchEvent("
        "new PointerEvent('pointermove', {clientX: 100, clientY: 100}))"
    )
    assert "samples" in page.run("return document.getElementById('tip').innerText")
    assert page.console() == []


@pytest.mark.slow
def test_the_stage_table_sorts_within_each_route(
    shown: Callable[..., Browser], profile: Profile
) -> None:
    page = shown(profile)
    table = "[...document.querySelectorAll('section')].find(s => s.innerText.startsWith('Stages'))"
    rows = f"return [...{table}.querySelectorAll('tbody tr')].map(r => r.cells[0].textContent)"
    before = page.run(rows)
    assert before[0] == "GET /users/{id}"
    assert before[1:8] == [*("wait", "prepare", "run", "suspended", "serialize", "write", "total")]
    page.run(f"{table}.querySelectorAll('th')[1].click()")
    after = page.run(rows)
    assert after[:3] == ["GET /users/{id}", "total", "suspended"]
    assert sorted(after) == sorted(before)


@pytest.mark.slow
def test_a_stacked_bar_is_told_part_by_part(
    shown: Callable[..., Browser], profile: Profile
) -> None:
    page = shown(profile)
    page.run(
        "document.querySelector('.part').dispatchEvent("
        "new PointerEvent('pointermove', {clientX: 100, clientY: 100}))"
    )
    told = page.run("return document.getElementById('tip').innerText")
    assert "suspended" in told
    assert "together" in told


@pytest.mark.slow
def test_a_profile_that_found_nothing_is_still_a_page(
    shown: Callable[..., Browser], profile: Profile
) -> None:
    empty = Profile(origin=profile.origin, partial="it was interrupted.", flame=Flame(sampler="x"))
    page = shown(empty, screen=PHONE)
    assert page.console() == []
    assert "PARTIAL: it was interrupted." in page.run("return document.body.innerText")


def test_frames_too_small_to_be_seen_are_left_out_of_the_page(profile: Profile) -> None:
    assert profile.flame is not None
    profile.flame.root.children[0].children[0].count = 0
    assert report_html.render(profile).count(b'"n":"get_user"') == 0
