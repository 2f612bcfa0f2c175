"""Line charts as one picture: SVG, in the style of chart.py, from the same data as the HTML page.

Panels of equal size, two beside each other; each shows one metric of one chart.
"""

from collections.abc import Sequence
from math import ceil, floor, log2, log10
from xml.sax.saxutils import escape

from profiling.chart import DARK, STYLE, text
from treadle.profile.html import Line, Lines, Metric, Point

_COLORS = ("0f766e", "2563eb", "d97706", "9333ea", "dc2626", "4d7c0f", "0891b2", "db2777", "64748b")
_DARKS = ("2dd4bf", "60a5fa", "fbbf24", "c084fc", "f87171", "a3e635", "22d3ee", "f472b6", "94a3b8")
_MARGIN = 24
_TOP = 58
_PANEL = (430, 210)
_BETWEEN = 46
_LEFT = 52
_HEAD = 34
_LEGEND = 17
_LETTER = 6.6
_WIDTH = 2 * _MARGIN + 2 * _PANEL[0] + _BETWEEN
_FOOT = 40
_MARKS = 5


def draw(title: str, charts: Sequence[Lines], remark: str, *, metric: int = 0) -> str:
    """Return the picture; `remark` goes below it."""
    drawn: list[str] = []
    top = float(_TOP)
    for at in range(0, len(charts), 2):
        row = charts[at : at + 2]
        panels = [
            _panel(chart, metric, _MARGIN + column * (_PANEL[0] + _BETWEEN), top)
            for column, chart in enumerate(row)
        ]
        drawn += [line for lines, _ in panels for line in lines]
        top += max(height for _, height in panels)
    height = top + _FOOT - 14
    width = _WIDTH if len(charts) > 1 else _PANEL[0] + 2 * _MARGIN
    size = f'viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" '
            f'aria-label="{escape(title, {chr(34): "&quot;"})}">',
            f"<style>{STYLE}{_paints(_COLORS)}"
            f"@media (prefers-color-scheme: dark) {{{DARK}{_paints(_DARKS)}}}</style>",
            f'<rect class="page" x=".5" y=".5" width="{width - 1}" height="{height - 1:g}" rx="8"/>',
            text(_MARGIN, 32, title, "title"),
            *drawn,
            text(_MARGIN, height - 14, remark, "faint"),
            "</svg>\n",
        ]
    )


def _paints(colors: Sequence[str]) -> str:
    rules = [
        f".line{n} {{ fill: none; stroke: #{c}; stroke-width: 2 }} .dot{n} {{ fill: #{c} }}"
        for n, c in enumerate(colors)
    ]
    return "\n".join([*rules, ".mark { fill: none; stroke: #dc2626; stroke-width: 2 }", ""])


def _panel(chart: Lines, metric: int, left: float, top: float) -> tuple[list[str], float]:
    """What is drawn, and how high all of it is."""
    shown = [line for line in chart.lines if any(_of(p, metric) is not None for p in line.points)]
    names = list(dict.fromkeys(line.name for line in shown))
    sides = list(dict.fromkeys(line.side for line in shown if line.side))
    dashed = [line.dashed or line.side in sides[1:] for line in shown]
    area = _Area(chart, shown, metric, left, top + _HEAD)
    drawn = [
        text(left, top + 4, chart.title, "name"),
        text(left, top + 20, _words(chart.metrics[metric]), "faint"),
        *area.axes(),
    ]
    for line, dash in zip(shown, dashed, strict=True):
        drawn += area.line(line, names.index(line.name) % len(_COLORS), dash)
    bottom = top + _HEAD + _PANEL[1] + 50
    at = left
    for line, dash in zip(shown, dashed, strict=True):
        words = f"{line.name}, {line.side}" if line.side else line.name
        width = 26 + len(words) * _LETTER
        if at + width > left + _PANEL[0] and at > left:
            at, bottom = left, bottom + _LEGEND
        number = names.index(line.name) % len(_COLORS)
        drawn.append(
            f'<path class="line{number}" d="M{at:g} {bottom - 4:g} h14"{_dashes(dash)}/>'
            + text(at + 19, bottom, words, "faint")
        )
        at += width + 10
    return drawn, bottom + 30 - top


