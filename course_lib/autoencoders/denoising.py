"""Denoising: spoil the input, ask for the clean one back, and copying is no longer an answer.

Give ``functools.partial(corrupt, nu=0.5)`` to ``training.fit`` as its ``corrupt``.

Chapter: book/represent/constraints.md
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from course_lib.classifiers import check_examples


def corrupt(
    x: Tensor, generator: torch.Generator, *, nu: float = 0.0, sigma: float = 0.0
) -> Tensor:
    """Return ``x`` with each number set to 0 with probability ``nu``, then Gaussian noise added.

    ``x``: examples (N, ...), any range; ``nu`` in [0, 1]; ``sigma`` >= 0, the noise's standard
    deviation in the units of ``x``. The result has the shape, dtype and device of ``x`` and is
    **not** clipped: images in [0, 1] leave it, and what the noise did can still be undone by
    averaging. Numbers are drawn where ``generator`` is, so a CPU generator spoils alike everywhere.

    Raises ``ValueError`` for no example, NaN, or ``nu`` or ``sigma`` out of range.
    Source: Vincent et al., "Extracting and composing robust features with denoising autoencoders",
    2008, section 2.3, masks a fixed share of each example, here each number falls by itself; Vincent
    et al., "Stacked denoising autoencoders", 2010, section 3.3 (masking and Gaussian noise).
    """
    check_examples("x", x)
    if not 0 <= nu <= 1:
        raise ValueError(f"nu: expected a probability in [0, 1], got {nu}")
    if not 0 <= sigma < math.inf:
        raise ValueError(f"sigma: expected a standard deviation from 0, got {sigma}")
    noisy = x
    if nu > 0:
        drawn = torch.rand(x.shape, generator=generator, device=generator.device)
        noisy = noisy * (drawn >= nu).to(x)
    if sigma > 0:
        drawn = torch.randn(x.shape, generator=generator, device=generator.device)
        noisy = noisy + sigma * drawn.to(x)
    return noisy.clone() if noisy is x else noisy
