"""The built site in a real browser, served from 127.0.0.1."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, sync_playwright

from course_lib.publish import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    server, where = build.serve_in_background()
    yield where
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here (Debian: apt install chromium); .ci/run installs it")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield running
        running.close()


def pytest_generate_tests(metafunc: Any) -> None:
    if "page_name" in metafunc.fixturenames:
        root = build.html()
        names = sorted(
            str(path.relative_to(root))
            for path in root.rglob("*.html")
            if "_static" not in path.parts
        )
        metafunc.parametrize("page_name", names or ["index.html"])
