"""A small assignment with two answers and a question, for tests of what is made of assignments."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from course_lib.grading import release


def _meta(match: re.Match[str]) -> str:
    kind, grade_id, points = match[1], match[2], int(match[3])
    meta = {
        "grade": kind in ("check", "question"),
        "grade_id": grade_id,
        "locked": kind in ("given", "check"),
        "schema_version": 3,
        "solution": kind in ("answer", "question"),
        "task": False,
    }
    return json.dumps(meta | ({"points": points} if points else {}))


SOURCE = re.sub(
    r"@(\w+) (\w+) (\d+)@",
    _meta,
    '''\
# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Some Python of a machine
#     language: python
#     name: machine
# ---

# %% [markdown]
# # Halves and doubles, where $a<b$

# %% tags=["setup"] nbgrader=@given setup 0@
import math

# %% [markdown]
# ## Half

# %% nbgrader=@answer half 0@
def half(x):
    """Return half of x."""
    ### BEGIN SOLUTION
    quotient_of_two = x / math.sqrt(4.0)
    return quotient_of_two
    ### END SOLUTION

# %% nbgrader=@check check_half 3@
assert half(8) == 4, "divide by two"

# %% nbgrader=@answer double 0@
def double(x):
    ### BEGIN SOLUTION
    return x + x
    ### END SOLUTION

# %% nbgrader=@check check_double 2@
assert double(4) == 8

# %% [markdown] nbgrader=@question question 4@
# Halving is doubling seen in a mirror. Name the mirror for a point.
''',
)

CHECKS = '''\
"""Hidden checks of the tiny assignment, unseen by anyone."""
from course_lib.grading.checks import Check


def draw_the_halves(rng):
    return {"x": rng.normal(size=3)}


CHECKS = [
    Check(cell="check_half", name="half", title="half: of any number", points=3, probe="half_of_it",
          draw=draw_the_halves, expect=lambda x: {"y": x * 0.5 + 0.0 * (x - 1.0)}),
]
'''


def make(root: Path, source: str = SOURCE) -> Path:
    """Write a repository with this assignment, released, below a folder."""
    folder = root / "solutions" / "tiny"
    folder.mkdir(parents=True)
    (folder / "tiny.py").write_text(source, encoding="utf-8")
    (folder / "checks.py").write_text(CHECKS, encoding="utf-8")
    (folder / "probe.py").write_text(
        "def half_of_it(student, *, x):\n    return {'y': student.half(x)}\n", encoding="utf-8"
    )
    release.write(root, "tiny")
    return root


def result(student: str, points: tuple[float, ...] = (3.0, 2.0), **changed: Any) -> dict[str, Any]:
    """Return a result as ``job.grade`` would."""
    made: dict[str, Any] = {
        "assignment": "tiny",
        "student": student,
        "status": "graded",
        "note": "",
        "points": sum(points),
        "of": 5.0,
        "checks": [
            {
                "cell": cell,
                "name": name,
                "title": f"{name}: of any number",
                "points": earned,
                "of": most,
                "message": "" if earned == most else "The values are not those of the formula.",
                "answer": "",
                "line": 0,
            }
            for cell, name, earned, most in (
                ("check_half", "half", points[0], 3.0),
                ("check_double", "double", points[1], 2.0),
            )
        ],
        "errors": {},
        "answers": {"half": "def half(x):\n    return x / 2", "double": "def double(x): ..."},
        "written": {"question": f"The mirror of {student}."},
        "empty": [],
        "flags": [],
    } | changed
    made["key"] = hashlib.sha256(json.dumps(made, sort_keys=True).encode()).hexdigest()
    return made
