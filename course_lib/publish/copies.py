"""The reader's own copies of chapters and assignments: refreshed when they change, never overwritten."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course_lib.publish import cache, chapters, site

#: Remembers what each copy was when it was made, so that a changed one can be told apart.
RECORD = ".made.json"


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def refresh(folder: Path) -> Iterator[str]:
    """Write each executed chapter's notebook, and each assignment, into ``folder``; say what was done.

    A copy the reader has changed stays as it is; when its source has changed too, the new one is
    written beside it as ``<name>.new.ipynb``.
    """
    record_path = folder / RECORD
    made: dict[str, str] = json.loads(record_path.read_text()) if record_path.is_file() else {}
    for name, nb in _sources():
        content = nbformat.writes(nb, indent=1) + "\n"
        path = folder / f"{name}.ipynb"
        own = path.is_file() and _hash(path.read_text(encoding="utf-8")) != made.get(name)
        if own and made.get(name) == _hash(content):
            yield f"{name}: your copy, kept"
        elif own:
            chapters.write(nb, path.with_suffix(".new.ipynb"))
            yield f"{name}: your copy, kept; its source has changed, see {name}.new.ipynb"
        else:
            yield f"{name}: {'written' if chapters.write(nb, path) else 'up to date'}"
            made[name] = _hash(content)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = record_path.with_suffix(".part")
    temporary.write_text(json.dumps(made, indent=1) + "\n")
    temporary.replace(record_path)


def _sources() -> Iterator[tuple[str, NotebookNode]]:
    """Yield the notebooks to copy, by the name of their copy."""
    index = chapters.book_index()
    for page in chapters.chapters():
        if page.executed:
            values, install = cache.glued(page), site.requirement()
            yield page.name, chapters.published(page, book=index, values=values, install=install)
    for path in sorted(chapters.root().glob("assignments/*/*.ipynb")):
        yield f"assignments/{path.stem}", nbformat.read(path, as_version=4)
