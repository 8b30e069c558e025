"""What happens to a picture between its maker and its judge: rounding, JPEG, resizing, blur, noise.

Every function takes images (N, C, H, W) in [0, 1] and gives back the same shape and range, on the
same device; the same input and seed give the same output. A detector is only compared on real and
generated images that went through the same of these, in the same order.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def check_images(x: Tensor, name: str = "x") -> None:
    """Raise ``ValueError`` unless ``x`` is (N, 1 or 3, H, W), floating, N > 0, and in [0, 1]."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.numel() == 0:
        raise ValueError(f"{name}: expected shape (N, 1 or 3, H, W), N > 0; got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{name}: expected floating-point images in [0, 1], got {x.dtype}")
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):  # NaN fails both comparisons
        raise ValueError(f"{name}: expected values in [0, 1], got [{low:.3g}, {high:.3g}]")


def quantise(x: Tensor) -> Tensor:
    """Round to the 256 levels of an 8-bit file.

    ``x``: (N, C, H, W) in [0, 1]. Raises ``ValueError`` for another shape or range.
    """
    check_images(x)
    return torch.round(x * 255) / 255


def levels(x: Tensor, black: float, white: float = 1.0) -> Tensor:
    """Clip everything up to ``black`` to 0 and from ``white`` to 1, and stretch what lies between.

    ``x``: (N, C, H, W) in [0, 1]; ``0 <= black < white <= 1``. Raises ``ValueError`` otherwise.
    """
    check_images(x)
    if not 0 <= black < white <= 1:
        raise ValueError(f"black, white: expected 0 <= black < white <= 1, got {black}, {white}")
    return ((x - black) / (white - black)).clamp(0, 1)


def prepare(x: Tensor, *, black: float = 0.1, white: float = 0.9, margin: int = 2) -> Tensor:
    """Give real and generated digits the same history, before a detector sees either.

    8 bits; everything nearly black to black and nearly white to white (``levels``); 8 bits again; the
    outermost ``margin`` pixels black. A scanned digit lies on exactly 0 and a generator only comes
    close to that, so that without this the two are told apart by their paper, not by their ink.

    ``x``: (N, C, H, W) in [0, 1]. Raises ``ValueError`` for another shape or range, and for levels or
    a margin that leave nothing.
    """
    check_images(x)
    if not 0 <= margin < min(x.shape[2:]) / 2:
        raise ValueError(
            f"margin: expected 0 to less than half of {tuple(x.shape[2:])}, got {margin}"
        )
    prepared = torch.zeros_like(x)
    inner = (..., slice(margin, x.shape[2] - margin), slice(margin, x.shape[3] - margin))
    prepared[inner] = quantise(levels(quantise(x), black, white))[inner]
    return prepared


def jpeg(x: Tensor, quality: int) -> Tensor:
    """Save each image as a JPEG file in memory and open it again.

    ``x``: (N, C, H, W) in [0, 1], saved as greyscale (C = 1) or with colours at half resolution
    (C = 3, the usual 4:2:0); ``quality``: Pillow's and libjpeg's scale from 1 (worst) to 100, which
    still rounds. Raises ``ValueError`` for another shape, range or quality.
    """
    check_images(x)
    if not 1 <= quality <= 100:
        raise ValueError(f"quality: expected 1 to 100, got {quality}")
    return _through_jpeg(x, [quality] * len(x))


