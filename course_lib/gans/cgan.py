"""Conditional GANs: both players are told the label, so that a class can be asked for.

The objective stays any of ``objectives``: train on pairs (x, y), and let ``sample_noise`` return
pairs (z, y).

Chapter: book/generate/conditional.md
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.gans import networks


class Generator(nn.Module):
    """G(z, y): a network that sees, beside the noise, the label as a one-hot vector.

    ``network``: any generator of noise (N, latent + classes); what it returns is returned.

    Raises ``ValueError`` for fewer than 2 classes, for noise that is no matrix, and for labels that
    are not int64 (N,) in 0..classes-1.
    Source: Mirza and Osindero 2014, section 3.2, with the label joined to the noise at the input.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        networks.check_sizes(2, classes=classes)
        self.network = network
        self.classes = classes

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        """Turn noise (N, latent) and labels (N,), int64, into samples (N, ...) of those classes."""
        check_labels("y", y, len(z), self.classes)
        return self.blend(z, F.one_hot(y, self.classes).to(z.dtype))

    def blend(self, z: Tensor, weights: Tensor) -> Tensor:
        """Turn noise (N, latent) and class weights (N, classes) into samples, between classes too.

        Weights of 1 and 0 are a label; trained on nothing else, the network answers others as it
        may. Only shapes are checked here, so that a live figure can run it.
        """
        if z.ndim != 2 or weights.shape != (len(z), self.classes):
            raise ValueError(
                f"z, weights: expected shapes (N, latent) and (N, {self.classes}), "
                f"got {tuple(z.shape)} and {tuple(weights.shape)}"
            )
        samples: Tensor = self.network(torch.cat([z, weights], dim=1))
        return samples


