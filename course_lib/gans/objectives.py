"""What the two players of a GAN minimise: an objective is a value that the training loop is given.

All losses take logits, the discriminator's output before the sigmoid, because ``log D(x)`` computed
from a probability that has been rounded to 0 is minus infinity.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.gans.penalties import dragan_penalty, gradient_penalty, repelling

#: ``score(x)``: the discriminator as a function of the samples alone, (N, ...) to (N,) or (N, 1).
Score = Callable[[Tensor], Tensor]


class Controller(Protocol):
    """A number k that an objective moves while it trains, to keep its players in balance."""

    k: float

    def update(self, real_score: float, fake_score: float) -> None:
        """Move k after a round, by the mean scores of real and generated samples in it."""

    def measures(self) -> dict[str, float]:
        """Return what the training's record shows of it, k among them."""

    def state_dict(self) -> dict[str, Any]:
        """Return what ``load_state_dict`` needs to go on from here."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""


@dataclass(frozen=True)
class Auxiliary:
    """A second question to the discriminator, whose answer both players want to be right.

    The discriminator then returns a pair (scores, answers); ``loss(answers, condition)`` is a scalar,
    for answers (N, ...) on samples made with, or labelled by, ``condition`` (N, ...). ``weight``
    times it joins both players' losses on generated samples; with ``on_real`` also the
    discriminator's on real ones, whose labels the batches then carry.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    weight: float = 1.0
    on_real: bool = False


@dataclass(frozen=True)
class Objective:
    """A GAN objective: a named pair of losses, and what else an objective may ask for.

    ``discriminator_loss(real_scores, fake_scores)`` and ``generator_loss(fake_scores)`` take the
    discriminator's raw outputs, shape (N,) or (N, 1), and return a scalar to minimise. ``scores``
    says what those outputs are: logits, numbers of any size, or energies (low for real samples).
    The rest is optional:

    ``penalty(score, real, fake, rng)``: a weighted scalar that joins the discriminator's loss;
    ``real`` and ``fake`` are the batches it was shown, (N, ...), detached; draws come from ``rng``.
    ``generator_penalty(discriminator, real, fake)``: one that joins the generator's loss; here
    ``fake`` carries the generator's gradient, and ``real`` is the discriminator's last batch.
    ``constrain(discriminator)``: called after each of its steps, without gradient.
    ``auxiliary``: a second question to the discriminator.
    ``controller()``: a fresh ``Controller`` for one training; the discriminator's loss then takes its
    k as a third argument.
    """

    name: str
    discriminator_loss: Callable[..., Tensor]
    generator_loss: Callable[[Tensor], Tensor]
    penalty: Callable[[Score, Tensor, Tensor, torch.Generator | None], Tensor] | None = None
    generator_penalty: Callable[[nn.Module, Tensor, Tensor], Tensor] | None = None
    constrain: Callable[[nn.Module], None] | None = None
    auxiliary: Auxiliary | None = None
    controller: Callable[[], Controller] | None = None
    scores: Literal["logits", "numbers", "energies"] = "logits"


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Return the discriminator's log-loss, -E[log D(x)] - E[log(1 - D(G(z)))], a scalar in nats.

    ``real_logits``, ``fake_logits``: the discriminator's outputs l before the sigmoid, so that
    D = sigmoid(l); any shape, floating point, not necessarily equally many. Finite, with a finite
    gradient, for any finite logit. Given probabilities instead, the loss could never fall below
    log(1 + 1/e) + log 2; they are refused where their graph shows the sigmoid that they came from.

    Raises ``ValueError`` for an empty or non-floating tensor, and for the output of a sigmoid.
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


def refuse_probabilities(name: str, scores: Tensor) -> None:
    """Raise ``ValueError``, naming ``name``, if ``scores`` came out of a sigmoid or a softmax.

    The graph behind the tensor tells; reshaping in between does not hide it. A tensor without a
    graph cannot be told from logits, and passes.
    """
    node: Any = scores.grad_fn
    while node is not None and node.name().startswith(_RESHAPING):
        node = node.next_functions[0][0]
    if node is not None and node.name().startswith(("SigmoidBackward", "SoftmaxBackward")):
        came = node.name().split("Backward")[0].lower()
        raise ValueError(
            f"{name}: expected logits, got probabilities, the output of a {came}: leave it out of the "
            "network, because the loss applies its own"
        )


_RESHAPING = tuple(
    "View Reshape UnsafeView Squeeze Unsqueeze Clone ToCopy Select Slice Index Alias Transpose "
    "TBackward Permute Expand".split()
)


