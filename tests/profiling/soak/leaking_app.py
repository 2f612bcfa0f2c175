"""The app of the soak in a process that keeps more and more objects."""

import threading

from profiling.apps.soak_app import app

__all__ = ["app"]

kept: list[list[int]] = []
ended = threading.Event()


def _leak() -> None:
    while not ended.wait(0.02):
        kept.extend([[] for _ in range(50)])


threading.Thread(target=_leak, daemon=True).start()
