"""What has been executed, kept until the code behind it changes.

MyST-NB's cache knows a chapter's code cells and nothing else: after a change in ``course_lib`` it
would serve the old outputs. So there is one cache per state of the package, in a folder named by a
digest of its files and of the locked requirements.
"""

from __future__ import annotations

import ast
import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from course_lib.publish.chapters import Chapter, root

if TYPE_CHECKING:
    from nbformat import NotebookNode

#: How many states of the package keep their outputs, so that switching branches costs nothing.
KEPT = 3


def digest(folder: Path | None = None) -> str:
    """Return a digest of everything in ``course_lib`` and of the locked requirements."""
    top = folder or root()
    package = top / "course_lib"
    files = [
        path
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    ]
    total = hashlib.sha256()
    for path in sorted([*files, top / "requirements.lock"]):
        if path.is_file():
            total.update(str(path.relative_to(top)).encode() + b"\0")
            total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def folder() -> Path:
    """Return today's cache folder, and drop those of states long gone."""
    base = root() / "_build" / ".executed"
    current = base / digest()
    current.mkdir(parents=True, exist_ok=True)
    current.touch()
    others = sorted(
        (path for path in base.iterdir() if path.is_dir() and path != current),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    for stale in others[KEPT - 1 :]:
        shutil.rmtree(stale, ignore_errors=True)
    return current


def state() -> str:
    """Return a text that changes with the package and with what has been executed, not when it is read."""
    current = folder()
    kept = sorted(current.glob("executed/*/base.ipynb"))
    times = [f"{path.parent.name} {path.stat().st_mtime_ns}" for path in kept]
    return "\n".join([current.name, *times])


def _open() -> Any:
    from jupyter_cache import get_cache

    return get_cache(folder())


def as_read_by_the_book(page: Chapter) -> NotebookNode:
    """Read a chapter exactly as MyST-NB will, so that what is stored is what it looks for."""
    from myst_nb.core.read import read_myst_markdown_notebook
    from myst_parser.config.main import MdParserConfig

    text = page.path.read_text(encoding="utf-8")
    nb: NotebookNode = read_myst_markdown_notebook(text, config=MdParserConfig(), path=page.path)
    return nb


def store(page: Chapter, outputs: list[list[NotebookNode]], seconds: float) -> None:
    """Keep one execution of a chapter: the outputs of each code cell, in order, and how long it took.

    Raises ``ValueError`` if there is not one list of outputs for each code cell.
    """
    from jupyter_cache.base import CacheBundleIn

    nb = as_read_by_the_book(page)
    cells = [cell for cell in nb.cells if cell.cell_type == "code"]
    if len(cells) != len(outputs):
        raise ValueError(f"outputs: expected {len(cells)}, one per code cell; got {len(outputs)}")
    for count, (cell, found) in enumerate(zip(cells, outputs, strict=True), start=1):
        cell.execution_count = count
        cell.outputs = found
    _open().cache_notebook_bundle(
        CacheBundleIn(nb, str(page.path), data={"execution_seconds": seconds}),
        check_validity=False,
        overwrite=True,
    )


def look_up(page: Chapter) -> tuple[NotebookNode, float] | None:
    """Return a chapter's executed notebook and its seconds, or ``None`` if it has not been run."""
    cache = _open()
    nb = as_read_by_the_book(page)
    try:
        record = cache.match_cache_notebook(nb)
    except KeyError:
        return None
    _, merged = cache.merge_match_into_notebook(nb)
    return merged, float(record.data.get("execution_seconds", 0.0))


def glued(page: Chapter) -> dict[str, object]:
    """Return the values that a chapter's cells glued when it was last run; empty if it was not."""
    found = look_up(page)
    values: dict[str, object] = {}
    for cell in found[0].cells if found else []:
        for output in cell.get("outputs", []):
            name = output.get("metadata", {}).get("scrapbook", {}).get("name")
            for mime, text in output.get("data", {}).items():
                if name and mime.endswith("text/plain"):
                    values[name] = ast.literal_eval(text)
    return values
