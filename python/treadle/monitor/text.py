"""Figures as short text, for columns: never wider than seven characters."""

from __future__ import annotations

from treadle.telemetry import Distribution

__all__ = ["count", "duration", "elapsed", "rate", "share", "size"]

NOTHING = "-"


def count(number: float) -> str:
    """A number of things: 950, 12.3k, 4.56M."""
    for unit in ("", "k", "M", "G", "T"):
        if number < 1000 or unit == "T":
            break
        number /= 1000
    if not unit:
        return f"{number:.0f}"
    # By what it is rounded to, so that 9.999 does not become 10.00.
    return f"{number:.{2 if number < 9.995 else 1 if number < 99.95 else 0}f}{unit}"


def rate(number: float) -> str:
    """A number a second: 0.25, 12.5, 950, 12.3k; a dash for none."""
    if number <= 0:
        return NOTHING
    if number < 9.995:
        return f"{number:.2f}"
    return f"{number:.1f}" if number < 99.95 else count(number)


def share(part: float) -> str:
    """A share of 1 as percentage."""
    return f"{100 * part:.1f}%"


def duration(distribution: Distribution, quantile: float) -> str:
    """A quantile in the unit that fits: 850ns, 12.3us, 4.56ms, 1.23s; a dash where none was counted."""
    if not distribution.count:
        return NOTHING
    number = distribution.quantile(quantile) * 1e9
    for unit in ("ns", "us", "ms", "s"):
        if number < 999.5 or unit == "s":
            break
        number /= 1000
    if unit == "ns" or number >= 99.95:
        return f"{number:.0f}{unit}"
    return f"{number:.{2 if number < 9.995 else 1}f}{unit}"


def size(number: float) -> str:
    """Bytes: 512 B, 45.6 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if number < 1024 or unit == "TiB":
            break
        number /= 1024
    return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"


def elapsed(seconds: float) -> str:
    """A while: 0:59, 1:02:03, 2d 3:04:05."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if not hours:
        return f"{minute}:{second:02}"
    return (f"{days}d " if days else "") + f"{hour}:{minute:02}:{second:02}"
