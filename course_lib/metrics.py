"""Measures that the whole book shares: detection, calibration, uncertainty, and image distances.

One convention everywhere: label 1 means fake, which is the positive class, and label 0 means real;
a higher score means more fake; a detector raises an alarm where score >= threshold.

Scores, labels and the like are one-dimensional: torch tensors (any device), NumPy arrays or plain
sequences, computed in float64. The measures a detector is judged by are written out here, because
the course teaches them, a bootstrap calls them a thousand times, and loading scikit-learn or
torchmetrics takes a chapter seconds; the tests hold them to what those two libraries give.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Values: TypeAlias = Tensor | npt.NDArray[Any] | Sequence[float]
Array: TypeAlias = npt.NDArray[Any]


class Roc(NamedTuple):
    """A ROC curve: false and true positive rates as the threshold falls.

    All three are float64 arrays of one length. The curve starts at (0, 0), threshold infinity, and
    ends at (1, 1); every distinct score is one threshold.
    """

    fpr: Array
    tpr: Array
    thresholds: Array


class Rates(NamedTuple):
    """The share of fakes caught (``tpr``) and of real ones accused (``fpr``), both in [0, 1]."""

    tpr: float
    fpr: float


class Interval(NamedTuple):
    """The two ends of a confidence interval."""

    low: float
    high: float


def roc(scores: Values, labels: Values) -> Roc:
    """Return the ROC curve of ``scores`` (N,) against ``labels`` (N,) of 0 and 1.

    Raises ``ValueError`` for other shapes or labels, NaN, no example, or labels of one class only.
    """
    s, y = _scores_and_labels(scores, labels)
    thresholds, caught, accused = _alarms(s, y)
    start = np.zeros(1)
    return Roc(
        fpr=np.concatenate([start, accused / accused[-1]]),
        tpr=np.concatenate([start, caught / caught[-1]]),
        thresholds=np.concatenate([start + np.inf, thresholds]),
    )


def auc(scores: Values, labels: Values) -> float:
    """Return the area under the ROC curve: the chance that a fake outscores a real one, ties half.

    Raises ``ValueError`` as ``roc`` does.
    """
    fpr, tpr, _ = roc(scores, labels)
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def average_precision(scores: Values, labels: Values) -> float:
    """Return the average precision: precision at each threshold, weighted by the recall it adds.

    A random score has the share of fakes among the examples; a perfect one has 1.

    Raises ``ValueError`` as ``roc`` does.
    """
    s, y = _scores_and_labels(scores, labels)
    _, caught, accused = _alarms(s, y)
    precision = caught / (caught + accused)
    return float(np.sum(precision * np.diff(caught, prepend=0)) / caught[-1])


def equal_error_rate(scores: Values, labels: Values) -> float:
    """Return the equal error rate: where as many real ones are accused as fakes are missed.

    Few data sets have a threshold at which both rates agree exactly: between the two neighbouring
    points of the ROC curve the line is drawn straight, and the rate read where it crosses
    fpr = 1 - tpr.

    Raises ``ValueError`` as ``roc`` does.
    """
    fpr, tpr, _ = roc(scores, labels)
    gap = fpr - (1 - tpr)  # rises from -1 to 1
    after = int(np.argmax(gap >= 0))
    before = after - 1
    t = gap[before] / (gap[before] - gap[after])
    return float(fpr[before] + t * (fpr[after] - fpr[before]))


def rates_at(scores: Values, labels: Values, threshold: float) -> Rates:
    """Return the true and false positive rates of the rule ``score >= threshold``.

    Raises ``ValueError`` as ``roc`` does, and for a threshold that is NaN.
    """
    s, y = _scores_and_labels(scores, labels)
    alarm = s >= _threshold(threshold)
    return Rates(tpr=float(alarm[y == 1].mean()), fpr=float(alarm[y == 0].mean()))


def accuracy_at(scores: Values, labels: Values, threshold: float) -> float:
    """Return the share of examples that the rule ``score >= threshold`` gets right.

    Labels of one class only are fine here.

    Raises ``ValueError`` for other shapes or labels, NaN, or no example.
    """
    s, y = _scores_and_labels(scores, labels, both_classes=False)
    return float(((s >= _threshold(threshold)) == (y == 1)).mean())


def expected_calibration_error(probabilities: Values, labels: Values, *, bins: int = 15) -> float:
    """Return how far predicted probabilities of "fake" are from the frequencies observed.

    The examples fall into ``bins`` equal bins of [0, 1] by ``probabilities`` (N,); in each, the
    mean probability is compared with the share of fakes; the absolute differences are averaged with
    the bins' share of the examples as weights. Labels of one class only are fine here.

    Raises ``ValueError`` for probabilities outside [0, 1], bins < 1, and as ``accuracy_at`` does.

    Source: Guo et al. (2017), equation 3, for the event "fake" instead of "the top class is right".
    """
    p, y = _scores_and_labels(probabilities, labels, both_classes=False, name="probabilities")
    if p.min() < 0 or p.max() > 1:
        raise ValueError(
            f"probabilities: expected values in [0, 1], got [{p.min():.3g}, {p.max():.3g}]"
        )
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    which = np.minimum((p * bins).astype(np.int64), bins - 1)  # probability 1 joins the last bin
    gap = np.bincount(which, weights=p - y, minlength=bins)  # size of bin x (confidence - share)
    return float(np.abs(gap).sum() / len(p))


def precision_at_base_rate(tpr: float, fpr: float, base_rate: float) -> float:
    """Return the share of alarms that are true, where one case in ``1 / base_rate`` is a fake.

    Bayes' rule: tpr b / (tpr b + fpr (1 - b)). All three are rates in [0, 1].

    Raises ``ValueError`` for a rate out of range, or where there would never be an alarm.
    """
    for name, rate in (("tpr", tpr), ("fpr", fpr), ("base_rate", base_rate)):
        if not 0 <= rate <= 1:
            raise ValueError(f"{name}: expected a rate in [0, 1], got {rate}")
    true, false = tpr * base_rate, fpr * (1 - base_rate)
    if true + false == 0:
        raise ValueError(
            f"tpr={tpr}, fpr={fpr}, base_rate={base_rate}: no alarm is ever raised, so no share of "
            "alarms exists"
        )
    return true / (true + false)


def bootstrap_interval(
    statistic: Callable[..., float],
    *arrays: Values,
    seed: int,
    level: float = 0.95,
    n: int = 1000,
    groups: Values | None = None,
) -> Interval:
    """Return the percentile bootstrap interval of ``statistic(*arrays)``.

    ``arrays``: one or more, all of length N along their first axis, resampled together with
    replacement; tensors reach the statistic as CPU tensors, anything else as NumPy arrays.
    ``level``: the coverage aimed at, in (0, 1). ``n``: how many resamples. ``groups`` (N,): where
    given, whole groups are drawn (a person with all her photographs), which is what examples that
    are not independent need. Where two or more arrays are given and the last holds 0s and 1s, those
    are labels, and a resample that lost a class is drawn again.

    Raises ``ValueError`` for no array, lengths that differ, no example, a level or n out of range,
    a single group, a statistic that is not finite, or groups that cannot keep both classes.

    Source: Efron and Tibshirani (1993), chapter 13.
    """
    if not arrays:
        raise ValueError("arrays: expected one or more, got none")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a value in (0, 1), got {level}")
    if n < 1:
        raise ValueError(f"n: expected at least 1 resample, got {n}")
    data = [a.detach().cpu() if isinstance(a, Tensor) else np.asarray(a) for a in arrays]
    sizes = [len(a) if a.ndim else 0 for a in data]
    if len(set(sizes)) != 1 or sizes[0] == 0:
        raise ValueError(f"arrays: expected one length of 1 or more, got lengths {sizes}")
    size = sizes[0]
    members = _members(groups, size)
    labels = _as_labels(data[-1]) if len(data) > 1 else None

    rng = np.random.default_rng(seed)
    values: list[float] = []
    draws = 0
    while len(values) < n:
        draws += 1
        if draws > 100 * n:
            raise ValueError(
                f"groups: only {len(values)} of {draws - 1} resamples kept both classes; "
                "too few groups hold one of them"
            )
        if members is None:
            index = rng.integers(0, size, size)
        else:
            drawn = rng.integers(0, len(members), len(members))
            index = np.concatenate([members[g] for g in drawn])
        if labels is not None and labels[index].min() == labels[index].max():
            continue
        value = float(statistic(*(_rows(a, index) for a in data)))
        if not math.isfinite(value):
            raise ValueError(f"statistic: expected a finite number, got {value} on a resample")
        values.append(value)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Return the squared Fréchet distance of the Gaussians with the two sets' mean and covariance.

    ``features_a`` (N, F), ``features_b`` (M, F), with N and M at least 2. It is called FID only
    where the features are those of the Inception network of that paper.

    Raises ``ValueError`` for other shapes, or NaN.

    Source: Heusel et al. (2017), equation 6.
    """
    for name, features in (("features_a", features_a), ("features_b", features_b)):
        if features.ndim != 2 or len(features) < 2 or features.shape[1] == 0:
            raise ValueError(
                f"{name}: expected shape (N, F) with N >= 2, got {tuple(features.shape)}"
            )
    moments = []
    for features in (features_a, features_b):
        rows = features.detach().cpu().double()
        moments += [rows.mean(dim=0), torch.cov(rows.T).reshape(rows.shape[1], rows.shape[1])]
    return frechet_gaussians(*moments)


