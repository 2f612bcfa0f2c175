"""One self-contained HTML file of figures: charts to play with, no network, no library."""

from treadle.profile.html.model import (
    Axis,
    BarRow,
    Bars,
    Box,
    Flames,
    Item,
    Items,
    Line,
    Lines,
    Metric,
    Page,
    Point,
    Table,
    Tile,
    Tiles,
)
from treadle.profile.html.page import render

__all__ = [
    "Axis",
    "BarRow",
    "Bars",
    "Box",
    "Flames",
    "Item",
    "Items",
    "Line",
    "Lines",
    "Metric",
    "Page",
    "Point",
    "Table",
    "Tile",
    "Tiles",
    "render",
]
