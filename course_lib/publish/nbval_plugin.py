"""Two things nbval lacks: numbers compared within a tolerance, and an execution that is kept.

Loaded with ``pytest -p course_lib.publish.nbval_plugin``. A chapter whose cells all pass goes into
the cache with the outputs nbval saw, and the book is built from those: each chapter runs once.
"""

from __future__ import annotations

import math
import os
import re
import time
from pathlib import Path
from typing import Any

import pytest

from course_lib.publish import cache, chapters

_NUMBER = re.compile(r"(?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\w])")
DEFAULT_TOLERANCE = 1e-6


def close_text(expected: str, found: str, tolerance: float) -> bool:
    """Compare two texts: the same words, and numbers that differ by at most ``tolerance``.

    The tolerance is absolute or relative to the expected number, whichever allows more. Runs of
    white space count as one.

    Raises ``ValueError`` for a tolerance that is negative or not finite.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"tolerance: expected a finite number >= 0, got {tolerance}")

    def words(text: str) -> list[str]:
        return " ".join(_NUMBER.sub(" # ", text).split()).split("#")

    if words(expected) != words(found):
        return False
    pairs = zip(_NUMBER.findall(expected), _NUMBER.findall(found), strict=True)
    return all(
        abs(float(a) - float(b)) <= tolerance * max(1.0, abs(float(a))) * (1 + 1e-9)
        for a, b in pairs
    )


def _compare(item: Any, outputs: list[Any]) -> bool:
    expected = "".join(output.text for output in item.cell.outputs)
    found = "".join(output.text for output in outputs if output.get("name") == "stdout")
    tolerance = float(item.cell.metadata.get("tolerance", DEFAULT_TOLERANCE))
    item.comparison_traceback = [
        f"Checked output differs by more than the tolerance {tolerance:g}.",
        "The chapter expects:",
        expected,
        "The cell printed:",
        found,
    ]
    return close_text(expected, found, tolerance)


def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Compare checked cells our way."""
    for item in items:
        if hasattr(item, "cell_num"):
            item.compare_outputs = lambda outputs, _reference, item=item: _compare(item, outputs)


def pytest_configure() -> None:
    """What runs here is published: live figures are shown as a page has them, without a kernel.

    Chapters that run side by side (``pytest -n``) share the cores.
    """
    os.environ["COURSE_FIGURES"] = "page"
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))


class _Runs:
    """The cells of each notebook as they pass, until one fails."""

    def __init__(self) -> None:
        self.outputs: dict[Path, list[list[Any]]] = {}
        self.began: dict[Path, float] = {}
        self.failed: set[Path] = set()


_RUNS = _Runs()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: Any, nextitem: Any) -> Any:
    """Time a notebook from its first cell, the kernel's start included."""
    if hasattr(item, "cell_num"):
        _RUNS.began.setdefault(Path(item.path), time.perf_counter())
    result = yield
    if hasattr(item, "cell_num") and (nextitem is None or nextitem.path != item.path):
        _keep(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    """Collect what each cell printed and drew."""
    report = yield
    if hasattr(item, "cell_num"):
        path = Path(item.path)
        if report.outcome != "passed":
            _RUNS.failed.add(path)
        elif call.when == "call":
            _RUNS.outputs.setdefault(path, []).append(item.test_outputs)
    return report


def _keep(item: Any) -> None:
    path = Path(item.path)
    if path in _RUNS.failed or path not in _RUNS.outputs:
        return
    folder = Path(item.config.rootpath) / "_build" / "notebooks"
    if not path.is_relative_to(folder):
        return
    page = chapters.chapter(str(path.relative_to(folder).with_suffix("")))
    outputs = _RUNS.outputs[path]
    # A run of single cells, chosen on the command line, is no run of the chapter.
    if len(outputs) == sum(cell.cell_type == "code" for cell in chapters.notebook(page).cells):
        cache.store(page, outputs, time.perf_counter() - _RUNS.began[path])
