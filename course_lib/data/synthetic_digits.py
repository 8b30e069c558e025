"""Digits that nobody said: eight voices of two speech synthesisers say 0 to 9, four times each.

The counterpart of the spoken digits, for learning to tell the two apart. Each take has a speed and a
pitch of its own, drawn from the range of the six men in the Free Spoken Digit Dataset; nothing else was
done to it, so that level, silence and bandwidth are still those of the programs.

Chapter: book/detect/listening.md
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from course_lib.data._cards import card
from course_lib.data._labelled import Labelled, checked_split

SAMPLE_RATE = 8000
SYNTHESISERS = ("flite", "espeak")
#: ``group`` is the place in this list; the first four are Flite's, the others eSpeak NG's.
VOICES = ("kal", "awb", "rms", "slt", "en-us", "en-gb-scotland", "en-us+klatt4", "en-us+f2")
TAKES = 4


@dataclass(frozen=True, eq=False, repr=False)
class Synthesised(Labelled):
    """Sounds ``x`` (N, T) in [-1, 1], zero after the first ``length`` values.

    ``length`` int64 (N,); ``synthesiser`` int64 (N,), the place in ``SYNTHESISERS``.
    """

    length: Tensor
    synthesiser: Tensor


def synthetic_digits(synthesiser: Literal["flite", "espeak", "all"] = "all") -> Synthesised:
    """Load the synthesised digits (N, T) in [-1, 1], 8,000 values a second; ``y`` is the digit.

    ``group`` is the voice, 0..7. ``length``: how many values a recording has; all are padded with
    zeros to the longest of the set. There is no fixed test split: a chapter keeps voices apart by
    ``group``, or tests on one synthesiser what was trained on the other.

    Raises ``ValueError`` for an unknown synthesiser.
    """
    checked_split(synthesiser, (*SYNTHESISERS, "all"))
    with files(__package__).joinpath("samples/synthetic_digits.npz").open("rb") as file:
        sample = np.load(file, allow_pickle=False)
        table, change = sample["table"].astype(np.int64), sample["change"]
    digit, voice, _, length = table.T
    made_by = voice // 4
    end = length.cumsum()
    audio = np.cumsum(change, dtype=np.int16)  # 16-bit sums wrap round as the differences did
    chosen = np.flatnonzero(
        (made_by == SYNTHESISERS.index(synthesiser)) if synthesiser != "all" else made_by >= 0
    )
    x = np.zeros((len(chosen), length.max()), dtype=np.float32)
    for row, i in enumerate(chosen):
        x[row, : length[i]] = audio[end[i] - length[i] : end[i]]
    return Synthesised(
        x=torch.from_numpy(x / 2**15),
        y=torch.from_numpy(digit[chosen]),
        group=torch.from_numpy(voice[chosen]),
        card=card("synthetic_digits"),
        length=torch.from_numpy(length[chosen]),
        synthesiser=torch.from_numpy(made_by[chosen]),
    )
