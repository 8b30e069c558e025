"""Lets the student's functions play small games and returns weights and losses, as arrays.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters


def d_loss(student: Any, *, real: Tensor, fake: Tensor) -> dict[str, Any]:
    """Return the discriminator's loss."""
    return {"loss": student.discriminator_loss(real, fake)}


def d_loss_slopes(student: Any, *, real: Tensor, fake: Tensor) -> dict[str, Any]:
    """Return the discriminator's loss and its derivative in every logit."""
    real, fake = real.requires_grad_(), fake.requires_grad_()
    loss = student.discriminator_loss(real, fake)
    return {"loss": loss, "real_slope": _slope(loss, real), "fake_slope": _slope(loss, fake)}


def g_loss(student: Any, *, fake: Tensor) -> dict[str, Any]:
    """Return the generator's loss as it is called by default."""
    return {"loss": student.generator_loss(fake)}


def g_loss_saturating(student: Any, *, fake: Tensor) -> dict[str, Any]:
    """Return the generator's saturating loss."""
    return {"loss": student.generator_loss(fake, saturating=True)}


def g_loss_slopes(student: Any, *, fake: Tensor) -> dict[str, Any]:
    """Return both of the generator's losses and their derivatives in every logit."""
    fake = fake.requires_grad_()
    found = {}
    for name, saturating in (("", False), ("_saturating", True)):
        loss = student.generator_loss(fake, saturating=saturating)
        found[f"loss{name}"] = loss
        found[f"slope{name}"] = _slope(loss, fake)
    return found


def d_step(
    student: Any,
    *,
    forger: Tensor,
    judge: Tensor,
    pull: Tensor,
    real: Tensor,
    noise: Tensor,
    rate: float,
) -> dict[str, Any]:
    """Return both players and the loss after one turn of the discriminator, with SGD."""
    generator, discriminator = _players(forger, judge)
    optimizer = torch.optim.SGD(discriminator.parameters(), lr=rate)
    with student.replaced(**_losses(pull)):
        loss = student.discriminator_step(generator, discriminator, optimizer, real, noise)
    return {"forger": _weights(generator), "judge": _weights(discriminator), "loss": loss}


def d_again(
    student: Any,
    *,
    forger: Tensor,
    judge: Tensor,
    pull: Tensor,
    real: Tensor,
    noise: Tensor,
    rate: float,
) -> dict[str, Any]:
    """Return the discriminator after two of its turns, with Adam."""
    generator, discriminator = _players(forger, judge)
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=rate)
    with student.replaced(**_losses(pull)):
        for batch, z in zip(real, noise, strict=True):
            student.discriminator_step(generator, discriminator, optimizer, batch, z)
    return {"judge": _weights(discriminator)}


def g_step(
    student: Any, *, forger: Tensor, judge: Tensor, pull: Tensor, noise: Tensor, rate: float
) -> dict[str, Any]:
    """Return both players and the loss after one turn of the generator, with SGD."""
    generator, discriminator = _players(forger, judge)
    optimizer = torch.optim.SGD(generator.parameters(), lr=rate)
    with student.replaced(**_losses(pull)):
        loss = student.generator_step(generator, discriminator, optimizer, noise)
    return {"forger": _weights(generator), "judge": _weights(discriminator), "loss": loss}


def g_again(
    student: Any, *, forger: Tensor, judge: Tensor, pull: Tensor, noise: Tensor, rate: float
) -> dict[str, Any]:
    """Return the generator after two of its turns, with Adam."""
    generator, discriminator = _players(forger, judge)
    optimizer = torch.optim.Adam(generator.parameters(), lr=rate)
    with student.replaced(**_losses(pull)):
        for z in noise:
            student.generator_step(generator, discriminator, optimizer, z)
    return {"forger": _weights(generator)}


def d_then_g(
    student: Any,
    *,
    forger: Tensor,
    judge: Tensor,
    pull: Tensor,
    real: Tensor,
    noise: Tensor,
    rate: float,
) -> dict[str, Any]:
    """Return the discriminator after its turn, and the generator after the turn that follows.

    Once more the generator's turn alone, from the same weights, with nothing before it; and again,
    after that one.
    """
    with student.replaced(**_losses(pull)):
        generator, discriminator = _players(forger, judge)
        optimizer = torch.optim.SGD(discriminator.parameters(), lr=rate)
        student.discriminator_step(generator, discriminator, optimizer, real, noise[0])
        after = _weights(discriminator)

        def turn(generator: nn.Module, discriminator: nn.Module) -> Tensor:
            optimizer = torch.optim.SGD(generator.parameters(), lr=rate)
            student.generator_step(generator, discriminator, optimizer, noise[1])
            return _weights(generator)

        following = _tried(turn, generator, discriminator)
        generator, discriminator = _players(forger, after)
        alone = _tried(turn, generator, discriminator)
        _set(generator, forger)
        return {
            "judge": after,
            "next": following,
            "alone": alone,
            "alone_again": _tried(turn, generator, discriminator),
        }


def g_then_d(
    student: Any,
    *,
    forger: Tensor,
    judge: Tensor,
    pull: Tensor,
    real: Tensor,
    noise: Tensor,
    rate: float,
) -> dict[str, Any]:
    """Return the generator after its turn, and the discriminator after the turn that follows.

    Once more the discriminator's turn alone, from the same weights, with nothing before it; and again,
    after that one.
    """
    with student.replaced(**_losses(pull)):
        generator, discriminator = _players(forger, judge)
        optimizer = torch.optim.SGD(generator.parameters(), lr=rate)
        student.generator_step(generator, discriminator, optimizer, noise[0])
        after = _weights(generator)

        def turn(generator: nn.Module, discriminator: nn.Module) -> Tensor:
            optimizer = torch.optim.SGD(discriminator.parameters(), lr=rate)
            student.discriminator_step(generator, discriminator, optimizer, real, noise[1])
            return _weights(discriminator)

        following = _tried(turn, generator, discriminator)
        generator, discriminator = _players(after, judge)
        alone = _tried(turn, generator, discriminator)
        _set(discriminator, judge)
        return {
            "forger": after,
            "next": following,
            "alone": alone,
            "alone_again": _tried(turn, generator, discriminator),
        }