class Discriminator(nn.Module):
    """D(x, y) = psi(phi(x)) + <e_y, phi(x)>: one score for looking real, one for looking like y.

    ``trunk``: the network phi, samples (N, ...) to (N, features); psi is linear, e_y a learned
    vector per class. This is the projection discriminator: where p(y | x) and q(y | x) are softmaxes
    of linear functions of phi(x), the part of the best logit, log p(x, y) - log q(x, y), that depends
    on y is of this form, and it costs one inner product; what does not is left to psi, which may be
    any function. Labels drawn as extra image maps must find it by themselves.

    Raises ``ValueError`` for fewer than 2 classes or 1 feature, a trunk of another width, and
    labels that are not int64 (N,) in 0..classes-1.
    Source: Miyato and Koyama 2018, section 3.
    """

    def __init__(
        self,
        trunk: nn.Module,
        features: int,
        classes: int,
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        networks.check_sizes(2, classes=classes)
        self.trunk = trunk
        self.psi = head(features, 1, generator=generator)
        self.e = nn.Embedding(classes, features)
        nn.init.normal_(self.e.weight, 0.0, features**-0.5, generator=generator)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Score samples (N, ...) as examples of the classes y (N,), int64: a logit each, (N,)."""
        check_labels("y", y, len(x), self.e.num_embeddings)
        phi = self.trunk(x)
        check_features(phi, len(x), self.e.embedding_dim)
        score: Tensor = self.psi(phi).flatten() + (self.e(y) * phi).sum(dim=1)
        return score


class DigitTrunk(nn.Module):
    """DCGAN's discriminator up to its last layer: (N, 1, 28, 28) in [0, 1] to (N, 98 channels).

    Two 4x4 convolutions with stride 2, leaky ReLU 0.2, batch norm on the second. ``features`` says
    how many numbers come out.

    Raises ``ValueError`` for ``channels`` below 1 and for images of another shape.
    Source: Radford, Metz and Chintala 2016, section 3, with the sizes of 28x28 digits.
    """

    def __init__(self, channels: int = 32, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        networks.check_sizes(channels=channels)
        self.layers = nn.Sequential(*networks.halvings(1, (channels, 2 * channels)), nn.Flatten())
        self.features = 2 * channels * 7 * 7
        networks.initialise(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Turn images (N, 1, 28, 28) in [0, 1] into features (N, 98 channels)."""
        if x.shape[1:] != (1, 28, 28):
            raise ValueError(f"x: expected shape (N, 1, 28, 28), got {tuple(x.shape)}")
        phi: Tensor = self.layers(2 * x - 1)
        return phi


def point_trunk(
    inputs: int = 2, width: int = 64, *, generator: torch.Generator | None = None
) -> nn.Sequential:
    """Return a small trunk for points: (N, inputs) to features (N, width), two hidden layers.

    Raises ``ValueError`` for a size below 1.
    """
    return nn.Sequential(
        networks.mlp(inputs, width, width=width, depth=1, generator=generator), nn.LeakyReLU(0.2)
    )


def digit_generator(
    latent: int = 32,
    channels: int = 32,
    classes: int = 10,
    *,
    generator: torch.Generator | None = None,
) -> Generator:
    """Return DCGAN's generator for digits as G(z, y): images (N, 1, 28, 28) in [0, 1].

    ``generator`` draws the weights. Raises ``ValueError`` for a size below 1 or fewer than 2 classes.
    """
    networks.check_sizes(latent=latent)
    networks.check_sizes(2, classes=classes)
    network = networks.DCGANGenerator(latent + classes, channels, generator=generator)
    return Generator(network, classes)


def digit_players(
    latent: int = 32,
    channels: int = 32,
    classes: int = 10,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Generator, Discriminator]:
    """Return G(z, y) and D(x, y) for images (N, 1, 28, 28) in [0, 1]; ``generator`` draws weights.

    Raises ``ValueError`` for a size below 1 or fewer than 2 classes.
    """
    G = digit_generator(latent, channels, classes, generator=generator)
    trunk = DigitTrunk(channels, generator=generator)
    return G, Discriminator(trunk, trunk.features, classes, generator=generator)


def point_generator(
    classes: int,
    *,
    latent: int = 2,
    outputs: int = 2,
    width: int = 64,
    generator: torch.Generator | None = None,
) -> Generator:
    """Return a small network as G(z, y): points (N, outputs). ``generator`` draws the weights.

    Raises ``ValueError`` for a size below 1 or fewer than 2 classes.
    """
    networks.check_sizes(latent=latent)
    networks.check_sizes(2, classes=classes)
    network = networks.mlp(latent + classes, outputs, width=width, generator=generator)
    return Generator(network, classes)


def point_players(
    classes: int,
    *,
    latent: int = 2,
    outputs: int = 2,
    width: int = 64,
    generator: torch.Generator | None = None,
) -> tuple[Generator, Discriminator]:
    """Return G(z, y) and D(x, y) for points (N, outputs); ``generator`` draws the weights.

    Raises ``ValueError`` for a size below 1 or fewer than 2 classes.
    """
    G = point_generator(classes, latent=latent, outputs=outputs, width=width, generator=generator)
    trunk = point_trunk(outputs, width, generator=generator)
    return G, Discriminator(trunk, width, classes, generator=generator)


def head(features: int, outputs: int, *, generator: torch.Generator | None = None) -> nn.Linear:
    """Return a linear layer on a trunk's features, with weights N(0, 1 / features) and no bias yet.

    The scale keeps a fresh score near 1 whatever the trunk's width; the bias starts at 0.

    Raises ``ValueError`` for a size below 1.
    """
    networks.check_sizes(features=features, outputs=outputs)
    layer = nn.Linear(features, outputs)
    nn.init.normal_(layer.weight, 0.0, features**-0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def check_labels(name: str, y: Tensor, n: int, classes: int) -> None:
    """Raise ``ValueError``, naming the argument, unless ``y`` is int64 (n,) in 0..classes-1, n > 0."""
    if y.dtype != torch.int64 or y.shape != (n,) or n == 0:
        raise ValueError(
            f"{name}: expected int64 labels of shape (N,), one per sample, N > 0; "
            f"got {y.dtype} {tuple(y.shape)} for {n} samples"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{name}: expected labels 0..{classes - 1}, got {low}..{high}")


def check_features(phi: Tensor, n: int, features: int) -> None:
    """Raise ``ValueError`` unless a trunk returned the features (n, features) that it promised."""
    if phi.shape != (n, features):
        raise ValueError(
            f"trunk: expected features of shape ({n}, {features}), got {tuple(phi.shape)}"
        )
