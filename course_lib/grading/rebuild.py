"""Rebuild a submission from the master: only what the student was asked to write crosses over.

The master is the notebook that was released. Its cells, their order, points and checks stand; of the
submission, the sources of the answer cells are taken, found by their ``grade_id``. Everything else that
is different becomes a flag for the teacher and changes nothing.

One thing more crosses, because honest students do it: where an answer uses a name that no answer and
no setup cell defines, the statements that define it are taken from the student's other cells. They run
in the sandbox like the rest of her code.
"""

from __future__ import annotations

import ast
import builtins
import json
import symtable
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

#: The tag of the master's cells that run before the answers: imports.
SETUP = "setup"
#: The most that a notebook may weigh, and the most brackets, braces and commas it may have: outputs
#: may be large, but a file that takes gigabytes to parse is not a notebook.
MAX_BYTES, MAX_TOKENS = 100 << 20, 3_000_000
#: The longest answer that is run.
MAX_SOURCE = 200_000


class Rejected(ValueError):
    """A file that is no notebook of this assignment; the message says why, to the student."""


@dataclass(frozen=True)
class Cell:
    """One cell of the master: ``role`` is setup, answer, grade, question or given."""

    id: str
    role: str
    source: str
    points: float = 0.0
    title: str = ""


@dataclass(frozen=True)
class Master:
    """The released notebook of an assignment, which nobody but the teacher writes."""

    name: str
    cells: tuple[Cell, ...]

    def of(self, role: str) -> list[Cell]:
        """Return the cells of one role, in order."""
        return [cell for cell in self.cells if cell.role == role]

    def ids(self) -> set[str]:
        """Return the grade_ids by which a submission is recognised: those no other assignment has."""
        return {cell.id for cell in self.cells if cell.role in ("answer", "grade")}


@dataclass(frozen=True)
class Rebuilt:
    """What of a submission is graded: code to run in order, answers to read, and flags.

    ``code`` holds ``(grade_id, source)``; setup and helper cells have ids that no answer has.
    ``written`` holds the answers a person grades, ``answers`` the sources as the student wrote them.
    """

    code: tuple[tuple[str, str], ...]
    answers: Mapping[str, str]
    written: Mapping[str, str]
    flags: tuple[str, ...] = ()
    empty: frozenset[str] = field(default_factory=frozenset)


def load(name: str, data: bytes) -> Master:
    """Read the released notebook of assignment ``name`` from its bytes.

    Raises ``ValueError`` when it has no answer cell.
    """
    notebook = parse(data)
    cells = []
    title = ""
    for position, cell in enumerate(notebook["cells"]):
        meta = _nbgrader(cell)
        source = _source(cell)
        if cell.get("cell_type") == "markdown" and not meta.get("solution"):
            heads = [line for line in source.splitlines() if line.startswith("#")]
            title = heads[-1].lstrip("# ") if heads else title
        if SETUP in _tags(cell):
            role = "setup"
        elif meta.get("solution") and meta.get("grade"):
            role = "question"
        elif meta.get("solution"):
            role = "answer"
        elif meta.get("grade"):
            role = "grade"
        else:
            role = "given"
        cell_id = str(meta.get("grade_id", f"given-{position}"))
        cells.append(Cell(cell_id, role, source, float(meta.get("points", 0) or 0), title))
    master = Master(name, tuple(cells))
    if not master.of("answer"):
        raise ValueError(
            f"the notebook of {name!r} has no answer cell: make it with 'course release {name}'"
        )
    return master


def parse(data: bytes) -> dict[str, Any]:
    """Read a notebook's JSON. Raises ``Rejected`` for anything that is not one, however large."""
    if len(data) > MAX_BYTES:
        raise Rejected(
            f"the file is {len(data) >> 20} MB large, and {MAX_BYTES >> 20} MB is the most: clear the "
            "outputs, save, and hand it in again"
        )
    if sum(data.count(token) for token in (b"[", b"{", b",")) > MAX_TOKENS:
        raise Rejected(
            "the file is too complex to be a notebook: clear the outputs and save it again"
        )
    try:
        notebook = json.loads(data)
    except (ValueError, RecursionError):
        raise Rejected(
            "the file is not a notebook: it is no valid JSON. Was it cut off, or saved as something "
            "else?"
        ) from None
    if not isinstance(notebook, dict):
        raise Rejected("the file is not a notebook: it holds no JSON object")
    if "cells" not in notebook and isinstance(notebook.get("worksheets"), list):
        # nbformat 3: cells lie in worksheets, and code in "input".
        sheets = [sheet for sheet in notebook["worksheets"] if isinstance(sheet, dict)]
        notebook["cells"] = [cell for sheet in sheets for cell in _list(sheet.get("cells"))]
    if not isinstance(notebook.get("cells"), list):
        raise Rejected("the file is not a notebook: it has no cells")
    notebook["cells"] = [cell for cell in notebook["cells"] if isinstance(cell, dict)]
    return notebook


