"""The Free Spoken Digit Dataset: six speakers say the digits 0 to 9, fifty times each, at 8 kHz.

The package carries every fifth take of every speaker and digit, 600 recordings;
``course data fetch spoken_digits`` brings all 3,000.

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
from course_lib.data._idx import read_idx
from course_lib.data._labelled import Labelled, checked_split
from course_lib.data.fetch import cached

SAMPLE_RATE = 8000
#: ``group`` is the place in this list.
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
#: One of the two Americans and one of the two Germans, the loudest and the quietest of the six:
#: the training split keeps the other of each, and both accents that only one speaker has.
TEST_SPEAKERS = ("lucas", "theo")
#: The sample holds the takes that this divides.
SAMPLE_EVERY = 5

Int16 = NDArray[np.int16]


@dataclass(frozen=True, eq=False, repr=False)
class Recordings(Labelled):
    """Sounds with their labels: ``x`` (N, T) in [-1, 1], zero after the first ``length`` values."""

    length: Tensor


def spoken_digits(
    split: Literal["train", "test", "all"] = "train", *, full: bool = False
) -> Recordings:
    """Load the recordings (N, T) in [-1, 1], 8,000 values a second, and the digits spoken.

    ``group`` is the speaker, 0..5: four for training, two for testing. ``length`` int64 (N,): how
    many values a recording has; all are padded with zeros to the longest of the set.

    Raises ``ValueError`` for an unknown split, ``FetchError`` when the full set is asked for and is
    not in the cache, whole. Source: Jackson et al., Free Spoken Digit Dataset, v1.0.10.
    """
    checked_split(split, ("train", "test", "all"))
    table, audio = full_set() if full else _sample()
    digit, speaker, _, length = table.astype(np.int64).T
    end = length.cumsum()
    test = np.isin(speaker, [SPEAKERS.index(name) for name in TEST_SPEAKERS])
    chosen = np.flatnonzero(np.ones_like(test) if split == "all" else test == (split == "test"))
    x = np.zeros((len(chosen), length.max()), dtype=np.float32)
    for row, i in enumerate(chosen):
        x[row, : length[i]] = audio[end[i] - length[i] : end[i]]
    x /= 2**15
    return Recordings(
        x=torch.from_numpy(x),
        y=torch.from_numpy(digit[chosen]),
        group=torch.from_numpy(speaker[chosen]),
        card=card("spoken_digits"),
        length=torch.from_numpy(length[chosen]),
    )


def full_set() -> tuple[Int16, Int16]:
    """Read the whole set from the cache, as :func:`pack` made it."""
    return (
        read_idx(cached("spoken_digits", "table-idx2-short")),
        read_idx(cached("spoken_digits", "audio-idx1-short")),
    )


def _sample() -> tuple[Int16, Int16]:
    with files(__package__).joinpath("samples/spoken_digits.npz").open("rb") as file:
        sample = np.load(file, allow_pickle=False)
        return sample["table"], sample["audio"]


def sampled(table: Int16, audio: Int16) -> tuple[Int16, Int16]:
    """Keep every fifth take of a set."""
    keep = table[:, 2] % SAMPLE_EVERY == 0
    return table[keep], audio[np.repeat(keep, table[:, 3])]
