"""Taking the person out of a face and leaving what the face does, and measuring both.

What is done to a face: cover, pixelate, average with others (k-same), or read off what it does, for
an invented person to be drawn with. Who can still be recognised: a recogniser in closed form
(Fisherfaces), which can be fitted to clear faces or, by an attacker who knows the method, to treated
ones. What is still expressed: how far a reader of faces (``behaviour``) follows the truth.

Chapter: book/detect/living.md
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.classifiers import check_examples, check_labelled
from course_lib.detection.processing import check_images


def cover(x: Tensor, top: float, bottom: float) -> Tensor:
    """Paint a black bar over each face, from ``top`` to ``bottom``, as shares of its height.

    ``x``: (N, C, H, W) in [0, 1]. Raises ``ValueError`` for another shape or range, unless
    0 <= top < bottom <= 1, and for a bar of no pixel.
    """
    check_images(x)
    if not 0 <= top < bottom <= 1:
        raise ValueError(f"top, bottom: expected 0 <= top < bottom <= 1, got {top}, {bottom}")
    first, end = round(top * x.shape[2]), round(bottom * x.shape[2])
    if first == end:
        raise ValueError(f"top, bottom: {top} to {bottom} is no pixel of {x.shape[2]}")
    covered = x.clone()
    covered[:, :, first:end] = 0
    return covered


def pixelate(x: Tensor, block: int) -> Tensor:
    """Replace every ``block`` x ``block`` square by its mean.

    ``x``: (N, C, H, W) in [0, 1], H and W multiples of ``block``; 1 leaves the images as they are.
    Raises ``ValueError`` for another shape, range or block.
    """
    check_images(x)
    if block < 1 or x.shape[2] % block or x.shape[3] % block:
        raise ValueError(f"block: expected a divisor of {tuple(x.shape[2:])}, got {block}")
    means = F.avg_pool2d(x, block)
    return means.repeat_interleave(block, dim=2).repeat_interleave(block, dim=3)


def k_same(x: Tensor, k: int, *, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace each face by the mean of k or more, so that no set of fewer shares an image.

    ``x``: (N, C, H, W) in [0, 1], ONE image per person: with two of one person in it the promise is
    void. Starting from a face drawn by ``generator`` (on the CPU), the k nearest by Euclidean distance
    that are left, itself included, become one set; the last set takes all when fewer than 2k are
    left. Returns the faces (N, C, H, W) and the number of each one's set (N,). Whoever has to
    name the person behind a face, by whatever means, is right for one face of each set at most, so for
    a share of 1/k of all.

    Raises ``ValueError`` for another shape or range, and unless 1 <= k <= N.
    Source: Newton, Sweeney & Malin (2005), the algorithm k-Same-Pixel.
    """
    check_images(x)
    if not 1 <= k <= len(x):
        raise ValueError(f"k: expected 1 to {len(x)}, the number of faces; got {k}")
    distance = torch.cdist(x.flatten(1).double(), x.flatten(1).double())
    member = torch.full((len(x),), -1, device=x.device)
    left = torch.randperm(len(x), generator=generator).to(x.device)
    number = 0
    while len(left):
        size = k if len(left) >= 2 * k else len(left)
        nearest = distance[left[0], left].argsort(stable=True)[:size]
        member[left[nearest]] = number
        keep = torch.ones(len(left), dtype=torch.bool, device=x.device)
        keep[nearest] = False
        left, number = left[keep], number + 1
    means = torch.stack([x[member == i].mean(dim=0) for i in range(number)])
    return means[member].clamp(0, 1), member


