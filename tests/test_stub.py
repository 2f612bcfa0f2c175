"""The stub of the native module says what the module has, no more and no less."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_the_stub_agrees_with_the_native_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "treadle._treadle"],
        cwd=ROOT,
        env={**os.environ, "FORCE_COLOR": "0", "MYPYPATH": str(ROOT / "python")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
