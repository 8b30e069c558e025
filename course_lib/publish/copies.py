"""The reader's own copies of the chapters: refreshed when the book changes, never overwritten."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import nbformat

from course_lib.publish import cache, chapters, site

#: Remembers what each copy was when it was made, so that a changed one can be told apart.
RECORD = ".made.json"


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()


def refresh(folder: Path) -> Iterator[str]:
    """Write each executed chapter's notebook into ``folder``, and say what was done.

    A copy the reader has changed stays as it is; when the chapter has changed too, the new one is
    written beside it as ``<name>.new.ipynb``.
    """
    record_path = folder / RECORD
    made: dict[str, str] = json.loads(record_path.read_text()) if record_path.is_file() else {}
    index = chapters.book_index()
    for page in chapters.chapters():
        if not page.executed:
            continue
        nb = chapters.published(
            page, book=index, values=cache.glued(page), install=site.requirement()
        )
        content = nbformat.writes(nb, indent=1) + "\n"
        path = folder / f"{page.name}.ipynb"
        own = path.is_file() and _hash(path.read_text(encoding="utf-8")) != made.get(page.name)
        if own and made.get(page.name) == _hash(content):
            yield f"{page.name}: your copy, kept"
        elif own:
            chapters.write(nb, path.with_suffix(".new.ipynb"))
            yield f"{page.name}: your copy, kept; the chapter has changed, see {page.name}.new.ipynb"
        else:
            yield f"{page.name}: {'written' if chapters.write(nb, path) else 'up to date'}"
            made[page.name] = _hash(content)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = record_path.with_suffix(".part")
    temporary.write_text(json.dumps(made, indent=1) + "\n")
    temporary.replace(record_path)
