"""How a detector is judged: ranking, rates at a threshold, calibration, and their uncertainty.

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
from statistics import NormalDist
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


def wilson_interval(count: float, of: int, *, level: float = 0.95) -> Interval:
    """Return the interval in which a share lies of which ``count`` in ``of`` trials were seen.

    It stays inside [0, 1] and is not empty where ``count`` is 0 or ``of``: from no alarm among 175
    images it does not follow that there never is one. ``count``: in [0, of]; ``level``: the coverage
    aimed at, in (0, 1).

    Raises ``ValueError`` for values out of range.
    Source: Wilson (1927), "Probable inference, the law of succession, and statistical inference".
    """
    if of < 1 or not 0 <= count <= of:
        raise ValueError(f"count, of: expected of >= 1 and count in [0, of], got {count}, {of}")
    if not 0 < level < 1:
        raise ValueError(f"level: expected a value in (0, 1), got {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    share = count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


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
