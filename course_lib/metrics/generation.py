"""How a generator is judged by its samples: classes, moments, neighbourhoods, copies.

Whatever is compared here lies in rows (N, F): the features that a network has for N images, or their
pixels. ``judges`` has the networks, and says what a number may be called because of them.

Chapter: book/generate/measuring.md
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from course_lib.metrics.detection import auc


def inception_score(probabilities: Tensor, *, splits: int = 1) -> float:
    """Return exp of the mean Kullback-Leibler divergence of p(y | x) from the mean p(y).

    ``probabilities``: p(y | x) of N generated images, (N, K), each row summing to 1. The score lies
    between 1 and K. ``splits``: in how many equal parts, in the order given, it is computed before
    the mean is taken; the paper has 10, and smaller parts score lower.

    Raises ``ValueError`` for another shape, NaN, rows that are no probabilities (logits), or splits
    outside 1 to N.
    Source: Salimans et al. (2016), section 4.
    """
    p = _rows("probabilities", probabilities, 1)
    sums = p.sum(dim=1)
    if float(p.min()) < 0 or float((sums - 1).abs().max()) > 1e-2:
        raise ValueError(
            f"probabilities: expected rows of numbers >= 0 that sum to 1, got a least number of "
            f"{float(p.min()):.3g} and sums from {float(sums.min()):.3g} to {float(sums.max()):.3g}; "
            "if these are logits, pass logits.softmax(dim=1)"
        )
    if not 1 <= splits <= len(p):
        raise ValueError(f"splits: expected 1 to {len(p)}, one row or more each; got {splits}")
    scores = []
    for part in (p / sums[:, None]).tensor_split(splits):
        # H(mean p(y)) - mean H(p(y | x)), which is the mean divergence.
        mean = part.mean(dim=0)
        scores.append((torch.xlogy(part, part).sum(1).mean() - torch.xlogy(mean, mean).sum()).exp())
    return float(torch.stack(scores).mean())


def frechet_distance(features_a: Tensor, features_b: Tensor) -> float:
    """Return the squared Fréchet distance of the Gaussians with the two sets' mean and covariance.

    ``features_a`` (N, F), ``features_b`` (M, F), with N and M at least 2. It is called FID only
    where the features are those of the Inception network of that paper. It is too large on average
    for small sets, by about a constant times 1/N: compare only distances of one N, or see
    ``frechet_limit``.

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


class Limit(NamedTuple):
    """Fréchet distances (T,) of sets of ``shares`` (T,) of the data, and the line's end at 1/N = 0."""

    shares: list[float]
    distances: list[float]
    limit: float


def frechet_limit(
    features_a: Tensor,
    features_b: Tensor,
    generator: torch.Generator,
    *,
    shares: Sequence[float] = (0.2, 0.25, 0.33, 0.5, 0.7, 1.0),
) -> Limit:
    """Return the Fréchet distance as it would be of infinitely many examples, extrapolated.

    The distance is computed for random parts of both sets, ``shares`` of each in (0, 1], and a
    straight line in 1 / share, fitted by least squares, is followed to 0. Shrinking both sets takes
    the bias of both away. The limit can come out slightly negative for sets that are alike.

    Raises ``ValueError`` as ``frechet_distance`` does, and for fewer than two different shares, a
    share out of range, or one that leaves fewer than 2 examples.
    Source: Chong and Forsyth (2020), who shrink the generated set only.
    """
    sets = (_rows("features_a", features_a, 2), _rows("features_b", features_b, 2))
    least = min(map(len, sets))
    if len(set(shares)) < 2 or not all(0 < s <= 1 and int(s * least) >= 2 for s in shares):
        raise ValueError(
            f"shares: expected two or more in (0, 1] that leave 2 of {least} examples or more, "
            f"got {list(shares)}"
        )
    distances = [
        frechet_distance(
            *(
                rows[torch.randperm(len(rows), generator=generator)[: int(share * len(rows))]]
                for rows in sets
            )
        )
        for share in shares
    ]
    _slope, limit = np.polyfit([1 / share for share in shares], distances, 1)
    return Limit(list(shares), distances, float(limit))