def _checked(name: str, logits: Tensor) -> Tensor:
    scores = _scored(name, logits, "logits")
    refuse_probabilities(name, logits)
    return scores


def least_squares_discriminator_loss(
    real_scores: Tensor, fake_scores: Tensor, *, a: float = 0.0, b: float = 1.0
) -> Tensor:
    """Return LSGAN's discriminator loss E[(D(x) - b)^2] / 2 + E[(D(G(z)) - a)^2] / 2, a scalar.

    ``real_scores``, ``fake_scores``: outputs of any size, with no sigmoid in front; any shape, floating
    point. ``a``, ``b``: targets for generated and real samples. The best table of scores is
    D* = (b p + a q) / (p + q).

    Raises ``ValueError`` for an empty or non-floating tensor.
    Source: Mao et al. 2017, equations 2 and 9.
    """
    real, fake = _scored("real_scores", real_scores), _scored("fake_scores", fake_scores)
    return (real - b).square().mean() / 2 + (fake - a).square().mean() / 2


def least_squares_generator_loss(fake_scores: Tensor, *, c: float = 1.0) -> Tensor:
    """Return LSGAN's generator loss E[(D(G(z)) - c)^2] / 2, a scalar.

    Its slope per score is D(G(z)) - c: it grows with the distance to the target, on either side.
    ``c``: what G wants D to say; arguments and errors as in ``least_squares_discriminator_loss``.

    Source: Mao et al. 2017, equations 2 and 9.
    """
    return (_scored("fake_scores", fake_scores) - c).square().mean() / 2


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Return the Wasserstein critic's loss E[D(G(z))] - E[D(x)], a scalar.

    Minus its least value over all critics with slope at most 1 is the earth mover's distance; without
    such a limit it has no least value, so it is used with a constraint or a penalty.
    ``real_scores``, ``fake_scores``: numbers of any size; any shape, floating point.

    Raises ``ValueError`` for an empty or non-floating tensor.
    Source: Arjovsky et al. 2017, equation 2 and Algorithm 1.
    """
    return _scored("fake_scores", fake_scores).mean() - _scored("real_scores", real_scores).mean()


def critics_generator_loss(fake_scores: Tensor) -> Tensor:
    """Return the Wasserstein generator's loss -E[D(G(z))], a scalar; its slope per score is -1.

    Arguments and errors as in ``critic_loss``. Source: Arjovsky et al. 2017, Algorithm 1.
    """
    return -_scored("fake_scores", fake_scores).mean()


@torch.no_grad()
def clip_weights(discriminator: nn.Module, *, c: float = 0.01) -> None:
    """Clip every parameter of ``discriminator`` to [-c, c], in place.

    Raises ``ValueError`` for c that is not positive. Source: Arjovsky et al. 2017, Algorithm 1.
    """
    if not c > 0:
        raise ValueError(f"c: expected a positive number, got {c}")
    for parameter in discriminator.parameters():
        parameter.clamp_(-c, c)


def margin_loss(real_energies: Tensor, fake_energies: Tensor, *, margin: float = 1.0) -> Tensor:
    """Return EBGAN's discriminator loss E[D(x)] + E[max(0, margin - D(G(z)))], a scalar.

    ``real_energies``, ``fake_energies``: at least 0, low for what D takes for data; any shape, floating
    point. ``margin``: the energy, in the same units, above which a generated sample is left alone.

    Raises ``ValueError`` for an empty or non-floating tensor, a negative energy or a margin that is
    not positive. Source: Zhao et al. 2017, equation 1.
    """
    if not margin > 0:
        raise ValueError(f"margin: expected a positive number, got {margin}")
    real, fake = (
        _energies("real_energies", real_energies),
        _energies("fake_energies", fake_energies),
    )
    return real.mean() + F.relu(margin - fake).mean()


def energy_loss(fake_energies: Tensor) -> Tensor:
    """Return the generator's loss E[D(G(z))] of EBGAN and BEGAN: the energy of its samples, a scalar.

    Arguments and errors as in ``margin_loss``.
    Source: Zhao et al. 2017, equation 2; Berthelot et al. 2017, section 3.4.
    """
    return _energies("fake_energies", fake_energies).mean()


def balanced_loss(real_energies: Tensor, fake_energies: Tensor, k: float) -> Tensor:
    """Return BEGAN's discriminator loss E[L(x)] - k E[L(G(z))], a scalar.

    ``k``: how much it cares about generated samples, 0 to 1; ``Equilibrium`` moves it.

    Raises ``ValueError`` for k out of range, and as ``margin_loss`` does.
    Source: Berthelot et al. 2017, section 3.4.
    """
    if not 0 <= k <= 1:
        raise ValueError(f"k: expected 0 <= k <= 1, got {k}")
    real, fake = (
        _energies("real_energies", real_energies),
        _energies("fake_energies", fake_energies),
    )
    return real.mean() - k * fake.mean()


class Equilibrium:
    """BEGAN's controller: it holds E[L(G(z))] at gamma E[L(x)] by moving k.

    ``gamma``: above 0, at most 1; the smaller, the sharper the samples and the fewer kinds of them.
    ``rate``: the paper's lambda_k; energies are multiplied by it, so it has to suit their size.
    ``k`` starts at 0. ``convergence`` is the measure M of the last round, infinite before the first.

    Raises ``ValueError`` for gamma, rate or k out of range.
    Source: Berthelot et al. 2017, sections 3.3 to 3.5.
    """

    def __init__(self, gamma: float = 0.5, *, rate: float = 1e-3, k: float = 0.0) -> None:
        if not 0 < gamma <= 1 or not rate > 0 or not 0 <= k <= 1:
            raise ValueError(
                f"expected gamma in (0, 1], rate > 0 and k in [0, 1]; got {gamma}, {rate}, {k}"
            )
        self.gamma, self.rate, self.k = gamma, rate, k
        self.convergence = math.inf

    def update(self, real_score: float, fake_score: float) -> None:
        """Move k and take M after a round, from the mean energies E[L(x)] and E[L(G(z))].

        Both are those of the discriminator's last step in ``train_gan``; the paper takes the second
        from the generator's step, another draw from the same distribution.
        """
        balance = self.gamma * real_score - fake_score
        self.k = min(1.0, max(0.0, self.k + self.rate * balance))
        self.convergence = real_score + abs(balance)

    def measures(self) -> dict[str, float]:
        """Return k and the convergence measure M = E[L(x)] + |gamma E[L(x)] - E[L(G(z))]|."""
        return {"k": self.k, "M": self.convergence}

    def state_dict(self) -> dict[str, Any]:
        """Return k, which is all that a training needs to go on."""
        return {"k": self.k}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a ``state_dict``."""
        self.k = float(state["k"])


