"""Encoders and decoders: linear, dense and convolutional.

Each function returns an ``Autoencoder``, which is an encoder, a decoder, and the shape of one example.
Weights are drawn from the generator that is passed in.

Chapters: book/represent/autoencoders.md, book/represent/convolutional.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

Activation = Literal["linear", "relu", "sigmoid", "tanh"]
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}


class Autoencoder(nn.Module):
    """An encoder f and a decoder g, trained so that g(f(x)) is like x.

    ``encoder``: examples (N, *shape) to codes (N, k). ``decoder``: codes to (N, *shape), before
    ``output``, which is ``"sigmoid"`` for examples in [0, 1] and ``"linear"`` for any others.

    Raises ``ValueError`` for an empty shape or an unknown output.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        shape: Sequence[int],
        *,
        output: Literal["sigmoid", "linear"] = "sigmoid",
    ) -> None:
        super().__init__()
        check_shape(shape)
        if output not in ("sigmoid", "linear"):
            raise ValueError(f"output: expected 'sigmoid' or 'linear', got {output!r}")
        self.encoder, self.decoder = encoder, decoder
        self.shape, self.output = tuple(shape), output
        self.image_shape = self.shape  # of what goes in; a segmenter's is another

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes f(x) of the examples ``x`` (N, *image_shape).

        Raises ``ValueError`` for another shape, or for no example.
        """
        if x.shape[1:] != self.image_shape or len(x) == 0:
            wanted = ", ".join(map(str, ("N", *self.image_shape)))
            raise ValueError(f"x: expected shape ({wanted}) with N > 0, got {tuple(x.shape)}")
        code: Tensor = self.encoder(x)
        return code

    def decode(self, code: Tensor) -> Tensor:
        """Return the examples g(code) (N, *shape): in [0, 1] if ``output`` is a sigmoid."""
        raw = self._decode(code)
        return raw.sigmoid() if self.output == "sigmoid" else raw

    def logits(self, code: Tensor) -> Tensor:
        """Return what ``decode`` turns into [0, 1] (N, *shape): cross-entropy is computed from it.

        Raises ``ValueError`` where the output is linear and has no logits.
        """
        if self.output != "sigmoid":
            raise ValueError("output: expected 'sigmoid' for logits, got 'linear'")
        return self._decode(code)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstructions g(f(x)) (N, *shape)."""
        return self.decode(self.encode(x))

    def _decode(self, code: Tensor) -> Tensor:
        raw: Tensor = self.decoder(code)
        if raw.shape[1:] != self.shape:
            raise ValueError(
                f"decoder: expected examples of shape {self.shape}, got {tuple(raw.shape[1:])}"
            )
        return raw


def dense(
    shape: Sequence[int],
    widths: Sequence[int],
    code: int,
    *,
    activation: Activation = "relu",
    code_activation: Activation = "linear",
    output: Literal["sigmoid", "linear"] = "sigmoid",
    bias: bool = True,
    generator: torch.Generator | None = None,
) -> Autoencoder:
    """Return an autoencoder of dense layers: d -> widths -> code -> widths backwards -> d.

    ``shape``: of one example, e.g. (1, 28, 28). ``widths``: the hidden layers of the encoder, none
    with ``()``; the decoder mirrors them. Weights start as Glorot and Bengio (2010) draw them, and
    biases at 0.

    Raises ``ValueError`` for a size below 1 or an unknown activation.
    """
    check_shape(shape)
    sizes = [math.prod(shape), *widths, code]
    for name, size in [("code", code), *[("widths", width) for width in widths]]:
        check_size(name, size)
    for name, kind in (("activation", activation), ("code_activation", code_activation)):
        if kind not in ACTIVATIONS:
            raise ValueError(f"{name}: expected one of {', '.join(ACTIVATIONS)}; got {kind!r}")

    def layers(sizes: Sequence[int], last: Activation) -> list[nn.Module]:
        found: list[nn.Module] = []
        for i, (before, after) in enumerate(pairwise(sizes)):
            found.append(nn.Linear(before, after, bias=bias))
            found.append(ACTIVATIONS[last if i == len(sizes) - 2 else activation]())
        return [layer for layer in found if not isinstance(layer, nn.Identity)]

    encoder = nn.Sequential(nn.Flatten(), *layers(sizes, code_activation))
    decoder = nn.Sequential(*layers(sizes[::-1], "linear"), nn.Unflatten(1, tuple(shape)))
    model = Autoencoder(encoder, decoder, shape, output=output)
    return initialise(model, generator)


def linear(
    shape: Sequence[int], code: int, *, bias: bool = True, generator: torch.Generator | None = None
) -> Autoencoder:
    """Return an autoencoder of two matrices and nothing between: x_hat = W' (W x + b) + b'.

    Its best code spans the subspace of a PCA (Baldi and Hornik, 1989); with ``code`` >= d it can
    copy.

    Raises ``ValueError`` for a size below 1.
    """
    return dense(shape, (), code, output="linear", bias=bias, generator=generator)


def convolutional(
    shape: Sequence[int],
    code: int,
    *,
    channels: int = 16,
    output: Literal["sigmoid", "linear"] = "sigmoid",
    generator: torch.Generator | None = None,
) -> Autoencoder:
    """Return an autoencoder whose layers look at neighbourhoods: (C, H, W) -> code -> (C, H, W).

    Two 4x4 convolutions with stride 2 each halve the image, down to ``2 * channels`` maps of
    H/4 x W/4, and a dense layer reads the code off them; the decoder takes the same way back with
    transposed convolutions.

    Raises ``ValueError`` for a size below 1, or H or W that 4 does not divide.
    """
    if len(shape) != 3 or min(shape) < 1 or shape[1] % 4 or shape[2] % 4:
        raise ValueError(f"shape: expected (C, H, W), H and W divisible by 4; got {tuple(shape)}")
    check_size("code", code)
    check_size("channels", channels)
    maps = (2 * channels, shape[1] // 4, shape[2] // 4)
    encoder = nn.Sequential(
        nn.Conv2d(shape[0], channels, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(math.prod(maps), code),
    )
    decoder = nn.Sequential(
        nn.Linear(code, math.prod(maps)),
        nn.ReLU(),
        nn.Unflatten(1, maps),
        nn.ConvTranspose2d(2 * channels, channels, kernel_size=4, stride=2, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(channels, shape[0], kernel_size=4, stride=2, padding=1),
    )
    return initialise(Autoencoder(encoder, decoder, shape, output=output), generator)


def initialise(model: Autoencoder, generator: torch.Generator | None = None) -> Autoencoder:
    """Draw the weights as Glorot and Bengio (2010, equation 16) do; biases become 0."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return model


def check_shape(shape: Sequence[int]) -> None:
    """Raise ``ValueError`` unless ``shape`` is that of one example: one size or more, none below 1."""
    if len(shape) == 0 or min(shape) < 1:
        raise ValueError(f"shape: expected one size or more, each at least 1; got {tuple(shape)}")


def check_size(name: str, size: int) -> None:
    """Raise ``ValueError``, naming the argument, unless ``size`` is a whole number from 1."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{name}: expected a whole number from 1, got {size!r}")