def frechet_gaussians(mu1: Tensor, cov1: Tensor, mu2: Tensor, cov2: Tensor) -> float:
    """Return the squared Fréchet distance of two Gaussians.

    |mu1 - mu2|^2 + tr(cov1) + tr(cov2) - 2 tr((cov1^(1/2) cov2 cov1^(1/2))^(1/2)), for means (F,)
    and covariances (F, F), in float64. The square roots come from the eigenvalues of the symmetric
    covariances, and the last trace is the sum of the singular values of cov1^(1/2) cov2^(1/2): both
    exist for singular covariances, and neither takes the root of a rounding error.

    Raises ``ValueError`` for other shapes, NaN, or a covariance that is not symmetric or has a
    negative eigenvalue.

    Source: Dowson and Landau (1982).
    """
    m1, m2 = (m.detach().cpu().double() for m in (mu1, mu2))
    if m1.ndim != 1 or m1.shape != m2.shape or len(m1) == 0:
        raise ValueError(
            f"mu1, mu2: expected one shape (F,), got {tuple(mu1.shape)} and {tuple(mu2.shape)}"
        )
    for name, mean in (("mu1", m1), ("mu2", m2)):
        if not bool(mean.isfinite().all()):
            raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    root1, root2 = (
        _symmetric_root(name, cov, len(m1)) for name, cov in (("cov1", cov1), ("cov2", cov2))
    )
    shared = torch.linalg.svdvals(root1 @ root2).sum()
    spread = root1.square().sum() + root2.square().sum() - 2 * shared
    return max(0.0, float((m1 - m2).square().sum() + spread))


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


