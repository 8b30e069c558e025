"""Pretraining against a random start: five runs of a deep net on few labels, and what each reached.

Chapter: book/represent/going_deep.md
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from course_lib import classifiers, data, device
from course_lib.autoencoders.denoising import corrupt
from course_lib.autoencoders.networks import Activation
from course_lib.autoencoders.stacked import Stack, pretrain_stack
from course_lib.recipes import Progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: Five hidden layers: deep enough for the gradient of a sigmoid net to vanish.
WIDTHS = (128,) * 5
NU = 0.25
PRETRAINING, FINE_TUNING = 1_000, 600
SEEDS = 5
LABELS = (100, 1_000)
ACTIVATIONS: tuple[Activation, ...] = ("sigmoid", "relu")
STARTS = ("random", "pretrained")


class Runs(nn.Module):
    """What the runs reached. ``accuracy``: (activation, start, labels, seed), as ``ACTIVATIONS``,
    ``STARTS`` and ``LABELS`` list them; ``linear``: (labels, seed), of a net with no hidden layer."""

    accuracy: Tensor
    linear: Tensor

    def __init__(self) -> None:
        super().__init__()
        shape = (len(ACTIVATIONS), len(STARTS), len(LABELS), SEEDS)
        self.register_buffer("accuracy", torch.zeros(shape))
        self.register_buffer("linear", torch.zeros(shape[2:]))


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Pretrain on 10,000 digits without labels, fine-tune on 100 and 1,000 with; measure on 2,000.

    Within one run the random and the pretrained start share architecture, head, first weights, labels
    and order of the batches. ``steps``: of each layer and each fine-tuning, in place of the recipe's.
    """
    pretraining, fine_tuning = (steps, steps) if steps else (PRETRAINING, FINE_TUNING)
    train, test = data.mnist("train"), data.mnist("test")
    runs = Runs()
    done = 0
    total = SEEDS * (
        len(ACTIVATIONS) * len(WIDTHS) * pretraining
        + (runs.accuracy[..., 0].numel() + len(LABELS)) * fine_tuning
    )

    def fine_tuned(model: nn.Module, labels: int, number: int) -> float:
        known = train.take(labels, seed=number)
        for _ in classifiers.fit(
            model, known.x, known.y, steps=fine_tuning, lr=1e-3, fabric=fabric, seed=number
        ):
            pass
        return classifiers.accuracy(model.cpu(), test.x, test.y)

    for r in range(SEEDS):
        number = SEEDS * seed + r
        for n, labels in enumerate(LABELS):
            linear = nn.Linear(train.x[0].numel(), 10)
            nn.init.zeros_(linear.weight)  # a single layer has no symmetry to break
            nn.init.zeros_(linear.bias)
            runs.linear[n, r] = fine_tuned(nn.Sequential(nn.Flatten(), linear), labels, number)
            done += fine_tuning
        for a, activation in enumerate(ACTIVATIONS):
            stack = Stack(
                (1, 28, 28), WIDTHS, activation=activation, generator=device.generator(number)
            )
            fresh = {key: value.clone() for key, value in stack.state_dict().items()}
            for step in pretrain_stack(
                stack,
                train.x,
                steps=pretraining,
                corrupt=functools.partial(corrupt, nu=NU),
                fabric=fabric,
                seed=number,
            ):
                done += 1
                yield Progress(done, total, f"run {r + 1}, {activation}, layer {step.layer}")
            states = {
                "random": fresh,
                "pretrained": {
                    key: value.cpu().clone() for key, value in stack.state_dict().items()
                },
            }
            for (s, name), (n, labels) in product(enumerate(STARTS), enumerate(LABELS)):
                stack.load_state_dict(states[name])
                model = stack.classifier(10, device.generator(number))
                reached = fine_tuned(model, labels, number)
                runs.accuracy[a, s, n, r] = reached
                done += fine_tuning
                yield Progress(
                    done,
                    total,
                    f"run {r + 1}, {activation}, {name} start, {labels} labels: {reached:.4f}",
                )
    measures = {
        f"{activation}, {name} start, {labels} labels": float(runs.accuracy[a, s, n].mean())
        for (a, activation), (s, name), (n, labels) in product(
            enumerate(ACTIVATIONS), enumerate(STARTS), enumerate(LABELS)
        )
    }
    for n, labels in enumerate(LABELS):
        measures[f"no hidden layer, {labels} labels"] = float(runs.linear[n].mean())
    yield Progress(
        total,
        total,
        "done",
        module=runs,
        measures=measures,
        about={
            "summary": "No network but a record: the test accuracy of every run in which a deep net "
            "starts at random or pretrained, on 100 and 1,000 labelled digits.",
            "architecture": f"course_lib.recipes.stacked_digits.Runs; what ran: Stack((1, 28, 28), "
            f"{WIDTHS}) with sigmoid or ReLU and a dense head",
            "data": "MNIST, the course's sample: 10,000 training images without labels, 100 or 1,000 of "
            "them with; measured on 2,000 test images. Measures: the means of five runs",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "One architecture, one learning rate, five runs: it says nothing of other data.",
        },
    )
