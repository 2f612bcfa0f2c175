"""What came out of a callback, told to the loop's exception handler."""

from __future__ import annotations

from typing import Any

# As exceptions have it: a class of its own may refuse to have attributes set.
_set_context: Any = vars(BaseException)["__context__"].__set__


def report(loop: Any, context: dict[str, Any]) -> None:
    """Gives `context` to the handler as inside the `except` block that caught its `exception`.

    So `sys.exc_info()` and what logs it say there what was raised, and it is chained to what the
    handler itself raises. Native code caught it, outside any such block.
    """
    error: BaseException = context["exception"]
    traceback, cause = error.__traceback__, error.__context__
    try:
        raise error
    except BaseException:
        # The exception is to be as it came: without this frame, which refers to it, and without
        # what was being handled where the loop was started.
        error.with_traceback(traceback)
        _set_context(error, cause)
        loop.call_exception_handler(context)
