"""Watched file descriptors: `add_reader` and `add_writer`.

Each body runs on asyncio's loop as well, unless it is about ours: what holds is its behaviour.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

from support.loops import Run, pair

import treadle


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


def test_a_socket_that_was_closed_while_it_was_watched_can_be_taken_out(run: Run) -> None:
    """It has no number any more; those who clean up after it still have the socket."""

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        outcome: list[object] = []
        with pair() as (here, there):
            loop.add_reader(here, outcome.append, "read")
            loop.add_writer(there, outcome.append, "written")
            here.close()
            there.close()
            # Who comes next may have the same numbers.
            with pair() as (again, _):
                outcome.append(loop.remove_reader(here))
                outcome.append(loop.remove_writer(there))
                for gone, remove in ((here, loop.remove_reader), (there, loop.remove_writer)):
                    try:
                        remove(gone)
                    except ValueError as error:
                        outcome.append(str(error))
                loop.add_reader(again, outcome.append, "again")
                outcome.append(loop.remove_reader(again))
        return outcome

    gone = "Invalid file descriptor: -1"
    assert run(main) == [True, True, gone, gone, True]


def test_a_closed_socket_does_not_take_out_who_has_its_number_now() -> None:
    """asyncio's selector cannot watch the second one at all: it takes it for the first."""

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        with pair() as (gone, _):
            loop.add_writer(gone, lambda: None)
            number = gone.fileno()
            gone.close()
            with pair() as (here, there):
                assert here.fileno() == number
                loop.add_reader(here, heard.set)
                removed = loop.remove_reader(gone)
                there.send(b"x")
                await asyncio.wait_for(heard.wait(), 10)
                loop.remove_reader(here)
        return removed

    assert treadle.run(main()) is False


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
