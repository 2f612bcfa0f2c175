"""What a comparison found: the shape of the files in results/, and how they are kept."""

from collections.abc import Iterator
from pathlib import Path

import msgspec

from profiling.errors import ComparisonError
from profiling.paths import RESULTS

FORMAT = 1
"""Raised whenever a file of the last shape could be misread."""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    load_before: float
    """The load average of the last minute, before the comparison began."""


class Method(msgspec.Struct, frozen=True):
    """How it was measured."""

    load_tool: str
    rounds: int
    seconds: int
    warmup_seconds: int
    connections: list[int]
    server_cores: str
    load_cores: str
    slice_seconds: int | None = None
    """How long the halves of a ratio take turns; None where each was measured at a stretch."""


class ServerFacts(msgspec.Struct, frozen=True):
    """A server that took part."""

    label: str
    product: str
    title: str
    interpreter: str
    python: str | None
    gil: bool | None
    """Whether the GIL was on once the server's modules were imported; None without Python."""
    build_profile: str | None
    """Of treadle's native module; None for the others."""
    remark: str


class LeftOut(msgspec.Struct, frozen=True):
    """A server that could not take part."""

    label: str
    reason: str


class Slice(msgspec.Struct, frozen=True):
    """One turn of a half of a ratio: one run of the load tool."""

    rate: float
    cpu_us: float


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a round measured of one server and scenario."""

    server: str
    scenario: str
    connections: int
    round: int
    row: str | None
    """The row of the ratio table it was taken for, right beside the other half of that row."""
    lanes: int
    cores: str
    requests: int
    rate: float
    """Requests answered in a second."""
    cpu_us: float
    """CPU microseconds of the server for one request."""
    p50_us: float | None
    p95_us: float | None
    p99_us: float | None
    broken: int
    timeouts: int
    disturbed: float
    """The part of the server's core that other programs, and other machines, took meanwhile."""
    slices: list[Slice] = []
    """Each beside the one of the other half that has its place; none if measured at a stretch.

    Counts, rate and CPU time above are those of all of them, latencies their medians.
    """

    @property
    def turns(self) -> list[Slice]:
        """The slices; a measurement at a stretch is the only one."""
        return self.slices or [Slice(self.rate, self.cpu_us)]


class Verdict(msgspec.Struct, frozen=True):
    """A row of the ratio table, measured."""

    row: str
    interpreter: str
    measured: float
    """The median of the ratios of neighbours, those of all rounds."""
    rounds: list[float]
    """The same of each round: how far they lie apart says how much to believe."""
    by_cpu: float | None
    """The same ratio, of CPU time per request: the steadier of the two."""
    reached: bool
    """Whether that was enough when it was measured; what is to be reached may be more by now."""


class Weight(msgspec.Struct, frozen=True):
    """Memory of one idle keep-alive connection."""

    server: str
    bytes: float
    runs: list[float]
    connections: int


class Start(msgspec.Struct, frozen=True):
    """Time from the start of the process to its first answer."""

    server: str
    milliseconds: float
    runs: list[float]


class Result(msgspec.Struct):
    """One comparison."""

    created: str
    commit: str
    dirty: bool
    quick: bool
    machine: Machine
    method: Method
    harness_python: str
    format: int = FORMAT
    partial: str | None = "not finished"
    """Why the comparison is not complete; None when it is."""
    servers: list[ServerFacts] = msgspec.field(default_factory=list)
    left_out: list[LeftOut] = msgspec.field(default_factory=list)
    samples: list[Sample] = msgspec.field(default_factory=list)
    verdicts: list[Verdict] = msgspec.field(default_factory=list)
    weights: list[Weight] = msgspec.field(default_factory=list)
    starts: list[Start] = msgspec.field(default_factory=list)


def default_path(result: Result) -> Path:
    """Where a result goes when nobody says: its time, its commit, and what must not be missed."""
    moment = result.created[:19].replace(":", "").replace("-", "").replace("T", "-")
    name = f"{moment}-{result.commit[:8]}"
    return RESULTS / (f"{name}-quick.json" if result.quick else f"{name}.json")


def save(result: msgspec.Struct, path: Path) -> None:
    """Write a result of any kind, whole or not at all."""
    write(msgspec.to_builtins(result), path)


def write(fields: dict[str, object], path: Path) -> None:
    """Write the fields of a result of any kind, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.part")
    beside.write_text(_lines(fields))
    beside.replace(path)


def _lines(fields: dict[str, object]) -> str:
    """JSON with a line for every field and every entry of a list: short, and it diffs well."""
    told = []
    for name, value in fields.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            entries = ",\n  ".join(_json(entry) for entry in value)
            told.append(f'"{name}": [\n  {entries}\n ]')
        else:
            told.append(f'"{name}": {_json(value)}')
    return "{\n " + ",\n ".join(told) + "\n}\n"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def load(path: Path) -> Result:
    """Read a result; raises ComparisonError when the file holds none."""
    try:
        result = msgspec.json.decode(path.read_bytes(), type=Result)
    except OSError as error:
        raise ComparisonError(f"{path} cannot be read: {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise ComparisonError(f"{path} is no result of a comparison: {error}.") from error
    if result.format != FORMAT:
        raise ComparisonError(f"{path} has format {result.format}; this is format {FORMAT}.")
    return result


def newest() -> Path:
    """The newest result worth quoting: neither quick nor partial."""
    for path in _newest_first():
        result = load(path)
        if not result.quick and result.partial is None:
            return path
    raise ComparisonError("profiling/results holds no complete comparison yet: run compare first.")


def _newest_first() -> Iterator[Path]:
    # Those of a comparison begin with their time, those of other kinds with the kind.
    yield from sorted(RESULTS.glob("[0-9]*.json"), reverse=True)
