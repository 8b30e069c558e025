"""What every gradient attack needs: the loss's gradient in the pixels, and checks of its inputs.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.classifiers import Loss, check_labelled, check_logits, evaluating


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Return the cross-entropy of each image: (N,) from logits (N, K) and labels (N,)."""
    return F.cross_entropy(logits, y, reduction="none")


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return by how much the best wrong logit beats the right one: (N,), above 0 where fooled.

    ``logits``: (N, K); ``y``: int64 (N,). A loss that cannot saturate. Source: Carlini & Wagner,
    "Towards evaluating the robustness of neural networks", 2017, section V.A, f_6 without its limit.
    """
    right = logits.gather(1, y[:, None])[:, 0]
    return logits.scatter(1, y[:, None], -torch.inf).amax(dim=1) - right


def input_gradient(model: nn.Module, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """Return the gradient of the loss in the pixels, (N, ...) like ``x``, and leave no trace.

    The losses are summed, so an image's gradient does not depend on the rest of its batch. The
    model runs in evaluation mode and its parameters' gradients are not touched. Works inside
    ``torch.no_grad()`` and ``torch.inference_mode()``.

    Raises ``ValueError`` for labels that do not fit and a gradient that is missing or not finite.
    """
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        # A tensor made in inference mode cannot take part in a backward pass: its copy can.
        x, y = (t.clone() if t.is_inference() else t.detach() for t in (x, y))
        x.requires_grad_()
        logits: Tensor = model(x)
        check_logits(logits, y)
        total = loss(logits, y).sum()
        grad = None
        if total.requires_grad:
            (grad,) = torch.autograd.grad(total, x, allow_unused=True)
    if grad is None:
        raise ValueError(
            "model: its loss has no gradient in x; does it detach its input, round it, or return "
            "labels instead of logits?"
        )
    # A sum is NaN or infinite if any value is, and costs far less than asking each.
    if not bool(grad.sum().isfinite()) and not bool(grad.isfinite().all()):
        bad = int((~torch.isfinite(grad)).flatten(1).any(dim=1).sum())
        raise ValueError(f"model: the gradient of {bad} of {len(x)} images is NaN or infinite")
    return grad


def check_images(x: Tensor, y: Tensor) -> None:
    """Raise ``ValueError`` unless ``x`` is a float batch (N, ...) in [0, 1] and ``y`` its
    labels."""
    check_labelled(x, y)
    low, high = (float(end) for end in torch.aminmax(x.detach()))
    if low < 0 or high > 1:
        raise ValueError(f"x: expected values in [0, 1], got [{low:.4g}, {high:.4g}]")


def budget(name: str, size: float | Tensor, x: Tensor) -> Tensor:
    """Return ``size`` shaped to multiply the batch ``x`` (N, ...): one number, one per image (N,), or
    one per value, like ``x``.

    A size of 0 holds a value where it is: a sticker is a region whose sizes are not.

    Raises ``ValueError``, with ``name``, for another shape, NaN, infinity or a negative size.
    """
    sizes = torch.as_tensor(size, dtype=x.dtype, device=x.device).detach()
    if sizes.shape not in ((), (len(x),), x.shape):
        raise ValueError(
            f"{name}: expected one number, one per image ({len(x)},), or one per value "
            f"{tuple(x.shape)}; got shape {tuple(sizes.shape)}"
        )
    if not bool((torch.isfinite(sizes) & (sizes >= 0)).all()):
        raise ValueError(f"{name}: expected finite sizes >= 0, got {size}")
    return sizes if sizes.shape == x.shape else per_image(sizes, x)


def per_image(values: Tensor, x: Tensor) -> Tensor:
    """Return ``values``, one number or one per image (N,), shaped to combine with the batch ``x``."""
    return values.reshape(-1, *[1] * (x.ndim - 1))
