"""What one profile found: the shapes of the JSON file, and what every report is made of.

Durations are seconds unless the name says otherwise; shares are 0 to 1. `SCHEMA` grows when a
reader of an older file would misunderstand a newer one.
"""

from __future__ import annotations

import msgspec

from treadle.telemetry import Distribution, Stats

__all__ = [
    "SCHEMA",
    "Advice",
    "Budget",
    "BudgetLine",
    "CpuSplit",
    "Figure",
    "Flame",
    "Frame",
    "LaneRow",
    "Load",
    "Machine",
    "Moment",
    "Origin",
    "Profile",
    "RouteRow",
    "StageRow",
]

SCHEMA = 1


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where it was measured."""

    cpu: str = ""
    cores: int = 1
    memory_gib: float = 0.0
    kernel: str = ""


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured, when, on what."""

    created: str
    """UTC, ISO 8601."""
    target: str
    """`main:app`, or the address of the running app."""
    treadle: str
    build_profile: str
    """`release-pgo` (profile-guided), `release` or `debug`, of Treadle's native module."""
    commit: str = ""
    """Of the working directory's repository; empty outside of one."""
    dirty: bool = False
    python: str = ""
    gil: bool = False
    free_threaded_build: bool = False
    """Whether it could do without the GIL."""
    gil_culprit: str = ""
    """The module whose import turned the GIL on, where that is known."""
    machine: Machine = Machine()


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator saw."""

    duration: float
    requests: int
    rate: float
    """Answers a second."""
    concurrency: int = 0
    wanted_rate: float | None = None
    """The constant rate of an open loop; None for a closed one."""
    statuses: dict[str, int] = {}
    errors: dict[str, int] = {}
    """Requests without an answer, by reason."""
    unexpected: int = 0
    """Answers with another status than was expected."""
    latency: Distribution = Distribution()
    routes: dict[str, Distribution] = {}
    """Latency of each kind of request, where there are several."""


class Moment(msgspec.Struct, frozen=True, kw_only=True):
    """One interval of the run; everything is of that interval alone."""

    at: float
    """Its end, in seconds since the load began."""
    rate: float
    cpu: float = 0.0
    """Cores busy."""
    lag_p99: float = 0.0
    """How late callbacks and timers ran."""
    lag_max: float = 0.0
    in_flight: int = 0
    rss: int = 0
    offload_queued: int = 0
    latency_p99: float | None = None
    """As the client saw it."""


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of a route."""

    name: str
    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    share: float
    """Of all time that the route's requests spent in any stage."""


class RouteRow(msgspec.Struct, frozen=True, kw_only=True):
    """One route during the load."""

    method: str
    template: str
    handler: str
    mode: str
    requests: int
    mean: float
    """Seconds a request spent in all stages together."""
    stages: tuple[StageRow, ...]
    whole: StageRow
    """All stages of a request together."""
    waited: float = 0.0
    """The share of its requests that waited longer than `stages.WAITED` to be called."""
    statuses: dict[str, int] = {}
    cancelled: int = 0

    @property
    def name(self) -> str:
        """`GET /users/{id}`."""
        return f"{self.method} {self.template}" if self.template else "(no route)"

    def stage(self, name: str) -> StageRow:
        """The stage of that name."""
        return next(row for row in self.stages if row.name == name)


class CpuSplit(msgspec.Struct, frozen=True, kw_only=True):
    """CPU time of one request, in microseconds, and where it went."""

    total_us: float
    kernel_us: float
    python_us: float
    native_us: float
    exactness: str
    """How the parts were told apart, and how far to trust them."""


class LaneRow(msgspec.Struct, frozen=True, kw_only=True):
    """One lane during the load; the four shares are of its time."""

    index: int
    requests: int
    running: float
    polling: float
    parked: float
    attach_wait: float
    lag_p99: float
    lag_max: float
    ready_max: int
    tasks_suspended: int = 0
    tasks_started: int = 0


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A duration with its spread, in nanoseconds: median and quartiles of alternating rounds."""

    ns: float
    low: float
    high: float


class BudgetLine(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that being async costs, beside what others pay for the same."""

    name: str
    what: str
    """How it was measured."""
    figures: dict[str, Figure | None]
    """By column of the budget; None where it cannot be measured or is not paid."""
    claimed_us: float | None = None


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """The async budget."""

    columns: tuple[str, ...]
    lines: tuple[BudgetLine, ...]
    absent: dict[str, str] = {}
    """Columns that could not be measured, and why."""
    notes: tuple[str, ...] = ()
    per_request_us: float | None = None
    """What the profiled requests paid for being async: the lines that they use, added up."""


class Frame(msgspec.Struct, kw_only=True):
    """One frame of a flame graph, with all that it called."""

    name: str
    file: str = ""
    count: int = 0
    """Samples in this frame or below it."""
    children: list[Frame] = []


class Flame(msgspec.Struct, frozen=True, kw_only=True):
    """A flame graph, and who sampled it."""

    sampler: str
    remark: str = ""
    """What this sampler cannot see."""
    rate: float = 0.0
    """Looks a second that were asked for."""
    looks: int | None = None
    """How often it did look, which is less often on a busy machine; None where it does not say."""
    samples: int = 0
    """Stacks that were running; a sample of several threads has several."""
    failed: int = 0
    root: Frame = msgspec.field(default_factory=lambda: Frame(name="all"))


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """Something a person can do."""

    kind: str
    severity: int
    """3: something is broken; 2: time is lost; 1: worth knowing."""
    title: str
    """One line, with its figure."""
    action: str
    """What to do about it."""


class Profile(msgspec.Struct, kw_only=True):
    """Everything a profile found."""

    schema: int = SCHEMA
    origin: Origin
    partial: str = ""
    """Why the results are not complete; empty when they are."""
    load: Load | None = None
    routes: tuple[RouteRow, ...] = ()
    cpu: CpuSplit | None = None
    lanes: tuple[LaneRow, ...] = ()
    timeline: tuple[Moment, ...] = ()
    budget: Budget | None = None
    flame: Flame | None = None
    advice: tuple[Advice, ...] = ()
    notes: tuple[str, ...] = ()
    before: Stats | None = None
    after: Stats | None = None

    @property
    def measured(self) -> bool:
        """Whether there is anything in it."""
        answered = self.load is not None and self.load.requests > 0
        return answered or bool(self.timeline or self.routes)
