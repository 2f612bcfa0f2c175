"""Progress on standard error: plain lines, so that a log of them reads like the terminal."""

import sys
import time

from profiling.results import Sample

DISTURBED = 0.05
"""From this part of its core on that others took, a measurement is worth doubting."""


class Console:
    """Says what is being done, how far it is and how long it will still take."""

    def __init__(self, quiet: bool = False) -> None:
        """Say nothing at all when `quiet`."""
        self._quiet = quiet
        self._total = 0
        self._done = 0
        self._began = 0.0

    def say(self, line: str) -> None:
        """One line."""
        if not self._quiet:
            print(line, file=sys.stderr, flush=True)

    def begin(self, total: int, seconds: float) -> None:
        """So many measurements follow, of about so many seconds in all."""
        self._total, self._done, self._began = total, 0, time.monotonic()
        self.say(f"{total} measurements, about {_duration(seconds)}")

    def measured(self, sample: Sample, rounds: int) -> None:
        """One of them is done."""
        self._done += 1
        taken = time.monotonic() - self._began
        left = _duration(taken / self._done * (self._total - self._done))
        lanes = f" {sample.lanes} lanes" if sample.cores != "0" else ""
        trouble = "".join(
            f"  {count} {what}"
            for count, what in ((sample.timeouts, "timeouts"), (sample.broken, "broken"))
            if count
        )
        if sample.disturbed > DISTURBED:
            trouble += f"  disturbed {sample.disturbed:.0%}"
        self.say(
            f"[{self._done:>3}/{self._total}] round {sample.round + 1}/{rounds}  "
            f"{sample.server + lanes:<22} {sample.scenario:<10} c{sample.connections:<4}"
            f"{sample.rate:>11,.0f}/s {sample.cpu_us:>7.2f} us  {left} left{trouble}"
        )


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
