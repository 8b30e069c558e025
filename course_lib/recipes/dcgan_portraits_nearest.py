"""The generator of portraits once more, with nearest-neighbour enlarging for transposed convolutions.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from course_lib.recipes import Progress, dcgan_portraits

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 1_200


def run(
    fabric: Fabric, *, seed: int = 0, steps: int | None = None, state: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train ``dcgan-portraits`` with each map's pixels repeated, for two thirds of its steps."""
    steps = STEPS if steps is None else steps
    for progress in dcgan_portraits.run(
        fabric, seed=seed, steps=steps, state=state, upsampling="nearest"
    ):
        yield replace(progress, film=None)  # one film of such a training is enough
