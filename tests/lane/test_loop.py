"""The lane's event loop by itself: asyncio's promises, kept with Tokio doing the waiting.

Each body runs on the stdlib's loop as well: what holds here is asyncio's behaviour, not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from treadle._treadle import Lane
from treadle.loop import EventLoop

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def lane_loop() -> asyncio.AbstractEventLoop:
    return EventLoop(Lane(0))


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


FACTORIES: dict[str, LoopFactory] = {
    "lane": lane_loop,
    "asyncio": asyncio.SelectorEventLoop,
}


@pytest.fixture(params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> LoopFactory:
    return FACTORIES[request.param]


class OwnThread:
    """Calls a function on a thread made for it."""

    def __call__(self, function: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(function).result(25)


@pytest.fixture
def on_thread() -> OwnThread:
    return OwnThread()


Run = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture
def run(factory: LoopFactory, on_thread: OwnThread) -> Run:
    """`run(main)` is what `await main()` gives, on a new loop of a new thread."""

    def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        def thread() -> Any:
            with asyncio.Runner(loop_factory=factory) as runner:
                return runner.run(main())

        return on_thread(thread)

    return run


# -- callbacks ------------------------------------------------------------------------------------


def test_callbacks_run_in_the_order_they_were_called_for(run: Run) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        order: list[object] = []
        done = loop.create_future()
        for n in range(5):
            loop.call_soon(order.append, n)
        loop.call_soon(lambda: (order.append("a"), loop.call_soon(order.append, "inner")))
        loop.call_soon(order.append, "b")
        loop.call_soon(loop.call_soon, loop.call_soon, done.set_result, None)
        await done
        return order

    assert run(main) == [0, 1, 2, 3, 4, "a", "b", "inner"]


def test_timers_run_in_the_order_of_their_times(run: Run) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        done = loop.create_future()
        now = loop.time()
        loop.call_at(now + 0.02, order.append, "third")
        loop.call_later(0.04, done.set_result, None)
        loop.call_at(now + 0.01, order.append, "second")
        loop.call_later(0, order.append, "first")
        loop.call_at(now - 1, order.append, "overdue")
        loop.call_soon(order.append, "soon")
        await done
        return order

    assert run(main) == ["soon", "overdue", "first", "second", "third"]


def test_a_timer_never_fires_early(run: Run) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        early = 0.0
        for n in range(40):
            due = loop.time() + n * 0.00037
            fired = loop.create_future()
            loop.call_at(due, lambda fired=fired: fired.set_result(loop.time()))
            # asyncio itself allows for the clock's own grain.
            early = max(early, due - await fired - time.get_clock_info("monotonic").resolution)
        return early

    assert run(main) <= 0


def test_a_cancelled_callback_or_timer_is_not_run(run: Run) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        order: list[str] = []
        loop.call_soon(order.append, "soon").cancel()
        timers = [loop.call_later(0.001, order.append, "later") for _ in range(500)]
        for timer in timers:
            timer.cancel()
        handle = loop.call_soon(order.append, "cancelled by another")
        loop.call_soon(order.append, "kept")
        handle.cancel()
        await asyncio.sleep(0.005)
        return order

    assert run(main) == ["kept"]


def test_a_timer_that_is_set_earlier_than_the_one_waited_for_is_in_time(run: Run) -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(60, lambda: None)
        await asyncio.sleep(0)
        started = loop.time()
        await asyncio.sleep(0.005)
        return loop.time() - started

    assert 0.005 <= run(main) < 5


def test_a_thousand_timers_all_fire(run: Run) -> None:
    async def main() -> int:
        await asyncio.gather(*(asyncio.sleep(0.0001 * (n % 50)) for n in range(1000)))
        return 1000

    assert run(main) == 1000


# -- other threads --------------------------------------------------------------------------------


def test_callbacks_from_many_threads_all_arrive(run: Run) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        got: list[tuple[int, int]] = []
        done = loop.create_future()

        def arrived(thread: int, n: int) -> None:
            got.append((thread, n))
            if len(got) == 8 * 500:
                done.set_result(None)

        def send(thread: int) -> None:
            for n in range(500):
                loop.call_soon_threadsafe(arrived, thread, n)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        await done
        for thread in threads:
            thread.join()
        # Those of one thread keep their order.
        return [
            sum(n == position for position, n in enumerate(n for t, n in got if t == number))
            for number in range(8)
        ]

    assert run(main) == [500] * 8


def test_another_thread_wakes_a_loop_that_sleeps(run: Run) -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        rounds = []
        for n in range(100):
            woken = loop.create_future()
            thread = threading.Thread(
                target=lambda woken=woken, n=n: loop.call_soon_threadsafe(woken.set_result, n)
            )
            thread.start()
            rounds.append(await woken)
            thread.join()
        return rounds

    assert run(main) == list(range(100))


def test_an_executor_gives_results_and_exceptions(run: Run) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        results: list[object] = [await loop.run_in_executor(None, pow, 2, 10)]
        with pytest.raises(ValueError, match="invalid literal"):
            await loop.run_in_executor(None, int, "x")
        results += await asyncio.gather(*(asyncio.to_thread(str, n) for n in range(50)))
        await loop.shutdown_default_executor()
        return results

    assert run(main) == [1024, *map(str, range(50))]


def test_a_coroutine_can_be_handed_in_from_another_thread(run: Run) -> None:
    async def main() -> tuple[object, object]:
        loop = asyncio.get_running_loop()

        async def work(n: int) -> int:
            await asyncio.sleep(0)
            return n * 2

        def thread() -> int:
            return asyncio.run_coroutine_threadsafe(work(21), loop).result(10)

        def cancelling() -> bool:
            future = asyncio.run_coroutine_threadsafe(asyncio.sleep(60), loop)
            return future.cancel()

        return await asyncio.to_thread(thread), await asyncio.to_thread(cancelling)

    assert run(main) == (42, True)


def test_a_loop_that_is_closed_refuses_work_from_other_threads(factory: LoopFactory) -> None:
    loop = factory()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon_threadsafe(print)


# -- descriptors ----------------------------------------------------------------------------------


@contextlib.contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    for end in ends:
        end.setblocking(False)
    try:
        yield ends
    finally:
        for end in ends:
            end.close()


def test_a_reader_that_takes_one_byte_at_a_time_is_called_until_all_is_read(run: Run) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        with pair() as (here, there):
            got = bytearray()
            done = loop.create_future()

            def read() -> None:
                got.extend(here.recv(1))
                if len(got) == 100:
                    done.set_result(None)

            loop.add_reader(here, read)
            there.send(bytes(range(100)))
            await done
            assert loop.remove_reader(here) is True
            assert loop.remove_reader(here) is False
            return bytes(got)

    assert run(main) == bytes(range(100))


def test_a_writer_is_called_for_as_long_as_there_is_room(run: Run) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        with pair() as (here, there):
            calls = 0
            full = loop.create_future()

            def write() -> None:
                nonlocal calls
                calls += 1
                try:
                    here.send(b"x" * 1024)
                except BlockingIOError:
                    loop.remove_writer(here)
                    full.set_result(None)

            loop.add_writer(here, write)
            await asyncio.sleep(0)
            # Not until the kernel's buffer is full: the loop looks again as long as there is room.
            while calls < 3:  # noqa: ASYNC110
                await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                while True:
                    here.send(b"x" * 65536)
            loop.remove_writer(here)
            resumed = loop.create_future()
            loop.add_writer(here, lambda: resumed.done() or resumed.set_result(None))
            for _ in range(3):
                await asyncio.sleep(0)
            assert not resumed.done()
            with contextlib.suppress(BlockingIOError):
                while there.recv(65536):
                    pass
            await resumed
            return calls

    assert run(main) >= 3


def test_a_descriptor_can_have_a_reader_and_a_writer_that_are_replaced(run: Run) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        events: list[str] = []
        with pair() as (here, there):
            first, second = loop.create_future(), loop.create_future()
            loop.add_reader(here, lambda: events.append("wrong"))
            loop.add_reader(here, lambda: (events.append("r"), here.recv(1), first.set_result(0)))
            loop.add_writer(
                here, lambda: (events.append("w"), loop.remove_writer(here), second.set_result(0))
            )
            await second
            there.send(b"x")
            await first
            loop.remove_reader(here)
        return events

    assert run(main) == ["w", "r"]


def test_a_number_that_is_used_again_after_close_belongs_to_the_new_descriptor(run: Run) -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        heard: list[str] = []
        for round in range(20):
            with pair() as (here, there):
                number = here.fileno()
                done = loop.create_future()
                loop.add_reader(
                    here,
                    lambda round=round, here=here, done=done: (
                        heard.append(f"{round} {here.recv(1).decode()}"),
                        done.done() or done.set_result(None),
                    ),
                )
                there.send(b"x")
                await done
                loop.remove_reader(here)
            with pair() as (again, _):
                assert number in (again.fileno(), _.fileno())
        return heard

    assert run(main) == [f"{round} x" for round in range(20)]


def test_a_reader_of_a_descriptor_that_was_closed_first_can_be_removed(run: Run) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pair() as (here, _):
            number = here.fileno()
            loop.add_reader(number, lambda: None)
            here.close()
            loop.remove_reader(number)
            await asyncio.sleep(0)

    run(main)


def test_the_other_end_closing_is_readable(run: Run) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        with pair() as (here, there):
            data = loop.create_future()
            loop.add_reader(here, lambda: (loop.remove_reader(here), data.set_result(here.recv(1))))
            there.close()
            return bytes(await data)

    assert run(main) == b""


def test_pipes_can_be_watched(run: Run) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        reader, writer = os.pipe()
        data = loop.create_future()
        loop.add_reader(
            reader, lambda: (loop.remove_reader(reader), data.set_result(os.read(reader, 9)))
        )
        os.write(writer, b"x")
        got = await data
        os.close(reader)
        os.close(writer)
        return bytes(got)

    assert run(main) == b"x"


def test_a_thousand_descriptors_can_be_watched(run: Run) -> None:
    async def main() -> int:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(1000)]
        futures = []
        for here, _ in pairs:
            future = loop.create_future()
            futures.append(future)
            loop.add_reader(
                here,
                lambda here=here, future=future: (
                    loop.remove_reader(here),
                    future.set_result(here.recv(1)),
                ),
            )
        for _, there in pairs:
            there.send(b"x")
        got = b"".join(await asyncio.gather(*futures))
        for here, there in pairs:
            here.close()
            there.close()
        return len(got)

    assert run(main) == 1000


# -- sockets, streams, processes ------------------------------------------------------------------


def test_the_sock_methods_work(run: Run) -> None:
    async def main() -> bytes:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            with socket.socket() as client:
                client.setblocking(False)
                accepted = asyncio.ensure_future(loop.sock_accept(listener))
                await loop.sock_connect(client, listener.getsockname())
                server, _ = await accepted
                with server:
                    sending = asyncio.ensure_future(loop.sock_sendall(client, b"x" * 5_000_000))
                    got = 0
                    while got < 5_000_000:
                        got += len(await loop.sock_recv(server, 65536))
                    await sending
                    await loop.sock_sendall(server, b"end")
                    return await loop.sock_recv(client, 10)

    assert run(main) == b"end"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


def test_streams_carry_more_than_a_buffer_both_ways(run: Run) -> None:
    async def main() -> int:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

            async def send() -> None:
                for _ in range(50):
                    writer.write(b"x" * 100_000)
                    await writer.drain()
                writer.write_eof()

            sending = asyncio.create_task(send())
            data = await reader.read()
            await sending
            writer.close()
            await writer.wait_closed()
        return len(data)

    assert run(main) == 5_000_000


def test_unix_streams_and_datagrams_work(run: Run, tmp_path: Path) -> None:
    async def main() -> list[bytes]:
        path = str(tmp_path / "s")
        server = await asyncio.start_unix_server(echo, path)
        async with server:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"unix\n")
            got = [await reader.readline()]
            writer.close()
            await writer.wait_closed()

        loop = asyncio.get_running_loop()
        received = loop.create_future()

        class Receiver(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, address: Any) -> None:
                received.set_result(data)

        receiving, _ = await loop.create_datagram_endpoint(Receiver, local_addr=("127.0.0.1", 0))
        sending, _ = await loop.create_datagram_endpoint(
            asyncio.DatagramProtocol, remote_addr=receiving.get_extra_info("sockname")
        )
        sending.sendto(b"datagram")
        got.append(await received)
        sending.close()
        receiving.close()
        return got

    assert run(main) == [b"unix\n", b"datagram"]


def test_names_are_looked_up(run: Run) -> None:
    async def main() -> object:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo("localhost", 80, family=socket.AF_INET)
        return found[0][4]

    assert run(main) == ("127.0.0.1", 80)


def test_processes_can_be_talked_to(run: Run) -> None:
    async def main() -> list[object]:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-Sc",
            "import sys; print(sys.stdin.read().upper(), end=''); sys.exit(3)",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        output, _ = await child.communicate(b"x" * 200_000)
        shell = await asyncio.create_subprocess_shell("exit 4")
        sleeper = await asyncio.create_subprocess_exec("sleep", "60")
        sleeper.kill()
        return [
            output == b"X" * 200_000,
            child.returncode,
            await shell.wait(),
            await sleeper.wait(),
        ]

    assert run(main) == [True, 3, 4, -9]


def test_tls_works_over_streams(run: Run, certificate: tuple[Path, Path]) -> None:
    chain, key = certificate

    async def main() -> bytes:
        serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        serving.load_cert_chain(chain, key)
        server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=serving)
        async with server:
            trusting = ssl.create_default_context(cafile=chain)
            reader, writer = await asyncio.open_connection(
                *server.sockets[0].getsockname(), ssl=trusting, server_hostname="localhost"
            )
            writer.write(b"x" * 300_000)
            data = await reader.readexactly(300_000)
            writer.close()
            await writer.wait_closed()
        return data

    assert run(main) == b"x" * 300_000


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-addext", "keyUsage=digitalSignature"),
            *("-keyout", key, "-out", chain),
        ],
        check=True,
        capture_output=True,
    )
    return chain, key


# -- fairness -------------------------------------------------------------------------------------


class Busy:
    """A chain of callbacks without end, each adding the next."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._on = True
        self.turns = 0
        self._again()

    def _again(self) -> None:
        self.turns += 1
        if self._on:
            self._loop.call_soon(self._again)

    def stop(self) -> None:
        self._on = False


