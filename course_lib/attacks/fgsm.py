"""The fast gradient sign method: one step of size eps along the sign of the gradient.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

from torch import Tensor, nn

from course_lib.attacks.gradient import budget, check_images, cross_entropy, input_gradient
from course_lib.classifiers import Loss


def fgsm(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    *,
    targeted: bool = False,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Move every pixel by ``eps`` in the direction in which the loss rises: x + eps sign(grad_x J).

    ``x``: (N, ...) in [0, 1]; ``y``: int64 (N,), the true labels, or with ``targeted`` the labels
    to reach, and then the loss is made to fall; ``eps``: in units of the pixel range, one number,
    one per image (N,), or one per pixel, like ``x``; ``loss(logits, y)``. Returns x_adv like ``x``,
    within eps of it and in [0, 1].

    Raises ``ValueError`` for x outside [0, 1], NaN, an empty batch, labels that do not fit,
    negative eps, or a model that gives no gradient. Source: Goodfellow, Shlens & Szegedy,
    "Explaining and harnessing adversarial examples", 2015, section 4.
    """
    check_images(x, y)
    eps = budget("eps", eps, x)
    grad = input_gradient(model, x, y, loss)
    step = -grad.sign() if targeted else grad.sign()
    return (x.detach() + eps * step).clamp(0, 1)
