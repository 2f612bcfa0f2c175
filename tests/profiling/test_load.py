import pytest

from profiling.errors import ComparisonError
from profiling.load import Latency, Load, Outcome, arguments, joined, parse, require_wrk
from profiling.scenarios import ITEMS, SYNC, SYNC_X16

OUTPUT = """Running 4s test @ http://127.0.0.1:9201/sync
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   447.06us    0.99ms  21.10ms   96.58%
Requests/sec: 154000.10
Transfer/sec:     19.83MB
@@{"requests":616000,"duration_us":4000000,"p50_us":401.0,"p95_us":520.5,"p99_us":801.0,\
"connect":1,"read":2,"write":3,"timeout":4,"status":5}
"""


def test_the_report_of_the_script_is_read() -> None:
    outcome = parse(OUTPUT)
    assert outcome.requests == 616_000
    assert outcome.rate == 154_000
    assert outcome.latency == Latency(401.0, 520.5, 801.0)
    assert (outcome.broken, outcome.timeouts, outcome.refused) == (6, 4, 5)


def test_pipelined_requests_have_no_latency() -> None:
    assert parse(OUTPUT, depth=16).latency is None


def test_runs_of_one_load_add_up_and_their_percentiles_do_not() -> None:
    runs = [
        Outcome(100, 1.0, Latency(10.0, 20.0, 30.0), 0, 1, 0),
        Outcome(300, 1.0, Latency(20.0, 30.0, 90.0), 2, 0, 0),
        Outcome(200, 2.0, Latency(30.0, 10.0, 40.0), 0, 0, 3),
    ]
    assert joined(runs) == Outcome(600, 4.0, Latency(20.0, 20.0, 40.0), 2, 1, 3)
    assert joined(runs).rate == 150.0
    assert joined([parse(OUTPUT, depth=16)]).latency is None


def test_an_end_without_a_report_is_an_error() -> None:
    with pytest.raises(ComparisonError, match="without a report"):
        parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_wrk_is_pinned_and_told_the_scenario() -> None:
    command = arguments(SYNC, Load(connections=64, seconds=4, cores="1"), port=8000)
    assert command[:6] == ["taskset", "-c", "1", "wrk", "-t1", "-c64"]
    assert "http://127.0.0.1:8000/sync" in command
    assert command[command.index("--") :] == ["--", "method=GET", "depth=1"]


def test_a_body_makes_it_a_post() -> None:
    command = arguments(ITEMS, Load(connections=8, seconds=1, cores="1"), port=8000)
    assert "method=POST" in command
    assert "type=application/json" in command
    assert f"body={ITEMS.body}" in command


def test_pipelining_is_told_by_its_depth() -> None:
    assert "depth=16" in arguments(SYNC_X16, Load(64, 1, "1"), port=8000)


def test_a_missing_wrk_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ComparisonError, match=r"^wrk is not installed: .* package wrk\.$"):
        require_wrk()
