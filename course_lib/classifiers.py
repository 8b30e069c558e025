"""Classifiers that several chapters share: a small digit network, a training loop, accuracy.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import device

if TYPE_CHECKING:  # takes seconds to import, and a chapter that only evaluates needs none of it
    from lightning_fabric import Fabric

#: ``loss(logits (N, K), y (N,))`` gives one value per image, (N,), or their mean or sum.
Loss = Callable[[Tensor, Tensor], Tensor]

#: ``adversary(model, x, y, step, generator)`` answers the model with other images, like ``x``.
Adversary = Callable[[nn.Module, Tensor, Tensor, int, torch.Generator], Tensor]


class DigitClassifier(nn.Module):
    """A network that reads digits: a ``body`` makes features and a linear ``head`` decides on them."""

    body: nn.Sequential
    head: nn.Linear

    def features(self, x: Tensor) -> Tensor:
        """Return what the network sees in each image before it decides: (N, d).

        Raises ``ValueError`` for anything but shape (N, 1, 28, 28).
        """
        if x.ndim != 4 or x.shape[1:] != (1, 28, 28):
            raise ValueError(f"x: expected shape (N, 1, 28, 28), got {tuple(x.shape)}")
        features: Tensor = self.body(x)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 10) of images (N, 1, 28, 28) in [0, 1]."""
        logits: Tensor = self.head(self.features(x))
        return logits


