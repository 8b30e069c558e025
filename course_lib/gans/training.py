"""Algorithm 1 of the GAN paper as an iterator, on one CPU or on many devices.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count, islice
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from course_lib import device
from course_lib.gans.objectives import Controller, Objective

if TYPE_CHECKING:  # its import takes longer than a small game, and most games need none
    from lightning_fabric import Fabric

#: Samples (N, ...) alone, or with the condition that they were made for: labels or codes, (N, ...).
Conditioned: TypeAlias = Tensor | tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Step:
    """One round of Algorithm 1: k discriminator steps, then one generator step.

    ``step`` counts rounds from 1. ``d_loss`` is the mean of the k discriminator losses, all terms
    included; ``real_score`` and ``fake_score`` are the means of the discriminator's raw outputs
    (logits, for the log-loss) over the batches of its last step; ``g_loss`` is the generator's
    loss, all terms included. All are measured before the update that they caused, on this process's
    share of the batch. ``measures``: ``"auxiliary"``, the auxiliary loss on the generator's batch,
    and what the objective's controller reports, after its move.
    """

    step: int
    d_loss: float
    g_loss: float
    real_score: float
    fake_score: float
    measures: dict[str, float] = field(default_factory=dict)


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


class Average:
    """A running average of a network, which follows its weights and buffers from step to step.

    ``module`` is the averaged network, a copy that no gradient reaches. A game that goes round in
    circles is, at its last step, no better than before; the average of the way often is. ``decay``,
    in [0, 1): about the last 1 / (1 - decay) steps count, and fewer while there are not ten times
    as many yet.

    Raises ``ValueError`` for a decay out of range.
    Source: Yazici et al. 2019, equation 2; the start is ours.
    """

    def __init__(self, network: nn.Module, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: expected 0 <= decay < 1, got {decay}")
        self.module = copy.deepcopy(network).requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards ``network``, which has taken ``step`` steps, 1 or more."""
        # Early on the average must forget its start faster than later on.
        weight = 1 - min(self.decay, step / (step + 10))
        for mean, value in zip(
            (*self.module.parameters(), *self.module.buffers()),
            (*network.parameters(), *network.buffers()),
            strict=True,
        ):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)


def train_gan(
    generator: nn.Module,
    discriminator: nn.Module,
    batches: Iterable[Conditioned],
    sample_noise: Callable[[int], Conditioned],
    *,
    objective: Objective,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
    k: int | Callable[[int], int] = 1,
    average: Average | None = None,
    controller: Controller | None = None,
    rng: torch.Generator | None = None,
    first_step: int = 1,
    fabric: Fabric | None = None,
) -> Iterator[Step]:
    """Train both players by Algorithm 1 and yield a record after each round.

    ``generator``: noise to samples; ``discriminator``: samples to raw scores, (N,) or (N, 1).
    ``batches``: real samples, (N, ...), one tensor per discriminator step, or pairs of samples and
    their labels; when it ends, training ends, and a round that it ends in the middle of is not
    completed and yields no record.
    ``sample_noise(n)``: a fresh batch of noise z, drawn anew for every step of either player; or a
    pair (z, c), for a generator that is called with both. The discriminator is called with samples
    and labels (c, for generated ones) if the batches have labels, and with samples alone if not, or
    if the objective has an auxiliary question: then that is what labels and c are for.
    ``k``: discriminator steps per round, or a function that gives them for each round from 1 on.
    ``average``: follows the generator. ``rng``: for a penalty's draws (a penalty sees the samples under
    the real batch's labels), on the CPU (None: torch's
    global generator). ``first_step``: the number of the first round, and ``controller``: the
    objective's, as it was, where a training goes on.
    ``fabric``: a launched Fabric; modules and batches are then moved to its device and run in its
    precision, and gradients are averaged over its processes. Pass the bare modules and optimizers,
    not the results of ``fabric.setup``; they are trained in place.

    Both modules are in training mode during a round, whatever the caller does in between. A step of
    one player changes neither weights nor gradients of the other; running averages of batch-norm
    layers follow every forward pass, as they do everywhere in torch.

    Raises ``ValueError`` for k < 1, a batch that is no tensor or is empty, a batch of one where
    there is batch normalisation, conditions on one side only, energies below 0, and an optimizer
    that does not hold its module's parameters; ``TrainingDivergedError`` when a loss is no longer
    finite.
    Source: Goodfellow et al. 2014, Algorithm 1.
    """
    if not callable(k):
        _check_k(k)
    _check_optimizer("g_optimizer", g_optimizer, generator)
    _check_optimizer("d_optimizer", d_optimizer, discriminator)
    if controller is None and objective.controller is not None:
        controller = objective.controller()
    return _rounds(
        generator,
        discriminator,
        iter(batches),
        sample_noise,
        objective,
        g_optimizer,
        d_optimizer,
        k,
        average,
        controller,
        rng,
        first_step,
        fabric,
    )


