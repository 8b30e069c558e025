"""Generators and discriminators: small ones for games on a line or plane, DCGAN's for images.

Chapters: book/generate/two_player_game.md, book/generate/conv_gans.md
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn


def mlp(
    inputs: int,
    outputs: int,
    *,
    width: int = 64,
    depth: int = 2,
    generator: torch.Generator | None = None,
) -> nn.Sequential:
    """Return a plain network (N, inputs) -> (N, outputs), for either player of a small game.

    ``depth`` hidden layers of ``width`` units with leaky ReLU 0.2, and a linear output: points for
    a generator, logits for a discriminator. ``generator`` draws the initial weights, as He et al.
    2015 scale them.

    Raises ``ValueError`` for a size below 1.
    """
    check_sizes(inputs=inputs, outputs=outputs, width=width, depth=depth)
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(inputs if i == 0 else width, width), nn.LeakyReLU(0.2)]
    layers.append(nn.Linear(width, outputs))
    for layer in layers:
        if isinstance(layer, nn.Linear):
            last = layer is layers[-1]
            nn.init.kaiming_normal_(
                layer.weight,
                a=1.0 if last else 0.2,  # a = 1: the gain of a linear layer
                nonlinearity="leaky_relu",
                generator=generator,
            )
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)


#: The image sizes that DCGAN's networks come in: the side of the smallest maps, and how often it doubles.
SIZES = {28: (7, 2), 32: (4, 3), 64: (4, 4)}

#: How a generator doubles the size of its maps.
Upsampling = Literal["transposed", "nearest", "bilinear"]


class DCGANGenerator(nn.Module):
    """DCGAN's generator: noise (N, latent) to images (N, image_channels, size, size) in [0, 1].

    A transposed convolution opens the noise to small maps (7x7 for images of 28 pixels, 4x4 for those
    of 32 and 64), and others of 4x4 with stride 2 double them until the size is reached; batch norm
    and ReLU between them, tanh at the end. The network works in [-1, 1], as in the paper; what leaves
    it is in [0, 1], as all images in this course. ``channels``: maps before the last layer; every
    layer nearer to the noise has twice as many, up to ``max_channels``. Without ``batch_norm`` its
    layers have a bias instead. Weights start at N(0, 0.02^2).

    ``upsampling``: "transposed", as described, or "nearest" or "bilinear": the maps are enlarged so,
    and a convolution of 3x3 follows. Each way leaves traces of its own in the images.

    Raises ``ValueError`` for a size other than 28, 32 and 64, a number below 1, an unknown upsampling,
    and for noise of another shape.
    Source: Radford, Metz and Chintala 2016, section 3 and figure 1, with fewer maps; Odena, Dumoulin
    and Olah 2016, "Deconvolution and Checkerboard Artifacts", for enlarging and then convolving.
    """

    def __init__(
        self,
        latent: int = 64,
        channels: int = 64,
        *,
        size: int = 28,
        image_channels: int = 1,
        max_channels: int | None = None,
        batch_norm: bool = True,
        upsampling: Upsampling = "transposed",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        check_sizes(latent=latent)
        widths = _widths(channels, size, image_channels, max_channels)[::-1]
        self.latent = latent
        layers: list[nn.Module] = [
            # No bias where batch norm follows: it would be subtracted again with the mean.
            nn.ConvTranspose2d(latent, widths[0], kernel_size=SIZES[size][0], bias=not batch_norm)
        ]
        for i, width in enumerate(widths):
            last = i == len(widths) - 1
            layers += [nn.BatchNorm2d(width, eps=1e-5, momentum=0.1)] if batch_norm else []
            layers += [
                nn.ReLU(),
                *_doubled(
                    width,
                    image_channels if last else widths[i + 1],
                    upsampling,
                    bias=last or not batch_norm,
                ),
            ]
        self.layers = nn.Sequential(*layers, nn.Tanh())
        initialise(self, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Turn noise (N, latent), drawn from N(0, 1), into images (N, C, H, W) in [0, 1]."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"z: expected shape (N, {self.latent}), got {tuple(z.shape)}")
        images: Tensor = self.layers(z[:, :, None, None])
        return (images + 1) / 2


def _doubled(maps: int, to: int, upsampling: Upsampling, *, bias: bool) -> list[nn.Module]:
    """Return the layers that make maps (N, maps, H, W) into (N, to, 2H, 2W)."""
    if upsampling == "transposed":
        return [nn.ConvTranspose2d(maps, to, kernel_size=4, stride=2, padding=1, bias=bias)]
    if upsampling not in ("nearest", "bilinear"):
        raise ValueError(
            f"upsampling: expected transposed, nearest or bilinear, got {upsampling!r}"
        )
    return [
        nn.Upsample(scale_factor=2, mode=upsampling),
        nn.Conv2d(maps, to, kernel_size=3, padding=1, bias=bias),
    ]


class DCGANDiscriminator(nn.Module):
    """DCGAN's discriminator: images (N, image_channels, size, size) in [0, 1] to logits (N,).

    The generator in reverse: 4x4 convolutions with stride 2 halve the image to 7x7 (from 28 pixels)
    or 4x4 (from 32 and 64), and one over all that is left weighs it up; leaky ReLU 0.2, batch norm on
    all layers but the first and the last. There is no sigmoid: the losses want logits. ``channels``:
    maps after the first layer; every further layer has twice as many, up to ``max_channels``. Without
    ``batch_norm``, as gradient penalties want it, its layers have a bias instead. Weights start at
    N(0, 0.02^2).

    Raises ``ValueError`` for a size other than 28, 32 and 64, a number below 1, and for images of
    another shape.
    Source: Radford, Metz and Chintala 2016, section 3, with fewer maps.
    """

    def __init__(
        self,
        channels: int = 64,
        *,
        size: int = 28,
        image_channels: int = 1,
        max_channels: int | None = None,
        batch_norm: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = _widths(channels, size, image_channels, max_channels)
        self.shape = (image_channels, size, size)
        self.layers = nn.Sequential(
            *halvings(image_channels, widths, batch_norm=batch_norm),
            nn.Conv2d(widths[-1], 1, kernel_size=SIZES[size][0]),
        )
        initialise(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Score images (N, C, H, W) in [0, 1]: a logit each, (N,), above 0 for "real"."""
        logits: Tensor = self.layers(self._scaled(x))
        return logits.flatten()

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer weighs up, (N, F): the activations before it, flattened.

        Feature matching compares their means on real and generated images (Salimans et al. 2016,
        section 3.1).
        """
        activations: Tensor = self.layers[:-1](self._scaled(x))
        return activations.flatten(1)

    def _scaled(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"x: expected shape (N, {wanted}), got {tuple(x.shape)}")
        return 2 * x - 1


def halvings(
    image_channels: int, widths: Sequence[int], *, batch_norm: bool = True
) -> list[nn.Module]:
    """Return the layers of DCGAN's discriminator that halve an image, once for each of ``widths``.

    Each is a 4x4 convolution with stride 2 to that many maps and leaky ReLU 0.2, with batch norm
    between them on all but the first; without ``batch_norm`` they have a bias instead.
    """
    layers: list[nn.Module] = [
        nn.Conv2d(image_channels, widths[0], kernel_size=4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
    ]
    for before, width in pairwise(widths):
        layers.append(
            nn.Conv2d(before, width, kernel_size=4, stride=2, padding=1, bias=not batch_norm)
        )
        layers += [nn.BatchNorm2d(width, eps=1e-5, momentum=0.1)] if batch_norm else []
        layers.append(nn.LeakyReLU(0.2))
    return layers


def check_sizes(least: int = 1, /, **sizes: int) -> None:
    """Raise ``ValueError``, naming the argument, unless all ``sizes`` are at least ``least``."""
    for name, size in sizes.items():
        if size < least:
            raise ValueError(f"{name}: expected at least {least}, got {size}")


def _widths(
    channels: int, size: int, image_channels: int, max_channels: int | None
) -> tuple[int, ...]:
    """Return how many maps each size has, from the image's side to the noise's."""
    if size not in SIZES:
        raise ValueError(f"size: expected one of {', '.join(map(str, SIZES))}, got {size}")
    check_sizes(channels=channels, image_channels=image_channels)
    if max_channels is not None and max_channels < channels:
        raise ValueError(f"max_channels: expected at least channels={channels}, got {max_channels}")
    doubled = (channels * 2**i for i in range(SIZES[size][1]))
    return tuple(w if max_channels is None else min(w, max_channels) for w in doubled)


def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Set ``module``'s weights as DCGAN does: convolutions N(0, 0.02^2), batch norm N(1, 0.02^2).

    Biases become 0. Source: Radford, Metz and Chintala 2016, section 4; the batch norm's scale is
    from the authors' code.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02, generator=generator)
            nn.init.zeros_(layer.bias)
