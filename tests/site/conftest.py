"""The built site in a real browser, served from 127.0.0.1."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from course_lib.publish import build


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    server, where = build.serve_in_background()
    yield where
    server.shutdown()
    server.server_close()


def pytest_generate_tests(metafunc: Any) -> None:
    if "page_name" in metafunc.fixturenames:
        root = build.html()
        names = sorted(
            str(path.relative_to(root))
            for path in root.rglob("*.html")
            if "_static" not in path.parts
        )
        # Grouped by page, so that its tests share what they open.
        metafunc.parametrize("page_name", names or ["index.html"], scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of one page go to one process, so that they share what they open there, too."""
    for item in items:
        page = getattr(item, "callspec", None) and item.callspec.params.get("page_name")  # type: ignore[attr-defined]
        if page:
            item.add_marker(pytest.mark.xdist_group(page))
