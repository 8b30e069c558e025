"""A study of fatty liver as a table of 0s and 1s: what was known of a person, and what came later.

The Mayo Clinic's study followed people with a fatty liver and matched people without. Whatever was
known on the day a person entered is turned into phenotypes, each of them there or not; what is to
be predicted is a disease first diagnosed in the five years after it.

Chapter: book/back/data.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from course_lib.data._cards import card
from course_lib.data._labelled import Labelled, checked_split

#: What can be diagnosed, as the study writes it, and in words.
DISEASES = {
    "diabetes": "diabetes",
    "htn": "high blood pressure",
    "dyslipidemia": "dyslipidaemia",
    "nafld": "fatty liver",
    "ang/isc": "angina",
    "MI": "heart attack",
    "heart failure": "heart failure",
    "afib": "atrial fibrillation",
    "stroke": "stroke",
    "cardiac arrest": "cardiac arrest",
}
#: How long after entering a diagnosis counts as what was to be predicted, in days.
HORIZON = 5 * 365
#: Every fourth person is kept for testing.
TEST_EVERY = 4

#: Lower edges of the bins; the last bin is open.
AGES = (18, 30, 40, 50, 60, 70, 80)
BMIS = (0, 18.5, 25, 30, 35, 40)
#: Of each test: its bins, the lowest and highest value that is believed, and the windows before
#: entering (in years, from and to) of which the latest value is kept.
TESTS: dict[str, tuple[tuple[float, ...], tuple[float, float], tuple[tuple[int, int], ...]]] = {
    "hdl": ((0, 40, 50, 60), (5, 250), ((0, 1), (1, 3), (3, 6), (6, 99))),
    "sbp": ((0, 120, 130, 140, 160), (50, 300), ((0, 1), (1, 3), (3, 6), (6, 99))),
    "fib4": ((2.67,), (0, 100), ((0, 99),)),
    "smoke": ((0, 1), (0, 1), ((0, 99),)),
}
DIAGNOSED = ((0, 1), (1, 5), (5, 99))

Bool = NDArray[np.bool_]
Table = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, eq=False, repr=False)
class Patients(Labelled):
    """People with their phenotypes: ``x`` (N, d) of 0 and 1, the d of them named by ``columns``."""

    columns: tuple[str, ...]


def patients(
    split: Literal["train", "test", "all"] = "train", *, disease: str | None = "diabetes"
) -> Patients:
    """Load the people (N, d) of 0 and 1 who may yet get ``disease``; ``y`` is 1 for those who did.

    ``group`` is the person: three of four for training, one for testing. ``disease=None``: everyone,
    with ``y`` how many of the diseases were first diagnosed within the five years.

    Raises ``ValueError`` for an unknown split or disease. Source: Allen et al., "Nonalcoholic fatty
    liver disease incidence and impact on metabolic burden and death: a 20 year-community study",
    Hepatology, 2018. The shape of the table follows Miotto et al., "Deep Patient", 2016.
    """
    checked_split(split, ("train", "test", "all"))
    names = tuple(DISEASES.values())
    if disease is not None and disease not in names:
        raise ValueError(f"disease: expected one of {', '.join(names)}; got {disease!r}")
    with files(__package__).joinpath("samples/patients.npz").open("rb") as file:
        sample = np.load(file, allow_pickle=False)
        person, later = sample["id"].astype(np.int64), sample["later"].astype(np.int64)
        columns = column_names()
        x = np.unpackbits(sample["bits"], axis=1, count=len(columns)).astype(np.float32)
    test = person % TEST_EVERY == 0
    chosen = np.ones_like(test) if split == "all" else test == (split == "test")
    if disease is None:
        y = (later == 1).sum(axis=1)
    else:
        y = later[:, names.index(disease)]
        chosen &= y >= 0
    return Patients(
        x=torch.from_numpy(x[chosen]),
        y=torch.from_numpy(y[chosen]),
        group=torch.from_numpy(person[chosen]),
        card=card("patients"),
        columns=columns,
    )


def column_names() -> tuple[str, ...]:
    """Return the names of the phenotypes, in the order of the table's columns."""
    names = ["woman", "man", *_bins("age", AGES), *_bins("BMI", BMIS)]
    for key, disease in DISEASES.items():
        names += [disease + _years(window) for window in _windows(key)]
    for test, (edges, _, windows) in TESTS.items():
        for window in windows:
            names += [name + _years(window) for name in _bins(test, edges)]
    return tuple(names)


