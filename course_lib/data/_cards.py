"""Data cards: where each data set comes from, whose it is, and what exactly is in the files.

One file per data set, ``cards/<name>.toml``. The tests hold every figure on a card against what is
loaded.

Chapter: book/back/data.md
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from types import MappingProxyType


@dataclass(frozen=True)
class Card:
    """What one data set is.

    ``shape``: of one example, without the batch; -1 where lengths differ. ``range``: lowest and
    highest value an example may hold, as loaded. ``splits``: examples per split. ``sha256``: of
    every embedded file; ``full_sha256``: of every file of the full set, as it lies in the cache.
    """

    name: str
    title: str
    summary: str
    source: str
    urls: tuple[str, ...]
    licence: str
    credit: str
    shape: tuple[int, ...]
    dtype: str
    range: tuple[float, float]
    splits: Mapping[str, int]
    sha256: Mapping[str, str]
    full_sha256: Mapping[str, str]
    changes: str
    limits: str

    def to_markdown(self) -> str:
        """Return the card as Markdown, for the book's page on data."""
        splits = ", ".join(f"{count:,} {name}" for name, count in self.splits.items())
        shape = " x ".join("any length" if n < 0 else str(n) for n in self.shape)
        low, high = self.range
        rows = [
            ("Source", self.source + "".join(f"<br><{url}>" for url in self.urls)),
            ("Licence", self.licence),
            ("Credit", self.credit),
            ("One example", f"{shape}, {self.dtype}, {low:g} to {high:g}"),
            ("Examples", splits or "as many as are asked for"),
            ("Changes made", self.changes),
            ("Known limits", self.limits),
        ]
        for title, hashes in (("SHA-256", self.sha256), ("SHA-256, full set", self.full_sha256)):
            if hashes:
                rows.append((title, "<br>".join(f"{n}: `{h}`" for n, h in hashes.items())))
        lines = [
            f"## {self.title}",
            "",
            self.summary,
            "",
            f"| Card | `data.card({self.name!r})` |",
            "|---|---|",
        ]
        lines += [f"| {head} | {' '.join(text.split())} |" for head, text in rows]
        return "\n".join(lines) + "\n"


def cards() -> tuple[Card, ...]:
    """Return every card, in alphabetical order of the data sets' names."""
    return tuple(_cards().values())


def card(name: str) -> Card:
    """Return the card of the data set ``name``.

    Raises ``ValueError``, listing the known names, when there is none.
    """
    known = _cards()
    if name not in known:
        raise ValueError(f"name: expected one of {', '.join(known)}; got {name!r}")
    return known[name]


@cache
def _cards() -> Mapping[str, Card]:
    folder = files(__package__).joinpath("cards")
    found = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): _parse(f.name, f.read_text("utf-8")) for f in found}


def _parse(file: str, text: str) -> Card:
    """Read a card and see that it has every field and no other."""
    table = tomllib.loads(text)
    expected, got = {f.name for f in fields(Card)}, set(table)
    if expected != got:
        raise ValueError(f"cards/{file}: fields missing or unknown: {sorted(expected ^ got)}")
    low, high = table["range"]
    return Card(
        name=table["name"],
        title=table["title"],
        summary=table["summary"].strip(),
        source=table["source"].strip(),
        urls=tuple(table["urls"]),
        licence=table["licence"].strip(),
        credit=table["credit"].strip(),
        shape=tuple(table["shape"]),
        dtype=table["dtype"],
        range=(float(low), float(high)),
        splits=MappingProxyType(table["splits"]),
        sha256=MappingProxyType(table["sha256"]),
        full_sha256=MappingProxyType(table["full_sha256"]),
        changes=table["changes"].strip(),
        limits=table["limits"].strip(),
    )
