"""`treadle top`: what is on the screen, the keys, and how it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.cli import DEADLINE, RunCli
from support.figures import route, stats
from support.gate import SOURCE
from support.types import Connect, Serve
from textual.pilot import Pilot
from textual.widgets import DataTable

from treadle import App
from treadle.monitor.client import connect
from treadle.monitor.screen import Screen
from treadle.telemetry import Stats

SIZE = (80, 24)


def small() -> App:
    app = App()

    @app.get("/items/{id}")
    def item(id: int) -> dict[str, int]:
        return {"id": id}

    @app.post("/orders")
    async def order() -> None:
        raise ValueError

    return app


@pytest.fixture
def screen(serve: Serve, raw: Connect, folder: Path) -> Screen:
    """The screen of a server that answered a little."""
    path = str(folder.parent / "s.sock")
    client = raw(serve(small(), stats_socket=path))
    for number in range(5):
        assert client.get(f"/items/{number}").status == 200
    client.send("POST /orders HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert client.response("POST").status == 500
    assert client.get("/absent").status == 404
    return Screen(connect(path), interval=0.25)


def lines(pilot: Pilot[None]) -> list[str]:
    """What is on the screen."""
    strips = pilot.app.screen._compositor.render_strips()
    return [strip.text.rstrip() for strip in strips]


async def until(pilot: Pilot[None], seen: Callable[[list[str]], Any]) -> list[str]:
    """The screen, once `seen` is true of it."""
    deadline = time.monotonic() + DEADLINE
    while True:
        await pilot.pause(0.01)
        shown = lines(pilot)
        if seen(shown):
            return shown
        assert time.monotonic() < deadline, "\n".join(shown)


def names(shown: list[str]) -> list[str]:
    """The routes, from top to bottom; none before the screen is drawn."""
    titles = (place for place, line in enumerate(shown) if line.startswith("route"))
    title = next(titles, len(shown))
    rows = (re.match(r"(GET \S+|POST \S+|unmatched) ", line) for line in shown[title + 1 :])
    return [row[1] for row in rows if row is not None]


async def test_lanes_routes_and_stages_fit_on_a_small_terminal(screen: Screen) -> None:
    screen.interval = 60.0  # a second reading would have nothing to show
    async with screen.run_test(size=SIZE) as pilot:
        shown = await until(pilot, lambda shown: len(names(shown)) == 3 and shown[23])
    assert len(shown) == 24
    assert max(map(len, shown)) <= 80
    assert re.match(r" treadle \S+ · CPython \S+ (free-threaded|GIL on) · up \S+ · /tmp/", shown[0])
    assert re.search(
        r"req/s · 0 active · \d\.\d\d cores · \S+ MiB · offload 0/\d+ of \d+ · every", shown[1]
    )
    assert shown[2].split() == [
        "lane",
        "busy",
        "polling",
        "parked",
        "req/s",
        "active",
        "conns",
        "ready",
        "lag",
        "p99",
    ]
    assert re.match(r"0( +\d+\.\d%){3} ", shown[3])
    assert shown[5].split() == ["route", "req/s▼", "p50", "p99", "5xx/s", "canc/s"]
    assert names(shown)[0] == "GET /items/{id}"
    (item,) = (line.split() for line in shown if line.startswith("GET /items/{id} "))
    assert all(re.fullmatch(r"\d+(\.\d+)?([num]?s)?", figure) for figure in item[2:5]), item
    (order,) = (line.split() for line in shown if line.startswith("POST /orders "))
    assert re.fullmatch(r"\d+\.\d+", order[5]), order
    assert re.match(
        r" GET /items/\{id\} · inline · test_top\.py:\d+ small\.<locals>\.item$", shown[19]
    )
    assert shown[20].split() == ["wait", "prepare", "run", "suspended", "serialize", "write"]
    assert re.match(r" p50 +\d", shown[21])
    assert re.match(r" p99 +\d", shown[22])
    assert shown[23].startswith(" q quit ")


async def test_the_screen_shows_what_happened_since_the_last_reading(
    screen: Screen, serve: Serve
) -> None:
    async with screen.run_test(size=SIZE) as pilot:
        await until(pilot, lambda shown: len(names(shown)) == 3)
        # Nothing more was asked: the next figures are those of nothing.
        shown = await until(pilot, lambda shown: any(re.match(r" - req/s", each) for each in shown))
        (item,) = (line.split() for line in shown if line.startswith("GET /items/{id} "))
        assert item[2:] == ["-"] * 5
        assert screen.window is not None
        assert screen.window.lanes[0].parked > 0.5


async def test_a_clock_that_is_set_back_does_not_stop_it() -> None:
    class Turning:
        label = "x"
        read_so_far = 0

        def read(self) -> Stats:
            self.read_so_far += 1
            now = self.read_so_far
            return stats(time=1e9 - now, uptime=60.0 + now, routes=(route(requests=3 * now),))

    async with Screen(Turning(), interval=0.01).run_test(size=SIZE) as pilot:
        await until(pilot, lambda shown: any(each.startswith(" 3.00 req/s") for each in shown))


async def test_routes_are_sorted_by_the_column_that_is_chosen(screen: Screen) -> None:
    async with screen.run_test(size=SIZE) as pilot:
        await until(pilot, lambda shown: len(names(shown)) == 3)
        await pilot.press("space")  # so that the figures stay
        for _ in range(5):
            await pilot.press("s")
        shown = await until(pilot, lambda shown: "route▲" in shown[5])
        assert names(shown) == ["GET /items/{id}", "POST /orders", "unmatched"]
        await pilot.press("r")
        shown = await until(pilot, lambda shown: "route▼" in shown[5])
        assert names(shown) == ["unmatched", "POST /orders", "GET /items/{id}"]
        assert "paused" in shown[1]
        await pilot.press("space")
        await until(pilot, lambda shown: "every 0.25 s" in shown[1])


async def test_the_arrows_choose_the_route_whose_stages_are_shown(screen: Screen) -> None:
    async with screen.run_test(size=SIZE) as pilot:
        shown = await until(pilot, lambda shown: len(names(shown)) == 3)
        for name in names(shown)[1:]:
            await pilot.press("down")
            await until(pilot, lambda shown, name=name: shown[19].startswith(f" {name}"))  # type: ignore[misc]


async def test_plus_and_minus_change_the_pace(screen: Screen) -> None:
    async with screen.run_test(size=SIZE) as pilot:
        await until(pilot, lambda shown: "every 0.25 s" in shown[1])
        await pilot.press("minus")
        await until(pilot, lambda shown: "every 0.5 s" in shown[1])
        await pilot.press("plus", "plus", "plus")
        await until(pilot, lambda shown: "every 0.25 s" in shown[1])


async def test_a_terminal_that_changes_its_size_is_filled_again(screen: Screen) -> None:
    async with screen.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda shown: len(names(shown)) == 3)
        wide = screen.query_one("#routes", DataTable).ordered_columns[0].width
        await pilot.resize_terminal(*SIZE)
        shown = await until(pilot, lambda shown: len(shown) == 24 and len(names(shown)) == 3)
        assert screen.query_one("#routes", DataTable).ordered_columns[0].width == wide - 40
        assert max(map(len, shown)) <= 80


@pytest.mark.parametrize("key", ["q", "ctrl+c"])
async def test_a_key_ends_it(screen: Screen, key: str) -> None:
    async with screen.run_test(size=SIZE) as pilot:
        await pilot.press(key)
    assert (screen.return_code, screen.failure) == (0, None)


async def test_a_server_that_goes_away_ends_it_with_a_reason(serve: Serve, tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    server = serve(small(), stats_socket=path)
    screen = Screen(connect(path), interval=0.25)
    async with screen.run_test(size=SIZE) as pilot:
        await until(pilot, lambda shown: "treadle" in shown[0])
        server.stop()
        while screen.failure is None:
            await pilot.pause(0.01)
    assert screen.return_code == 1
    assert screen.failure == f"{path} does not answer: No such file or directory."


# -- in a terminal ---------------------------------------------------------------------------------


class Terminal:
    """`treadle top` in a terminal of its own."""

    def __init__(self, args: list[str], env: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        self.before = termios.tcgetattr(slave)
        self._slave = slave
        self.text = ""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("TREADLE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "treadle", "top", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**inherited, "TERM": "xterm-256color", **env},
            start_new_session=True,
        )

    def read_until(self, seen: str) -> None:
        deadline = time.monotonic() + DEADLINE
        while seen not in self.text:
            assert time.monotonic() < deadline, self.text
            self._read(deadline)

    def _read(self, deadline: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        if ready:
            self.text += os.read(self._master, 65536).decode("utf-8", "replace")
        return bool(ready)

    def press(self, key: str) -> None:
        os.write(self._master, key.encode())

    def wait(self) -> int:
        deadline = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.text
            self._read(min(deadline, time.monotonic() + 0.05))
        while self._read(0.0):
            pass
        return self.process.returncode

    def is_restored(self) -> bool:
        """Whether it is as it was: its modes, the normal screen, a cursor."""
        assert termios.tcgetattr(self._slave) == self.before
        for on, off in (("\x1b[?1049h", "\x1b[?1049l"), ("\x1b[?25l", "\x1b[?25h")):
            assert self.text.rfind(off) > self.text.rfind(on) >= 0
        return True

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)
        os.close(self._slave)


Open = Callable[..., Terminal]


@pytest.fixture
def terminal(folder: Path) -> Iterator[Open]:
    """`terminal(*args)` is `treadle top` in a terminal."""
    with ExitStack() as opened:

        def begin(*args: str) -> Terminal:
            made = Terminal(list(args), {"XDG_RUNTIME_DIR": str(folder.parent)})
            opened.callback(made.close)
            return made

        yield begin


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", ["q", "\x03", signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=repr
)
def test_the_terminal_is_as_it_was_however_it_ends(
    serve: Serve, terminal: Open, folder: Path, end: str | signal.Signals
) -> None:
    serve(small(), stats_socket=True)
    shown = terminal()  # the only one there is
    shown.read_until("lag p99")
    if isinstance(end, str):
        shown.press(end)
    else:
        shown.process.send_signal(end)
    assert shown.wait() == 0
    assert shown.is_restored()


@pytest.mark.slow
def test_a_server_that_goes_away_is_said_below_the_restored_screen(
    run_cli: RunCli, terminal: Open, folder: Path
) -> None:
    command = run_cli(SOURCE, "--stats-socket", env={"XDG_RUNTIME_DIR": str(folder.parent)})
    shown = terminal(str(command.pid), "--interval", "0.25")
    shown.read_until("lag p99")
    command.send(signal.SIGKILL)
    assert shown.wait() == 1
    assert shown.is_restored()
    _, _, after = shown.text.rpartition("\x1b[?1049l")
    assert f"treadle: process {command.pid} does not answer: Connection refused.\r\n" in after


def test_without_a_server_there_is_a_line(terminal: Open) -> None:
    shown = terminal()
    assert shown.wait() == 1
    said = "no server of yours can be looked at: it has to be started with --stats-socket."
    assert shown.text == f"treadle: {said}\r\n"


def test_of_several_servers_one_has_to_be_chosen(
    run_cli: RunCli, terminal: Open, folder: Path
) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(folder.parent)}
    pids = sorted(run_cli(SOURCE, "--stats-socket", env=runtime).pid for _ in range(2))
    shown = terminal()
    assert shown.wait() == 1
    first, *others = shown.text.splitlines()
    assert first == "treadle: there are several servers, so say which:"
    assert [line.split("  #")[0] for line in others] == [f"  treadle top {pid}" for pid in pids]


def run_top(*args: str, **env: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "treadle", "top", *args],
        capture_output=True,
        text=True,
        env={**os.environ, **env},
        timeout=DEADLINE,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_without_a_terminal_there_is_a_line() -> None:
    assert run_top("1") == (1, "treadle: top needs a terminal.\n")


def test_without_its_package_there_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['textual'] = None\n")
    said = "treadle: top needs textual: pip install 'treadle[top]'.\n"
    assert run_top(PYTHONPATH=str(tmp_path)) == (1, said)


def test_a_pace_that_cannot_be_is_refused() -> None:
    code, said = run_top("--interval", "0")
    assert code == 2
    assert said.endswith("--interval: must be a number of seconds from 0.25 to 60, not '0'.\n")