class DigitNet(DigitClassifier):
    """A small convolutional network that reads digits: (N, 1, 28, 28) in [0, 1] to logits (N, 10).

    Strided convolutions halve the image three times, then one dense layer gives 64 features, never
    negative. Only convolution, ReLU and dense layers: 89,802 parameters that a browser can run too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),  # 28 -> 14
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),  # 14 -> 7
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),  # 7 -> 4
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 4 * 4, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)


@dataclass(frozen=True)
class Step:
    """One training step: its number, of how many, and the loss and accuracy on its batch.

    ``state()`` returns tensors, numbers, and lists and dictionaries of them, from which
    ``fit(..., state=...)`` goes on; call it before the next step.
    """

    step: int
    steps: int
    loss: float
    accuracy: float
    state: Callable[[], dict[str, Any]] | None = field(default=None, compare=False, repr=False)


def fit(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    steps: int,
    batch_size: int = 100,
    lr: float = 2e-3,
    weight_decay: float = 1e-2,
    loss: Loss = F.cross_entropy,
    transform: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    adversary: Adversary | None = None,
    fabric: Fabric | None = None,
    seed: int = 0,
    state: dict[str, Any] | None = None,
) -> Iterator[Step]:
    """Train ``model`` in place with AdamW and a cosine schedule, one ``Step`` per batch.

    ``x``: (N, ...), ``y``: int64 (N,), on any device; batches are moved to the model's. Every image
    is seen once before any is seen again (fewer than ``batch_size`` left over are passed by).
    ``loss(logits, y)``; ``transform(batch, generator)`` changes each batch on its way in, and
    ``adversary(model, batch, labels, step, generator)`` after it, where the model is. With
    ``fabric`` the model goes to its device and runs in its precision, and several processes share
    each batch. While it trains the model is in training mode; when the iterator ends, or is closed,
    it is in evaluation mode. A ``state`` is what a ``Step`` of the same training gave: it goes on
    after that step, bit for bit.

    Raises ``ValueError`` for an empty batch, NaN, labels that do not fit, a setting out of range,
    or a state of another training. Source: Loshchilov & Hutter, "Decoupled weight decay
    regularization", 2019, Algorithm 2.
    """
    check_labelled(x, y)
    for name, value, least in (("steps", steps, 1), ("batch_size", batch_size, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if not lr > 0 or not weight_decay >= 0:
        raise ValueError(
            f"lr, weight_decay: expected lr > 0 and weight_decay >= 0, got {lr}, {weight_decay}"
        )
    if state is not None and state.get("steps") != steps:
        raise ValueError(f"state: expected one of {steps} steps, got {state.get('steps')}")
    # All processes draw one order and take turns in it; each changes its images its own way.
    order = device.shuffled(len(x), min(batch_size, len(x)), device.generator(seed), fabric)
    noise = device.generator(seed + 1 + (fabric.global_rank if fabric else 0))

    def train() -> Iterator[Step]:
        network: nn.Module = model
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        if fabric is not None:
            network, optimizer = fabric.setup(model, optimizer)
        where = next(model.parameters()).device

        def kept(step: int) -> dict[str, Any]:
            return {
                "step": step,
                "steps": steps,
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "noise": noise.get_state(),
            }

        first = 1
        if state is not None:
            try:
                model.load_state_dict(state["model"])
                optimizer.load_state_dict(state["optimizer"])
                schedule.load_state_dict(state["schedule"])
                noise.set_state(state["noise"])
            except (KeyError, RuntimeError, ValueError) as error:
                raise ValueError(f"state: it is that of another training: {error}") from error
            first = int(state["step"]) + 1
            for _ in range(1, first):
                next(order)  # the batches before are passed by again
        try:
            for step in range(first, steps + 1):
                batch = next(order)
                images, labels = x[batch], y[batch].to(where)
                if transform is not None:
                    images = transform(images, noise)
                images = images.to(where)
                if adversary is not None:
                    # The bare model: what shares gradients between processes has no part in it.
                    images = adversary(model, images, labels, step, noise)
                network.train()  # here, because the caller may have evaluated since the last step
                logits: Tensor = network(images)
                check_logits(logits, labels)
                value = loss(logits, labels).mean()
                optimizer.zero_grad()
                if fabric is None:
                    value.backward()
                else:
                    fabric.backward(value)
                optimizer.step()
                schedule.step()
                right = (logits.detach().argmax(dim=1) == labels).float().mean()
                yield Step(
                    step=step,
                    steps=steps,
                    loss=float(value.detach()),
                    accuracy=float(right),
                    state=partial(kept, step),
                )
        finally:
            model.eval()

    return train()


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 1000) -> float:
    """Return the share of images in [0, 1] that ``model`` gets right, in evaluation mode.

    ``x``: (N, ...), ``y``: int64 (N,), where the model is. The model is left as it was found.

    Raises ``ValueError`` for an empty batch, NaN, or labels that do not fit.
    """
    check_labelled(x, y)
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    right = 0
    with evaluating(model):
        for start in range(0, len(x), batch_size):
            labels = y[start : start + batch_size]
            logits: Tensor = model(x[start : start + batch_size])
            check_logits(logits, labels)
            right += int((logits.argmax(dim=1) == labels).sum())
    return right / len(x)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put ``model`` into evaluation mode for the block, then each of its parts back as it was.

    In training mode batch normalisation would mix the images of a batch and change its running
    statistics, and dropout would make every answer a draw.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_examples(name: str, x: Tensor) -> None:
    """Raise ``ValueError``, naming the argument, unless ``x`` is float, (N, ...), N > 0, finite."""
    if not x.is_floating_point() or x.ndim < 2 or x.numel() == 0:
        raise ValueError(
            f"{name}: expected a float tensor of shape (N, ...) with N > 0, "
            f"got {x.dtype} {tuple(x.shape)}"
        )
    low, high = torch.aminmax(x.detach())  # NaN if any value is, in one pass
    if not bool(low.isfinite() & high.isfinite()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")


def check_labelled(x: Tensor, y: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is a finite float batch (N, ...) and ``y`` its int64 labels
    (N,)."""
    check_examples("x", x)
    if y.dtype != torch.int64 or y.shape != (len(x),):
        raise ValueError(
            f"y: expected int64 labels of shape ({len(x)},), one per image; "
            f"got {y.dtype} {tuple(y.shape)}"
        )


def check_logits(logits: Tensor, y: Tensor) -> None:
    """Raise ``ValueError`` unless ``logits`` are (N, K) for the N labels ``y``, all in 0..K-1."""
    if logits.ndim != 2 or len(logits) != len(y):
        raise ValueError(
            f"model: expected logits of shape ({len(y)}, K) for {len(y)} images, "
            f"got {tuple(logits.shape)}"
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= logits.shape[1]:
        raise ValueError(
            f"y: expected labels 0..{logits.shape[1] - 1} for {logits.shape[1]} logits, "
            f"got {low}..{high}"
        )