def test_a_busy_chain_of_callbacks_does_not_starve_descriptors_timers_or_threads(
    run: Run,
) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        busy = Busy(loop)
        with pair() as (here, there):
            readable = loop.create_future()
            loop.add_reader(
                here, lambda: (loop.remove_reader(here), readable.set_result(here.recv(1)))
            )
            there.send(b"x")
            seen: list[object] = [await readable]
        await asyncio.sleep(0.001)
        seen.append("timer")
        seen.append(await asyncio.to_thread(lambda: "thread"))
        busy.stop()
        return seen

    assert run(main) == [b"x", "timer", "thread"]


def test_a_busy_descriptor_does_not_starve_callbacks_or_timers(run: Run) -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        with pair() as (here, there):
            calls = 0

            def read() -> None:
                nonlocal calls
                calls += 1

            there.send(b"x")
            loop.add_reader(here, read)  # never reads: always ready
            for _ in range(100):
                await asyncio.sleep(0)
            await asyncio.sleep(0.001)
            loop.remove_reader(here)
            return calls > 1

    assert run(main) is True


# -- the life of a loop ---------------------------------------------------------------------------


def test_a_loop_can_run_several_times(factory: LoopFactory, on_thread: OwnThread) -> None:
    def thread() -> list[object]:
        loop = factory()
        try:

            async def value(n: int) -> int:
                await asyncio.sleep(0)
                return n

            left: list[str] = []

            async def leave() -> None:
                loop.call_soon(left.append, "left for the next run")

            results: list[object] = [loop.run_until_complete(value(n)) for n in range(5)]
            loop.run_until_complete(leave())
            loop.run_until_complete(asyncio.sleep(0.001))
            return [*results, *left, loop.is_running(), loop.is_closed()]
        finally:
            loop.close()

    assert on_thread(thread) == [0, 1, 2, 3, 4, "left for the next run", False, False]


