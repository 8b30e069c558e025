"""Small remedies for a game that fails: each changes one player or one loss, and nothing else.

``smoothed`` and ``feature_matching`` turn an objective into another; ``MinibatchDiscrimination`` and
``InstanceNoise`` are layers of the discriminator. The penalty R1 is in ``penalties``, the averaged
generator in ``training``.

Chapter: book/generate/failing.md
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from course_lib.gans.networks import check_sizes
from course_lib.gans.objectives import Objective, non_saturating

#: ``features(discriminator, x (N, ...))``: what the discriminator sees in each sample, (N, ...).
Features = Callable[[Any, Tensor], Tensor]


def smoothed(objective: Objective, real_target: float = 0.9) -> Objective:
    """Return ``objective`` with one-sided label smoothing: a real sample is to get ``real_target``.

    ``objective``: one whose discriminator minimises the log-loss of logits. ``real_target``: above
    1/2, at most 1; at 1 nothing changes. Fakes keep the target 0, and G's loss stays as it is. The
    best discriminator is then ``real_target`` p / (p + q): were fakes smoothed too, q would stand in
    its numerator, and it would praise fakes where there is no real data.

    Raises ``ValueError`` for another target, and for an objective with other scores than logits.
    Source: Salimans et al. 2016, section 3.4.
    """
    if objective.scores != "logits":
        raise ValueError(
            f"objective: expected the log-loss of logits, whose targets are probabilities; "
            f"got {objective.name!r} with {objective.scores}"
        )
    if not 0.5 < real_target <= 1:
        raise ValueError(f"real_target: expected 1/2 < real_target <= 1, got {real_target}")

    def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        # -a log D - (1 - a) log(1 - D) = -log D + (1 - a) l, because log D - log(1 - D) = l.
        loss = objective.discriminator_loss(real_logits, fake_logits)
        return loss + (1 - real_target) * _full(real_logits).mean()

    return replace(
        objective,
        name=f"{objective.name}, real target {real_target:g}",
        discriminator_loss=discriminator_loss,
    )


def feature_matching(
    objective: Objective = non_saturating, weight: float = 1.0, features: Features | None = None
) -> Objective:
    """Return ``objective`` with another aim for G: fakes whose mean features are those of real data.

    G's loss becomes ``weight`` |E f(x) - E f(G(z))|^2, and D's stays. ``features(discriminator, x)``
    returns f(x), (N, ...), differentiable in x; by default it is ``discriminator.features(x)``.

    Raises ``ValueError`` for a weight that is not positive, and when it is first used for a
    discriminator without ``features`` or for features that are not one row per sample.
    Source: Salimans et al. 2016, section 3.1.
    """
    if not (weight > 0 and math.isfinite(weight)):
        raise ValueError(f"weight: expected a positive number, got {weight}")
    f = _own_features if features is None else features

    def penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        difference = _mean(f(discriminator, real), real) - _mean(f(discriminator, fake), fake)
        return weight * difference.square().sum()

    return replace(
        objective,
        name=f"{objective.name}, feature matching",
        generator_loss=_nothing,
        generator_penalty=penalty,
    )


class MinibatchDiscrimination(nn.Module):
    """A layer that tells each sample how close the others in its batch are: (N, A) to (N, A + B).

    Features f (N, A) become matrices M_i = f_i T (B, C), and B numbers are put behind each f_i:
    o_ib = sum_j exp(-|M_ib - M_jb|_1), over all j of the batch. The sum is the paper's: j = i is in
    it and adds 1 to each, so that a batch of n equal samples gives n, and one of samples far apart 1.
    Real and fake samples have to come in batches of their own, as ``training.train_gan`` passes them.
    A score then depends on its whole batch: gradient penalties, which need one slope per sample, cannot
    be used with it.

    ``features``: A; ``kernels``: B; ``dims``: C. T starts at N(0, 1 / A), drawn from ``generator``.

    Raises ``ValueError`` for a size below 1 and for features of another shape.
    Source: Salimans et al. 2016, section 3.2.
    """

    def __init__(
        self,
        features: int,
        kernels: int = 16,
        dims: int = 4,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(features=features, kernels=kernels, dims=dims)
        self.T = nn.Parameter(torch.empty(features, kernels, dims))
        nn.init.normal_(self.T, std=features**-0.5, generator=generator)

    def forward(self, f: Tensor) -> Tensor:
        """Return f with the closeness to its batch behind it: (N, A) to (N, A + B), B from 1 to N."""
        if f.ndim != 2 or f.shape[1] != len(self.T) or len(f) == 0:
            raise ValueError(f"f: expected shape (N, {len(self.T)}), got {tuple(f.shape)}")
        M = _full(torch.einsum("na,abc->bnc", f, self.T))
        distance = torch.cdist(M, M, p=1)  # (B, N, N)
        o = torch.exp(-distance).sum(2).T
        return torch.cat([f, o.to(f.dtype)], dim=1)


class InstanceNoise(nn.Module):
    """Gaussian noise on all that the discriminator sees, real and fake alike: put it in front of it.

    It blurs both densities, so that they overlap and the best discriminator has a slope everywhere.
    ``sigma``: its standard deviation, in units of the samples; set it anew between rounds to anneal
    it. ``generator``: on the CPU; the noise is drawn there and moved. In evaluation mode nothing is
    added.

    Raises ``ValueError`` for a sigma that is negative or not finite, here and when it is set.
    Source: Sønderby et al. 2017, section 2; Arjovsky and Bottou 2017, section 3.
    """

    def __init__(self, sigma: float, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator
        self.sigma = sigma

    @property
    def sigma(self) -> float:
        """The standard deviation of the noise."""
        return self._sigma

    @sigma.setter
    def sigma(self, value: float) -> None:
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"sigma: expected a number >= 0, got {value}")
        self._sigma = value

    def forward(self, x: Tensor) -> Tensor:
        """Return x (N, ...) with fresh noise, in training mode; otherwise x itself."""
        if not self.training or self.sigma == 0:
            return x
        noise = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
        return x + self.sigma * noise.to(x.device)


def _own_features(discriminator: nn.Module, x: Tensor) -> Tensor:
    features = getattr(discriminator, "features", None)
    if not callable(features):
        raise ValueError(
            f"discriminator: expected one with a method features(x), got a "
            f"{type(discriminator).__name__}; or pass features=..."
        )
    found: Tensor = features(x)
    return found


def _mean(features: Tensor, x: Tensor) -> Tensor:
    if features.ndim < 2 or len(features) != len(x):
        raise ValueError(
            f"features: expected one row per sample, ({len(x)}, ...), got {tuple(features.shape)}"
        )
    return _full(features).mean(0)


def _nothing(fake_scores: Tensor) -> Tensor:
    return fake_scores.new_zeros(())


def _full(x: Tensor) -> Tensor:
    """Return x in single precision if it is in half, under autocast, and as it is otherwise."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
