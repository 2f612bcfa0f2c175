"""The live screen of `treadle top`: lanes above, routes below, the stages of one route at the foot.

Everything runs on the screen's own event loop but the reading, which may block and has a thread. The
screen shows what happened between the last two readings; the first time, since the server started.
What ends it without being asked to is in `failure`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import msgspec
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.events import Resize
from textual.widgets import DataTable, Footer, Static

from treadle.exceptions import TreadleError
from treadle.monitor.text import count, duration, elapsed, rate, share, size
from treadle.monitor.window import LaneWindow, RouteWindow, Window
from treadle.telemetry import STAGES, Stats

__all__ = ["Screen"]

FASTEST, SLOWEST = 0.25, 60.0
"""Seconds between two readings."""


class Source(Protocol):
    """What the screen reads: a `treadle.monitor.client.Connection`."""

    label: str

    def read(self) -> Stats:
        """The statistics now; raises TreadleError."""


class Column[T](msgspec.Struct, frozen=True):
    """A column: its title, its width, what it shows, and by what it is sorted."""

    title: str
    width: int
    show: Callable[[T], str]
    key: Callable[[T], Any]


LANES: tuple[Column[LaneWindow], ...] = (
    Column("lane", 6, lambda lane: str(lane.now.index), lambda lane: lane.now.index),
    Column("busy", 7, lambda lane: share(lane.running), lambda lane: lane.running),
    Column("polling", 9, lambda lane: share(lane.polling), lambda lane: lane.polling),
    Column("parked", 8, lambda lane: share(lane.parked), lambda lane: lane.parked),
    Column("req/s", 9, lambda lane: rate(lane.requests), lambda lane: lane.requests),
    Column("active", 8, lambda lane: count(lane.now.in_flight), lambda lane: lane.now.in_flight),
    Column("conns", 8, lambda lane: count(lane.now.open), lambda lane: lane.now.open),
    Column("ready", 8, lambda lane: count(lane.now.ready), lambda lane: lane.now.ready),
    Column(
        "lag p99", 10, lambda lane: duration(lane.lag, 0.99), lambda lane: lane.lag.quantile(0.99)
    ),
)

ROUTES: tuple[Column[RouteWindow], ...] = (
    Column("route", 0, lambda route: route.label, lambda route: route.label),
    Column("req/s", 9, lambda route: rate(route.requests), lambda route: route.requests),
    Column(
        "p50", 8, lambda route: duration(route.total, 0.5), lambda route: route.total.quantile(0.5)
    ),
    Column(
        "p99",
        8,
        lambda route: duration(route.total, 0.99),
        lambda route: route.total.quantile(0.99),
    ),
    Column("5xx/s", 8, lambda route: rate(route.errors), lambda route: route.errors),
    Column("canc/s", 8, lambda route: rate(route.cancelled), lambda route: route.cancelled),
)
"""The first takes the width that the others leave."""

BUSIEST = 1
"""The column that the routes are sorted by at first."""


class Screen(App[None]):
    """The application. Its exit status is 1 where `failure` says why it ended."""

    TITLE = "treadle top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layout: vertical; }
    Static { text-wrap: nowrap; text-overflow: ellipsis; padding: 0 1; }
    #server, #load { height: 1; }
    #server { background: $primary-background; text-style: bold; }
    #lanes { height: auto; max-height: 35%; border-top: none; }
    #routes { height: 1fr; margin-top: 1; }
    #stages { height: 4; background: $surface; }
    DataTable > .datatable--header { background: $surface; text-style: bold; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("s", "sort", "sort by the next"),
        Binding("r", "reverse", "reverse"),
        Binding("space", "pause", "pause"),
        Binding("plus", "pace(0.5)", "faster"),
        Binding("minus", "pace(2)", "slower"),
    ]

    def __init__(self, source: Source, *, interval: float = 1.0) -> None:
        super().__init__()
        self.source = source
        self.interval = interval
        self.failure: str | None = None
        """Why it ended, in one sentence; None where it was told to."""
        self.window: Window | None = None
        """What is shown."""
        self._sorted_by = BUSIEST
        self._descending = True
        self._paused = False
        self._rows: dict[str, RouteWindow] = {}
        self._width = 80
        self._hurry = asyncio.Event()

    def compose(self) -> ComposeResult:
        """The parts, from top to bottom."""
        yield Static(id="server", markup=False)
        yield Static(id="load", markup=False)
        yield DataTable(id="lanes", cursor_type="none", cell_padding=0, zebra_stripes=True)
        yield DataTable(id="routes", cursor_type="row", cell_padding=0)
        yield Static(id="stages", markup=False)
        yield Footer()

    def on_mount(self) -> None:
        """Begins to read. A signal ends it like a key does, so that the terminal is restored."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(signum, self.exit)
        self.query_one("#lanes", DataTable).can_focus = False
        self.query_one("#routes", DataTable).focus()
        self.run_worker(self._follow(), exit_on_error=True)

    async def _follow(self) -> None:
        try:
            earlier = await asyncio.to_thread(self.source.read)
            self._show(Window.since_start(earlier))
            while True:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), self.interval)
                self._hurry.clear()
                later = await asyncio.to_thread(self.source.read)
                if (later.pid, later.uptime) == (earlier.pid, earlier.uptime):
                    continue
                if not self._paused:
                    self._show(Window.between(earlier, later))
                earlier = later
        except TreadleError as error:
            self.failure = str(error)
            self.exit(return_code=1)

    # -- keys --

    def action_sort(self) -> None:
        """Sorts the routes by the next column."""
        self._sorted_by = (self._sorted_by + 1) % len(ROUTES)
        self._descending = self._sorted_by > 0
        self._show_routes()

    def action_reverse(self) -> None:
        """Sorts the routes the other way round."""
        self._descending = not self._descending
        self._show_routes()

    def action_pause(self) -> None:
        """Keeps the screen as it is, or goes on."""
        self._paused = not self._paused
        self._show_server()

    def action_pace(self, factor: float) -> None:
        """Reads more, or less often."""
        self.interval = min(SLOWEST, max(FASTEST, self.interval * factor))
        self._hurry.set()
        self._show_server()

    # -- showing --

    def on_resize(self, event: Resize) -> None:
        """Lays the tables out anew for the width that there is now."""
        self._width = event.size.width
        for table in self.query(DataTable):
            table.clear(columns=True)
        self._rows = {}
        if self.window is not None:
            self._show(self.window)

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        """Shows the stages of the route that the cursor is on."""
        if self._whole():
            self._show_stages()

    def _whole(self) -> bool:
        """False while the screen is taken down: its parts go before what shows something there."""
        return all(
            self.query(part) for part in ("#server", "#load", "#lanes", "#routes", "#stages")
        )

    def _show(self, window: Window) -> None:
        if not self._whole():
            return
        self.window = window
        self._show_server()
        _fill(
            self.query_one("#lanes", DataTable),
            _titles(LANES, 0),
            [(str(lane.now.index), _cells(LANES, LANES[0].width, lane)) for lane in window.lanes],
        )
        self._show_routes()

    def _show_server(self) -> None:
        if self.window is None:
            return
        window, now = self.window, self.window.now
        gil = "GIL on" if now.gil else "free-threaded"
        what = (
            f"treadle {now.version}",
            f"{now.python} {gil}",
            f"up {elapsed(now.uptime)}",
            self.source.label,  # the longest, if it is a path
        )
        self.query_one("#server", Static).update(" · ".join(what))
        active = sum(lane.in_flight for lane in now.lanes)
        pace = "paused" if self._paused else f"every {self.interval:g} s"
        parts = (
            f"{rate(window.requests)} req/s",
            f"{count(active)} active",
            f"{window.cpu:.2f} cores",
            size(now.rss),
            f"offload {now.offload.busy}/{now.offload.threads} of {now.offload.limit}",
            pace,
        )
        self.query_one("#load", Static).update(" · ".join(parts))

    def _show_routes(self) -> None:
        if self.window is None:
            return
        column = ROUTES[self._sorted_by]
        routes = sorted(self.window.routes, key=column.key, reverse=self._descending)
        self._rows = {f"{route.label} {route.now.handler}": route for route in routes}
        table = self.query_one("#routes", DataTable)
        # Two of it for the scroll bar.
        wide = max(10, self._width - 2 - sum(each.width for each in ROUTES))
        _fill(
            table,
            _titles(ROUTES, wide, marked=self._sorted_by, descending=self._descending),
            [(key, _cells(ROUTES, wide, route)) for key, route in self._rows.items()],
        )
        self._show_stages()

    def _show_stages(self) -> None:
        table = self.query_one("#routes", DataTable)
        routes = list(self._rows.values())
        lines = ["no requests yet"]
        if 0 <= table.cursor_row < len(routes):
            route = routes[table.cursor_row]
            # Without its folders, which would leave no room for its name.
            handler = route.now.handler.rpartition("/")[2]
            where = f" · {route.now.mode} · {handler}" if handler else ""
            lines = [
                f"{route.label}{where}",
                _stage_line("", STAGES),
                _stage_line("p50", [duration(route.stages[each], 0.5) for each in STAGES]),
                _stage_line("p99", [duration(route.stages[each], 0.99) for each in STAGES]),
            ]
        self.query_one("#stages", Static).update("\n".join(lines))