def test_a_stop_before_the_run_runs_what_is_ready_once(
    factory: LoopFactory, on_thread: OwnThread
) -> None:
    def thread() -> list[str]:
        order: list[str] = []
        loop = factory()
        loop.call_soon(lambda: (order.append("ready"), loop.call_soon(order.append, "next")))
        loop.stop()
        loop.run_forever()
        order.append("stopped")
        loop.stop()
        loop.run_forever()
        loop.close()
        return order

    assert on_thread(thread) == ["ready", "stopped", "next"]


def test_a_stop_ends_the_turn_it_is_called_in(factory: LoopFactory, on_thread: OwnThread) -> None:
    def thread() -> list[int]:
        order: list[int] = []
        loop = factory()
        loop.call_soon(order.append, 1)
        loop.call_soon(loop.stop)
        loop.call_soon(order.append, 2)
        loop.call_later(60, order.append, 3)
        loop.run_forever()
        loop.close()
        return order

    assert on_thread(thread) == [1, 2]


def test_another_thread_can_stop_the_loop(factory: LoopFactory, on_thread: OwnThread) -> None:
    def thread() -> bool:
        loop = factory()
        stopper = threading.Thread(target=lambda: loop.call_soon_threadsafe(loop.stop))
        loop.call_soon(stopper.start)
        loop.run_forever()
        stopper.join()
        loop.close()
        return loop.is_closed()

    assert on_thread(thread) is True


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("source", ["callback", "timer", "reader", "task"])
def test_an_order_to_leave_comes_out_of_the_run(
    factory: LoopFactory, on_thread: OwnThread, kind: type[BaseException], source: str
) -> None:
    def thread() -> str:
        loop = factory()

        def leave() -> None:
            raise kind("leave")

        async def leave_async() -> None:
            await asyncio.sleep(0)
            raise kind("leave")

        with pair() as (here, there):
            there.send(b"x")
            if source == "callback":
                loop.call_soon(leave)
            elif source == "timer":
                loop.call_later(0.001, leave)
            elif source == "reader":
                loop.add_reader(here, leave)
            else:
                task = loop.create_task(leave_async())
            with pytest.raises(kind, match="leave"):
                loop.run_forever()
            loop.remove_reader(here)
            if source == "task":
                with pytest.raises(kind):
                    task.result()
            # It is not broken by that.
            loop.call_soon(loop.stop)
            loop.run_forever()
        loop.close()
        return "left"

    assert on_thread(thread) == "left"


