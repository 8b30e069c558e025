"""The heartbeats and the table of patients: cut, binarised and split as their cards say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from course_lib import data
from course_lib.data.ecg import (
    AFTER,
    BASELINE,
    BEFORE,
    GAIN,
    KINDS,
    LETTERS,
    RECORDS,
    annotated,
    cut,
    first_signal,
)
from course_lib.data.make_samples import make_ecg, make_patients
from course_lib.data.patients import DISEASES, HORIZON, binarise, column_names

Record = dict[str, NDArray[Any]]


def test_beats_are_split_by_time_within_each_person() -> None:
    train, test = data.ecg("train"), data.ecg("test")
    assert len(train) + len(test) == len(data.ecg("all"))
    assert int(train.minute.max()) == 14 and int(test.minute.min()) == 15
    assert set(train.record.tolist()) == set(test.record.tolist()) == set(RECORDS)
    for beats in (train, test):
        pairs = torch.stack([beats.group, beats.record, beats.minute]).unique(dim=1)
        assert pairs.shape[1] == len(beats.group.unique())  # a group is one minute of one person


def test_the_beats_are_as_many_as_the_database_says() -> None:
    # Moody and Mark's directory: beats by record and letter, all but those too near an end
    published = {
        100: {"N": 2239, "A": 33, "V": 1},
        106: {"N": 1507, "V": 520},
        202: {"N": 2061, "A": 36, "V": 19, "a": 19, "F": 1},
        223: {"N": 2029, "V": 473, "A": 72, "F": 14, "e": 16, "a": 1},
    }
    beats = data.ecg("all")
    lost = 0
    for record, counts in published.items():
        found = beats.y[beats.record == record].bincount(minlength=len(KINDS)).tolist()
        expected = [counts.get(letter, 0) for letter in LETTERS]
        assert all(0 <= e - f <= 2 for e, f in zip(expected, found, strict=True))
        lost += sum(expected) - sum(found)
    assert lost == 4


def test_a_beat_has_its_peak_where_it_is_said_to_be() -> None:
    normal = data.ecg("all")
    normal = normal.subset(normal.y == 0)
    high = (normal.x - normal.x.median(dim=1, keepdim=True).values).abs().argmax(dim=1)
    assert ((high - BEFORE).abs() <= 3).float().mean() > 0.95
    assert normal.x.shape[1] == BEFORE + AFTER


def test_a_subset_of_beats_keeps_its_columns() -> None:
    beats = data.ecg("test")
    odd = beats.subset(beats.y > 0)
    assert isinstance(odd, data.Beats) and odd.kinds == KINDS
    assert len(odd.record) == len(odd.minute) == len(odd) == int((beats.y > 0).sum())


@given(st.lists(st.tuples(st.integers(-2048, 2047), st.integers(-2048, 2047)), min_size=1))
def test_format_212_is_read_back(pairs: list[tuple[int, int]]) -> None:
    content = bytearray()
    for first, second in pairs:
        a, b = first & 0xFFF, second & 0xFFF
        content += bytes([a & 0xFF, (a >> 8) | ((b >> 8) << 4), b & 0xFF])
    assert first_signal(bytes(content)).tolist() == [first for first, _ in pairs]


def test_a_signal_cut_in_the_middle_of_a_value_is_refused() -> None:
    with pytest.raises(ValueError, match="content: expected three bytes for two values, got 4"):
        first_signal(b"1234")


PRINTED = """      Time   Sample #  Type  Sub Chan  Num\tAux
    0:00.050       18     +    0    0    0\t(N
    0:00.214       77     N    0    0    0
    0:01.028      370     V    0    0    0
    0:01.839      662     ~    0    0    0
    0:02.000      720     e    0    0    0
"""


def test_annotations_that_are_no_beats_are_passed_by() -> None:
    at, kind = annotated(PRINTED)
    assert at.tolist() == [77, 370, 720]
    assert [KINDS[k] for k in kind] == ["normal", "ventricular", "escape"]
    assert all(len(column) == 0 for column in annotated(PRINTED.splitlines()[0]))


def test_cutting_keeps_a_slow_wave_and_leaves_out_the_ends() -> None:
    seconds = np.arange(3600) / 360
    millivolts = np.sin(2 * np.pi * 3 * seconds)  # 3 Hz: the filter must let it pass
    signal = np.rint(GAIN * millivolts + BASELINE).astype(np.int16)
    at = np.array([30, 900, 1803, 3590])
    beats, whole = cut(signal, at)
    assert whole.tolist() == [False, True, True, False]
    window = np.arange(-BEFORE, AFTER) / 120
    for beat, place in zip(beats, at[whole], strict=True):
        expected = np.sin(2 * np.pi * 3 * (place / 360 + window))
        np.testing.assert_allclose(beat / GAIN, expected, atol=0.02)


def test_cutting_takes_away_what_would_be_folded_down() -> None:
    seconds = np.arange(3600) / 360
    hum = np.rint(GAIN * np.sin(2 * np.pi * 110 * seconds) + BASELINE).astype(np.int16)
    beats, _ = cut(hum, np.array([1800]))  # 110 Hz cannot be told from 10 Hz at 120 values a second
    assert np.abs(beats).max() < 0.05 * GAIN


def test_heartbeats_are_packed_from_their_records(tmp_path: Path) -> None:
    n = 4000
    for record in RECORDS:
        value = np.full(n, BASELINE + record, dtype=np.int64)
        packed = np.stack([value & 0xFF, (value >> 8) | ((value >> 8) << 4), value & 0xFF], axis=1)
        (tmp_path / f"{record}.dat").write_bytes(packed.astype(np.uint8).tobytes())
        (tmp_path / f"{record}annotations.txt").write_text(PRINTED, encoding="utf-8")
    make_ecg(tmp_path, tmp_path)
    made = np.load(tmp_path / "ecg.npz")
    assert made["record"].tolist() == [r for r in RECORDS for _ in range(2)]
    assert made["kind"].tolist() == [1, 5] * 4  # the first lies too near the start
    assert (np.abs(made["beats"] - made["record"][:, None].astype(int)) <= 1).all()


# The patients


def tables() -> tuple[Record, Record, Record]:
    """Return three people: one falls ill, one had it before, one is followed for too short a time."""
    people = {
        "id": np.array([4, 5, 9]),
        "age": np.array([29.0, 30.0, 85.0]),
        "male": np.array([0.0, 1.0, 1.0]),
        "bmi": np.array([18.5, np.nan, 41.0]),
        "futime": np.array([4000, 4000, 100]),
        "status": np.array([0, 0, 0]),
    }
    tests = {
        "id": np.array([4, 4, 4, 4, 5, 9]),
        "days": np.array([-10, -300, 5, -500, 0, -30]),
        "test": np.array(["hdl", "hdl", "hdl", "hdl", "smoke", "sbp"]),
        "value": np.array([39.0, 70.0, 55.0, 45.0, 1.0, 9999.0]),
    }
    events = {
        "id": np.array([4, 5, 9, 4]),
        "days": np.array([100, -700, 50, HORIZON + 1]),
        "event": np.array(["diabetes", "diabetes", "stroke", "stroke"]),
    }
    return people, tests, events


def test_each_value_marks_its_bin_and_what_is_unknown_marks_none() -> None:
    x, _ = binarise(*tables())
    names = np.array(column_names())
    assert x.shape == (3, len(names)) and len(set(names)) == len(names)
    assert names[x[0]].tolist() == [
        *("woman", "age 18 to 30", "BMI 18.5 to 25"),
        *("HDL below 40, in the year before", "HDL 40 to 50, 1 to 3 years before"),
    ]
    assert names[x[1]].tolist() == [
        *("man", "age 30 to 40", "diabetes, 1 to 5 years before", "smokes"),
    ]
    assert names[x[2]].tolist() == ["man", "age 80 or more", "BMI 40 or more"]


def test_later_tells_the_new_from_the_old_and_the_unknown() -> None:
    _, later = binarise(*tables())
    diabetes, stroke = list(DISEASES).index("diabetes"), list(DISEASES).index("stroke")
    assert later[:, diabetes].tolist() == [1, -1, -1]
    assert later[:, stroke].tolist() == [0, 0, 1]  # one came too late to count


def test_who_dies_without_the_disease_did_not_get_it() -> None:
    people, tests, events = tables()
    people["status"] = np.array([0, 0, 1])
    _, later = binarise(people, tests, events)
    assert later[2, list(DISEASES).index("diabetes")] == 0


def test_nothing_dated_after_entering_becomes_a_phenotype() -> None:
    people, tests, events = tables()
    before, _ = binarise(people, tests, events)
    for table in (tests, events):
        after = table["days"] > 0
        for name in table:
            table[name] = table[name][~after]
    np.testing.assert_array_equal(binarise(people, tests, events)[0], before)


@pytest.mark.parametrize("name", ["events", "tests"])
def test_a_person_nobody_knows_is_refused(name: str) -> None:
    people, tests, events = tables()
    (tests if name == "tests" else events)["id"][1] = 77
    with pytest.raises(ValueError, match=f"{name}: expected persons of people only, got id 77"):
        binarise(people, tests, events)


def test_patients_are_packed_from_the_tables(tmp_path: Path) -> None:
    people, tests, events = tables()
    backwards = {name: column[::-1] for name, column in people.items()}
    for name, table in (("nafld1", backwards), ("nafld2", tests), ("nafld3", events)):
        rows = [",".join(["", *table])]
        for i, row in enumerate(zip(*table.values(), strict=True)):
            rows.append(",".join([str(i), *("NA" if str(v) == "nan" else str(v) for v in row)]))
        (tmp_path / f"{name}.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    make_patients(tmp_path, tmp_path)
    made = np.load(tmp_path / "patients.npz")
    x, later = binarise(people, tests, events)
    assert made["id"].tolist() == [4, 5, 9]
    assert (np.unpackbits(made["bits"], axis=1, count=x.shape[1]) == x).all()
    assert (made["later"] == later).all()


@pytest.mark.parametrize("disease", [None, *DISEASES.values()])
def test_no_person_is_in_both_splits(disease: str | None) -> None:
    train, test = (data.patients(split, disease=disease) for split in ("train", "test"))
    everyone = data.patients("all", disease=disease)
    assert set(train.group.tolist()).isdisjoint(test.group.tolist())
    assert len(train.group.unique()) == len(train)
    assert len(train) + len(test) == len(everyone)
    assert set(everyone.x.unique().tolist()) == {0.0, 1.0}
    if disease is not None:
        assert set(everyone.y.tolist()) == {0, 1}


def test_nobody_who_may_yet_get_a_disease_has_it() -> None:
    for disease in DISEASES.values():
        loaded = data.patients("all", disease=disease)
        mine = [i for i, name in enumerate(loaded.columns) if name.startswith(disease)]
        assert mine and not loaded.x[:, mine].any()


def test_new_diagnoses_are_counted_over_all_diseases() -> None:
    everyone = data.patients("all", disease=None)
    count = dict(zip(everyone.group.tolist(), everyone.y.tolist(), strict=True))
    summed = dict.fromkeys(count, 0)
    for disease in DISEASES.values():
        one = data.patients("all", disease=disease)
        for person in one.group[one.y == 1].tolist():
            summed[person] += 1
    assert summed == count


def test_every_person_has_a_sex_and_an_age_and_every_bin_somebody() -> None:
    everyone = data.patients("all", disease=None)
    assert everyone.x.shape[1] == len(everyone.columns)
    assert torch.equal(everyone.x[:, :2].sum(1), torch.ones(len(everyone)))
    ages = [i for i, name in enumerate(everyone.columns) if name.startswith("age")]
    assert torch.equal(everyone.x[:, ages].sum(1), torch.ones(len(everyone)))
    assert bool((everyone.x.sum(0) > 0).all())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: data.ecg("now"), "split: expected one of train"),  # type: ignore[arg-type]
        (lambda: data.patients("now"), "split: expected one of train"),  # type: ignore[arg-type]
        (lambda: data.patients(disease="flu"), "disease: expected one of diabetes, .*; got 'flu'"),
    ],
)
def test_wrong_requests_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
