"""A profile as `treadle profile` would have found it, made of readings of the statistics."""

from __future__ import annotations

from typing import Any

from treadle.profile import advice, stages
from treadle.profile.flame import Place, Stack, build
from treadle.profile.record import (
    Budget,
    BudgetLine,
    Figure,
    Flame,
    Frame,
    Load,
    Machine,
    Moment,
    Origin,
    Profile,
)
from treadle.telemetry import Distribution, LaneStats, OffloadStats, RouteStats, Stats

APP = "/srv/shop/main.py"


def spread(*values: tuple[float, int]) -> Distribution:
    """A distribution of (seconds, how many)."""
    return Distribution(
        count=sum(count for _, count in values),
        sum=sum(value * count for value, count in values),
        min=values[0][0],
        max=values[-1][0],
        buckets=values,
    )


def reading(*routes: RouteStats, lanes: tuple[LaneStats, ...] = (), **fields: Any) -> Stats:
    given: dict[str, Any] = {"time": 1000.0, "cpu": 0.0, "uptime": 10.0, "rss": 60 << 20, **fields}
    return Stats(
        pid=1,
        version="0.1.0",
        build_profile="release",
        python="CPython 3.14.7",
        free_threaded=True,
        gil=False,
        routes=routes,
        lanes=lanes,
        **given,
    )


USERS = RouteStats(
    method="GET",
    template="/users/{id}",
    handler=f"{APP}:12 get_user",
    mode="task",
    requests=1000,
    statuses={"2xx": 990, "5xx": 10},
    total=spread((0.0024, 640), (0.0064, 60), (0.02, 290), (0.09, 10)),
    wait=spread((20e-6, 940), (0.004, 60)),
    prepare=spread((8e-6, 1000)),
    run=spread((0.0004, 900), (0.009, 100)),
    suspended=spread((0.002, 700), (0.011, 290), (0.08, 10)),
    serialize=spread((60e-6, 1000)),
    write=spread((15e-6, 1000)),
)
REPORT = RouteStats(
    method="POST",
    template="/a/rather/long/path/for/{tenant}/reports/{report}",
    handler=f"{APP}:40 report",
    mode="inline",
    requests=200,
    statuses={"2xx": 200},
    total=spread((0.0019, 200)),
    wait=spread((30e-6, 200)),
    prepare=spread((120e-6, 200)),
    run=spread((0.0008, 200)),
    serialize=spread((0.0009, 200)),
    write=spread((25e-6, 200)),
)


def _lane(index: int, requests: int) -> LaneStats:
    return LaneStats(
        index=index,
        thread=100 + index,
        requests=requests,
        running=3.0,
        polling=1.0,
        parked=5.9,
        attach_wait=0.1,
        tasks_started=requests,
        tasks_suspended=requests // 2,
        timer_lag=spread((0.0002, 90), (0.03, 10)),
        callback_lag=spread((0.0001, 900)),
    )


BEFORE = reading()
AFTER = reading(
    USERS, REPORT, lanes=(_lane(0, 700), _lane(1, 500)), time=1010.0, cpu=1.2, uptime=20.0
)


def _flame() -> Flame:
    thread = (Place("Thread._bootstrap", "/usr/lib/python3.14/threading.py"),)
    loop = (
        *thread,
        Place("EventLoop.run_forever", f"{stages.__file__.rpartition('/')[0]}/loop.py"),
    )
    user = (*loop, Place("get_user", APP))
    query = (*user, Place("query", f"{APP[:-7]}db.py"), Place("Connection.fetch", "/x/lib/db.py"))
    library = "/v/lib/python3.14/site-packages/orm/query.py"
    found = [
        (Stack("treadle-lane-0", loop, running=True), 130),
        (Stack("treadle-lane-0", loop, running=False), 900),
        (Stack("treadle-lane-0", query, running=True), 220),
        (Stack("treadle-lane-0", (*query, Place("Row.__init__", library)), running=True), 160),
        (Stack("treadle-lane-0", (*user, Place("price", APP)), running=True), 90),
        (Stack("treadle-lane-1", (*loop, Place("report", APP)), running=True), 140),
        (
            Stack(
                "treadle-lane-1",
                (*loop, Place("report", APP), Place("Table.render", library)),
                running=True,
            ),
            260,
        ),
    ]
    root = build(found)
    return Flame(sampler="py-spy", rate=200.0, samples=root.count, root=root)


def _figure(ns: float) -> Figure:
    return Figure(ns=ns, low=ns * 0.95, high=ns * 1.1)


