"""A process leaves in silence, whatever loops it made."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "made",
    [
        "treadle.new_event_loop()",
        "loop = treadle.new_event_loop()",
        "asyncio.set_event_loop(treadle.new_event_loop())",
        "loop = treadle.new_event_loop(); loop.close()",
        "treadle.new_event_loop().create_future()",
        "asyncio.Runner(loop_factory=treadle.new_event_loop).get_loop()",
    ],
)
def test_a_loop_that_never_ran_does_not_disturb_the_exit(made: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"import asyncio, treadle; {made}"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
