"""Portraits, 64 x 64, in colour: public-domain photographs, and faces from a diffusion model.

The only photographs that the package carries: official portraits of members of the US Congress,
made by the US government. Beside them, faces of nobody, drawn by a diffusion model and aligned the
same way.

Chapter: book/back/data.md
"""

from __future__ import annotations

from importlib.resources import files
from typing import Literal

import numpy as np
import torch
from PIL import Image

from course_lib.data._cards import card
from course_lib.data._labelled import Labelled, checked_split

SIDE = 64
#: How many there are of each source, and the label ``y`` that says which it is.
COUNT = {"public_domain": 879, "diffusion": 199}
LABEL = {"public_domain": 0, "diffusion": 1}
#: Every fifth group is kept for testing.
TEST_EVERY = 5
#: Pairs that look most alike (the measure is in tests/test_data.py): the two share a group, so that
#: a face and its look-alike are never on both sides of a split.
LOOK_ALIKES: dict[str, tuple[tuple[int, int], ...]] = {
    "public_domain": ((229, 309), (342, 405), (400, 620)),
    "diffusion": (
        *((19, 94), (21, 62), (40, 68), (52, 83), (68, 83)),
        *((82, 89), (109, 119), (110, 124), (113, 186), (129, 153)),
    ),
}


def portraits(
    split: Literal["train", "test", "all"] = "train",
    *,
    source: Literal["public_domain", "diffusion"] = "public_domain",
) -> Labelled:
    """Load the portraits (N, 3, 64, 64) in [0, 1]; ``y`` is 0 for a photograph, 1 for a made one.

    ``group`` is the person (look-alikes share one), numbered within the ``source``.

    Raises ``ValueError`` for an unknown split or source.
    """
    checked_split(split, ("train", "test", "all"))
    if source not in COUNT:
        raise ValueError(f"source: expected one of {', '.join(COUNT)}; got {source!r}")
    group = groups(source)
    test = group % TEST_EVERY == TEST_EVERY - 1
    chosen = np.ones_like(test) if split == "all" else test == (split == "test")
    x = torch.from_numpy(_tiles(source)[chosen]).permute(0, 3, 1, 2)
    return Labelled(
        x=x.contiguous().float().div_(255),
        y=torch.full((len(x),), LABEL[source]),
        group=torch.from_numpy(group[chosen]),
        card=card("portraits"),
    )


def groups(source: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return each portrait's group (N,): its place in the set, or that of a look-alike."""
    group = np.arange(COUNT[source])
    for first, second in LOOK_ALIKES[source]:
        group[group == group[second]] = group[first]
    return group


def _tiles(source: str) -> np.ndarray[tuple[int, int, int, int], np.dtype[np.uint8]]:
    """Cut the lossless sheet, tiles row by row, into (N, 64, 64, 3) uint8."""
    with files(__package__).joinpath(f"samples/portraits-{source}.webp").open("rb") as file:
        sheet = np.asarray(Image.open(file).convert("RGB"))
    rows, columns = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    tiles = sheet.reshape(rows, SIDE, columns, SIDE, 3).swapaxes(1, 2).reshape(-1, SIDE, SIDE, 3)
    return tiles[: COUNT[source]]