class Fisherfaces(nn.Module):
    """A recogniser: faces (N, C, H, W) to unit vectors (N, dimensions), near each other for one person.

    Shrink to ``size`` x ``size``, subtract the ``mean``, project; everything it knows is in the buffers
    ``mean`` (d,) and ``projection`` (d, dimensions) with d = channels * size**2, which ``fisherfaces``
    fills.

    Raises ``ValueError`` for sizes below 1, or more dimensions than d.
    """

    mean: Tensor
    projection: Tensor

    def __init__(self, channels: int = 3, *, size: int = 16, dimensions: int = 40) -> None:
        super().__init__()
        d = channels * size**2
        if min(channels, size, dimensions) < 1 or dimensions > d:
            raise ValueError(
                "channels, size, dimensions: expected 1 or more, and dimensions at most channels * "
                f"size**2; got {channels}, {size}, {dimensions}"
            )
        self.channels, self.size = channels, size
        self.register_buffer("mean", torch.zeros(d))
        self.register_buffer("projection", torch.zeros(d, dimensions))

    def vector(self, x: Tensor) -> Tensor:
        """Return faces (N, channels, H, W) shrunk to vectors (N, d)."""
        check_images(x)
        if x.shape[1] != self.channels or min(x.shape[2:]) < self.size:
            raise ValueError(
                f"x: expected (N, {self.channels}, H, W), H and W >= {self.size}; "
                f"got {tuple(x.shape)}"
            )
        return F.adaptive_avg_pool2d(x, self.size).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the unit vectors (N, dimensions) of faces (N, channels, H, W) in [0, 1]."""
        return F.normalize((self.vector(x) - self.mean) @ self.projection, dim=1)


def fisherfaces(
    x: Tensor,
    y: Tensor,
    *,
    size: int = 16,
    components: int = 150,
    dimensions: int = 40,
    shrinkage: float = 1e-3,
) -> Fisherfaces:
    r"""Fit a recogniser: the directions in which people differ most, for how little each one varies.

    ``x``: (N, C, H, W) in [0, 1]; ``y``: (N,) the person on each, several images a person. PCA keeps
    ``components``, whitened; there the directions w maximise
    :math:`w^\top S_b w \,/\, w^\top (S_w + \lambda I) w`, the scatter between the people's means over that
    within people, with :math:`\lambda` the share ``shrinkage`` of its mean eigenvalue.

    Raises ``ValueError`` for another shape or range, fewer than two people, no person with two images,
    sizes that the number of images or people does not allow, and a shrinkage that is not positive.
    Source: Belhumeur, Hespanha & Kriegman, "Eigenfaces vs. Fisherfaces", 1997, section 2.4.
    """
    check_images(x)
    check_labelled(x, y)
    people, inverse = y.unique(return_inverse=True)
    model = Fisherfaces(x.shape[1], size=size, dimensions=dimensions).to(x)
    most = min(len(x) - 1, x.shape[1] * size**2)
    if not 1 <= components <= most:
        raise ValueError(f"components: expected 1 to {most}, got {components}")
    if len(people) < 2 or len(people) == len(y):
        raise ValueError(
            f"y: expected two people or more, and two images of some; got {len(people)} people on "
            f"{len(y)} images"
        )
    if not dimensions <= min(components, len(people) - 1):
        raise ValueError(
            f"dimensions: expected at most {min(components, len(people) - 1)} for {len(people)} people "
            f"and {components} components, got {dimensions}"
        )
    if not 0 < shrinkage < math.inf:
        raise ValueError(f"shrinkage: expected a positive number, got {shrinkage}")
    v = model.vector(x).double()
    mean = v.mean(dim=0)
    _, s, vt = torch.linalg.svd(v - mean, full_matrices=False)
    spread = s[:components] / len(x) ** 0.5
    some = spread > 1e-6 * spread[0]  # a direction without variance is left out, not blown up
    whiten = vt[:components].T * torch.where(some, 1 / spread, 0.0)
    z = (v - mean) @ whiten
    sums = torch.zeros(len(people), components, dtype=z.dtype, device=z.device)
    counts = torch.bincount(inverse).to(z.dtype)
    means = sums.index_add_(0, inverse, z) / counts[:, None]
    within = z - means[inverse]
    s_w = within.T @ within / len(z)
    s_w = s_w + shrinkage * s_w.diagonal().mean() * torch.eye(components).to(s_w)
    # Where the scatter within is a ball, the best directions are the principal ones of the means.
    root = torch.linalg.cholesky(s_w)
    ball = torch.linalg.solve_triangular(root, (means * counts[:, None].sqrt()).T, upper=False)
    u, _, _ = torch.linalg.svd(ball, full_matrices=False)
    w = torch.linalg.solve_triangular(root.T, u[:, :dimensions], upper=True)
    model.mean.copy_(mean)
    projection = whiten @ w
    model.projection.copy_(projection / projection.abs().max())  # a cosine has no scale
    return model


def identify(faces: Tensor, gallery: Tensor, who: Tensor) -> Tensor:
    """Name the person on each face: that of the nearest vector in the gallery.

    ``faces``: (N, d) and ``gallery``: (M, d), unit vectors of one recogniser; ``who``: (M,) the person
    of each in the gallery. Nearest is the largest cosine. Returns names (N,).

    Raises ``ValueError`` for other shapes or dtypes, an empty batch or NaN.
    """
    check_examples("faces", faces)
    check_labelled(gallery, who)
    if faces.ndim != 2 or gallery.ndim != 2 or faces.shape[1] != gallery.shape[1]:
        raise ValueError(
            f"faces, gallery: expected (N, d) and (M, d), got {tuple(faces.shape)} and "
            f"{tuple(gallery.shape)}"
        )
    return who[(faces @ gallery.T).argmax(dim=1)]


def kept(readings: Tensor, known: Tensor) -> Tensor:
    """Return for each number how far the readings follow the truth: correlations (P,) in [-1, 1].

    ``readings``, ``known``: (N, P), N >= 2. A reading that never moves follows nothing and counts 0.

    Raises ``ValueError`` for other shapes, fewer than two rows, NaN, or a truth that never varies.
    """
    check_examples("readings", readings)
    check_examples("known", known)
    if readings.shape != known.shape or known.ndim != 2 or len(known) < 2:
        raise ValueError(
            f"readings: expected (N, P) as known, N >= 2; got {tuple(readings.shape)} and "
            f"{tuple(known.shape)}"
        )
    a = readings.double() - readings.double().mean(dim=0)
    b = known.double() - known.double().mean(dim=0)
    if float(b.square().sum(dim=0).min()) == 0:
        raise ValueError("known: expected numbers that vary")
    size = (a.square().sum(dim=0) * b.square().sum(dim=0)).sqrt()
    still = a.square().mean(dim=0).sqrt() < 1e-6 * (1 + readings.double().abs().amax(dim=0))
    return torch.where(still, torch.zeros_like(size), (a * b).sum(dim=0) / size.clamp_min(1e-300))