def overlap(master: Master, notebook: Mapping[str, Any]) -> int:
    """Count the master's answer and grade cells that a notebook has."""
    return len(master.ids() & {_grade_id(cell) for cell in notebook["cells"]})


def rebuild(master: Master, notebook: Mapping[str, Any]) -> Rebuilt:
    """Put a submission's answers into the master. Never raises for what a student did to a cell.

    Raises ``Rejected`` when the notebook has none of the master's cells.
    """
    cells = notebook["cells"]
    if not overlap(master, notebook):
        raise Rejected(
            f"this is not the notebook of {master.name!r}: it has none of its cells. Download the "
            "assignment again and copy your answers into it"
        )
    flags = list(_flags(master, notebook))
    by_id = {cell.id: cell for cell in master.cells}
    found: dict[str, list[str]] = {}
    others: list[tuple[str | None, str]] = []  # the answer that follows in her notebook, and source
    waiting: list[str] = []
    for cell in cells:
        name, source = _grade_id(cell), _source(cell)
        known = by_id.get(name)
        if known is not None and known.role in ("answer", "question"):
            found.setdefault(name, []).append(source)
            if known.role == "answer":
                others += [(name, text) for text in waiting]
                waiting = []
        elif cell.get("cell_type") == "code" and not (
            known and known.role == "setup" and source.strip() == known.source.strip()
        ):
            waiting.append(source)
    others += [(None, text) for text in waiting]

    answers: dict[str, str] = {}
    empty: set[str] = set()
    for cell in master.of("answer") + master.of("question"):
        # A copy that nobody wrote in does not undo the one that has the answer.
        written = [text for text in found.get(cell.id, []) if text.strip() != cell.source.strip()]
        text = "\n\n".join(dict.fromkeys(written))
        if len(text) > MAX_SOURCE:
            flags.append(f"{cell.id}: an answer of {len(text):,} characters was not run")
            text = ""
        if not text:
            empty.add(cell.id)
        answers[cell.id] = text or cell.source

    asked = {cell.id for cell in master.of("answer")}
    helpers = list(_helpers(master, {name: answers[name] for name in asked}, others))
    if helpers:
        names = ", ".join(sorted({name for _, _, names in helpers for name in names}))
        flags.append(f"helpers taken from other cells: {names}")
    code: list[tuple[str, str]] = []
    for cell in master.cells:
        if cell.role == "setup":
            code.append((f"setup {cell.id}", cell.source))
        elif cell.role == "answer":
            code += [("helper", text) for before, text, _ in helpers if before == cell.id]
            code.append((cell.id, answers[cell.id]))
    code += [("helper", text) for before, text, _ in helpers if before is None]
    return Rebuilt(
        tuple(code),
        {name: answers[name] for name in asked},
        {cell.id: answers[cell.id] for cell in master.of("question")},
        tuple(flags),
        frozenset(empty),
    )


