"""Tables of many trainings: nothing measured is lost, nothing is measured twice, nothing is made up."""

from __future__ import annotations

import base64
import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from course_lib import data, experiments
from course_lib.attacks import networks
from course_lib.experiments import dfal

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


#: Counts to five, and may be cut at each number.
COUNTING = """
import os, pathlib, sys

def cells():
    return [{"a": "x", "seed": seed} for seed in range(2)]

def measure(a, seed, keep):
    count = int(keep.read_text()) if keep.is_file() else 0
    while count < 5:
        count += 1
        keep.write_text(str(count))
        with open(os.environ["TOY_LOG"], "a") as file:
            file.write(f"{a}{seed}:{count} {os.getpid()}\\n")
        if os.environ.get("TOY_BREAKS") == f"{a}{seed}:{count}":
            raise ArithmeticError("cut")
    return {"count": count, "cpu_seconds": 12.5, "machine": "an abacus"}
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
    for name in ("toy", "counting"):  # another test's, from another folder
        monkeypatch.delitem(sys.modules, f"course_lib.experiments.{name}", raising=False)
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


def test_a_cut_measurement_goes_on_where_it_was(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "toys" / "counting.py").write_text(COUNTING)
    out = tmp_path / "out"
    monkeypatch.setenv("TOY_BREAKS", "x1:3")
    with pytest.raises(RuntimeError, match=r"'seed': 1\}: cut"):
        list(experiments.run("counting", out))
    assert len(list(out.glob(".counting-*.state"))) == 1  # that of the finished row is gone
    monkeypatch.setenv("COURSE_EXPERIMENTS", str(out))
    with pytest.raises(ValueError, match="1 of 2 rows are missing"):
        experiments.load("counting")
    assert [row["seed"] for row in experiments.load("counting", partial=True)] == [0]
    monkeypatch.delenv("TOY_BREAKS")
    list(experiments.run("counting", out))
    assert measured(toy) == [f"x{seed}:{count}" for seed in range(2) for count in range(1, 6)]
    assert not list(out.glob(".*"))
    rows = experiments.load("counting")
    assert rows == experiments.load("counting", partial=True)
    assert [row["count"] for row in rows] == [5, 5]
    # What the measurement says of itself, of all its parts together.
    assert all(row["cpu_seconds"] == 12.5 and row["machine"] == "an abacus" for row in rows)


def test_to_begin_anew_forgets_what_was_kept_and_so_does_a_changed_experiment(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "toys" / "counting.py", tmp_path / "out"
    source.write_text(COUNTING)
    monkeypatch.setenv("TOY_BREAKS", "x0:2")
    for change in ("fresh", "edit"):
        with pytest.raises(RuntimeError, match="cut"):
            list(experiments.run("counting", out))
        toy.write_text("")
        if change == "edit":
            source.write_text(COUNTING + "#")
        with pytest.raises(RuntimeError, match="cut"):
            list(experiments.run("counting", out, fresh=change == "fresh"))
        assert measured(toy) == ["x0:1", "x0:2"]
        for file in out.glob(".counting-*.state"):
            file.unlink()


def test_no_row_at_all_is_a_table_that_has_not_begun(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COURSE_EXPERIMENTS", str(tmp_path))
    assert experiments.load("toy", partial=True) == []
    with pytest.raises(ValueError, match="6 of 6 rows are missing"):
        experiments.load("toy")


def test_wrong_arguments_and_broken_rows_are_named(toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no experiment 'gold'; there are .*toy"):
        experiments.load("gold")
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        next(experiments.run("toy", tmp_path, workers=0))
    (tmp_path / "toy.jsonl").write_text('{"cell": {"a": "x"\n')
    with pytest.raises(ValueError, match="toy.jsonl, line 1: no row of an experiment"):
        next(experiments.run("toy", tmp_path))


#: Begun with what is most wanted, and to be continued.
UNFINISHED = {"dfal"}


@pytest.mark.parametrize(
    "path", sorted(experiments.SHIPPED.glob("*.jsonl")), ids=lambda path: path.stem
)
def test_shipped_rows_are_those_of_the_experiments_cells(path: Path) -> None:
    cells = [json.dumps(row["cell"]) for row in map(json.loads, path.read_text().splitlines())]
    assert len(set(cells)) == len(cells)
    rows = experiments.load(path.stem, partial=path.stem in UNFINISHED)
    assert len(rows) == len(cells)  # none left over, and none missing from what is finished


# The table of queries


@pytest.fixture
def small_dfal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of seconds: 24 labels of the course's 10,000 images, and one layer for a network."""
    for name, value in {
        "BATCH": 4,
        "BUDGET": 24,
        "MEASURED": (8, 16, 24),
        "CANDIDATES": 12,
        "STEPS": 2,
        "STEPS_AFRESH": 2,
        "STEPS_ALL": 2,
        "NETWORKS": {"VGG8": partial(networks.MLP, (12,)), "LeNet5": networks.Softmax},
    }.items():
        monkeypatch.setattr(dfal, name, value)
    sample = data.mnist
    monkeypatch.setattr(dfal.data, "mnist", lambda split, full: sample(split))


