"""Make the samples that the package carries again, from what they were taken from.

``python -m course_lib.data.make_samples FOLDER`` writes those of MNIST and of the spoken digits, from
the full sets in the cache. With ``--ecg RECORDS``, a folder with PhysioNet's ``100.dat`` and, as
``100annotations.txt``, what ``rdann -r 100 -a atr`` prints (and so on for the other records), it
writes the heartbeats; with ``--patients TABLES``, a folder with the three tables of the R package
survival as ``write.csv`` writes them (``nafld1.csv`` ...), the phenotypes. So anyone can see how the
samples were chosen: no example was picked by hand.

Chapter: book/back/data.md
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from course_lib.data.ecg import RECORDED_RATE, RECORDS, annotated, cut, first_signal
from course_lib.data.mnist import PER_DIGIT, stratified
from course_lib.data.mnist import full_set as full_mnist
from course_lib.data.patients import binarise
from course_lib.data.spoken_digits import full_set as full_spoken_digits
from course_lib.data.spoken_digits import sampled

SEED = 0


def make(folder: Path) -> None:
    """Write the samples into ``folder``; ``FetchError`` when a full set is not in the cache."""
    for split, per_digit in PER_DIGIT.items():
        images, labels = full_mnist(split)
        index = stratified(labels, per_digit, seed=SEED)
        np.savez_compressed(
            folder / f"mnist-{split}.npz",
            images=images[index],
            labels=labels[index],
            index=index.astype(np.uint16),
        )
    table, audio = sampled(*full_spoken_digits())
    np.savez_compressed(folder / "spoken_digits.npz", table=table, audio=audio)


def make_ecg(records: Path, folder: Path) -> None:
    """Write ``ecg.npz`` into ``folder`` from the signals and annotations in ``records``."""
    beats, kinds, record, minute = [], [], [], []
    for number in RECORDS:
        at, kind = annotated((records / f"{number}annotations.txt").read_text("utf-8"))
        found, whole = cut(first_signal((records / f"{number}.dat").read_bytes()), at)
        beats.append(found)
        kinds.append(kind[whole].astype(np.uint8))
        record.append(np.full(len(found), number, dtype=np.uint8))
        minute.append((at[whole] // (60 * RECORDED_RATE)).astype(np.uint8))
    np.savez_compressed(
        folder / "ecg.npz",
        beats=np.concatenate(beats),
        kind=np.concatenate(kinds),
        record=np.concatenate(record),
        minute=np.concatenate(minute),
    )


def make_patients(tables: Path, folder: Path) -> None:
    """Write ``patients.npz`` into ``folder`` from the CSV files in ``tables``."""
    people = _numbers(tables / "nafld1.csv", text=())
    tests = _numbers(tables / "nafld2.csv", text=("test",))
    events = _numbers(tables / "nafld3.csv", text=("event",))
    order = np.argsort(people["id"])
    people = {name: column[order] for name, column in people.items()}
    x, later = binarise(people, tests, events)
    np.savez_compressed(
        folder / "patients.npz",
        id=people["id"].astype(np.uint16),
        bits=np.packbits(x, axis=1),
        later=later,
    )


def _numbers(path: Path, *, text: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Read a CSV file with a line of names: every column as numbers, NA as NaN, but those in text."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: np.array(
            [row[name] if name in text else float(row[name].replace("NA", "nan")) for row in rows]
        )
        for name in rows[0]
        if name  # R gives the rows' own numbers a column without a name
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make the samples that the package carries.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--ecg", type=Path, metavar="RECORDS")
    parser.add_argument("--patients", type=Path, metavar="TABLES")
    given = parser.parse_args()
    if given.ecg:
        make_ecg(given.ecg, given.folder)
    if given.patients:
        make_patients(given.patients, given.folder)
    if not (given.ecg or given.patients):
        make(given.folder)
