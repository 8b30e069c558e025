"""What came out of grading: one file per result, found by the hash of all that made it.

A result is written whole or not at all and never changed. The log, one JSON object per line, only
grows; it says which result is a student's current one and which of them the gradebook has.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def write(path: Path, data: bytes) -> None:
    """Write a file whole, or leave what was there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


class Store:
    """The results and the log of one course directory."""

    def __init__(self, course: Path) -> None:
        self._results = course / "results"
        self._log = course / "log.jsonl"
        self._present = (
            {path.stem for path in self._results.glob("*.json")}
            if self._results.is_dir()
            else set()
        )

    def __contains__(self, key: str) -> bool:
        return key in self._present

    def get(self, key: str) -> dict[str, Any]:
        """Return the result stored under ``key``. Raises ``FileNotFoundError``."""
        found: dict[str, Any] = json.loads((self._results / f"{key}.json").read_bytes())
        return found

    def put(self, key: str, data: bytes) -> None:
        """Store a result under its key; what is already there stands."""
        if key not in self:
            write(self._results / f"{key}.json", data)
            self._present.add(key)

    def log(self, event: str, **facts: Any) -> None:
        """Add one line to the log."""
        line = json.dumps({"event": event, "time": f"{datetime.now(UTC):%FT%TZ}", **facts})
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as file:
            # A line that a killed grader left unfinished stays alone.
            lead = b"\n" if file.tell() and not self._ends() else b""
            file.write(lead + line.encode() + b"\n")

    def _ends(self) -> bool:
        with self._log.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what the log says, oldest first; a line cut off by a crash is passed over."""
        if not self._log.is_file():
            return
        with self._log.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event

    def current(self, event: str = "graded") -> dict[tuple[str, str], dict[str, Any]]:
        """Return the last ``event`` by ``(assignment, student)``."""
        return {
            (fact["assignment"], fact["student"]): fact
            for fact in self.events()
            if fact["event"] == event
        }

    def results(self, assignment: str | None = None) -> list[dict[str, Any]]:
        """Return everybody's current result, of one assignment or of all, by student."""
        facts: Mapping[tuple[str, str], dict[str, Any]] = self.current()
        return [
            self.get(fact["key"])
            for (name, _), fact in sorted(facts.items())
            if assignment in (None, name) and fact["key"] in self
        ]
