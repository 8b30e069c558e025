from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
)
from torchmetrics.functional.image import peak_signal_noise_ratio

from course_lib import metrics

fast = settings(max_examples=40, deadline=None)


def two_gaussians(d: float, n: int = 4000) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the quantiles of N(0, 1), labelled 0, and of N(d, 1), labelled 1: no noise."""
    unit = torch.from_numpy(norm.ppf((np.arange(n) + 0.5) / n))
    scores = torch.cat([unit, unit + d])
    return scores, torch.cat([torch.zeros(n), torch.ones(n)]).long()


def spd(size: int, rank: int, seed: int) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(size, rank, generator=g, dtype=torch.float64)
    return a @ a.T


@st.composite
def scored(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    n = draw(st.integers(2, 30))
    scores = draw(st.lists(st.integers(-8, 8), min_size=n, max_size=n))  # few values: many ties
    labels = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    assume(0 < sum(labels) < n)
    return scores, labels


# --- ranking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_two_unit_gaussians_d_apart(d: float) -> None:
    scores, labels = two_gaussians(d)
    assert metrics.auc(scores, labels) == pytest.approx(norm.cdf(d / math.sqrt(2)), abs=1e-3)
    assert metrics.equal_error_rate(scores, labels) == pytest.approx(norm.cdf(-d / 2), abs=1e-3)
    tpr, fpr = metrics.rates_at(scores, labels, d / 2)
    assert tpr == pytest.approx(norm.cdf(d / 2), abs=1e-3)
    assert fpr == pytest.approx(norm.cdf(-d / 2), abs=1e-3)
    assert metrics.accuracy_at(scores, labels, d / 2) == pytest.approx(norm.cdf(d / 2), abs=1e-3)


def test_a_perfect_and_a_reversed_ranking() -> None:
    scores, labels = [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]
    assert metrics.auc(scores, labels) == 1
    assert metrics.average_precision(scores, labels) == 1
    assert metrics.equal_error_rate(scores, labels) == 0
    reversed_ = [-s for s in scores]
    assert metrics.auc(reversed_, labels) == 0
    assert metrics.equal_error_rate(reversed_, labels) == 1


def test_a_constant_score_knows_nothing() -> None:
    scores, labels = [0.5] * 8, [1, 1, 0, 0, 0, 0, 0, 0]
    assert metrics.auc(scores, labels) == 0.5
    assert metrics.equal_error_rate(scores, labels) == pytest.approx(0.5)
    assert metrics.average_precision(scores, labels) == pytest.approx(2 / 8)


def test_equal_error_rate_between_two_points_of_the_curve() -> None:
    # By hand: the curve's corners are (0, 0), (0, 1/2), (1/3, 1/2), (1/3, 1), (1, 1) in
    # (fpr, tpr); fpr = 1 - tpr crosses the upright piece at fpr = 1/3, tpr = 2/3.
    assert metrics.equal_error_rate([4, 3, 2, 1, 0], [1, 0, 1, 0, 0]) == pytest.approx(1 / 3)
    # All tied but one real: (0, 0), then straight to (1/2, 1): fpr = t / 2 = 1 - t at t = 2/3.
    assert metrics.equal_error_rate([1, 1, 0], [1, 0, 0]) == pytest.approx(1 / 3)


def test_average_precision_by_hand() -> None:
    # Fakes at ranks 1 and 3 of 4: (1/1 + 2/3) / 2.
    assert metrics.average_precision([4, 3, 2, 1], [1, 0, 1, 0]) == pytest.approx(5 / 6)


def test_agrees_with_torchmetrics() -> None:
    g = torch.Generator().manual_seed(0)
    scores = torch.rand(500, generator=g)
    labels = (torch.rand(500, generator=g) < 0.3).long()
    assert metrics.auc(scores, labels) == pytest.approx(float(binary_auroc(scores, labels)))
    assert metrics.average_precision(scores, labels) == pytest.approx(
        float(binary_average_precision(scores, labels))
    )
    for bins in (1, 7, 15):
        assert metrics.expected_calibration_error(scores, labels, bins=bins) == pytest.approx(
            float(binary_calibration_error(scores, labels, n_bins=bins, norm="l1")), abs=1e-6
        )


@fast
@given(scored())
def test_auc_counts_pairs(data: tuple[list[int], list[int]]) -> None:
    scores, labels = data
    fake = [s for s, y in zip(scores, labels, strict=True) if y]
    real = [s for s, y in zip(scores, labels, strict=True) if not y]
    pairs = [1.0 if f > r else 0.5 if f == r else 0.0 for f in fake for r in real]
    assert metrics.auc(scores, labels) == pytest.approx(sum(pairs) / len(pairs))


@fast
@given(scored())
def test_agrees_with_scikit_learn(data: tuple[list[int], list[int]]) -> None:
    scores, labels = data
    for ours, theirs in zip(
        metrics.roc(scores, labels), roc_curve(labels, scores, drop_intermediate=False), strict=True
    ):
        np.testing.assert_allclose(ours, theirs)
    assert metrics.auc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert metrics.average_precision(scores, labels) == pytest.approx(
        average_precision_score(labels, scores)
    )


@fast
@given(scored())
def test_only_the_order_matters_and_a_flip_mirrors(data: tuple[list[int], list[int]]) -> None:
    scores, labels = data
    s = torch.tensor(scores, dtype=torch.float64)
    for measure in (metrics.auc, metrics.average_precision, metrics.equal_error_rate):
        assert measure(torch.exp(s / 3) * 7 - 2, labels) == pytest.approx(measure(s, labels))
    assert metrics.auc(-s, labels) == pytest.approx(1 - metrics.auc(s, labels))
    assert metrics.equal_error_rate(-s, labels) == pytest.approx(
        1 - metrics.equal_error_rate(s, labels)
    )


@fast
@given(scored())
def test_the_roc_curve_is_what_rates_at_says(data: tuple[list[int], list[int]]) -> None:
    scores, labels = data
    curve = metrics.roc(scores, labels)
    assert (curve.fpr[0], curve.tpr[0]) == (0, 0) and (curve.fpr[-1], curve.tpr[-1]) == (1, 1)
    assert len(curve.thresholds) == len(set(scores)) + 1
    for fpr, tpr, threshold in zip(*curve, strict=True):
        assert metrics.rates_at(scores, labels, float(threshold)) == pytest.approx((tpr, fpr))
    area = float(np.trapezoid(curve.tpr, curve.fpr))
    assert metrics.auc(scores, labels) == pytest.approx(area)


@fast
@given(scored())
def test_the_equal_error_rate_lies_on_the_curve(data: tuple[list[int], list[int]]) -> None:
    scores, labels = data
    eer = metrics.equal_error_rate(scores, labels)
    fpr, tpr, _ = metrics.roc(scores, labels)
    # Where the curve is upright at this fpr, the point is between its two ends.
    low = max(t for f, t in zip(fpr, tpr, strict=True) if f <= eer + 1e-12)
    high = min(t for f, t in zip(fpr, tpr, strict=True) if f >= eer - 1e-12)
    assert min(low, high) - 1e-9 <= 1 - eer <= max(low, high) + 1e-9


def test_an_alarm_is_raised_at_the_threshold_itself() -> None:
    assert metrics.rates_at([0.2, 0.5], [0, 1], 0.5) == metrics.Rates(tpr=1.0, fpr=0.0)
    assert metrics.accuracy_at([0.2, 0.5], [1, 1], 0.5) == 0.5  # one class is fine here


def test_arrays_tensors_lists_and_booleans_are_all_welcome() -> None:
    scores, labels = [0.1, 0.7, 0.6, 0.9], [0, 0, 1, 1]
    expected = metrics.auc(scores, labels)
    assert metrics.auc(np.array(scores), np.array(labels)) == expected
    assert metrics.auc(torch.tensor(scores).requires_grad_(), torch.tensor(labels)) == expected
    assert metrics.auc(scores, torch.tensor(labels).bool()) == expected


# --- calibration and base rates -------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    # One bin of ten at 0.8: 8 of 10 fakes is calibrated, 5 of 10 is off by 0.3.
    assert metrics.expected_calibration_error([0.8] * 10, [1] * 8 + [0] * 2) == pytest.approx(0)
    assert metrics.expected_calibration_error([0.8] * 10, [1] * 5 + [0] * 5) == pytest.approx(0.3)
    # Two bins, weights 3/4 and 1/4: |0.1 - 0| and |0.9 - 0|.
    error = metrics.expected_calibration_error([0.1, 0.1, 0.1, 0.9], [0, 0, 0, 0], bins=2)
    assert error == pytest.approx(0.75 * 0.1 + 0.25 * 0.9)
    # Probabilities 0 and 1 have their bins too.
    assert metrics.expected_calibration_error([0.0, 1.0], [0, 1]) == 0


def test_calibrated_draws_have_a_small_error_and_overconfident_ones_a_large_one() -> None:
    g = torch.Generator().manual_seed(0)
    p = torch.rand(20_000, generator=g, dtype=torch.float64)
    y = torch.bernoulli(p, generator=g).long()
    assert metrics.expected_calibration_error(p, y) < 0.02
    # For p uniform, rounding to 0 or 1 is off by the mean of min(p, 1 - p) = 1/4.
    assert metrics.expected_calibration_error(p.round(), y) == pytest.approx(0.25, abs=0.01)


def test_the_base_rate_fallacy() -> None:
    assert metrics.precision_at_base_rate(0.9, 0.1, 0.001) == pytest.approx(0.9 / 100.8)
    assert round(100 * metrics.precision_at_base_rate(0.9, 0.1, 0.001), 1) == 0.9
    assert metrics.precision_at_base_rate(0.9, 0.1, 0.5) == pytest.approx(0.9)
    assert metrics.precision_at_base_rate(1.0, 0.0, 1e-9) == 1
    assert metrics.precision_at_base_rate(0.9, 0.1, 0.0) == 0


@fast
@given(scored())
def test_precision_at_the_datas_own_base_rate_is_its_precision(
    data: tuple[list[int], list[int]],
) -> None:
    scores, labels = data
    s, y = np.array(scores), np.array(labels)
    threshold = float(np.median(s))
    tpr, fpr = metrics.rates_at(s, y, threshold)
    assert metrics.precision_at_base_rate(tpr, fpr, float(y.mean())) == pytest.approx(
        float(y[s >= threshold].mean())
    )


# --- bootstrap -----------------------------------------------------------------------------------


def mean(x: torch.Tensor) -> float:
    return float(x.mean())


def test_the_interval_of_a_mean_is_the_textbook_one() -> None:
    x = torch.from_numpy(norm.ppf((np.arange(400) + 0.5) / 400))
    low, high = metrics.bootstrap_interval(mean, x, seed=0, level=0.9, n=4000)
    expected = norm.ppf(0.95) * float(x.std(correction=0)) / math.sqrt(400)
    assert (low, high) == pytest.approx((-expected, expected), abs=0.1 * expected)


def test_a_higher_level_is_wider_and_a_seed_repeats() -> None:
    x = torch.arange(50.0)
    narrow = metrics.bootstrap_interval(mean, x, seed=1, level=0.5)
    wide = metrics.bootstrap_interval(mean, x, seed=1, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    assert metrics.bootstrap_interval(mean, x, seed=1, level=0.5) == narrow
    assert metrics.bootstrap_interval(mean, x, seed=2, level=0.5) != narrow


def test_rows_stay_together_and_types_are_kept() -> None:
    def check(images: torch.Tensor, ids: np.ndarray) -> float:
        assert isinstance(images, torch.Tensor) and isinstance(ids, np.ndarray)
        assert images.shape[1:] == (2, 2) and len(images) == len(ids) == 6
        assert images[:, 0, 0].tolist() == ids.tolist()
        return 0.0

    images = torch.arange(6.0)[:, None, None].expand(6, 2, 2)
    assert metrics.bootstrap_interval(check, images, np.arange(6) * 1.0, seed=0, n=20) == (0, 0)


def test_groups_are_drawn_whole_and_widen_the_interval() -> None:
    # 20 people with 10 equal photographs each: there are 20 independent numbers, not 200.
    per_person = torch.from_numpy(norm.ppf((np.arange(20) + 0.5) / 20))
    x, who = per_person.repeat_interleave(10), torch.arange(20).repeat_interleave(10)

    def spread(interval: metrics.Interval) -> float:
        return interval.high - interval.low

    alone = spread(metrics.bootstrap_interval(mean, x, seed=0, n=2000))
    whole = spread(metrics.bootstrap_interval(mean, x, seed=0, n=2000, groups=who))
    assert whole / alone == pytest.approx(math.sqrt(10), rel=0.1)

    def check(people: torch.Tensor) -> float:
        _, counts = people.unique(return_counts=True)
        assert bool((counts % 10 == 0).all()) and int(counts.sum()) == 200
        return 0.0

    metrics.bootstrap_interval(check, who, seed=0, n=50, groups=who)


def test_labels_keep_both_classes_in_every_resample() -> None:
    # With one fake in six, a third of the resamples would lose it and auc would refuse.
    interval = metrics.bootstrap_interval(
        metrics.auc, [0.9, 0.1, 0.2, 0.3, 0.4, 0.95], [1, 0, 0, 0, 0, 0], seed=0, n=300
    )
    assert 0 <= interval.low <= interval.high <= 1


def test_a_single_array_of_zeros_and_ones_is_not_taken_for_labels() -> None:
    # The only error in eight may well be missing from a resample, and the interval must say so.
    wrong = torch.tensor([1.0] + [0.0] * 7)
    assert metrics.bootstrap_interval(mean, wrong, seed=0).low == 0


# --- Fréchet distance ----------------------------------------------------------------------------


def test_frechet_closed_forms() -> None:
    eye, zero = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    shift = torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    assert metrics.frechet_gaussians(zero, eye, shift, eye) == pytest.approx(9)
    # Commuting covariances: the squared distance of the standard deviations.
    a, b = torch.tensor([1.0, 4.0, 9.0]).double(), torch.tensor([4.0, 4.0, 0.0]).double()
    expected = (1 - 2) ** 2 + 0 + 3**2
    assert metrics.frechet_gaussians(zero, torch.diag(a), zero, torch.diag(b)) == pytest.approx(
        expected
    )
    turn = torch.linalg.qr(spd(3, 3, 5)).Q
    assert metrics.frechet_gaussians(
        zero, turn @ torch.diag(a) @ turn.T, zero, turn @ torch.diag(b) @ turn.T
    ) == pytest.approx(expected)


@fast
@given(seed=st.integers(0, 10_000), size=st.integers(1, 8))
def test_frechet_agrees_with_the_matrix_square_root(seed: int, size: int) -> None:
    c1, c2 = spd(size, size + 2, seed), spd(size, size + 2, seed + 1)
    m1, m2 = c1[0], c2[0]
    root = np.real(scipy.linalg.sqrtm((c1 @ c2).numpy()))
    expected = float((m1 - m2).square().sum() + c1.trace() + c2.trace()) - 2 * np.trace(root)
    measured = metrics.frechet_gaussians(m1, c1, m2, c2)
    assert measured == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert metrics.frechet_gaussians(m2, c2, m1, c1) == pytest.approx(measured, abs=1e-9)
    assert metrics.frechet_gaussians(m1, c1, m1, c1) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize("rank", [1, 3, 19])
def test_singular_covariances_lose_no_digits(rank: int) -> None:
    c = spd(20, rank, rank)
    zero = torch.zeros(20, dtype=torch.float64)
    assert metrics.frechet_gaussians(zero, c, zero, c) <= 1e-12 * float(c.trace())
    # sqrt(4 C) = 2 sqrt(C), so the distance is tr(C).
    assert metrics.frechet_gaussians(zero, c, zero, 4 * c) == pytest.approx(float(c.trace()))
    nothing = torch.zeros(20, 20, dtype=torch.float64)
    assert metrics.frechet_gaussians(zero, c, zero, nothing) == pytest.approx(float(c.trace()))


def test_frechet_of_features() -> None:
    g = torch.Generator().manual_seed(0)
    a = torch.randn(300, 5, generator=g)
    assert metrics.frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert metrics.frechet_distance(a, a.flip(0)) == pytest.approx(0, abs=1e-9)
    assert metrics.frechet_distance(a, a + 2) == pytest.approx(20, rel=1e-5)
    assert metrics.frechet_distance(a, 3 * a - 2 * a.mean(0)) == pytest.approx(
        4 * float(a.double().var(0).sum()), rel=1e-5
    )
    few, one = torch.randn(3, 50, generator=g), torch.randn(40, 1, generator=g)
    assert metrics.frechet_distance(few, few) == pytest.approx(0, abs=1e-10)
    assert metrics.frechet_distance(one, one + 1) == pytest.approx(1, rel=1e-5)


# --- images ---------------------------------------------------------------------------------------


def test_mse_and_psnr() -> None:
    a = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert metrics.mse(a, a) == 0 and metrics.psnr(a, a) == math.inf
    assert metrics.mse(a, a + 0.1) == pytest.approx(0.01, rel=1e-5)
    assert metrics.psnr(a, a + 0.1) == pytest.approx(20, rel=1e-5)
    assert metrics.psnr(255 * a, 255 * a + 25.5, peak=255) == pytest.approx(20, rel=1e-5)
    b = a.flip(0)
    expected = float(peak_signal_noise_ratio(a, b, data_range=1.0))
    assert metrics.psnr(a, b) == pytest.approx(expected, rel=1e-5)


# --- wrong input ------------------------------------------------------------------------------

RANKINGS = [
    metrics.roc,
    metrics.auc,
    metrics.average_precision,
    metrics.equal_error_rate,
    lambda s, y: metrics.rates_at(s, y, 0.5),
]
ANY_CLASS = [
    lambda s, y: metrics.accuracy_at(s, y, 0.5),
    lambda s, y: metrics.expected_calibration_error(s, y),
]


@pytest.mark.parametrize("measure", RANKINGS)
@pytest.mark.parametrize("only", [0, 1])
def test_one_class_is_refused(measure, only: int) -> None:
    with pytest.raises(ValueError, match=f"labels: expected both classes, got only {only}"):
        measure([0.1, 0.2], [only, only])


@pytest.mark.parametrize("measure", [*RANKINGS, *ANY_CLASS])
@pytest.mark.parametrize(
    ("scores", "labels", "says"),
    [
        ([0.1, math.nan], [0, 1], "expected numbers, got 1 NaN in 2"),
        ([], [], "expected one example or more"),
        ([0.1, 0.2, 0.3], [0, 1], "expected one length, got 3 and 2"),
        ([[0.1, 0.2]], [0, 1], "expected one dimension"),
        ([0.1, 0.2], [[0, 1]], "labels: expected one dimension"),
        ([0.1, 0.2], [1, 2], "labels: expected 0 .* and 1"),
        ([0.1, 0.2], [0.5, 1], "labels: expected 0 .* and 1"),
    ],
)
def test_bad_scores_and_labels_are_refused(measure, scores, labels, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        measure(scores, labels)


def test_other_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^threshold: .*NaN"):
        metrics.rates_at([0.1, 0.2], [0, 1], math.nan)
    with pytest.raises(ValueError, match=r"^probabilities: expected values in \[0, 1\]"):
        metrics.expected_calibration_error([0.1, 1.2], [0, 1])
    with pytest.raises(ValueError, match=r"^bins: expected at least 1, got 0"):
        metrics.expected_calibration_error([0.1, 0.2], [0, 1], bins=0)
    for rates in ((1.1, 0, 0.5), (0, -0.1, 0.5), (0, 0.1, math.nan)):
        with pytest.raises(ValueError, match=r"expected a rate in \[0, 1\]"):
            metrics.precision_at_base_rate(*rates)
    with pytest.raises(ValueError, match="no alarm is ever raised"):
        metrics.precision_at_base_rate(0.0, 0.0, 0.5)


def test_bootstrap_refuses() -> None:
    x = torch.arange(4.0)
    for arguments, options, says in [
        ((), {}, "^arrays: expected one or more, got none"),
        ((x, x[:3]), {}, r"^arrays: .*got lengths \[4, 3\]"),
        ((x[:0],), {}, "^arrays: "),
        ((x,), {"level": 1.0}, "^level: "),
        ((x,), {"n": 0}, "^n: "),
        ((x,), {"groups": [0, 1]}, "^groups: expected length 4"),
        ((x,), {"groups": [1, 1, 1, 1]}, "^groups: expected two groups or more"),
    ]:
        with pytest.raises(ValueError, match=says):
            metrics.bootstrap_interval(mean, *arguments, seed=0, **options)
    with pytest.raises(ValueError, match=r"^statistic: expected a finite number, got nan"):
        metrics.bootstrap_interval(lambda x: math.nan, x, seed=0)


def test_frechet_refuses() -> None:
    good, mu, eye = torch.rand(5, 3), torch.zeros(3), torch.eye(3)
    for bad in (torch.rand(5), torch.rand(1, 3), torch.rand(5, 0)):
        with pytest.raises(ValueError, match=r"^features_b: expected shape \(N, F\)"):
            metrics.frechet_distance(good, bad)
    with pytest.raises(ValueError, match=r"^mu1, mu2: expected one shape"):
        metrics.frechet_distance(good, torch.rand(5, 4))
    with pytest.raises(ValueError, match="NaN"):
        metrics.frechet_distance(good, good * math.nan)
    for cov, says in [
        (torch.eye(4), r"^cov2: expected shape \(3, 3\), got \(4, 4\)"),
        (torch.rand(3, 3) + torch.eye(3).roll(1, 0), "^cov2: expected a symmetric matrix"),
        (-eye, "^cov2: expected no negative eigenvalue"),
        (eye * math.nan, "^cov2: .*NaN"),
    ]:
        with pytest.raises(ValueError, match=says):
            metrics.frechet_gaussians(mu, eye, mu, cov)


def test_images_of_two_shapes_are_refused() -> None:
    a = torch.rand(2, 1, 4, 4)
    for measure in (metrics.mse, metrics.psnr):
        with pytest.raises(ValueError, match=r"^a, b: expected one shape"):
            measure(a, a[:1])
        with pytest.raises(ValueError, match=r"^a, b: "):
            measure(a[:0], a[:0])
        with pytest.raises(ValueError, match=r"^b: .*NaN"):
            measure(a, a * math.nan)
    with pytest.raises(ValueError, match=r"^peak: expected a positive number, got 0"):
        metrics.psnr(a, a, peak=0)


@pytest.mark.parametrize("level", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(("count", "of"), [(0, 1), (0, 175), (7, 20), (20, 20), (499, 1000)])
def test_wilson_interval_is_scipys(count: int, of: int, level: float) -> None:
    ours = metrics.wilson_interval(count, of, level=level)
    theirs = binomtest(count, of).proportion_ci(level, method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-12)
    assert ours.high == pytest.approx(theirs.high, abs=1e-12)
    for wrong in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(ValueError, match="count, of: expected"):
            metrics.wilson_interval(*wrong)
    with pytest.raises(ValueError, match="level: expected"):
        metrics.wilson_interval(1, 2, level=1.0)
