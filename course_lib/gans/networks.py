"""Generators and discriminators: small ones for games on a line or plane, DCGAN's for 28x28 images.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

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
    for name, size in (
        ("inputs", inputs),
        ("outputs", outputs),
        ("width", width),
        ("depth", depth),
    ):
        if size < 1:
            raise ValueError(f"{name}: expected at least 1, got {size}")
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


class DCGANGenerator(nn.Module):
    """DCGAN's generator for 28x28 images: noise (N, latent) to images (N, 1, 28, 28) in [0, 1].

    A 7x7 transposed convolution opens the noise to 7x7, two of 4x4 with stride 2 double that twice;
    batch norm and ReLU between them, tanh at the end. The network works in [-1, 1], as in the
    paper; what leaves it is in [0, 1], as all images in this course. Weights start at N(0, 0.02^2).

    Raises ``ValueError`` for a size below 1 and for noise of another shape.
    Source: Radford, Metz and Chintala 2016, section 3, with the sizes of 28x28 digits.
    """

    def __init__(
        self, latent: int = 64, channels: int = 64, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if latent < 1 or channels < 1:
            raise ValueError(f"expected latent >= 1 and channels >= 1, got {latent} and {channels}")
        self.latent = latent
        self.layers = nn.Sequential(
            # No bias where batch norm follows: it would be subtracted again with the mean.
            nn.ConvTranspose2d(latent, 2 * channels, kernel_size=7, bias=False),
            nn.BatchNorm2d(2 * channels, eps=1e-5, momentum=0.1),
            nn.ReLU(),
            nn.ConvTranspose2d(
                2 * channels, channels, kernel_size=4, stride=2, padding=1, bias=False
            ),
            nn.BatchNorm2d(channels, eps=1e-5, momentum=0.1),
            nn.ReLU(),
            nn.ConvTranspose2d(channels, 1, kernel_size=4, stride=2, padding=1),
            nn.Tanh(),
        )
        initialise(self, generator)

    def forward(self, z: Tensor) -> Tensor:
        """Turn noise (N, latent), drawn from N(0, 1), into images (N, 1, 28, 28) in [0, 1]."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"z: expected shape (N, {self.latent}), got {tuple(z.shape)}")
        images: Tensor = self.layers(z[:, :, None, None])
        return (images + 1) / 2


class DCGANDiscriminator(nn.Module):
    """DCGAN's discriminator for 28x28 images: (N, 1, 28, 28) in [0, 1] to logits (N,).

    The generator in reverse: two 4x4 convolutions with stride 2 halve the image to 7x7, one of 7x7
    weighs it up; leaky ReLU 0.2, batch norm on all layers but the first and the last. There is no
    sigmoid: the losses want logits. Weights start at N(0, 0.02^2).

    Raises ``ValueError`` for ``channels`` below 1 and for images of another shape.
    Source: Radford, Metz and Chintala 2016, section 3, with the sizes of 28x28 digits.
    """

    def __init__(self, channels: int = 64, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels: expected at least 1, got {channels}")
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, kernel_size=4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, 2 * channels, kernel_size=4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * channels, eps=1e-5, momentum=0.1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * channels, 1, kernel_size=7),
        )
        initialise(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Score images (N, 1, 28, 28) in [0, 1]: a logit each, (N,), above 0 for "real"."""
        if x.shape[1:] != (1, 28, 28):
            raise ValueError(f"x: expected shape (N, 1, 28, 28), got {tuple(x.shape)}")
        logits: Tensor = self.layers(2 * x - 1)
        return logits.flatten()


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
