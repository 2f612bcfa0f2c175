"""The two CPythons of a comparison: how they are found, and what is installed for them."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from profiling.errors import ComparisonError, UnavailableError
from profiling.paths import ROOT


class Interpreter(Enum):
    """What a server runs on; the value is how tables and options spell it."""

    FREE_THREADED = "3.14t"
    GIL = "3.14"
    NATIVE = "native"

    @property
    def variable(self) -> str:
        """The environment variable that names one which has treadle installed."""
        return "TREADLE_PYTHON_" + self.value.replace(".", "").upper()


PYTHONS = (Interpreter.FREE_THREADED, Interpreter.GIL)

_QUESTIONS = """
import importlib, json, platform, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
gil = getattr(sys, "_is_gil_enabled", lambda: True)()
profile = version = None
if "treadle" in sys.argv[1:]:
    from treadle import __version__ as version
    from treadle._treadle import BUILD_PROFILE as profile
print("@@" + json.dumps([platform.python_version(), gil, version, profile]))
"""


@dataclass(frozen=True, slots=True)
class Facts:
    """What an interpreter says of itself, once it has imported what a server needs."""

    version: str
    gil: bool
    treadle: str | None
    profile: str | None
    """How treadle's native module was compiled: `release-pgo` (profile-guided), `release`, `debug`."""

    @property
    def for_speed(self) -> bool:
        """Whether it may be measured."""
        return self.profile in ("release", "release-pgo")


def ask(python: Path, modules: tuple[str, ...] = ()) -> Facts:
    """Run `python`, import `modules` there, and return what it is then.

    Raises UnavailableError with the last line of what it said when it cannot.
    """
    command = [str(python), "-W", "ignore", "-c", _QUESTIONS, *modules]
    answer = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False
    )
    for line in answer.stdout.splitlines():
        if line.startswith("@@"):
            version, gil, treadle, profile = json.loads(line[2:])
            return Facts(version, gil, treadle, profile)
    said = answer.stderr.strip().splitlines() or ["it says nothing"]
    raise UnavailableError(f"{python.name} cannot import {', '.join(modules)}: {said[-1]}")


def find(interpreter: Interpreter) -> Path:
    """Find a CPython of this kind on PATH, under /opt/cpython-* or among pyenv's versions."""
    name = f"python{interpreter.value}"
    for candidate in _candidates(name):
        try:
            facts = ask(candidate)
        except (OSError, UnavailableError):
            continue
        if facts.version.startswith("3.14.") and facts.gil == (interpreter is Interpreter.GIL):
            return candidate
    raise UnavailableError(f"there is no {name} on this machine")


def _candidates(name: str) -> Iterator[Path]:
    on_path = shutil.which(name)
    if on_path:
        yield Path(on_path)
    yield from sorted(Path("/opt").glob(f"cpython-*/bin/{name}"))
    yield from sorted(Path.home().glob(f".pyenv/versions/*/bin/{name}"))


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would change a server, plus `extra`."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PYTHON", "TREADLE_", "VIRTUAL_ENV"))
    }
    return kept | dict(extra or {})


def running() -> Interpreter | None:
    """Which of the two this process is, if it is one of them."""
    if sys.version_info[:2] != (3, 14):
        return None
    free_threaded = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
    return Interpreter.FREE_THREADED if free_threaded else Interpreter.GIL


def with_treadle(interpreter: Interpreter, named: Path | None) -> tuple[Path, Facts]:
    """The interpreter that treadle is measured on, and what it says of itself.

    `named` comes from the command line; without it the variable counts, then this very process.
    Raises UnavailableError when there is none, ComparisonError when its build is not for speed.
    """
    variable = os.environ.get(interpreter.variable)
    python = named or (Path(variable) if variable else None)
    if python is None:
        if running() is not interpreter:
            raise UnavailableError(
                f"name a Python {interpreter.value} that has treadle installed with "
                f"--python-{interpreter.value} PATH or {interpreter.variable}"
            )
        python = Path(sys.executable)
    try:
        facts = ask(python, ("treadle",))
    except OSError as error:
        raise ComparisonError(f"{python} cannot be run: {error.strerror}.") from error
    if not facts.for_speed:
        raise ComparisonError(
            f"treadle in {python} is a {facts.profile} build; only a release build is measured "
            "(maturin develop --release)."
        )
    if facts.gil != (interpreter is Interpreter.GIL):
        state = "on" if facts.gil else "off"
        raise ComparisonError(f"{python} runs with the GIL {state}: it is no {interpreter.value}.")
    return python, facts
