"""How fast a model breaks: its accuracy under an attack, against the attack's size.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from course_lib.attacks.gradient import check_images
from course_lib.classifiers import accuracy

#: ``attack(model, x, y, eps)`` gives x_adv; what else an attack needs is bound beforehand.
Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


def accuracy_curve(
    model: nn.Module,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    epsilons: Sequence[float],
    *,
    batch_size: int = 1000,
) -> list[float]:
    """Return the model's accuracy on ``attack(model, x, y, eps)`` for each eps of ``epsilons``.

    ``x``: (N, ...) in [0, 1]; ``y``: int64 (N,), the true labels; images are attacked and judged
    ``batch_size`` at a time.

    Raises ``ValueError`` for no epsilons, inputs that do not fit, and an attack that returns
    another shape, NaN, or pixels outside [0, 1]: such a curve would flatter the attack.
    """
    check_images(x, y)
    if len(epsilons) == 0:
        raise ValueError("epsilons: expected one or more, got none")
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    curve = []
    for eps in epsilons:
        right = 0.0
        for images, labels in zip(x.split(batch_size), y.split(batch_size), strict=True):
            x_adv = attack(model, images, labels, eps).detach()
            if x_adv.shape != images.shape or not bool(((x_adv >= 0) & (x_adv <= 1)).all()):
                raise ValueError(
                    f"attack: expected images {tuple(images.shape)} in [0, 1] at eps {eps}, got "
                    f"{tuple(x_adv.shape)} in [{float(x_adv.min()):.4g}, {float(x_adv.max()):.4g}]"
                )
            right += accuracy(model, x_adv, labels) * len(labels)
        curve.append(right / len(x))
    return curve
