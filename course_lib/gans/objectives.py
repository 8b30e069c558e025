"""What the two players of a GAN minimise: an objective is a value that the training loop is given.

All losses take logits, the discriminator's output before the sigmoid, because ``log D(x)`` computed
from a probability that has been rounded to 0 is minus infinity.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Objective:
    """A GAN objective: a named pair of losses, and perhaps a penalty on the discriminator.

    ``discriminator_loss(real_logits, fake_logits)`` and ``generator_loss(fake_logits)`` take the
    discriminator's raw outputs, shape (N,) or (N, 1), and return a scalar to minimise.
    ``penalty(discriminator, real, fake)`` is added to the discriminator's loss; ``real`` and
    ``fake`` are the batches it was shown, (N, ...), detached. It returns a weighted scalar.
    """

    name: str
    discriminator_loss: Callable[[Tensor, Tensor], Tensor]
    generator_loss: Callable[[Tensor], Tensor]
    penalty: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the discriminator's log-loss, -E[log D(x)] - E[log(1 - D(G(z)))], a scalar in nats.

    ``real_logits``, ``fake_logits``: the discriminator's outputs l before the sigmoid, so that
    D = sigmoid(l); any shape, floating point, not necessarily equally many. Finite, with a finite
    gradient, for any finite logit. Probabilities cannot be told from logits here: passing D(x)
    instead of l raises nothing, and the loss can then never fall below log(1 + 1/e) + log 2.

    Raises ``ValueError`` for an empty or non-floating tensor.
    Source: Goodfellow et al. 2014, equation 1 and Algorithm 1.
    """
    real_logits = _checked("real_logits", real_logits)
    fake_logits = _checked("fake_logits", fake_logits)
    # log D = logsigmoid(l), and log(1 - D) = logsigmoid(-l) because 1 - sigmoid(l) = sigmoid(-l).
    return -F.logsigmoid(real_logits).mean() - F.logsigmoid(-fake_logits).mean()


def minimax_generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the saturating generator loss E[log(1 - D(G(z)))], a scalar in nats, to be minimised.

    Its slope per logit l is -sigmoid(l): nothing is left of it where D is sure of a fake.
    ``fake_logits`` and errors: as in ``discriminator_loss``.

    Source: Goodfellow et al. 2014, equation 1 and Algorithm 1.
    """
    return F.logsigmoid(-_checked("fake_logits", fake_logits)).mean()


def non_saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """Return the non-saturating generator loss -E[log D(G(z))], a scalar in nats, to be minimised.

    Its slope per logit l is sigmoid(l) - 1, which goes to -1 where D is sure of a fake.
    ``fake_logits`` and errors: as in ``discriminator_loss``.

    Source: Goodfellow et al. 2014, end of section 3.
    """
    return -F.logsigmoid(_checked("fake_logits", fake_logits)).mean()


def _checked(name: str, logits: Tensor) -> Tensor:
    if not logits.is_floating_point() or logits.numel() == 0:
        raise ValueError(
            f"{name}: expected a non-empty floating-point tensor of logits, "
            f"got shape {tuple(logits.shape)}, {logits.dtype}"
        )
    # Half precision under autocast rounds log(1 + e^l) badly; the loss itself costs nothing.
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


#: The game as it is written: both players share one value, which G minimises and D maximises.
minimax = Objective("minimax", discriminator_loss, minimax_generator_loss)

#: The same discriminator; the generator maximises log D(G(z)) instead.
non_saturating = Objective("non-saturating", discriminator_loss, non_saturating_generator_loss)
