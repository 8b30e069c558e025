"""Algorithm 1 of the GAN paper as an iterator, on one CPU or on many devices.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from course_lib import device
from course_lib.gans.objectives import Objective

if TYPE_CHECKING:  # its import takes longer than a small game, and most games need none
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Step:
    """One round of Algorithm 1: k discriminator steps, then one generator step.

    ``step`` counts rounds from 1. ``d_loss`` is the mean of the k discriminator losses, penalty
    included; ``real_score`` and ``fake_score`` are the means of the discriminator's raw outputs
    (logits, for the log-loss) over the batches of its last step; ``g_loss`` is the generator's
    loss. All are measured before the update that they caused, on this process's share of the batch.
    """

    step: int
    d_loss: float
    g_loss: float
    real_score: float
    fake_score: float


class TrainingDivergedError(ArithmeticError):
    """A loss became NaN or infinite; ``step`` is the record of the round in which it happened."""

    def __init__(self, step: Step) -> None:
        super().__init__(
            f"training diverged in step {step.step}: d_loss={step.d_loss:.4g}, "
            f"g_loss={step.g_loss:.4g}, real_score={step.real_score:.4g}, "
            f"fake_score={step.fake_score:.4g}. The weights are no longer usable; "
            "a smaller learning rate is the first thing to try"
        )
        self.step = step


def train_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    batches: Iterable[Tensor],
    sample_noise: Callable[[int], Tensor],
    *,
    objective: Objective,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
    k: int = 1,
    fabric: Fabric | None = None,
) -> Iterator[Step]:
    """Train both players by Algorithm 1 and yield a record after each round.

    ``generator``: noise to samples; ``discriminator``: samples to raw scores (logits), (N,) or
    (N, 1).
    ``batches``: real samples, (N, ...), one tensor per discriminator step; when it ends, training
    ends, and a round that it ends in the middle of is not completed and yields no record.
    ``sample_noise(n)``: a fresh batch of noise, drawn anew for every step of either player.
    ``k``: discriminator steps per round.
    ``fabric``: a launched Fabric; modules and batches are then moved to its device and run in its
    precision, and gradients are averaged over its processes. Pass the bare modules and optimizers,
    not the results of ``fabric.setup``; they are trained in place.

    Both modules are in training mode during a round, whatever the caller does in between. A step of
    one player changes neither weights nor gradients of the other; running averages of batch-norm
    layers follow every forward pass, as they do everywhere in torch.

    Raises ``ValueError`` for k < 1, a batch that is no tensor or is empty, a batch of one where
    there is batch normalisation, and an optimizer that does not hold its module's parameters;
    ``TrainingDivergedError`` when a loss is no longer finite.
    Source: Goodfellow et al. 2014, Algorithm 1.
    """
    if k < 1:
        raise ValueError(f"k: expected at least 1 discriminator step per round, got {k}")
    _check_optimizer("g_optimizer", g_optimizer, generator)
    _check_optimizer("d_optimizer", d_optimizer, discriminator)
    return _rounds(
        generator,
        discriminator,
        iter(batches),
        sample_noise,
        objective,
        g_optimizer,
        d_optimizer,
        k,
        fabric,
    )


def _rounds(
    generator: nn.Module,
    discriminator: nn.Module,
    batches: Iterator[Tensor],
    sample_noise: Callable[[int], Tensor],
    objective: Objective,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
    k: int,
    fabric: Fabric | None,
) -> Iterator[Step]:
    judge: nn.Module = _Judge(discriminator, objective)
    forger: nn.Module = generator
    backward: Callable[[Tensor], Any] = torch.Tensor.backward
    to_device: Callable[[Tensor], Tensor] = _unmoved
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    if fabric is not None:
        judge, d_optimizer = fabric.setup(judge, d_optimizer)
        forger, g_optimizer = fabric.setup(forger, g_optimizer)
        backward, to_device, autocast = fabric.backward, fabric.to_device, fabric.autocast
    has_batch_norm = any(
        isinstance(layer, _BatchNorm)
        for net in (generator, discriminator)
        for layer in net.modules()
    )

    for step in count(1):
        generator.train()
        discriminator.train()
        d_losses: list[Tensor] = []
        for _ in range(k):
            batch = next(batches, None)
            if batch is None:
                return
            _check_batch(batch, has_batch_norm)
            real = to_device(batch)
            n = len(real)
            with torch.no_grad(), autocast():
                fake = generator(to_device(sample_noise(n))).to(real.dtype)
            d_loss, real_score, fake_score = judge(real, fake)
            d_optimizer.zero_grad(set_to_none=True)
            backward(d_loss)
            d_optimizer.step()
            d_losses.append(d_loss.detach())

        with frozen(discriminator):
            fake = forger(to_device(sample_noise(n)))
            # The bare module: a wrapper that gathers gradients would wait for some that never come.
            with autocast():
                g_loss = objective.generator_loss(discriminator(fake))
            g_optimizer.zero_grad(set_to_none=True)
            backward(g_loss)
            g_optimizer.step()

        # One transfer from the device for all four.
        d_mean = torch.stack(d_losses).mean()
        numbers = torch.stack([d_mean, g_loss.detach(), real_score, fake_score]).tolist()
        record = Step(step, *numbers)
        if not all(map(math.isfinite, numbers)):
            raise TrainingDivergedError(record)
        yield record


class _Judge(nn.Module):
    """The discriminator with its loss, so that a step is one forward and one backward pass.

    Data-parallel wrappers count on that: two forward passes before one backward pass fail there as
    soon as the discriminator has buffers. Real and fake still go through the discriminator apart,
    each with batch statistics of its own.
    """

    def __init__(self, discriminator: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.objective = objective

    def forward(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        loss = self.objective.discriminator_loss(real_logits, fake_logits)
        if self.objective.penalty is not None:
            loss = loss + self.objective.penalty(self.discriminator, real, fake)
        return loss, real_logits.detach().float().mean(), fake_logits.detach().float().mean()


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Switch off ``requires_grad`` of all parameters inside the block, and restore it after.

    Gradients still flow through the module to its input; those of its weights are not computed.
    """
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)


def batches(
    x: Tensor, batch_size: int, generator: torch.Generator, *, fabric: Fabric | None = None
) -> Iterator[Tensor]:
    """Yield shuffled batches of ``x`` without end, each sample once per pass.

    ``x``: (N, ...); every batch has ``batch_size`` samples, and what is left over at the end of a
    pass is dropped, other samples each time. ``fabric``: ``batch_size`` then counts over all its
    processes, and each gets its own equal part of the same batches, if ``generator`` has the same
    seed everywhere.

    Raises ``ValueError`` for a batch size below 1, above N, or not divisible among the processes.
    """
    order = device.shuffled(len(x), batch_size, generator, fabric)
    return (x[batch.to(x.device)] for batch in order)


def _unmoved(x: Tensor) -> Tensor:
    return x


def _check_optimizer(name: str, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    own = {id(parameter) for parameter in module.parameters()}
    if not held <= own:
        raise ValueError(
            f"{name}: expected an optimizer of the {type(module).__name__}'s parameters, "
            f"got one that holds {len(held - own)} others"
        )


def _check_batch(real: object, has_batch_norm: bool) -> None:
    if not isinstance(real, Tensor) or len(real) == 0:
        came = tuple(real.shape) if isinstance(real, Tensor) else type(real).__name__
        raise ValueError(f"batches: expected non-empty tensors (N, ...), got {came}")
    if len(real) == 1 and has_batch_norm:
        raise ValueError(
            "batches: batch normalisation needs at least 2 samples per batch, got a batch of 1"
        )
