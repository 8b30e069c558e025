"""One submission, from its bytes to its result: rebuilt, run in the sandbox, judged here.

``grade`` is all that a pool or a cluster has to run. It gets everything by value and returns a result
that depends on nothing else: the same submission, checks and environment give the same bytes.
"""

from __future__ import annotations

import ast
import hashlib
import json
import multiprocessing.util
import platform
import re
import sys
import threading
import time
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from course_lib.grading import rebuild
from course_lib.grading.checks import Check, Failure, Verdict, examine, explain
from course_lib.grading.jail import Limits
from course_lib.grading.sandbox import Child, Sandbox

#: How often a submission gets a new process for its remaining checks after it has lost one.
RESTARTS = 4
_UNREADABLE = (
    "the notebook could not be taken apart: open it, run it from the top, save it, hand it in again"
)
#: Failures that end the process, and what the result's status is then.
_ENDS = {"timeout": "timeout", "memory": "memory", "crashed": "crashed", "wire": "crashed"}


@dataclass(frozen=True)
class Assignment:
    """All that grading an assignment needs, by value: the released notebook, checks and probes."""

    name: str
    notebook: bytes
    checks: str
    probe: str
    limits: Limits = field(default_factory=Limits)
    hidden: tuple[str, ...] = ()

    @staticmethod
    def load(root: Path, name: str, limits: Limits | None = None) -> Assignment:
        """Read an assignment of the repository at ``root``.

        Raises ``ValueError`` that lists what there is when there is none of this name.
        """
        notebook = root / "assignments" / name / f"{name}.ipynb"
        folder = root / "solutions" / name
        if not notebook.is_file() or not (folder / "checks.py").is_file():
            there = ", ".join(
                sorted(path.parent.name for path in root.glob("solutions/*/checks.py"))
            )
            raise ValueError(f"no assignment {name!r} in {root}; there are {there or 'none'}")
        return Assignment(
            name,
            notebook.read_bytes(),
            (folder / "checks.py").read_text(encoding="utf-8"),
            (folder / "probe.py").read_text(encoding="utf-8"),
            limits or Limits(),
            (str(root / "solutions"),),
        )

    @property
    def identity(self) -> str:
        """A hash of everything that can change a grade, but for the submission."""
        return _identity(self)

    def master(self) -> rebuild.Master:
        """Return the released notebook's cells."""
        return _master(self.name, self.notebook)


@cache
def _master(name: str, notebook: bytes) -> rebuild.Master:
    return rebuild.load(name, notebook)


@cache
def _identity(assignment: Assignment) -> str:
    code = Path(__file__).parent
    parts = [
        assignment.name.encode(),
        assignment.notebook,
        assignment.checks.encode(),
        assignment.probe.encode(),
        repr(assignment.limits).encode(),
        *(version(name).encode() for name in ("torch", "numpy", "safetensors")),
        sys.version.encode(),
        platform.machine().encode(),
        *((code / f"{name}.py").read_bytes() for name in ("checks", "child", "job", "rebuild")),
    ]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def key(assignment: Assignment, student: str, data: bytes, problem: str = "") -> str:
    """Return the address of a result: a hash of assignment, environment, student and submission."""
    parts = (assignment.identity.encode(), student.encode(), data, problem.encode())
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


@cache
def _checks(source: str) -> tuple[Check, ...]:
    module = types.ModuleType("checks")
    sys.modules.setdefault("checks", module)  # where dataclasses look for their module
    exec(compile(source, "checks.py", "exec", dont_inherit=True), module.__dict__)
    return tuple(module.CHECKS)


_here = threading.local()


def _sandbox(assignment: Assignment) -> Sandbox:
    """Return this thread's sandbox, started anew when an assignment needs another one."""
    wanted = (tuple(_imports(assignment.master())), assignment.limits, assignment.hidden)
    if getattr(_here, "made_for", None) != wanted:
        close()
        preload = ["torch", "torch.nn.functional", "torch.optim", "torch.func", "numpy", *wanted[0]]
        sandbox = Sandbox(
            preload=preload, hidden=[Path(path) for path in wanted[2]], limits=wanted[1]
        )
        _here.sandbox, _here.made_for = sandbox.__enter__(), wanted
        # Not atexit: a process of a pool ends without it.
        multiprocessing.util.Finalize(None, sandbox.close, exitpriority=10)
    found: Sandbox = _here.sandbox
    return found


def close() -> None:
    """End this thread's sandbox, if it has one."""
    sandbox = getattr(_here, "sandbox", None)
    if sandbox is not None:
        sandbox.close()
    _here.sandbox = _here.made_for = None