def test_an_exception_in_a_callback_goes_to_the_handler_and_the_loop_goes_on(run: Run) -> None:
    async def main() -> list[tuple[str, str]]:
        loop = asyncio.get_running_loop()
        reported: list[tuple[str, str]] = []

        def report(loop: object, context: dict[str, Any]) -> None:
            reported.append((context["message"].split(" at ")[0], repr(context["exception"])))
            assert isinstance(context["handle"], asyncio.Handle)

        loop.set_exception_handler(report)

        def fail(what: str) -> None:
            raise ValueError(what)

        loop.call_soon(fail, "soon")
        loop.call_later(0, fail, "later")
        with pair() as (here, there):
            there.send(b"x")
            loop.add_reader(here, lambda: (loop.remove_reader(here), fail("reader")))
            await asyncio.sleep(0.005)
        return sorted(row[1] for row in reported)

    assert run(main) == ["ValueError('later')", "ValueError('reader')", "ValueError('soon')"]


def test_an_exception_in_a_callback_is_logged_without_a_handler(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0)

    run(main)
    assert "Exception in callback" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_async_generators_that_were_left_are_closed_at_the_end(run: Run) -> None:
    closed: list[str] = []

    async def numbers(name: str) -> Any:
        try:
            while True:
                yield 1
        finally:
            await asyncio.sleep(0)
            closed.append(name)

    kept = []

    async def main() -> None:
        kept.append(numbers("kept"))
        async for _ in kept[0]:
            break
        dropped = numbers("dropped")
        async for _ in dropped:
            break
        del dropped
        gc.collect()
        await asyncio.sleep(0.001)

    run(main)
    assert closed == ["dropped", "kept"]


