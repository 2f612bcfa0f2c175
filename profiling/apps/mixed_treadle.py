"""The mixed workload on Treadle, in each of its modes."""

from profiling.apps.mixed_work import awaiting, blocking
from treadle import App

app = App()


@app.get("/inline")
def inline() -> dict[str, object]:
    """Block the lane."""
    return blocking()


@app.get("/async")
async def asynchronous() -> dict[str, object]:
    """Wait on the lane's event loop."""
    return await awaiting()


@app.get("/offload", offload=True)
def offload() -> dict[str, object]:
    """Block a thread of the pool."""
    return blocking()
