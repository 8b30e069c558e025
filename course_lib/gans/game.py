"""The game on worlds so small that its answers are known: densities on a line, points in a plane.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def optimal_discriminator(p: Tensor, q: Tensor) -> Tensor:
    """Return D*(x) = p(x) / (p(x) + q(x)), the best answer to a generator whose density is q.

    ``p``, ``q``: densities of the real and the generated data at the same points, equal shapes,
    never negative. NaN where both are 0: there any answer is as good.

    Raises ``ValueError`` for unequal shapes or a negative density.
    Source: Goodfellow et al. 2014, proposition 1.
    """
    _check_densities(p, q)
    return p / (p + q)


def game_value(logits: Tensor, p: Tensor, q: Tensor, spacing: float) -> Tensor:
    """Return V(D, G) = E_p[log D(x)] + E_q[log(1 - D(x))], in nats, from values on a grid.

    ``logits``: D's logits at the points, log(D / (1 - D)), infinite ones allowed; ``p``, ``q``:
    densities; all (..., N) on a grid whose points are ``spacing`` apart, wide enough that hardly
    any mass lies outside. Returns (...). The discriminator's log-loss is -V.

    Raises ``ValueError`` for unequal shapes, NaN among the logits, or a density that does not sum
    to 1 (within 1 %) on this grid.
    Source: Goodfellow et al. 2014, equations 1 and 3.
    """
    _check_densities(p, q, spacing)
    if logits.shape != p.shape:
        raise ValueError(f"logits: expected shape {tuple(p.shape)}, got {tuple(logits.shape)}")
    if bool(logits.isnan().any()):
        raise ValueError("logits: expected numbers, got NaN")
    # Where a density is 0, even D's worst error costs nothing.
    zero = p.new_zeros(())
    real = torch.where(p > 0, p * F.logsigmoid(logits), zero)
    fake = torch.where(q > 0, q * F.logsigmoid(-logits), zero)
    return (real + fake).sum(-1) * spacing


def jensen_shannon(p: Tensor, q: Tensor, spacing: float) -> Tensor:
    """Return the Jensen-Shannon divergence of two densities on a grid, in nats: 0 to ln 2.

    JSD(p, q) = KL(p, m) / 2 + KL(q, m) / 2 with m = (p + q) / 2. ``p``, ``q``: (..., N) on a grid
    whose points are ``spacing`` apart. Returns (...). At the best discriminator the game's value is
    2 JSD(p, q) - 2 ln 2.

    Raises ``ValueError`` for unequal shapes, a negative density, or one that does not sum to 1
    (within 1 %) on this grid.
    Source: Lin 1991, equation 3.1; Goodfellow et al. 2014, equation 6.
    """
    _check_densities(p, q, spacing)
    m = (p + q) / 2
    # xlogy(0, 0) is 0, as the limit of p log p wants it.
    kl_sum = torch.xlogy(p, p) + torch.xlogy(q, q) - torch.xlogy(p, m) - torch.xlogy(q, m)
    return kl_sum.sum(-1) * spacing / 2


def ring_centres(modes: int = 8, radius: float = 1.0) -> Tensor:
    """Return ``modes`` points evenly spaced on a circle around the origin, (modes, 2).

    Raises ``ValueError`` for fewer than one mode or a radius that is not positive.
    """
    if modes < 1 or not radius > 0:
        raise ValueError(f"expected modes >= 1 and radius > 0, got {modes} and {radius}")
    angles = torch.arange(modes) * (2 * math.pi / modes)
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def around(centres: Tensor, n: int, spread: float, generator: torch.Generator) -> Tensor:
    """Draw ``n`` points, (n, 2), each from a Gaussian around a randomly chosen centre.

    ``centres``: (modes, 2), all equally likely; ``spread``: standard deviation in each direction.

    Raises ``ValueError`` for no points, no centres or a negative spread.
    """
    if n < 1 or centres.ndim != 2 or len(centres) == 0 or spread < 0:
        raise ValueError(
            f"expected n >= 1, centres (modes, 2) and spread >= 0; "
            f"got {n}, {tuple(centres.shape)} and {spread}"
        )
    which = torch.randint(len(centres), (n,), generator=generator)
    return centres[which] + spread * torch.randn(n, centres.shape[1], generator=generator)


def _check_densities(p: Tensor, q: Tensor, spacing: float | None = None) -> None:
    if p.shape != q.shape or p.numel() == 0:
        raise ValueError(
            f"p, q: expected equal, non-empty shapes, got {tuple(p.shape)}, {tuple(q.shape)}"
        )
    for name, density in (("p", p), ("q", q)):
        if not bool((density >= 0).all()):
            raise ValueError(f"{name}: expected a density that is never negative (or NaN)")
        if spacing is not None:
            mass = density.sum(-1) * spacing
            if not bool(((mass - 1).abs() < 0.01).all()):
                raise ValueError(
                    f"{name}: expected a density that sums to 1 on this grid, got "
                    f"{float(mass.flatten()[0]):.4g}; is the grid too narrow, or spacing wrong?"
                )
