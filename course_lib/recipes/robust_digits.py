"""The digit network of the course, trained on PGD's images instead of the real ones.

Chapter: book/deceive/defending.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib import attacks, data, device
from course_lib.attacks.training import adversarial_training, climb
from course_lib.classifiers import DigitNet, accuracy
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

EPS = 0.3
#: Trained a tenth beyond the size that is measured: accuracy falls steeply where the training ended.
TRAINED_EPS = 0.33
STEPS = 12_000
BATCH = 100
#: Steps in which eps grows from 0: a large one at once leaves the network at chance.
WARM_UP = 800
#: Steps of PGD per batch.
INNER = 5
RATE = 4e-3
#: Training images that are only looked at: every choice above was made on them.
HELD_OUT = 5_000
LOOKS = 5
#: Whether it holds is measured by an attack of this many steps of this length from this many starts.
ATTACK_STEPS, ALPHA, RESTARTS = 40, 0.02, 10


def run(
    fabric: Fabric, *, seed: int = 0, steps: int | None = None, state: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train ``DigitNet`` adversarially on 55,000 of MNIST's 60,000; measure on the course's 2,000.

    The 60,000 must have been fetched (``course data fetch mnist``).
    """
    steps = STEPS if steps is None else steps
    train, test = data.mnist("train", full=True), data.mnist("test")
    order = torch.randperm(len(train.x), generator=device.generator(1_000))
    held, rest = order[:HELD_OUT], order[HELD_OUT:]
    watched = held[: HELD_OUT // 10]
    torch.manual_seed(seed)
    model = DigitNet().to(memory_format=torch.channels_last)
    for step in adversarial_training(
        model,
        train.x[rest],
        train.y[rest],
        attack=climb(INNER),
        eps=TRAINED_EPS,
        steps=steps,
        warm_up=min(WARM_UP, steps // 2),
        batch_size=BATCH,
        lr=RATE,
        fabric=fabric,
        seed=seed,
        state=state,
    ):
        text = f"loss {step.loss:.3f}, accuracy under attack {step.accuracy:.2f}"
        if step.step % max(1, steps // LOOKS) == 0:
            where = fabric.device
            images, labels = train.x[watched].to(where), train.y[watched].to(where)
            text += f"; of 500 held out, under PGD-20: {_attacked(model, images, labels):.3f}"
        yield Progress(step.step, steps, text, state=step.state)
    model = model.cpu().to(memory_format=torch.contiguous_format)
    measures = _measures(model, test.x, test.y)
    yield Progress(
        steps,
        steps,
        ", ".join(f"{name} {value:.4f}" for name, value in measures.items()),
        module=model,
        measures=measures,
        about={
            "summary": "A digit classifier that few changes of up to 0.3 per pixel can fool: adversarially "
            "trained, for comparison with digit-net.",
            "architecture": "course_lib.classifiers.DigitNet: three strided convolutions and two dense "
            "layers",
            "data": "MNIST, 55,000 of its 60,000 training images; measured on the course's 2,000 test "
            "images, which come from the original test set",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Robust to changes of at most 0.3 per pixel (L-infinity) and to nothing else: larger "
            "ones, other norms and rotations fool it. A measured robustness is an upper bound: a better "
            "attack can lower it.",
        },
    )


def _attacked(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the accuracy under 20 steps of PGD from one start."""
    x_adv = attacks.pgd(model, x, y, EPS, EPS / 8, 20, generator=device.generator(0))
    return accuracy(model, x_adv, y)


def _measures(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    measures = {"test accuracy": accuracy(model, x, y)}
    for restarts in (1, RESTARTS):
        draw = device.generator(2_000)
        parts = [
            attacks.pgd(
                model, images, labels, EPS, ALPHA, ATTACK_STEPS, restarts=restarts, generator=draw
            )
            for images, labels in zip(x.split(500), y.split(500), strict=True)
        ]
        name = f"test accuracy under PGD-{ATTACK_STEPS}, starts: {restarts}, eps {EPS}"
        measures[name] = accuracy(model, torch.cat(parts), y)
    return measures
