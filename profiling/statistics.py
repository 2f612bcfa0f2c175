"""The few numbers that a comparison keeps of many measurements."""

from collections.abc import Sequence
from statistics import median as _median


def median(values: Sequence[float]) -> float:
    """The median; raises ValueError without values."""
    if not values:
        raise ValueError("no value to take the median of")
    return float(_median(values))


def spread(values: Sequence[float]) -> float:
    """(highest - lowest) / median: how far the rounds lie apart; 0.0 for a single one."""
    return (max(values) - min(values)) / median(values)


def deviation(values: Sequence[float]) -> float:
    """The median absolute deviation: how far the values usually lie from their median."""
    middle = median(values)
    return median([abs(value - middle) for value in values])


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of neighbours.

    The machine's speed drifts by more from minute to minute than most ratios differ; two
    measurements taken back to back share the drift, so it cancels before the median is taken.
    """
    pairs = list(zip(numerators, denominators, strict=True))
    return median([above / below for above, below in pairs])
