"""The network that reads drawn street signs: trained plainly, on plates of which half are soiled.

Chapter: book/deceive/stronger.md
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from lightning_fabric import Fabric

from course_lib.attacks.signs import SignNet
from course_lib.classifiers import accuracy, fit
from course_lib.data.signs import signs
from course_lib.recipes import Progress

STEPS = 2_400


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train ``SignNet`` on the 8,000 training scenes; measure on the 1,000 for testing."""
    steps = STEPS if steps is None else steps
    train, test = signs("train"), signs("test")
    torch.manual_seed(seed)
    model = SignNet()
    for step in fit(model, train.x, train.y, steps=steps, fabric=fabric, seed=seed):
        yield Progress(step.step, steps, f"loss {step.loss:.3f}, accuracy {step.accuracy:.2f}")
    model = model.cpu()
    measures = {
        "test accuracy": accuracy(model, test.x, test.y),
        "training accuracy": accuracy(model, train.x, train.y),
    }
    yield Progress(
        steps,
        steps,
        f"test accuracy {measures['test accuracy']:.4f}",
        module=model,
        measures=measures,
        about={
            "summary": "A plain reader of ten drawn street signs, with no defence: what stickers are "
            "tried on.",
            "architecture": "course_lib.attacks.signs.SignNet: three strided convolutions and two dense "
            "layers",
            "data": "course_lib.data.signs: 8,000 drawn scenes for training; measured on 1,000 others",
            "licence": "MIT",
            "limits": "It has only ever seen drawings of ten signs and calls everything one of them. "
            "It is made to be attacked: it may steer nothing.",
        },
    )