def _through_jpeg(x: Tensor, qualities: list[int]) -> Tensor:
    array = (x.detach().cpu() * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    opened = []
    for image, quality in zip(array, qualities, strict=True):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(
            file, format="JPEG", quality=quality, subsampling=2 if image.shape[2] == 3 else -1
        )
        opened.append(np.asarray(Image.open(file)).reshape(image.shape))
    result = torch.from_numpy(np.stack(opened)).permute(0, 3, 1, 2)
    return result.to(device=x.device, dtype=x.dtype) / 255


def resize(x: Tensor, factor: float) -> Tensor:
    """Make each image ``factor`` times as large and bring it back to its size.

    Both ways bilinear with anti-aliasing. ``x``: (N, C, H, W) in [0, 1]; ``factor``: 0.5 halves height
    and width, 1 leaves the images as they are. Raises ``ValueError`` for another shape or range, and
    for a factor that is not positive or leaves less than one pixel.
    """
    check_images(x)
    if not (math.isfinite(factor) and factor > 0):
        raise ValueError(f"factor: expected a positive number, got {factor}")
    size = (x.shape[2], x.shape[3])
    other = (round(size[0] * factor), round(size[1] * factor))
    if min(other) < 1:
        raise ValueError(f"factor: {factor} leaves {other[0]} x {other[1]} pixels of {size}")
    if other == size:
        return x.clone()
    there = F.interpolate(x, other, mode="bilinear", align_corners=False, antialias=True)
    back = F.interpolate(there, size, mode="bilinear", align_corners=False, antialias=True)
    return back.clamp(0, 1)


def blur(x: Tensor, sigma: float) -> Tensor:
    r"""Convolve with a Gaussian, :math:`g(i) \propto \exp(-i^2 / 2\sigma^2)` along both axes.

    The kernel is cut at four standard deviations and sums to 1; the edge pixels are repeated outwards.
    ``x``: (N, C, H, W) in [0, 1]; ``sigma``: in pixels, 0 leaves the images as they are. Raises
    ``ValueError`` for another shape or range, and for a sigma that is negative or not finite.
    """
    check_images(x)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma: expected a number of pixels >= 0, got {sigma}")
    if sigma == 0:
        return x.clone()
    radius = math.ceil(4 * sigma)
    i = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    g = torch.exp(-(i**2) / (2 * sigma**2))
    g = g / g.sum()
    channels = x.shape[1]
    padded = F.pad(x, (radius, radius, radius, radius), mode="replicate")
    rows = F.conv2d(padded, g.view(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)
    both = F.conv2d(rows, g.view(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    return both.clamp(0, 1)


def noise(x: Tensor, sigma: float, *, seed: int | torch.Generator) -> Tensor:
    """Add independent Gaussian noise to every pixel and clip to [0, 1].

    ``x``: (N, C, H, W) in [0, 1]; ``sigma``: its standard deviation in units of x, 0 leaves the images
    as they are; ``seed``: an integer, or a CPU generator to draw from. Raises ``ValueError`` for
    another shape or range, and for a sigma that is negative or not finite.
    """
    check_images(x)
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma: expected a number >= 0, got {sigma}")
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    # Drawn on the CPU: a GPU draws other numbers from the same seed.
    drawn = torch.randn(x.shape, generator=generator, dtype=x.dtype)
    return (x + sigma * drawn.to(x.device)).clamp(0, 1)


def blur_and_jpeg(x: Tensor, generator: torch.Generator, *, p: float = 0.5) -> Tensor:
    """Augment for training: each batch blurred or halved, each image through JPEG, by chance.

    With probability ``p`` the batch is blurred with sigma drawn from [0, 1.5] pixels or, one time in
    three, resized by a factor from [0.5, 1]; with probability ``p`` its images are saved as JPEG, each
    at a quality drawn from 30 to 95. After Wang et al. (2020), section 3.2, "Blur + JPEG", with
    resizing added and the strengths cut to small images.

    ``x``: (N, C, H, W) in [0, 1]; ``generator``: on the CPU. Raises ``ValueError`` for another shape or
    range, and for a ``p`` outside [0, 1].
    """
    check_images(x)
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability, got {p}")
    first, kind, strength, second = torch.rand(4, generator=generator).tolist()
    if first < p:
        x = resize(x, 0.5 + 0.5 * strength) if kind < 1 / 3 else blur(x, 1.5 * strength)
    if second < p:
        qualities = torch.randint(30, 96, (len(x),), generator=generator).tolist()
        x = _through_jpeg(x, qualities)
    return x
