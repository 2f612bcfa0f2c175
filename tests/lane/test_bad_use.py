"""Bad use of the event loop: asyncio's own exceptions, in its words.

Each case runs on asyncio's loop as well: what that says is what ours has to say. What asyncio finds
only in debug mode ours may find always, so these run in debug mode.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import inspect
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.loops import LoopFactory, open_descriptors

import treadle

Loop = asyncio.AbstractEventLoop

_RUN = inspect.getsource(asyncio.BaseEventLoop.run_forever)
SPOILT_BY_A_SECOND_RUN = 0 <= _RUN.find("try:") < _RUN.find("_run_forever_setup")
"""CPython 3.13.0's own loop forgets that it runs when a second run is refused."""


async def value() -> int:
    return 1


@pytest.fixture
def loop(factory: LoopFactory) -> Iterator[Loop]:
    loop = factory()
    loop.set_debug(True)
    yield loop
    loop.close()


CLOSED: dict[str, Callable[[Loop], object]] = {
    "call_soon": lambda loop: loop.call_soon(print),
    "call_later": lambda loop: loop.call_later(1, print),
    "call_at": lambda loop: loop.call_at(1, print),
    "call_soon_threadsafe": lambda loop: loop.call_soon_threadsafe(print),
    "run_forever": lambda loop: loop.run_forever(),
    "run_in_executor": lambda loop: loop.run_in_executor(None, print),
    "add_reader": lambda loop: loop.add_reader(0, print),
    "add_writer": lambda loop: loop.add_writer(0, print),
    "add_signal_handler": lambda loop: loop.add_signal_handler(signal.SIGUSR1, print),
}


@pytest.mark.parametrize("debug", [True, False])
@pytest.mark.parametrize("method", CLOSED)
def test_a_closed_loop(loop: Loop, method: str, debug: bool) -> None:
    loop.set_debug(debug)
    loop.close()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        CLOSED[method](loop)


def test_a_closed_loop_takes_no_coroutine(loop: Loop) -> None:
    loop.close()
    coroutine = value()
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        loop.run_until_complete(coroutine)
    with pytest.raises(RuntimeError, match=r"^Event loop is closed$"):
        loop.create_task(coroutine)
    coroutine.close()
    # These mean nothing on a closed loop, and harm nobody.
    loop.stop()
    loop.close()
    assert not loop.remove_reader(0)
    assert not loop.remove_signal_handler(signal.SIGUSR1)


