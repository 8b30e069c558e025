"""Projected gradient descent: steps of steepest ascent from a random start, kept inside a ball.

Chapter: book/deceive/stronger.md
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from course_lib.attacks.gradient import (
    budget,
    check_images,
    cross_entropy,
    input_gradient,
    per_image,
)
from course_lib.classifiers import Loss, check_logits, evaluating

Norm = Literal["linf", "l2"]


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    *,
    norm: Norm = "linf",
    restarts: int = 1,
    random_start: bool = True,
    generator: torch.Generator | None = None,
    targeted: bool = False,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Climb the loss in ``steps`` steps of length ``alpha`` within distance ``eps`` of each image.

    ``x``: (N, ...) in [0, 1]; ``y``: int64 (N,), the true labels, or with ``targeted`` the labels
    to reach. Lengths are in ``norm``: ``"linf"``, the largest change of a value, or ``"l2"``, the
    Euclidean length of an image's change. ``eps``: one number, one per image (N,), or with ``"linf"``
    one per value, like ``x``; ``alpha`` likewise. A restart begins elsewhere in the ball, for those
    images only that no start before it has fooled. ``generator``: draws the starts, on the CPU;
    without one they are those of seed 0. Returns x_adv like ``x``, the last point of each climb, and
    for an image that was never fooled the one with the most extreme loss.

    Raises ``ValueError`` as ``bim`` does, and for an unknown norm, restarts < 1, or several restarts
    that would all begin at the same point. Source: Madry et al., "Towards deep learning models
    resistant to adversarial attacks", 2018, section 2.1; random starts, section 3.1.
    """
    check_images(x, y)
    if norm not in ("linf", "l2"):
        raise ValueError(f"norm: expected 'linf' or 'l2', got {norm!r}")
    for name, value in (("steps", steps), ("restarts", restarts)):
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    if restarts > 1 and not random_start:
        raise ValueError(f"restarts: {restarts} of them need random_start=True to differ")
    eps, alpha = budget("eps", eps, x), budget("alpha", alpha, x)
    for name, sizes in (("eps", eps), ("alpha", alpha)):
        if norm == "l2" and sizes.flatten(1).shape[1] != 1:
            raise ValueError(f"{name}: with norm 'l2' expected one number or one per image")
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    x = x.detach()

    def climb(x: Tensor, y: Tensor, eps: Tensor, alpha: Tensor) -> Tensor:
        x_adv = x
        if random_start:
            x_adv = project(x + random_in_ball(x, eps, norm, generator), x, eps, norm)
        for _ in range(steps):
            grad = input_gradient(model, x_adv, y, loss)
            step = alpha * steepest(grad, norm)
            x_adv = project(x_adv - step if targeted else x_adv + step, x, eps, norm)
        return x_adv

    best = climb(x, y, eps, alpha)
    if restarts == 1:
        return best
    missed, extreme = _standing(model, best, y, targeted, loss)
    for _ in range(restarts - 1):
        left = missed.nonzero()[:, 0]
        if len(left) == 0:
            break
        again = climb(x[left], y[left], _rows(eps, left), _rows(alpha, left))
        still, reached = _standing(model, again, y[left], targeted, loss)
        better = ~still | (reached > extreme[left])
        best[left[better]] = again[better]
        extreme[left[better]] = reached[better]
        missed[left] = still
    return best


def steepest(grad: Tensor, norm: Norm) -> Tensor:
    """Return each image's direction of length 1 in ``norm`` along which ``grad`` (N, ...) rises most.

    For the maximum norm that is the sign, for the Euclidean one the gradient divided by its length;
    where the gradient is 0 there is none, and it is 0.
    """
    if norm == "linf":
        return grad.sign()
    # The largest value first: squares of small gradients would vanish.
    largest = per_image(grad.abs().flatten(1).amax(dim=1), grad)
    scaled = torch.where(largest > 0, grad / largest, 0)
    length = per_image(scaled.flatten(1).norm(dim=1), grad)
    return torch.where(length > 0, scaled / length, 0)


def project(x_adv: Tensor, x: Tensor, eps: Tensor, norm: Norm) -> Tensor:
    """Return ``x_adv`` (N, ...) put back into the ball of size ``eps`` about ``x`` and into [0, 1].

    Clipping to [0, 1], where ``x`` lies, only brings an image nearer, so both hold at once. In the
    Euclidean norm the result is in both sets, if not always their nearest point.
    """
    if norm == "linf":
        return torch.clamp(x_adv, (x - eps).clamp(min=0), (x + eps).clamp(max=1))
    change = x_adv - x
    length = per_image(change.flatten(1).norm(dim=1), x)
    shrink = torch.where(length > eps, eps / length, 1)
    return (x + shrink * change).clamp(0, 1)


def random_in_ball(x: Tensor, eps: Tensor, norm: Norm, generator: torch.Generator) -> Tensor:
    """Return one change per image of ``x`` (N, ...), uniform in the ball of size ``eps``.

    Drawn on the CPU in float32, so that it is the same on every device.
    """
    shape, where = x.shape, generator.device
    if norm == "linf":
        draw = 2 * torch.rand(shape, generator=generator, device=where) - 1
        return eps * draw.to(x)
    draw = torch.randn(shape, generator=generator, device=where)
    size = draw[0].numel()
    radius = torch.rand(len(x), generator=generator, device=where) ** (1 / size)
    return eps * (draw * per_image(radius / draw.flatten(1).norm(dim=1), draw)).to(x)


@torch.no_grad()
def _standing(
    model: nn.Module, x_adv: Tensor, y: Tensor, targeted: bool, loss: Loss
) -> tuple[Tensor, Tensor]:
    """Say which images are not fooled, (N,), and how far each climb got, (N,): higher is further."""
    with evaluating(model):
        logits: Tensor = model(x_adv)
    check_logits(logits, y)
    reads = logits.argmax(dim=1) == y
    value = loss(logits, y)
    if value.shape != y.shape:
        raise ValueError(
            f"loss: expected one value per image, ({len(y)},), to choose between restarts; "
            f"got shape {tuple(value.shape)}"
        )
    return (~reads, -value) if targeted else (reads, value)


def _rows(sizes: Tensor, index: Tensor) -> Tensor:
    return sizes if len(sizes) == 1 else sizes[index]
