"""InfoGAN: a code c among the generator's inputs, and a network Q that has to read it from x.

The objective is any of ``objectives`` with one term more:
``dataclasses.replace(objectives.non_saturating, auxiliary=infogan.auxiliary(code))``.

Chapter: book/generate/conditional.md
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.gans import cgan, networks
from course_lib.gans.objectives import Auxiliary, refuse_probabilities

#: What a learned variance cannot fall below: the log-density of a code that is read perfectly
#: would have no upper end, and its gradient would drown the game's.
LEAST_VARIANCE = 1e-3


@dataclass(frozen=True)
class Code:
    """The code's distribution p(c): one category of ``categories``, and numbers in [-1, 1].

    A code is one row of floats (categories + continuous,): the category as a one-hot vector, then
    the numbers; all categories are equally likely, and the numbers uniform. ``categories`` may be 0
    (none), ``continuous`` too. ``variance``: of the Gaussian that Q answers with about a number;
    None: Q gives one with each answer.

    Raises ``ValueError`` for one category, a negative count, no code at all, or a variance that is
    not positive.
    Source: Chen et al. 2016, sections 4 and 6.
    """

    categories: int = 10
    continuous: int = 2
    variance: float | None = None

    def __post_init__(self) -> None:
        """Refuse counts and variances that describe no code."""
        if self.categories < 0 or self.categories == 1:
            raise ValueError(f"categories: expected 0, or at least 2, got {self.categories}")
        if self.continuous < 0 or self.size == 0:
            raise ValueError(
                "continuous: expected at least 0, and a code that is not empty, got "
                f"{self.continuous} beside {self.categories} categories"
            )
        if self.variance is not None and not 0 < self.variance < math.inf:
            raise ValueError(f"variance: expected a positive number or None, got {self.variance}")

    @property
    def size(self) -> int:
        """How many floats a code is."""
        return self.categories + self.continuous

    @property
    def answers(self) -> int:
        """How many floats Q answers with: class logits, means, and variances if they are learned."""
        return self.size + (self.continuous if self.variance is None else 0)

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw ``n`` codes from p(c), (n, size), float32. Raises ``ValueError`` for n < 1."""
        networks.check_sizes(n=n)
        parts = []
        if self.categories:
            drawn = torch.randint(self.categories, (n,), generator=generator)
            parts.append(F.one_hot(drawn, self.categories).float())
        if self.continuous:
            parts.append(2 * torch.rand(n, self.continuous, generator=generator) - 1)
        return torch.cat(parts, dim=1)

    def entropy(self) -> float:
        """Return H(c) in nats: log categories + continuous log 2, the latter differential."""
        return math.log(max(self.categories, 1)) + self.continuous * math.log(2)

    def check(self, c: Tensor, n: int) -> None:
        """Raise ``ValueError`` unless ``c`` holds ``n`` codes: (n, size), floats, categories one-hot."""
        if not c.is_floating_point() or c.shape != (n, self.size) or n == 0:
            raise ValueError(
                f"c: expected floating-point codes of shape ({max(n, 1)}, {self.size}), "
                f"got {c.dtype} {tuple(c.shape)}"
            )
        category = c[:, : self.categories]
        one_hot = ((category == 0) | (category == 1)).all() & (category.sum(dim=1) == 1).all()
        if self.categories and not bool(one_hot):
            raise ValueError(
                f"c: expected a one-hot category in the first {self.categories} places of each code, "
                "one 1 and otherwise 0"
            )


class Generator(nn.Module):
    """G(z, c): a network that sees the code beside the noise; they are joined at its input.

    ``network``: any generator of noise (N, latent + code.size).

    Raises ``ValueError`` for noise that is no matrix and codes that are none.
    Source: Chen et al. 2016, section 4.
    """

    def __init__(self, network: nn.Module, code: Code) -> None:
        super().__init__()
        self.network = network
        self.code = code

    def forward(self, z: Tensor, c: Tensor) -> Tensor:
        """Turn noise (N, latent) and codes (N, code.size) into samples (N, ...)."""
        self.code.check(c, len(z))
        return self.blend(z, c)

    def blend(self, z: Tensor, c: Tensor) -> Tensor:
        """Do the same for any rows of numbers: between two categories, or outside [-1, 1].

        Only shapes are checked here, so that a live figure can run it.
        """
        if z.ndim != 2 or c.shape != (len(z), self.code.size):
            raise ValueError(
                f"z, c: expected shapes (N, latent) and (N, {self.code.size}), "
                f"got {tuple(z.shape)} and {tuple(c.shape)}"
            )
        samples: Tensor = self.network(torch.cat([z, c.to(z.dtype)], dim=1))
        return samples


