import tomllib
from pathlib import Path

import pytest

from profiling import environments
from profiling.interpreters import PYTHONS, Interpreter, clean_environment
from profiling.paths import BASELINE, ROOT
from profiling.peers import PEERS, Entrant, Launch, Product, entrants, peer_of
from profiling.scenarios import SCENARIOS, Endpoint

EVERYBODY = entrants(frozenset(Product), PYTHONS)
INSTALLED = [entrant for entrant in EVERYBODY if entrant.peer.packages]
LAUNCH = Launch(Path("/somewhere/python"), 4321, lanes=2)


def test_every_product_has_one_peer() -> None:
    assert [peer_of(product).product for product in Product] == list(Product)
    assert len(PEERS) == len(Product)


@pytest.mark.parametrize("entrant", INSTALLED, ids=lambda entrant: entrant.label)
def test_every_package_of_a_peer_is_pinned_and_its_title_can_be_told(entrant: Entrant) -> None:
    pins = environments.pinned(entrant.interpreter)
    assert set(entrant.peer.packages) <= pins.keys()
    assert "{" not in entrant.peer.title.format_map(pins)


@pytest.mark.parametrize("interpreter", PYTHONS)
def test_requirements_name_versions_and_nothing_else(interpreter: Interpreter) -> None:
    pins = environments.pinned(interpreter)
    assert len(pins) > 10
    assert all(version[0].isdigit() for version in pins.values())


@pytest.mark.parametrize("entrant", EVERYBODY, ids=lambda entrant: entrant.label)
def test_a_command_names_its_program_its_port_and_an_app_that_exists(entrant: Entrant) -> None:
    command = entrant.peer.command(LAUNCH)
    assert command[0] == "/somewhere/python"
    assert "4321" in command
    for word in command:
        module, _, _ = word.partition(":")
        if module.startswith("profiling."):
            assert (ROOT / f"{module.replace('.', '/')}.py").is_file()


def test_treadle_is_told_how_many_lanes() -> None:
    command = peer_of(Product.TREADLE).command(LAUNCH)
    assert command[command.index("--lanes") + 1] == "2"


def test_a_peer_that_cannot_pipeline_is_not_asked_to() -> None:
    asked = [s.name for s in SCENARIOS if peer_of(Product.TURBOAPI).serves(s) and s.depth > 1]
    assert asked == []


def test_treadle_is_asked_everything() -> None:
    assert peer_of(Product.TREADLE).endpoints == frozenset(Endpoint)


def test_a_server_inherits_nothing_that_would_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON_GIL", "1")
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("TREADLE_LANES", "8")
    kept = clean_environment({"TURBO_DISABLE_CACHE": "1"})
    assert kept["TURBO_DISABLE_CACHE"] == "1"
    assert not [name for name in kept if name.startswith(("PYTHON", "TREADLE_"))]


def _locked(lock: Path) -> dict[str, set[str]]:
    versions: dict[str, set[str]] = {}
    for crate in tomllib.loads(lock.read_text())["package"]:
        versions.setdefault(crate["name"], set()).add(crate["version"])
    return versions


def test_the_baseline_is_built_of_the_crates_and_the_way_treadle_is() -> None:
    ours, theirs = _locked(ROOT / "Cargo.lock"), _locked(BASELINE / "Cargo.lock")
    shared = {"bytes", "http", "http-body", "httparse", "hyper", "mio", "tokio"}
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}
    release = [
        tomllib.loads((folder / "Cargo.toml").read_text())["profile"]["release"]
        for folder in (ROOT, BASELINE)
    ]
    assert release[0] == release[1]
