"""Short runs of the load generator, and what is always true of their results."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from treadle import App, Request, Response
from treadle.profile.load import (
    FailureResult,
    LoadJob,
    LoadRequest,
    LoadResult,
    LoadRun,
    SliceResult,
)

type Address = tuple[str, int] | str
type Drive = Callable[..., LoadResult]


def job(address: Address, *paths: str, **options: Any) -> LoadJob:
    """A short run, closed loop, two connections; each path is a request."""
    requests = tuple(LoadRequest(name=path, path=path) for path in paths or ("/",))
    given = {"requests": requests, "connections": 2, "duration": 0.3, "warmup": 0.0, **options}
    return LoadJob(address=address, **given)


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture
def drive() -> Drive:
    """`drive(address, *paths, **options)` does such a run; its process is gone after it."""

    def run(address: Address, *paths: str, **options: Any) -> LoadResult:
        with LoadRun(job(address, *paths, **options)) as running:
            pid = running.pid
            result = running.result()
        assert is_gone(pid)
        assert_adds_up(result)
        return result

    return run


def assert_adds_up(result: LoadResult) -> None:
    assert result.completed == sum(each.completed for each in result.requests)
    assert result.failed == sum(each.failed for each in result.requests)
    assert result.failed == sum(each.count for each in result.failures)
    assert result.completed == result.latency.count
    assert all(failure.example for failure in result.failures)
    for before, after in zip(result.slices, result.slices[1:], strict=False):
        assert before.start + before.seconds == pytest.approx(after.start)


def failures(result: LoadResult) -> dict[str, FailureResult]:
    return {failure.kind: failure for failure in result.failures}


def in_slices(result: LoadResult, field: Callable[[SliceResult], int]) -> int:
    return sum(field(each) for each in result.slices)


class Counting:
    """An app that counts what it is asked."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.app = App()
        self._lock = threading.Lock()

        def answer(request: Request) -> Response:
            with self._lock:
                self.seen[request.path] = self.seen.get(request.path, 0) + 1
            return Response("x" * 100)

        for path in ("/a", "/b", "/c"):
            self.app.get(path)(answer)
