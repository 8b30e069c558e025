"""Which generator made it: a linear classifier of frequency statistics that may also say "unknown".

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from course_lib.detection.processing import check_images
from course_lib.detection.spectrum import Features, Standardised

#: What ``attribute`` answers when no class is certain enough.
UNKNOWN = -1


class Attributor(Standardised):
    """Standardised features to one logit per source: images (N, C, H, W) -> (N, len(names)).

    ``names``: the sources it knows, "real" being one if it is to be told from generators. Until
    ``fit_attributor`` has set them the weights are 0. What it was not shown it does not know: it
    spreads the probability over the sources that it has names for.

    Raises ``ValueError`` for fewer than two names, or one given twice.
    Source: Marra, Gragnaniello, Verdoliva and Poggi (2019) and Yu, Davis and Fritz (2019) for the task.
    """

    def __init__(self, names: Sequence[str], features: Features, count: int) -> None:
        super().__init__(features, count)
        if len(names) < 2 or len(set(names)) != len(names):
            raise ValueError(f"names: expected two sources or more, all different; got {names}")
        self.names = tuple(names)
        self.linear = nn.Linear(count, len(names))
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, len(names)); their softmax is the probability of each source."""
        z = self.standardised(x)
        return z @ self.linear.weight.to(z).T + self.linear.bias.to(z)


def fit_attributor(model: Attributor, images: Mapping[str, Tensor], *, C: float = 0.1) -> None:
    """Set the weights of ``model`` by multinomial logistic regression on images of every source.

    ``images``: for each of ``model.names`` images (N, C, H, W) in [0, 1], processed alike; each source
    counts the same, however many there are of it. ``C``: the inverse strength of the L2 penalty.

    Raises ``ValueError`` for other names, images of wrong shape or range, and a C that is not positive.
    """
    from sklearn.linear_model import LogisticRegression

    if set(images) != set(model.names):
        raise ValueError(f"images: expected the sources {model.names}, got {tuple(images)}")
    for name in model.names:
        check_images(images[name], name)
    if len({found.shape[1:] for found in images.values()}) > 1:
        shapes = {name: tuple(found.shape[1:]) for name, found in images.items()}
        raise ValueError(f"images: expected images of one shape, got {shapes}")
    if not (math.isfinite(C) and C > 0):
        raise ValueError(f"C: expected a positive number, got {C}")
    x = torch.cat([images[name] for name in model.names])
    y = [i for i, name in enumerate(model.names) for _ in images[name]]
    model.standardise(x)
    with torch.no_grad():
        z = model.standardised(x).double().cpu().numpy()
        fitted = LogisticRegression(C=C, max_iter=2000, class_weight="balanced").fit(z, y)
        weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
        if len(model.names) == 2:  # scikit-learn keeps one row then: the second class's
            weight, bias = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        model.linear.weight.copy_(weight)
        model.linear.bias.copy_(bias)


def confidence_threshold(confidence: Tensor, answered: float) -> float:
    """Return the threshold at or above which this share of the images (known sources) is answered.

    ``confidence``: (N,) in [0, 1], the highest probability of each validation image; ``answered``: in
    (0, 1]. Raises ``ValueError`` for another shape or range.
    """
    if confidence.ndim != 1 or len(confidence) == 0 or not bool(confidence.isfinite().all()):
        raise ValueError(f"confidence: expected finite values (N,), got {tuple(confidence.shape)}")
    if not 0 < answered <= 1:
        raise ValueError(f"answered: expected a share in (0, 1], got {answered}")
    kept = math.ceil(answered * len(confidence) - 1e-9)
    return float(confidence.sort(descending=True).values[kept - 1])


@torch.no_grad()
def attribute(model: Attributor, x: Tensor, *, threshold: float = 0.0) -> tuple[Tensor, Tensor]:
    """Return the most probable source of each image, an index into ``model.names``, and how probable.

    ``x``: (N, C, H, W) in [0, 1]; ``threshold``: in [0, 1]; below it the answer is ``UNKNOWN``, -1.
    Returns int64 (N,) and probabilities (N,). Raises ``ValueError`` for another shape or range.
    """
    check_images(x)
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a probability, got {threshold}")
    where = model.linear.weight.device
    probability, source = model(x.to(where)).softmax(dim=1).cpu().max(dim=1)
    return torch.where(probability >= threshold, source, UNKNOWN), probability


def confusion(truth: Tensor, answer: Tensor, classes: int) -> Tensor:
    """Return how often each true class got each answer: counts (rows, classes + 1), the last "unknown".

    ``truth``: int64 (N,), from 0 up; values of ``classes`` and above are sources that the model has no
    name for, and make rows of their own below. ``answer``: (N,), from ``attribute``.

    Raises ``ValueError`` for other shapes or dtypes, and values out of range.
    """
    if classes < 1:
        raise ValueError(f"classes: expected at least 1, got {classes}")
    for name, values, low in (("truth", truth, 0), ("answer", answer, UNKNOWN)):
        if values.ndim != 1 or len(values) == 0 or values.dtype != torch.int64:
            raise ValueError(
                f"{name}: expected int64 (N,), N > 0; got {values.dtype} {tuple(values.shape)}"
            )
        if int(values.min()) < low:
            raise ValueError(f"{name}: expected values from {low}, got {int(values.min())}")
    if len(truth) != len(answer):
        raise ValueError(f"answer: expected {len(truth)}, one per image; got {len(answer)}")
    if int(answer.max()) >= classes:
        raise ValueError(f"answer: expected values below {classes}, got {int(answer.max())}")
    rows = max(classes, int(truth.max()) + 1)
    column = torch.where(answer == UNKNOWN, classes, answer)
    counts = torch.bincount(truth * (classes + 1) + column, minlength=rows * (classes + 1))
    return counts.view(rows, classes + 1)
