"""The objectives against closed forms: values, slopes, stability, and the optimum of the game."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import Normal

from course_lib import metrics
from course_lib.gans import game, objectives

LOGIT = st.floats(-1e4, 1e4, allow_nan=False)
LOGITS = st.lists(LOGIT, min_size=1, max_size=8)
OBJECTIVES = [objectives.minimax, objectives.non_saturating]


def slope(loss, logit: float, dtype: torch.dtype = torch.float64) -> float:
    fake = torch.tensor([logit], dtype=dtype, requires_grad=True)
    loss(fake).backward()
    return float(fake.grad)


def densities() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    x = torch.linspace(-10, 10, 401, dtype=torch.float64)
    p = Normal(0.0, 1.0).log_prob(x).exp()
    q = Normal(1.5, 0.7).log_prob(x).exp()
    return x, p, q, float(x[1] - x[0])


def test_values_where_the_discriminator_is_undecided():
    zero = torch.zeros(5)
    for objective in OBJECTIVES:
        assert float(objective.discriminator_loss(zero, zero)) == pytest.approx(2 * math.log(2))
    assert float(objectives.minimax.generator_loss(zero)) == pytest.approx(-math.log(2))
    assert float(objectives.non_saturating.generator_loss(zero)) == pytest.approx(math.log(2))


@given(LOGITS, LOGITS)
def test_values_are_the_log_loss_of_probabilities(real, fake):
    real = [max(-20.0, min(20.0, value)) for value in real]
    fake = [max(-20.0, min(20.0, value)) for value in fake]

    def mean_log(values, sign):
        return sum(math.log(1 / (1 + math.exp(-sign * v))) for v in values) / len(values)

    r, f = torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64)
    expected = -mean_log(real, 1) - mean_log(fake, -1)
    assert float(objectives.discriminator_loss(r, f)) == pytest.approx(expected, rel=1e-9)
    assert float(objectives.minimax.generator_loss(f)) == pytest.approx(
        mean_log(fake, -1), rel=1e-6
    )
    assert float(objectives.non_saturating.generator_loss(f)) == pytest.approx(
        -mean_log(fake, 1), rel=1e-6
    )


def test_slopes_where_the_discriminator_is_sure():
    assert slope(objectives.minimax.generator_loss, -10) == pytest.approx(-4.5e-5, rel=0.01)
    assert slope(objectives.non_saturating.generator_loss, -10) == pytest.approx(-1, abs=1e-4)
    # The non-saturating loss must not die where a clipped logarithm would.
    for logit in (-30, -100, -1e4):
        assert slope(objectives.non_saturating.generator_loss, logit, torch.float32) == -1


@given(LOGIT)
def test_slopes_are_those_of_the_formulas(logit):
    sigmoid = 1 / (1 + math.exp(-logit)) if logit > -700 else 0.0
    assert slope(objectives.minimax.generator_loss, logit) == pytest.approx(-sigmoid, abs=1e-12)
    assert slope(objectives.non_saturating.generator_loss, logit) == pytest.approx(
        sigmoid - 1, abs=1e-12
    )


@settings(max_examples=40)
@given(LOGITS, LOGITS, st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_finite_and_of_the_right_sign_for_any_logit(real, fake, dtype):
    r = torch.tensor(real, dtype=dtype, requires_grad=True)
    f = torch.tensor(fake, dtype=dtype, requires_grad=True)
    for objective in OBJECTIVES:
        d_loss = objective.discriminator_loss(r, f)
        g_loss = objective.generator_loss(f)
        assert torch.isfinite(d_loss) and torch.isfinite(g_loss) and d_loss >= 0
        r_grad, f_grad = torch.autograd.grad(d_loss, [r, f])
        (g_grad,) = torch.autograd.grad(g_loss, [f])
        # D pulls real logits up and fake ones down; G pulls its fakes' logits up.
        assert bool((r_grad <= 0).all()) and bool((f_grad >= 0).all()) and bool((g_grad <= 0).all())
        assert all(bool(torch.isfinite(grad).all()) for grad in (r_grad, f_grad, g_grad))


@given(LOGITS, LOGITS)
def test_minimax_is_one_value_that_both_play_for(real, fake):
    r, f = torch.tensor(real, dtype=torch.float64), torch.tensor(fake, dtype=torch.float64)
    real_part = torch.nn.functional.softplus(-r).mean()
    total = objectives.minimax.discriminator_loss(r, f) + objectives.minimax.generator_loss(f)
    assert float(total) == pytest.approx(float(real_part), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("bad", [torch.zeros(0), torch.zeros(3, dtype=torch.int64)])
def test_refuses_what_is_no_batch_of_logits(bad):
    for objective in OBJECTIVES:
        with pytest.raises(ValueError, match="real_logits"):
            objective.discriminator_loss(bad, torch.zeros(3))
        with pytest.raises(ValueError, match="fake_logits"):
            objective.discriminator_loss(torch.zeros(3), bad)
        with pytest.raises(ValueError, match="fake_logits"):
            objective.generator_loss(bad)


def test_an_objective_cannot_be_changed():
    with pytest.raises(AttributeError):
        objectives.minimax.name = "other"  # type: ignore[misc]


def test_the_best_discriminator_found_by_optimising_is_the_density_ratio():
    _, p, q, spacing = densities()
    logits = torch.zeros_like(p, requires_grad=True)
    # A discriminator with one free logit per grid point: convex, so the optimum is the optimum.
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=150,
        tolerance_grad=1e-12,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        # Each point is a problem of its own, so its weight p + q may be divided out: the optimum
        # stays, and the tails, where both densities are tiny, converge as fast as the middle.
        loss = (
            (p * torch.nn.functional.softplus(-logits) + q * torch.nn.functional.softplus(logits))
            .div(p + q)
            .sum()
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    found = torch.sigmoid(logits.detach())
    weight = p + q > 1e-3
    best = game.optimal_discriminator(p, q)
    assert torch.allclose(found[weight], best[weight], atol=5e-3)
    value = game.game_value(logits.detach(), p, q, spacing)
    jsd = game.jensen_shannon(p, q, spacing)
    assert float(value) == pytest.approx(2 * float(jsd) - 2 * math.log(2), abs=1e-5)


def test_the_losses_on_samples_estimate_the_games_value():
    _, p, q, spacing = densities()
    # Stratified samples: quantiles of each density, scored by the closed-form log-odds.
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    P, Q = Normal(0.0, 1.0), Normal(1.5, 0.7)

    def log_odds(x: torch.Tensor) -> torch.Tensor:
        return P.log_prob(x) - Q.log_prob(x)

    loss = objectives.minimax.discriminator_loss(log_odds(P.icdf(u)), log_odds(Q.icdf(u)))
    jsd = float(game.jensen_shannon(p, q, spacing))
    assert -float(loss) == pytest.approx(2 * jsd - 2 * math.log(2), abs=1e-3)


def test_a_sure_and_right_discriminator_wins_the_whole_game():
    x, _, _, spacing = densities()
    p, q = (torch.where((x - centre).abs() < 1, 0.5, 0.0) for centre in (-3, 3))
    p, q = p / (p.sum() * spacing), q / (q.sum() * spacing)
    log_odds = torch.where(p > 0, math.inf, -math.inf)
    assert float(game.game_value(log_odds, p, q, spacing)) == 0
    assert float(game.game_value(-log_odds, p, q, spacing)) == -math.inf
    assert float(game.jensen_shannon(p, q, spacing)) == pytest.approx(math.log(2))


def test_jensen_shannon_is_0_for_equals_and_ln_2_for_strangers():
    x, p, q, spacing = densities()
    far = Normal(8.0, 0.2).log_prob(x).exp()
    near = Normal(-8.0, 0.2).log_prob(x).exp()
    assert float(game.jensen_shannon(p, p, spacing)) == pytest.approx(0, abs=1e-12)
    assert float(game.jensen_shannon(far, near, spacing)) == pytest.approx(math.log(2), rel=1e-3)
    pq, qp = game.jensen_shannon(p, q, spacing), game.jensen_shannon(q, p, spacing)
    assert float(pq) == pytest.approx(float(qp))


@settings(max_examples=30)
@given(st.floats(-2, 2), st.floats(0.2, 1.5), st.floats(-5, 5))
def test_no_discriminator_beats_the_optimal_one(mean, deviation, logit):
    x, p, _, spacing = densities()
    q = Normal(mean, deviation).log_prob(x).exp()
    log_odds = Normal(0.0, 1.0).log_prob(x) - Normal(mean, deviation).log_prob(x)
    best = game.game_value(log_odds, p, q, spacing)
    assert float(best) == pytest.approx(
        2 * float(game.jensen_shannon(p, q, spacing)) - 2 * math.log(2), abs=1e-6
    )
    other = game.game_value(torch.full_like(p, logit), p, q, spacing)
    assert float(other) <= float(best) + 1e-9


def test_densities_that_are_none_are_refused():
    _, p, q, spacing = densities()
    with pytest.raises(ValueError, match="equal"):
        game.optimal_discriminator(p, q[:-1])
    with pytest.raises(ValueError, match="q: expected a density"):
        game.optimal_discriminator(p, -q)
    with pytest.raises(ValueError, match="sums to 1"):
        game.jensen_shannon(p, q, 2 * spacing)
    with pytest.raises(ValueError, match="logits: expected numbers"):
        game.game_value(torch.full_like(p, math.nan), p, q, spacing)
    with pytest.raises(ValueError, match="logits: expected shape"):
        game.game_value(torch.ones(3), p, q, spacing)


def test_the_ring_and_its_modes():
    centres = game.ring_centres(8, radius=2.0)
    assert torch.allclose(centres.norm(dim=1), torch.full((8,), 2.0))
    assert torch.allclose(centres.sum(0), torch.zeros(2), atol=1e-5)
    points = game.around(centres, 8000, 0.05, torch.Generator().manual_seed(0))
    kept, near = metrics.modes_kept(points, centres, 0.05)
    # A Gaussian in the plane has 1 - exp(-9/2) of its mass within three deviations.
    assert kept == 8 and near == pytest.approx(1 - math.exp(-4.5), abs=0.005)
    assert metrics.modes_kept(centres[:3].repeat(10, 1), centres, 0.05) == (3, 1.0)
    assert metrics.modes_kept(torch.zeros(10, 2), centres, 0.05) == (0, 0.0)
    with pytest.raises(ValueError, match="modes"):
        game.ring_centres(0)
    with pytest.raises(ValueError, match="spread"):
        game.around(centres, 5, -1.0, torch.Generator())
