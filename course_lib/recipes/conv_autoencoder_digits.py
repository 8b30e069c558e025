"""Convolutional autoencoders of digits, trained exactly as the dense ones are.

Chapter: book/represent/convolutional.md
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from course_lib.autoencoders import networks
from course_lib.recipes import Progress
from course_lib.recipes.autoencoder_digits import SHAPE, STEPS, race

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train a convolutional autoencoder for each code size, three times over; keep those of the
    first seed."""
    return race(
        partial(networks.convolutional, SHAPE),
        fabric,
        seed=seed,
        steps=STEPS if steps is None else steps,
        about={
            "summary": "Three convolutional autoencoders of digits, with codes of 2, 8 and 32 "
            "numbers. The measures are squared distances on unseen digits, for the seed that is kept "
            "and two more.",
            "architecture": "course_lib.autoencoders.networks.convolutional, 16 channels, in an "
            "nn.ModuleDict by code size",
        },
    )
