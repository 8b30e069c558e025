"""Two digit networks with a defence that hides the gradient: trained on FGSM's images, and distilled.

Chapter: book/deceive/defending.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import attacks, data, device
from course_lib.attacks.masking import distil
from course_lib.attacks.training import adversarial_training
from course_lib.classifiers import DigitNet, accuracy, fit
from course_lib.recipes import Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

EPS = 0.3
#: Steps of each training, and those in which FGSM's eps grows from 0.
STEPS, WARM_UP = 1_200, 200
#: Logits that are divided by a large temperature have to grow as much: a larger rate than ``fit``'s.
TEMPERATURE, RATE = 40.0, 4e-3
#: Training images of the course's sample that are not learned from.
HELD_OUT = 500


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train both on the course's 10,000 images; measure on its 2,000 for testing."""
    steps = STEPS if steps is None else steps
    train, test = data.mnist("train"), data.mnist("test")
    order = torch.randperm(len(train.x), generator=device.generator(1_000))
    learned = train.subset(order[HELD_OUT:])
    torch.manual_seed(seed)
    one_step, teacher, student = DigitNet(), DigitNet(), DigitNet()
    for step in adversarial_training(
        one_step,
        learned.x,
        learned.y,
        attack=half_of_them,
        eps=EPS,
        steps=steps,
        warm_up=min(WARM_UP, steps // 2),
        fabric=fabric,
        seed=seed,
    ):
        yield Progress(step.step, 3 * steps, f"on FGSM: accuracy {step.accuracy:.2f}")

    def warm(logits: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(logits / TEMPERATURE, y)

    for step in fit(
        teacher, learned.x, learned.y, steps=steps, lr=RATE, loss=warm, fabric=fabric, seed=seed
    ):
        yield Progress(steps + step.step, 3 * steps, f"teacher: accuracy {step.accuracy:.2f}")
    where = fabric.device
    for step in distil(
        student.to(where),
        teacher.to(where),
        learned.x.to(where),
        temperature=TEMPERATURE,
        steps=steps,
        lr=RATE,
        seed=seed,
    ):
        yield Progress(2 * steps + step.step, 3 * steps, f"student: agrees {step.accuracy:.2f}")
    module = nn.ModuleDict({"one_step": one_step, "distilled": student}).cpu()
    measures = {}
    for name, model in module.items():
        measures[f"{name}, test accuracy"] = accuracy(model, test.x, test.y)
        stepped = attacks.fgsm(model, test.x, test.y, EPS)
        measures[f"{name}, under FGSM, eps {EPS}"] = accuracy(model, stepped, test.y)
    yield Progress(
        3 * steps,
        3 * steps,
        ", ".join(f"{name} {value:.3f}" for name, value in measures.items()),
        module=module,
        measures=measures,
        about={
            "summary": "Two digit classifiers that withstand FGSM and are not robust: one trained on "
            f"FGSM's images and real ones, one by defensive distillation at temperature {TEMPERATURE:g}.",
            "architecture": 'torch.nn.ModuleDict of two course_lib.classifiers.DigitNet, "one_step" and '
            '"distilled"',
            "data": "MNIST, 9,500 of the course's 10,000 training images; measured on its 2,000 test "
            "images",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Made to be caught: their accuracy under FGSM is no robustness. Never use them as a "
            "defence.",
        },
    )


def half_of_them(model: nn.Module, x: Tensor, y: Tensor, eps: float, _: torch.Generator) -> Tensor:
    """Return the batch with its first half moved by FGSM, as the first adversarial training did.

    Source: Goodfellow, Shlens & Szegedy, "Explaining and harnessing adversarial examples", 2015,
    section 6, with alpha = 1/2.
    """
    half = len(x) // 2
    return torch.cat([attacks.fgsm(model, x[:half], y[:half], eps), x[half:]])
