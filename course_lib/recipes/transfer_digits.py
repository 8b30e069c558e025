"""Digit networks of five kinds, and one of them trained on three sets of digits: who fools whom?

Chapter: book/deceive/travel.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from course_lib import data
from course_lib.attacks.networks import MLP, VGG8, LeNet5, Softmax
from course_lib.classifiers import DigitNet, accuracy, fit
from course_lib.recipes import Progress
from course_lib.recipes.digit_net import shifted

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

#: For each network; with batches of 100, fifteen times through 10,000 images.
STEPS = 1_500

#: Name: how it is built, and which of the course's 10,000 training images it sees. The two halves
#: have no image in common.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], slice]] = {
    "softmax": (Softmax, slice(None)),
    "mlp": (MLP, slice(None)),
    "lenet5": (LeNet5, slice(None)),
    "vgg8": (lambda: VGG8(width=8), slice(None)),
    "digitnet": (DigitNet, slice(None)),
    "digitnet_half_a": (DigitNet, slice(0, None, 2)),
    "digitnet_half_b": (DigitNet, slice(1, None, 2)),
}


def networks() -> nn.ModuleDict:
    """Return the networks by name, untrained: what the checkpoint ``transfer-digits`` fills."""
    return nn.ModuleDict({name: build() for name, (build, _) in NETWORKS.items()})


def run(
    fabric: Fabric, *, seed: int = 0, steps: int | None = None, state: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train each network for itself, from a start of its own; measure all on the 2,000 test images.

    The convolutional ones see their images shifted by up to two pixels, as ``digit-net`` does. The
    weights are rounded to half precision, which halves the file, before they are measured. What is
    kept of a run that is cut short is the networks that were finished.
    """
    each = STEPS if steps is None else steps
    total = each * len(NETWORKS)
    train, test = data.mnist("train"), data.mnist("test")
    trained = networks()
    done = 0
    if state is not None:
        done = int(state["done"])
        trained.load_state_dict(state["weights"])

    def kept() -> dict[str, Any]:
        return {"done": done, "weights": trained.state_dict()}

    for place, (name, (build, part)) in enumerate(NETWORKS.items()):
        if place < done:
            continue
        torch.manual_seed(seed + 1 + place)
        model = build()
        transform = None if name in ("softmax", "mlp") else shifted
        x, y = train.x[part], train.y[part]
        for step in fit(
            model, x, y, steps=each, transform=transform, fabric=fabric, seed=seed + 1 + place
        ):
            text = f"{name}: loss {step.loss:.3f}, accuracy {step.accuracy:.2f}"
            yield Progress(place * each + step.step, total, text, state=kept)
        trained[name] = _halved(model.cpu())
        done = place + 1
    measures = {
        f"test accuracy, {name}": accuracy(model, test.x, test.y) for name, model in trained.items()
    }
    yield Progress(
        total,
        total,
        f"test accuracies from {min(measures.values()):.4f} to {max(measures.values()):.4f}",
        module=trained.half(),
        measures=measures,
        about={
            "summary": "Seven digit classifiers with no defence, of five kinds, to see which attack "
            "made on one of them fools another; two of one kind have no training image in common.",
            "architecture": "course_lib.recipes.transfer_digits.networks(): softmax regression, a "
            "dense network, LeNet-5, a slim VGG8 and three DigitNets",
            "data": "MNIST, the course's sample: 10,000 training images, and two halves of 5,000 for "
            "the last two; measured on 2,000 test images",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Read centred 28x28 digits only, and each can be made wrong with changes that "
            "people hardly see, made on another: never let them decide anything.",
        },
    )


@torch.no_grad()
def _halved(model: nn.Module) -> nn.Module:
    """Return ``model`` with weights that half precision can hold exactly."""
    for tensor in model.state_dict().values():
        tensor.copy_(tensor.half())
    return model
