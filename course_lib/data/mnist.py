"""MNIST: handwritten digits, 28 x 28, grey (LeCun, Bottou, Bengio & Haffner, 1998).

The package carries a sample with the same number of each digit, chosen by :func:`stratified` from
the original sets; ``course data fetch mnist`` brings those.

Chapter: book/back/data.md
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from course_lib.data._cards import card
from course_lib.data._idx import read_idx
from course_lib.data._labelled import Labelled, checked_split
from course_lib.data.fetch import cached

#: How many of each digit the sample holds.
PER_DIGIT = {"train": 1000, "test": 200}

Bytes = NDArray[np.uint8]


def mnist(split: Literal["train", "test"] = "train", *, full: bool = False) -> Labelled:
    """Load MNIST's images (N, 1, 28, 28) in [0, 1] and the digits 0..9 that they show.

    The sample holds 10,000 training and 2,000 test images; ``full=True`` loads all 60,000 and
    10,000. ``group`` is an image's place in the original set.

    Raises ``ValueError`` for an unknown split, ``FetchError`` when the full set is asked for and is
    not in the cache, whole. Source: LeCun et al., "Gradient-based learning applied to document
    recognition", Proc. IEEE 86(11), 1998.
    """
    checked_split(split, ("train", "test"))
    if full:
        images, labels = full_set(split)
        index = np.arange(len(labels))
    else:
        with files(__package__).joinpath(f"samples/mnist-{split}.npz").open("rb") as file:
            sample = np.load(file, allow_pickle=False)
            images, labels, index = sample["images"], sample["labels"], sample["index"]
    return Labelled(
        x=torch.from_numpy(images).unsqueeze(1).float().div_(255),
        y=torch.from_numpy(labels.astype(np.int64)),
        group=torch.from_numpy(index.astype(np.int64)),
        card=card("mnist"),
    )


def full_set(split: str) -> tuple[Bytes, Bytes]:
    """Read the original set from the cache: images (N, 28, 28) uint8 and labels (N,) uint8."""
    prefix = {"train": "train", "test": "t10k"}[split]
    return (
        read_idx(cached("mnist", f"{prefix}-images-idx3-ubyte")),
        read_idx(cached("mnist", f"{prefix}-labels-idx1-ubyte")),
    )


def stratified(labels: Bytes, per_digit: int, *, seed: int) -> NDArray[np.int64]:
    """Choose ``per_digit`` places of each digit at random; they come back in ascending order."""
    rng = np.random.default_rng(seed)
    chosen = [
        rng.choice(np.flatnonzero(labels == digit), per_digit, replace=False) for digit in range(10)
    ]
    return np.sort(np.concatenate(chosen))
