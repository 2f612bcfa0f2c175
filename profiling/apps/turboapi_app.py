"""The app of the comparison, on TurboAPI: `python -m profiling.apps.turboapi_app PORT`."""
# mypy: disable-error-code="import-not-found,untyped-decorator,misc"

import asyncio
import sys

from turboapi import TurboAPI

from profiling.apps.work import burn

app = TurboAPI()


@app.get("/sync")
def sync() -> dict[str, object]:
    """Answer from a `def`."""
    return {"message": "hello", "n": 1}


@app.get("/async")
async def asynchronous() -> dict[str, object]:
    """Answer from an `async def` that never suspends."""
    return {"message": "hello", "n": 1}


@app.get("/sleep0")
async def sleep0() -> dict[str, object]:
    """Answer after one suspension."""
    await asyncio.sleep(0)
    return {"message": "hello", "n": 1}


@app.get("/sleep")
async def sleep() -> dict[str, object]:
    """Answer after a millisecond."""
    await asyncio.sleep(0.001)
    return {"message": "hello", "n": 1}


@app.get("/cpu")
def cpu() -> dict[str, object]:
    """Answer after about 130 us of Python."""
    burn()
    return {"message": "hello", "n": 1}


@app.post("/plain")
def plain() -> dict[str, object]:
    """Answer a POST without looking at its body."""
    return {"message": "hello", "n": 1}


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]))
