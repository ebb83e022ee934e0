"""Fixtures for the end-to-end tests: Flask's tutorial application, live servers, a browser."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

FLASK_VERSION = "3.1.3"
ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("HIPFLASK_TEST_CACHE", ROOT / ".cache"))


@pytest.fixture(scope="session")
def tutorial() -> Path:
    """The folder of Flask's tutorial application, taken from Flask's source distribution."""
    folder = CACHE / f"flask-{FLASK_VERSION}" / "examples" / "tutorial"
    if not folder.exists():
        CACHE.mkdir(exist_ok=True)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
            + ["--no-deps", "--no-binary", "flask", "--dest", str(CACHE), f"flask=={FLASK_VERSION}"],
            check=True,
        )
        with tarfile.open(CACHE / f"flask-{FLASK_VERSION}.tar.gz") as archive:
            archive.extractall(CACHE, filter="data")
    return folder


class Server:
    """A `hipflask run` in a process of its own, ready when it has said where it listens."""

    def __init__(
        self, *arguments: str, cwd: Path, env: dict[str, str] | None = None, script: Path | None = None
    ) -> None:
        command = ["-m", "hipflask"] if script is None else [str(script)]
        self.process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output: list[str] = []
        self.url = self._wait_for_url()
        # The rest is read aside, so that a talkative application never blocks on a full pipe.
        self._reader = threading.Thread(target=self._read_on, daemon=True)
        self._reader.start()

    def _wait_for_url(self) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if found := re.search(r"https?://[^\s/]+:\d+", line):
                return found[0]
        raise AssertionError("the server ended without listening:\n" + "".join(self.output))

    def _read_on(self) -> None:
        assert self.process.stdout is not None
        self.output.extend(self.process.stdout)

    def stop(self) -> int:
        """Ask the server to stop; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(5)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return status


@pytest.fixture(scope="session")
def serve() -> type[Server]:
    """The class of servers; each test stops the ones it starts."""
    return Server


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Headless Chromium, driven by Debian's chromedriver."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1000,800"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService("/usr/bin/chromedriver"))
    driver.implicitly_wait(5)
    yield driver
    driver.quit()
