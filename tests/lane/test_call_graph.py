"""The call graph of Tasks, from inside (`asyncio.capture_call_graph`) and outside (`asyncio ps`)."""

from __future__ import annotations

import asyncio
import re
import sys

import pytest
from support.loops import Run
from support.peek import look_from_outside

pytestmark = pytest.mark.skipif(sys.version_info < (3, 14), reason="new in CPython 3.14")


async def waits() -> None:
    await asyncio.get_running_loop().create_future()


async def groups() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(waits(), name="first")
        group.create_task(waits(), name="second")


def test_the_call_graph_leads_from_a_task_to_those_that_await_it(run: Run) -> None:
    async def main() -> str:
        outer = asyncio.create_task(groups(), name="outer")
        await asyncio.sleep(0.001)
        inner = next(task for task in asyncio.all_tasks() if task.get_name() == "first")
        graph = asyncio.capture_call_graph(inner)  # type: ignore[attr-defined, unused-ignore]
        assert [entry.frame.f_code.co_name for entry in graph.call_stack] == ["waits"]
        (by,) = graph.awaited_by
        assert by.future is outer
        assert by.call_stack[-1].frame.f_code.co_name == "groups"
        outer.cancel()
        await asyncio.wait([outer])
        return str(asyncio.format_call_graph())  # type: ignore[attr-defined, unused-ignore]

    assert "async test_the_call_graph" in run(main)


SCRIPT = """
import asyncio, sys, treadle

async def waits():
    await asyncio.get_running_loop().create_future()

async def groups():
    async with asyncio.TaskGroup() as group:
        group.create_task(waits(), name="first")

async def main():
    outer = asyncio.create_task(groups(), name="outer")
    await asyncio.sleep(0.001)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    outer.cancel()

treadle.run(main())
"""


@pytest.mark.slow
def test_asyncio_ps_and_pstree_read_the_tasks_of_the_main_threads_loop() -> None:
    listed, tree = look_from_outside([sys.executable, "-c", SCRIPT], "ps", "pstree")
    assert re.search(r"first +waits .* outer", listed)
    assert [
        word for word in re.findall(r"\w+", tree) if word in {"outer", "groups", "first", "waits"}
    ] == [
        "outer",
        "groups",
        "first",
        "waits",
    ]
