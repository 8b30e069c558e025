r"""Detectors that look at frequencies: power spectra, their azimuthal average, and DCT statistics.

Enlarging leaves a copy of the low frequencies at the high ones, and no small filter takes it away
whole; what is left is weighed here by linear detectors, and by one that has seen real images only. All
is made of differentiable torch operations, so that an attacker can be given its gradient.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from course_lib.detection.processing import check_images, check_pair

#: Added to every power before its logarithm: well below the rounding noise of 8-bit images, which is
#: (1/255)^2 / 12, or about 1.3e-6.
EPSILON = 1e-8

#: Images (N, C, H, W) to features (N, F).
Features = Callable[[Tensor], Tensor]


def power_spectrum(x: Tensor, *, window: bool = True) -> Tensor:
    r"""Return the power at each frequency, the mean over the channels: (N, H, W), zero in the centre.

    :math:`S(u, v) = |\sum_{i,j} w_{ij} (x_{ij} - \bar{x})\, e^{-2\pi\mathrm{i}(ui/H + vj/W)}|^2 /
    \sum_{i,j} w_{ij}^2`, so that white noise of variance :math:`\sigma^2` has :math:`\sigma^2`
    everywhere. ``window``: weigh the pixels with a Hann window first, without which the jump from each
    edge of the image to the opposite one fills the axes with power; otherwise w = 1.

    ``x``: (N, 1 or 3, H, W) in [0, 1]. Frequency (u, v), in cycles per image, lies at
    [H // 2 + u, W // 2 + v]. Raises ``ValueError`` for another shape or range.
    """
    check_images(x)
    height, width = x.shape[2:]
    w = torch.ones(height, width, dtype=x.dtype, device=x.device)
    if window:
        w = _hann(height, x)[:, None] * _hann(width, x)[None, :]
    s = torch.fft.fft2(w * (x - x.mean(dim=(2, 3), keepdim=True))).abs().square() / w.square().sum()
    shifted: Tensor = torch.fft.fftshift(s.mean(dim=1), dim=(1, 2))
    return shifted


def _hann(n: int, like: Tensor) -> Tensor:
    return torch.hann_window(n, periodic=True, dtype=like.dtype, device=like.device)


def azimuthal_average(s: Tensor) -> Tensor:
    r"""Return the mean power in each ring around frequency zero: (N, n, n) -> (N, R).

    Ring k holds the frequencies with :math:`k - 1/2 \le \sqrt{u^2 + v^2} < k + 1/2` cycles per image,
    from 0 to the corner at :math:`R - 1 \approx n / \sqrt{2}`; the sides of the square are at n / 2.

    ``s``: as ``power_spectrum`` returns it. Raises ``ValueError`` for another shape.
    Source: Durall, Keuper and Keuper (2020), with the mean over each ring in place of the integral
    along it.
    """
    if s.ndim != 3 or s.shape[1] != s.shape[2] or s.numel() == 0:
        raise ValueError(f"s: expected square spectra (N, n, n), N > 0; got {tuple(s.shape)}")
    ring = _ring(s.shape[1]).to(s.device)
    total = s.new_zeros(len(s), int(ring.max()) + 1).index_add(1, ring, s.flatten(1))
    return total / torch.bincount(ring).to(s.dtype)


def _ring(n: int) -> Tensor:
    """Return the ring of each of the n * n frequencies, zero in the centre."""
    u = torch.arange(n, dtype=torch.float64) - n // 2
    radius = (u[:, None].square() + u[None, :].square()).sqrt()
    return (radius + 0.5).floor().long().flatten()


def rings(n: int) -> int:
    """Return how many rings ``azimuthal_average`` finds in a spectrum of n x n frequencies.

    Raises ``ValueError`` for n below 2.
    """
    if n < 2:
        raise ValueError(f"n: expected a size of 2 pixels or more, got {n}")
    return int(_ring(n).max()) + 1


def spectrum_features(x: Tensor) -> Tensor:
    """Return the logarithm (base 10) of the azimuthal average of the spectrum: (N, C, n, n) -> (N, R).

    Raises ``ValueError`` for another shape or range.
    """
    return torch.log10(azimuthal_average(power_spectrum(x)) + EPSILON)


def dct(x: Tensor) -> Tensor:
    r"""Return the orthonormal two-dimensional DCT-II over the last two axes, (..., H, W).

    :math:`X = D_H\, x\, D_W^\top` with :math:`D_n[k, i] = c_k \cos(\pi k (2i + 1) / 2n)`,
    :math:`c_0 = \sqrt{1/n}` and :math:`c_k = \sqrt{2/n}` otherwise: the transform of JPEG, for whole
    images or blocks. Sums of squares stay as they are.

    Raises ``ValueError`` for fewer than two axes or none of floating point.
    """
    if x.ndim < 2 or x.numel() == 0 or not x.is_floating_point():
        raise ValueError(
            f"x: expected floating point (..., H, W), none of them 0; "
            f"got {x.dtype} {tuple(x.shape)}"
        )
    transformed: Tensor = _cosines(x.shape[-2], x) @ x @ _cosines(x.shape[-1], x).T
    return transformed


def _cosines(n: int, like: Tensor) -> Tensor:
    i = torch.arange(n, dtype=torch.float64)
    d = torch.cos(math.pi * i[:, None] * (2 * i[None, :] + 1) / (2 * n)) * math.sqrt(2 / n)
    d[0] /= math.sqrt(2)
    return d.to(like)


def dct_features(x: Tensor, *, block: int = 8) -> Tensor:
    r"""Return the log mean square of each DCT coefficient over all blocks: (N, C, H, W) -> (N, block^2).

    The image is cut into blocks of ``block`` x ``block`` pixels, as JPEG does with 8, each is
    transformed, and :math:`\log_{10}` of the mean of the squares over blocks and channels is taken;
    ``block`` = H = W takes the whole image at once. Ordered by row: index k * block + l has k half
    waves down and l across.

    Raises ``ValueError`` for another shape or range, and for a block that does not divide it.
    Source: Frank et al. (2020), who take the logarithm of whole images' DCT; the mean over blocks is
    for small data sets.
    """
    check_images(x)
    if block < 2 or x.shape[2] % block or x.shape[3] % block:
        raise ValueError(
            f"block: expected a divisor of {tuple(x.shape[2:])} from 2 up, got {block}"
        )
    blocks = x.unfold(2, block, block).unfold(3, block, block)
    mean_square = dct(blocks).square().mean(dim=(1, 2, 3))
    return torch.log10(mean_square + EPSILON).flatten(1)


class Standardised(nn.Module):
    """Features of images, in units of their spread in a training set; what weighs them is a subclass.

    ``features``: a differentiable function to (N, ``count``). ``mean`` and ``scale`` are buffers, 0 and
    1 until ``standardise`` has set them.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, features: Features, count: int) -> None:
        super().__init__()
        self.features = features
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("scale", torch.ones(count))

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Take mean and scale from the training images ``x`` (N, C, H, W), two or more.

        Raises ``ValueError`` for fewer, or for images whose features are not as many as the module's.
        """
        if len(x) < 2:
            raise ValueError(f"x: expected two images or more to take a spread from, got {len(x)}")
        f = self._checked(x)
        self.mean.copy_(f.mean(dim=0))
        # What never varies says nothing, and must not divide by 0.
        self.scale.copy_(torch.where(f.std(dim=0) > 1e-6, f.std(dim=0), 1.0))

    def standardised(self, x: Tensor) -> Tensor:
        """Return the features z of ``x``, standardised: (N, count).

        Raises ``ValueError`` for images whose features are not as many as the module's.
        """
        f = self._checked(x)
        return (f - self.mean.to(f)) / self.scale.to(f)

    def _checked(self, x: Tensor) -> Tensor:
        f = self.features(x)
        if f.shape != (len(x), len(self.mean)):
            raise ValueError(
                f"x: images of shape {tuple(x.shape[1:])} have {f.shape[-1]} features, "
                f"but {type(self).__name__} was made for {len(self.mean)}"
            )
        return f


class LinearDetector(Standardised):
    """A weighted sum of standardised features: images (N, C, H, W) to one logit (N,).

    Until ``fit_linear`` has set the weights they are 0, and every logit is.
    """

    def __init__(self, features: Features, count: int) -> None:
        super().__init__(features, count)
        self.linear = nn.Linear(count, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per image; above 0 means "more likely generated than real"."""
        z = self.standardised(x)
        return z @ self.linear.weight[0].to(z) + self.linear.bias.to(z)