def _budget() -> Budget:
    columns = ("plain sync handler", "treadle", "asyncio", "uvicorn's loop")

    def line(name: str, *ns: float | None, claimed: float | None = None) -> BudgetLine:
        figures = {
            column: None if each is None else _figure(each)
            for column, each in zip(columns, ns, strict=True)
        }
        return BudgetLine(name=name, what="made and run", figures=figures, claimed_us=claimed)

    return Budget(
        columns=columns,
        lines=(
            line("coroutine object", 0, 47, 46, 45, claimed=20),
            line("context copy", 44, 44, 48, 47, claimed=5),
            line("Task", 0, 389, 2003, 1650, claimed=10),
            line("suspension", 0, 1249, 2710, 1900),
            line("wake by a future", 0, 842, 5557, 2200),
            line("serialize", 98, 98, 98, 98),
            line("conversion across the bridge", 0, 446, None, None, claimed=10),
            line("attach to the interpreter", 13, 13, 13, 13, claimed=15),
            line("these five together", None, 939, None, None, claimed=60),
        ),
        absent={"pyo3-async-runtimes": "not installed"},
        notes=("uvicorn's loop here: uvloop.",),
        per_request_us=1.61,
    )


def made_profile(**changes: Any) -> Profile:
    """The whole profile, with some fields replaced."""
    fields: dict[str, Any] = {
        "origin": Origin(
            created="2026-11-21T16:00:00+00:00",
            target="main:app",
            treadle="0.1.0",
            build_profile="release",
            commit="0123456789abcdef",
            dirty=True,
            python="CPython 3.14.7",
            free_threaded_build=True,
            machine=Machine(cpu="A CPU", cores=4, memory_gib=16.0, kernel="6.18"),
        ),
        "load": Load(
            duration=10.0,
            requests=1200,
            rate=120.0,
            concurrency=64,
            statuses={"2xx": 1190, "5xx": 10},
            latency=spread((0.001, 400), (0.004, 600), (0.012, 190), (0.09, 10)),
            routes={
                "GET /users/7": spread((0.004, 700), (0.012, 290), (0.09, 10)),
                "POST /a/rather/long/path/for/x/reports/9": spread((0.001, 200)),
            },
        ),
        "routes": stages.route_rows(BEFORE, AFTER),
        "cpu": stages.cpu_split(BEFORE, AFTER, kernel=0.4),
        "lanes": stages.lane_rows(BEFORE, AFTER),
        "timeline": tuple(
            Moment(
                at=at / 4,
                rate=120 + 10 * (at % 5),
                cpu=0.8 + 0.1 * (at % 3),
                lag_p99=0.001 * (1 + at % 4),
                lag_max=0.004 * (1 + at % 7),
                in_flight=60 + at % 4,
                rss=(50 << 20) + at * 100_000,
            )
            for at in range(1, 41)
        ),
        "budget": _budget(),
        "flame": _flame(),
        "before": BEFORE,
        "after": AFTER,
        **changes,
    }
    profile = Profile(**fields)
    if "advice" not in changes:
        profile.advice = advice.advise(profile)
    return profile


def offloaded() -> Stats:
    """A reading with an offloaded route whose threads were too few."""
    slow = RouteStats(
        method="GET",
        template="/pdf",
        handler=f"{APP}:70 pdf",
        mode="offload",
        requests=100,
        wait=spread((0.0002, 60), (0.2, 40)),
        run=spread((0.05, 100)),
    )
    return reading(slow, offload=OffloadStats(threads=8, busy=8, queued=12), cpu=0.5)


BUSY_APP = """
import asyncio
import os
import signal
from treadle import App, HTTPException

app = App()

def key(number):
    return -number

def compute():
    for _ in range(40):
        numbers = sorted(range(500), key=key)
    return numbers[0]

@app.get("/busy")
async def busy() -> int:
    await asyncio.sleep(0)
    return compute()

@app.get("/users/{id}")
async def get_user(id: int) -> dict:
    await asyncio.sleep(0)
    return {"id": id}

@app.post("/echo")
def echo(text: dict) -> dict:
    return text

@app.get("/fails-later")
def fails_later() -> dict:
    fails_later.asked += 1
    if fails_later.asked > 20:
        raise HTTPException(503)
    return {}

fails_later.asked = 0

@app.get("/dies-later")
def dies_later() -> dict:
    dies_later.asked += 1
    if dies_later.asked > 200:
        os.kill(os.getpid(), signal.SIGKILL)
    return {}

dies_later.asked = 0
"""
"""Handlers that compute, wait, fail after a while, and end their process."""


def collapsed(root: Frame) -> list[str]:
    """The stacks in the folded form that other tools read: `a;b;c 12`."""
    lines = []
    pending: list[tuple[Frame, tuple[str, ...]]] = [(child, ()) for child in root.children]
    while pending:
        node, above = pending.pop()
        path = (*above, f"{node.name} ({node.file})" if node.file else node.name)
        own = node.count - sum(child.count for child in node.children)
        if own > 0:
            lines.append(f"{';'.join(path)} {own}")
        pending.extend((child, path) for child in node.children)
    return sorted(lines)
