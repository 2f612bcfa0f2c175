import pytest

from profiling.soak.census import Count, growth


def _counts(**change: float) -> list[Count]:
    """Twelve counts; each named field grows by so much from one to the next."""
    start = {"answers": 0, "rss": 50 * 2**20, "fds": 30, "tasks": 2, "objects": 25_000}
    return [
        Count(second=turn, **{k: int(v + change.get(k, 0) * turn) for k, v in start.items()})
        for turn in range(12)
    ]


def test_what_stands_still_has_not_grown() -> None:
    assert growth(_counts(answers=1_000)) == []


@pytest.mark.parametrize(
    ("field", "each", "said"),
    [
        ("rss", 2**20 * 2, "bytes resident grew from"),
        ("fds", 1, "open files grew from"),
        ("tasks", 0.5, "Tasks grew from"),
        ("objects", 100, "objects grew from"),
    ],
)
def test_what_grows_steadily_is_told(field: str, each: float, said: str) -> None:
    (told,) = growth(_counts(**{field: each}))
    assert told.startswith(said)


def test_a_warm_up_is_not_growth() -> None:
    counts = _counts()
    counts[0] = Count(second=0, answers=0, rss=2**20, fds=3, tasks=0, objects=10)
    assert growth(counts) == []


def test_too_few_counts_say_nothing() -> None:
    assert growth(_counts(fds=5)[:5]) == []
