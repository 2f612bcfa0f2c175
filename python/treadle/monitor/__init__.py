"""Looking at a running server from outside: the stats socket, `/metrics`, `treadle top`.

The server's side is `service` (a thread that answers, whatever the lanes do), fed by `collect` (this
process's statistics, or those of all its workers) and spelled by `prometheus`. The other side is
`client`, which `top` and `screen` stand on. `places` says where the two meet.

Nothing here is imported by a server that was not asked to be looked at.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from treadle.app import App
    from treadle.monitor.setup import Monitor
    from treadle.options import Options

__all__ = ["asked_for"]


def asked_for(app: App, options: Options) -> AbstractContextManager[Monitor | None]:
    """What `options` ask to be shown of a server of `app`; None where that is nothing.

    Raises `BindError` and `OptionError`, each in one sentence.
    """
    if options.metrics is False and options.stats_socket is False:
        return nullcontext()
    from treadle.monitor.setup import Monitor

    return Monitor(app, options)
