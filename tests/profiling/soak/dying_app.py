"""The app of the soak in a server that dies after a second and a half."""

import os
import threading

from profiling.apps.soak_app import app

__all__ = ["app"]

threading.Timer(1.5, os._exit, (3,)).start()
