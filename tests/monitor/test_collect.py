"""Totals of several workers: complete, and never going down."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from support.figures import lane, route, stats

from treadle.binding import bind_unix
from treadle.monitor import collect
from treadle.monitor.collect import Collector, Group
from treadle.monitor.service import Service
from treadle.telemetry import Stats


class Worker:
    """A worker in this process: what it would say, and whether it answers."""

    def __init__(self, group: Group, index: int, pid: int) -> None:
        self.says = stats(pid, lanes=(lane(0), lane(1)), routes=(route("/a"),))
        self.collector = Collector(lambda: self.says, group, worker=index, lanes=2)
        self._binding = bind_unix(group.path(index), 8, private=True)
        self._service = Service()
        self._service.add(self._binding.sockets[0], self.collector.own, metrics=False)
        self._service.start()

    def count(self, requests: int) -> None:
        (counted,) = self.says.routes
        counted = msgspec.structs.replace(counted, requests=requests)
        self.says = msgspec.structs.replace(self.says, routes=(counted,))

    def stop(self) -> None:
        self._service.stop()
        self._binding.close()


Start = Callable[[int, int], Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(index, pid)` is a worker of a group of two."""
    group = Group(folder=str(tmp_path), parent=99, size=2)
    with ExitStack() as running:

        def begin(index: int, pid: int) -> Worker:
            worker = Worker(group, index, pid)
            running.callback(lambda: worker._service._thread.is_alive() and worker.stop())
            return worker

        yield begin


def requests(told: Stats) -> int:
    return sum(each.requests for each in told.routes)


def test_without_other_workers_the_whole_is_this_process() -> None:
    assert Collector(stats).read() == stats()


def test_any_worker_tells_the_whole(start: Start) -> None:
    first, second = start(0, 1), start(1, 2)
    first.count(10)
    second.count(100)
    for worker in (first, second, first):
        told = worker.collector.read()
        assert (requests(told), told.pid, told.rss) == (110, 99, 20_000_000)
        # The lanes of both, each with a number of its own.
        assert [each.index for each in told.lanes] == [0, 1, 2, 3]


def test_a_worker_that_does_not_answer_counts_with_what_it_said_last(start: Start) -> None:
    first, second = start(0, 1), start(1, 2)
    second.count(100)
    assert requests(first.collector.read()) == 103
    second.stop()
    told = first.collector.read()
    assert requests(told) == 103
    assert told.rss == 10_000_000
    assert [each.index for each in told.lanes] == [0, 1, 2, 3]


def test_what_a_replaced_worker_counted_is_kept(start: Start) -> None:
    first, second = start(0, 1), start(1, 2)
    second.count(100)
    second.says = msgspec.structs.replace(
        second.says, routes=(msgspec.structs.replace(second.says.routes[0], in_flight=5),)
    )
    assert requests(first.collector.read()) == 103
    second.stop()
    third = start(1, 3)
    for worker in (third, first):
        assert requests(worker.collector.read()) == 106
    third.stop()
    start(1, 4)
    told = first.collector.read()
    assert requests(told) == 109
    assert told.routes[0].in_flight == 0
    assert [each.turns for each in told.lanes] == [10, 10, 30, 30]


def test_the_whole_is_as_old_as_its_parent_however_young_its_workers_are(start: Start) -> None:
    first = start(0, 1)
    before = first.collector.read().uptime
    first.says = stats(3, uptime=0.0)
    assert first.collector.read().uptime > before > 0


def test_a_worker_that_hangs_costs_its_patience_once(
    start: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(collect, "PATIENCE", 0.05)
    first = start(0, 1)
    with bind_unix(str(tmp_path / "1.sock"), 8):  # accepts by its queue, and answers nothing
        assert requests(first.collector.read()) == 3


def test_a_ledger_that_cannot_be_read_is_begun_anew(start: Start, tmp_path: Path) -> None:
    first = start(0, 1)
    (tmp_path / "ledger").write_bytes(b"{")
    assert requests(first.collector.read()) == 3
    assert requests(first.collector.read()) == 3