def train(
    student: Any,
    *,
    forger: Tensor,
    judge: Tensor,
    pull: Tensor,
    real: Tensor,
    noise: Tensor,
    rate: float,
    k: int | None,
) -> dict[str, Any]:
    """Return both players and the history of a training, with the student's steps and with others."""

    def call(suffix: str) -> dict[str, Any]:
        generator, discriminator = _players(forger, judge)
        history = student.train(
            generator,
            discriminator,
            torch.optim.SGD(generator.parameters(), lr=rate),
            torch.optim.SGD(discriminator.parameters(), lr=rate),
            _Deck(real),
            _Pool(noise),
            **({} if k is None else {"k": k}),
        )
        table = _table(history)  # first: a training that yields only runs when it is read
        return {
            f"forger{suffix}": _weights(generator),
            f"judge{suffix}": _weights(discriminator),
            f"history{suffix}": table,
        }

    def attempt(suffix: str) -> dict[str, Any]:
        try:
            return call(suffix)
        except Exception as error:
            errors.append(error)
            return {}

    errors: list[Exception] = []
    results = attempt("")
    with student.replaced(**_losses(pull), **_steps(pull)):
        results |= attempt("_pulled")
    if not results:
        raise errors[0]
    return results


def _slope(loss: Any, logits: Tensor) -> Tensor:
    """Return the derivative, 0 where there is none."""
    if not isinstance(loss, Tensor) or not loss.requires_grad:
        return torch.zeros_like(logits)
    (slope,) = torch.autograd.grad(loss, logits, retain_graph=True, allow_unused=True)
    return torch.zeros_like(logits) if slope is None else slope


def _players(forger: Tensor, judge: Tensor) -> tuple[nn.Module, nn.Module]:
    generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 2))
    discriminator = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1))
    # Copies: the parameters become views of what is passed here.
    vector_to_parameters(forger.clone(), generator.parameters())
    vector_to_parameters(judge.clone(), discriminator.parameters())
    return generator, discriminator


def _weights(module: nn.Module) -> Tensor:
    return parameters_to_vector(module.parameters()).detach().clone()


def _set(module: nn.Module, weights: Tensor) -> None:
    """Put weights back, and leave gradients where they are."""
    vector_to_parameters(weights.clone(), module.parameters())


def _tried(turn: Any, *players: nn.Module) -> Tensor:
    """Return the weights after a turn; nothing at all where it fails."""
    try:
        return turn(*players)
    except Exception:
        return torch.zeros(0)


def _losses(pull: Tensor) -> dict[str, Any]:
    """Return other losses, so that a slip in the student's own does not count again."""

    def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, *_: Any, **__: Any) -> Tensor:
        on_real = (real_logits - pull[0]).pow(2).mean()
        return on_real + pull[1] * (fake_logits + pull[2]).pow(2).mean()

    def generator_loss(fake_logits: Tensor, saturating: bool = False, **_: Any) -> Tensor:
        wanted = -pull[3] if saturating else pull[3]
        return (fake_logits - wanted).pow(2).mean()

    return {"discriminator_loss": discriminator_loss, "generator_loss": generator_loss}


def _steps(pull: Tensor) -> dict[str, Any]:
    """Return other turns, which show who was called when and with what."""

    def move(optimizer: torch.optim.Optimizer, by: Tensor) -> None:
        with torch.no_grad():
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(0.8).add_(by)

    def mean(module: nn.Module) -> Tensor:
        return _weights(module).mean()

    def discriminator_step(
        generator: nn.Module, discriminator: nn.Module, optimizer: Any, real: Tensor, noise: Tensor
    ) -> float:
        move(optimizer, pull[0] * real.mean() + pull[1] * noise.mean() + pull[2] * mean(generator))
        return float(real.mean() + pull[3] * noise.mean())

    def generator_step(
        generator: nn.Module, discriminator: nn.Module, optimizer: Any, noise: Tensor
    ) -> float:
        move(optimizer, pull[3] * noise.mean() + pull[1] * mean(discriminator))
        return float(noise.mean() + pull[2] * mean(discriminator))

    return {"discriminator_step": discriminator_step, "generator_step": generator_step}


def _table(history: Any) -> Tensor:
    """Return rows of numbers; nothing where it is none."""
    try:
        return torch.tensor(
            [[float(value) for value in row] for row in history], dtype=torch.float64
        )
    except (TypeError, ValueError, RuntimeError):
        return torch.zeros(0)


class _Deck(list):  # type: ignore[type-arg]
    """Batches that are dealt once, by ``next`` or by a loop; ``len`` says how many there were."""

    def __init__(self, batches: Tensor) -> None:
        super().__init__(batches)
        self._dealt = 0

    def __iter__(self) -> Iterator[Tensor]:
        return self

    def __next__(self) -> Tensor:
        if self._dealt == len(self):
            raise StopIteration
        self._dealt += 1
        return self[self._dealt - 1]


class _Pool:
    """Noise that never repeats before it is used up: ``pool(n)`` gives the next n rows."""

    def __init__(self, rows: Tensor) -> None:
        self._rows, self._used = rows, 0

    def __call__(self, n: int) -> Tensor:
        which = torch.arange(self._used, self._used + n) % len(self._rows)
        self._used += n
        return self._rows[which]
