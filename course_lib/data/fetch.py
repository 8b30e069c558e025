"""Bring the full data sets into one cache, each file verified by its SHA-256.

The cache is the user's cache folder, or the folder that the environment variable ``COURSE_DATA``
names.

Chapter: book/back/data.md
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock
from platformdirs import user_cache_path
from tqdm.auto import tqdm

from course_lib.data._download import FetchError, Report, SourceError, on_disk, write_atomically
from course_lib.data._sources import FULL_SETS, UNPACK_ERRORS, Download


def fetch(name: str, *, cache: Path | str | None = None, progress: bool = True) -> Path:
    """Bring the full data set ``name`` into the cache and return its folder there.

    Files that are there and whole are kept; a damaged one is replaced, with a warning. The sources
    are tried one after the other. A download that was cut goes on where it stopped, at the next
    call too. ``cache``: another folder than the usual; ``progress``: show a bar.

    Raises ``ValueError`` for a name that has no full set to fetch, ``FetchError`` when no source
    could give it, saying why of each, or when the disk cannot take it.
    """
    if name not in FULL_SETS:
        raise ValueError(f"name: expected one of {', '.join(FULL_SETS)}; got {name!r}")
    expected = FULL_SETS[name].sha256
    folder = _folder(name, cache)
    if not _lacking(folder, expected):
        return folder
    lock = FileLock(folder / ".lock")
    with on_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        for file, state in _lacking(folder, expected).items():
            if state == "damaged":
                warnings.warn(f"{folder / file} is damaged: fetching it again", stacklevel=2)
        refused: list[str] = []
        for source in FULL_SETS[name].sources:
            try:
                for download in source:
                    if _lacking(folder, {file: expected[file] for file in download.gives}):
                        _bring(download, folder, expected, progress)
            except SourceError as error:
                refused.append(f"  {download.locator}: {error}")
        if _lacking(folder, expected):
            raise FetchError(
                f"no source could give the full {name} data set:\n"
                + "\n".join(refused)
                + "\nWhat came so far is kept, and the same command goes on from there. Meanwhile "
                f"data.{name}() loads the sample in the package, which needs no network."
            )
        for part in folder.glob("*.part"):
            part.unlink()  # begun at a source that was not needed in the end
    finally:
        lock.release()
    return folder


def cached(name: str, file: str) -> Path:
    """Return where ``file`` of a full data set lies in the cache, after verifying it.

    Raises ``FetchError``, naming the command that brings it, when it is not there or damaged.
    """
    folder = _folder(name, None)
    state = _lacking(folder, {file: FULL_SETS[name].sha256[file]}).get(file)
    if state == "absent":
        raise FetchError(
            f"the full {name} data set is not in {folder}: run `course data fetch {name}`, or load "
            "the sample with full=False"
        )
    if state == "damaged":
        raise FetchError(
            f"{folder / file} is damaged (its SHA-256 is not the one on the card): run "
            f"`course data fetch {name}`, which replaces it"
        )
    return folder / file


def _folder(name: str, cache: Path | str | None) -> Path:
    root = cache or os.environ.get("COURSE_DATA") or user_cache_path("course-lib", appauthor=False)
    return Path(root).expanduser() / name


def _lacking(folder: Path, expected: Mapping[str, str]) -> dict[str, Literal["absent", "damaged"]]:
    """Return the files that are absent, or whose SHA-256 is not the one ``expected``."""
    lacking: dict[str, Literal["absent", "damaged"]] = {}
    for name, sha256 in expected.items():
        path = folder / name
        if not path.exists():
            lacking[name] = "absent"
        elif hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            lacking[name] = "damaged"
    return lacking


def _bring(download: Download, folder: Path, expected: Mapping[str, str], progress: bool) -> None:
    """Download, verify, and only then write the files that a download gives."""
    origin = hashlib.sha256(download.locator.encode()).hexdigest()[:8]
    part = folder / f"{download.gives[0]}.{origin}.part"  # parts of two mirrors must not mix
    while True:
        resumed = part.exists()
        with tqdm(desc=download.gives[0], unit="B", unit_scale=True, disable=not progress) as bar:
            download.get(download.locator, part, _shown_on(bar))
        try:
            contents = download.unpack(part)
            wrong = [n for n, c in contents.items() if hashlib.sha256(c).hexdigest() != expected[n]]
            reason = f"other content than the card's SHA-256 says: {', '.join(wrong)}"
        except UNPACK_ERRORS as error:
            with part.open("rb") as file:
                reason = f"not the file ({error}); it starts with {file.read(16)!r}"
            wrong = list(download.gives)
        part.unlink()
        if not wrong:
            break
        if not resumed:  # a part that was there before may be to blame: once more without it
            raise SourceError(reason)
    for name, content in contents.items():
        write_atomically(folder / name, content)


def _shown_on(bar: tqdm[Any]) -> Report:
    def report(done: int, total: int | None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return report
