"""Where things are in the repository."""

from pathlib import Path

PROFILING = Path(__file__).resolve().parent
ROOT = PROFILING.parent
PEERS = PROFILING / ".peers"
REQUIREMENTS = PROFILING / "requirements"
RESULTS = PROFILING / "results"
BASELINE = PROFILING / "baseline"
WRK_SCRIPT = PROFILING / "wrk" / "scenario.lua"
