"""One self-contained HTML file of a result: charts to play with, no network, no library."""

from profiling.html.model import Axis, BarRow, Bars, Line, Lines, Metric, Page, Point, Table
from profiling.html.page import render

__all__ = ["Axis", "BarRow", "Bars", "Line", "Lines", "Metric", "Page", "Point", "Table", "render"]