def _rounds(
    generator: nn.Module,
    discriminator: nn.Module,
    batches: Iterator[Conditioned],
    sample_noise: Callable[[int], Conditioned],
    objective: Objective,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
    k: int | Callable[[int], int],
    average: Average | None,
    controller: Controller | None,
    rng: torch.Generator | None,
    first_step: int,
    fabric: Fabric | None,
) -> Iterator[Step]:
    judge: nn.Module = _Judge(discriminator, objective, rng)
    forger: nn.Module = generator
    backward: Callable[[Tensor], Any] = torch.Tensor.backward
    to_device: Callable[[Any], Any] = _unmoved
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    if fabric is not None:
        judge, d_optimizer = fabric.setup(judge, d_optimizer)
        forger, g_optimizer = fabric.setup(forger, g_optimizer)
        backward, to_device, autocast = fabric.backward, fabric.to_device, fabric.autocast
        if average is not None:
            average.module.to(fabric.device)
    has_batch_norm = any(
        isinstance(layer, _BatchNorm)
        for net in (generator, discriminator)
        for layer in net.modules()
    )

    for step in count(first_step):
        generator.train()
        discriminator.train()
        d_losses: list[Tensor] = []
        for _ in range(_check_k(k(step)) if callable(k) else k):
            batch = next(batches, None)
            if batch is None:
                return
            _check_batch(batch, has_batch_norm)
            real, labels = _split(to_device(batch))
            n = len(real)
            z, c = _split(to_device(sample_noise(n)))
            _check_conditions(objective, labels, c)
            with torch.no_grad(), autocast():
                fake = generator(z, *c).to(real.dtype)
            d_loss, real_score, fake_score = judge(
                real, labels, fake, c, controller.k if controller else None
            )
            d_optimizer.zero_grad(set_to_none=True)
            backward(d_loss)
            d_optimizer.step()
            if objective.constrain is not None:
                with torch.no_grad():
                    objective.constrain(discriminator)
            d_losses.append(d_loss.detach())

        with frozen(discriminator):
            z, c = _split(to_device(sample_noise(n)))
            fake = forger(z, *c)
            # The bare module: a wrapper that gathers gradients would wait for some that never come.
            with autocast():
                scores, answers = _ask(discriminator, objective, fake, c)
                g_loss = objective.generator_loss(scores)
                auxiliary = _auxiliary_loss(objective, scores, answers, c)
                g_loss = g_loss + auxiliary
                if objective.generator_penalty is not None:
                    g_loss = g_loss + objective.generator_penalty(discriminator, real, fake)
            g_optimizer.zero_grad(set_to_none=True)
            backward(g_loss)
            g_optimizer.step()
        # One transfer from the device for all of them.
        seen = [torch.stack(d_losses).mean(), g_loss, real_score, fake_score, auxiliary]
        numbers: list[float] = torch.stack([value.detach().float() for value in seen]).tolist()
        measures = {"auxiliary": numbers[4]} if objective.auxiliary is not None else {}
        record = Step(step, numbers[0], numbers[1], numbers[2], numbers[3], measures)
        if not all(map(math.isfinite, numbers)):
            raise TrainingDivergedError(record)  # before the average would take it in
        if average is not None:
            average.update(generator, step)
        if controller is not None:
            if fabric is not None and fabric.world_size > 1:  # k must be one number everywhere
                real_score, fake_score = fabric.all_reduce(torch.stack([real_score, fake_score]))
            controller.update(float(real_score), float(fake_score))
            measures |= controller.measures()
        yield record