def _scored(name: str, scores: Tensor, kind: str = "scores") -> Tensor:
    if not scores.is_floating_point() or scores.numel() == 0:
        raise ValueError(
            f"{name}: expected a non-empty floating-point tensor of {kind}, "
            f"got shape {tuple(scores.shape)}, {scores.dtype}"
        )
    # Half precision, as autocast leaves it, rounds log(1 + e^l) badly; the loss costs nothing.
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _energies(name: str, energies: Tensor) -> Tensor:
    energies = _scored(name, energies)
    if bool((energies < 0).any()):  # NaN passes: the training loop reports it
        raise ValueError(
            f"{name}: expected energies, at least 0 and low for real samples; "
            f"got {float(energies.detach().min()):.4g}"
        )
    return energies


#: The game as it is written: both players share one value, which G minimises and D maximises.
minimax = Objective("minimax", discriminator_loss, minimax_generator_loss)

#: The same discriminator; the generator maximises log D(G(z)) instead.
non_saturating = Objective("non-saturating", discriminator_loss, non_saturating_generator_loss)

#: Least squares with the 0-1 coding (a = 0, b = c = 1).
lsgan = Objective(
    "LSGAN", least_squares_discriminator_loss, least_squares_generator_loss, scores="numbers"
)

#: The earth mover's distance with clipped weights; the paper trains with k = 5 and RMSprop, 5e-5.
wgan = Objective(
    "WGAN", critic_loss, critics_generator_loss, constrain=clip_weights, scores="numbers"
)

#: The same with a gradient penalty; the paper trains with k = 5 and Adam, 1e-4, betas (0, 0.9).
wgan_gp = Objective(
    "WGAN-GP", critic_loss, critics_generator_loss, penalty=gradient_penalty, scores="numbers"
)

#: The log-loss, kept smooth around the data.
dragan = Objective(
    "DRAGAN", discriminator_loss, non_saturating_generator_loss, penalty=dragan_penalty
)

#: An autoencoder as discriminator, and a margin that has to suit the size of its energies.
ebgan = Objective("EBGAN", margin_loss, energy_loss, generator_penalty=repelling, scores="energies")

#: An autoencoder as discriminator, and a controller that keeps the players in balance.
began = Objective("BEGAN", balanced_loss, energy_loss, controller=Equilibrium, scores="energies")
