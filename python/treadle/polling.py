"""How long event loops poll their sockets before they sleep."""

from __future__ import annotations

import os

_VARIABLE = "TREADLE_BUSY_POLL"
_DEFAULT = 50
_MOST = 1_000_000


def busy_poll() -> int:
    """Microseconds that a new loop may poll before it sleeps; 0: it never does.

    `TREADLE_BUSY_POLL`, or 50 where there is more than one core. ValueError, naming the variable,
    for what is no number of microseconds up to a second.
    """
    given = os.environ.get(_VARIABLE, "")
    if not given:
        return _DEFAULT if (os.cpu_count() or 1) > 1 else 0
    if not given.isascii() or not given.isdigit() or int(given) > _MOST:
        raise ValueError(f"{_VARIABLE} is microseconds, from 0 (never) to {_MOST}; it is {given!r}")
    return int(given)
