"""The stub of the native module says what the module has, no more and no less."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_stub_agrees_with_the_native_module() -> None:
    # Without a stub there is nothing to check for a private module, and stubtest calls that success.
    assert files("treadle").joinpath("_treadle.pyi").is_file()
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "treadle._treadle"],
        cwd=Path(sys.prefix),  # away from the sources: the installed package counts
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
