"""Results other than a comparison's: what they have in common, and how they are kept.

Each kind is a `Record` with fields of its own. A file of it names the commit, the machine, and of
every treadle that took part interpreter and build profile. It is partial until its block ends well.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec

from profiling import machine, results
from profiling.console import Console
from profiling.errors import ComparisonError
from profiling.interpreters import Facts
from profiling.paths import RESULTS
from profiling.results import LeftOut, Machine, Verdict


class Build(msgspec.Struct, frozen=True):
    """One build of treadle that was measured."""

    interpreter: str
    """As tables name it, such as 3.14t."""
    python: str
    gil: bool
    treadle: str
    profile: str

    @classmethod
    def of(cls, interpreter: str, facts: Facts) -> Self:
        """What an interpreter says of itself and its treadle."""
        profile, version = facts.profile or "unknown", facts.treadle or "unknown"
        return cls(interpreter, facts.version, facts.gil, version, profile)


class Record(msgspec.Struct, kw_only=True):
    """What every result says; its class's `KIND` begins the name of its file."""

    kind: str
    created: str
    commit: str
    dirty: bool
    quick: bool
    machine: Machine
    harness_python: str
    format: int = 1
    partial: str | None = "not finished"
    """Why it is not complete; None when it is."""
    builds: list[Build] = msgspec.field(default_factory=list)
    left_out: list[LeftOut] = msgspec.field(default_factory=list)
    verdicts: list[Verdict] = msgspec.field(default_factory=list)

    def default_path(self) -> Path:
        """Where it goes when nobody says."""
        moment = self.created[:19].replace(":", "").replace("-", "").replace("T", "-")
        name = f"{self.kind}-{moment}-{self.commit[:8]}"
        return RESULTS / (f"{name}-quick.json" if self.quick else f"{name}.json")


def begin[R: Record](kind: type[R], name: str, quick: bool, **fields: object) -> R:
    """A record of what is about to be measured, here and now."""
    return kind(
        kind=name,
        created=machine.now(),
        commit=machine.commit(),
        dirty=machine.dirty(),
        quick=quick,
        machine=machine.describe(),
        harness_python=machine.python(),
        **fields,
    )


@contextmanager
def kept(record: Record, path: Path, console: Console) -> Iterator[None]:
    """Save the record when the block is left; marked partial, with the reason, if it failed."""
    try:
        yield
        record.partial = None
    except ComparisonError as error:
        record.partial = str(error)
        raise
    except KeyboardInterrupt:
        record.partial = "interrupted"
        raise
    finally:
        results.save(record, path)
        console.say(f"{'partial result' if record.partial else 'result'}: {path}")


def load[R: Record](path: Path, kind: type[R]) -> R:
    """Read a record; raises ComparisonError when the file holds none of this kind."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise ComparisonError(f"{path} cannot be read: {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise ComparisonError(f"{path} is no result of this kind: {error}.") from error


def origin(record: Record) -> str:
    """The lines above every table: when, of what, where, and what is wrong with it."""
    at = record.machine
    dirty = " with changes" if record.dirty else ""
    builds = "; ".join(
        f"Treadle {b.treadle} ({b.profile} build) on CPython {b.python}, "
        f"GIL {'on' if b.gil else 'off'}"
        for b in record.builds
    )
    lines = [
        f"{record.created[:10]}, commit {record.commit[:12]}{dirty}; "
        f"{at.cpu}, {at.cores} cores, Linux {at.kernel}.",
        f"{builds}." if builds else "",
        "QUICK: shows that the harness works, proves nothing." if record.quick else "",
        f"PARTIAL: {record.partial}" if record.partial else "",
        *(f"Left out: {out.label}: {out.reason.rstrip('.')}." for out in record.left_out),
    ]
    return "\n".join(line for line in lines if line)
