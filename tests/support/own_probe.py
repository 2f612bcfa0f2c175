"""A pytest plugin: Treadle's native module is the one that the probe carries.

`pytest -p support.own_probe` runs tests of the bridge with an extension that finds the lane as a
lane; without it, the probe meets lanes as it meets any event loop.
"""

from profiling.extensions import build, use_probe

use_probe(build("probe"))
