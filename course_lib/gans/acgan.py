"""The auxiliary classifier GAN: the discriminator is not told the label, it has to read it.

The objective is any of ``objectives`` with one term more:
``dataclasses.replace(objectives.non_saturating, auxiliary=acgan.auxiliary())``.

Chapter: book/generate/conditional.md
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.gans import cgan, networks
from course_lib.gans.objectives import Auxiliary, refuse_probabilities


class Discriminator(nn.Module):
    """D(x): a score, real or forged, and class logits, both linear in one trunk's features.

    ``trunk``: samples (N, ...) to (N, features).

    Raises ``ValueError`` for fewer than 2 classes or 1 feature, and a trunk of another width.
    Source: Odena, Olah and Shlens 2017, section 3.
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
        self.score = cgan.head(features, 1, generator=generator)
        self.classes = cgan.head(features, classes, generator=generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score samples (N, ...): logits for "real" (N,), and class logits (N, classes)."""
        phi = self.trunk(x)
        cgan.check_features(phi, len(x), self.score.in_features)
        return self.score(phi).flatten(), self.classes(phi)


def class_loss(class_logits: Tensor, y: Tensor) -> Tensor:
    """Return -L_C, the cross-entropy -E[log P(C = y | x)], a scalar in nats.

    ``class_logits``: (N, K), K > 1, before any softmax: the softmax is in here, once. ``y``: int64
    (N,), 0..K-1. It goes to 0 as the right logit outgrows the others. Were softmax applied before,
    the loss could not go below log(1 + (K - 1) / e), 1.46 for ten classes.

    Raises ``ValueError`` for other shapes, dtypes or labels, and for the output of a softmax.
    Source: Odena, Olah and Shlens 2017, equation 3.
    """
    if class_logits.ndim != 2 or class_logits.shape[1] < 2 or not class_logits.is_floating_point():
        raise ValueError(
            f"class_logits: expected floating point (N, K), K > 1; "
            f"got {class_logits.dtype} {tuple(class_logits.shape)}"
        )
    cgan.check_labels("y", y, *class_logits.shape)
    refuse_probabilities("class_logits", class_logits)
    return F.cross_entropy(class_logits, y)


def auxiliary(weight: float = 1.0) -> Auxiliary:
    """Return the classifier's term of both players' losses, ``weight`` times ``class_loss``.

    Both minimise it, the discriminator on real and forged samples, the generator on forged ones:
    D maximises L_S + L_C, G maximises L_C - L_S.

    Raises ``ValueError`` for a weight that is negative or not finite.
    Source: Odena, Olah and Shlens 2017, equations 2 and 3.
    """
    if not 0 <= weight < float("inf"):
        raise ValueError(f"weight: expected a finite number of at least 0, got {weight}")
    return Auxiliary(class_loss, weight=weight, on_real=True)


def digit_players(
    latent: int = 32,
    channels: int = 32,
    classes: int = 10,
    *,
    generator: torch.Generator | None = None,
) -> tuple[cgan.Generator, Discriminator]:
    """Return G(z, y) and D(x) for images (N, 1, 28, 28) in [0, 1]; ``generator`` draws the weights.

    Raises ``ValueError`` for a size below 1 or fewer than 2 classes.
    """
    G = cgan.digit_generator(latent, channels, classes, generator=generator)
    trunk = cgan.DigitTrunk(channels, generator=generator)
    return G, Discriminator(trunk, trunk.features, classes, generator=generator)


def point_players(
    classes: int,
    *,
    latent: int = 2,
    outputs: int = 2,
    width: int = 64,
    generator: torch.Generator | None = None,
) -> tuple[cgan.Generator, Discriminator]:
    """Return G(z, y) and D(x) for points (N, outputs); ``generator`` draws the weights.

    Raises ``ValueError`` for a size below 1 or fewer than 2 classes.
    """
    G = cgan.point_generator(
        classes, latent=latent, outputs=outputs, width=width, generator=generator
    )
    trunk = cgan.point_trunk(outputs, width, generator=generator)
    return G, Discriminator(trunk, width, classes, generator=generator)
