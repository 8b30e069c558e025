"""The basic iterative method: small steps of the fast gradient sign method, clipped after each.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from course_lib.attacks.gradient import budget, check_images, cross_entropy, input_gradient
from course_lib.classifiers import Loss


def bim(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float | Tensor,
    alpha: float | Tensor,
    steps: int,
    *,
    targeted: bool = False,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Take ``steps`` signed gradient steps of size ``alpha`` inside the box of size ``eps``.

    ``x``: (N, ...) in [0, 1]; ``y``: int64 (N,), the true labels, or with ``targeted`` the labels
    to reach; ``eps`` and ``alpha``: in units of the pixel range, one number, one per image (N,), or
    one per pixel, like ``x``. After every step each pixel is clipped to [x - eps, x + eps] and to
    [0, 1]. Returns x_adv like ``x``.

    Raises ``ValueError`` as ``fgsm`` does, and for negative alpha or steps < 1. Source: Kurakin,
    Goodfellow & Bengio, "Adversarial examples in the physical world", 2017, sections 2.2 and 2.3.
    """
    check_images(x, y)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    eps, alpha = budget("eps", eps, x), budget("alpha", alpha, x)
    x = x.detach()
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    x_adv = x
    for _ in range(steps):
        grad = input_gradient(model, x_adv, y, loss)
        step = -grad.sign() if targeted else grad.sign()
        x_adv = torch.clamp(x_adv + alpha * step, low, high)
    return x_adv