def _flags(master: Master, notebook: Mapping[str, Any]) -> Iterator[str]:
    """Say what a submission changed that was not its to change. None of it has any effect."""
    cells = notebook["cells"]
    counts = Counter(_grade_id(cell) for cell in cells if _nbgrader(cell))
    by_id = {cell.id: cell for cell in master.cells}
    for cell in master.cells:
        if cell.role != "given" and not counts[cell.id]:
            yield f"{cell.id}: the cell is missing"
    for name, count in counts.items():
        if count > 1 and name in by_id:
            yield f"{name}: it is there {count} times"
    for name in sorted(name for name in counts if name and name not in by_id):
        yield f"{name[:60]}: an id that the assignment does not have"
    for cell in cells:
        meta, known = _nbgrader(cell), by_id.get(_grade_id(cell))
        if known is None:
            continue
        changed = known.source.strip() != _source(cell).strip()
        if changed and known.role in ("setup", "grade"):
            yield f"{known.id}: a given cell was edited"
        if known.role in ("grade", "question") and meta.get("points") != known.points:
            yield f"{known.id}: its points were changed"
        roles = (bool(meta.get("grade")), bool(meta.get("solution")))
        expected = {
            "setup": (False, False),
            "answer": (False, True),
            "grade": (True, False),
            "question": (True, True),
        }
        if known.role in expected and roles != expected[known.role]:
            yield f"{known.id}: what kind of cell it is was changed"
        if meta.get("schema_version") != 3:
            yield f"{known.id}: its schema version was changed"
        if set(_tags(cell)) - {SETUP}:
            yield f"{known.id}: tags were added"
    metadata = notebook.get("metadata")
    kernel = metadata.get("kernelspec") if isinstance(metadata, dict) else None
    language = kernel.get("language", "python") if isinstance(kernel, dict) else "python"
    if language != "python":
        yield f"the notebook's language is {str(language)[:40]}"
    if notebook.get("nbformat") != 4:
        yield f"the notebook's format is {str(notebook.get('nbformat'))[:10]}"


def _helpers(
    master: Master, answers: Mapping[str, str], others: Iterable[tuple[str | None, str]]
) -> list[tuple[str | None, str, set[str]]]:
    """Find, in the student's other cells, the statements that define names her answers lack.

    Each comes with the answer cell it stands before, its text, and the names it brings.
    """
    bound = set(dir(builtins)) | {"get_ipython", "display"}
    wanted: set[str] = set()
    for source in [*answers.values(), *(cell.source for cell in master.of("setup"))]:
        tree = _tree(source)
        bound |= _binds(tree.body)
        wanted |= _uses(tree)
    wanted -= bound
    statements = [
        (before, node, _binds([node])) for before, text in others for node in _tree(text).body
    ]
    taken: set[int] = set()
    while new := {
        index
        for index, (_, _, names) in enumerate(statements)
        if names & wanted and index not in taken
    }:
        taken |= new
        for index in new:
            wanted |= _uses(ast.Module([statements[index][1]], [])) - bound
    return [
        (before, ast.unparse(node), names & wanted)
        for before, node, names in (statements[index] for index in sorted(taken))
    ]


def _tree(source: str) -> ast.Module:
    """Parse what can be parsed: without magics, and nothing where the rest is no Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        pass
    lines = [
        "" if line.lstrip().startswith(("%", "!", "?")) else line for line in source.splitlines()
    ]
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def _binds(body: Iterable[ast.stmt]) -> set[str]:
    """Return the names that statements define where they stand, not inside functions."""
    names: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
            continue
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
            continue
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                names |= _binds([child])
            elif isinstance(child, (ast.expr, ast.withitem, ast.ExceptHandler)):
                for inner in ast.walk(child):
                    if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                        names.add(inner.id)
    return names


def _uses(tree: ast.Module) -> set[str]:
    """Return the names that statements look for among the notebook's own."""
    try:
        tables = [symtable.symtable(ast.unparse(tree), "<cell>", "exec")]
    except (SyntaxError, ValueError, RecursionError):
        return set()
    names: set[str] = set()
    while tables:
        table = tables.pop()
        tables += table.get_children()
        top = table.get_type() == "module"
        names |= {
            symbol.get_name()
            for symbol in table.get_symbols()
            if symbol.is_referenced() and (top or symbol.is_global())
        }
    return names


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _nbgrader(cell: Mapping[str, Any]) -> dict[str, Any]:
    metadata = cell.get("metadata")
    found = metadata.get("nbgrader") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _grade_id(cell: Mapping[str, Any]) -> str:
    name = _nbgrader(cell).get("grade_id")
    return name if isinstance(name, str) else ""


def _tags(cell: Mapping[str, Any]) -> list[str]:
    metadata = cell.get("metadata")
    tags = metadata.get("tags") if isinstance(metadata, dict) else None
    return [tag for tag in _list(tags) if isinstance(tag, str)]


def _source(cell: Mapping[str, Any]) -> str:
    source = cell.get("source", cell.get("input", ""))
    if isinstance(source, list):
        source = "".join(piece for piece in source if isinstance(piece, str))
    # A lone surrogate, which JSON can spell, is no text that could be stored or compiled.
    return source.encode(errors="replace").decode() if isinstance(source, str) else ""
