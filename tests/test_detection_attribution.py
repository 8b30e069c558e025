"""Naming the generator: against scikit-learn and by hand, and the answer "unknown"."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from course_lib.detection import attribution, compression, spectrum

SIZE = 32
BLURS = {"real": 0.5, "soft": 0.75, "softer": 1.0}


def textures(n: int, smooth: float, *, seed: int) -> Tensor:
    x = torch.rand(n, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return compression.blur(x, smooth)


def model(names: tuple[str, ...] = tuple(BLURS)) -> attribution.Attributor:
    return attribution.Attributor(names, spectrum.dct_features, 64)


@pytest.fixture(scope="module")
def fitted() -> attribution.Attributor:
    found = model()
    images = {name: textures(50, s, seed=i) for i, (name, s) in enumerate(BLURS.items())}
    attribution.fit_attributor(found, images)
    return found


def test_it_names_the_blur_of_new_images(fitted: attribution.Attributor) -> None:
    for i, smooth in enumerate(BLURS.values()):
        answer, probability = attribution.attribute(fitted, textures(30, smooth, seed=90 + i))
        assert float((answer == i).float().mean()) > 0.9
        assert answer.dtype == torch.int64 and probability.shape == (30,)


def test_probabilities_are_the_highest_of_the_softmax(fitted: attribution.Attributor) -> None:
    x = textures(20, 0.8, seed=5)
    with torch.no_grad():
        p = fitted(x).softmax(1)
    answer, probability = attribution.attribute(fitted, x)
    assert torch.equal(probability, p.max(dim=1).values)
    threshold = float(probability.median())
    unsure, _ = attribution.attribute(fitted, x, threshold=threshold)
    assert torch.equal(unsure == attribution.UNKNOWN, probability < threshold)
    assert torch.equal(unsure[probability >= threshold], answer[probability >= threshold])


@pytest.mark.parametrize("names", [("real", "soft"), tuple(BLURS)])
def test_the_fit_is_scikit_learns(names: tuple[str, ...]) -> None:
    from sklearn.linear_model import LogisticRegression

    images = {name: textures(30, BLURS[name], seed=i).double() for i, name in enumerate(names)}
    found = model(names).double()
    attribution.fit_attributor(found, dict(reversed(images.items())), C=0.3)
    z = torch.cat([found.standardised(images[name]) for name in names]).numpy()
    y = np.repeat(np.arange(len(names)), 30)
    oracle = LogisticRegression(C=0.3, max_iter=2000).fit(z, y)
    with torch.no_grad():
        ours = torch.cat([found(images[name]).softmax(1) for name in names]).numpy()
    assert np.allclose(ours, oracle.predict_proba(z), atol=1e-3)


def test_an_unfitted_attributor_thinks_all_sources_equal() -> None:
    with torch.no_grad():
        p = model()(textures(2, 0.5, seed=0)).softmax(1)
    assert torch.allclose(p, torch.full((2, 3), 1 / 3))


def test_it_is_differentiable(fitted: attribution.Attributor) -> None:
    x = textures(2, 0.8, seed=3).requires_grad_()
    fitted(x)[:, 0].sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all()) and float(x.grad.abs().max()) > 0


@pytest.mark.parametrize("answered", [0.01, 0.5, 0.95, 1.0])
def test_the_threshold_answers_the_share_asked_for(answered: float) -> None:
    confidence = torch.rand(200, generator=torch.Generator().manual_seed(0))
    threshold = attribution.confidence_threshold(confidence, answered)
    assert int((confidence >= threshold).sum()) == round(200 * answered)


def test_confusion_by_hand() -> None:
    truth = torch.tensor([0, 0, 1, 1, 2, 3, 3])
    answer = torch.tensor([0, 1, 1, -1, 0, -1, 1])
    expected = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 1, 1]])
    assert torch.equal(attribution.confusion(truth, answer, 2), expected)
    assert attribution.confusion(torch.tensor([0]), torch.tensor([0]), 3).shape == (3, 4)


GOOD = torch.rand(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
THREE = dict.fromkeys(BLURS, GOOD)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: model(("real",)), "names: expected"),
        (lambda: model(("real", "real")), "names: expected"),
        (lambda: attribution.fit_attributor(model(), {"real": GOOD}), "images: expected"),
        (lambda: attribution.fit_attributor(model(), {**THREE, "soft": GOOD * 2}), "soft: exp"),
        (lambda: attribution.fit_attributor(model(), {**THREE, "soft": GOOD[:0]}), "soft: exp"),
        (
            lambda: attribution.fit_attributor(model(), {**THREE, "soft": GOOD[..., :24]}),
            "one shape",
        ),
        (lambda: attribution.fit_attributor(model(), THREE, C=-1.0), "C: expected"),
        (lambda: attribution.attribute(model(), GOOD * math.nan), "x: expected"),
        (lambda: attribution.attribute(model(), GOOD, threshold=1.1), "threshold: expected"),
        (lambda: attribution.attribute(model(), GOOD, threshold=math.nan), "threshold: exp"),
        (lambda: attribution.confidence_threshold(torch.zeros(0), 0.9), "confidence: exp"),
        (lambda: attribution.confidence_threshold(torch.tensor([math.nan]), 0.9), "confidence"),
        (lambda: attribution.confidence_threshold(torch.ones(3), 0.0), "answered: expected"),
        (lambda: attribution.confusion(torch.ones(2), torch.tensor([0, 0]), 2), "truth: exp"),
        (lambda: attribution.confusion(torch.tensor([-1]), torch.tensor([0]), 2), "truth: exp"),
        (lambda: attribution.confusion(torch.tensor([0]), torch.tensor([-2]), 2), "answer: exp"),
        (lambda: attribution.confusion(torch.tensor([0]), torch.tensor([2]), 2), "answer: exp"),
        (lambda: attribution.confusion(torch.tensor([0]), torch.tensor([0, 1]), 2), "answer"),
        (lambda: attribution.confusion(torch.tensor([0]), torch.tensor([0]), 0), "classes: exp"),
    ],
)
def test_wrong_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
