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
import itertools
import json
import re
import symtable
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

#: The tag of the master's cells that run before the answers: imports.
SETUP = "setup"
#: The most that a notebook may weigh, and the most brackets, braces and commas it may have: outputs
#: may be large, but a file that takes gigabytes to parse is not a notebook.
MAX_BYTES, MAX_TOKENS = 100 << 20, 3_000_000
#: The longest answer that is run, and the most of all other cells that is searched for helpers.
MAX_SOURCE, MAX_STATEMENTS = 200_000, 2_000


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
    lengths = itertools.accumulate(len(text) for _, text in others)
    kept = [other for other, length in zip(others, lengths, strict=True) if length <= MAX_SOURCE]
    if len(kept) < len(others):
        flags.append("other cells are very long: helpers were looked for in the first of them only")

    answers: dict[str, str] = {}
    copies: dict[str, list[str]] = {}
    empty: set[str] = set()
    for cell in master.of("answer") + master.of("question"):
        # A copy that nobody wrote in does not undo the one that has the answer.
        written = [text for text in found.get(cell.id, []) if text.strip() != cell.source.strip()]
        copies[cell.id] = list(dict.fromkeys(written)) or [cell.source]
        text = "\n\n".join(copies[cell.id]) if written else ""
        if len(text) > MAX_SOURCE:
            flags.append(f"{cell.id}: an answer of {len(text):,} characters was not run")
            text, copies[cell.id] = "", [cell.source]
        if not text:
            empty.add(cell.id)
        answers[cell.id] = text or cell.source

    asked = {cell.id for cell in master.of("answer")}
    helpers = _helpers(master, [text for name in asked for text in copies[name]], kept)
    if helpers:
        names = sorted({name for _, _, names in helpers for name in names})
        flags.append(f"helpers taken from other cells: {_some(names)}")
    code: list[tuple[str, str]] = []
    for cell in master.cells:
        if cell.role == "setup":
            code.append((f"setup {cell.id}", cell.source))
        elif cell.role == "answer":
            code += [("helper", text) for before, text, _ in helpers if before == cell.id]
            code += [(cell.id, text) for text in copies[cell.id]]
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
    foreign = sorted(name for name in counts if name and name not in by_id)
    if foreign:
        yield f"ids that the assignment does not have: {_some(foreign)}"
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


def _some(names: Sequence[str]) -> str:
    """Return the first of some names, as text that is safe to show."""
    told = ", ".join(name[:60] if name.isidentifier() else ascii(name[:60]) for name in names[:10])
    return told + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")


class _Statement(NamedTuple):
    """A statement of a cell that is no answer: the answer it stands before, and what it does."""

    before: str | None
    text: str
    binds: set[str]
    changes: set[str]


def _helpers(
    master: Master, answers: Sequence[str], others: Iterable[tuple[str | None, str]]
) -> list[tuple[str | None, str, set[str]]]:
    """Find, in the student's other cells, the statements that define names her answers lack.

    Each comes with the answer cell it stands before, its text, and the names it brings.
    """
    bound = set(dir(builtins)) | {"get_ipython", "display", "In", "Out", "_", "__", "___"}
    wanted: set[str] = set()
    for source in [*answers, *(cell.source for cell in master.of("setup"))]:
        plain, tree = _tree(source)
        bound |= _binds(tree)
        wanted |= _uses(plain)
    wanted -= bound
    if not wanted:
        return []
    statements = list(itertools.islice(_statements(others), MAX_STATEMENTS))
    by_name: dict[str, list[int]] = {}
    for index, statement in enumerate(statements):
        for name in statement.binds | statement.changes:
            by_name.setdefault(name, []).append(index)
    taken: set[int] = set()
    new = set(wanted)
    while new:
        name = new.pop()
        found = by_name.get(name, [])
        if any(name in statements[index].binds for index in found):
            for index in set(found) - taken:
                taken.add(index)
                more = _uses(statements[index].text) - bound - wanted
                wanted |= more
                new |= more
    if wanted - {name for index in taken for name in statements[index].binds}:
        taken |= set(by_name.get("*", []))  # what a star brings is not known here
    return [
        (statements[index].before, statements[index].text, statements[index].binds & wanted)
        for index in sorted(taken)
    ]


def _statements(others: Iterable[tuple[str | None, str]]) -> Iterator[_Statement]:
    for before, source in others:
        plain, tree = _tree(source)
        lines = plain.splitlines(True)
        for node in tree.body:
            binds, changes = _binds(node), _changes(node)
            if binds or changes:
                first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
                text = "".join(lines[first - 1 : node.end_lineno])
                # Whole lines: what else stands on them belongs to it.
                yield _Statement(before, textwrap.dedent(text), binds, changes)


def _tree(source: str) -> tuple[str, ast.Module]:
    """Parse a cell, without magics where there are any; nothing where that is no Python."""
    for read in (str, _without_magic):
        try:
            plain = read(source)
            flags = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
            return plain, compile(plain, "<cell>", "exec", flags, dont_inherit=True)
        except Exception:  # a student's text may break any parser in any way
            continue
    return "", ast.Module([], [])


# "%time f()", "!ls", "?f" and "f?", but not "% x" and "!= x", which go on with the line before.
_MAGIC = re.compile(r"%{1,2}[^\W\d]|!(?!=)|\?|%{0,2}[\w.*]++\?{1,2}$")


def _without_magic(source: str) -> str:
    """Return a cell with Python in place of the lines that only IPython reads.

    IPython itself would take the whole cell apart once for every such line, and some lines in a time
    that grows with the square of their length: it has no place in a process without a time limit.
    """
    lines = []
    goes_on = False
    for line in textwrap.dedent(source).splitlines(True):
        bare = line.strip()
        target, equals, value = line.partition("=")
        value = value.strip()
        if goes_on:
            line = "\n"
        elif _MAGIC.match(bare):
            line = line[: len(line) - len(line.lstrip())] + "pass\n"
        elif equals and value.startswith(("!", "%")):  # files = !ls
            line = f"{target}= {[] if value.startswith('!') else None}\n"
        else:
            bare = ""
        goes_on = bare.endswith("\\")
        lines.append(line)
    return "".join(lines)


_SCOPES = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda,
    ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp,
)  # fmt: skip


def _binds(tree: ast.AST) -> set[str]:
    """Return the names that code defines where it stands, not inside functions."""
    names: set[str] = set()
    nodes = [tree]
    while nodes:  # not recursive: a thousand elifs lie within each other
        node = nodes.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, (ast.MatchAs, ast.MatchStar, ast.ExceptHandler)) and node.name:
            names.add(node.name)
        if not isinstance(node, _SCOPES):
            nodes += ast.iter_child_nodes(node)
    return names


def _changes(node: ast.stmt) -> set[str]:
    """Return the names whose values a statement fills: ``table["a"] = 1`` and ``rows.append(1)``."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
        targets = [node.target]
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        targets = [node.value.func]
    names = set()
    for target in targets:
        inside = False
        while isinstance(target, (ast.Attribute, ast.Subscript)):
            target, inside = target.value, True
        if inside and isinstance(target, ast.Name):
            names.add(target.id)
    return names


def _uses(source: str) -> set[str]:
    """Return the names that code looks for among the notebook's own."""
    try:
        tables = [symtable.symtable(source, "<cell>", "exec")]
    except Exception:  # an await outside functions, or what no parser likes
        return {
            node.id
            for node in ast.walk(_tree(source)[1])
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        }
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