class SpectrumDetector(LinearDetector):
    """The azimuthal average of the log spectrum, weighed: images (N, C, size, size) -> logit (N,).

    Source: Durall, Keuper and Keuper (2020), with a logistic regression for their support vector
    machine.
    """

    def __init__(self, size: int = 64) -> None:
        super().__init__(spectrum_features, rings(size))


class DCTDetector(LinearDetector):
    """The log mean square of each coefficient of ``block`` x ``block`` DCTs, weighed: -> logit (N,).

    Source: Frank et al. (2020), with blocks in place of the whole image.
    """

    def __init__(self, block: int = 8) -> None:
        super().__init__(partial(dct_features, block=block), block**2)


def fit_linear(model: LinearDetector, real: Tensor, fake: Tensor, *, C: float = 0.01) -> None:
    """Set the mean, scale and weights of ``model`` by logistic regression on ``real`` and ``fake``.

    ``real``, ``fake``: (N, C, H, W) in [0, 1], already processed alike; both kinds count the same,
    however many there are of each. ``C``: the inverse strength of the L2 penalty on the weights.

    Raises ``ValueError`` for images of different or wrong shape or range, and a C that is not positive.
    """
    from sklearn.linear_model import LogisticRegression

    check_pair(real, fake)
    if not (math.isfinite(C) and C > 0):
        raise ValueError(f"C: expected a positive number, got {C}")
    x = torch.cat([real, fake.to(real)])
    model.standardise(x)
    with torch.no_grad():
        z = model.standardised(x).double().cpu().numpy()
        y = [0] * len(real) + [1] * len(fake)
        fitted = LogisticRegression(C=C, max_iter=2000, class_weight="balanced").fit(z, y)
        model.linear.weight.copy_(torch.from_numpy(fitted.coef_))
        model.linear.bias.copy_(torch.from_numpy(fitted.intercept_))


