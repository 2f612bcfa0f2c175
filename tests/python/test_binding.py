"""Listening sockets: what is opened, what is said when it cannot be, what is left behind."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from treadle.binding import BindError, Binding, bind
from treadle.options import Options


def opened(**arguments: Any) -> Binding:
    return bind(Options.resolve(env={}, **{"port": 0, **arguments}))


def refusal(**arguments: Any) -> str:
    with pytest.raises(BindError) as caught:
        opened(**arguments)
    return str(caught.value)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A path that fits into a socket address, as pytest's own may not."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "s"


def connects(address: Any) -> bool:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as client:
        return client.connect_ex(address) == 0


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")


def test_port_0_is_a_real_port_that_can_be_connected_to() -> None:
    with opened() as binding:
        assert binding.port
        assert binding.url == f"http://127.0.0.1:{binding.port}"
        assert binding.path is None
        assert connects(("127.0.0.1", binding.port))


def test_sockets_do_not_block_and_are_not_inherited_by_programs() -> None:
    with opened() as binding:
        assert [each.getblocking() for each in binding.sockets] == [False]
        assert [each.get_inheritable() for each in binding.sockets] == [False]


def test_closing_frees_the_port() -> None:
    with opened() as binding:
        port = binding.port
    with opened(port=port) as again:
        assert again.port == port


def test_a_port_that_is_taken_is_one_sentence() -> None:
    with opened() as binding:
        expected = f"cannot listen on 127.0.0.1:{binding.port}: the address is in use."
        assert refusal(port=binding.port) == expected


def test_a_foreign_address_is_one_sentence() -> None:
    # 192.0.2.0/24 is for documentation, so no machine has it.
    expected = "cannot listen on 192.0.2.1:0: it is not an address of this machine."
    assert refusal(host="192.0.2.1") == expected


@pytest.mark.parametrize("host", ["no.such.host.invalid", "ä" * 99, "a..b"])
def test_an_unknown_name_is_one_sentence(host: str) -> None:
    assert refusal(host=host) == f"cannot listen on {host}: no address is known for it."


def test_a_name_listens_on_all_its_addresses_with_one_port() -> None:
    with opened(host="localhost") as binding:
        assert {each.getsockname()[1] for each in binding.sockets} == {binding.port}
        assert binding.url == f"http://localhost:{binding.port}"
        assert connects(("127.0.0.1", binding.port))


@needs_ipv6
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_may_be_given_with_or_without_brackets(host: str) -> None:
    with opened(host=host) as binding:
        assert binding.url == f"http://[::1]:{binding.port}"
        assert binding.sockets[0].family == socket.AF_INET6


@needs_ipv6
def test_a_link_local_address_is_one_of_its_interface() -> None:
    # The kernel calls one without its interface an invalid argument.
    expected = "cannot listen on [fe80::1%lo]:0: it is not an address of this machine."
    assert refusal(host="fe80::1%lo") == expected


@needs_ipv6
def test_the_unspecified_ipv6_address_serves_ipv4_as_well() -> None:
    with opened(host="::") as binding:
        assert connects(("127.0.0.1", binding.port))


def test_a_unix_socket_is_removed_at_the_end(short_path: Path) -> None:
    with opened(uds=short_path) as binding:
        assert binding.port is None
        assert binding.path == str(short_path)
        assert binding.url == f"unix:{short_path}"
        assert connects(str(short_path))
    assert not short_path.exists()


def test_a_unix_socket_is_open_to_other_users_as_a_port_is(short_path: Path) -> None:
    """The proxy in front is one."""
    before = os.umask(0o077)
    try:
        with opened(uds=short_path):
            assert stat.S_IMODE(short_path.stat().st_mode) == 0o666
    finally:
        os.umask(before)


def test_a_relative_unix_socket_is_removed_from_where_it_was_made(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_path.parent)
    with opened(uds="s"):
        monkeypatch.chdir("/")
        assert short_path.is_socket()
    assert not short_path.exists()


def test_what_a_dead_server_left_is_replaced(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(short_path))
    assert short_path.is_socket()
    with opened(uds=short_path):
        assert connects(str(short_path))


def test_a_unix_socket_where_somebody_listens_is_left_to_them(short_path: Path) -> None:
    with opened(uds=short_path):
        expected = f"cannot listen on {short_path}: another process listens there."
        assert refusal(uds=short_path) == expected
        assert connects(str(short_path))


def test_a_unix_socket_whose_queue_is_full_is_left_to_its_owner(short_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy:
        busy.bind(str(short_path))
        busy.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(str(short_path)) != 0:
                break
        assert "another process listens there" in refusal(uds=short_path)
        for client in waiting:
            client.close()


def test_a_file_that_is_no_socket_is_never_removed(short_path: Path) -> None:
    short_path.write_text("precious")
    expected = f"cannot listen on {short_path}: it exists and is not a socket."
    assert refusal(uds=short_path) == expected
    assert short_path.read_text() == "precious"


def test_a_path_that_is_too_long_or_has_no_folder_is_one_sentence() -> None:
    long = "/tmp/" + "x" * 200
    assert refusal(uds=long) == f"cannot listen on {long}: AF_UNIX path too long."
    absent = "/no/such/folder/s"
    assert refusal(uds=absent) == f"cannot listen on {absent}: No such file or directory."


def test_the_socket_of_a_successor_is_not_removed(short_path: Path) -> None:
    binding = opened(uds=short_path)
    os.unlink(short_path)
    with opened(uds=short_path):
        binding.close()
        assert connects(str(short_path))


def test_a_forked_child_does_not_remove_its_parents_socket(short_path: Path) -> None:
    with opened(uds=short_path) as binding:
        pid = os.fork()
        if pid == 0:
            binding.close()
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert short_path.is_socket()
