"""How an autoencoder learns: what is made small, and the loop that does it.

Chapter: book/represent/autoencoders.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import device
from course_lib.autoencoders.networks import Autoencoder, check_size
from course_lib.classifiers import check_examples, evaluating

if TYPE_CHECKING:  # seconds to import, and most trainings here need none
    from lightning_fabric import Fabric

#: x and a generator to a noisy x of the same shape.
Corrupt = Callable[[Tensor, torch.Generator], Tensor]
#: The model, its input and the code of it, to a scalar that is added to the loss.
Penalty = Callable[[Autoencoder, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """How far a reconstruction is from what it should be: one number for each example.

    ``per_example(raw, x)``: (N, *shape) twice, to (N,); ``raw`` is the decoder's logits
    (``from_logits``) or what ``decode`` returns.
    """

    name: str
    per_example: Callable[[Tensor, Tensor], Tensor]
    from_logits: bool


#: ||x - x_hat||^2, for any examples.
squared_error = Loss(
    "squared error",
    lambda x_hat, x: (x - x_hat).square().flatten(1).sum(1),
    from_logits=False,
)

#: -sum_i [x_i log x_hat_i + (1 - x_i) log(1 - x_hat_i)], for x in [0, 1], safe for every logit.
cross_entropy = Loss(
    "cross-entropy",
    lambda logits, x: (
        F.binary_cross_entropy_with_logits(logits, x, reduction="none").flatten(1).sum(1)
    ),
    from_logits=True,
)


@dataclass(frozen=True)
class Step:
    """One training step: its number, of how many, its batch's loss, and the penalty added to it."""

    step: int
    steps: int
    loss: float
    penalty: float


def fit(
    model: Autoencoder,
    x: Tensor,
    *,
    steps: int,
    loss: Loss = squared_error,
    target: Tensor | None = None,
    corrupt: Corrupt | None = None,
    penalty: Penalty | None = None,
    batch_size: int = 100,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    fabric: Fabric | None = None,
    seed: int = 0,
) -> Iterator[Step]:
    """Train ``model`` in place with AdamW and a cosine schedule, one ``Step`` per batch.

    ``x``: examples (N, *shape), on any device; batches are moved to the model's. ``target``: what to
    rebuild from each, ``x`` itself unless given. ``corrupt(x, generator)`` spoils each batch on its
    way in, never its target. ``penalty(model, x, code)`` is added to the mean loss of the batch.
    Every example is seen once before any is seen again (fewer than ``batch_size`` left over are
    passed by). With ``fabric`` the model goes to its device and runs in its precision, and several
    processes share each batch. When the iterator ends, or is closed, the model is in evaluation mode.

    Raises ``ValueError`` for no example, NaN, another shape, a target in another shape or, for
    cross-entropy, outside [0, 1], and a setting out of range; ``ArithmeticError`` with the step's
    number once a loss is no longer finite.
    """
    wanted = x if target is None else target
    check_examples("x", x)
    check_examples("target", wanted)
    if wanted.shape != (len(x), *model.shape):
        raise ValueError(
            f"target: expected shape {(len(x), *model.shape)}, as the model rebuilds; "
            f"got {tuple(wanted.shape)}"
        )
    if loss.from_logits and not (0 <= float(wanted.min()) and float(wanted.max()) <= 1):
        raise ValueError(
            f"target: expected values in [0, 1] for {loss.name}, "
            f"got [{float(wanted.min()):.3g}, {float(wanted.max()):.3g}]"
        )
    check_size("steps", steps)
    check_size("batch_size", batch_size)
    if not lr > 0 or not weight_decay >= 0:
        raise ValueError(
            f"lr, weight_decay: expected lr > 0 and weight_decay >= 0, got {lr}, {weight_decay}"
        )
    # All processes draw one order and take turns in it; each spoils its examples its own way.
    order = device.shuffled(len(x), min(batch_size, len(x)), device.generator(seed), fabric)
    noise = device.generator(seed + 1 + (fabric.global_rank if fabric else 0))

    def train() -> Iterator[Step]:
        objective: nn.Module = _Objective(model, loss, penalty)
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        if fabric is not None:
            objective, optimizer = fabric.setup(objective, optimizer)
        where = next(model.parameters()).device
        try:
            for step in range(1, steps + 1):
                batch = next(order)
                clean, given = wanted[batch].to(where), x[batch]
                if corrupt is not None:
                    given = corrupt(given, noise)
                objective.train()  # here, because the caller may have evaluated since the last step
                value, added = objective(given.to(where), clean)
                optimizer.zero_grad()
                total = value + added
                if not bool(total.isfinite()):
                    raise ArithmeticError(
                        f"training diverged in step {step}: loss {float(value.detach()):.4g}, penalty "
                        f"{float(added.detach()):.4g}; a smaller lr is the first thing to try"
                    )
                if fabric is None:
                    total.backward()
                else:
                    fabric.backward(total)
                optimizer.step()
                schedule.step()
                value, added = value.detach(), added.detach()
                yield Step(step=step, steps=steps, loss=float(value), penalty=float(added))
        finally:
            model.eval()

    return train()


class _Objective(nn.Module):
    """Loss and penalty of a batch in one ``forward``, which training on many devices can wrap."""

    def __init__(self, model: Autoencoder, loss: Loss, penalty: Penalty | None) -> None:
        super().__init__()
        self.model, self.loss, self.penalty = model, loss, penalty

    def forward(self, given: Tensor, clean: Tensor) -> tuple[Tensor, Tensor]:
        code = self.model.encode(given)
        raw = self.model.logits(code) if self.loss.from_logits else self.model.decode(code)
        value = self.loss.per_example(raw, clean).mean()
        if self.penalty is None:
            return value, torch.zeros_like(value)
        return value, self.penalty(self.model, given, code)


@torch.no_grad()
def reconstruction_error(
    model: Autoencoder, x: Tensor, *, target: Tensor | None = None, batch_size: int = 1000
) -> float:
    """Return the mean squared distance between ``target`` (default ``x``) and the reconstruction.

    ``x``: (N, *shape), where the model is. Squares are summed over the numbers of an example and
    averaged over the N examples, as for PCA. The model is left as it was found.

    Raises ``ValueError`` for no example, NaN, or another shape.
    """
    wanted = x if target is None else target
    check_examples("x", x)
    check_examples("target", wanted)
    check_size("batch_size", batch_size)
    if wanted.shape != (len(x), *model.shape):
        raise ValueError(
            f"target: expected shape {(len(x), *model.shape)}, got {tuple(wanted.shape)}"
        )
    total = 0.0
    with evaluating(model):
        for part, clean in zip(x.split(batch_size), wanted.split(batch_size), strict=True):
            total += float(squared_error.per_example(model(part), clean).double().sum())
    return total / len(x)