def test_debug_mode_finds_slow_callbacks_and_wrong_threads(
    factory: LoopFactory, on_thread: OwnThread, caplog: pytest.LogCaptureFixture
) -> None:
    def thread() -> str:
        async def main() -> str:
            loop = asyncio.get_running_loop()
            loop.slow_callback_duration = 0.0
            assert loop.get_debug()
            await asyncio.sleep(0)

            def other() -> str:
                try:
                    loop.call_soon(print)
                except RuntimeError as error:
                    return str(error)
                return "no error"

            return await asyncio.to_thread(other)

        with asyncio.Runner(debug=True, loop_factory=factory) as runner:
            return runner.run(main())

    assert "Non-thread-safe operation" in on_thread(thread)
    assert "Executing" in caplog.text


def test_tasks_that_are_left_are_cancelled_by_the_runner(run: Run) -> None:
    ended: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(forever()))
        await asyncio.sleep(0)

    run(main)
    assert ended == ["cancelled"]


def test_eager_tasks_of_asyncio_work(run: Run) -> None:
    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(asyncio.eager_task_factory)
        steps: list[object] = []

        async def work() -> str:
            steps.append(asyncio.current_task() is not outer)
            await asyncio.sleep(0)
            steps.append("resumed")
            return "done"

        outer = asyncio.current_task()
        task = asyncio.create_task(work())
        steps.append(asyncio.current_task() is outer)
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
        steps.append(await task)
        return steps

    assert run(main) == [True, True, True, "resumed", "resumed", "done"]


