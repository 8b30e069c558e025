"""A figure's JavaScript as one ES module: a page loads it as a file, Jupyter gets it as text.

The sources in js/ import each other by name. A widget's module cannot import (it has no address), so
what a figure needs is put one after the other, each once, behind what it imports; the imports then
go. The figure ``latent_explorer`` is the export ``latentExplorer`` of one of the sources.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from pathlib import Path

_FOLDER = Path(__file__).parent / "js"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w.]+)";\n', re.MULTILINE)
_FIGURE = re.compile(r"^export const (\w+) = \{\n(?:  //.*\n)*  page\b", re.MULTILINE)


@functools.cache
def _sources() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(_FOLDER.glob("*.mjs"))}


@functools.cache
def kinds() -> dict[str, tuple[str, str]]:
    """Return every figure there is: its kind, the source it is in, and its name there."""
    return {
        re.sub(r"[A-Z]", lambda capital: f"_{capital[0].lower()}", export): (source, export)
        for source, text in _sources().items()
        for export in _FIGURE.findall(text)
    }


@functools.cache
def module(*wanted: str) -> str:
    """Return the module of the figures ``wanted`` (default: all), without comments and indentation.

    Raises ``ValueError`` for a figure that no source has.
    """
    wanted = wanted or tuple(kinds())
    for kind in wanted:
        if kind not in kinds():
            raise ValueError(f"kind: expected one of {', '.join(kinds())}, got {kind!r}")
    done: list[str] = []
    parts = [f"const STYLE = {json.dumps((_FOLDER / 'style.css').read_text(encoding='utf-8'))};"]

    def add(source: str) -> None:
        if source in done:
            return
        done.append(source)
        text = _sources()[source]
        for needed in _IMPORT.findall(text):
            add(needed)
        text = re.sub(r"^export (?!default)", "", _IMPORT.sub("", text), flags=re.MULTILINE)
        lines = (line.strip() for line in text.splitlines())
        parts.extend(line for line in lines if line and not line.startswith("//"))

    for kind in wanted:
        add(kinds()[kind][0])
    table = ", ".join(f"{kind}: {kinds()[kind][1]}" for kind in wanted)
    parts.append(f"const FIGURES = {{ {table} }};")
    add("element.mjs")
    return "\n".join(parts) + "\n"


def name(kind: str) -> str:
    """Return the file name of a figure's module, which changes when the module does."""
    return f"{kind}.{hashlib.sha256(module(kind).encode()).hexdigest()[:12]}.mjs"
