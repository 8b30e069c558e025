"""The digit network that the attacks are tried on: trained plainly, with no defence.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import data
from course_lib.classifiers import DigitNet, accuracy, fit
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 3_000


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train ``DigitNet`` on the 10,000 images of the course's sample; measure on the 2,000 for
    testing.

    Images are shifted by up to two pixels as they come, which helps a small set and is no defence.
    """
    steps = STEPS if steps is None else steps
    train, test = data.mnist("train"), data.mnist("test")
    torch.manual_seed(seed)
    model = DigitNet()
    for step in fit(
        model, train.x, train.y, steps=steps, transform=shifted, fabric=fabric, seed=seed
    ):
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
            "summary": "A plain digit classifier with no defence: what the attacks are tried on, and "
            "whose 64 features measure how far generated digits are from real ones.",
            "architecture": "course_lib.classifiers.DigitNet: three strided convolutions and two dense "
            "layers",
            "data": "MNIST, the course's sample: 10,000 training images; measured on 2,000 test images",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Reads centred 28x28 digits only. Anyone who has its weights can make it wrong "
            "with changes that people hardly see: never let it decide anything.",
        },
    )


def shifted(x: Tensor, generator: torch.Generator, most: int = 2) -> Tensor:
    """Return each image (N, C, H, W) moved by up to ``most`` pixels each way, black at the
    edges."""
    n, channels, height, width = x.shape
    down, right = torch.randint(0, 2 * most + 1, (2, n, 1), generator=generator)
    rows = (torch.arange(height) + down)[:, None, :, None]
    columns = (torch.arange(width) + right)[:, None, None, :]
    padded = F.pad(x, (most, most, most, most))
    return padded[
        torch.arange(n)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns
    ]
