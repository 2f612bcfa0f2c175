"""Figures as words, the same in every report."""

from __future__ import annotations

__all__ = ["bytes_", "count", "nanoseconds", "seconds", "share"]


def seconds(value: float) -> str:
    """Three digits and the unit that fits: `870 ns`, `12.3 us`, `4.56 ms`, `1.20 s`."""
    if value <= 0:
        return "0"
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= size * 0.9995:
            return f"{_three(value / size)} {unit}"
    return f"{value * 1e9:.0f} ns"


def nanoseconds(value: float | None) -> str:
    """`seconds` of nanoseconds; a dash where there is no value."""
    return "-" if value is None else seconds(value / 1e9)


def share(part: float) -> str:
    """A percentage: a decimal below ten, and no zero for what is not zero."""
    percent = part * 100
    if 0 < percent < 0.1:
        return "< 0.1 %"
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"


def count(number: float) -> str:
    """A number with separators; decimals only where it is small."""
    return f"{number:,.1f}" if 0 < number < 10 and number != int(number) else f"{number:,.0f}"


def bytes_(number: float) -> str:
    """`12.3 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if number < 1024:
            return f"{_three(number)} {unit}"
        number /= 1024
    return f"{_three(number)} GiB"


def _three(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
