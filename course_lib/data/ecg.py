"""Heartbeats, each labelled by cardiologists: four half hours of the MIT-BIH Arrhythmia Database.

The package carries the beats of four records, cut out around the peak of each and sampled 120 times
a second, in millivolts.

Chapter: book/back/data.md
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from course_lib.data._cards import card
from course_lib.data._labelled import Labelled, checked_split

SAMPLE_RATE = 120
#: What the recorders took in a second; every third value is left after an anti-aliasing filter.
RECORDED_RATE = 360
#: Values of a beat before its annotated peak, and from the peak on: 0.3 and 0.5 seconds.
BEFORE, AFTER = 36, 60
#: The recorder's steps in a millivolt, and its reading at 0 mV.
GAIN, BASELINE = 200, 1024
RECORDS = (100, 106, 202, 223)
#: ``y`` is the place in this list; the annotations' letters follow.
KINDS = ("normal", "ventricular", "atrial", "aberrated atrial", "fusion", "escape")
LETTERS = "NVAaFe"
#: The first minutes of each record are for training, the other half for testing.
TRAIN_MINUTES = 15

Int16 = NDArray[np.int16]


@dataclass(frozen=True, eq=False, repr=False)
class Beats(Labelled):
    """Heartbeats (N, 96) in mV: ``kinds`` names the classes; ``record`` and ``minute`` int64 (N,)."""

    record: Tensor
    minute: Tensor
    kinds: tuple[str, ...] = KINDS


def ecg(split: Literal["train", "test", "all"] = "train") -> Beats:
    """Load the beats (N, 96) in mV, 120 values a second; ``y`` is 0 for normal ones, 1..5 for others.

    Value 36 is at the beat's annotated peak. Training holds the first 15 minutes of each of the four
    people, testing the other 15. ``group`` is the person and the minute; ``record`` the person.

    Raises ``ValueError`` for an unknown split. Source: Moody and Mark, "The impact of the MIT-BIH
    Arrhythmia Database", IEEE Engineering in Medicine and Biology 20(3), 2001.
    """
    checked_split(split, ("train", "test", "all"))
    with files(__package__).joinpath("samples/ecg.npz").open("rb") as file:
        sample = np.load(file, allow_pickle=False)
        beats, kind = sample["beats"], sample["kind"].astype(np.int64)
        record, minute = sample["record"].astype(np.int64), sample["minute"].astype(np.int64)
    train = minute < TRAIN_MINUTES
    chosen = np.ones_like(train) if split == "all" else train == (split == "train")
    person = np.searchsorted(RECORDS, record)
    return Beats(
        x=torch.from_numpy(beats[chosen].astype(np.float32) / GAIN),
        y=torch.from_numpy(kind[chosen]),
        group=torch.from_numpy((100 * person + minute)[chosen]),
        card=card("ecg"),
        record=torch.from_numpy(record[chosen]),
        minute=torch.from_numpy(minute[chosen]),
    )


def first_signal(content: bytes) -> Int16:
    """Read the first of the two signals in a file of WFDB format 212: three bytes, two 12-bit values.

    Raises ``ValueError`` for a length that three does not divide.
    """
    if len(content) % 3:
        raise ValueError(f"content: expected three bytes for two values, got {len(content)} bytes")
    low, middle, _ = np.frombuffer(content, dtype=np.uint8).reshape(-1, 3).T.astype(np.int16)
    value = low + ((middle & 0x0F) << 8)
    return np.where(value > 2047, value - 4096, value).astype(np.int16)  # two's complement


def annotated(text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Read where the beats lie (N,) and their kinds (N,) in what PhysioNet's ``rdann`` prints.

    Its columns are time, sample, letter, ...; letters that are not in ``LETTERS`` are passed by.
    """
    rows = [line.split() for line in text.splitlines()[1:]]
    beats = [(int(row[1]), LETTERS.index(row[2])) for row in rows if row[2] in LETTERS]
    at, kind = np.array(beats, dtype=np.int64).reshape(-1, 2).T
    return at, kind


def cut(signal: Int16, at: NDArray[np.int64]) -> tuple[Int16, NDArray[np.bool_]]:
    """Cut a beat (96,) at 120 Hz, in steps from 0 mV, around each place ``at`` of a 360 Hz ``signal``.

    Returns the beats, and which of the places have one: some lie too near an end.
    """
    # Slow to import, and only whoever makes a sample needs it.
    from scipy.signal import resample_poly

    thinned = resample_poly(
        signal.astype(np.float64) - BASELINE, 1, RECORDED_RATE // SAMPLE_RATE, padtype="line"
    )
    peak = np.rint(at * SAMPLE_RATE / RECORDED_RATE).astype(np.int64)
    whole = (peak >= BEFORE) & (peak + AFTER <= len(thinned))
    window = np.arange(-BEFORE, AFTER)
    return np.rint(thinned[peak[whole, None] + window]).astype(np.int16), whole