class PrecisionRecall(NamedTuple):
    """The shares of fakes that look real, and of real ones that the generator could have made."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How densely fakes lie among real ones (1 is par), and the share of real ones with a fake near."""

    density: float
    coverage: float


def precision_recall(real: Tensor, fake: Tensor, *, k: int = 3) -> PrecisionRecall:
    """Return precision and recall: each set's share that lies in the other's neighbourhoods.

    ``real`` (N, F) and ``fake`` (M, F), N and M above ``k``. A set's neighbourhoods are the balls
    around its members that reach as far as the k-th nearest other member. Precision is the share of
    fakes in a ball of the real ones, recall the share of real ones in a ball of the fakes.

    Raises ``ValueError`` for other shapes, NaN, k < 1, or sets too small for k.
    Source: Kynkäänniemi et al. (2019), equations 1 and 2.
    """
    real, fake = _pair(real, fake, k)
    return PrecisionRecall(
        precision=_share_inside(fake, real, _squared_radii(real, k)),
        recall=_share_inside(real, fake, _squared_radii(fake, k)),
    )


def density_coverage(real: Tensor, fake: Tensor, *, k: int = 5) -> DensityCoverage:
    """Return density and coverage, for which only the real examples have neighbourhoods.

    ``real`` (N, F) and ``fake`` (M, F), N above ``k``. Density is the mean number of real examples'
    balls that a fake lies in, divided by k: it can exceed 1. Coverage is the share of real examples
    with a fake in their ball. One odd fake cannot widen what counts as covered, as it can for recall.

    Raises ``ValueError`` for other shapes, NaN, k < 1, or fewer than k + 1 real examples.
    Source: Naeem et al. (2020), section 3.
    """
    real, fake = _pair(real, fake, k, fake_needs=1)
    radii = _squared_radii(real, k)
    inside, covered = 0, 0
    for rows, squared in _squared_distances(real, fake):
        within = squared <= radii[rows, None]
        inside += int(within.sum())
        covered += int(within.any(dim=1).sum())
    return DensityCoverage(inside / (k * len(fake)), covered / len(real))


class Neighbours(NamedTuple):
    """The distances (N,), float64, to the nearest examples, and which those are, int64 (N,)."""

    distances: Tensor
    indices: Tensor


def nearest(x: Tensor, reference: Tensor) -> Neighbours:
    """Return the Euclidean distance from each of ``x`` to its nearest in ``reference``, and which.

    ``x`` (N, ...), ``reference`` (M, ...), with equal sizes behind the first. Memory grows with N
    and M, not with their product. An exact copy has distance 0; of equally near ones, one is named.

    Raises ``ValueError`` for other shapes or dtypes, no example, or NaN.
    """
    a, b = (
        _rows(name, value.flatten(1) if value.ndim > 1 else value, 1)
        for name, value in (("x", x), ("reference", reference))
    )
    if x.shape[1:] != reference.shape[1:]:
        raise ValueError(
            f"reference: expected shape (M, {', '.join(map(str, x.shape[1:]))}) like x, "
            f"got {tuple(reference.shape)}"
        )
    b = b.to(a.device)
    indices = torch.cat([squared.argmin(dim=1) for _, squared in _squared_distances(a, b)])
    # Taken again from the differences, which lose no digits to |a|^2 + |b|^2 - 2 a b.
    parts = [
        (p - b[i]).norm(dim=1) for p, i in zip(a.split(1000), indices.split(1000), strict=True)
    ]
    return Neighbours(torch.cat(parts), indices)


class Copying(NamedTuple):
    """The chance that a fake lies nearer to the training data than a real one, and its z-score."""

    share: float
    z: float


