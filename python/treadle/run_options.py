"""The arguments of `App.run`, for type checkers and editors.

`treadle.options` declares what they mean, what they take and their defaults; text is read as it is
on the command line, and None counts as not given.
"""

from __future__ import annotations

import os
from typing import TypedDict

__all__ = ["RunOptions"]

Integer = int | str | None
Seconds = float | str | None
Switch = bool | str | None
Path = str | os.PathLike[str]


class RunOptions(TypedDict, total=False):
    """The options of `treadle run` by name; `treadle run --help` says what each is."""

    host: str | None
    port: Integer
    uds: Path | None
    backlog: Integer
    lanes: Integer
    workers: Integer
    offload_threads: Integer
    limit_body: Integer
    limit_connections: Integer
    limit_concurrency: Integer
    timeout_header: Seconds
    timeout_keep_alive: Seconds
    timeout_request: Seconds
    timeout_write: Seconds
    grace: Seconds
    log_level: str | None
    access_log: Switch
    telemetry: Switch
    require_free_threading: Switch
    metrics: Switch
    stats_socket: Switch | Path
    stall_warning: Seconds
