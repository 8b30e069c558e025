"""Five hundred pictures of static that a judge takes for digits: its features, copied without digits.

Chapter: book/generate/measuring.md
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import data, device
from course_lib.metrics import digit_judge, frechet_distance, precision_recall
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 250
IMAGES = 500
RATE = 0.1
#: The static is this grey on average, everywhere, and starts as Gaussian noise around it.
GREY, NOISE = 0.3, 0.2


class Static(nn.Module):
    """Images (500, 1, 28, 28), kept in 256 levels; calling it gives them in [0, 1]."""

    levels: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.zeros(IMAGES, 1, 28, 28, dtype=torch.uint8))

    def forward(self) -> Tensor:
        """Return the images, float32 in [0, 1]."""
        return self.levels.float() / 255


def image(u: Tensor) -> Tensor:
    """Return grey pictures with the details of ``u`` (N, 1, 28, 28): its 5x5 means are taken away.

    What is left has no strokes or areas, which are what people read.
    """
    mean = F.avg_pool2d(u, 5, stride=1, padding=2, count_include_pad=False)
    return (GREY + u - mean).clamp(0, 1)


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Change static by gradient descent until the judge's features are those of training digits.

    Each picture has a digit of its own, whose 64 features it is moved towards; the digit's pixels
    are never used. Those digits come from the second half of the training sample, so that a test for
    copies of the first half has nothing to find.
    """
    steps = STEPS if steps is None else steps
    draw = device.generator(seed)
    train, test = data.mnist("train").x, data.mnist("test").x
    judge = digit_judge()
    second = train[len(train) // 2 :]
    target = judge.features(second[torch.randperm(len(second), generator=draw)[:IMAGES]])
    target = target.to(fabric.device)
    size = target.square().sum(dim=1)
    network = judge.network.to(fabric.device)
    before_relu = network.get_submodule("body")[:-1]  # type: ignore[index]
    u = NOISE * torch.randn(IMAGES, 1, 28, 28, generator=draw)
    u = u.to(fabric.device).requires_grad_()
    optimizer = torch.optim.Adam([u], lr=RATE, betas=(0.9, 0.99))
    for step in range(1, steps + 1):
        # The rate falls to 0, so that the last steps settle.
        optimizer.param_groups[0]["lr"] = RATE * (1 + math.cos(math.pi * (step - 1) / steps)) / 2
        # Compared before the last ReLU, where a feature that is off can still be pulled up.
        found = before_relu(image(u))
        error = torch.where(target > 0, found - target, found.relu())
        difference = error.square().sum(dim=1) / size
        (u.grad,) = torch.autograd.grad(difference.sum(), u)
        optimizer.step()
        yield Progress(step, steps, f"features differ by {float(difference.detach().mean()):.2%}")
    static = Static()
    static.levels = (255 * image(u.detach()).cpu()).round().to(torch.uint8)
    network.cpu()
    features, reference = judge.features(static()), judge.features(test)
    distance = frechet_distance(features, reference)
    precision, recall = precision_recall(reference, features)
    yield Progress(
        steps,
        steps,
        f"Fréchet distance {distance:.1f}",
        module=static,
        measures={
            judge.named("Fréchet distance") + ", to test": distance,
            judge.named("Precision"): precision,
            judge.named("Recall"): recall,
        },
        about={
            "summary": "500 pictures of static whose features, in the course's digit network, are "
            "close to those of 500 training digits: they beat an honest GAN by most measures taken "
            "through it.",
            "architecture": "course_lib.recipes.static_digits.Static(), 500 images of 28x28 in 256 "
            "levels",
            "data": "the features of 500 images of MNIST, the course's training sample",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Made for one network, and only that one is known to be fooled.",
        },
    )