def _dashes(dashed: bool) -> str:
    return ' stroke-dasharray="5 4"' if dashed else ""


def _words(metric: Metric) -> str:
    better = "more is better" if metric.more_is_better else "less is better"
    return f"{metric.name}{f', {metric.unit}' if metric.unit else ''}: {better}"


def _of(point: Point, metric: int) -> float | None:
    return point.values[metric]


class _Area:
    """The scales of one panel."""

    def __init__(
        self, chart: Lines, shown: Sequence[Line], metric: int, left: float, top: float
    ) -> None:
        """Fit the scales to what is shown."""
        self._chart, self._metric = chart, metric
        self._left, self._top = left + _LEFT, top
        self._width, self._height = _PANEL[0] - _LEFT - 10, _PANEL[1]
        points = [p for line in shown for p in line.points if _of(p, metric) is not None]
        self._xs = sorted({p.x for p in points}) or [0.0]
        values = [value for p in points if (value := _of(p, metric)) is not None] or [0.0]
        low = min(values)
        self._low = min(0.0, low) if chart.metrics[metric].from_zero else low
        highest = max(values)
        room = (highest - self._low or abs(highest) or 1.0) * 0.06
        self._high = highest + room
        if not chart.metrics[metric].from_zero:
            self._low -= room

    def axes(self) -> list[str]:
        """The lines behind the data and their numbers."""
        drawn = []
        right = self._left + self._width
        for mark in _marks(self._low, self._high):
            at = self._y(mark)
            drawn.append(
                f'<line class="grid" x1="{self._left:g}" y1="{at:.1f}" x2="{right:g}" '
                f'y2="{at:.1f}"/>'
            )
            drawn.append(
                text(self._left - 6, round(at + 4, 1), _short(mark), "faint", anchor="end")
            )
        free = float("-inf")
        for x in self._xs:
            words = self._x_words(x)
            half = len(words) * _LETTER / 2
            if self._x(x) - half > free:
                at = self._top + self._height + 16
                drawn.append(text(self._x(x), at, words, "faint", anchor="middle"))
                free = self._x(x) + half + 6
        label = self._chart.x.label
        drawn.append(text(right, self._top + self._height + 30, label, "faint", anchor="end"))
        return drawn

    def line(self, line: Line, number: int, dashed: bool) -> list[str]:
        """One line with its points."""
        at = [
            (self._x(p.x), self._y(value), p)
            for p in line.points
            if (value := _of(p, self._metric)) is not None
        ]
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in at)
        drawn = [f'<path class="line{number}" d="M{way}"{_dashes(dashed)}/>']
        for x, y, point in at:
            drawn.append(f'<circle class="dot{number}" cx="{x:.1f}" cy="{y:.1f}" r="2.5"/>')
            if point.mark:
                drawn.append(f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="6"/>')
        return drawn

    def _x_words(self, x: float) -> str:
        names = self._chart.x.names
        return names[int(x)] if names else _short(x)

    def _x(self, x: float) -> float:
        first, last = self._scaled(self._xs[0]), self._scaled(self._xs[-1])
        share = 0.5 if first == last else (self._scaled(x) - first) / (last - first)
        return self._left + share * self._width

    def _scaled(self, x: float) -> float:
        # A logarithmic axis that begins at zero counts from one.
        return log2(x + (1 if self._xs[0] <= 0 else 0)) if self._chart.x.log else x

    def _y(self, y: float) -> float:
        return self._top + (self._high - y) / (self._high - self._low) * self._height


def _marks(low: float, high: float) -> list[float]:
    rough = (high - low) / _MARKS
    power = 10.0 ** floor(log10(rough))
    step = next(power * part for part in (1, 2, 5, 10) if rough <= power * part * 1.0001)
    first = ceil(low / step - 1e-9)
    return [step * n for n in range(first, floor(high / step + 1e-9) + 1)]


def _short(value: float) -> str:
    if abs(value) >= 1e6:
        return f"{value / 1e6:.3g} M"
    if abs(value) >= 1e4:
        return f"{value / 1e3:.3g} k"
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"
