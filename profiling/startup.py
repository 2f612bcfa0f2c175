"""How long a server takes from the start of its process to its first answer."""

import time

from profiling.environments import Prepared
from profiling.peers import Product
from profiling.servers import Fleet

PRODUCTS = (Product.TREADLE, Product.GRANIAN_RSGI, Product.TURBOAPI, Product.FASTAPI)

RUNS = 10
QUICK_RUNS = 2


def milliseconds(fleet: Fleet, prepared: Prepared) -> float:
    """Start a server once and return the time to its first 200."""
    began = time.perf_counter()
    with fleet.fresh(prepared):
        return (time.perf_counter() - began) * 1000
