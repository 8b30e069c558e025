"""Principal component analysis: the straight directions in which a data set spreads the most.

``fit`` centres the data and takes a singular value decomposition; what it returns is a value that
turns images into codes (``transform``), codes into images (``inverse``), and Gaussian noise into
the course's first fakes (``sample``).

Data are images (N, C, H, W) or vectors (N, d): every dimension after the first is flattened into
d numbers, the shape is remembered, and what comes back has it again. Everything runs in the dtype
(float32 or float64) and on the device of the data.

Chapter: book/represent/pca.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PCA:
    """A fitted PCA: a mean, and k orthonormal directions in falling order of variance.

    ``mean``: (d,). ``components``: (k, d), orthonormal rows. ``explained_variance``: (k,), the
    variance of the training data along each row, with N - 1 in the denominator.
    ``explained_variance_ratio``: (k,), the same as a share of the variance in all d numbers.
    ``shape``: the shape of one example, e.g. (1, 28, 28) or (d,).
    """

    mean: Tensor
    components: Tensor
    explained_variance: Tensor
    explained_variance_ratio: Tensor
    shape: tuple[int, ...]

    @property
    def k(self) -> int:
        """How many numbers a code has."""
        return len(self.components)

    def transform(self, x: Tensor) -> Tensor:
        """Return the codes (N, k) of ``x`` (N, *shape): the coordinates along the components.

        Raises ``ValueError`` for another shape, dtype or device, for no rows, or for NaN.
        """
        return (self._rows(x) - self.mean) @ self.components.T

    def inverse(self, c: Tensor) -> Tensor:
        """Return the examples (N, *shape) that the codes ``c`` (N, k) stand for.

        Nothing is clipped: the image of a code may leave [0, 1].

        Raises ``ValueError`` for another shape, dtype or device, for no rows, or for NaN.
        """
        if c.ndim != 2 or c.shape[1] != self.k:
            raise ValueError(f"c: expected codes of shape (N, {self.k}), got {tuple(c.shape)}")
        self._check_like_mean("c", c)
        return (self.mean + c @ self.components).reshape(len(c), *self.shape)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, *shape) squeezed through k numbers and back.

        Raises ``ValueError`` as ``transform`` does.
        """
        return self.inverse(self.transform(x))

    def first(self, k: int) -> Self:
        """Return the PCA that keeps only the first ``k`` components: the same as fitting with k.

        Raises ``ValueError`` unless 1 <= k <= self.k.
        """
        if not 1 <= k <= self.k:
            raise ValueError(f"k: expected 1 <= k <= {self.k}, got {k}")
        return replace(
            self,
            components=self.components[:k],
            explained_variance=self.explained_variance[:k],
            explained_variance_ratio=self.explained_variance_ratio[:k],
        )

    def k_for(self, share: float) -> int:
        """Return the smallest k whose components together hold at least ``share`` of the variance.

        ``share``: in (0, 1].

        Raises ``ValueError`` for a share out of range, or one that these components do not reach.
        """
        if not 0 < share <= 1:
            raise ValueError(f"share: expected a value in (0, 1], got {share}")
        reached = self.explained_variance_ratio.double().cumsum(0)
        # A sum of k rounded shares may miss a round number by its last bits.
        enough = reached >= share - 4 * torch.finfo(self.mean.dtype).eps
        if not bool(enough.any()):
            raise ValueError(
                f"share: {self.k} components hold {float(reached[-1]):.4f} of the variance, "
                f"fewer than the {share} asked for; fit with a larger k"
            )
        return int(enough.int().argmax()) + 1

    def whiten(self, x: Tensor) -> Tensor:
        """Return the codes (N, k) of ``x``, each divided by its standard deviation in training.

        Raises ``ValueError`` as ``transform`` does, and where a component has no variance.
        """
        codes = self.transform(x)
        floor = torch.finfo(self.mean.dtype).eps ** 2 * self.explained_variance[0]
        flat = self.explained_variance <= floor
        if bool(flat.any()):
            raise ValueError(
                f"x: cannot be whitened, component {int(flat.int().argmax())} of this PCA has no "
                f"variance; keep fewer with first(k)"
            )
        return codes / self.explained_variance.sqrt()

    def sample(self, n: int, *, generator: torch.Generator) -> Tensor:
        """Return ``n`` invented examples (n, *shape): images of codes drawn from a Gaussian.

        Each coordinate of the code is drawn on its own, with the variance it had in training; this
        is the Gaussian with the training data's mean and (rank-k) covariance. Nothing is clipped.
        ``generator``: draws on its own device; a CPU generator gives the same codes to a GPU.

        Raises ``ValueError`` for n < 1.
        """
        if n < 1:
            raise ValueError(f"n: expected at least 1, got {n}")
        dtype, device = self.mean.dtype, self.mean.device
        noise = torch.randn(n, self.k, generator=generator, dtype=dtype, device=generator.device)
        return self.inverse(noise.to(device) * self.explained_variance.sqrt())

    def _rows(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or tuple(x.shape[1:]) != self.shape:
            wanted = ", ".join(str(size) for size in ("N", *self.shape))
            raise ValueError(f"x: expected shape ({wanted}), as in fit; got {tuple(x.shape)}")
        self._check_like_mean("x", x)
        return x.flatten(start_dim=1)

    def _check_like_mean(self, name: str, value: Tensor) -> None:
        like = self.mean
        if value.dtype != like.dtype or value.device != like.device:
            raise ValueError(
                f"{name}: expected {like.dtype} on {like.device}, as in fit; "
                f"got {value.dtype} on {value.device}"
            )
        if len(value) == 0:
            raise ValueError(f"{name}: expected one row or more, got none")
        _check_finite(name, value)


def fit(x: Tensor, k: int) -> PCA:
    """Fit a PCA with ``k`` components by the singular value decomposition of the centred data.

    ``x``: images (N, C, H, W) or vectors (N, d), float32 or float64, N >= 2. ``k``: at most
    min(N - 1, d), for N centred points span no more. A component is defined up to its sign: the
    one kept makes its entry of largest absolute value positive. Directions beyond the data's rank
    have variance 0 and are arbitrary.

    Raises ``ValueError`` for another shape or dtype, fewer than two rows, NaN or infinity, rows
    that are all equal, or a k out of range.

    Source: Pearson (1901) for the plane of closest fit; Eckart and Young (1936) for the
    decomposition that finds it.
    """
    _check_data(x, k)
    rows = x.flatten(start_dim=1)
    n, d = rows.shape

    mean = rows.mean(dim=0)
    centred = rows - mean
    # Many rows: the triangle R of centred = QR has the same right singular vectors and only d rows.
    compact = torch.linalg.qr(centred, mode="r").R if n > d else centred
    _, s, v = torch.linalg.svd(compact, full_matrices=False)  # compact = u @ diag(s) @ v
    variance = s**2 / (n - 1)
    total = float(variance.double().sum())
    if not total > 0:
        raise ValueError("x: expected rows that differ, got rows that are all equal")
    return PCA(
        mean=mean,
        components=_fix_signs(v[:k]),
        explained_variance=variance[:k],
        explained_variance_ratio=variance[:k] / total,
        shape=tuple(x.shape[1:]),
    )


def reconstruction_error(pca: PCA, x: Tensor) -> float:
    """Return the mean squared distance between ``x`` (N, *shape) and its reconstruction.

    Squares are summed over the d numbers of an example and averaged over the N examples. On the
    training data this is (N - 1) / N times the sum of the variances left out (Eckart and Young,
    1936), and no other k directions do better.

    Raises ``ValueError`` as ``PCA.transform`` does.
    """
    left = (x - pca.reconstruct(x)).flatten(start_dim=1)
    return float(left.square().sum(dim=1).double().mean())


def subspace_angle(a: Tensor, b: Tensor, *, degrees: bool = False) -> float:
    """Return the largest principal angle between the row spaces of ``a`` and ``b``.

    ``a``, ``b``: (k, d), k independent rows each, not necessarily orthonormal; computed in float64.
    The result is in [0, pi/2] radians, or [0, 90] if ``degrees``: 0 where both span the same
    subspace, whatever their bases. Angles near 0 and near pi/2 are both accurate, because the sine
    and the cosine are computed apart and joined by the arctangent.

    Raises ``ValueError`` for other shapes, NaN, or rows that are linearly dependent.

    Source: Björck and Golub (1973) for the cosines; Knyazev and Argentati (2002) for the sines.
    """
    if a.ndim != 2 or a.shape != b.shape or 0 in a.shape:
        raise ValueError(
            f"a, b: expected two matrices of one shape (k, d), "
            f"got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    q_a, q_b = _orthonormal_columns("a", a), _orthonormal_columns("b", b)
    overlap = q_a.T @ q_b
    cosine = float(torch.linalg.svdvals(overlap).min())
    sine = float(torch.linalg.svdvals(q_b - q_a @ overlap).max())
    angle = math.atan2(sine, cosine)
    return math.degrees(angle) if degrees else angle


def _fix_signs(components: Tensor) -> Tensor:
    largest = components.abs().argmax(dim=1, keepdim=True)
    return components * components.gather(1, largest).sign()


def _orthonormal_columns(name: str, rows: Tensor) -> Tensor:
    k, d = rows.shape
    if k > d:
        raise ValueError(f"{name}: expected at most d = {d} rows, got {k}")
    _check_finite(name, rows)
    # Rows of very different length must not look dependent: only directions count here.
    unit = torch.nn.functional.normalize(rows.detach().double(), dim=1, eps=0.0)
    q: Tensor
    q, r = torch.linalg.qr(unit.nan_to_num().T)
    if float(r.diagonal().abs().min()) < d * torch.finfo(torch.float64).eps:
        raise ValueError(f"{name}: expected {k} linearly independent rows, got fewer")
    return q


def _check_data(x: Tensor, k: int) -> None:
    if x.ndim < 2:
        raise ValueError(f"x: expected shape (N, d) or (N, C, H, W), got {tuple(x.shape)}")
    if x.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"x: expected float32 or float64, got {x.dtype}")
    n, d = len(x), math.prod(x.shape[1:])
    if n < 2:
        raise ValueError(f"x: expected two rows or more, got {n}")
    if d < 1:
        raise ValueError(f"x: expected one number or more per row, got shape {tuple(x.shape)}")
    _check_finite("x", x)
    if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= min(n - 1, d):
        raise ValueError(
            f"k: expected a whole number from 1 to min(N - 1, d) = {min(n - 1, d)}, got {k}"
        )


def _check_finite(name: str, value: Tensor) -> None:
    if not bool(value.isfinite().all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
