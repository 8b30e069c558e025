"""What is added to a player's loss: gradient penalties for discriminators, a repelling one for EBGAN.

A gradient penalty looks at the slope of each score with respect to its own example, so every score
must depend on one example alone. Batch normalisation breaks that while it trains, and is refused.

Chapter: book/generate/zoo.md
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:  # objectives imports this module
    from course_lib.gans.objectives import Score


def gradient_penalty(
    score: Score,
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator | None = None,
    *,
    weight: float = 10.0,
) -> Tensor:
    """Return WGAN-GP's penalty, weight E[(|grad D(x_hat)| - 1)^2], a scalar.

    x_hat = epsilon x + (1 - epsilon) G(z) with one epsilon from U[0, 1] per example, drawn from
    ``rng`` on the CPU; the norm is Euclidean, over all numbers of an example together.
    ``score``: samples (N, ...) to scores (N,) or (N, 1), as the discriminator; ``real``, ``fake``:
    equal shapes (N, ...), floating point, in any units. The result has gradients for the weights
    behind ``score``, none for ``real`` and ``fake``. NaN passes, for the training loop to report.

    Raises ``ValueError`` for unequal shapes, an empty or non-floating batch, a negative weight, scores
    that are not one per example or do not depend on it, and batch norm in training mode.
    Source: Gulrajani et al. 2017, equation 3 and Algorithm 1.
    """
    _check_batch("real", real)
    _check_batch("fake", fake)
    if fake.shape != real.shape:
        raise ValueError(
            f"fake: expected the shape of real, {tuple(real.shape)}, got {tuple(fake.shape)}"
        )
    _check_size("weight", weight)
    epsilon = torch.rand(len(real), *[1] * (real.ndim - 1), generator=rng).to(real)
    x_hat = epsilon * real.detach() + (1 - epsilon) * fake.detach()
    return weight * (slope_norms(score, x_hat) - 1).square().mean()


def dragan_penalty(
    score: Score,
    real: Tensor,
    fake: Tensor,
    rng: torch.Generator | None = None,
    *,
    weight: float = 10.0,
    spread: float = 0.5,
) -> Tensor:
    """Return DRAGAN's penalty, weight E[(|grad D(x + delta)| - 1)^2], a scalar: only around the data.

    delta ~ N(0, c I), as in the paper; sqrt(c) is ``spread`` standard deviations of the numbers in
    the batch ``real``, the scale of the authors' published code. (That code draws delta otherwise: as
    a uniform share of uniform noise, which only ever brightens an image.) ``fake`` is not used; the
    rest is as in ``gradient_penalty``.

    Raises ``ValueError`` as ``gradient_penalty`` does, and for a negative spread.
    Source: Kodali et al. 2017, Algorithm 1.
    """
    _check_batch("real", real)
    _check_size("weight", weight)
    _check_size("spread", spread)
    x = real.detach()
    sigma = spread * x.std(unbiased=False)
    delta = sigma * torch.randn(x.shape, generator=rng).to(x)
    return weight * (slope_norms(score, x + delta) - 1).square().mean()


def r1(gamma: float) -> Callable[[Score, Tensor, Tensor, torch.Generator | None], Tensor]:
    """Return the penalty (gamma / 2) E[|grad D(x)|^2] on real examples x, for an objective to hold.

    It pulls the slopes to 0, not to 1: at the equilibrium D is flat on the data. What it returns takes
    ``(score, real, fake, rng)``, as ``gradient_penalty`` does, and draws nothing.

    Raises ``ValueError`` for a negative gamma; the penalty, as ``gradient_penalty`` does.
    Source: Mescheder et al. 2018, equation 9.
    """
    _check_size("gamma", gamma)

    def penalty(
        score: Score,
        real: Tensor,
        fake: Tensor,
        rng: torch.Generator | None = None,
    ) -> Tensor:
        _check_batch("real", real)
        return gamma / 2 * slopes(score, real).square().sum(dim=1).mean()

    return penalty


def slopes(score: Score, x: Tensor) -> Tensor:
    """Return the gradient of each example's score with respect to it, flattened to (N, d).

    It can be differentiated again, with respect to the weights behind ``score``. Arguments and errors:
    as in ``gradient_penalty``.
    """
    _check_batch("x", x)
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        scores = score(x)
        if not isinstance(scores, Tensor) or scores.numel() != len(x):
            came = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise ValueError(f"score: expected {len(x)} scores, one per example, got {came}")
        _refuse_batch_norm(scores)
        # The sum's gradient holds every example's own, because no score depends on another example.
        (gradient,) = (
            torch.autograd.grad(scores.sum(), x, create_graph=True, allow_unused=True)
            if scores.requires_grad
            else (None,)
        )
    if gradient is None:
        raise ValueError("score: expected scores that depend on the examples; no gradient arrives")
    return gradient.flatten(1)


def slope_norms(score: Score, x: Tensor) -> Tensor:
    """Return |grad D(x)| for each example, (N,): the Euclidean norm over all of its numbers."""
    norms: Tensor = torch.linalg.vector_norm(slopes(score, x), dim=1)
    return norms


def pulling_away(codes: Tensor) -> Tensor:
    """Return EBGAN's pulling-away term, the mean squared cosine of two codes of a batch: 0 to 1.

    ``codes``: (N, k), floating point, N at least 2; the mean is over all pairs i != j. A code of
    length 0 has no direction, and counts as orthogonal to all.

    Raises ``ValueError`` for another shape, fewer than two codes, or a tensor that is not floating.
    Source: Zhao et al. 2017, section 2.4.
    """
    if codes.ndim != 2 or len(codes) < 2 or codes.shape[1] < 1 or not codes.is_floating_point():
        raise ValueError(
            f"codes: expected a float tensor (N, k) with N >= 2, k >= 1; "
            f"got {codes.dtype} {tuple(codes.shape)}"
        )
    directions = F.normalize(codes, dim=1)
    squared_cosines = (directions @ directions.T).square()
    n = len(codes)
    return (squared_cosines.sum() - squared_cosines.diagonal().sum()) / (n * (n - 1))


def repelling(
    discriminator: nn.Module, real: Tensor, fake: Tensor, *, weight: float = 0.1
) -> Tensor:
    """Return ``weight`` times the pulling-away term of the codes of ``fake``, a scalar.

    ``discriminator`` has ``encode(x)``, samples (N, ...) to codes (N, k), as in
    ``course_lib.gans.energy``; the gradient flows through it to the generator that made ``fake``.

    Raises ``ValueError`` for a discriminator without ``encode``, and as ``pulling_away``.
    Source: Zhao et al. 2017, section 2.4; the weight is that of its experiments on digits.
    """
    _check_size("weight", weight)
    encode = getattr(discriminator, "encode", None)
    if encode is None:
        raise ValueError(
            "discriminator: expected one with encode(x), an autoencoder of course_lib.gans.energy; "
            f"got {type(discriminator).__name__}"
        )
    return weight * pulling_away(encode(fake))


def _refuse_batch_norm(scores: Tensor) -> None:
    """Look for batch norm in the graph, where it is found behind any function and wrapper."""
    seen: set[Any] = set()
    waiting: list[Any] = [scores.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if "BatchNorm" in node.name() and getattr(node, "_saved_training", True):
            raise ValueError(
                "score: expected a discriminator without batch normalisation, which makes each score "
                "depend on the whole batch, so that there is no slope per example; leave it out "
                "(batch_norm=False) or use layer normalisation"
            )
        waiting += [following for following, _ in node.next_functions]


def _check_batch(name: str, x: Tensor) -> None:
    if not x.is_floating_point() or x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"{name}: expected a float tensor of shape (N, ...) with N > 0, "
            f"got {x.dtype} {tuple(x.shape)}"
        )


def _check_size(name: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name}: expected a finite number, at least 0, got {value}")
