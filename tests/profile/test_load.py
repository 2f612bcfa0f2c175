"""The load generator: what it counts, against servers that behave and servers that do not."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.misbehaving import ANSWER, Conversation, Misbehaving, requests, reset
from support.servers import free_port
from support.types import Serve

from treadle import App, Request, Response
from treadle.profile.load import (
    FailureResult,
    LoadError,
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


# -- closed loop -----------------------------------------------------------------------------------


def test_every_answer_of_a_closed_loop_is_counted(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    result = drive(serve(counting.app).address, "/a", connections=4)
    assert result.ending == "complete"
    assert (result.failed, result.unsent, result.unfinished) == (0, 0, 0)
    assert result.completed == counting.seen["/a"] > 0
    assert result.requests[0].statuses == {200: result.completed}
    assert result.connections == 4
    assert result.service is None
    assert 0.3 <= result.seconds < 1.3
    assert result.rate == result.completed / result.seconds
    assert result.latency.min <= result.latency.quantile(0.5) <= result.latency.max
    assert result.bytes > 100 * in_slices(result, lambda each: each.completed)
    # What was under way at the end of sending is in no slice.
    assert 0 <= result.completed - in_slices(result, lambda each: each.completed) <= 4
    assert sum(each.seconds for each in result.slices) == pytest.approx(0.3)


def test_each_connection_has_one_request_under_way(drive: Drive) -> None:
    all_there = threading.Barrier(3)
    at_once: list[int] = []

    def answer(connection: socket.socket) -> None:
        # Nobody's first request is answered before everybody's is there.
        at_once.append(requests(connection))
        all_there.wait(10)
        connection.sendall(ANSWER)
        while count := requests(connection):
            at_once.append(count)
            connection.sendall(ANSWER)

    with Misbehaving(answer) as server:
        result = drive(server.address, connections=3)
    assert result.failed == 0
    assert result.completed == len(at_once) > 3
    assert set(at_once) == {1}


def test_a_warm_up_is_sent_and_not_counted(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    result = drive(serve(counting.app).address, "/a", warmup=0.2, duration=0.2)
    assert 0 < result.completed < counting.seen["/a"]
    assert sum(each.seconds for each in result.slices) == pytest.approx(0.2)


# -- what is sent ----------------------------------------------------------------------------------


def test_requests_come_by_weight_and_each_is_told_apart(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    weighted = [("/a", 3.0), ("/b", 1.0), ("/c", 0.0)]
    sent = tuple(LoadRequest(name=path, path=path, weight=weight) for path, weight in weighted)
    result = drive(serve(counting.app).address, requests=sent, rate=2000.0, connections=8, seed=5)
    a, b, c = (each.completed for each in result.requests)
    assert {"/a": a, "/b": b} == counting.seen
    assert c == 0
    assert result.requests[0].latency.count == a
    assert a + b == result.completed
    # By request 600 the share of this seed is settled, however many of them were in time.
    assert b / (a + b) == pytest.approx(0.25, abs=0.06)


def test_all_of_a_request_is_sent(serve: Serve, drive: Drive) -> None:
    app = App()
    seen: list[tuple[str, str, str | None, list[str], bytes]] = []

    @app.put("/x/{name}")
    async def put(name: str, request: Request) -> None:
        lists = [value for key, value in request.headers.items() if key == "x-list"]
        body = await request.body()
        seen.append((name, str(request.query), request.headers.get("host"), lists, body))

    server = serve(app)
    sent = LoadRequest(
        name="put",
        method="PUT",
        path="/x/a%20b?q=1",
        headers=(("x-list", "1"), ("X-List", "2")),
        body=b"\x00body" * 20_000,
    )
    result = drive(server.address, requests=(sent,), connections=1)
    assert result.failed == 0
    name, query, host, lists, body = seen[0]
    assert (name, "q" in query, lists) == ("a b", True, ["1", "2"])
    assert host == f"127.0.0.1:{server.port}"
    assert body == sent.body


def test_a_large_answer_is_read_to_its_end(serve: Serve, drive: Drive) -> None:
    app = App()

    @app.get("/")
    def large() -> Response:
        return Response(b"x" * 3_000_000)

    result = drive(serve(app).address)
    assert result.failed == 0
    assert result.latency.count == result.completed
    assert result.bytes >= 3_000_000 * in_slices(result, lambda each: each.completed)


def test_a_unix_socket_is_an_address(serve: Serve, drive: Drive, tmp_path: Path) -> None:
    counting = Counting()
    server = serve(counting.app, uds=str(tmp_path / "socket"))
    assert isinstance(server.address, str)
    result = drive(server.address, "/a")
    assert result.completed == counting.seen["/a"] > 0
    assert result.failed == 0


# -- open loop -------------------------------------------------------------------------------------


def test_an_open_loop_keeps_its_rate(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    result = drive(serve(counting.app).address, "/a", rate=400.0, connections=32, duration=0.5)
    # Exactly so many are due; on a busy machine the last ones may find no free connection.
    assert result.completed + result.unsent == 200
    assert result.completed == counting.seen["/a"]
    assert result.unsent <= 20
    assert result.rate == pytest.approx(400.0, rel=0.2)
    assert result.service is not None
    assert result.service.count == result.completed
    assert result.service.sum <= result.latency.sum


def test_a_stall_shows_in_every_request_that_it_held_up(serve: Serve, drive: Drive) -> None:
    app = App()
    count = 0

    @app.get("/")
    def once() -> None:
        nonlocal count
        count += 1
        if count == 20:
            time.sleep(0.2)

    result = drive(serve(app, lanes=1).address, rate=500.0, connections=4, duration=0.5)
    assert result.failed == 0
    assert result.completed + result.unsent == 250  # the stall took none away
    assert result.completed > 200
    assert result.service is not None
    # 100 requests came due meanwhile, and waited for 100 ms on average. Only those on the four
    # connections were sent into the stall.
    held_up = sum(n for upper, n in result.latency.buckets if upper > 0.05)
    assert held_up >= 60
    assert result.latency.quantile(0.999) >= 0.19
    sent_into_it = sum(n for upper, n in result.service.buckets if upper > 0.15)
    assert 1 <= sent_into_it <= held_up / 4


def test_what_was_due_and_never_sent_is_counted(drive: Drive) -> None:
    released = threading.Event()

    def hold(connection: socket.socket) -> None:
        while requests(connection):
            released.wait()
            connection.sendall(ANSWER)

    with Misbehaving(hold) as server:
        try:
            result = drive(server.address, rate=100.0, duration=0.3, grace=0.0)
        finally:
            released.set()
    assert (result.completed, result.failed) == (0, 0)
    assert (result.unfinished, result.unsent) == (2, 28)


def test_answers_under_way_at_the_end_are_waited_for(drive: Drive) -> None:
    def slow(connection: socket.socket) -> None:
        while requests(connection):
            time.sleep(0.3)
            connection.sendall(ANSWER)

    with Misbehaving(slow) as server:
        result = drive(server.address, duration=0.1, grace=5.0)
    assert (result.completed, result.unfinished) == (2, 0)
    assert result.seconds >= 0.3
    assert in_slices(result, lambda each: each.completed) == 0


# -- servers that do wrong -------------------------------------------------------------------------


def test_an_answer_that_was_not_expected_is_a_failure(serve: Serve, drive: Drive) -> None:
    app = App()

    @app.get("/good")
    def good() -> None: ...

    @app.get("/bad")
    def bad() -> Response:
        return Response("out of order", status=503)

    result = drive(serve(app).address, "/good", "/bad")
    assert result.completed == result.requests[0].completed > 0
    assert result.requests[1].completed == result.requests[1].latency.count == 0
    assert result.requests[1].statuses == {503: result.failed}
    assert failures(result).keys() == {"status"}
    said = failures(result)["status"].example
    assert said == (
        "GET /bad was answered 503 Service Unavailable, expected a status below 400: out of order"
    )
    assert result.connections == 2  # such an answer is no reason to connect anew


def test_only_the_expected_statuses_are_right(serve: Serve, drive: Drive) -> None:
    counting = Counting()
    sent = (
        LoadRequest(name="missing", path="/nowhere", expect=(404, 410)),
        LoadRequest(name="found", path="/a", expect=(201,)),
    )
    result = drive(serve(counting.app).address, requests=sent)
    assert result.requests[0].completed > 0
    assert result.requests[0].failed == 0
    assert result.requests[1].completed == 0
    assert "/a was answered 200 OK, expected 201: xxx" in failures(result)["status"].example


def _garbage(connection: socket.socket) -> None:
    while requests(connection):
        connection.sendall(b"\x00\x01 this is no HTTP\r\n\r\n")


def _bad_chunk(connection: socket.socket) -> None:
    while requests(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")


def _close_midway(connection: socket.socket) -> None:
    requests(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nonly this")


def _close_silently(connection: socket.socket) -> None:
    requests(connection)


def _reset(connection: socket.socket) -> None:
    requests(connection)
    reset(connection)


def _stall(connection: socket.socket) -> None:
    requests(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nand")
    requests(connection)  # none comes: until the client gives up


@pytest.mark.parametrize(
    ("conversation", "kind"),
    [
        (_garbage, "malformed"),
        (_bad_chunk, "malformed"),
        (_close_midway, "closed"),
        (_close_silently, "closed"),
        (_reset, "reset"),
        (_stall, "timeout"),
    ],
)
def test_a_broken_answer_is_counted_by_kind(
    drive: Drive, conversation: Conversation, kind: str
) -> None:
    with Misbehaving(conversation) as server:
        result = drive(server.address, timeout=0.1 if kind == "timeout" else 10.0)
    assert result.ending == "complete"  # it is there, if nothing more
    assert result.completed == 0
    assert failures(result).keys() == {kind}
    assert failures(result)[kind].example.startswith("GET /: ")
    assert result.connections > 2
    # Each worker keeps off for a while after a failure: no storm of connections.
    assert result.failed <= 2 * 31


def test_a_closed_connection_is_opened_anew(drive: Drive) -> None:
    def one_each(connection: socket.socket) -> None:
        requests(connection)
        connection.sendall(ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))

    with Misbehaving(one_each) as server:
        result = drive(server.address)
    assert result.failed == 0
    assert result.completed > 2
    assert result.completed <= result.connections <= result.completed + 2


def test_a_connection_that_is_closed_while_idle_is_no_failure(drive: Drive) -> None:
    def impatient(connection: socket.socket) -> None:
        if requests(connection):
            connection.sendall(ANSWER)
        # Not announced, and long before the next request is due.

    with Misbehaving(impatient) as server:
        result = drive(server.address, rate=10.0, duration=0.3, connections=1)
    assert result.failed == 0
    assert result.completed == 3


def test_a_server_that_is_not_there_ends_the_run_early(drive: Drive) -> None:
    before = time.monotonic()
    result = drive(("127.0.0.1", free_port()), duration=60.0, give_up=0.1)
    assert time.monotonic() - before < 20.0
    assert result.ending == "server gone"
    assert "refused" in result.reason
    assert result.completed == 0
    assert failures(result).keys() == {"refused"}
    assert result.latency.max == 0.0


def test_a_server_that_dies_leaves_a_partial_result(drive: Drive, tmp_path: Path) -> None:
    source = (
        "import itertools, os, signal\n"
        "from treadle import App\n"
        "app, count = App(), itertools.count(1)\n"
        "@app.get('/')\n"
        "def die():\n"
        "    if next(count) == 100:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    (tmp_path / "dying.py").write_text(source)
    port = free_port()
    command = [sys.executable, "-m", "treadle", "run", "dying:app", "--port", str(port)]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        result = drive(("127.0.0.1", port), duration=60.0, give_up=0.2)
    assert result.ending == "server gone"
    assert 90 <= result.completed < 100
    assert result.latency.count == result.completed
    assert "refused" in failures(result)
    assert failures(result).keys() <= {"refused", "reset", "closed"}
    assert result.seconds < 30.0


# -- its process -----------------------------------------------------------------------------------


@pytest.fixture
def server(serve: Serve) -> Address:
    return serve(Counting().app).address


def test_progress_is_told_and_the_phases_follow_each_other(server: Address) -> None:
    with LoadRun(job(server, "/a", warmup=0.1, duration=0.2, progress=0.02)) as run:
        told = list(run)
        result = run.result()
    assert told
    assert all(each.planned == pytest.approx(0.3) for each in told)
    assert [each.elapsed for each in told] == sorted(each.elapsed for each in told)
    order = ["warmup", "measure", "finish"]
    phases = [order.index(each.phase) for each in told]
    assert phases == sorted(phases)
    assert {0, 1} <= set(phases)
    assert result.completed > 0
    assert any(each.rate > 0 and 0 < each.p50 <= each.p99 for each in told)


def test_a_stop_ends_the_run_with_what_was_seen(server: Address) -> None:
    with LoadRun(job(server, "/a", duration=60.0, progress=0.05)) as run:
        pid = run.pid
        for progress in run:
            if progress.completed:
                run.stop()
        result = run.result()
    assert result.ending == "stopped"
    assert result.completed > 0
    assert result.seconds < 30.0
    assert is_gone(pid)


def test_a_second_stop_does_not_wait_for_answers() -> None:
    with Misbehaving(_stall) as server, LoadRun(job(server.address, duration=60, grace=60)) as run:
        next(iter(run))
        run.stop()
        next(each for each in run if each.phase == "finish")
        run.stop()
        result = run.result()
    assert result.ending == "stopped"
    assert result.unfinished == 2


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_stop(server: Address, signum: signal.Signals) -> None:
    with LoadRun(job(server, "/a", duration=60.0, progress=0.05)) as run:
        next(iter(run))
        os.kill(run.pid, signum)
        assert run.result().ending == "stopped"


def test_leaving_ends_the_process_however_that_comes(server: Address) -> None:
    class Enough(Exception):
        pass

    run = LoadRun(job(server, "/a", duration=60.0))
    with contextlib.suppress(Enough), run:
        pid = run.pid
        raise Enough
    assert is_gone(pid)
    with LoadRun(job(server, "/a", duration=60.0)) as run:
        pid = run.pid
        next(iter(run))
    assert is_gone(pid)


def test_the_generator_does_not_outlive_its_parent(server: Address) -> None:
    program = (
        "import msgspec, os, sys\n"
        "from treadle.profile.load import LoadJob, LoadRun\n"
        "run = LoadRun(msgspec.json.decode(sys.argv[1], type=LoadJob)).__enter__()\n"
        "next(iter(run))\n"
        "print(run.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    sent = msgspec.json.encode(job(server, "/a", duration=60.0)).decode()
    done = subprocess.run(
        [sys.executable, "-c", program, sent], capture_output=True, text=True, check=True
    )
    deadline = time.monotonic() + 10.0
    while not is_gone(int(done.stdout)):
        assert time.monotonic() < deadline, "it still runs"
        os.sched_yield()


def test_the_size_of_a_result_does_not_follow_its_length(server: Address) -> None:
    sizes = []
    for duration in (0.2, 0.4):
        with LoadRun(job(server, "/a", duration=duration, slice=1e-6)) as run:
            result = run.result()
            assert len(result.slices) <= 481
            sizes.append(len(msgspec.json.encode(result)))
    assert max(sizes) < 200_000


def test_the_process_speaks_lines_of_json(server: Address) -> None:
    line = msgspec.json.encode(job(server, "/a", progress=0.1)) + b"\n"
    with subprocess.Popen(
        [sys.executable, "-m", "treadle.profile.load"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(line)
        process.stdin.flush()
        told = [json.loads(each) for each in process.stdout]
    assert process.returncode == 0
    assert [key for each in told for key in each][-1] == "result"
    assert {key for each in told[:-1] for key in each} == {"progress"}


# -- jobs that cannot be done ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"connections": 0}, "connections must be from 1"),
        ({"duration": -1.0}, "duration must be a number of seconds"),
        ({"duration": 0.0}, "duration must be longer"),
        ({"rate": -5.0}, "the rate must be positive"),
        ({"requests": ()}, "the weights"),
        ({"requests": (LoadRequest(name="x", path="no slash"),)}, "cannot send the path"),
        ({"cpus": (100_000,)}, "Invalid argument"),
        ({"address": ("no such host.invalid", 80)}, "was not found"),
    ],
)
def test_a_job_that_cannot_be_done_is_refused_in_one_sentence(
    options: dict[str, Any], said: str
) -> None:
    given = {"address": ("127.0.0.1", 9), **options}
    with LoadRun(job(**given)) as run:
        pid = run.pid
        with pytest.raises(LoadError, match=said) as caught:
            run.result()
    assert "\n" not in str(caught.value)
    assert is_gone(pid)


def test_a_generator_that_is_killed_is_told(server: Address) -> None:
    with LoadRun(job(server, "/a", duration=60.0)) as run:
        os.kill(run.pid, signal.SIGKILL)
        with pytest.raises(LoadError, match="ended without a result: its exit status is -9"):
            run.result()


def test_the_generator_runs_on_the_cpus_it_is_given(server: Address) -> None:
    cpu = min(os.sched_getaffinity(0))
    with LoadRun(job(server, "/a", duration=60.0, cpus=(cpu,))) as run:
        next(iter(run))
        assert os.sched_getaffinity(run.pid) == {cpu}


def test_a_run_is_entered_once_and_used_inside() -> None:
    run = LoadRun(job(("127.0.0.1", 9)))
    for use in (run.result, run.stop, lambda: run.pid):
        with pytest.raises(RuntimeError, match="does not run"):
            use()
    with run, pytest.raises(RuntimeError, match="once"):
        run.__enter__()
