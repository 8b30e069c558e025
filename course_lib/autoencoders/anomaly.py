"""Finding what does not fit: an autoencoder trained on the normal rebuilds the abnormal badly.

The score of an example is its reconstruction error; a threshold, chosen on normal examples alone,
says how often a normal one may raise an alarm.

Chapter: book/represent/anomalies.md
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib.classifiers import check_examples, evaluating

#: Examples (N, *shape) to their reconstructions, of the same shape.
Reconstruct = Callable[[Tensor], Tensor]


def standardise(x: Tensor) -> Tensor:
    """Give each example (N, *shape) mean 0 and variance 1: its shape stays, gain and offset go.

    standardise(c * x + b) = standardise(x) for every c > 0 and b, one pair for each example or one
    for all.

    Raises ``ValueError`` for another dtype, no example or NaN, and for an example that is constant
    (up to rounding), which has no shape: a flat line is an alarm of its own.
    """
    check_examples("x", x)
    flat = x.flatten(start_dim=1)
    centred = flat - flat.mean(dim=1, keepdim=True)
    spread = centred.square().mean(dim=1, keepdim=True).sqrt()
    rounding = 8 * torch.finfo(x.dtype).eps * flat.abs().amax(dim=1, keepdim=True)
    constant = (spread <= rounding).flatten()
    if bool(constant.any()):
        raise ValueError(
            f"x: expected examples that vary, but example {int(constant.int().argmax())} is constant"
        )
    return (centred / spread).reshape(x.shape)


def pointwise_error(model: Reconstruct, x: Tensor, *, normalise: bool = False) -> Tensor:
    """Return (x - x_hat)^2 for each number of each example, (N, *shape): where it does not fit.

    ``model``: anything that turns (N, *shape) into (N, *shape); a module is run in evaluation mode,
    without gradients, and left as it was found. ``normalise``: each example is standardised first,
    which suits a model that was trained on standardised examples.

    Raises ``ValueError`` for another dtype, no example, NaN, a reconstruction of another shape, and
    with ``normalise`` for a constant example.
    """
    check_examples("x", x)
    given = standardise(x) if normalise else x
    with torch.no_grad():
        if isinstance(model, nn.Module):
            with evaluating(model):
                rebuilt: Tensor = model(given)
        else:
            rebuilt = model(given)
        if rebuilt.shape != given.shape:
            raise ValueError(
                f"model: expected a reconstruction of shape {tuple(given.shape)}, "
                f"got {tuple(rebuilt.shape)}"
            )
        error: Tensor = (given - rebuilt).square()
    return error


def anomaly_score(model: Reconstruct, x: Tensor, *, normalise: bool = False) -> Tensor:
    """Return the mean of (x - x_hat)^2 over the numbers of each example, (N,): high means strange.

    With ``normalise`` the score is that of the standardised example: the share of its own variance
    that the model misses, the same for x and for c * x + b with c > 0. Without, it is in the squared
    units of ``x``, and louder is stranger.

    Raises ``ValueError`` as ``pointwise_error`` does.
    """
    return pointwise_error(model, x, normalise=normalise).flatten(start_dim=1).mean(dim=1)


def threshold(scores: Tensor, *, false_alarms: float = 0.05) -> float:
    """Return the smallest t for which ``score >= t`` accuses a normal example that rarely.

    ``scores``: (N,), of normal examples that took no part in training. ``false_alarms``: alpha, in
    (0, 1). t is just above the k-th smallest score, k = ceil((N + 1) (1 - alpha)). If the N and one
    more are exchangeable, that one is accused with a probability of at most alpha, on average over
    the draw of the N, whatever the distribution; the plain quantile has no + 1 and promises less.

    Raises ``ValueError`` for another shape or dtype, NaN, alpha out of range, or fewer scores than
    1 / alpha - 1, with which nothing can be promised.

    Source: Vovk, Gammerman and Shafer (2005), chapter 2, on conformal prediction; Laxhammar and
    Falkman (2011) for anomalies.
    """
    if scores.ndim != 1 or not scores.is_floating_point() or len(scores) == 0:
        raise ValueError(
            f"scores: expected float scores of shape (N,) with N > 0, "
            f"got {scores.dtype} {tuple(scores.shape)}"
        )
    if not bool(scores.isfinite().all()):
        raise ValueError("scores: expected finite values, got NaN or infinity")
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms: expected a share in (0, 1), got {false_alarms}")
    n = len(scores)
    k = math.ceil((n + 1) * (1 - false_alarms) - 1e-9)  # 0.55 * 100 is a hair above 55
    if k > n:
        needed = math.ceil(1 / false_alarms - 1 - 1e-9)
        raise ValueError(
            f"scores: expected at least {needed} for false_alarms = {false_alarms}, got {n}"
        )
    kth = scores.detach().sort().values[k - 1]
    return float(torch.nextafter(kth, torch.full_like(kth, math.inf)))  # a tie is no alarm
