"""Giving real and generated pictures the same history, before a detector is shown either.

A detector is only compared on images that were rounded, stretched and framed alike; what is left to
tell them apart should be the way they were made. What happens to a picture afterwards is in
``compression``.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_images(x: Tensor, name: str = "x") -> None:
    """Raise ``ValueError`` unless ``x`` is (N, 1 or 3, H, W), floating, N > 0, and in [0, 1]."""
    if x.ndim != 4 or x.shape[1] not in (1, 3) or x.numel() == 0:
        raise ValueError(f"{name}: expected shape (N, 1 or 3, H, W), N > 0; got {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(f"{name}: expected floating-point images in [0, 1], got {x.dtype}")
    low, high = float(x.detach().min()), float(x.detach().max())
    if not (low >= 0 and high <= 1):  # NaN fails both comparisons
        raise ValueError(f"{name}: expected values in [0, 1], got [{low:.3g}, {high:.3g}]")


def check_pair(real: Tensor, fake: Tensor) -> None:
    """Raise ``ValueError`` unless ``real`` and ``fake`` are images of one shape, but for N."""
    check_images(real, "real")
    check_images(fake, "fake")
    if real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"fake: expected images of shape {tuple(real.shape[1:])} as in real, "
            f"got {tuple(fake.shape[1:])}"
        )


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


def prepare_portrait(x: Tensor, *, deviation: float = 0.18, margin: int = 4) -> Tensor:
    """Give real and generated portraits the same history, before a detector sees either.

    8 bits; each colour channel of each image standardised over all but the margin, its extremes bent
    inwards by tanh, and brought to mean 1/2 and standard deviation ``deviation``; 8 bits again; the
    outermost ``margin`` pixels grey. So neither brightness, contrast, tint, the share of pure black and
    white nor a generator's edge tells the two apart. (Cutting extremes off instead of bending them would
    leave that share to tell.)

    ``x``: (N, C, H, W) in [0, 1]. Raises ``ValueError`` for another shape or range, a deviation that
    is not positive, and a margin that leaves nothing.
    """
    check_images(x)
    if not 0 < deviation < 0.5:
        raise ValueError(f"deviation: expected a value in (0, 0.5), got {deviation}")
    if not 0 <= margin < min(x.shape[2:]) / 2:
        raise ValueError(
            f"margin: expected 0 to less than half of {tuple(x.shape[2:])}, got {margin}"
        )
    inner = (..., slice(margin, x.shape[2] - margin), slice(margin, x.shape[3] - margin))
    bent = _standardised(torch.tanh(_standardised(quantise(x)[inner])))
    prepared = torch.full_like(x, 128 / 255)
    prepared[inner] = quantise((0.5 + deviation * bent).clamp(0, 1))
    return prepared


def _standardised(x: Tensor) -> Tensor:
    mean = x.mean(dim=(2, 3), keepdim=True)
    # A flat channel stays flat: it has no contrast to stretch.
    return (x - mean) / x.std(dim=(2, 3), keepdim=True, correction=0).clamp_min(1e-3)
