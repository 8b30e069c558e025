"""Differentiable augmentation: what D sees is changed at random, and G still learns through it.

With few images D soon knows each of them by heart. Changing only the real ones would teach G to draw
changed images; so real and generated are changed alike, every time D looks.

Chapter: book/generate/conv_gans.md
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: What a shifted or cut image shows where nothing is left: the middle of [0, 1].
GREY = 0.5


def augment(x: Tensor, rng: torch.Generator) -> Tensor:
    """Change each image in its colours, its place and by a hole, (N, C, H, W) to (N, C, H, W).

    Brightness moves by up to 1/4, saturation is multiplied by 0 to 2 and contrast by 1/2 to 3/2; the
    image is shifted by up to an eighth of each side; and a rectangle half as high and wide, anywhere,
    is greyed out. ``x``: images in [0, 1]; the result may leave that range, since a clip would stop
    the gradient. ``rng``: the numbers come from it, on its own device.

    Raises ``ValueError`` for another shape or dtype, and for no image.
    Source: Zhao et al. 2020, section 3.3, "color + translation + cutout", in [0, 1] instead of [-1, 1].
    """
    check_images(x)
    return cut_out(translate(recolour(x, rng), rng), rng)


def recolour(x: Tensor, rng: torch.Generator) -> Tensor:
    """Move brightness by up to 1/4, then multiply saturation by 0 to 2 and contrast by 1/2 to 3/2.

    ``x``: images (N, C, H, W) in [0, 1]; each gets its own draw. Errors as for ``augment``.
    """
    check_images(x)
    brightness, saturation, contrast = _uniform(3, x, rng)[..., None, None, None]
    x = x + (brightness - 0.5) / 2
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    level = x.mean((1, 2, 3), keepdim=True)
    contrasted: Tensor = level + (contrast + 0.5) * (x - level)
    return contrasted


def translate(x: Tensor, rng: torch.Generator, share: float = 1 / 8) -> Tensor:
    """Shift each image by whole pixels, up to ``share`` of each side; grey follows it in.

    ``x``: images (N, C, H, W). Raises ``ValueError`` as ``augment`` does, and for a share outside
    [0, 1).
    """
    check_images(x)
    _check_share(share, below_one=True)
    farthest = [round(share * side) for side in x.shape[2:]]
    down, right = (
        ((2 * most + 1) * u).floor().long() - most
        for most, u in zip(farthest, _uniform(2, x, rng), strict=True)
    )
    (most_down, most_right), (height, width) = farthest, x.shape[2:]
    padded = F.pad(x, (most_right, most_right, most_down, most_down), value=GREY)
    rows = most_down - down[:, None] + torch.arange(height, device=x.device)
    columns = most_right - right[:, None] + torch.arange(width, device=x.device)
    images = torch.arange(len(x), device=x.device)[:, None, None]
    # Indices on both sides of a slice put what they choose first, and the channels last.
    moved = padded[images, :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def cut_out(x: Tensor, rng: torch.Generator, share: float = 1 / 2) -> Tensor:
    """Grey out a rectangle of ``share`` of each side, its middle anywhere in the image.

    ``x``: images (N, C, H, W). What would lie outside the image is not cut. Raises ``ValueError`` as
    ``augment`` does, and for a share outside [0, 1].
    """
    check_images(x)
    _check_share(share, below_one=False)
    inside = []
    for side, u in zip(x.shape[2:], _uniform(2, x, rng), strict=True):
        length = round(share * side)
        first = (u * (side + 1 - length % 2)).floor() - length // 2
        places = torch.arange(side, device=x.device)
        inside.append((places >= first[:, None]) & (places < first[:, None] + length))
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(hole, GREY, x)


class Augmented(nn.Module):
    """A discriminator that sees every image through ``augment``, real and generated ones alike.

    ``module``: the bare discriminator; ``rng``: what the changes are drawn from. In evaluation mode
    images pass unchanged.
    """

    def __init__(self, module: nn.Module, rng: torch.Generator) -> None:
        super().__init__()
        self.module, self.rng = module, rng

    def forward(self, x: Tensor) -> Tensor:
        """Score images (N, C, H, W) as ``module`` does, after changing them."""
        scores: Tensor = self.module(augment(x, self.rng) if self.training else x)
        return scores


def check_images(x: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is a float batch of images, (N, C, H, W) with N > 0."""
    if x.ndim != 4 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"x: expected a float tensor of shape (N, C, H, W) with N > 0, "
            f"got {x.dtype} {tuple(x.shape)}"
        )


def _check_share(share: float, *, below_one: bool) -> None:
    if not (0 <= share < 1 if below_one else 0 <= share <= 1):
        raise ValueError(f"share: expected a share of the side, in [0, 1], got {share}")


def _uniform(many: int, x: Tensor, rng: torch.Generator) -> Tensor:
    """Draw (many, N) numbers from [0, 1), in ``x``'s dtype and where it is."""
    drawn = torch.rand(many, len(x), generator=rng, device=rng.device)
    return drawn.to(x.device, x.dtype)
