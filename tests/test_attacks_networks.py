"""The digit classifiers: their layers are those of the papers, and they refuse other images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from course_lib.attacks.networks import MLP, VGG8, LeNet5, Softmax

MAKE: dict[str, Callable[[], nn.Module]] = {
    "Softmax": Softmax,
    "MLP": MLP,
    "LeNet5": LeNet5,
    "VGG8": VGG8,
}
#: Layers with weights, and weights and biases counted by hand from the papers' figures.
KNOWN = {
    "Softmax": (1, 784 * 10 + 10),
    "MLP": (3, 785 * 256 + 257 * 128 + 129 * 10),
    "LeNet5": (5, 6 * 26 + 16 * (6 * 25 + 1) + 401 * 120 + 121 * 84 + 85 * 10),
    "VGG8": (
        8,
        16 * 10 + 16 * 145 + 32 * 145 + 32 * 289 + 64 * 289 + 64 * 577 + 577 * 128 + 129 * 10,
    ),
}
each = pytest.mark.parametrize("name", MAKE)


@each
def test_layers_and_parameters_are_those_of_the_papers(name: str) -> None:
    model = MAKE[name]()
    weighted = [m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert (len(weighted), sum(p.numel() for p in model.parameters())) == KNOWN[name]


@each
def test_the_head_decides_on_the_features(name: str) -> None:
    model = MAKE[name]().eval()
    x = torch.rand(3, 1, 28, 28)
    logits = model(x)
    assert logits.shape == (3, 10)
    features = model.features(x)  # type: ignore[operator]
    assert torch.equal(model.head(features), logits)  # type: ignore[operator]
    assert features.ndim == 2
    if name == "Softmax":
        assert torch.equal(features, x.flatten(1))


@each
@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 3, 28, 28), (3, 1, 32, 32), (784,)])
def test_other_images_are_refused(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 1, 28, 28\), got"):
        MAKE[name]()(torch.rand(shape))


def test_wrong_sizes_are_named() -> None:
    for wrong in ((), (0,), (16, -1)):
        with pytest.raises(ValueError, match="hidden: expected one or more sizes"):
            MLP(wrong)
    for width, dropout in ((0, 0.5), (16, 1.0), (16, -0.1)):
        with pytest.raises(ValueError, match="width, dropout"):
            VGG8(width, dropout)
