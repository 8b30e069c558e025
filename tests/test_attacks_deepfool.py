"""DeepFool against the closed form of an affine classifier, a quadratic program, and its promises."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from test_attacks import Scaled, Trained, assert_same, batch, small_net, state
from torch import Tensor, nn

from course_lib import checkpoints, data
from course_lib.attacks import deepfool, deepfool_path
from course_lib.classifiers import DigitNet


def affine(classes: int, size: int, seed: int, dtype: torch.dtype = torch.float64) -> nn.Linear:
    """A random affine classifier whose boundaries pass near the middle of the box."""
    source = torch.Generator().manual_seed(seed)
    model = nn.Linear(size, classes).to(dtype)
    with torch.no_grad():
        model.weight.copy_(torch.randn(classes, size, generator=source, dtype=torch.float64))
        model.bias.copy_(-model.weight @ torch.full((size,), 0.5, dtype=dtype))
    return model


def near_the_middle(n: int, size: int, seed: int) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return 0.5 + 0.02 * torch.randn(n, size, generator=source, dtype=torch.float64)


@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 6),
    size=st.integers(2, 40),
    direct=st.booleans(),
)
def test_an_affine_classifier_is_left_by_the_closed_form(
    seed: int, classes: int, size: int, direct: bool
) -> None:
    model, x = affine(classes, size, seed), near_the_middle(8, size, seed)
    logits = model(x).detach()
    y = logits.argmax(dim=1)
    w = model.weight.detach()[None] - model.weight.detach()[y][:, None]  # (N, K, d)
    gaps = logits.gather(1, y[:, None]) - logits
    distance = (gaps / w.norm(dim=2)).scatter(1, y[:, None], torch.inf)
    nearest = distance.argmin(dim=1)
    rows = torch.arange(len(x))
    expected = (distance[rows, nearest] / w.norm(dim=2)[rows, nearest])[:, None] * w[rows, nearest]
    x_adv = deepfool(model, x, overshoot=0.02, direct=direct)
    if bool(((x + 1.02 * expected) < 0).any() or ((x + 1.02 * expected) > 1).any()):
        return  # the box binds: tested below
    torch.testing.assert_close(x_adv - x, 1.02 * expected, rtol=1e-6, atol=1e-9)
    assert bool((model(x_adv).argmax(dim=1) != y).all())
    # One step does it, and it is the binary formula -f/|w|^2 w when there are two classes.
    assert sum(1 for _ in deepfool_path(model, x, direct=direct)) == 2


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6))
def test_where_the_box_binds_the_step_is_that_of_a_quadratic_program(seed: int) -> None:
    # min |r|^2 with w.r = gap and 0 <= x + r <= 1, for each other class; the least of them.
    size, classes = 6, 3
    model = affine(classes, size, seed)
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(1, size, generator=source, dtype=torch.float64).round(decimals=1)
    logits = model(x).detach()
    y = int(logits.argmax())
    best = np.inf
    for k in set(range(classes)) - {y}:
        w = (model.weight[k] - model.weight[y]).detach().numpy()
        gap = float(logits[0, y] - logits[0, k])
        start = x[0].numpy()
        reachable = np.where(w > 0, w * (1 - start), -w * start).sum()
        if reachable < gap * 1.0001:
            continue
        solved = minimize(
            lambda r: (r**2).sum(),
            np.where(w > 0, 1 - start, -start) * gap / reachable,
            jac=lambda r: 2 * r,
            bounds=list(zip(-start, 1 - start, strict=True)),
            constraints={
                "type": "eq",
                "fun": lambda r, w=w, gap=gap: w @ r - gap,
                "jac": lambda r, w=w: w,
            },
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        best = min(best, float(np.sqrt(solved.fun)))
    x_adv = deepfool(model, x, overshoot=0.0, max_steps=1)
    if np.isinf(best):
        assert torch.equal(x_adv, x)
    else:
        assert float((x_adv - x).norm()) == pytest.approx(best, rel=1e-3, abs=1e-5)
    assert bool((x_adv >= 0).all()) and bool((x_adv <= 1).all())


def test_digits_are_all_fooled_by_less_than_a_sign_step_needs() -> None:
    model = checkpoints.load("digit-net", DigitNet())
    x = data.mnist("test").take(100, seed=0).x
    own = model(x).argmax(dim=1)
    x_adv = deepfool(model, x)
    assert bool((model(x_adv).argmax(dim=1) != own).all())
    assert bool((x_adv >= 0).all()) and bool((x_adv <= 1).all())
    change = (x_adv - x).flatten(1)
    # Halfway, every image is still read as before: it stopped close to the boundary.
    with torch.no_grad():
        halfway = model(x + 0.5 * (x_adv - x)).argmax(dim=1)
    assert float((halfway == own).float().mean()) > 0.95
    # A random direction of the same length does nothing.
    noise = torch.randn(change.shape, generator=torch.Generator().manual_seed(0))
    noise *= (change.norm(dim=1) / noise.norm(dim=1))[:, None]
    with torch.no_grad():
        noisy = model((x + noise.view_as(x)).clamp(0, 1)).argmax(dim=1)
    assert float((noisy == own).float().mean()) > 0.95


def test_a_clipped_step_needs_more_of_them_and_finds_smaller_changes() -> None:
    model = checkpoints.load("digit-net", DigitNet())
    x = data.mnist("test").take(60, seed=3).x
    own = model(x).argmax(dim=1)
    paths = [list(deepfool_path(model, x, direct=direct)) for direct in (True, False)]
    assert len(paths[0]) < len(paths[1])
    sizes = [(path[-1] - x).flatten(1).norm(dim=1) for path in paths]
    assert float(sizes[1].median()) < float(sizes[0].median())
    for path in paths:
        assert bool((path[-1] >= 0).all()) and bool((path[-1] <= 1).all())
        assert float((model(path[-1]).argmax(dim=1) != own).float().mean()) > 0.95


def test_a_batch_is_its_images_one_by_one_and_the_path_ends_where_deepfool_does() -> None:
    model, (x, _) = small_net(3, nn.Tanh()).double(), batch(6)
    x = x.double()
    together = deepfool(model, x)
    alone = torch.cat([deepfool(model, x[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)
    path = list(deepfool_path(model, x))
    assert torch.equal(path[0], x) and torch.equal(path[-1], together)
    # A fooled image stays: once it has left, it does not move again.
    own = model(x).argmax(dim=1)
    for before, after in itertools.pairwise(path):
        gone = model(before).argmax(dim=1) != own
        assert torch.equal(before[gone], after[gone])


def test_an_image_that_is_not_read_as_y_comes_back_as_it_is() -> None:
    model, (x, _) = small_net(0), batch()
    own = model(x).argmax(dim=1)
    y = torch.where(torch.arange(7) < 3, (own + 1) % 5, own)
    x_adv = deepfool(model, x, y)
    assert torch.equal(x_adv[:3], x[:3])
    left = model(x_adv[3:]).argmax(dim=1) != own[3:]
    assert bool(left.all())


def test_overshoot_lengthens_the_change_of_an_affine_classifier_by_its_share() -> None:
    model, x = affine(3, 30, 1), near_the_middle(5, 30, 1)
    barely, beyond = (deepfool(model, x, overshoot=o) - x for o in (0.01, 0.5))
    torch.testing.assert_close(beyond / 1.5, barely / 1.01, rtol=1e-6, atol=1e-9)


def test_fewer_candidates_cost_fewer_backward_passes_and_may_miss_the_nearest_class() -> None:
    # Class 1 is the likeliest other one, class 2 is nearer: its slope is ten times steeper.
    model = nn.Linear(2, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 10.0]]).double())
        model.bias.copy_(torch.tensor([0.0, -0.6, -5.2], dtype=torch.float64))
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    all_of_them = (deepfool(model, x, overshoot=0) - x)[0]
    torch.testing.assert_close(
        all_of_them, torch.tensor([0.0, 0.02], dtype=torch.float64), atol=1e-9, rtol=0
    )
    one = (deepfool(model, x, overshoot=0, candidates=1) - x)[0]
    torch.testing.assert_close(
        one, torch.tensor([0.1, 0.0], dtype=torch.float64), atol=1e-9, rtol=0
    )


@pytest.mark.parametrize("direct", [True, False])
@pytest.mark.parametrize("by", [0.0, 1e-30, 1e3, 1e30])
def test_a_constant_or_saturated_model_gives_no_nan(by: float, direct: bool) -> None:
    x, _ = batch()
    model = Scaled(small_net(0), by)
    x_adv = deepfool(model, x, direct=direct)
    assert bool(torch.isfinite(x_adv).all())
    if by == 0:
        assert torch.equal(x_adv, x)
    if by in (1e3, 1e30):  # the logits' scale says nothing about distance
        plain = deepfool(small_net(0), x, direct=direct)
        torch.testing.assert_close(x_adv, plain, atol=1e-4, rtol=0)


def test_a_tie_is_broken() -> None:
    model = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.0], [1.0]]))
    x = torch.zeros(1, 1)  # both logits are 0, and class 0 is read
    assert int(model(deepfool(model, x)).argmax()) == 1


@pytest.mark.parametrize("training", [True, False])
def test_leaves_no_trace(training: bool) -> None:
    model = Trained().train(training)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    x, _ = batch()
    x.requires_grad_()
    kept, before = x.detach().clone(), state(model)
    x_adv = deepfool(model, x)
    assert_same(before, state(model))
    assert x.grad is None and torch.equal(x.detach(), kept)
    assert x_adv.grad_fn is None and x_adv.data_ptr() != x.data_ptr()
    path = deepfool_path(model, x)
    next(path), next(path)
    assert_same(before, state(model))  # between two steps as well


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(context: Callable[[], object]) -> None:
    model, (x, _) = small_net(0), batch()
    expected = deepfool(model, x)
    with context():  # type: ignore[attr-defined]
        assert torch.equal(deepfool(model, x * 1), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_dtype_and_shape(dtype: torch.dtype) -> None:
    model, (x, _) = small_net(0).to(dtype), batch()
    x = x.to(dtype)
    x_adv = deepfool(model, x)
    assert x_adv.dtype == dtype and x_adv.shape == x.shape
    own = model(x).argmax(dim=1)
    assert float((model(x_adv).argmax(dim=1) != own).float().mean()) > 0.8


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("overshoot: expected at least 0", {"overshoot": -0.1}),
        ("overshoot: expected at least 0", {"overshoot": float("nan")}),
        ("max_steps: expected at least 1", {"max_steps": 0}),
        ("candidates: expected at least 1", {"candidates": 0}),
        ("y: expected int64", {"y": torch.zeros(3)}),
        ("y: expected labels 0..4", {"y": torch.full((7,), 9)}),
        (r"x: expected values in \[0, 1\]", {"x": torch.full((7, 1, 6, 6), 2.0)}),
        ("x: expected finite values", {"x": torch.full((7, 1, 6, 6), float("nan"))}),
    ],
)
def test_wrong_input_is_named_at_once(match: str, change: dict[str, object]) -> None:
    x, _ = batch()
    arguments: dict[str, object] = {"x": x} | change
    path: Callable[..., object] = deepfool_path
    with pytest.raises(ValueError, match=match):
        path(small_net(0), **arguments)  # before the first step is asked for


def test_a_model_that_cannot_be_walked_is_refused() -> None:
    x, _ = batch()
    with pytest.raises(ValueError, match="2 or more classes"):
        deepfool(nn.Sequential(nn.Flatten(), nn.Linear(36, 1)), x)
    with pytest.raises(ValueError, match="finite logits"):
        deepfool(Scaled(small_net(0), float("nan")), x)

    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return small_net(0)(x).detach()

    with pytest.raises(ValueError, match="no gradient in x"):
        deepfool(Rounded(), x)
