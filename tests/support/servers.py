"""Servers from the system's packages, started by the tests: PostgreSQL, Redis, nginx."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


def needed(program: str, package: str) -> str:
    """The path of a program; skips the test where it is not installed."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"there is no {program} here (Debian's package is {package})")
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


# -- PostgreSQL -----------------------------------------------------------------------------------


def _postgres_programs() -> Path:
    """The folder of `initdb`: on PATH, or where Debian puts each version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not versions:
        pytest.skip("there is no PostgreSQL here (Debian's package is postgresql)")
    return versions[-1].parent


@contextmanager
def postgres() -> Iterator[str]:
    """A PostgreSQL of its own, by the folder of its socket; user and database `postgres`."""
    programs = _postgres_programs()
    # It refuses to be root's. A folder of pytest's would be out of another user's reach.
    folder = Path(tempfile.mkdtemp(prefix="treadle-pg-"))
    user = None
    if os.geteuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in known else "nobody"
        shutil.chown(folder, user)

    def call(program: str, *arguments: str) -> None:
        with (folder / "out").open("ab") as out:
            subprocess.run(
                [programs / program, "-D", folder / "data", *arguments],
                user=user,
                cwd=folder,
                env={**os.environ, "LC_ALL": "C"},
                stdout=out,
                stderr=out,
                check=True,
            )

    try:
        (folder / "out").touch()
        if user:
            shutil.chown(folder / "out", user)
        call("initdb", "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off"
        call("pg_ctl", "-w", "-t", "20", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield str(folder)
        finally:
            call("pg_ctl", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


# -- Redis ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Redis:
    """Where a Redis listens: a port of 127.0.0.1, and the path of a Unix socket."""

    port: int
    path: str


@contextmanager
def redis() -> Iterator[Redis]:
    """A Redis of its own, without anything on disk."""
    program = needed("redis-server", "redis-server")
    with tempfile.TemporaryDirectory(prefix="treadle-redis-") as folder:
        server = Redis(free_port(), f"{folder}/socket")
        options = ["--port", str(server.port), "--bind", "127.0.0.1", "--unixsocket", server.path]
        with subprocess.Popen(
            [program, *options, "--save", "", "--appendonly", "no", "--dir", folder],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            try:
                assert process.stdout is not None
                said = []
                for line in process.stdout:
                    said.append(line)
                    if "The server is now ready" in line or "Ready to accept connections" in line:
                        break
                else:
                    raise RuntimeError("redis-server ended: " + "".join(said))
                yield server
            finally:
                process.terminate()


# -- nginx ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Nginx:
    """A web server: its URLs, the certificate to trust, and the file at `/file`."""

    url: str
    tls_url: str
    certificate: Path
    file: bytes


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for localhost and 127.0.0.1 that signs itself, and its key."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-addext", "keyUsage=digitalSignature", "-keyout", key, "-out", chain),
        ],
        check=True,
        capture_output=True,
    )
    return chain, key


_NGINX = """
{user}
worker_processes 1;
pid {folder}/pid;
error_log {folder}/errors;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    client_max_body_size 100m;
    default_type application/octet-stream;
    gzip on; gzip_types application/octet-stream; gzip_min_length 1;
    upstream echo {{ server 127.0.0.1:{port}; }}
    server {{
        listen 127.0.0.1:{port};
        listen 127.0.0.1:{tls_port} ssl;
        ssl_certificate {chain}; ssl_certificate_key {key};
        location = /hello {{ return 200 "hello $arg_name"; }}
        location = /discard {{ proxy_pass http://echo/length; }}
        location = /length {{ return 200 "$request_method $http_content_length"; }}
        location = /moved {{ return 302 /hello?name=moved; }}
        location = /file {{ alias {folder}/file; gzip off; }}
        location = /zipped {{ alias {folder}/file; }}
    }}
}}
"""


@contextmanager
def nginx() -> Iterator[Nginx]:
    """An nginx of its own, with a port in the clear and one with TLS."""
    program = needed("nginx", "nginx")
    needed("openssl", "openssl")
    with tempfile.TemporaryDirectory(prefix="treadle-nginx-") as name:
        folder = Path(name)
        chain, key = certificate(folder)
        port, tls_port = free_port(), free_port()
        content = bytes(range(256)) * 8192
        (folder / "file").write_bytes(content)
        user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
        configuration = _NGINX.format(
            folder=folder, port=port, tls_port=tls_port, chain=chain, key=key, user=user
        )
        (folder / "conf").write_text(configuration)

        def call(*arguments: str) -> None:
            command = [program, "-c", folder / "conf", "-e", folder / "errors", *arguments]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

        call()  # leaves a daemon behind, and returns once that listens
        try:
            yield Nginx(f"http://127.0.0.1:{port}", f"https://localhost:{tls_port}", chain, content)
        finally:
            call("-s", "stop")
