"""Calls the student's attacks on small networks and returns what came out, as arrays.

Chapter: book/deceive/small_step.md
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def fgsm(
    student: Any,
    *,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    x: Tensor,
    y: Tensor,
    eps: float,
) -> dict[str, Any]:
    """Return one call's images."""
    return {"x_adv": student.fgsm(_network(w1, b1, w2, b2), x, y, eps)}


def fgsm_twice(
    student: Any, *, w: Tensor, x: Tensor, y: Tensor, y_next: Tensor, other: Tensor, eps: float
) -> dict[str, Any]:
    """Return two calls' images, x after them, and what the model says after each call.

    The model is in training mode for the first call and in evaluation mode for the second, and what it
    says depends on it.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(*reversed(w.shape), bias=False), _Moody())
    _fill(model[1].weight, w)
    model.train()
    first = _kept(student.fgsm(model, x, y, eps))
    after_first = model(other)
    model.eval()
    second = student.fgsm(model, x, y_next, eps)
    return {
        "first": first,
        "second": second,
        "x": x,
        "after_first": after_first,
        "after_second": model(other),
    }


def targeted(
    student: Any,
    *,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    anchor: Tensor,
    x: Tensor,
    target: Tensor,
    eps: float,
) -> dict[str, Any]:
    """Return one call's images, with the student's fgsm and with another one in its place."""
    model = _network(w1, b1, w2, b2)
    return _both(
        student, anchor, lambda: {"x_adv": student.targeted_fgsm(model, x.clone(), target, eps)}
    )


def bim(
    student: Any,
    *,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    anchor: Tensor,
    x: Tensor,
    y: Tensor,
    eps: float,
    alpha: float,
    steps: int,
) -> dict[str, Any]:
    """Return one call's images and x after it, with the student's fgsm and with another one."""
    model = _network(w1, b1, w2, b2)

    def call() -> dict[str, Any]:
        images = x.clone()
        return {"x_adv": student.bim(model, images, y, eps, alpha, steps), "x": images}

    return _both(student, anchor, call)


def curve(
    student: Any,
    *,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor,
    b2: Tensor,
    drift: Tensor,
    x: Tensor,
    y: Tensor,
    epsilons: list[float],
) -> dict[str, Any]:
    """Return the accuracies under a made-up attack that pushes each label its own way."""

    def attack(model: nn.Module, x: Tensor, y: Tensor, eps: float) -> Tensor:
        # Real attacks need a gradient; where there can be none, this one goes astray.
        way = 1.0 if torch.is_grad_enabled() else -1.0
        return x + way * eps * drift[y]

    return {"curve": student.accuracy_curve(_network(w1, b1, w2, b2), attack, x, y, epsilons)}


def _network(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> nn.Module:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(*reversed(w1.shape)), nn.Tanh(), nn.Linear(*reversed(w2.shape))
    )
    for parameter, value in zip(model.parameters(), (w1, b1, w2, b2), strict=True):
        _fill(parameter, value)
    return model.eval()


def _fill(parameter: Tensor, value: Tensor) -> None:
    with torch.no_grad():
        parameter.copy_(value)


def _kept(answer: Any) -> Any:
    """Return a copy that a later call cannot change."""
    return answer.detach().clone() if isinstance(answer, Tensor) else copy.copy(answer)


class _Moody(nn.Module):
    """Speaks three times as loud in training mode."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits * (3.0 if self.training else 1.0)


def _both(student: Any, anchor: Tensor, call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Call twice, the second time with another function under the name fgsm.

    A slip in the student's fgsm then does not count again in what calls it. One of the two calls may
    fail; when both do, the first one's error is passed on.
    """

    def pull(model: nn.Module, x: Tensor, y: Tensor, eps: float, **_: Any) -> Tensor:
        return x + eps * torch.sign(anchor[y] - x) + 0.3 * eps * eps

    def attempt(suffix: str) -> dict[str, Any]:
        try:
            found = {key + suffix: value for key, value in call().items()}
        except Exception as error:
            errors.append(error)
            return {}
        if any(value is None for value in found.values()):
            nothing.update(found)
            return {}
        return found

    errors: list[Exception] = []
    nothing: dict[str, Any] = {}
    results = attempt("")
    with student.replaced(fgsm=pull):
        results |= attempt("_pulled")
    if not results and errors:
        raise errors[0]
    return results or nothing
