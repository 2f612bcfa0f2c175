"""Writing what the user asked for."""

from pathlib import Path

from profiling.errors import ComparisonError


def write(path: Path, text: str) -> None:
    """Write a file; raises ComparisonError when that cannot be done."""
    try:
        path.write_text(text)
    except OSError as error:
        raise ComparisonError(f"{path} cannot be written: {error.strerror}.") from error
