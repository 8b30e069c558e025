"""Choose a detector's threshold, and see what its alarms are worth where fakes are rare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure as Drawing
from matplotlib.patches import Rectangle
from torch import Tensor

from course_lib import metrics, plots
from course_lib.figures.figure import Figure

Scores: TypeAlias = tuple[metrics.Values, metrics.Values]
Array: TypeAlias = npt.NDArray[Any]

#: What the base rate's slider can be: one item in so many is generated. Of ``_SEEN`` items, that is
#: a whole number of generated ones every time.
_ONE_IN = [2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000]
_SEEN = 10_000
#: How many false alarms one missed fake may cost.
_COSTS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]


def operating_point(
    detectors: Mapping[str, Scores],
    *,
    title: str,
    alt: str,
    start: Mapping[str, float] | None = None,
    one_in: int = 100,
    cost: float = 1,
) -> Figure:
    """Return a figure in which the reader moves a detector's threshold and sees what it means.

    ``detectors``: one to five, by name: the scores of real items (N,) and of generated ones (M,),
    where larger means more likely generated and an alarm is raised from the threshold on. ``start``:
    by name, the first threshold (default: where sensitivity minus false-positive rate is largest).
    ``one_in``: at the start one item in so many is generated: 2, 5, 10, 20, ... 10,000. ``cost``: how
    many false alarms one missed fake costs at the start: 0.01, 0.02, 0.05, 0.1, ... 100.

    Rates are exact: every corner of the ROC curve is sent as two counts.

    Raises ``ValueError`` for no detector or more than five, scores of another shape or none at all,
    scores that are not finite, or a start that is not among those named.
    Source: Metz 1978 (ROC and cost); Axelsson 2000, section 3 (base rate); Gigerenzer and Hoffrage
    1995 (natural frequencies).
    """
    if not 1 <= len(detectors) <= 5:
        raise ValueError(f"detectors: expected one to five, got {len(detectors)}")
    if one_in not in _ONE_IN:
        raise ValueError(f"one_in: expected one of {_ONE_IN}, got {one_in}")
    if cost not in _COSTS:
        raise ValueError(f"cost: expected one of {_COSTS}, got {cost}")
    start = {} if start is None else dict(start)
    if unknown := set(start) - set(detectors):
        raise ValueError(f"start: expected names of detectors, got {sorted(unknown)}")
    curves = {
        name: _curve(f"detectors[{name!r}]", scores, start.get(name))
        for name, scores in detectors.items()
    }
    data: dict[str, Array] = {}
    for i, curve in enumerate(curves.values()):
        data |= {f"{i}.thresholds": curve.thresholds}
        data |= {f"{i}.caught": curve.caught, f"{i}.accused": curve.accused}
    return Figure(
        kind="operating_point",
        title=title,
        alt=alt,
        spec={
            "detectors": [
                {"name": name, "real": curve.real, "fake": curve.fake, "start": curve.start}
                for name, curve in curves.items()
            ],
            "oneIn": _ONE_IN,
            "costs": _COSTS,
            "seen": _SEEN,
            "start": [_ONE_IN.index(one_in), _COSTS.index(cost)],
        },
        draw=lambda: _draw(curves, one_in),
        data=data,
    )


def binormal(
    sensitivity: float, false_positive_rate: float, *, n: int = 10_000
) -> tuple[Array, Array]:
    """Return the scores of an idealised detector: ``n`` of real items and ``n`` of generated ones.

    They are evenly spaced quantiles of N(0, 1) and N(d', 1), float64, with d' such that one threshold
    catches the share ``sensitivity`` of the generated and accuses ``false_positive_rate`` of the real
    ones; the area under the ROC curve is Phi(d' / sqrt 2).

    Raises ``ValueError`` for rates outside (0, 1), a sensitivity that is not above the false-positive
    rate, and n < 1.
    Source: Metz 1978, on the binormal ROC curve.
    """
    for name, rate in (("sensitivity", sensitivity), ("false_positive_rate", false_positive_rate)):
        if not 0 < rate < 1:
            raise ValueError(f"{name}: expected a rate in (0, 1), got {rate}")
    if sensitivity <= false_positive_rate:
        raise ValueError(
            f"sensitivity: expected more than the false-positive rate {false_positive_rate}, "
            f"got {sensitivity}"
        )
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    normal = NormalDist()
    real = np.array([normal.inv_cdf((i + 0.5) / n) for i in range(n)])
    return real, real + normal.inv_cdf(sensitivity) - normal.inv_cdf(false_positive_rate)


@dataclass(frozen=True)
class _Curve:
    """Places on a ROC curve as the threshold falls, and of how many scores it is made."""

    thresholds: Array
    caught: Array
    accused: Array
    real: int
    fake: int
    start: int


def _curve(name: str, scores: Scores, threshold: float | None) -> _Curve:
    if not isinstance(scores, tuple | list) or len(scores) != 2:
        raise ValueError(f"{name}: expected (scores of real items, scores of generated ones)")
    real = _scores(f"{name}, real", scores[0])
    fake = _scores(f"{name}, generated", scores[1])
    labels = np.repeat([0, 1], [len(real), len(fake)])
    fpr, tpr, thresholds = metrics.roc(np.concatenate([real, fake]), labels)
    accused = np.rint(fpr * len(real)).astype(np.int64)
    caught = np.rint(tpr * len(fake)).astype(np.int64)
    if threshold is None:
        # Whole numbers, so that equals are equal; of several, the one in their middle.
        gain = caught * len(real) - accused * len(fake)
        best = np.flatnonzero(gain == gain.max())
        first = int(best[len(best) // 2])
    elif np.isfinite(threshold):
        first = int((thresholds >= threshold).sum()) - 1
    else:
        raise ValueError(f"start: expected a finite threshold for {name}, got {threshold}")
    # The slider needs each place where the curve bends, and on straight stretches, on which nothing
    # is cheaper than at their ends, one in a hundredth of the way.
    across, up = np.diff(accused), np.diff(caught)
    kept = np.ones(len(fpr), dtype=bool)
    kept[1:-1] = across[:-1] * up[1:] != up[:-1] * across[1:]
    way = np.floor(100 * (fpr + tpr))
    kept[1:] |= np.diff(way) > 0
    kept[first] = True
    return _Curve(
        thresholds[kept],
        caught[kept],
        accused[kept],
        len(real),
        len(fake),
        int(kept[:first].sum()),
    )


def _scores(name: str, values: metrics.Values) -> Array:
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or len(found) == 0:
        raise ValueError(f"{name}: expected scores of shape (N,), N > 0; got {found.shape}")
    if not np.isfinite(found).all():
        bad = int((~np.isfinite(found)).sum())
        raise ValueError(f"{name}: expected finite scores, got {bad} that are not, of {len(found)}")
    return found


def _draw(curves: dict[str, _Curve], one_in: int) -> Drawing:
    curve = next(iter(curves.values()))
    fpr = float(curve.accused[curve.start] / curve.real)
    tpr = float(curve.caught[curve.start] / curve.fake)
    fakes = _SEEN / one_in
    true, false = fakes * tpr, (_SEEN - fakes) * fpr
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 3.1), width_ratios=[1, 1.35])
    for other in list(curves.values())[:0:-1]:
        left.plot(other.accused / other.real, other.caught / other.fake, color=plots.MUTED, lw=1)
    left.plot([0, 1], [0, 1], color=plots.MUTED, lw=0.8, ls=":")
    left.plot(curve.accused / curve.real, curve.caught / curve.fake, color=plots.DEFENCE)
    left.plot([fpr], [tpr], "o", color=plots.INK)
    left.set(xlabel="real ones accused", ylabel="fakes caught", aspect="equal")
    each = _squares(right, true, false)
    right.set_title(_verdict(true, false), fontsize=9.5)
    right.set_xlabel(
        f"{_SEEN:,} items seen, one in {one_in:,} generated.\n"
        f"Each square is {each} alarm{'s' if each > 1 else ''}:\n"
        f"vermilion a fake caught, blue a real one accused.",
        fontsize=8.5,
        loc="left",
    )
    return figure


def _squares(axis: Any, true: float, false: float) -> int:
    """Draw alarms as squares, right ones first, 25 in a row; return how many alarms one square is."""
    each = next(e for e in (1, 2, 5, 10, 20, 50) if true + false <= 200 * e)
    place, ends = 0.0, (true / each, (true + false) / each)
    for end, colour in zip(ends, (plots.FAKE, plots.REAL), strict=True):
        while place < end - 1e-9:
            cell = int(place + 1e-9)
            wide = min(end, cell + 1) - place
            corner = (cell % 25 + 0.86 * (place - cell), -(cell // 25))
            axis.add_patch(Rectangle(corner, 0.86 * wide, 0.86, color=colour, lw=0))
            place = min(end, cell + 1)
    axis.set(xlim=(0, 25), ylim=(-7, 1), aspect="equal", xticks=[], yticks=[])
    axis.grid(False)
    axis.spines[["left", "bottom"]].set_visible(False)
    return each


def _verdict(true: float, false: float) -> str:
    alarms = true + false
    if alarms == 0:
        return "No alarm is ever raised"
    return (
        f"Of {_count(alarms)} alarms, {_count(false)} are false:\n"
        f"an alarm is right {_share(true / alarms)} of the time"
    )


def _share(value: float) -> str:
    """Say a share with the digits that keep it from looking like nothing, or like everything."""
    edge = min(value, 1 - value)
    return f"{100 * value:.{0 if edge == 0 or edge >= 0.095 else 1 if edge >= 0.00095 else 2}f} %"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 9.95 else f"{value:.1f}".removesuffix(".0")
