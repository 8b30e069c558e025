"""Judging a detector: splits that do not leak, thresholds, intervals, and the search for shortcuts.

As everywhere in the course: label 1 is "generated" (fake), label 0 real, a higher score means "more
likely generated", and a detector raises an alarm where score >= threshold.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from course_lib import metrics
from course_lib.detection.processing import check_images

Array = npt.NDArray[Any]


def split_by_group(
    group: Tensor, fractions: Sequence[float] = (0.72, 0.14, 0.14), *, seed: int
) -> tuple[Tensor, ...]:
    """Split N examples so that no group (person, video, source) lies in two parts.

    ``group``: (N,) integers; ``fractions``: share of the *groups* for each part, summing to 1; the
    default is FaceForensics++'s 720, 140 and 140 of 1,000 videos (Roessler et al. 2019). Returns one
    tensor of ascending indices per part; together they hold every example once. The same ``seed`` gives
    the same split.

    Raises ``ValueError`` for another shape or dtype, fractions that are not positive or do not sum to
    1, and too few groups for every part to get one.
    """
    _check_integers("group", group)
    if len(fractions) == 0 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(f"fractions: expected positive numbers that sum to 1, got {fractions}")
    names, member = torch.unique(group.cpu(), return_inverse=True)
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(seed))
    # Rounding the running sum, not each share: the parts then always add up to all groups.
    ends = [round(sum(fractions[: i + 1]) * len(names)) for i in range(len(fractions))]
    parts = [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    if any(len(part) == 0 for part in parts):
        raise ValueError(
            f"group: {len(names)} groups are too few for parts of {', '.join(map(str, fractions))}"
        )
    return tuple(torch.isin(member, part).nonzero().squeeze(1) for part in parts)


def threshold_at(scores_real: Tensor, false_positive_rate: float) -> float:
    """Return the lowest threshold at which at most this share of the real images raises an alarm.

    ``scores_real``: (N,), of real images only, from the validation part: a threshold chosen on the
    test images measures nothing. ``false_positive_rate``: in [0, 1); below 1/N it lets none of these N
    raise an alarm.

    Raises ``ValueError`` for another shape, scores that are not finite, or a rate out of range.
    """
    _check_scores("scores_real", scores_real)
    if not 0 <= false_positive_rate < 1:
        raise ValueError(
            f"false_positive_rate: expected a rate in [0, 1), got {false_positive_rate}"
        )
    # A hair more than the product, which may be 4.999999 where 5 is meant.
    allowed = int(false_positive_rate * len(scores_real) + 1e-9)
    highest = torch.sort(scores_real.detach().cpu(), descending=True).values[allowed]
    # An alarm is raised *at* the threshold, so it lies just above the first score that must not; in
    # the scores' own precision, or comparing would round it down to that score again.
    return float(torch.nextafter(highest, torch.full_like(highest, math.inf)))


def aggregate(
    frame_scores: Tensor,
    video_ids: Tensor,
    how: Literal["mean", "median", "max"] = "mean",
) -> tuple[Tensor, Tensor]:
    """Turn scores of frames into one score per video.

    ``frame_scores``, ``video_ids``: (N,). Returns ``(ids, scores)``, both (V,), ids ascending. The mean
    is the usual choice; the maximum lets one bad frame accuse the whole video.

    Raises ``ValueError`` for other shapes or dtypes, scores that are not finite, or an unknown ``how``.
    """
    _check_scores("frame_scores", frame_scores)
    _check_integers("video_ids", video_ids)
    if len(video_ids) != len(frame_scores):
        raise ValueError(
            f"video_ids: expected {len(frame_scores)}, one per frame; got {len(video_ids)}"
        )
    reductions: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": torch.mean,
        "median": torch.median,
        "max": torch.amax,
    }
    if how not in reductions:
        raise ValueError(f"how: expected mean, median or max; got {how!r}")
    ids = torch.unique(video_ids)
    return ids, torch.stack([reductions[how](frame_scores[video_ids == i]) for i in ids])


@dataclass(frozen=True)
class Estimate:
    """A measured value and the two ends of its bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        """Return it as it is read: ``0.981 [0.975, 0.986]``."""
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Report:
    """How a detector did on one test set: what ranks (first three), then what decides.

    ``auc``, ``ap`` (average precision), ``eer`` (equal error rate) know no threshold. ``accuracy``,
    ``tpr`` (fakes caught) and ``fpr`` (real images accused) are those of ``threshold``; ``ece`` is the
    expected calibration error. The intervals say what other test images might have given; they know
    nothing of other training runs, other generators or other processing.
    """

    n_real: int
    n_fake: int
    threshold: float
    auc: Estimate
    ap: Estimate
    eer: Estimate
    accuracy: Estimate
    tpr: Estimate
    fpr: Estimate
    ece: Estimate