def _stage_line(name: str, values: Sequence[str]) -> str:
    return f"{name:4}" + "".join(f"{value:>11}" for value in values)


def _titles[T](
    columns: Sequence[Column[T]], wide: int, *, marked: int | None = None, descending: bool = True
) -> list[tuple[str, int, Text]]:
    """Key, width and title of each column; the first is `wide` where it has no width of its own."""
    titles = []
    for place, column in enumerate(columns):
        mark = ("▼" if descending else "▲") if place == marked else ""
        justify = "left" if place == 0 else "right"
        width = column.width or wide
        titles.append((column.title, width, Text(column.title + mark, justify=justify)))  # type: ignore[arg-type]
    return titles


def _cells[T](columns: Sequence[Column[T]], wide: int, row: T) -> list[Text]:
    first, *others = columns
    name = first.show(row)
    if len(name) > wide:
        name = name[: wide - 1] + "…"
    return [Text(name), *(Text(each.show(row), justify="right") for each in others)]


def _fill(
    table: DataTable[Text], titles: list[tuple[str, int, Text]], rows: list[tuple[str, list[Text]]]
) -> None:
    """Puts `rows` into `table`; what is there already stays, with its cursor and scroll."""
    if not table.columns:
        for key, width, title in titles:
            table.add_column(title, width=width, key=key)
    for key, _, title in titles:
        known = next(each for column_key, each in table.columns.items() if column_key.value == key)
        if known.label.plain != title.plain:
            known.label = title
            table.refresh()
    if [key.value for key in table.rows] != [key for key, _ in rows]:
        cursor = table.cursor_row
        table.clear()
        for key, cells in rows:
            table.add_row(*cells, key=key)
        table.move_cursor(row=max(0, min(cursor, len(rows) - 1)))
        return
    for place, (_, cells) in enumerate(rows):
        for column, cell in enumerate(cells):
            if table.get_cell_at((place, column)) != cell:  # type: ignore[arg-type]
                table.update_cell_at((place, column), cell)  # type: ignore[arg-type]
