"""Adversarial training: every batch is attacked before the network learns from it.

Chapter: book/deceive/defending.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib.attacks.gradient import check_images
from course_lib.attacks.pgd import pgd
from course_lib.classifiers import Step, fit

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

#: ``attack(model, x, y, eps, generator)`` gives x_adv within ``eps`` of x, like x.
Inner = Callable[[nn.Module, Tensor, Tensor, float, torch.Generator], Tensor]


def adversarial_training(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: Inner,
    eps: float,
    steps: int,
    warm_up: int = 0,
    batch_size: int = 100,
    lr: float = 2e-3,
    weight_decay: float = 0.0,
    fabric: Fabric | None = None,
    seed: int = 0,
    state: dict[str, Any] | None = None,
) -> Iterator[Step]:
    """Train ``model`` in place on what ``attack`` makes of each batch, one ``Step`` per batch.

    The minimum over the weights of the mean over the data of the maximum over ``|eta| <= eps`` of
    the loss: ``attack(model, x, y, eps, generator)`` looks for the maximum, with the weights as they
    are at that step, and ``fit`` goes down from there. ``x``: (N, ...) in [0, 1]; ``y``: int64 (N,).
    For the first ``warm_up`` steps the size grows in equal parts from 0 to ``eps``: a large one at
    once can leave a network at chance. The other settings are those of ``fit``.

    Raises ``ValueError`` as ``fit`` and the attack do, for an attack that returns something else
    than images within ``eps`` of those it got, and for a negative ``eps`` or ``warm_up``. Source:
    Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018, equation 2.1.
    """
    check_images(x, y)
    if not 0 <= eps < math.inf:
        raise ValueError(f"eps: expected a finite size >= 0, got {eps}")
    if warm_up < 0:
        raise ValueError(f"warm_up: expected 0 or more, got {warm_up}")

    def worst(
        model: nn.Module, x: Tensor, y: Tensor, step: int, generator: torch.Generator
    ) -> Tensor:
        size = eps * min(1.0, step / warm_up) if warm_up else eps
        x_adv = attack(model, x, y, size, generator)
        # A ball that leaks makes a network that is robust to nothing in particular.
        same = x_adv.shape == x.shape and x_adv.dtype == x.dtype
        if not same or not float((x_adv - x).abs().max()) <= size + 1e-5:
            raise ValueError(
                f"attack: expected {x.dtype} images {tuple(x.shape)} within {size:g} of those it "
                f"got; got {x_adv.dtype} {tuple(x_adv.shape)}"
                + (f", {float((x_adv - x).abs().max()):g} away" if same else "")
            )
        return x_adv

    return fit(
        model,
        x,
        y,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        adversary=worst,
        fabric=fabric,
        seed=seed,
        state=state,
    )


def climb(steps: int, stride: float = 2.5) -> Inner:
    """Return the inner attack that takes ``steps`` steps of PGD from a random start.

    Each step has the length ``stride * eps / steps``, so that together they can cross the ball and
    turn round. With one step and ``stride=1.25`` it is the fast variant of Wong et al. 2020
    (Algorithm 3), which costs one gradient more than plain training.

    Raises ``ValueError`` for steps < 1 or a negative stride. Source: Madry et al. 2018, section 2.1.
    """
    if steps < 1 or not stride >= 0:
        raise ValueError(f"steps, stride: expected steps >= 1, stride >= 0, got {steps}, {stride}")

    def attack(
        model: nn.Module, x: Tensor, y: Tensor, eps: float, generator: torch.Generator
    ) -> Tensor:
        return pgd(model, x, y, eps, stride * eps / steps, steps, generator=generator)

    return attack
