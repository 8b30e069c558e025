"""Sparsity: every unit of the code is to be active for few examples, a share rho of the time.

Chapter: book/represent/constraints.md
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class RunningMean:
    """The mean activation of each unit over the batches so far, older ones counting less.

    ``decay`` in [0, 1): how much of the old mean each new batch leaves; about 1 / (1 - decay) batches
    are remembered. ``value``: (k,), none before the first batch.

    Raises ``ValueError`` for a decay out of range.
    """

    decay: float = 0.99
    value: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse a decay that remembers nothing but the start, or is no share."""
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay: expected a share in [0, 1), got {self.decay}")

    def update(self, mean: Tensor) -> Tensor:
        """Take in the mean (k,) of one more batch and return the mean so far (k,), no gradient.

        Raises ``ValueError`` for another shape or number of units than before, or values outside [0, 1].
        """
        if mean.ndim != 1:
            raise ValueError(f"mean: expected shape (k,), got {tuple(mean.shape)}")
        _check_shares("mean", mean)
        mean = mean.detach()
        if self.value is None:
            self.value = mean
        elif self.value.shape != mean.shape:
            raise ValueError(
                f"running: holds the means of {len(self.value)} units, the code has {len(mean)}"
            )
        self.value = self.decay * self.value.to(mean) + (1 - self.decay) * mean
        return self.value


def kl(rho: float, rho_hat: Tensor) -> Tensor:
    """Return KL(rho || rho_hat), how badly a coin of chance rho_hat stands for one of chance rho.

    rho log(rho / rho_hat) + (1 - rho) log((1 - rho) / (1 - rho_hat)), in nats: 0 where the two agree,
    growing away from it on both sides. ``rho`` in (0, 1); ``rho_hat``: any shape, in [0, 1]. At 0 and 1
    the formula is infinite; there the result is large, with a finite gradient that points back.

    Raises ``ValueError`` for values out of range or NaN.
    """
    _check_rho(rho)
    if not rho_hat.is_floating_point():
        raise ValueError(f"rho_hat: expected a float tensor, got {rho_hat.dtype}")
    _check_shares("rho_hat", rho_hat)
    # A hair inside [0, 1], by a straight line: a clamp would have no gradient where it is needed.
    eps = torch.finfo(rho_hat.dtype).eps
    rho_hat = eps + (1 - 2 * eps) * rho_hat
    return rho * (rho / rho_hat).log() + (1 - rho) * ((1 - rho) / (1 - rho_hat)).log()


def sparse_penalty(code: Tensor, rho: float, *, running: RunningMean | None = None) -> Tensor:
    """Return the sum over the units j of KL(rho || rho_hat_j), rho_hat_j being unit j's mean.

    ``code``: (N, k), or maps (N, k, H, W) whose unit is the map, in [0, 1] as a sigmoid's.
    ``rho`` in (0, 1): the share of full activity that each unit is to have on average.

    rho_hat should be the mean over all examples. Without ``running`` it is the mean over this batch,
    which is right for large batches. In a small one it is a noisy guess, and as the KL is bent, noise
    costs: units are made to be rho for *every* example, and say nothing. With ``running`` the KL is
    taken at the mean over many batches, and its gradient goes through this batch's mean, at full
    strength; that works for a batch of any size, a single example included.

    Raises ``ValueError`` for no example or unit, a code outside [0, 1], NaN, rho out of
    range, or a ``running`` mean of another number of units.
    Source: Ng, "Sparse autoencoder", CS294A lecture notes, 2011, section 3; Lee, Ekanadham and Ng,
    "Sparse deep belief net model for visual area V2", 2008, for a mean that has to be small.
    """
    _check_rho(rho)  # before a running mean has taken the batch in
    if not code.is_floating_point() or code.ndim < 2 or code.numel() == 0:
        raise ValueError(
            f"code: expected a float tensor of shape (N, k, ...) with N, k > 0, "
            f"got {code.dtype} {tuple(code.shape)}"
        )
    _check_shares("code", code)
    mean = code.transpose(0, 1).flatten(1).mean(1)
    if running is None:
        return kl(rho, mean).sum()
    # The value of the running mean, the gradient of the batch's.
    return kl(rho, running.update(mean) + (mean - mean.detach())).sum()


def _check_rho(rho: float) -> None:
    if not 0 < rho < 1:
        raise ValueError(f"rho: expected a share in (0, 1), got {rho}")


def _check_shares(name: str, values: Tensor) -> None:
    if not bool(((values >= 0) & (values <= 1)).all()):  # not so for NaN either
        low, high = float(values.min()), float(values.max())
        raise ValueError(
            f"{name}: expected values in [0, 1], as a sigmoid's; got [{low:.3g}, {high:.3g}]"
        )
