"""Which pixels belong to it: an encoder-decoder whose output is a mask, and how to judge masks.

A segmenter squeezes an image as a convolutional autoencoder does, and is asked for another image:
``training.fit(model, x, target=masks, loss=training.cross_entropy)`` trains it.

Chapter: book/represent/convolutional.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from course_lib.autoencoders.networks import (
    Autoencoder,
    check_shape,
    check_size,
    initialise,
)
from course_lib.classifiers import check_examples, evaluating


class Segmenter(Autoencoder):
    """An encoder-decoder from images (N, C, H, W) to one mask each, (N, 1, H, W) in [0, 1].

    ``image_shape``: (C, H, W) of what goes in; ``shape``: (1, H, W) of what comes out.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, image_shape: Sequence[int]) -> None:
        super().__init__(encoder, decoder, (1, *image_shape[1:]), output="sigmoid")
        self.image_shape = tuple(image_shape)


def segmenter(
    shape: Sequence[int],
    *,
    channels: int = 16,
    skips: bool = True,
    generator: torch.Generator | None = None,
) -> Segmenter:
    """Return a small U-shaped network: (C, H, W) down to (4 * channels, H/4, W/4), up to a mask.

    ``shape``: of one image, H and W divisible by 4. With ``skips`` each step upwards also sees the
    maps that the encoder had at that size, so that an outline need not pass through the narrowest
    maps. The code is every map that the decoder sees, one after the other.

    Raises ``ValueError`` for a size below 1, or H or W that 4 does not divide.
    Source: Ronneberger, Fischer and Brox (2015), figure 1, with two levels instead of four and
    strided convolutions instead of pooling.
    """
    check_shape(shape)
    if len(shape) != 3 or shape[1] % 4 or shape[2] % 4:
        raise ValueError(f"shape: expected (C, H, W), H and W divisible by 4; got {tuple(shape)}")
    check_size("channels", channels)
    encoder, decoder = _Down(shape[0], channels, skips), _Up(shape, channels, skips)
    model = Segmenter(encoder, decoder, shape)
    initialise(model, generator)
    return model


@torch.no_grad()
def segment(
    model: Segmenter, x: Tensor, threshold: float = 0.5, *, batch_size: int = 500
) -> Tensor:
    """Return the masks (N, 1, H, W), 1 where ``model`` gives a pixel at least ``threshold``, else 0.

    ``x``: images (N, C, H, W), where the model is; ``threshold``: in (0, 1). The masks have the dtype
    of ``x``. The model is left as it was found.

    Raises ``ValueError`` for another shape or dtype, no image, NaN, or a threshold out of range.
    """
    check_examples("x", x)
    check_size("batch_size", batch_size)
    if not 0 < threshold < 1:
        raise ValueError(f"threshold: expected a value in (0, 1), got {threshold}")
    with evaluating(model):
        return torch.cat([(model(part) >= threshold).to(x.dtype) for part in x.split(batch_size)])


def iou(predicted: Tensor, mask: Tensor) -> Tensor:
    """Return intersection over union of each pair of masks, (N,) in [0, 1].

    |A and B| / |A or B|, for masks (N, ...) of one shape whose values are 0 and 1. Two empty masks
    agree: 1. One empty mask of two gives 0.

    Raises ``ValueError`` for shapes that differ, no mask, or values other than 0 and 1.
    Source: Jaccard (1912).
    """
    both, either = _overlap(predicted, mask)
    return torch.where(either > 0, both / either.clamp_min(1), torch.ones_like(both))


def dice(predicted: Tensor, mask: Tensor) -> Tensor:
    """Return Dice's coefficient of each pair of masks, (N,) in [0, 1]: 2 |A and B| / (|A| + |B|).

    Masks, empty masks and errors as for ``iou``; one follows from the other, dice = 2 iou / (1 + iou).

    Source: Dice (1945).
    """
    both, either = _overlap(predicted, mask)
    return torch.where(either > 0, 2 * both / (both + either).clamp_min(1), torch.ones_like(both))


class _Down(nn.Module):
    """Three sizes of maps, each half as high and wide as the one before; what it hands on is flat."""

    def __init__(self, colours: int, channels: int, skips: bool) -> None:
        super().__init__()
        self.skips = skips
        self.to_full = nn.Conv2d(colours, channels, kernel_size=3, padding=1)
        self.to_half = nn.Conv2d(channels, 2 * channels, kernel_size=4, stride=2, padding=1)
        self.to_quarter = nn.Conv2d(2 * channels, 4 * channels, kernel_size=4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        full = self.to_full(x).relu()
        half = self.to_half(full).relu()
        quarter = self.to_quarter(half).relu()
        handed_on = [quarter, half, full] if self.skips else [quarter]
        return torch.cat([maps.flatten(1) for maps in handed_on], dim=1)


class _Up(nn.Module):
    """Back to the size of the image; with skips each step sees the encoder's maps of its size."""

    def __init__(self, shape: Sequence[int], channels: int, skips: bool) -> None:
        super().__init__()
        _, height, width = shape
        self.shapes = [
            (4 * channels, height // 4, width // 4),
            (2 * channels, height // 2, width // 2),
            (channels, height, width),
        ][: 3 if skips else 1]
        seen = 2 if skips else 1
        self.to_half = nn.ConvTranspose2d(4 * channels, 2 * channels, 4, stride=2, padding=1)
        self.to_full = nn.ConvTranspose2d(seen * 2 * channels, channels, 4, stride=2, padding=1)
        self.to_mask = nn.Conv2d(seen * channels, 1, kernel_size=3, padding=1)

    def forward(self, code: Tensor) -> Tensor:
        flat = code.split([math.prod(shape) for shape in self.shapes], dim=1)
        quarter, *skipped = (f.unflatten(1, s) for f, s in zip(flat, self.shapes, strict=True))
        maps = self.to_half(quarter).relu()
        if skipped:
            maps = torch.cat([maps, skipped[0]], dim=1)
        maps = self.to_full(maps).relu()
        if skipped:
            maps = torch.cat([maps, skipped[1]], dim=1)
        mask: Tensor = self.to_mask(maps)
        return mask


def _overlap(predicted: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return |A and B| and |A or B| of each pair, (N,)."""
    if predicted.shape != mask.shape or mask.ndim < 2 or mask.numel() == 0:
        raise ValueError(
            f"predicted, mask: expected one shape (N, ...) with N > 0, "
            f"got {tuple(predicted.shape)} and {tuple(mask.shape)}"
        )
    for name, values in (("predicted", predicted), ("mask", mask)):
        if not bool(((values == 0) | (values == 1)).all()):
            raise ValueError(
                f"{name}: expected masks of 0 and 1; threshold soft ones first, as segment does"
            )
    a, b = predicted.flatten(1).bool(), mask.flatten(1).bool()
    size = torch.get_default_dtype()
    return (a & b).sum(1).to(size), (a | b).sum(1).to(size)
