"""Defences that hide the gradient and leave the boundary where it was, and the checks that catch them.

Chapter: book/deceive/defending.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import device
from course_lib.attacks.fgsm import fgsm
from course_lib.attacks.gradient import check_images, margin
from course_lib.attacks.pgd import pgd
from course_lib.classifiers import (
    Step,
    accuracy,
    check_examples,
    evaluating,
)


class Quantised(nn.Module):
    """``model`` on images in [0, 1] whose pixels are rounded to ``levels`` equally spaced greys.

    Rounding is flat almost everywhere, so the gradient in x is 0. With ``straight_through`` the answers
    are the same and the backward pass takes rounding for the identity, which is how such a defence is
    attacked. Raises ``ValueError`` for fewer than two levels. Source: Xu, Evans & Qi, "Feature squeezing",
    2018, section IV.A; Athalye, Carlini & Wagner, "Obfuscated gradients give a false sense of
    security", 2018, section 4.1 (BPDA).
    """

    def __init__(self, model: nn.Module, levels: int, *, straight_through: bool = False) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"levels: expected at least 2, got {levels}")
        self.model, self.levels, self.straight_through = model, levels, straight_through

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the rounded images."""
        rounded = (x * (self.levels - 1)).round() / (self.levels - 1)
        if self.straight_through:
            rounded = x + (rounded - x).detach()
        logits: Tensor = self.model(rounded)
        return logits


def distil(
    model: nn.Module,
    teacher: nn.Module,
    x: Tensor,
    *,
    temperature: float,
    steps: int,
    batch_size: int = 100,
    lr: float = 2e-3,
    seed: int = 0,
) -> Iterator[Step]:
    """Train ``model`` in place to give the probabilities of ``teacher``, both at ``temperature`` T.

    Both softmaxes are those of the logits divided by T, so logits that reach the same probabilities
    are T times as large; in use T is 1, and the softmax saturates. ``x``: (N, ...), where the models
    are. ``Step.accuracy`` is the share of the batch on which the two agree. The teacher is left as it
    was found; ``model`` ends in evaluation mode.

    Raises ``ValueError`` for an empty batch, NaN, or a setting out of range. Source: Papernot, McDaniel,
    Wu, Jha & Swami, "Distillation as a defense to adversarial perturbations", 2016, section IV.
    """
    check_examples("x", x)
    if not 0 < temperature < torch.inf:
        raise ValueError(f"temperature: expected a finite number > 0, got {temperature}")

    for name, value in (("steps", steps), ("batch_size", batch_size)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if not lr > 0:
        raise ValueError(f"lr: expected lr > 0, got {lr}")
    order = device.shuffled(len(x), min(batch_size, len(x)), device.generator(seed))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)

    def train() -> Iterator[Step]:
        try:
            for step in range(1, steps + 1):
                images = x[next(order)]
                with torch.no_grad(), evaluating(teacher):
                    soft = (teacher(images) / temperature).softmax(dim=1)
                model.train()
                logits: Tensor = model(images)
                value = F.cross_entropy(logits / temperature, soft)
                optimizer.zero_grad()
                value.backward()
                optimizer.step()
                schedule.step()
                agree = (logits.detach().argmax(dim=1) == soft.argmax(dim=1)).float().mean()
                yield Step(step, steps, float(value.detach()), float(agree))
        finally:
            model.eval()

    return train()


@dataclass(frozen=True)
class Check:
    """Accuracy under the gradient attack, and the ``limit`` that a working one does not exceed."""

    name: str
    attacked: float
    limit: float

    @property
    def caught(self) -> bool:
        """Whether the attack does worse than it must: by more than two images in a hundred."""
        return self.attacked > self.limit + 0.02


def checks(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    other: nn.Module,
    steps: int = 10,
    tries: int = 20,
    generator: torch.Generator | None = None,
) -> list[Check]:
    """Ask of ``model`` whether its gradient leads anywhere: five comparisons that PGD must not lose.

    ``x``: (N, ...) in [0, 1]; ``y``: int64 (N,), the true labels; ``eps``: in the maximum norm. PGD takes
    ``steps`` steps on the cross-entropy. It must do no worse than one step of FGSM; than itself on the
    margin of the logits; than images made on the network ``other``; than the best of ``tries`` random
    patterns of full size; and with eps = 1, where every image can become every other, it must leave
    nothing. A check that is ``caught`` shows that PGD's figure at ``eps`` means nothing; none that is
    proves little. ``generator``: for the starts and the patterns, on the CPU; without one, seed 0.

    Raises ``ValueError`` as ``pgd`` does, and for steps or tries < 1. Source: Athalye et al. 2018,
    section 3.1; Carlini et al., "On evaluating adversarial robustness", 2019, sections 4 and 5.
    """
    check_images(x, y)
    for name, value in (("steps", steps), ("tries", tries)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    generator = device.generator(0) if generator is None else generator
    climb = partial(pgd, steps=steps, generator=generator)
    attacked = accuracy(model, climb(model, x, y, eps, 2.5 * eps / steps), y)
    rivals = {
        "one step": fgsm(model, x, y, eps),
        "another loss": climb(model, x, y, eps, 2.5 * eps / steps, loss=margin),
        "another network": climb(other, x, y, eps, 2.5 * eps / steps),
    }
    found = [Check(name, attacked, accuracy(model, images, y)) for name, images in rivals.items()]
    found.append(Check("chance", attacked, _random_search(model, x, y, eps, tries, generator)))
    unbounded = accuracy(model, climb(model, x, y, 1.0, 2.5 / steps), y)
    return [*found, Check("no limit", unbounded, 0.0)]


@torch.no_grad()
def _random_search(
    model: nn.Module, x: Tensor, y: Tensor, eps: float, tries: int, generator: torch.Generator
) -> float:
    """Return the share of images that no one of ``tries`` patterns of signs of size ``eps`` fools."""
    holds = torch.ones_like(y, dtype=torch.bool)
    with evaluating(model):
        for _ in range(tries):
            coin = torch.randint(0, 2, x.shape, generator=generator) * 2 - 1
            tossed = (x + eps * coin.to(x)).clamp(0, 1)
            holds &= model(tossed).argmax(dim=1) == y
    return float(holds.float().mean())
