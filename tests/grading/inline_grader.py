"""Grades answers in this very process, without a sandbox: for testing checks, never for students."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
import numpy as np
import torch

from course_lib.grading import checks, child

torch.set_num_threads(1)  # as in the sandbox; more only get in each other's way here

SOLUTIONS = Path(__file__).resolve().parents[2] / "solutions"


@cache
def load(name: str, part: str) -> ModuleType:
    """Import ``solutions/<name>/<part>.py``."""
    path = SOLUTIONS / name / f"{part}.py"
    spec = importlib.util.spec_from_file_location(f"solutions_{name}_{part}", path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@cache
def source(name: str) -> Any:
    """Return the notebook written in ``solutions/<name>/<name>.py``, solutions included."""
    return jupytext.read(SOLUTIONS / name / f"{name}.py")


def answers(name: str) -> dict[str, str]:
    """Return the reference's answer cells by grade_id."""
    return {
        cell.metadata["nbgrader"]["grade_id"]: cell.source
        for cell in source(name).cells
        if cell.cell_type == "code" and cell.metadata.get("nbgrader", {}).get("solution")
    }


def grade(name: str, changed: Mapping[str, str], student: str = "ada") -> dict[str, checks.Verdict]:
    """Grade the reference with some answer cells replaced; a verdict by check name."""
    notebook = child.Notebook()
    for cell in source(name).cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type != "code":
            continue
        if "setup" in cell.metadata.get("tags", []):
            assert notebook.run("setup", cell.source) is None
        elif meta.get("solution"):
            text = changed.get(meta["grade_id"], cell.source)
            notebook.run(meta["grade_id"], text)
    probes = load(name, "probe")

    def call(probe: str, sent: checks.Sent) -> Mapping[str, np.ndarray] | checks.Failure:
        message, arrays = notebook.call(probes, probe, sent)
        error = message.get("error")
        if error is None:
            return arrays
        detail = str(error.get("name", error.get("what", "")))
        return checks.Failure(error["type"], detail, error.get("cell", ""), error.get("line", 0))

    main = sys.modules["__main__"]
    try:
        return {
            check.name: checks.examine(check, call, student)
            for check in load(name, "checks").CHECKS
        }
    finally:
        sys.modules["__main__"] = main
