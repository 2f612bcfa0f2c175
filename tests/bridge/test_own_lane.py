"""The tests of the bridge again, with an extension that finds the lane as a lane.

In the others the probe is a library beside Treadle's, and every loop is foreign to it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiling.extensions import BUILDING, build

HERE = Path(__file__).parent
FILES = [
    "test_awaiting_from_other_threads.py",
    "test_future_homes.py",
    "test_future_outcomes.py",
    "test_future_to_python.py",
    "test_python_to_future.py",
    "test_streams.py",
    "test_what_rust_awaits.py",
]


@pytest.mark.slow
@pytest.mark.timeout(BUILDING)
def test_the_bridge_on_a_lane_of_the_same_library() -> None:
    build("probe")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "support.own_probe"]
    command += ["-p", "no:cacheprovider", "-o", "timeout=60"]
    done = subprocess.run(
        [*command, *(str(HERE / name) for name in FILES)],
        env={**os.environ, "PYTHONPATH": str(HERE.parent)},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
