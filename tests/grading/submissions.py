"""Submissions made from the released notebook, and a grader that stops early."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import inline_grader

from course_lib.grading import job
from course_lib.grading.jail import Limits

ROOT = Path(__file__).resolve().parents[2]
#: Short, so that a loop without end costs a test seconds.
LIMITS = Limits(cells=3.0, call=1.5, total=8.0, memory=400 << 20)

Notebook = dict[str, Any]


def bundle(name: str, limits: Limits = LIMITS) -> job.Assignment:
    return job.Assignment.load(ROOT, name, limits)


def submission(
    name: str,
    answers: Mapping[str, str] | None = None,
    edit: Callable[[Notebook], object] | None = None,
) -> bytes:
    """The released notebook with some answers written in (default: the reference's), then edited."""
    notebook = json.loads((ROOT / "assignments" / name / f"{name}.ipynb").read_bytes())
    written = inline_grader.answers(name) if answers is None else answers
    for cell in notebook["cells"]:
        grade_id = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if grade_id in written:
            cell["source"] = written[grade_id].splitlines(True)
    if edit is not None:
        edit(notebook)
    return json.dumps(notebook).encode()


def find(notebook: Notebook, grade_id: str) -> dict[str, Any]:
    return next(
        cell
        for cell in notebook["cells"]
        if cell["metadata"].get("nbgrader", {}).get("grade_id") == grade_id
    )


def earned(result: Mapping[str, Any]) -> dict[str, float]:
    """Points by check."""
    return {row["name"]: row["points"] for row in result["checks"]}
