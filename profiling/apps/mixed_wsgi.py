"""The mixed workload over WSGI."""

import json
from collections.abc import Callable, Iterable
from typing import Any

from profiling.apps.mixed_work import blocking


def application(
    _: dict[str, Any], start_response: Callable[[str, list[tuple[str, str]]], object]
) -> Iterable[bytes]:
    """Answer any request."""
    body = json.dumps(blocking()).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
