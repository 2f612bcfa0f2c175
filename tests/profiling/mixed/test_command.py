"""`mixed` from end to end: a real upstream, a real server, real load, for a second."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiling import environments, interpreters, records
from profiling.console import Console
from profiling.errors import ComparisonError
from profiling.interpreters import Facts, Interpreter
from profiling.measuring import Pace
from profiling.mixed import command
from profiling.mixed.command import Options, mixed
from profiling.mixed.record import Mixed
from profiling.mixed.strategies import BY_NAME, STRATEGIES, Start

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timing,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="taskset and /proc"),
    pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed"),
]

UPSTREAM = """#!{python}
import asyncio, sys
async def converse(reader, writer):
    while line := await reader.readline():
        await asyncio.sleep(int(line) / 1e6)
        writer.write(b"ok\\n")
async def main():
    server = await asyncio.start_server(converse, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An upstream that need not be compiled, and this interpreter whatever its build is."""
    program = tmp_path / "upstream"
    program.write_text(UPSTREAM.format(python=sys.executable))
    program.chmod(0o755)
    here = Path(sys.executable)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    facts = Facts("3.14.0", gil, "0.1.0", "release")
    monkeypatch.setattr(environments, "built", lambda *_: program)
    monkeypatch.setattr(interpreters, "with_treadle", lambda *_: (here, facts))
    before = threading.active_count()
    yield
    assert threading.active_count() == before


def options(output: Path, *names: str) -> Options:
    return Options(
        strategies=tuple(BY_NAME[name] for name in names),
        sides=(Interpreter.GIL,),
        sizes=(1,),
        rounds=1,
        pace=Pace(seconds=1, warmup=0),
        quick=True,
        output=output,
    )


def test_treadle_serves_the_workload_in_every_mode(tmp_path: Path) -> None:
    file = tmp_path / "mixed.json"
    record = mixed(
        options(file, "treadle-async", "treadle-inline", "treadle-offload"), Console(quiet=True)
    )
    assert [sample.strategy for sample in record.samples] == [
        "treadle-async",
        "treadle-inline",
        "treadle-offload",
    ]
    for sample in record.samples:
        assert sample.rate > 0
        # The waits are real: no answer can be faster than four of them.
        assert sample.p50_us > 4 * record.wait_us
        assert 0 < sample.pss <= sample.rss
    assert record.partial is None
    assert records.load(file, Mixed) == record


def test_a_server_that_answers_wrong_is_told_and_the_result_is_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.mixed_work, "answer", lambda _: {"waits": 5})
    file = tmp_path / "mixed.json"
    with pytest.raises(ComparisonError, match=r"^treadle-async 3\.14 with 1 answers 200, b'"):
        mixed(options(file, "treadle-async"), Console(quiet=True))
    assert "answers 200" in (records.load(file, Mixed).partial or "")


def test_an_upstream_that_dies_is_named(tmp_path: Path) -> None:
    (tmp_path / "upstream").write_text(f"#!{sys.executable}\nraise SystemExit('out of order')\n")
    with pytest.raises(ComparisonError, match="the upstream ended with 1; it said: out of order"):
        mixed(options(tmp_path / "mixed.json", "treadle-async"), Console(quiet=True))


def test_every_strategy_says_where_and_how_many() -> None:
    for strategy in STRATEGIES:
        for gil in (True, False):
            words = strategy.command(Start(Path("/python"), 8123, 16, gil, cores=4))
            assert words[0] == "/python"
            assert any("8123" in word for word in words)
            assert "16" in words