WRONG: dict[str, tuple[Callable[[Loop], object], type[Exception], str]] = {
    "no coroutine": (
        lambda loop: loop.create_task(3),
        TypeError,
        "a coroutine was expected, got 3",
    ),  # type: ignore[arg-type]
    "nothing to run": (
        lambda loop: loop.run_until_complete(3),  # type: ignore[arg-type]
        TypeError,
        "An asyncio.Future, a coroutine or an awaitable is required",
    ),
    "create_task()": (
        lambda loop: loop.create_task(),  # type: ignore[call-arg]
        TypeError,
        r"create_task\(\) missing 1 required positional argument: 'coro'",
    ),
    "call_soon(3)": (
        lambda loop: loop.call_soon(3),  # type: ignore[arg-type]
        TypeError,
        r"a callable object was expected by call_soon\(\), got 3",
    ),
    "call_at(3)": (
        lambda loop: loop.call_at(0, 3),  # type: ignore[arg-type]
        TypeError,
        r"a callable object was expected by call_at\(\), got 3",
    ),
    "call_soon(coroutine function)": (
        lambda loop: loop.call_soon(value),
        TypeError,
        r"coroutines cannot be used with call_soon\(\)",
    ),
    "run_in_executor(coroutine function)": (
        lambda loop: loop.run_in_executor(None, value),
        TypeError,
        r"coroutines cannot be used with run_in_executor\(\)",
    ),
    "call_later(None)": (
        lambda loop: loop.call_later(None, print),  # type: ignore[arg-type]
        TypeError,
        "delay must not be None",
    ),
    "call_at(None)": (
        lambda loop: loop.call_at(None, print),  # type: ignore[arg-type]
        TypeError,
        "when cannot be None",
    ),
    "add_reader(-1)": (lambda loop: loop.add_reader(-1, print), ValueError, "descriptor: -1"),
    "remove_reader(-1)": (lambda loop: loop.remove_reader(-1), ValueError, "descriptor: -1"),
    "remove_writer(-1)": (lambda loop: loop.remove_writer(-1), ValueError, "descriptor: -1"),
    "add_reader('x')": (lambda loop: loop.add_reader("x", print), ValueError, "object: 'x'"),
    "add_reader(2**99)": (lambda loop: loop.add_reader(2**99, print), OverflowError, "too large"),
    "SIGKILL": (
        lambda loop: loop.add_signal_handler(signal.SIGKILL, print),
        RuntimeError,
        "sig 9 cannot be caught",
    ),
    "signal(coroutine function)": (
        lambda loop: loop.add_signal_handler(signal.SIGUSR1, value),
        TypeError,
        r"coroutines cannot be used with add_signal_handler\(\)",
    ),
    "set_task_factory(3)": (
        lambda loop: loop.set_task_factory(3),  # type: ignore[arg-type]
        TypeError,
        "task factory must be a callable or None",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument(loop: Loop, case: str) -> None:
    use, kind, words = WRONG[case]
    with pytest.raises(kind, match=words):
        use(loop)


@pytest.mark.parametrize("method", ["add_reader", "add_writer"])
def test_a_descriptor_that_cannot_be_watched(loop: Loop, method: str, tmp_path: Path) -> None:
    watch = getattr(loop, method)
    with (tmp_path / "regular").open("w") as regular:
        with pytest.raises(PermissionError) as refused:
            watch(regular, print)
        assert refused.value.errno == errno.EPERM
        closed = os.dup(regular.fileno())
    os.close(closed)
    with pytest.raises(OSError, match=r"^\[Errno 9\] Bad file descriptor$") as bad:
        watch(closed, print)
    assert bad.value.errno == errno.EBADF
    assert not getattr(loop, method.replace("add", "remove"))(closed)
    with socket.socket() as gone:
        gone.close()
        with pytest.raises(ValueError, match="Invalid file"):
            watch(gone, print)


def test_a_coroutine_twice(loop: Loop) -> None:
    coroutine = value()
    assert loop.run_until_complete(coroutine) == 1
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        loop.run_until_complete(coroutine)


def test_a_run_that_is_stopped_too_soon(loop: Loop) -> None:
    loop.call_soon(loop.stop)
    future = loop.create_future()
    with pytest.raises(RuntimeError, match="Event loop stopped before Future completed"):
        loop.run_until_complete(future)


@pytest.fixture
def survives_a_second_run(loop: Loop) -> None:
    if SPOILT_BY_A_SECOND_RUN and type(loop) is asyncio.SelectorEventLoop:
        pytest.skip("asyncio's own loop forgets that it runs, on this interpreter")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("run", [treadle.run, asyncio.run])
def test_run_inside_a_run(loop: Loop, run: Callable[[Coroutine[Any, Any, int]], int]) -> None:
    async def main() -> None:
        coroutine = value()
        before = open_descriptors()
        match = rf"{run.__module__.partition('.')[0]}\.run\(\) cannot be called from a running "
        with pytest.raises(RuntimeError, match=match + "event loop"):
            run(coroutine)
        gc.collect()  # what is not awaited is complained of
        assert open_descriptors() == before
        assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED
        assert await coroutine == 1

    loop.run_until_complete(main())


@pytest.mark.usefixtures("survives_a_second_run")
def test_running_inside_a_run(loop: Loop, factory: LoopFactory) -> None:
    other = factory()

    async def main() -> None:
        for use, words in [
            (loop.run_forever, "This event loop is already running"),
            (other.run_forever, "Cannot run the event loop while another loop is running"),
            (loop.close, "Cannot close a running event loop"),
        ]:
            with pytest.raises(RuntimeError, match=words):
                use()

    loop.run_until_complete(main())
    other.close()


@pytest.mark.usefixtures("survives_a_second_run")
def test_another_thread(loop: Loop) -> None:
    said: list[str] = []

    def thread() -> None:
        # One for each; asyncio's own loop says nothing to the others either.
        for use in (
            lambda: loop.call_soon(print),
            lambda: loop.call_later(1, print),
            lambda: loop.call_at(1, print),
            loop.run_forever,
            loop.close,
        ):
            try:
                use()
            except RuntimeError as error:
                said.append(str(error))

    async def main() -> None:
        other = threading.Thread(target=thread)
        other.start()
        while other.is_alive():  # noqa: ASYNC110 - it is another thread
            await asyncio.sleep(0.001)

    loop.run_until_complete(main())
    wrong = "Non-thread-safe operation invoked on an event loop other than the current one"
    running = "This event loop is already running"
    assert said == [wrong, wrong, wrong, running, "Cannot close a running event loop"]


SOCKETS: dict[str, Callable[[Loop, socket.socket], Coroutine[Any, Any, object]]] = {
    "sock_recv": lambda loop, sock: loop.sock_recv(sock, 1),
    "sock_recv_into": lambda loop, sock: loop.sock_recv_into(sock, bytearray(1)),
    "sock_recvfrom": lambda loop, sock: loop.sock_recvfrom(sock, 1),
    "sock_sendall": lambda loop, sock: loop.sock_sendall(sock, b"x"),
    "sock_sendto": lambda loop, sock: loop.sock_sendto(sock, b"x", ("127.0.0.1", 1)),
    "sock_accept": lambda loop, sock: loop.sock_accept(sock),
    "sock_connect": lambda loop, sock: loop.sock_connect(sock, ("127.0.0.1", 1)),
}


@pytest.mark.parametrize("method", SOCKETS)
def test_a_socket_that_blocks_or_is_closed(loop: Loop, method: str) -> None:
    async def main() -> None:
        with socket.socket() as sock:
            with pytest.raises(ValueError, match="the socket must be non-blocking"):
                await SOCKETS[method](loop, sock)
            sock.setblocking(False)
            sock.close()
            with pytest.raises((OSError, ValueError)) as refused:
                await SOCKETS[method](loop, sock)
            if isinstance(refused.value, OSError):
                assert refused.value.errno == errno.EBADF

    loop.run_until_complete(main())


def test_a_delay_that_is_negative(loop: Loop) -> None:
    async def main() -> None:
        await asyncio.sleep(-1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(loop.create_future(), -1)

    loop.run_until_complete(main())


@pytest.mark.skipif(sys.version_info < (3, 13), reason="asyncio takes it before CPython 3.13")
def test_a_delay_that_is_no_number(loop: Loop) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="Invalid delay: NaN"):
            await asyncio.sleep(float("nan"))

    loop.run_until_complete(main())
