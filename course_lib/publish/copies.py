"""The reader's own copies of chapters and assignments: refreshed when they change, never overwritten."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_lib.publish import cache, chapters, site

if TYPE_CHECKING:
    from nbformat import NotebookNode

#: Remembers what each copy was when it was made, so that a changed one can be told apart.
RECORD = ".made.json"
#: Remembers what came out of each source, so that the same source is not converted again. To lose it
#: costs time and nothing else.
CONVERTED = ".converted.json"


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def refresh(folder: Path) -> Iterator[str]:
    """Write each executed chapter's notebook, and each assignment, into ``folder``; say what was done.

    A copy the reader has changed stays as it is; when its source has changed too, the new one is
    written beside it as ``<name>.new.ipynb``. A source that is as it was is not converted again.
    """
    made: dict[str, str] = _read(folder / RECORD)
    before: dict[str, list[str]] = _read(folder / CONVERTED)
    converted: dict[str, list[str]] = {}
    for name, state, convert in _sources():
        nb = None
        if before.get(name, [""])[0] != state:
            nb = convert()
            before[name] = [state, _hash(_text(nb))]
        converted[name] = before[name]
        new = before[name][1]
        path = folder / f"{name}.ipynb"
        own = path.is_file() and _hash_of(path) != made.get(name)
        if own and made.get(name) == new:
            yield f"{name}: your copy, kept"
        elif own:
            beside = path.with_suffix(".new.ipynb")
            if _hash_of(beside) != new:
                chapters.write(nb or convert(), beside)
            yield f"{name}: your copy, kept; its source has changed, see {name}.new.ipynb"
        elif _hash_of(path) == new:
            yield f"{name}: up to date"
            made[name] = new
        else:
            chapters.write(nb or convert(), path)
            yield f"{name}: written"
            made[name] = new
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / RECORD, made)
    _write(folder / CONVERTED, converted)


def _read(path: Path) -> Any:
    return json.loads(path.read_text()) if path.is_file() else {}


def _write(path: Path, content: Any) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(path)


def _text(nb: NotebookNode) -> str:
    """Return a notebook as ``chapters.write`` writes it."""
    import nbformat

    return str(nbformat.writes(nb, indent=1)) + "\n"


def _hash_of(path: Path) -> str:
    return _hash(path.read_text(encoding="utf-8")) if path.is_file() else ""


def _sources() -> Iterator[tuple[str, str, Callable[[], NotebookNode]]]:
    """Yield what to copy: the name of the copy, what its content depends on, and what converts it."""
    index, install = chapters.book_index(), site.requirement()
    shared = f"{index} {install} {cache.state()}"
    for page in chapters.chapters():
        if page.executed:
            text = page.path.read_text(encoding="utf-8")
            yield page.name, _hash(f"{shared} {text}"), partial(_chapter, page)
    for path in sorted(chapters.root().glob("assignments/*/*.ipynb")):
        text = path.read_text(encoding="utf-8")
        yield f"assignments/{path.stem}", _hash(f"{shared} {text}"), partial(_assignment, path)


def _chapter(page: chapters.Chapter) -> NotebookNode:
    return chapters.published(
        page,
        book=chapters.book_index(),
        values=cache.glued(page),
        install=site.requirement(),
    )


def _assignment(path: Path) -> NotebookNode:
    import nbformat

    nb: NotebookNode = nbformat.read(path, as_version=4)
    return nb
