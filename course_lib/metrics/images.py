"""How far two batches of images are from each other, pixel by pixel.

Chapter: book/represent/autoencoders.md
"""

from __future__ import annotations

import math

from torch import Tensor


def mse(a: Tensor, b: Tensor) -> float:
    """Return the mean squared difference of ``a`` and ``b``, of one shape, over all their numbers.

    Raises ``ValueError`` for shapes that differ, no number, or NaN.
    """
    if a.shape != b.shape or a.numel() == 0:
        raise ValueError(
            f"a, b: expected one shape with one number or more, "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    for name, value in (("a", a), ("b", b)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return float((a.detach().double() - b.detach().double()).square().mean())


def psnr(a: Tensor, b: Tensor, *, peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio of two batches of images, in decibel.

    10 log10(peak^2 / mse), with the mean squared error taken over the whole batch; infinite where
    the images are identical. ``peak``: the largest value a pixel can have.

    Raises ``ValueError`` as ``mse`` does, and for a peak that is not positive.
    """
    if not (math.isfinite(peak) and peak > 0):
        raise ValueError(f"peak: expected a positive number, got {peak}")
    error = mse(a, b)
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)
