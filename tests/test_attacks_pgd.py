"""PGD against closed forms, against FGSM and BIM, and the ball it must stay in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from test_attacks import Scaled, Trained, assert_same, batch, small_net, state
from torch import Tensor, nn

from course_lib import checkpoints, data
from course_lib.attacks import bim, fgsm, pgd
from course_lib.attacks.pgd import Norm, project, random_in_ball, steepest
from course_lib.classifiers import DigitNet

each_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def lengths(change: Tensor, norm: Norm) -> Tensor:
    return change.flatten(1).norm(dim=1, p=float("inf") if norm == "linf" else 2)


@given(seed=st.integers(0, 10**6), eps=st.floats(0, 0.5), targeted=st.booleans())
def test_without_a_random_start_it_is_bim(seed: int, eps: float, targeted: bool) -> None:
    model, (x, y) = small_net(seed), batch(seed=seed)
    expected = bim(model, x, y, eps, 0.02, 3, targeted=targeted)
    assert torch.equal(
        pgd(model, x, y, eps, 0.02, 3, random_start=False, targeted=targeted), expected
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    eps=st.floats(0, 2),
    alpha=st.floats(0, 1),
    norm=st.sampled_from(["linf", "l2"]),
    start=st.booleans(),
)
def test_the_ball_and_the_box_hold_after_every_step(
    seed: int, eps: float, alpha: float, norm: Norm, start: bool
) -> None:
    model, (x, y) = small_net(seed), batch(seed=seed)
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    x_adv = pgd(model, x, y, eps, alpha, 3, norm=norm, random_start=start)
    handle.remove()
    assert len(seen) == 3
    assert torch.equal(seen[0], x) or start
    for visited in [*seen, x_adv]:
        assert bool((visited >= 0).all()) and bool((visited <= 1).all())
        assert float(lengths(visited - x, norm).max()) <= eps * (1 + 1e-5) + 1e-6


@given(seed=st.integers(0, 10**6), eps=st.floats(1e-3, 0.25))
def test_one_l2_step_is_the_exact_optimum_on_a_linear_model(seed: int, eps: float) -> None:
    # The margin w.x changes most, by eps |w|_2, along w: no point of the ball does better.
    source = torch.Generator().manual_seed(seed)
    w = torch.randn(1, 30, generator=source, dtype=torch.float64)
    model = nn.Linear(30, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(w)
    x, y = torch.full((4, 30), 0.5, dtype=torch.float64), torch.zeros(4, dtype=torch.int64)

    def value(logits: Tensor, _: Tensor) -> Tensor:
        return logits[:, 0]

    x_adv = pgd(model, x, y, eps, eps, 1, norm="l2", random_start=False, loss=value)
    rise = (model(x_adv) - model(x))[:, 0].detach()
    torch.testing.assert_close(rise, (eps * w.norm()).expand(4))
    other = random_in_ball(x, torch.full((4, 1), eps).double(), "l2", source)
    assert bool(((other @ w.T)[:, 0] <= rise + 1e-12).all())


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1.0), ("l2", 2.0)])
def test_the_steepest_step_gains_the_dual_norm_of_the_gradient(norm: Norm, dual: float) -> None:
    grad = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    grad[3] *= 1e-200  # its squares are 0 in double precision
    grad[4] = 0
    step = steepest(grad, norm)
    torch.testing.assert_close(lengths(step, norm)[:4], torch.ones(4, dtype=torch.float64))
    assert torch.equal(step[4], grad[4])
    gain = (step * grad).flatten(1).sum(dim=1)[:3]
    torch.testing.assert_close(gain, grad.flatten(1).norm(p=dual, dim=1)[:3])


@each_norm
def test_projection_leaves_what_is_inside_and_is_idempotent(norm: Norm) -> None:
    x, _ = batch(50)
    eps = torch.full((50, 1, 1, 1), 0.3)
    inside = x + 0.1 * random_in_ball(x, eps, norm, torch.Generator().manual_seed(0))
    torch.testing.assert_close(project(inside, x, eps, norm), inside)
    outside = x + 3 * torch.randn(x.shape)
    once = project(outside, x, eps, norm)
    assert bool((lengths(once - x, norm) <= 0.3 + 1e-6).all())
    torch.testing.assert_close(project(once, x, eps, norm), once)


@each_norm
def test_the_random_start_is_uniform_in_the_ball(norm: Norm) -> None:
    # In d dimensions the share within a radius r of a ball of radius 1 is r^d.
    x, eps = torch.zeros(20_000, 3), torch.full((1, 1), 2.0)
    change = random_in_ball(x, eps, norm, torch.Generator().manual_seed(0))
    size = lengths(change, norm) / 2
    assert float(size.max()) <= 1 + 1e-6
    for radius in (0.4, 0.6, 0.8):
        share = float((size < radius).float().mean())
        assert share == pytest.approx(radius**3, abs=0.012)
    torch.testing.assert_close(change.mean(dim=0), torch.zeros(3), atol=0.04, rtol=0)


def test_the_loss_of_pgd_is_not_below_that_of_fgsm_on_the_digit_network() -> None:
    model = checkpoints.load("digit-net", DigitNet())
    test = data.mnist("test").take(200, seed=0)

    def loss(x: Tensor) -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(model(x), test.y, reduction="none")

    # On every image but a few: both climb from places of their own, and PGD's steps are finer.
    for eps in (0.05, 0.1, 0.2):
        one = loss(fgsm(model, test.x, test.y, eps))
        many = loss(pgd(model, test.x, test.y, eps, eps / 4, 20))
        assert float((many >= one - 1e-3).float().mean()) >= 0.97
        assert float(many.mean()) > float(one.mean())


def test_restarts_never_lose_ground_and_spare_what_is_fooled() -> None:
    model = checkpoints.load("digit-net", DigitNet())
    test = data.mnist("test").take(100, seed=1)
    seen: list[int] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))

    def result(restarts: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(3)
        x_adv = pgd(model, test.x, test.y, 0.07, 0.02, 4, restarts=restarts, generator=generator)
        with torch.no_grad():
            logits = model(x_adv)
        return logits.argmax(dim=1) != test.y, F.cross_entropy(logits, test.y, reduction="none")

    once, value = result(1)
    seen.clear()
    often, best = result(4)
    handle.remove()
    assert bool((often >= once).all())
    assert bool((best >= value - 1e-6)[~often].all())
    assert 0 < int(once.sum()) < 100
    # 4 gradients and one look at all 100, then only at those that were left.
    left = 100 - int(once.sum())
    assert seen[:5] == [100] * 5 and seen[5] == left
    assert seen[5:] == [*sorted(seen[5:-1], reverse=True), 100]


def test_targeted_restarts_keep_what_reached_its_target() -> None:
    model = checkpoints.load("digit-net", DigitNet())
    test = data.mnist("test").take(60, seed=2)
    target = (test.y + 3) % 10
    with torch.no_grad():
        one, four = (
            model(pgd(model, test.x, target, 0.15, 0.03, 6, restarts=r, targeted=True)).argmax(1)
            for r in (1, 4)
        )
    assert bool(((four == target) >= (one == target)).all())
    assert int((four == target).sum()) > 20


@each_norm
def test_the_same_generator_gives_the_same_attack(norm: Norm) -> None:
    model, (x, y) = small_net(0), batch()
    once, again, other = (
        pgd(model, x, y, 0.3, 0.01, 2, norm=norm, generator=torch.Generator().manual_seed(seed))
        for seed in (5, 5, 6)
    )
    assert torch.equal(once, again) and not torch.equal(once, other)
    before = torch.get_rng_state()
    assert torch.equal(
        pgd(model, x, y, 0.3, 0.01, 2, norm=norm), pgd(model, x, y, 0.3, 0.01, 2, norm=norm)
    )
    assert torch.equal(before, torch.get_rng_state())


@each_norm
@pytest.mark.parametrize("by", [0.0, 1e30])
def test_a_constant_or_saturated_model_gives_no_nan(norm: Norm, by: float) -> None:
    x, y = batch()
    x_adv = pgd(Scaled(small_net(0), by), x, y, 0.1, 0.05, 3, norm=norm, restarts=2)
    assert bool(torch.isfinite(x_adv).all())


@each_norm
def test_restarts_leave_no_trace(norm: Norm) -> None:
    model = Trained().train()
    model.head.weight.grad = torch.ones_like(model.head.weight)
    (x, y), before = batch(), state(model)
    x_adv = pgd(model, x, y, 0.05, 0.02, 3, norm=norm, restarts=3)
    assert_same(before, state(model))
    assert x_adv.grad_fn is None


@pytest.mark.parametrize(
    ("match", "change"),
    [
        ("norm: expected 'linf' or 'l2', got 'l1'", {"norm": "l1"}),
        ("steps: expected at least 1", {"steps": 0}),
        ("restarts: expected at least 1", {"restarts": 0}),
        ("restarts: 2 of them need random_start=True", {"restarts": 2, "random_start": False}),
        ("eps: expected finite sizes", {"eps": -1.0}),
        ("alpha: expected finite sizes", {"alpha": float("nan")}),
        ("eps: with norm 'l2' expected", {"norm": "l2", "eps": torch.zeros(7, 1, 6, 6)}),
        ("alpha: with norm 'l2' expected", {"norm": "l2", "alpha": torch.zeros(7, 1, 6, 6)}),
        (r"loss: expected one value per image", {"restarts": 2, "loss": F.cross_entropy}),
    ],
)
def test_wrong_settings_are_named(match: str, change: dict[str, object]) -> None:
    x, y = batch()
    settings = {"eps": 0.1, "alpha": 0.1, "steps": 1} | change
    attack: Callable[..., Tensor] = pgd
    with pytest.raises(ValueError, match=match):
        attack(small_net(0), x, y, **settings)