def binarise(people: Table, tests: Table, events: Table) -> tuple[Bool, NDArray[np.int8]]:
    """Turn the study's three tables into phenotypes (N, d) and later diagnoses (N, K).

    ``people``: id, age (years), male (0 or 1), bmi (kg/m2 or NaN), futime (days followed), status
    (1: died). ``tests``: id, days (from entering), test, value. ``events``: id, days, event. A
    value outside its believable range is left out; of several in a window the latest counts.
    Only what is dated on the day of entering or before becomes a phenotype. Someone who dies
    without a disease is one who did not get it.

    Raises ``ValueError`` when a table names a person whom ``people`` does not.
    """
    order = {int(person): row for row, person in enumerate(people["id"])}
    columns: list[Bool] = [people["male"] == 0, people["male"] == 1]
    columns += _in_bins(people["age"], AGES)
    columns += _in_bins(people["bmi"], BMIS)

    rows = _rows("events", events["id"], order)
    later = np.zeros((len(order), len(DISEASES)), dtype=np.int8)
    unknown = (people["futime"] < HORIZON) & (people["status"] == 0)
    for k, disease in enumerate(DISEASES):
        this = events["event"] == disease
        row, days = rows[this], events["days"][this]
        for window in _windows(disease):
            columns.append(_marked(row[_inside(days, window)], len(order)))
        had, got = row[days <= 0], row[(days > 0) & (days <= HORIZON)]
        later[unknown, k] = -1
        later[got, k] = 1
        later[had, k] = -1

    rows = _rows("tests", tests["id"], order)
    for test, (edges, (low, high), windows) in TESTS.items():
        this = (tests["test"] == test) & (tests["value"] >= low) & (tests["value"] <= high)
        row, days, value = rows[this], tests["days"][this], tests["value"][this]
        by_day = np.argsort(days, kind="stable")
        for window in windows:
            latest = np.full(len(order), np.nan)
            kept = by_day[_inside(days[by_day], window)]
            latest[row[kept]] = value[kept]  # in order of time: the last one written stays
            columns += _in_bins(latest, edges)
    return np.stack(columns, axis=1), later


def _windows(disease: str) -> tuple[tuple[int, int], ...]:
    """Return the windows of a diagnosis; fatty liver has one, for its diagnosis is the entry."""
    return ((0, 99),) if disease == "nafld" else DIAGNOSED


def _inside(days: NDArray[Any], window: tuple[int, int]) -> Bool:
    """Say which days lie in a window of years before entering; entering itself is in the first."""
    ago, (start, end) = -days / 365, window
    inside: Bool = (ago >= 0) & (ago > start) & (ago <= end) if start else (ago >= 0) & (ago <= end)
    return inside


def _in_bins(values: NDArray[Any], edges: tuple[float, ...]) -> list[Bool]:
    ends = (*edges[1:], np.inf)
    return [(values >= low) & (values < high) for low, high in zip(edges, ends, strict=True)]


def _marked(rows: NDArray[np.int64], n: int) -> Bool:
    marked = np.zeros(n, dtype=bool)
    marked[rows] = True
    return marked


def _rows(name: str, persons: Iterable[Any], order: Mapping[int, int]) -> NDArray[np.int64]:
    ids = [int(person) for person in persons]
    if unknown := set(ids) - set(order):
        raise ValueError(f"{name}: expected persons of people only, got id {min(unknown)}")
    return np.array([order[person] for person in ids], dtype=np.int64)


def _bins(name: str, edges: tuple[float, ...]) -> list[str]:
    if name == "smoke":
        return ["does not smoke", "smokes"]
    label = {"hdl": "HDL", "sbp": "systolic pressure", "fib4": "FIB-4"}.get(name, name)
    between = [f"{label} {a:g} to {b:g}" for a, b in pairwise(edges)]
    if edges[0] == 0:
        between[0] = f"{label} below {edges[1]:g}"
    return [*between, f"{label} {edges[-1]:g} or more"]


def _years(window: tuple[int, int]) -> str:
    start, end = window
    if not start:
        return "" if end == 99 else ", in the year before"
    return f", over {start} years before" if end == 99 else f", {start} to {end} years before"
