"""A place in the app under test where handlers stop until the test lets them go on.

For servers of the test's own process; `support.gate` is the same across processes. Handlers and
test meet in queues, so neither sleeps.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from queue import Empty, Queue

import pytest

DEADLINE = 10.0
"""Seconds anything may take before the test fails."""


def take[T](queue: Queue[T]) -> T:
    """The next item of `queue`, which some other thread is about to put."""
    try:
        return queue.get(timeout=DEADLINE)
    except Empty:
        raise AssertionError("it did not happen") from None


class Hold:
    """`await hold()` in a handler stops it; what became of the wait is an `outcome`."""

    def __init__(self) -> None:
        self._arrivals: Queue[None] = Queue()
        self._outcomes: Queue[str] = Queue()
        self._open: Future[None] = Future()

    # -- in the app --

    async def __call__(self) -> None:
        """Waits for `release`."""
        with self.watched():
            # Shielded: cancelling one handler is not to release the others.
            await asyncio.shield(asyncio.wrap_future(self._open))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Reports the arrival at a block of the handler's own, and how it was left."""
        self._arrivals.put(None)
        outcome = "finished"
        try:
            yield
        except BaseException as error:
            outcome = type(error).__name__
            raise
        finally:
            self._outcomes.put(outcome)

    def block(self) -> None:
        """The same for a thread."""
        with self.watched():
            self._open.result(DEADLINE)

    # -- in the test --

    def wait_arrival(self, count: int = 1) -> None:
        """Waits until `count` more handlers have come here."""
        for _ in range(count):
            take(self._arrivals)

    def release(self) -> None:
        """Lets all of them go on, those that come later too."""
        if not self._open.done():
            self._open.set_result(None)

    def outcome(self) -> str:
        """Waits for the next handler to leave: "finished", or the class of what was raised."""
        return take(self._outcomes)

    @property
    def is_untouched(self) -> bool:
        """Whether nothing has come here that was not waited for."""
        return self._arrivals.empty()


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Where handlers stop; opened at the latest when the test ends, so that nothing hangs."""
    held = Hold()
    yield held
    held.release()
