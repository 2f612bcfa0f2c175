"""A real browser without a window: Chromium, driven over WebDriver by what comes with Python."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Self

_READY_WITHIN = 20.0
_PATIENCE = 25.0
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars"),
)


def missing() -> str | None:
    """What this machine lacks for a browser; None when nothing."""
    lacking = [name for name in ("chromium", "chromedriver") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)} here" if lacking else None


class Browser:
    """One browser with one page, and a profile of its own; leaving the block ends both programs."""

    def __init__(self, folder: Path) -> None:
        """Start the driver and the browser; the profile and what they say go to `folder`."""
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}", f"--log-path={folder / 'chromedriver.log'}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._port = port
        self._session = ""
        try:
            self._wait_until_ready()
            options = {
                "binary": shutil.which("chromium"),
                "args": [*_FLAGS, f"--user-data-dir={folder / 'profile'}"],
            }
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            made = self._ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
            self._session = f"/session/{made['sessionId']}"
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the browser, then its driver."""
        try:
            if self._session:
                self._ask("DELETE", self._session)
        finally:
            self._driver.terminate()
            try:
                self._driver.wait(5)
            except subprocess.TimeoutExpired:
                self._driver.kill()
                self._driver.wait()

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Take the shape of a device, and its liking for light or dark pages."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._devtools("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, file: Path) -> None:
        """Load a file, to its end."""
        self._ask("POST", f"{self._session}/url", {"url": file.resolve().as_uri()})

    def run(self, script: str) -> Any:
        """Run the body of a JavaScript function in the page and return what it returns."""
        return self._ask("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def console(self) -> list[str]:
        """What the console said since it was asked last; nothing at all is what a page should say."""
        entries = self._ask("POST", f"{self._session}/se/log", {"type": "browser"})
        return [f"{entry['level']}: {entry['message']}" for entry in entries]

    def picture(self, file: Path) -> None:
        """Save the whole page as PNG."""
        told = self._devtools(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}
        )
        file.write_bytes(base64.b64decode(told["data"]))

    def _devtools(self, command: str, parameters: dict[str, Any]) -> Any:
        told = {"cmd": command, "params": parameters}
        return self._ask("POST", f"{self._session}/goog/cdp/execute", told)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_WITHIN
        while True:
            try:
                self._ask("GET", "/status")
            except OSError:
                assert self._driver.poll() is None, "chromedriver ended"
                assert time.monotonic() < deadline, "chromedriver does not answer"
            else:
                return

    def _ask(self, method: str, path: str, told: dict[str, Any] | None = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_PATIENCE)
        try:
            body = None if told is None else json.dumps(told)
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(answer, dict) and "error" in answer:
            raise AssertionError(f"{path}: {answer['error']}: {answer['message']}")
        return answer
