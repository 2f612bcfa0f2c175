"""What `treadle` offers: every public name exists, is documented, and has a type for checkers."""

import functools
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import pytest

import treadle

NAMES = sorted(treadle.__all__)
# What a class need not explain: it means what it means everywhere.
_OBVIOUS = object.__dict__.keys() | Exception.__dict__.keys()


def _has_docstring(thing: object) -> bool:
    doc = getattr(thing, "__doc__", None)
    # A dataclass without one is given its own signature.
    return bool(doc) and not doc.startswith(f"{getattr(thing, '__name__', None)}(")


def _public_members(owner: type) -> Iterator[tuple[str, object]]:
    """The methods and properties that a class of ours brings, those of private bases too."""
    for base in owner.__mro__:
        if not base.__module__.startswith("treadle"):
            continue
        for name, member in vars(base).items():
            member = getattr(member, "__func__", member)
            described = inspect.isroutine(member) or inspect.isdatadescriptor(member)
            slot = inspect.ismemberdescriptor(member)  # a field: its class describes it
            if described and not slot and not name.startswith("_") and name not in _OBVIOUS:
                yield name, member


def test_all_lists_every_public_name_and_each_once() -> None:
    public = {
        name
        for name, value in vars(treadle).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert len(NAMES) == len(set(NAMES))
    assert public == {name for name in NAMES if not name.startswith("_")}


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(treadle, name)
    if isinstance(value, type):
        undocumented = [
            each for each, member in _public_members(value) if not _has_docstring(member)
        ]
        assert _has_docstring(value), f"{name} has no docstring"
        assert not undocumented, f"methods of {name} without a docstring: {undocumented}"
    elif callable(value) or isinstance(value, ModuleType):
        assert _has_docstring(value), f"{name} has no docstring"
    elif not name.startswith("__"):
        # A plain value cannot carry one.
        assert f"`{name}`" in (treadle.__doc__ or ""), (
            f"treadle's docstring does not say what {name} is"
        )


def _checked(program: str) -> tuple[int, list[str]]:
    """What mypy says of a user's program: its exit status and lines."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--config-file=",
            "--no-incremental",
            "-c",
            program,
        ],
        cwd=Path(sys.prefix),  # away from the sources: the installed package counts
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).splitlines()


@functools.cache
def _revealed() -> dict[str, str]:
    """What mypy says the type of each public name is, as a program that uses them would see it."""
    program = "import treadle\n" + "".join(f"reveal_type(treadle.{name})\n" for name in NAMES)
    status, lines = _checked(program)
    assert status == 0, lines
    notes = [line for line in lines if "Revealed type is" in line]
    assert len(notes) == len(NAMES), lines
    return dict(zip(NAMES, notes, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", NAMES)
def test_a_type_checker_knows_the_type_of_a_public_name(name: str) -> None:
    assert '"Any"' not in _revealed()[name]
    assert "def (*args: Any, **kwargs: Any) -> Any" not in _revealed()[name]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_type_checker_knows_the_arguments_of_run() -> None:
    right = "import treadle\ntreadle.App().run(port='80', uds=None, grace=1, metrics=True)\n"
    status, lines = _checked(right + "treadle.App().run(prot=80, grace=[])\n")
    wrong = [line for line in lines if ": error: " in line]
    assert status == 1
    assert len(wrong) == 2, lines
    assert '"prot"' in wrong[0]
    assert '"grace"' in wrong[1]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_type_checker_knows_what_a_request_holds() -> None:
    types = {
        "request.app": "treadle.app.App",
        "request.client": "tuple[str, int] | None",
        "request.cookies": "dict[str, str]",
        "request.headers.get('a')": "str | None",
        "request.headers.get('a', '')": "str",
        "request.lane": "treadle.lane.Lane",
        "request.path_params": "dict[str, str]",
        "request.query": "treadle.datastructures.QueryParams",
        "request.query.get('a', 1)": "str | int",
        "request.state": "treadle.datastructures.State",
    }
    body = "".join(f"    reveal_type({each})\n" for each in types)
    status, lines = _checked(
        f"import treadle\ndef handler(request: treadle.Request) -> None:\n{body}"
    )
    assert status == 0, lines
    assert [line.split('"')[1].replace("builtins.", "") for line in lines[:-1]] == [*types.values()]


def test_the_package_says_that_it_is_typed() -> None:
    assert files("treadle").joinpath("py.typed").is_file()
    assert files("treadle").joinpath("_treadle.pyi").is_file()