def copying(fake: Tensor, held_out: Tensor, train: Tensor) -> Copying:
    """Return how much nearer to the training data fakes are than real examples it does not hold.

    ``fake`` (N, ...), ``held_out`` (M, ...) and ``train`` (L, ...) are pixels or features. Each of
    the first two has a distance to its nearest training example. ``share``: how often a fake's is the
    smaller, over all N M pairs, ties half: 1/2 for fakes as new as real ones, 1 for copies, 0 for
    fakes far from everything. ``z``: that Mann-Whitney count, standardised as if there were no
    difference and no ties; well below 0 it says copied, as in the paper.

    Raises ``ValueError`` for other shapes, no example, or NaN.
    Source: Meehan et al. (2020), with the whole space as one cell: copies here and strangers there can
    cancel.
    """
    ours, theirs = nearest(fake, train).distances, nearest(held_out, train).distances
    n, m = len(ours), len(theirs)
    labels = [1] * n + [0] * m
    share = 1 - auc(torch.cat([ours, theirs.to(ours.device)]), labels)
    return Copying(share, (0.5 - share) * n * m / math.sqrt(n * m * (n + m + 1) / 12))


def modes_kept(points: Tensor, centres: Tensor, spread: float) -> tuple[int, float]:
    """Count the modes that ``points`` visit, and the share of points near any mode.

    A point belongs to the nearest centre if it lies within 3 ``spread`` of it. A mode is kept if it
    holds at least a tenth of the share that it would have were all equal. ``points``: (N, F);
    ``centres``: (modes, F). Returns (modes kept, share in [0, 1]).

    Raises ``ValueError`` for other shapes, an empty set, NaN, or a spread that is not positive.
    """
    if (
        points.ndim != 2
        or centres.ndim != 2
        or points.shape[1] != centres.shape[1]
        or 0 in (len(points), len(centres))
        or not 0 < spread < math.inf
    ):
        raise ValueError(
            f"expected points (N, F), centres (modes, F), neither empty, and a finite spread > 0; "
            f"got {tuple(points.shape)}, {tuple(centres.shape)} and {spread}"
        )
    for name, value in (("points", points), ("centres", centres)):
        if not bool(value.isfinite().all()):
            raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    distance, which = torch.cdist(points, centres).min(dim=1)
    near = distance <= 3 * spread
    counts = torch.bincount(which[near], minlength=len(centres))
    kept = counts >= len(points) / len(centres) / 10
    return int(kept.sum()), float(near.float().mean())


def _rows(name: str, values: Tensor, least: int) -> Tensor:
    """Return ``values`` as float64 (N, F), N >= ``least``, all finite."""
    if (
        values.ndim != 2
        or len(values) < least
        or values.shape[1] == 0
        or not values.is_floating_point()
    ):
        raise ValueError(
            f"{name}: expected a float tensor of shape (N, F) with N >= {least}, "
            f"got {values.dtype} {tuple(values.shape)}"
        )
    if not bool(values.isfinite().all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return values.detach().double()


def _pair(
    real: Tensor, fake: Tensor, k: int, fake_needs: int | None = None
) -> tuple[Tensor, Tensor]:
    if k < 1:
        raise ValueError(f"k: expected at least 1, got {k}")
    a = _rows("real", real, k + 1)  # a member's k nearest others
    b = _rows("fake", fake, k + 1 if fake_needs is None else fake_needs)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"fake: expected {a.shape[1]} features like real, got {b.shape[1]}")
    return a, b.to(a.device)


def _squared_distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the matrix of squared distances from ``a`` (N, F) to ``b`` (M, F), some rows at a time.

    A difference below what float64 can tell from rounding is 0, so that copies are found as such.
    """
    squares = b.square().sum(dim=1)
    size = max(1, 1_000_000 // len(b))  # 8 MB: more would not stay in a processor's cache
    for start in range(0, len(a), size):
        rows = slice(start, min(start + size, len(a)))
        both = a[rows].square().sum(dim=1, keepdim=True) + squares
        squared = both - 2 * a[rows] @ b.T
        yield rows, torch.where(squared > 1e-12 * both, squared, 0.0)


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """Return each member's squared distance to its k-th nearest other, a hair more for rounding."""
    # The nearest of all is the member itself, at distance 0.
    radii = [squared.kthvalue(k + 1, dim=1).values for _, squared in _squared_distances(x, x)]
    return torch.cat(radii) * (1 + 1e-9)


def _share_inside(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    inside = sum(
        int((squared <= radii).any(dim=1).sum())
        for _, squared in _squared_distances(points, centres)
    )
    return inside / len(points)


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
