"""The extensions of the tests and of `bridge`: cargo builds them for the running interpreter.

`interop` (tests/interop) is built on pyo3-async-runtimes and knows nothing of Treadle. `probe`
(tests/bridge/probe) uses Treadle's bridge from a library of its own, as any extension does: to it a
lane is an event loop like others. It carries Treadle's native module too; after `use_probe` that is
the one that `treadle` imports, and the probe finds the lane as a lane.
"""

from __future__ import annotations

import functools
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from profiling.errors import UnavailableError
from profiling.paths import ROOT

TESTS = ROOT / "tests"
CRATES = {"interop": TESTS / "interop", "probe": TESTS / "bridge" / "probe"}
BUILDING = 900
"""Seconds that the first build may take; later ones only look."""


@functools.cache
def build(name: str, *, release: bool = False) -> Path:
    """Build an extension, unless it is up to date, and return the library.

    Raises UnavailableError with what cargo said when it cannot.
    """
    tag = f"{sys.implementation.cache_tag}{sys.abiflags}"
    base = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    environment = {
        **os.environ,
        "CARGO_TARGET_DIR": str(base / f"extensions-{tag}"),
        "PYO3_PYTHON": sys.executable,
    }
    # Set for the tests of the crate itself, which embed an interpreter; it would compile all anew.
    environment.pop("RUSTFLAGS", None)
    command = ["cargo", "build", "--quiet", "--message-format=json-render-diagnostics"]
    command += ["--manifest-path", str(CRATES[name] / "Cargo.toml")]
    command += ["--release"] if release else []
    if sys.platform == "darwin":
        environment["RUSTFLAGS"] = "-C link-arg=-undefined -C link-arg=dynamic_lookup"
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"cargo could not build {name}:\n{done.stderr}")
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    made = [m for m in messages if m.get("target", {}).get("name") == name and m.get("filenames")]
    return Path(made[-1]["filenames"][0])


def load(name: str, *, release: bool = False) -> ModuleType:
    """Build an extension and import it."""
    return load_library(name, build(name, release=release))


def load_library(name: str, library: Path) -> ModuleType:
    """Import an extension from the library that cargo left."""
    known = sys.modules.get(name)
    if known is not None:
        return known
    loader = importlib.machinery.ExtensionFileLoader(name, str(library))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules[name] = module
    return module


def use_probe(library: Path) -> ModuleType:
    """Import the probe and make its native module Treadle's; before `treadle` is imported."""
    assert "treadle" not in sys.modules
    probe = load_library("probe", library)
    sys.modules["treadle._treadle"] = probe._treadle
    return probe
