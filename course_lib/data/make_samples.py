"""Make the samples of MNIST and of the spoken digits again, from the full sets in the cache.

``python -m course_lib.data.make_samples FOLDER`` writes what the package carries, so that anyone
can see how it was chosen: no example was picked by hand.

Chapter: book/back/data.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from course_lib.data.mnist import PER_DIGIT, stratified
from course_lib.data.mnist import full_set as full_mnist
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


if __name__ == "__main__":
    make(Path(sys.argv[1]))