def test_contexts_of_callbacks_are_kept(run: Run) -> None:
    import contextvars

    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")

    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        seen: list[str] = []
        done = loop.create_future()
        other = contextvars.copy_context()
        other.run(variable.set, "other")
        variable.set("mine")
        loop.call_soon(lambda: seen.append(variable.get()))
        loop.call_soon(lambda: seen.append(variable.get()), context=other)
        loop.call_later(0, lambda: seen.append(variable.get()))
        loop.call_later(0.001, done.set_result, None)
        await done
        return seen

    assert run(main) == ["mine", "other", "mine"]


# -- only ours ------------------------------------------------------------------------------------


def test_a_loop_may_move_to_another_thread_between_two_runs(on_thread: OwnThread) -> None:
    loop = EventLoop()
    before = open_descriptors()
    ran_on = []

    async def main() -> None:
        ran_on.append(threading.get_ident())
        await asyncio.sleep(0.001)

    try:
        for _ in range(3):
            on_thread(lambda: loop.run_until_complete(main()))
        assert threading.get_ident() not in ran_on
        assert open_descriptors() == before  # no runtime is left behind on a thread that ended
        loop.run_until_complete(main())
        on_thread(lambda: loop.run_until_complete(main()))
    finally:
        loop.close()
    assert len(ran_on) == 5


def test_a_loop_runs_on_one_thread_at_a_time(on_thread: OwnThread) -> None:
    loop = EventLoop()

    async def main() -> None:
        def other() -> None:
            with pytest.raises(RuntimeError, match="already running"):
                loop.run_forever()

        await asyncio.to_thread(other)

    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_a_loop_that_was_not_closed_says_so_and_goes() -> None:
    before = open_descriptors()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loop = EventLoop()
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.call_later(1000, print)
        loop.call_soon(print, loop)
        gone = weakref.ref(loop)
        del loop
        gc.collect()
        said = [str(warning.message) for warning in caught]
        caught.clear()  # a warning keeps what it is about
        gc.collect()
    assert any("unclosed event loop" in message for message in said)
    assert gone() is None
    assert open_descriptors() == before


def test_a_closed_loop_does_not_run_again(on_thread: OwnThread) -> None:
    def thread() -> str:
        loop = EventLoop(Lane(0))
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        loop.close()
        with pytest.raises(RuntimeError, match="closed"):
            loop.run_forever()
        return "refused"

    assert on_thread(thread) == "refused"


def test_a_loop_cannot_be_run_inside_itself_or_closed_while_it_runs(on_thread: OwnThread) -> None:
    def thread() -> int:
        loop = EventLoop(Lane(0))

        async def main() -> int:
            for wrong in (loop.run_forever, loop.close):
                with pytest.raises(RuntimeError):
                    wrong()
            await asyncio.sleep(0.001)
            return 7

        try:
            return loop.run_until_complete(main())
        finally:
            loop.close()

    assert on_thread(thread) == 7


def test_many_loops_one_after_the_other_leave_no_descriptors(on_thread: OwnThread) -> None:
    def thread() -> None:
        with asyncio.Runner(loop_factory=lane_loop) as runner:
            runner.run(asyncio.sleep(0))

    on_thread(thread)
    before = open_descriptors()
    for _ in range(50):
        on_thread(thread)
    assert open_descriptors() <= before


def test_loops_on_four_threads_run_side_by_side() -> None:
    met = threading.Barrier(4, timeout=10)

    async def main() -> int:
        await asyncio.to_thread(met.wait)
        await asyncio.gather(*(asyncio.sleep(0.0001 * n) for n in range(50)))
        return threading.get_ident()

    def thread() -> int:
        with asyncio.Runner(loop_factory=lane_loop) as runner:
            return runner.run(main())

    with ThreadPoolExecutor(4) as pool:
        threads = {future.result(20) for future in [pool.submit(thread) for _ in range(4)]}
    assert len(threads) == 4


def test_other_threads_run_while_the_lane_sleeps(on_thread: OwnThread) -> None:
    """With the GIL, a lane that slept attached would stop every other thread."""
    counted: list[int] = []

    async def main() -> Awaitable[None] | None:
        worker = asyncio.to_thread(lambda: counted.extend(range(100_000)))
        await asyncio.gather(worker, asyncio.sleep(0.001))
        return None

    def thread() -> None:
        with asyncio.Runner(loop_factory=lane_loop) as runner:
            runner.run(main())

    on_thread(thread)
    assert len(counted) == 100_000
