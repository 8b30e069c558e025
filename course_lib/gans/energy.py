"""Discriminators that are autoencoders: the score of a sample is how badly it is reconstructed.

The score is an energy: low for what the autoencoder knows, which is to be the data.

Chapter: book/generate/zoo.md
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from course_lib.gans.networks import check_sizes, halvings

Norm = Literal["euclidean", "absolute"]


class AutoencoderDiscriminator(nn.Module):
    """An autoencoder as a discriminator: samples (N, *shape) to energies (N,), at least 0.

    ``encoder``: samples to codes (N, k); ``decoder``: codes to samples; ``shape``: of one sample.
    ``norm`` measures the reconstruction's error v = x - Dec(Enc(x)): ``"euclidean"`` is the length
    |v|, as in EBGAN; ``"absolute"`` the mean of |v_i| over the numbers of a sample, as in BEGAN.

    Raises ``ValueError`` for another norm, and for samples or a reconstruction of another shape.
    Source: Zhao et al. 2017, section 2.3; Berthelot et al. 2017, equation 1 with eta = 1.
    """

    def __init__(
        self, encoder: nn.Module, decoder: nn.Module, shape: tuple[int, ...], *, norm: Norm
    ) -> None:
        super().__init__()
        if norm not in get_args(Norm):
            raise ValueError(f"norm: expected one of {', '.join(get_args(Norm))}, got {norm!r}")
        self.encoder, self.decoder = encoder, decoder
        self.shape, self.norm = tuple(shape), norm

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes of samples (N, *shape), (N, k)."""
        if x.shape[1:] != self.shape or len(x) == 0 or not x.is_floating_point():
            wanted = ", ".join(map(str, ("N", *self.shape)))
            raise ValueError(
                f"x: expected a float tensor ({wanted}) with N > 0, got {x.dtype} {tuple(x.shape)}"
            )
        code: Tensor = self.encoder(x)
        return code.flatten(1)

    def reconstruct(self, x: Tensor) -> Tensor:
        """Return Dec(Enc(x)), of the shape of ``x``."""
        again: Tensor = self.decoder(self.encode(x))
        if again.shape != x.shape:
            raise ValueError(
                f"decoder: expected samples of shape {self.shape}, got {tuple(again.shape[1:])}"
            )
        return again

    def forward(self, x: Tensor) -> Tensor:
        """Return the energies (N,) of samples (N, *shape)."""
        error = (x - self.reconstruct(x)).flatten(1)
        length: Tensor = torch.linalg.vector_norm(error, dim=1)
        return length if self.norm == "euclidean" else error.abs().mean(dim=1)


def for_points(
    inputs: int = 2,
    *,
    code: int = 2,
    width: int = 64,
    norm: Norm,
    generator: torch.Generator | None = None,
) -> AutoencoderDiscriminator:
    """Return an autoencoder of points (N, inputs): one hidden layer of ``width`` each way.

    ``code``: numbers per code; ``generator`` draws the initial weights, as He et al. 2015 scale them.

    Raises ``ValueError`` for a size below 1.
    """
    check_sizes(inputs=inputs, code=code, width=width)
    encoder = nn.Sequential(nn.Linear(inputs, width), nn.LeakyReLU(0.2), nn.Linear(width, code))
    decoder = nn.Sequential(nn.Linear(code, width), nn.LeakyReLU(0.2), nn.Linear(width, inputs))
    return _initialised(AutoencoderDiscriminator(encoder, decoder, (inputs,), norm=norm), generator)


def for_digits(
    *,
    code: int = 32,
    channels: int = 16,
    norm: Norm,
    generator: torch.Generator | None = None,
) -> AutoencoderDiscriminator:
    """Return a convolutional autoencoder of images (N, 1, 28, 28) in [0, 1].

    DCGAN's discriminator without batch norm up to ``code`` numbers, and its mirror image back, with a
    sigmoid at the end. ``generator`` draws the initial weights, as He et al. 2015 scale them.

    Raises ``ValueError`` for a size below 1.
    """
    check_sizes(code=code, channels=channels)
    encoder = nn.Sequential(
        *halvings(1, (channels, 2 * channels), batch_norm=False),
        nn.Conv2d(2 * channels, code, kernel_size=7),
        nn.Flatten(),
    )
    decoder = nn.Sequential(
        nn.Linear(code, 2 * channels * 7 * 7),
        nn.Unflatten(1, (2 * channels, 7, 7)),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(2 * channels, channels, kernel_size=4, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(channels, 1, kernel_size=4, stride=2, padding=1),
        nn.Sigmoid(),
    )
    net = AutoencoderDiscriminator(encoder, decoder, (1, 28, 28), norm=norm)
    return _initialised(net, generator)


def _initialised(
    net: AutoencoderDiscriminator, generator: torch.Generator | None
) -> AutoencoderDiscriminator:
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            inputs = float(layer.in_features)
        elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            inputs = float(layer.in_channels * math.prod(layer.kernel_size))
            if isinstance(layer, nn.ConvTranspose2d):  # its stride spreads them over more outputs
                inputs /= math.prod(layer.stride)
        else:
            continue
        gain = nn.init.calculate_gain("leaky_relu", 0.2)
        nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(inputs), generator=generator)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    return net
