"""Results as pages; what draws them is the package's own (`treadle.profile.html`)."""

import msgspec

from treadle.profile import html
from treadle.profile.html import (
    Axis,
    BarRow,
    Bars,
    Line,
    Lines,
    Metric,
    Page,
    Point,
    Table,
)

__all__ = ["Axis", "BarRow", "Bars", "Line", "Lines", "Metric", "Page", "Point", "Table", "render"]


def render(page: Page) -> str:
    """The page as one HTML document."""
    elsewhere = "The same figures as text: python -m profiling report."
    return html.render(msgspec.structs.replace(page, without_script=elsewhere))
