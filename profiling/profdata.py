"""The tool that merges what an instrumented build counted: `python -m profiling.profdata`.

It has to be of the LLVM that rustc was built with, or of a later one: it reads that compiler's files.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from profiling.errors import UnavailableError

_NAME = "llvm-profdata"


def find() -> Path:
    """Rust's own, or one on PATH that is new enough. Raises UnavailableError with what to do."""
    told = _said("rustc", "-vV")
    host, wanted = re.search(r"^host: (.+)$", told, re.M), _major(told)
    if host is None or wanted is None:
        raise UnavailableError("rustc does not say what it was built with (rustc -vV)")
    own = Path(_said("rustc", "--print", "sysroot").strip(), "lib/rustlib", host[1], "bin", _NAME)
    for tool in (own, *_on_path(wanted)):
        if tool.exists() and (_major(_said(str(tool), "--version")) or 0) >= wanted:
            return tool
    raise UnavailableError(
        f"a profile-guided build needs {_NAME} of LLVM {wanted} or later: "
        f"rustup component add llvm-tools, or Debian's llvm-{wanted}"
    )


def _on_path(wanted: int) -> Iterator[Path]:
    """Those that PATH has, which distributions name after their version."""
    for name in (_NAME, *(f"{_NAME}-{major}" for major in range(wanted, wanted + 5))):
        found = shutil.which(name)
        if found:
            yield Path(found)


def _major(said: str) -> int | None:
    found = re.search(r"LLVM version:? (\d+)", said)
    return int(found[1]) if found else None


def _said(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout


def main() -> int:
    """Print its path, or say what is missing. Returns the exit status."""
    try:
        print(find())
    except UnavailableError as error:
        print(f"{error}.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
