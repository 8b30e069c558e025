"""Three photographs for a network that knows a thousand things: a coffee, a cat, a rocket.

Their photographers gave them to everybody. They are not copied: they are read from the installed
package scikit-image, which carries them.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from course_lib.data._cards import card
from course_lib.data._labelled import Labelled

SIDE = 224
#: Each file, and which of ImageNet's thousand classes (0..999) comes nearest to what it shows.
PHOTOGRAPHS = {"coffee.png": 967, "chelsea.png": 281, "rocket.jpg": 657}


def photographs() -> Labelled:
    """Load the coffee, the cat and the rocket, in this order: (3, 3, 224, 224) in [0, 1].

    The middle square of each, scaled down (bicubic, antialiased). ``y``: the nearest class of
    ImageNet, chosen by eye: espresso, tabby, missile. ``group``: the photograph, 0..2.

    Raises ``FileNotFoundError`` when scikit-image is not installed or its files are others.
    """
    spec = find_spec("skimage")  # finds the package without importing it
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the photographs come with the package scikit-image, which is not installed: "
            'pip install "course-lib[imagenet]"'
        )
    folder = Path(spec.origin).parent / "data"
    pictures = [_square(_verified(folder / file)) for file in PHOTOGRAPHS]
    return Labelled(
        x=torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(255).contiguous(),
        y=torch.tensor(list(PHOTOGRAPHS.values())),
        group=torch.arange(len(PHOTOGRAPHS)),
        card=card("photographs"),
    )


def _verified(path: Path) -> Path:
    expected = card("photographs").full_sha256[path.name]
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise FileNotFoundError(
            f"{path}: not there, or not the photograph that the card names (its SHA-256 differs): "
            "reinstall scikit-image"
        )
    return path


def _square(path: Path) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    with Image.open(path) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.convert("RGB").crop((left, top, left + side, top + side))
        return np.asarray(square.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
