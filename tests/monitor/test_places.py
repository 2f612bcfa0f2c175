"""Where stats sockets are, and whose they may be."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from treadle.monitor import places


def test_a_socket_is_in_the_users_runtime_folder_by_its_process(folder: Path) -> None:
    assert places.default_path(123) == f"{folder}/123.sock"


@pytest.mark.parametrize("unset", [True, False])
def test_without_a_runtime_folder_it_is_in_tmp(
    monkeypatch: pytest.MonkeyPatch, unset: bool
) -> None:
    if unset:
        monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    else:
        monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    assert places.default_path(123) == f"/tmp/treadle-{os.geteuid()}/123.sock"


def test_the_runtime_folder_of_another_user_is_not_for_this_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places.default_path(123).startswith(str(folder))
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert places.default_path(123) == "/tmp/treadle-12345/123.sock"


def test_the_folder_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "treadle"
    places.ensure_folder(str(path))
    places.ensure_folder(str(path))
    assert path.stat().st_mode & 0o7777 == 0o700


def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(places.Unsafe, match=r"is open to other users; it has to have mode 0700\.$"):
        places.ensure_folder(str(tmp_path))


def test_a_link_to_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir(mode=0o700)
    link = tmp_path / "treadle"
    link.symlink_to(tmp_path / "target")
    with pytest.raises(places.Unsafe, match=r"exists and is not a folder\.$"):
        places.ensure_folder(str(link))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "treadle"
    path.mkdir(mode=0o700)
    os.chown(path, 12345, 12345)
    with pytest.raises(places.Unsafe, match=r"belongs to another user\.$"):
        places.ensure_folder(str(path))


def test_sockets_are_known_by_their_names_alone(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    for name in ("12.sock", "7.sock", "x.sock", "012.sock", "12.workers", "13.sock.new"):
        (folder / name).touch()
    found = places.sockets(os.geteuid())
    mine = {pid: path for pid, path in found.items() if path.startswith(str(folder))}
    assert mine == {7: f"{folder}/7.sock", 12: f"{folder}/12.sock"}


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        assert places.peer(here) == (os.getpid(), os.geteuid())
