"""Digits on demand from an auxiliary classifier GAN: as cgan-digits, but for the discriminator.

Chapter: book/generate/conditional.md
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from course_lib import device
from course_lib.gans import acgan, objectives
from course_lib.recipes import Progress
from course_lib.recipes.cgan_digits import CHANNELS, CLASSES, LATENT, STEPS, train

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric


def run(
    fabric: Fabric, *, seed: int = 0, steps: int | None = None, state: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train G(z, y) and D(x) with its classifier, for as many steps as cgan-digits, and at its rate."""
    G, D = acgan.digit_players(LATENT, CHANNELS, CLASSES, generator=device.generator(seed))
    yield from train(
        fabric,
        G,
        D,
        dataclasses.replace(objectives.non_saturating, auxiliary=acgan.auxiliary()),
        seed=seed,
        steps=STEPS if steps is None else steps,
        state=state,
        about={
            "summary": "A generator of handwritten digits on demand, trained by an auxiliary "
            "classifier: 32 numbers of noise and a digit from 0 to 9 to a 28x28 image.",
            "architecture": "course_lib.gans.cgan.digit_generator(latent=32, channels=32), trained "
            "against course_lib.gans.acgan's discriminator, weight 1; the running average of its "
            "weights, in half precision",
        },
    )
