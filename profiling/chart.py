"""A result as one picture: SVG, without a library, readable on light and on dark pages."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.sax.saxutils import escape

from profiling import scenarios
from profiling.interpreters import Interpreter
from profiling.report import Cell, Cells, cells
from profiling.results import Result, ServerFacts
from profiling.schedule import main_connections
from profiling.statistics import median

_SCENARIOS = (scenarios.SYNC, scenarios.ASYNC, scenarios.SLEEP0)

_NAMES = 232
_PANEL = 330
_VALUE = 58
_GAP = 34
_MARGIN = 24
_TOP = 118
_BAR = 11
_STEP = 13
_BETWEEN = 14
_DWARFS = 3.0
_FAINT_LETTER = 6.2
_WIDTH = _MARGIN + _NAMES + 2 * (_PANEL + _VALUE) + _GAP + _MARGIN

STYLE = """
text { font: 12px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2937 }
.page { fill: #ffffff; stroke: #e5e7eb }
.title { font-size: 15px; font-weight: 600 }
.head { font-size: 12px; font-weight: 600 }
.name { font-weight: 600 }
.faint { fill: #6b7280; font-size: 11px }
.value { font-size: 10.5px; fill: #4b5563 }
.grid { stroke: #e5e7eb; stroke-width: 1 }
.cut { fill: #ffffff }
.bar0 { fill: #0f766e } .bar1 { fill: #2563eb } .bar2 { fill: #d97706 }
"""
DARK = """
text { fill: #e5e7eb }
.page { fill: #0d1117; stroke: #30363d }
.faint { fill: #9ca3af }
.value { fill: #b6bec9 }
.grid { stroke: #272d36 }
.cut { fill: #0d1117 }
.bar0 { fill: #2dd4bf } .bar1 { fill: #60a5fa } .bar2 { fill: #fbbf24 }
"""


@dataclass(frozen=True, slots=True)
class _Panel:
    """One of the two scales, side by side."""

    title: str
    left: float
    highest: float
    per_mark: float

    def bar(self, value: float, top: float, shade: int, label: str) -> list[str]:
        """One bar and its number; one that is longer than the scale is cut, and shown to be."""
        width = min(value / self.highest, 1.0) * _PANEL
        drawn = [
            f'<rect class="bar{shade}" x="{self.left:g}" y="{top:g}" width="{width:.1f}" '
            f'height="{_BAR}" rx="2"/>',
            text(self.left + width + 5, top + _BAR - 2, label, "value"),
        ]
        if value > self.highest:
            cut = self.left + _PANEL - 16
            drawn.append(
                f'<path class="cut" d="M{cut:g} {top + _BAR + 1:g} l5 {-_BAR - 2} h4 '
                f'l-5 {_BAR + 2} z"/>'
            )
        return drawn

    def axis(self, bottom: float) -> list[str]:
        """The lines behind the bars, and what they stand for."""
        drawn = [text(self.left, _TOP - 30, self.title, "head")]
        for mark in range(int(self.highest / self.per_mark) + 1):
            at = self.left + mark * self.per_mark / self.highest * _PANEL
            drawn.append(
                f'<line class="grid" x1="{at:.1f}" y1="{_TOP - 8}" x2="{at:.1f}" '
                f'y2="{bottom - _BETWEEN + 4:g}"/>'
            )
            drawn.append(
                text(at, _TOP - 13, f"{mark * self.per_mark:,g}", "faint", anchor="middle")
            )
        return drawn


def draw(result: Result) -> str:
    """Return the picture: requests a second and CPU time a request, at the main load."""
    known = cells(result.samples)
    main = main_connections(result.method.connections)
    shown = [(server, bars) for server in result.servers if (bars := _bars(known, server, main))]
    left = _MARGIN + _NAMES
    rates = _scale([cell.rate for _, bars in shown for _, cell in bars])
    costs = _scale([cell.cpu_us for _, bars in shown for _, cell in bars])
    panels = (
        _Panel("requests/s: more is better", left, *rates),
        _Panel("CPU us/request: less is better", left + _PANEL + _VALUE + _GAP, *costs),
    )
    rows: list[str] = []
    top = float(_TOP)
    for server, bars in shown:
        rows += _row(server, bars, panels, top)
        top += _STEP * max(len(bars), 2) + _BETWEEN
    height = top + 26
    title = f"Requests a second and what each costs, {main} connections, one server core"
    size = f'viewBox="0 0 {_WIDTH} {height:g}" width="{_WIDTH}" height="{height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label="{title}">',
            f"<style>{STYLE}@media (prefers-color-scheme: dark) {{{DARK}}}</style>",
            f'<rect class="page" x=".5" y=".5" width="{_WIDTH - 1}" height="{height - 1:g}" '
            'rx="8"/>',
            text(_MARGIN, 32, title, "title"),
            *_legend(),
            *(line for panel in panels for line in panel.axis(top)),
            *rows,
            text(_MARGIN, height - 12, _origin(result), "faint"),
            "</svg>\n",
        ]
    )


def _bars(known: Cells, server: ServerFacts, main: int) -> list[tuple[int, Cell]]:
    """The measured ones of the three bars, each with its shade."""
    found = [known.get((server.label, scenario.name, main)) for scenario in _SCENARIOS]
    return [(shade, cell) for shade, cell in enumerate(found) if cell is not None]


def _row(
    server: ServerFacts, bars: Sequence[tuple[int, Cell]], panels: tuple[_Panel, _Panel], top: float
) -> list[str]:
    native = server.interpreter == Interpreter.NATIVE.value
    side = "no Python" if native else f"CPython {server.python}"
    if server.interpreter == Interpreter.FREE_THREADED.value:
        side += ", free-threaded"
    drawn = [
        text(_MARGIN, top + 11, server.title, "name"),
        text(_MARGIN, top + 26, side, "faint"),
    ]
    for number, (shade, cell) in enumerate(bars):
        at = top + number * _STEP
        drawn += panels[0].bar(cell.rate, at, shade, f"{cell.rate:,.0f}")
        drawn += panels[1].bar(cell.cpu_us, at, shade, f"{cell.cpu_us:,.1f}")
    return drawn


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """The end of a scale and the step of its marks.

    A few values that dwarf the others would press those to the edge: the scale ends before them.
    """
    highest = max(values, default=1.0)
    usual = median(values) if values else highest
    highest = min(highest, usual * _DWARFS)
    step = 10.0 ** floor(log10(highest))
    step = next(step * part for part in (0.1, 0.2, 0.5, 1.0) if highest / (step * part) <= 8)
    return ceil(highest / step) * step, step


def _legend() -> list[str]:
    drawn: list[str] = []
    at = float(_MARGIN)
    for shade, scenario in enumerate(_SCENARIOS):
        words = f"{scenario.name}: {scenario.isolates}"
        drawn.append(f'<rect class="bar{shade}" x="{at:g}" y="45" width="10" height="10" rx="2"/>')
        drawn.append(text(at + 16, 54, words, "faint"))
        at += 46 + len(words) * _FAINT_LETTER
    return drawn


def _origin(result: Result) -> str:
    at = result.machine
    quick = "QUICK RUN, PROVES NOTHING; " if result.quick else ""
    return (
        f"{quick}{result.created[:10]}; {at.cpu}, one core for the server, one for the load; "
        f"medians of {result.method.rounds} alternated rounds. A cut bar goes on to its number."
    )


def text(left: float, top: float, words: str, kind: str, anchor: str = "start") -> str:
    """A line of text; `anchor` is which end of it stands at `left`."""
    lean = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text class="{kind}" x="{left:.1f}" y="{top:g}"{lean}>{escape(words)}</text>'