def _vector(name: str, values: Values) -> Array:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name}: expected one dimension, got shape {array.shape}")
    if len(array) == 0:
        raise ValueError(f"{name}: expected one example or more, got none")
    return array


def _scores_and_labels(
    scores: Values, labels: Values, *, both_classes: bool = True, name: str = "scores"
) -> tuple[Array, Array]:
    s = _vector(name, scores).astype(np.float64)
    y = _vector("labels", labels)
    if len(s) != len(y):
        raise ValueError(f"{name}, labels: expected one length, got {len(s)} and {len(y)}")
    if np.isnan(s).any():
        raise ValueError(f"{name}: expected numbers, got {int(np.isnan(s).sum())} NaN in {len(s)}")
    kinds = set(np.unique(y).tolist())
    if not kinds <= {0, 1}:
        raise ValueError(f"labels: expected 0 (real) and 1 (fake), got {sorted(kinds)[:5]}")
    if both_classes and len(kinds) < 2:
        raise ValueError(f"labels: expected both classes, got only {int(kinds.pop())}")
    return s, y.astype(np.int64)


def _alarms(s: Array, y: Array) -> tuple[Array, Array, Array]:
    """Return each distinct score, falling, with the fakes caught and the real ones accused at it."""
    order = np.argsort(-s, kind="stable")
    s, y = s[order], y[order]
    last = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)  # of each run of equal scores
    caught = np.cumsum(y)[last]
    return s[last], caught, last + 1 - caught


def _threshold(threshold: float) -> float:
    if math.isnan(threshold):
        raise ValueError("threshold: expected a number, got NaN")
    return threshold


def _as_labels(values: Tensor | Array) -> Array | None:
    """Return ``values`` as labels if they are 0s and 1s, both present; otherwise None."""
    array = np.asarray(values)
    if array.ndim != 1 or set(np.unique(array).tolist()) != {0, 1}:
        return None
    return array.astype(np.int64)


def _members(groups: Values | None, size: int) -> list[Array] | None:
    if groups is None:
        return None
    ids = _vector("groups", groups)
    if len(ids) != size:
        raise ValueError(f"groups: expected length {size}, like the arrays; got {len(ids)}")
    names, which = np.unique(ids, return_inverse=True)
    if len(names) < 2:
        raise ValueError("groups: expected two groups or more, got one")
    return [np.flatnonzero(which == g) for g in range(len(names))]


def _rows(values: Tensor | Array, index: Array) -> Tensor | Array:
    return values[torch.from_numpy(index)] if isinstance(values, Tensor) else values[index]


def _symmetric_root(name: str, cov: Tensor, size: int) -> Tensor:
    if cov.shape != (size, size):
        raise ValueError(f"{name}: expected shape ({size}, {size}), got {tuple(cov.shape)}")
    c = cov.detach().cpu().double()
    if not bool(c.isfinite().all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    scale = float(c.abs().max())
    # Covariances often come from float32, whose rounding is allowed for; a sign error is not.
    if not torch.allclose(c, c.T, rtol=0.0, atol=1e-5 * scale):
        raise ValueError(f"{name}: expected a symmetric matrix")
    eigenvalues, vectors = torch.linalg.eigh((c + c.T) / 2)
    if float(eigenvalues[0]) < -1e-5 * scale:
        raise ValueError(
            f"{name}: expected no negative eigenvalue, got {float(eigenvalues[0]):.3g}"
        )
    root: Tensor = (vectors * eigenvalues.clamp_min(0).sqrt()) @ vectors.T
    return root