def without_times(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if "seconds" not in key}


@pytest.mark.parametrize("method", ["dfal", "bald"])
@pytest.mark.parametrize("cut", [1, 3])
def test_a_cut_run_of_dfal_ends_as_an_uncut_one(
    small_dfal: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, cut: int
) -> None:
    cell: dict[str, Any] = {"network": "VGG8", "method": method, "seed": 1}
    whole = dfal.measure(**cell, keep=tmp_path / "whole")
    saves, save = 0, dfal._save

    def killed(path: Path, state: dict[str, Any]) -> None:
        nonlocal saves
        save(path, state)
        saves += 1
        if saves == cut:
            raise KeyboardInterrupt

    monkeypatch.setattr(dfal, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        dfal.measure(**cell, keep=tmp_path / "cut")
    monkeypatch.setattr(dfal, "_save", save)
    rest = dfal.measure(**cell, keep=tmp_path / "cut")
    assert without_times(rest) == without_times(whole)
    assert float(rest["cpu_seconds"]) > float(rest["query seconds"]) > 0


def test_a_row_of_dfal_names_the_images_it_asked_for(small_dfal: None, tmp_path: Path) -> None:
    row = dfal.measure(network="VGG8", method="random", seed=0, keep=tmp_path / "state")
    places = dfal.queries(row)
    assert len(places) == len(set(places.tolist())) == 24
    assert 0 <= int(places.min()) and int(places.max()) < 10_000
    other = dfal.measure(network="VGG8", method="dfal", seed=0, keep=tmp_path / "other")
    assert dfal.queries(other)[:4].tolist() == places[:4].tolist()  # the first are the seed's
    assert {f"accuracy at {n}" for n in (8, 16, 24)} <= set(row)
    whole = dfal.measure(network="VGG8", method=dfal.ALL, seed=0, keep=tmp_path / "all")
    assert 0 <= float(whole["accuracy"]) <= 1


def test_places_of_all_60000_survive_the_row() -> None:
    places = torch.tensor([0, 59_999, 255, 256])
    text = base64.b64encode(bytes([0, 0, 0x5F, 0xEA, 255, 0, 0, 1])).decode()
    assert dfal.queries({"queries": text}).tolist() == places.tolist()


def test_the_cells_of_dfal_are_the_issues_table_most_wanted_first() -> None:
    cells = dfal.cells()
    assert len({json.dumps(cell, sort_keys=True) for cell in cells}) == len(cells)
    of = [(cell["network"], cell["method"], cell["seed"]) for cell in cells]
    methods = {"dfal", "dfal_0", "bald", "ceal", "core_set", "egl", "uncertainty", "random", "all"}
    assert {m for network, m, seed in of if network == "VGG8" and seed == 2} == methods
    assert {m for _, m, _ in of[:5]} == {"dfal", "dfal_0", "core_set", "uncertainty", "random"}
    assert all(network == "VGG8" and seed == 0 for network, _, seed in of[:5])
