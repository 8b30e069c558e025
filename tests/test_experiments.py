"""Tables of many trainings: nothing measured is lost, nothing is measured twice, nothing is made up."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from course_lib import experiments

TOY = """
import os, pathlib, sys

def cells():
    return [{"a": a, "seed": seed} for a in ("x", "y") for seed in range(3)]

def measure(a, seed):
    log = pathlib.Path(os.environ["TOY_LOG"])
    with open(log, "a") as file:
        file.write(f"{a}{seed} {os.getpid()}\\n")
    if os.environ.get("TOY_BREAKS") == f"{a}{seed}":
        raise ArithmeticError("it broke")
    return {"square": seed**2, "nothing": float("nan")}
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An experiment called toy, which worker processes can import too; returns its log."""
    (tmp_path / "toys").mkdir()
    (tmp_path / "toys" / "toy.py").write_text(TOY)
    extend = f"import course_lib.experiments as e; e.__path__.append({str(tmp_path / 'toys')!r})\n"
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "sitecustomize.py").write_text(extend)
    root = Path(experiments.__file__).parents[2]
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'start'}:{root}")
    monkeypatch.setattr(experiments, "__path__", [*experiments.__path__, str(tmp_path / "toys")])
    log = tmp_path / "log"
    log.touch()
    monkeypatch.setenv("TOY_LOG", str(log))
    return log


def measured(log: Path) -> list[str]:
    return sorted(line.split()[0] for line in log.read_text().splitlines())


def test_every_cell_is_measured_once_in_processes_of_their_own(toy: Path, tmp_path: Path) -> None:
    told = list(experiments.run("toy", tmp_path / "out", workers=2))
    assert [(done, total) for done, total, _ in told] == [(i, 6) for i in range(7)]
    assert measured(toy) == ["x0", "x1", "x2", "y0", "y1", "y2"]
    assert len({line.split()[1] for line in toy.read_text().splitlines()}) == 2
    assert [done for done, _, _ in experiments.run("toy", tmp_path / "out")] == [6]
    assert len(measured(toy)) == 6
    list(experiments.run("toy", tmp_path / "out", fresh=True))
    assert len(measured(toy)) == 12


def test_rows_come_back_in_the_order_of_the_cells(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(experiments.run("toy", tmp_path, workers=2))
    monkeypatch.setenv("COURSE_EXPERIMENTS", str(tmp_path))
    rows = experiments.load("toy")
    assert [(row["a"], row["seed"], row["square"]) for row in rows] == [
        (a, seed, seed**2) for a in ("x", "y") for seed in range(3)
    ]
    assert all(math.isnan(row["nothing"]) and row["cpu_seconds"] >= 0 for row in rows)
    assert all(row["versions"]["torch"] and row["machine"] for row in rows)


def test_a_failure_names_its_cell_and_loses_nothing(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_BREAKS", "y1")
    with pytest.raises(RuntimeError, match=r"toy, \{'a': 'y', 'seed': 1\}: it broke"):
        list(experiments.run("toy", tmp_path))
    kept = (tmp_path / "toy.jsonl").read_text().splitlines()
    assert len(kept) == 4
    monkeypatch.setenv("COURSE_EXPERIMENTS", str(tmp_path))
    with pytest.raises(ValueError, match="2 of 6 rows are missing.*run: course bench toy"):
        experiments.load("toy")
    monkeypatch.delenv("TOY_BREAKS")
    assert [done for done, _, _ in experiments.run("toy", tmp_path)] == [4, 5, 6]
    assert (tmp_path / "toy.jsonl").read_text().splitlines()[:4] == kept
    assert not list(tmp_path.glob("*.part"))


def test_wrong_arguments_and_broken_rows_are_named(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no experiment 'gold'; there are .*toy"):
        experiments.load("gold")
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        next(experiments.run("toy", tmp_path, workers=0))
    (tmp_path / "toy.jsonl").write_text('{"cell": {"a": "x"\n')
    with pytest.raises(ValueError, match="toy.jsonl, line 1: no row of an experiment"):
        next(experiments.run("toy", tmp_path))


@pytest.mark.parametrize(
    "path", sorted(experiments.SHIPPED.glob("*.jsonl")), ids=lambda path: path.stem
)
def test_shipped_rows_are_those_of_the_experiments_cells(path: Path) -> None:
    cells = [json.dumps(row["cell"]) for row in map(json.loads, path.read_text().splitlines())]
    assert len(set(cells)) == len(cells)
    assert len(experiments.load(path.stem)) == len(cells)  # no row missing, none left over
