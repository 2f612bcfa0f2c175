import pytest

from profiling.statistics import median, paired_ratio, spread


def test_the_median_ignores_one_round_that_went_wrong() -> None:
    assert median([100.0, 101.0, 3.0]) == 100.0


def test_the_median_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no value"):
        median([])


def test_the_spread_is_relative_to_the_median() -> None:
    assert spread([90.0, 100.0, 120.0]) == pytest.approx(0.3)


def test_a_paired_ratio_is_free_of_drift() -> None:
    drifting = [1.0, 0.7, 1.3]
    numerators = [95.0 * drift for drift in drifting]
    denominators = [100.0 * drift for drift in drifting]
    assert paired_ratio(numerators, denominators) == pytest.approx(0.95)
    # The ratio of the medians is what drift between the two would spoil.
    assert median(numerators) / median([100.0, 130.0, 130.0]) != pytest.approx(0.95)


def test_halves_without_a_neighbour_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_ratio([1.0, 2.0], [1.0])
