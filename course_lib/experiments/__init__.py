"""Tables made of many small trainings, run once by ``course bench NAME`` and read by the chapters.

An experiment is a module with ``cells()``, a list of settings (one dictionary per row), and
``measure(**cell)``, which runs one and returns its numbers. ``run`` does what is missing, in a process
per core, and keeps every row as soon as it is there, so that nothing is lost when it is cut short.
A measurement of many minutes takes ``keep``, the path of a file of its own: what it wrote there is still
there when it is called again after a cut, and goes when its row is kept. What it returns as
``cpu_seconds`` and ``machine`` is then recorded in place of what was seen from outside.

Chapter: book/generate/failing.md
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import math
import multiprocessing
import os
import pkgutil
import platform
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeAlias

from course_lib import __version__

Value: TypeAlias = str | int | float | bool
Cell: TypeAlias = Mapping[str, Value]

#: Where the recorded rows lie that ship with the course; ``COURSE_EXPERIMENTS`` names another folder
#: that is looked in first, which is where ``course bench`` writes.
SHIPPED = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all experiments, with dashes, as ``course bench`` takes them."""
    return sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__))


def load(name: str, *, partial: bool = False) -> list[dict[str, Any]]:
    """Return the recorded rows of the experiment ``name``, in the order of its cells.

    A row is one dictionary: the cell's settings, what was measured, and ``cpu_seconds``, ``machine``
    and ``versions``. ``partial``: return the rows that there are, even if others are missing.

    Raises ``ValueError`` for an unknown name, for rows that cannot be read, and, unless ``partial``,
    for rows that are missing.
    """
    cells = _cells(name)
    own = os.environ.get("COURSE_EXPERIMENTS")
    paths = [*([Path(own) / f"{name}.jsonl"] if own else []), SHIPPED / f"{name}.jsonl"]
    path = next((path for path in paths if path.is_file()), paths[-1])
    rows = _read(path)
    missing = [cell for cell in cells if _key(cell) not in rows]
    if missing and not partial:
        raise ValueError(
            f"{path.name}: {len(missing)} of {len(cells)} rows are missing, the first is "
            f"{dict(missing[0])}; run: course bench {name}"
        )
    return [
        {
            **row["cell"],
            **{key: math.nan if value is None else value for key, value in row["result"].items()},
            "cpu_seconds": row["cpu_seconds"],
            "machine": row["machine"],
            "versions": row["versions"],
        }
        for row in (rows[_key(cell)] for cell in cells if _key(cell) in rows)
    ]


def run(
    name: str, folder: Path, *, workers: int = 1, fresh: bool = False
) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """Measure the cells of ``name`` that ``folder`` has no row of; yield each row when it is kept.

    A yield is (rows kept, rows in all, the row), the first one with an empty row. ``workers``: how many
    processes, one thread each; ``fresh``: measure all cells anew.

    Raises ``ValueError`` for an unknown name, ``workers`` below 1 or rows that cannot be read, and
    ``RuntimeError``, naming the cell, for a measurement that failed; the rows before it are kept.
    """
    cells = _cells(name)
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    path = folder / f"{name}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    kept = {_key(cell): _kept_path(folder, name, cell) for cell in cells}
    if fresh:
        for file in (path, *kept.values()):
            file.unlink(missing_ok=True)
    rows = _read(path)
    todo = [cell for cell in cells if _key(cell) not in rows]
    yield len(cells) - len(todo), len(cells), {}
    # A fresh interpreter each: threads of a library do not survive a fork.
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, max(1, len(todo))), spawn) as pool:
        running: dict[Future[dict[str, Any]], Cell] = {}
        try:
            while todo or running:
                while todo and len(running) < workers:
                    cell = todo.pop(0)
                    running[pool.submit(_measure, name, dict(cell), kept[_key(cell)])] = cell
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = running.pop(future)
                    try:
                        row = future.result()
                    except Exception as error:
                        raise RuntimeError(f"{name}, {dict(cell)}: {error}") from error
                    rows[_key(cell)] = row
                    _write(path, [rows[_key(c)] for c in cells if _key(c) in rows])
                    kept[_key(cell)].unlink(missing_ok=True)
                    yield sum(_key(c) in rows for c in cells), len(cells), row
        finally:
            for future in running:
                future.cancel()
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                if running:
                    process.terminate()


def _cells(name: str) -> list[Cell]:
    if name not in names():
        raise ValueError(f"name: no experiment {name!r}; there are {', '.join(names())}")
    cells: list[Cell] = _module(name).cells()
    return cells


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def _key(cell: Cell) -> str:
    return json.dumps(dict(cell), sort_keys=True)


def _kept_path(folder: Path, name: str, cell: Cell) -> Path:
    """Return where the measurement of this cell keeps its state: one that was changed is another."""
    text = Path(_module(name).__file__).read_bytes() + _key(cell).encode()
    return folder / f".{name}-{hashlib.sha256(text).hexdigest()[:12]}.state"


def _measure(name: str, cell: dict[str, Value], kept: Path) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    measure = _module(name).measure
    more = {"keep": kept} if "keep" in inspect.signature(measure).parameters else {}
    began = time.process_time()
    result = dict(measure(**cell, **more))
    seconds = float(result.pop("cpu_seconds", time.process_time() - began))
    machine = result.pop("machine", f"{platform.machine()} CPU, 1 thread")
    return {
        "cell": cell,
        # JSON has no NaN.
        "result": {k: None if v != v else v for k, v in result.items()},
        "cpu_seconds": round(seconds, 2),
        "machine": machine,
        "versions": {
            "course_lib": __version__,
            "torch": torch.__version__.split("+")[0],
            "python": platform.python_version(),
        },
    }


def _read(path: Path) -> dict[str, dict[str, Any]]:
    rows = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[_key(row["cell"])] = row
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no row of an experiment: {error}") from error
    return rows


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace the file as a whole, so that a kill leaves the old rows or the new ones."""
    text = "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    temporary = path.with_suffix(".part")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