class Discriminator(nn.Module):
    """D and Q on one trunk: a score, real or forged, and Q's answer about the code.

    ``trunk``: samples (N, ...) to (N, features). Q has one hidden layer of ``width`` units of its
    own; its answers (N, code.answers) are class logits, then a mean for each number, then, if
    variances are learned, the logarithm of each one's excess over ``LEAST_VARIANCE``.

    Raises ``ValueError`` for a size below 1 and a trunk of another width.
    Source: Chen et al. 2016, section 6 and appendix C.
    """

    def __init__(
        self,
        trunk: nn.Module,
        features: int,
        code: Code,
        *,
        width: int = 64,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.score = cgan.head(features, 1, generator=generator)
        self.Q = nn.Sequential(
            cgan.head(features, width, generator=generator),
            nn.LeakyReLU(0.2),
            cgan.head(width, code.answers, generator=generator),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score samples (N, ...): logits for "real" (N,), and Q's answers (N, code.answers)."""
        phi = self.trunk(x)
        cgan.check_features(phi, len(x), self.score.in_features)
        return self.score(phi).flatten(), self.Q(phi)


def log_q(answers: Tensor, c: Tensor, code: Code) -> tuple[Tensor, Tensor]:
    """Return log Q(c | x) of each sample, in nats: of its category and of its numbers, (N,) each.

    ``answers``: Q's, (N, code.answers); ``c``: the codes that the samples were made from,
    (N, code.size). For the category it is a log-softmax at the right place, for the numbers the sum
    of Gaussian log-densities, constants included. 0 for a part that the code does not have.

    Raises ``ValueError`` for other shapes or codes, and for the output of a softmax.
    Source: Chen et al. 2016, section 6.
    """
    if not answers.is_floating_point() or answers.ndim != 2 or answers.shape[1] != code.answers:
        raise ValueError(
            f"answers: expected floating point of shape (N, {code.answers}), "
            f"got {answers.dtype} {tuple(answers.shape)}"
        )
    code.check(c, len(answers))
    refuse_probabilities("answers", answers)
    k, m = code.categories, code.continuous
    category = (answers[:, :k].log_softmax(dim=1) * c[:, :k]).sum(dim=1)
    mean = answers[:, k : k + m]
    if code.variance is None:
        variance = answers[:, k + m :].exp() + LEAST_VARIANCE
    else:
        variance = torch.full_like(mean, code.variance)
    off = (c[:, k:] - mean).square() / variance
    return category, -0.5 * (off + variance.log() + math.log(2 * math.pi)).sum(dim=1)


def lower_bound(answers: Tensor, c: Tensor, code: Code) -> Tensor:
    """Return L_I = E[log Q(c | x)] + H(c), a scalar in nats: never above I(c; x), but for chance.

    The gap is E[KL(P(c | x) || Q(c | x))]: no gap where Q is the posterior. Arguments and errors:
    as ``log_q``.

    Source: Chen et al. 2016, equations 4 and 5.
    """
    category, numbers = log_q(answers, c, code)
    return (category + numbers).mean() + code.entropy()


def auxiliary(code: Code, weight: float = 1.0, continuous_weight: float = 0.1) -> Auxiliary:
    """Return the information term of both players' losses, -lambda E[log Q(c | x)].

    ``weight``: lambda for the category, ``continuous_weight``: lambda for the numbers, smaller so
    that their log-densities do not outweigh the game. With both equal this is -lambda L_I but for
    the constant H(c). It asks about generated samples only: nobody knows the code of a real one.

    Raises ``ValueError`` for a weight that is negative or not finite.
    Source: Chen et al. 2016, equation 6 and appendix C.1.
    """
    for name, value in (("weight", weight), ("continuous_weight", continuous_weight)):
        if not 0 <= value < math.inf:
            raise ValueError(f"{name}: expected a finite number of at least 0, got {value}")
    return Auxiliary(
        partial(_code_loss, code=code, weight=weight, continuous_weight=continuous_weight)
    )


def _code_loss(
    answers: Tensor, c: Tensor, *, code: Code, weight: float, continuous_weight: float
) -> Tensor:
    category, numbers = log_q(answers, c, code)
    return -(weight * category + continuous_weight * numbers).mean()


def mutual_information(joint: Tensor) -> Tensor:
    """Return I(A; B) = sum p(a, b) log(p(a, b) / (p(a) p(b))), a scalar in nats, from a table.

    ``joint``: (A, B), probabilities or counts, never negative; it is divided by its sum. From N
    counts the result is too large by about (A - 1)(B - 1) / (2 N).

    Raises ``ValueError`` for another shape, a negative or infinite entry, or a table of zeros.
    Source: Shannon 1948; the bias: Miller 1955.
    """
    p = joint.double()
    if p.ndim != 2 or p.numel() == 0 or not bool((p.isfinite() & (p >= 0)).all()):
        raise ValueError(
            f"joint: expected a table (A, B) of finite numbers, none negative, "
            f"got {tuple(joint.shape)}"
        )
    if not float(p.sum()) > 0:
        raise ValueError("joint: expected a table with a positive sum, got zeros only")
    p = p / p.sum()
    apart = p.sum(dim=1, keepdim=True) * p.sum(dim=0, keepdim=True)
    # xlogy(0, 0) is 0, as the limit of p log p wants it.
    return (torch.xlogy(p, p) - torch.xlogy(p, apart)).sum()


def digit_players(
    code: Code,
    latent: int = 32,
    channels: int = 32,
    *,
    generator: torch.Generator | None = None,
) -> tuple[Generator, Discriminator]:
    """Return G(z, c) and D(x) with Q for images (N, 1, 28, 28) in [0, 1]; ``generator`` draws weights.

    Raises ``ValueError`` for a size below 1.
    """
    networks.check_sizes(latent=latent)
    network = networks.DCGANGenerator(latent + code.size, channels, generator=generator)
    trunk = cgan.DigitTrunk(channels, generator=generator)
    D = Discriminator(trunk, trunk.features, code, width=128, generator=generator)
    return Generator(network, code), D


def point_players(
    code: Code,
    *,
    latent: int = 2,
    outputs: int = 2,
    width: int = 64,
    generator: torch.Generator | None = None,
) -> tuple[Generator, Discriminator]:
    """Return G(z, c) and D(x) with Q for points (N, outputs); ``generator`` draws the weights.

    Raises ``ValueError`` for a size below 1.
    """
    networks.check_sizes(latent=latent)
    network = networks.mlp(latent + code.size, outputs, width=width, generator=generator)
    trunk = cgan.point_trunk(outputs, width, generator=generator)
    D = Discriminator(trunk, width, code, width=width, generator=generator)
    return Generator(network, code), D