class OneClass(Standardised):
    r"""A detector that has seen real images only: how unusual is this spectrum? -> logit (N,).

    :math:`s(x) = \ln d(x) - \ln d_{95}`, where :math:`d(x) = \sqrt{z^\top \Sigma^{-1} z}` is the
    Mahalanobis distance of the standardised features z from the mean of real images, and
    :math:`d_{95}` is the distance that 5 % of other real images exceed. Put through the logistic
    function that is :math:`d / (d + d_{95})`, which never saturates.

    Source: Mahalanobis (1936) for the distance; Ledoit and Wolf (2004) for the covariance.
    """

    whiten: Tensor
    limit: Tensor

    def __init__(self, features: Features = spectrum_features, count: int | None = None) -> None:
        count = rings(64) if count is None else count
        super().__init__(features, count)
        self.register_buffer("whiten", torch.eye(count))
        self.register_buffer("limit", torch.ones(()))

    def distance(self, x: Tensor) -> Tensor:
        """Return the Mahalanobis distance d of each image (N, C, H, W) from the real ones: (N,)."""
        z = self.standardised(x)
        squared = (z @ self.whiten.to(z)).square().sum(dim=1)
        return squared.clamp_min(1e-12).sqrt()  # the root has no gradient at 0

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per image; above 0 means "further out than 95 % of real images"."""
        d = self.distance(x)
        return d.log() - self.limit.to(d).log()


@torch.no_grad()
def fit_one_class(
    model: OneClass, real: Tensor, held_out: Tensor, *, false_positive_rate: float = 0.05
) -> None:
    """Learn what real spectra look like from ``real``, and how far out is too far from ``held_out``.

    Both are real images (N, C, H, W) in [0, 1], of different people. At the logit 0 a share of
    ``false_positive_rate`` of ``held_out`` raises an alarm. The covariance is shrunk towards a multiple
    of the identity, as Ledoit and Wolf estimate it.

    Raises ``ValueError`` for images of wrong shape or range, fewer than 20 of either, and a rate that
    is not in (0, 1).
    """
    from sklearn.covariance import LedoitWolf

    for name, x in (("real", real), ("held_out", held_out)):
        check_images(x, name)
        if len(x) < 20:
            raise ValueError(f"{name}: expected 20 images or more, got {len(x)}")
    if not 0 < false_positive_rate < 1:
        raise ValueError(
            f"false_positive_rate: expected a rate in (0, 1), got {false_positive_rate}"
        )
    model.standardise(real)
    z = model.standardised(real).double().cpu().numpy()
    covariance = LedoitWolf(assume_centered=True).fit(z).covariance_
    # Sigma = L L^T, so z^T Sigma^-1 z is the squared length of L^-1 z.
    lower = torch.linalg.cholesky(torch.from_numpy(covariance))
    model.whiten.copy_(torch.linalg.inv(lower).T)
    model.limit.copy_(torch.quantile(model.distance(held_out), 1 - false_positive_rate))
