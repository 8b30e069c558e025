"""The chapters: found from the table of contents, converted from MyST text to notebooks.

The text is the only source. A notebook is made from it for nbval (``notebook``) and for readers
(``published``), with cell ids that depend on the text alone, so that a rebuild is byte for byte the
same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from course_lib.publish.plain import Book, plain

if TYPE_CHECKING:
    # It takes seconds to import, and a second 'course lab' has nothing to convert.
    from nbformat import NotebookNode

#: The tag of a cell whose printed text must come out again; ``expect`` beside it holds that text.
CHECKED = "checked"
#: What nbval looks for on such a cell.
NBVAL_CHECK = "nbval-check-output"


@dataclass(frozen=True)
class Chapter:
    """A page of the book: ``name`` as in the table of contents (``represent/pca``), and its file."""

    name: str
    path: Path
    title: str
    executed: bool


def root() -> Path:
    """Return the folder that holds ``book/``: the checkout this package is imported from.

    Raises ``ValueError`` when the package runs from somewhere else, e.g. an installed wheel.
    """
    folder = Path(__file__).resolve().parents[2]
    if not (folder / "book" / "_toc.yml").is_file():
        raise ValueError(
            f"no book/_toc.yml in {folder}: building the book needs a checkout of the repository "
            "with the package installed from it (make book does both)"
        )
    return folder


def chapters(folder: Path | None = None) -> list[Chapter]:
    """Return the pages in reading order, as the table of contents in ``folder/book`` has them.

    Raises ``ValueError`` for a page that is listed and does not exist.
    """
    book = (folder or root()) / "book"
    contents = yaml.safe_load((book / "_toc.yml").read_text(encoding="utf-8"))
    names = [contents["root"]]
    for part in contents.get("parts", []):
        names += [entry["file"] for entry in part["chapters"]]
    found = []
    for name in names:
        path = book / f"{name}.md"
        if not path.is_file():
            raise ValueError(f"book/_toc.yml lists {name!r}, but there is no book/{name}.md")
        text = path.read_text(encoding="utf-8")
        heading = re.search(r"^# (.+)$", text, re.MULTILINE)
        found.append(
            Chapter(name, path, heading[1].strip() if heading else name, "{code-cell}" in text)
        )
    return found


def chapter(name: str, folder: Path | None = None) -> Chapter:
    """Return the one chapter called ``name``: its path, or the last part of it.

    Raises ``ValueError`` that lists the chapters if there is none.
    """
    wanted = name.removeprefix("book/").removesuffix(".md").removesuffix(".ipynb")
    pages = chapters(folder)
    for page in pages:
        if wanted in (page.name, page.name.split("/")[-1]):
            return page
    raise ValueError(f"no chapter {name!r}; there are {', '.join(page.name for page in pages)}")


def notebook(page: Chapter) -> NotebookNode:
    """Convert a chapter's text to the notebook that nbval runs.

    Every cell has a stable id. A cell tagged ``checked`` gets its ``expect`` text as stored output
    and an execution count, because nbval passes a checked cell that has neither.

    Raises ``ValueError`` for a checked cell with nothing to compare, and for text to compare on a
    cell that is not checked.
    """
    import jupytext
    import nbformat

    nb: NotebookNode = jupytext.reads(page.path.read_text(encoding="utf-8"), fmt="md:myst")
    nb.nbformat, nb.nbformat_minor = 4, 5
    nb.metadata = nbformat.NotebookNode({"kernelspec": nb.metadata["kernelspec"]})
    for position, cell in enumerate(nb.cells):
        cell["id"] = hashlib.sha256(f"{page.name}:{position}".encode()).hexdigest()[:12]
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        expect = str(cell.metadata.get("expect", "")).strip()
        if (CHECKED in tags) != bool(expect):
            raise ValueError(
                f"book/{page.name}.md, cell {position}: the tag {CHECKED!r} and a text to 'expect' "
                f"go together, got tags {tags} and expect {expect!r}:\n{cell.source}"
            )
        if expect:
            cell.metadata["tags"] = [*tags, NBVAL_CHECK]
            cell.execution_count = 1
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=expect + "\n")]
    return nb


def published(
    page: Chapter, *, book: Book, values: Mapping[str, object], install: str
) -> NotebookNode:
    """Convert a chapter to the notebook that readers download: plain Markdown, set up to run.

    Its first code cell installs the package where it is missing, with the requirement ``install``.
    """
    import nbformat

    nb = notebook(page)
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            cell.source = plain(cell.source, book=book, folder=page.path.parent, values=values)
    setup = nbformat.v4.new_code_cell(
        "# Install the course's package where it is missing (on Colab, for example).\n"
        "try:\n"
        "    import course_lib\n"
        "except ModuleNotFoundError:\n"
        f"    %pip install --quiet {install!r}\n"
        "    import course_lib"
    )
    setup["id"] = hashlib.sha256(f"{page.name}:setup".encode()).hexdigest()[:12]
    first = next(i for i, cell in enumerate(nb.cells) if cell.cell_type == "code")
    nb.cells.insert(first, setup)
    nb.metadata["language_info"] = nbformat.NotebookNode({"name": "python"})
    return nb


def write(nb: NotebookNode, path: Path) -> bool:
    """Write a notebook if its bytes differ from what is there, and say whether it did."""
    import nbformat

    nbformat.validate(nb)
    content = nbformat.writes(nb, indent=1) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(path)
    return True


def convert(folder: Path) -> list[Path]:
    """Write the notebook of every executed chapter below ``folder`` and remove those of no chapter."""
    paths = []
    for page in chapters():
        if page.executed:
            path = folder / f"{page.name}.ipynb"
            write(notebook(page), path)
            paths.append(path)
    for stale in set(folder.rglob("*.ipynb")) - set(paths):
        stale.unlink()
    return paths


@cache
def book_index() -> Book:
    """Collect the titles and references that the chapters' plain text needs."""
    titles: dict[str, str] = {}
    for page in chapters():
        text = page.path.read_text(encoding="utf-8")
        titles[page.name] = titles[page.name.split("/")[-1]] = page.title
        for match in re.finditer(r"^\(([\w:.-]+)\)=\s*\n+#+ (.+)$", text, re.MULTILINE):
            titles[match[1]] = match[2].strip()
        for match in re.finditer(r"\{exercise\}[ \t]*(.*)\n\s*:label: ([\w:.-]+)", text):
            titles[match[2]] = match[1].strip() or "Exercise"
    return Book(titles=titles, references=_references(root() / "book" / "references.bib"))


def _references(path: Path) -> dict[str, str]:
    from pybtex.database import parse_file

    found = {}
    for key, entry in parse_file(str(path)).entries.items():
        people = [
            " ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]
        ]
        authors = people[0] if len(people) == 1 else f"{people[0]} et al."
        if len(people) == 2:
            authors = " and ".join(people)
        found[key] = (
            f"{authors.replace('{', '').replace('}', '')}, {entry.fields.get('year', 'n.d.')}"
        )
    return found