def report(
    scores: Tensor,
    labels: Tensor,
    *,
    threshold: float = 0.5,
    groups: Tensor | None = None,
    level: float = 0.95,
    n: int = 500,
    seed: int = 0,
) -> Report:
    """Measure ``scores`` (N,) in [0, 1] against ``labels`` (N,) of 0 and 1, with intervals.

    ``threshold``: chosen beforehand, e.g. by ``threshold_at`` on validation data. ``groups`` (N,): who
    or what each example comes from; whole groups are then resampled, as examples of one person or one
    video are not independent. ``level``: of the percentile bootstrap intervals; ``n``: resamples.

    Raises ``ValueError`` for other shapes, labels or scores, one class only, a threshold that is NaN, a
    level or n out of range, and groups that cannot keep both classes.
    Source: Efron and Tibshirani (1993), chapter 13, for the intervals.
    """
    _check_scores("scores", scores)
    _check_labels(labels, len(scores))
    _check_probabilities(scores)
    if not (0 < level < 1 and n >= 1) or math.isnan(threshold):
        raise ValueError(
            "level: expected a value in (0, 1), n: at least 1, threshold: a number; "
            f"got {level}, {n}, {threshold}"
        )
    if groups is not None:
        _check_integers("groups", groups)
        if len(groups) != len(scores):
            raise ValueError(f"groups: expected {len(scores)}, one per score; got {len(groups)}")
    s = scores.detach().cpu().double().numpy()
    y = labels.cpu().numpy()
    drawn = _resample(y, None if groups is None else groups.cpu().numpy(), n, seed)
    value = _measure(s, y, np.ones((1, len(y))), threshold)
    # A few rows at a time: all of them at once would need N times n numbers several times over.
    pieces = [_measure(s, y, rows, threshold) for rows in np.array_split(drawn, -(-n // 50))]
    tails = [(1 - level) / 2, (1 + level) / 2]
    estimates = {}
    for name in value:
        low, high = np.quantile(np.concatenate([piece[name] for piece in pieces]), tails)
        estimates[name] = Estimate(float(value[name][0]), float(low), float(high))
    fakes = int(y.sum())
    return Report(n_real=len(y) - fakes, n_fake=fakes, threshold=threshold, **estimates)


def by_group(
    scores: Tensor, labels: Tensor, groups: Tensor, *, threshold: float = 0.5, seed: int = 0
) -> dict[int, Report]:
    """Measure each group by itself: ``report`` for every value of ``groups`` (N,), ascending.

    An average hides whom a detector fails: groups may be generators, cameras, ages, skin tones. With
    few examples the intervals are wide, which is the point of looking at them.

    Raises ``ValueError`` as ``report`` does, naming the group, also for one that has one class only.
    """
    _check_scores("scores", scores)
    _check_integers("labels", labels)
    _check_integers("groups", groups)
    if not len(scores) == len(labels) == len(groups):
        raise ValueError(
            f"scores, labels, groups: expected one length, got {len(scores)}, {len(labels)}, "
            f"{len(groups)}"
        )
    found = {}
    for name in groups.unique().tolist():
        chosen = groups == name
        try:
            found[name] = report(scores[chosen], labels[chosen], threshold=threshold, seed=seed)
        except ValueError as error:
            raise ValueError(f"groups: in group {name}, {error}") from error
    return found


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does where one image in ``one_in`` is fake.

    ``precision``: the share of alarms that are true, with the interval that those of ``tpr`` and
    ``fpr`` leave; ``false_per_true``: false alarms for each true one (infinite where no fake is
    caught).
    """

    one_in: float
    threshold: float
    tpr: Estimate
    fpr: Estimate
    precision: Estimate
    false_per_true: float


def operating_points(
    scores: Tensor,
    labels: Tensor,
    *,
    threshold: float,
    one_in: Sequence[float] = (2, 10, 100, 1_000, 10_000),
    level: float = 0.95,
) -> tuple[OperatingPoint, ...]:
    """Carry a threshold from the test set to places where fakes are rarer.

    ``scores``, ``labels`` (N,) as in ``report``; ``threshold``: chosen on other images; ``one_in``: one
    image in so many is fake. The intervals of both rates are Wilson's, so that "no false alarm among
    175" leaves room for the false alarms that 10,000 would bring; the precision's joins the worse ends
    and the better ends of both.

    Raises ``ValueError`` as ``report`` does, and for a ``one_in`` below 1.
    Source: Axelsson (2000) on base rates; Wilson (1927) for the intervals.
    """
    _check_scores("scores", scores)
    _check_labels(labels, len(scores))
    if math.isnan(threshold):
        raise ValueError("threshold: expected a number, got NaN")
    if not one_in or min(one_in) < 1:
        raise ValueError(f"one_in: expected numbers from 1, got {tuple(one_in)}")
    alarm = scores >= threshold
    rates = []
    for label in (1, 0):
        chosen = alarm[labels == label]
        k, n = int(chosen.sum()), len(chosen)
        rates.append(Estimate(k / n, *metrics.wilson_interval(k, n, level=level)))
    tpr, fpr = rates

    def precision(caught: float, accused: float, b: float) -> float:
        true, false = caught * b, accused * (1 - b)
        return true / (true + false) if true + false else 0.0

    return tuple(
        OperatingPoint(
            one_in=n,
            threshold=threshold,
            tpr=tpr,
            fpr=fpr,
            precision=Estimate(
                precision(tpr.value, fpr.value, 1 / n),
                precision(tpr.low, fpr.high, 1 / n),
                precision(tpr.high, fpr.low, 1 / n),
            ),
            false_per_true=(n - 1) * fpr.value / tpr.value if tpr.value else math.inf,
        )
        for n in one_in
    )


@dataclass(frozen=True)
class Calibration:
    """Scores in bins: the mean score, the share that is fake, and how many there are, (B,) each."""

    score: Tensor
    share: Tensor
    count: Tensor


def calibration(scores: Tensor, labels: Tensor, *, bins: int = 10) -> Calibration:
    """Compare scores (N,) in [0, 1] with how often they are right, in ``bins`` of equal width.

    Bins without a score are left out. A calibrated detector has ``share`` equal to ``score``; it is
    calibrated for the share of fakes among ``labels`` and for no other.

    Raises ``ValueError`` for other shapes, labels or scores, or fewer than one bin.
    Source: DeGroot and Fienberg (1983); Guo et al. (2017), section 2, "reliability diagrams".
    """
    _check_scores("scores", scores)
    _check_labels(labels, len(scores), both=False)
    _check_probabilities(scores)
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    s, y = scores.detach().double().cpu(), labels.cpu()
    # Closed on the right, as the expected calibration error has them.
    member = ((s * bins).ceil().long() - 1).clamp(0, bins - 1)
    filled = member.unique()
    return Calibration(
        score=torch.stack([s[member == b].mean() for b in filled]),
        share=torch.stack([y[member == b].double().mean() for b in filled]),
        count=torch.stack([(member == b).sum() for b in filled]),
    )


def _resample(y: Array, groups: Array | None, n: int, seed: int) -> Array:
    """Return ``n`` bootstrap resamples as counts (n, N): how often each example was drawn."""
    member = np.arange(len(y)) if groups is None else np.unique(groups, return_inverse=True)[1]
    many = int(member.max()) + 1
    rng = np.random.default_rng(seed)
    kept: list[Array] = []
    for _ in range(100):
        counts = rng.multinomial(many, np.full(many, 1 / many), size=n)[:, member]
        # A resample that lost a class has no AUC and is drawn again.
        kept.append(counts[(counts @ y > 0) & (counts @ (1 - y) > 0)])
        if sum(map(len, kept)) >= n:
            return np.concatenate(kept)[:n].astype(np.float64)
    raise ValueError("groups: too few of them hold one of the classes to resample whole groups")


def _measure(s: Array, y: Array, w: Array, threshold: float) -> dict[str, Array]:
    """Return each measure under each row of weights ``w`` (B, N): arrays (B,).

    All resamples share one sorting of the scores, which makes this many times as fast as calling
    the functions of ``metrics`` on each; a test holds both to the same values.
    """
    order = np.argsort(-s, kind="stable")
    s, y, w = s[order], y[order], w[:, order]
    last = np.append(np.flatnonzero(np.diff(s)), len(s) - 1)  # one threshold per distinct score
    zero = np.zeros((len(w), 1))
    caught = np.concatenate([zero, np.cumsum(w * y, axis=1)[:, last]], axis=1)
    accused = np.concatenate([zero, np.cumsum(w * (1 - y), axis=1)[:, last]], axis=1)
    tpr, fpr = caught / caught[:, -1:], accused / accused[:, -1:]

    alarms = caught + accused
    precision = np.divide(caught, alarms, out=np.zeros_like(caught), where=alarms > 0)
    gap = fpr - (1 - tpr)  # rises from -1 to 1; the equal error rate is where it crosses 0
    row, after = np.arange(len(w)), np.argmax(gap >= 0, axis=1)
    t = gap[row, after - 1] / (gap[row, after - 1] - gap[row, after])

    alarm = s >= threshold
    total = w.sum(axis=1)
    # Fifteen equal bins of [0, 1], closed on the right, as torchmetrics has them.
    bins = np.clip(np.ceil(s * 15).astype(int) - 1, 0, 14)
    member = np.eye(15)[bins]
    return {
        "auc": ((tpr[:, 1:] + tpr[:, :-1]) / 2 * np.diff(fpr, axis=1)).sum(axis=1),
        "ap": (np.diff(tpr, axis=1) * precision[:, 1:]).sum(axis=1),
        "eer": fpr[row, after - 1] + t * (fpr[row, after] - fpr[row, after - 1]),
        "accuracy": w @ (alarm == (y == 1)) / total,
        "tpr": w @ (alarm & (y == 1)) / (w @ y),
        "fpr": w @ (alarm & (y == 0)) / (w @ (1 - y)),
        "ece": np.abs((w * (s - y)) @ member).sum(axis=1) / total,
    }


def _off_grid(x: Tensor) -> Tensor:
    return ((x * 255 - (x * 255).round()).abs() > 1e-3).float().flatten(1).mean(1, keepdim=True)


def _frame(x: Tensor) -> Tensor:
    inner = torch.zeros(x.shape[2:], dtype=torch.bool, device=x.device)
    inner[2:-2, 2:-2] = True
    return x[:, :, ~inner].flatten(1)


#: What a detector must not be able to live on: (N, C, H, W) to features (N, F). ``grid``: the share of
#: pixels that no 8-bit file could hold; ``black`` and ``white``: the shares of pixels at exactly 0
#: and 1; ``level``: the mean; ``frame``: the outermost two pixels on each side.
SHORTCUTS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "grid": _off_grid,
        "black": lambda x: (x == 0).float().flatten(1).mean(1, keepdim=True),
        "white": lambda x: (x == 1).float().flatten(1).mean(1, keepdim=True),
        "level": lambda x: x.flatten(1).mean(1, keepdim=True),
        "frame": _frame,
    }
)


def shortcut_auc(
    real: Tensor,
    fake: Tensor,
    *,
    seed: int,
    features: Mapping[str, Callable[[Tensor], Tensor]] = SHORTCUTS,
    level: float = 0.95,
    groups: Tensor | None = None,
) -> dict[str, Estimate]:
    """Return the AUC of detectors that are shown only what says nothing about how an image was made.

    Each is a logistic regression on one of ``features``, fitted on a random half of ``real`` and
    ``fake`` (N, C, H, W) and measured on the other. An interval that lies above 0.5 is a way to look
    right for the wrong reason: it has to be removed from the images before a detector's own AUC means
    anything. Of twenty intervals of 95 % one misses by chance; whoever tries that many asks for a higher
    ``level``. ``groups``: integers (N_real + N_fake,), the person or source of each image, the real
    ones first; whole groups then go to one half, and the intervals are over groups. Twins in both
    halves, one of each kind, would push the AUC below chance.

    Raises ``ValueError`` for images of different or wrong shape or range, fewer than 20 of a kind, a
    level out of range, and groups of another shape or dtype or that leave a half without a kind.
    Source: Geirhos et al. (2020) on shortcuts; Grommelt et al. (2024) on two of them in this field.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    check_images(real, "real")
    check_images(fake, "fake")
    if real.shape[1:] != fake.shape[1:] or min(len(real), len(fake)) < 20:
        raise ValueError(
            "real, fake: expected 20 images or more of each, of one shape; "
            f"got {tuple(real.shape)} and {tuple(fake.shape)}"
        )
    generator = torch.Generator().manual_seed(seed)
    x = torch.cat([real, fake])
    labels = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))]).long()
    if groups is not None:
        _check_integers("groups", groups)
        if len(groups) != len(x):
            raise ValueError(f"groups: expected {len(x)}, one per image, got {len(groups)}")
        learn, judge = split_by_group(groups, (0.5, 0.5), seed=seed)
        if any(len(labels[half].unique()) < 2 for half in (learn, judge)):
            raise ValueError("groups: expected real and fake images in both halves of the groups")
    else:
        fit, held = [], []
        for start, count in ((0, len(real)), (len(real), len(fake))):
            order = start + torch.randperm(count, generator=generator)
            fit.append(order[: count // 2])
            held.append(order[count // 2 :])
        learn, judge = torch.cat(fit), torch.cat(held)
    member = None if groups is None else groups.cpu()[judge]
    found = {}
    for name, feature in features.items():
        f = feature(x).cpu().double().numpy()
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500))
        model.fit(f[learn.numpy()], labels[learn].numpy())
        scores = torch.from_numpy(model.predict_proba(f[judge.numpy()])[:, 1])
        held_out = report(scores, labels[judge], groups=member, level=level, seed=seed)
        found[name] = held_out.auc
    return found


def match(
    real: Tensor, fake: Tensor, *, seed: int, by: Sequence[str] = ("level", "black", "white")
) -> Tensor:
    """Choose for each real image the unused generated one most like it in ``by``: indices (N_real,).

    A generator that draws a little bolder is caught by its ink alone; among pairs of equal ink that
    tells nothing, and a detector has to look at the strokes. ``by``: names from ``SHORTCUTS``, each
    measured in standard deviations of the real images. Real images choose in a random order, the
    nearest that is left: ``fake`` should hold about twice as many, for the last to have a choice too.

    Raises ``ValueError`` for images of different or wrong shape or range, fewer generated than real
    images, and unknown names.
    """
    check_images(real, "real")
    check_images(fake, "fake")
    if real.shape[1:] != fake.shape[1:] or len(fake) < len(real):
        raise ValueError(
            f"fake: expected at least {len(real)} images of shape {tuple(real.shape[1:])}, "
            f"got {tuple(fake.shape)}"
        )
    if not by or not set(by) <= set(SHORTCUTS):
        raise ValueError(f"by: expected names among {', '.join(SHORTCUTS)}; got {tuple(by)}")
    ours = torch.cat([SHORTCUTS[name](real) for name in by], dim=1).double().cpu()
    theirs = torch.cat([SHORTCUTS[name](fake) for name in by], dim=1).double().cpu()
    scale = ours.std(dim=0).clamp_min(1e-12)  # a feature that never varies must not divide by 0
    a, b = (ours / scale).numpy(), (theirs / scale).numpy()
    chosen = np.zeros(len(a), dtype=np.int64)
    free = np.zeros(len(b))
    for i in torch.randperm(len(a), generator=torch.Generator().manual_seed(seed)).tolist():
        chosen[i] = int(np.argmin(((b - a[i]) ** 2).sum(axis=1) + free))
        free[chosen[i]] = np.inf
    return torch.from_numpy(chosen)


def _check_scores(name: str, scores: Tensor) -> None:
    if scores.ndim != 1 or len(scores) == 0 or not scores.is_floating_point():
        raise ValueError(
            f"{name}: expected floating-point scores (N,), N > 0; "
            f"got {scores.dtype} of shape {tuple(scores.shape)}"
        )
    if not bool(scores.isfinite().all()):
        raise ValueError(f"{name}: expected finite scores, got NaN or infinity")


def _check_probabilities(scores: Tensor) -> None:
    low, high = float(scores.min()), float(scores.max())
    if low < 0 or high > 1:
        raise ValueError(f"scores: expected values in [0, 1], got [{low:.3g}, {high:.3g}]")


def _check_labels(labels: Tensor, n: int, *, both: bool = True) -> None:
    _check_integers("labels", labels)
    kinds = set(labels.unique().tolist())
    if len(labels) != n or (kinds != {0, 1} if both else not kinds <= {0, 1}):
        raise ValueError(
            f"labels: expected {n} of 0 (real) and 1 (fake){', both present' if both else ''}; "
            f"got {len(labels)} of {sorted(kinds)[:5]}"
        )


def _check_integers(name: str, values: Tensor) -> None:
    if values.ndim != 1 or len(values) == 0 or values.is_floating_point() or values.is_complex():
        raise ValueError(
            f"{name}: expected integers (N,), N > 0; "
            f"got {values.dtype} of shape {tuple(values.shape)}"
        )
