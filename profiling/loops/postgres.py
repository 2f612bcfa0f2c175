"""A PostgreSQL for as long as the scenarios that ask one are measured."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from profiling.errors import UnavailableError
from profiling.servers import LOAD_CORE


def _programs() -> Path:
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        raise UnavailableError("PostgreSQL is not installed: it is in Debian's package postgresql")
    return versions[-1].parent


@contextmanager
def postgres() -> Iterator[str]:
    """The folder of the socket of a server of its own, on the core of the load; user postgres.

    Raises UnavailableError where PostgreSQL is not installed or does not start.
    """
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="profiling-pg-"))
    user = None
    if os.geteuid() == 0:  # it refuses to be root's
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in known else "nobody"
        shutil.chown(folder, user)

    def call(program: str, *arguments: str) -> None:
        command = ["taskset", "-c", LOAD_CORE, programs / program, "-D", folder / "data"]
        done = subprocess.run(
            [*command, *arguments],
            user=user,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode:
            raise UnavailableError(f"PostgreSQL's {program} ended with {done.returncode}")

    try:
        call("initdb", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        call("pg_ctl", "-w", "-t", "20", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield str(folder)
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)
