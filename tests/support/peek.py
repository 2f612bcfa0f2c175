"""A process looked at by CPython's `python -m asyncio ps` and `pstree` (3.14 on)."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest


def look_from_outside(command: list[str], *tools: str) -> list[str]:
    """What each tool says of the process that `command` starts.

    The process says "ready" and goes on until its input ends. Skips the test where the system does
    not let a process look into another.
    """
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = []
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", line
        for tool in tools:
            look = [sys.executable, "-m", "asyncio", tool, str(process.pid)]
            seen = subprocess.run(look, capture_output=True, text=True, timeout=30, check=False)
            if re.search("permission|not supported", seen.stdout + seen.stderr, re.IGNORECASE):
                pytest.skip("the system does not let a process look into another")
            assert seen.returncode == 0, seen.stderr
            said.append(seen.stdout)
    finally:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert not errors, errors
    return said
