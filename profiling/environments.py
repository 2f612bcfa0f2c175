"""What has to be on disk before a server can start: venvs of the peers, the built baseline.

The baseline is built the way treadle is: where treadle's build is profile-guided, so is the
baseline's, trained with those of the requests that it can answer.
"""

import hashlib
import subprocess
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profiling import interpreters, profdata
from profiling.errors import ComparisonError, UnavailableError
from profiling.interpreters import Facts, Interpreter
from profiling.paths import BASELINE, PEERS, REQUIREMENTS
from profiling.peers import Entrant, Product
from profiling.program import Program, running
from profiling.training import client

Say = Callable[[str], None]

_TRAINING_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class Prepared:
    """An entrant that can be started."""

    entrant: Entrant
    executable: Path
    title: str
    """The peer's, with its versions filled in."""
    facts: Facts | None
    """What its interpreter says of itself; None when it has none."""


def prepare(entrant: Entrant, named: dict[Interpreter, Path], say: Say) -> Prepared:
    """Install or build what `entrant` needs, unless that is done already.

    `named` are the interpreters that the user says have treadle. Raises UnavailableError when the
    entrant cannot take part, ComparisonError when it must not.
    """
    interpreter, peer = entrant.interpreter, entrant.peer
    if interpreter is Interpreter.NATIVE:
        title = peer.title.format(hyper=locked_version("hyper"))
        if not any(_is_guided(each, named.get(each)) for each in interpreters.PYTHONS):
            return Prepared(entrant, _built_baseline(say), title, None)
        return Prepared(entrant, _guided_baseline(say), f"{title}, profile-guided", None)
    if peer.product in (Product.TREADLE, Product.TREADLE_UNTIMED):
        python, facts = interpreters.with_treadle(interpreter, named.get(interpreter))
        return Prepared(entrant, python, peer.title.format(treadle=facts.treadle), facts)
    python, facts = with_packages(interpreter, peer.product.value, peer.packages, peer.modules, say)
    return Prepared(entrant, python, peer.title.format_map(pinned(interpreter)), facts)


def with_packages(
    interpreter: Interpreter,
    name: str,
    packages: tuple[str, ...],
    modules: tuple[str, ...],
    say: Say,
) -> tuple[Path, Facts]:
    """A Python of this kind with pinned packages, and what it says once it has imported modules.

    `name` is what they are installed for. Raises UnavailableError when they cannot be had.
    """
    python = _venv(interpreter, say)
    _install(interpreter, name, packages, python, say)
    return python, interpreters.ask(python, modules)


def requirements(interpreter: Interpreter) -> Path:
    """The file that pins every package of an interpreter's venv."""
    return REQUIREMENTS / f"{interpreter.value}.txt"


def pinned(interpreter: Interpreter) -> dict[str, str]:
    """The version of each package of a requirement file, by its lower-case name."""
    lines = requirements(interpreter).read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {name.lower(): version for name, version in pins}


def locked_version(crate: str) -> str:
    """The version of one of the baseline's crates."""
    lock = tomllib.loads((BASELINE / "Cargo.lock").read_text())
    return next(str(entry["version"]) for entry in lock["package"] if entry["name"] == crate)


def _venv(interpreter: Interpreter, say: Say) -> Path:
    python = PEERS / interpreter.value / "bin" / "python"
    if not python.exists():
        base = interpreters.find(interpreter)
        say(f"making the venv of the {interpreter.value} peers")
        _run([str(base), "-m", "venv", str(python.parent.parent)])
    return python


def _install(
    interpreter: Interpreter, name: str, packages: tuple[str, ...], python: Path, say: Say
) -> None:
    pins = requirements(interpreter)
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()[:12]
    marker = python.parent.parent / f"installed-{name}-{digest}"
    if marker.exists():
        return
    say(f"installing {name} for {interpreter.value}")
    # Only wheels: what would have to be compiled here would not be what its authors release.
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([*pip, "--only-binary", ":all:", "--constraint", str(pins), *packages])
    marker.touch()


def built(program: str, say: Say) -> Path:
    """One of the programs in baseline/, built."""
    return _built_baseline(say).with_name(program)


def _built_baseline(say: Say) -> Path:
    target = BASELINE / "target"
    program = target / "release" / "baseline"
    say("building the baseline" if not program.exists() else "checking the baseline")
    _cargo(target)
    return program


def _is_guided(interpreter: Interpreter, named: Path | None) -> bool:
    """Whether it has a treadle that is compiled so."""
    try:
        return interpreters.with_treadle(interpreter, named)[1].profile == "release-pgo"
    except (UnavailableError, ComparisonError):
        return False


def _guided_baseline(say: Say) -> Path:
    """The baseline, profile-guided; built and trained where its sources changed since."""
    target, sources = BASELINE / "target" / "guided", hashlib.sha256()
    for file in [*BASELINE.glob("Cargo.*"), *BASELINE.glob("src/**/*.rs"), Path(client.__file__)]:
        sources.update(file.read_bytes())
    program = target / "release" / "baseline"
    marker = target / f"trained-{sources.hexdigest()[:12]}"
    if marker.exists() and program.exists():
        return program
    tool = profdata.find()
    say("building the baseline, profile-guided")
    with tempfile.TemporaryDirectory() as folder:
        _cargo(target / "instrumented", f"-Cprofile-generate={folder}/build")
        _train(target / "instrumented" / "release" / "baseline", Path(folder))
        _run([str(tool), "merge", "-o", f"{folder}/merged", f"{folder}/counted"])
        _cargo(target, f"-Cprofile-use={folder}/merged")
    marker.touch()
    return program


def _train(program: Path, folder: Path) -> None:
    """Ask an instrumented baseline what treadle is trained with; raises UnavailableError.

    Only what has no body: it does not look at one, and closes a connection that brings one.
    """
    started = Program(
        "the baseline in training",
        lambda port: [str(program), str(port)],
        folder,
        cores="0",
        environment={"LLVM_PROFILE_FILE": str(folder / "counted" / "%p.profraw")},
        ready=b"/",
    )
    try:
        with running(started):
            for _ in client.ask(("127.0.0.1", started.port), _TRAINING_ROUNDS, only=b"GET"):
                pass
    except (OSError, ValueError, ComparisonError) as error:
        raise UnavailableError(f"the baseline cannot be trained: {error}") from error


def _cargo(target: Path, flags: str = "") -> None:
    """Build the baseline's programs into a folder."""
    manifest = ["--manifest-path", str(BASELINE / "Cargo.toml"), "--target-dir", str(target)]
    extra = {"RUSTFLAGS": flags} if flags else {}
    _run(["cargo", "build", "--release", "--locked", "--quiet", *manifest], extra)


def _run(command: list[str], extra: dict[str, str] | None = None) -> None:
    """Run a tool to its end; raises UnavailableError with the last line that it said."""
    environment = interpreters.clean_environment(extra)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    except OSError as error:
        raise UnavailableError(f"{command[0]} cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        tool = command[2] if command[1] == "-m" else Path(command[0]).name
        raise UnavailableError(f"{tool} failed: {said[-1].strip()}")