class _Judge(nn.Module):
    """The discriminator with its loss, so that a step is one forward and one backward pass.

    Data-parallel wrappers count on that: two forward passes before one backward pass fail there as
    soon as the discriminator has buffers. Real and fake still go through the discriminator apart,
    each with batch statistics of its own.
    """

    def __init__(
        self, discriminator: nn.Module, objective: Objective, rng: torch.Generator | None
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.objective = objective
        self.rng = rng

    def forward(
        self,
        real: Tensor,
        labels: tuple[Tensor, ...],
        fake: Tensor,
        c: tuple[Tensor, ...],
        k: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        objective = self.objective
        real_scores, real_answers = _ask(self.discriminator, objective, real, labels)
        fake_scores, fake_answers = _ask(self.discriminator, objective, fake, c)
        if objective.scores == "energies" and bool((real_scores < 0).any()):
            raise ValueError(
                f"discriminator: {objective.name} expects energies, never negative, "
                f"got {float(real_scores.min()):.3g}"
            )
        balance = () if k is None else (k,)
        loss = objective.discriminator_loss(real_scores, fake_scores, *balance)
        loss = loss + _auxiliary_loss(objective, fake_scores, fake_answers, c)
        if objective.auxiliary is not None and objective.auxiliary.on_real:
            loss = loss + _auxiliary_loss(objective, real_scores, real_answers, labels)
        if objective.penalty is not None:

            def score(x: Tensor) -> Tensor:
                return _ask(self.discriminator, objective, x, labels)[0]

            loss = loss + objective.penalty(score, real, fake, self.rng)
        return loss, real_scores.detach().float().mean(), fake_scores.detach().float().mean()


def _ask(
    discriminator: nn.Module, objective: Objective, x: Tensor, condition: tuple[Tensor, ...]
) -> tuple[Tensor, Tensor | None]:
    """Return the scores, and the answers to the auxiliary question if there is one."""
    if objective.auxiliary is None:
        return discriminator(x, *condition), None
    scores, answers = discriminator(x)
    return scores, answers


def _auxiliary_loss(
    objective: Objective, scores: Tensor, answers: Tensor | None, condition: tuple[Tensor, ...]
) -> Tensor:
    if objective.auxiliary is None or answers is None:
        return scores.new_zeros(())
    return objective.auxiliary.weight * objective.auxiliary.loss(answers, condition[0])


def _split(samples: Conditioned) -> tuple[Tensor, tuple[Tensor, ...]]:
    if isinstance(samples, Tensor):
        return samples, ()
    x, condition = samples
    return x, (condition,)


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
    x: Tensor,
    batch_size: int,
    generator: torch.Generator,
    *,
    y: Tensor | None = None,
    first: int = 1,
    fabric: Fabric | None = None,
) -> Iterator[Any]:
    """Yield shuffled batches of ``x`` without end, each sample once per pass.

    ``x``: (N, ...); every batch has ``batch_size`` samples, and what is left over at the end of a
    pass is dropped, other samples each time. ``y``: (N, ...), labels; batches are then pairs (x, y).
    ``first``: the number, from 1, of the batch to begin with, as if those before had been drawn.
    ``fabric``: ``batch_size`` then counts over all its processes, and each gets its own equal part of
    the same batches, if ``generator`` has the same seed everywhere.

    Raises ``ValueError`` for a batch size below 1, above N, or not divisible among the processes, for
    ``first`` below 1, and for labels that are not as many as the samples.
    """
    if first < 1:
        raise ValueError(f"first: expected at least 1, got {first}")
    if y is not None and len(y) != len(x):
        raise ValueError(f"y: expected {len(x)} labels, one per sample, got {len(y)}")
    order = islice(device.shuffled(len(x), batch_size, generator, fabric), first - 1, None)
    if y is None:
        return (x[batch.to(x.device)] for batch in order)
    return ((x[batch.to(x.device)], y[batch.to(y.device)]) for batch in order)


def _unmoved(x: Any) -> Any:
    return x


def _check_k(k: int) -> int:
    if k < 1:
        raise ValueError(f"k: expected at least 1 discriminator step per round, got {k}")
    return k


def _check_optimizer(name: str, optimizer: torch.optim.Optimizer, module: nn.Module) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    own = {id(parameter) for parameter in module.parameters()}
    if not held <= own:
        raise ValueError(
            f"{name}: expected an optimizer of the {type(module).__name__}'s parameters, "
            f"got one that holds {len(held - own)} others"
        )


def _check_conditions(
    objective: Objective, labels: tuple[Tensor, ...], c: tuple[Tensor, ...]
) -> None:
    auxiliary = objective.auxiliary
    if auxiliary is None and len(labels) != len(c):
        expected = "pairs (x, y) from batches need pairs (z, c) from sample_noise, or neither"
    elif auxiliary is not None and (not c or (auxiliary.on_real and not labels)):
        expected = "its auxiliary loss needs a condition: pairs (z, c) from sample_noise" + (
            ", and pairs (x, y) from batches" if auxiliary.on_real else ""
        )
    else:
        return
    raise ValueError(
        f"{objective.name}: {expected}; got {'pairs' if labels else 'samples alone'} from batches, "
        f"{'pairs' if c else 'noise alone'} from sample_noise"
    )


def _check_batch(batch: object, has_batch_norm: bool) -> None:
    # A pair may be a list: that is what torch's DataLoader makes of it.
    pair = isinstance(batch, list | tuple) and len(batch) == 2
    parts: list[Any] = list(batch) if pair else [batch]  # type: ignore[call-overload]
    if not all(isinstance(part, Tensor) and len(part) for part in parts):
        came = [tuple(p.shape) if isinstance(p, Tensor) else type(p).__name__ for p in parts]
        raise ValueError(
            "batches: expected non-empty tensors (N, ...), or pairs of samples and labels, got "
            + ", ".join(map(str, came))
        )
    sizes = [len(part) for part in parts]
    if len(set(sizes)) > 1:
        raise ValueError(f"batches: expected one label per sample, got {sizes[0]} and {sizes[1]}")
    if sizes[0] == 1 and has_batch_norm:
        raise ValueError(
            "batches: batch normalisation needs at least 2 samples per batch, got a batch of 1"
        )