def _imports(master: rebuild.Master) -> list[str]:
    """Return the modules that the master's setup cells import, to be loaded once for all."""
    names: dict[str, None] = {}
    for cell in master.of("setup"):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Import):
                names |= dict.fromkeys(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and node.module != "__future__":
                names[node.module] = None
                if node.module == "course_lib":
                    names |= dict.fromkeys(f"course_lib.{alias.name}" for alias in node.names)
    return list(names)


def grade(assignment: Assignment, student: str, data: bytes, problem: str = "") -> dict[str, Any]:
    """Grade one submission and return its result; nothing in it can make this raise.

    ``problem`` says why a submission that could not be read is rejected. Raises ``Missing`` where there
    is no sandbox, and what the teacher's own checks raise.
    """
    return attempt(assignment, student, data, problem)[0]


def attempt(
    assignment: Assignment, student: str, data: bytes, problem: str = ""
) -> tuple[dict[str, Any], bool]:
    """Grade one submission like ``grade``; return its result, and whether it should be tried alone.

    It should where it was stopped before it had computed for most of its time: beside busy neighbours
    that says nothing about it.
    """
    import torch

    torch.set_num_threads(1)
    master = assignment.master()
    checks = _checks(assignment.checks)
    result: dict[str, Any] = {
        "key": key(assignment, student, data, problem),
        "assignment": assignment.name,
        "student": student,
        "status": "graded",
        "note": "",
        "points": 0.0,
        "of": sum(check.points for check in checks),
        "checks": [],
        "errors": {},
        "answers": {},
        "written": {},
        "empty": [],
        "flags": [],
    }
    verdicts: dict[str, Verdict] = {}
    starved = False
    try:
        if problem:
            raise rebuild.Rejected(problem)
        built = rebuild.rebuild(master, rebuild.parse(data))
    except Exception as error:  # one notebook never ends the batch, whatever is in it
        note = str(error) if isinstance(error, rebuild.Rejected) else _UNREADABLE
        result |= {"status": "rejected", "note": note}
        verdicts = {check.name: Verdict(0.0, note) for check in checks}
    else:
        status, errors, verdicts, starved = _run(assignment, checks, built, student)
        result |= {
            "status": status,
            "errors": {name: _told(failure) for name, failure in errors.items()},
            "answers": dict(built.answers),
            "written": dict(built.written),
            "empty": sorted(built.empty),
            "flags": list(dict.fromkeys(built.flags)),
        }
    for check in checks:
        verdict = verdicts[check.name]
        answer, line = _where(verdict, result["answers"])
        row = {"cell": check.cell, "name": check.name, "title": check.title, "of": check.points}
        row |= {"points": verdict.points, "message": verdict.message}
        result["checks"].append(row | {"answer": answer, "line": line})
    result["points"] = round(sum(row["points"] for row in result["checks"]), 6)
    return result, starved


def to_bytes(result: Mapping[str, Any]) -> bytes:
    """Return a result as the bytes it is stored as."""
    return json.dumps(result, sort_keys=True, indent=1).encode() + b"\n"


def _run(
    assignment: Assignment, checks: tuple[Check, ...], built: rebuild.Rebuilt, student: str
) -> tuple[str, dict[str, Failure], dict[str, Verdict], bool]:
    """Run a rebuilt notebook; return status, errors of cells, verdicts, and whether it starved.

    A process that is lost costs the check, or the cell, that lost it; the rest goes on in a new one.
    """
    status = "graded"
    errors: dict[str, Failure] = {}
    verdicts: dict[str, Verdict] = {}
    guilty: set[int] = set()
    _sandbox(assignment)  # to start it takes seconds that are not the student's
    until = time.monotonic() + assignment.limits.total
    starved = False
    for _ in range(RESTARTS + 1):
        with _sandbox(assignment).child(until) as child:
            failure = _go_on(child, assignment, checks, built, student, (errors, verdicts, guilty))
        starved |= child.starved
        if failure is None:
            break
        if status == "graded":
            status = _ENDS[failure.kind]
        if time.monotonic() >= until:
            break
    for check in checks:
        if check.name not in verdicts:
            assert failure is not None
            verdicts[check.name] = Verdict(0.0, explain(failure), failure)
    if status == "graded" and any(
        verdict.failure is not None and verdict.failure.kind == "MemoryError"
        for verdict in verdicts.values()
    ):
        status = "memory"
    return status, errors, verdicts, starved


def _go_on(
    child: Child,
    assignment: Assignment,
    checks: tuple[Check, ...],
    built: rebuild.Rebuilt,
    student: str,
    so_far: tuple[dict[str, Failure], dict[str, Verdict], set[int]],
) -> Failure | None:
    """Go on with a submission in one process; return None at the end, or what lost the process."""
    errors, verdicts, guilty = so_far
    for position, (name, source) in enumerate(built.code):
        if position in guilty:
            continue
        told = child.cells([(name, source)])
        if isinstance(told, Failure):
            guilty.add(position)
            errors[name] = told
            return told
        if name in built.answers:
            errors.update(told)
    lost = child.probe(assignment.probe)
    if lost is not None:
        return lost
    for check in checks:
        if check.name in verdicts:
            continue
        verdicts[check.name] = examine(check, child.call, student)
        if child.gone is not None:
            # Its other checks call the same function: they would lose a process each.
            for other in checks:
                if other.cell == check.cell:
                    verdicts.setdefault(other.name, verdicts[check.name])
            return child.gone
    return None


def _where(verdict: Verdict, answers: Mapping[str, str]) -> tuple[str, int]:
    """Return the student's cell and line that a failure came from, when what is said makes sense."""
    failure = verdict.failure
    if failure is None or failure.cell not in answers:
        return "", 0
    return failure.cell, min(failure.line, answers[failure.cell].count("\n") + 1)


def _told(failure: Failure) -> dict[str, Any]:
    """Return a cell's own error for the result: its text, without what differs from run to run."""
    text = re.sub(r"0x[0-9a-fA-F]{6,}", "0x...", failure.detail)
    return {"type": failure.kind, "line": failure.line, "text": text}
