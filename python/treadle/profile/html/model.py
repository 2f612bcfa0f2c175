"""What a page shows: the data that page.js draws. Their names are those of the JSON."""

import msgspec


class Metric(msgspec.Struct, frozen=True):
    """One quantity that a chart can show; the reader chooses among several."""

    name: str
    unit: str = ""
    digits: int = 0
    """Decimals that are shown."""
    more_is_better: bool = True
    from_zero: bool = True
    """Whether a line chart begins at zero; a ratio that moves by percents would show nothing."""


class BarRow(msgspec.Struct, frozen=True):
    """One subject of a bar chart."""

    label: str
    side: str = ""
    """What the reader can filter by, such as 3.14t; without one it is always shown."""
    under: str = ""
    """Words below the label."""
    note: str = ""
    ours: bool = False
    values: dict[str, list[float | None]] = msgspec.field(default_factory=dict)
    """For each series one value a metric; None where it was not measured."""


class Bars(msgspec.Struct, frozen=True, tag="bars", tag_field="kind"):
    """Horizontal bars, grouped by row."""

    title: str
    metrics: list[Metric]
    series: list[str]
    rows: list[BarRow]
    note: str = ""
    hidden: list[str] = msgspec.field(default_factory=list)
    """Series that are off until the reader asks for them."""
    stacked: bool = False
    """One bar a row, of all its series end to end; else one bar each."""
    whole: bool = False
    """No bar is cut, however much it dwarfs the others."""


class Axis(msgspec.Struct, frozen=True):
    """What goes to the right in a line chart."""

    label: str
    log: bool = False
    names: list[str] | None = None
    """Words for x = 0, 1, 2, ... where the values are no numbers."""


class Point(msgspec.Struct, frozen=True):
    """One measured point of a line."""

    x: float
    values: list[float | None]
    """One a metric."""
    low: float | None = None
    """Of the first metric: the noise of the rounds."""
    high: float | None = None
    mark: str = ""
    """Why this point stands out, such as "regression"."""


class Line(msgspec.Struct, frozen=True):
    """One line of a chart."""

    name: str
    points: list[Point]
    side: str = ""
    dashed: bool = False
    hidden: bool = False


class Lines(msgspec.Struct, frozen=True, tag="lines", tag_field="kind"):
    """Lines over a common axis."""

    title: str
    x: Axis
    metrics: list[Metric]
    lines: list[Line]
    note: str = ""


class Table(msgspec.Struct, frozen=True, tag="table", tag_field="kind"):
    """A table that sorts by the column that is tapped; cells that end in pass or miss have colours."""

    title: str
    head: list[str]
    rows: list[list[str]]
    note: str = ""
    left: int = 1
    """How many columns lean left."""
    grouped: bool = False
    """The first column is a heading over the rows that have it in common."""


class Tile(msgspec.Struct, frozen=True):
    """One figure, large."""

    label: str
    value: str
    under: str = ""


class Tiles(msgspec.Struct, frozen=True, tag="tiles", tag_field="kind"):
    """The figures that a reader looks for first."""

    title: str
    tiles: list[Tile]
    note: str = ""


class Item(msgspec.Struct, frozen=True):
    """One thing that a reader should know, or do."""

    title: str
    text: str
    severity: int = 1
    """3: broken, 2: costly, 1: worth knowing."""


class Items(msgspec.Struct, frozen=True, tag="items", tag_field="kind"):
    """A list of them, the worst first."""

    title: str
    items: list[Item]
    note: str = ""


class Box(msgspec.Struct, frozen=True):
    """One frame of a flame graph with what it called; the names are short, there are many."""

    n: str
    """Name."""
    f: str
    """File."""
    c: int
    """Samples, with those of its children."""
    k: list["Box"] = msgspec.field(default_factory=list)


class Flames(msgspec.Struct, frozen=True, tag="flames", tag_field="kind"):
    """A flame graph."""

    title: str
    root: Box
    note: str = ""


class Page(msgspec.Struct, frozen=True):
    """A whole page."""

    title: str
    facts: list[str]
    """When, where and of what it was measured."""
    warnings: list[str]
    """What a reader must not miss: quick, partial, disturbed."""
    sections: list[Bars | Lines | Table | Tiles | Items | Flames]
    notes: list[str] = msgspec.field(default_factory=list)
    without_script: str = ""
    """Where a reader without JavaScript finds the same figures; one sentence."""
