"""The generator of portraits once more, from another seed: the same kind, another individual.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from course_lib.recipes import Progress, dcgan_portraits

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric


def run(
    fabric: Fabric, *, seed: int = 0, steps: int | None = None, state: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train ``dcgan-portraits`` from the next seed."""
    return dcgan_portraits.variant(fabric, seed=seed + 1, steps=steps, state=state)
