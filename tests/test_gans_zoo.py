"""The zoo's losses, penalties, controller and energies, against closed forms from their papers."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Normal

from course_lib import device, experiments
from course_lib.experiments import zoo
from course_lib.gans import energy, networks, objectives, penalties, training

SHAPES = [(4,), (2, 3), (1, 4, 4), (3, 2, 5)]
NUMBERS = st.lists(st.floats(-50, 50), min_size=1, max_size=8)
ENERGIES = st.lists(st.floats(0, 50), min_size=1, max_size=8)
ZOO = [
    objectives.lsgan,
    objectives.wgan,
    objectives.wgan_gp,
    objectives.dragan,
    objectives.ebgan,
    objectives.began,
]


def tensor(values, **kwargs):
    return torch.tensor(values, dtype=torch.float64, **kwargs)


class Linear(nn.Module):
    """The critic <w, x>."""

    def __init__(self, shape, length=3.0, seed=0):
        super().__init__()
        w = torch.randn(shape, generator=device.generator(seed), dtype=torch.float64)
        self.w = nn.Parameter(length * w / w.norm())

    def forward(self, x):
        return (self.w * x).flatten(1).sum(1)


class Quadratic(nn.Module):
    """The critic a |x|^2 / 2, whose gradient at x is a x."""

    def __init__(self, a=1.7):
        super().__init__()
        self.a = nn.Parameter(tensor(a))

    def forward(self, x):
        return self.a * x.flatten(1).square().sum(1) / 2


def batch(shape, n=6, seed=1):
    return torch.randn(n, *shape, generator=device.generator(seed), dtype=torch.float64)


def slopes_of(loss, scores):
    (gradient,) = torch.autograd.grad(loss(scores), scores)
    return gradient


# Penalties


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("penalty", [penalties.gradient_penalty, penalties.dragan_penalty])
def test_the_penalty_of_a_linear_critic_of_slope_3_is_4(shape, penalty):
    real, fake = batch(shape), batch(shape, seed=2)
    for objective in (objectives.wgan_gp, objectives.dragan):
        assert objective.penalty(Linear(shape), real, fake, device.generator(0)).item() == (
            pytest.approx(10 * 4)
        )
    found = penalty(Linear(shape), real, fake, device.generator(0), weight=1)
    assert found.item() == pytest.approx(4)
    for length, expected in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.25)):
        critic = Linear(shape, length)
        assert penalty(critic, real, fake, weight=1).item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_r1_of_a_linear_critic_of_slope_3_is_9_gamma_halves(shape):
    found = penalties.r1(0.7)(Linear(shape), batch(shape), batch(shape), None)
    assert found.item() == pytest.approx(9 / 2 * 0.7)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_penalties_of_a_quadratic_critic(shape):
    real, fake = batch(shape), batch(shape, seed=2)
    a, seed = 1.7, 5

    def norms(x):
        return a * x.flatten(1).norm(dim=1)

    epsilon = torch.rand(6, *[1] * len(shape), generator=device.generator(seed)).double()
    mixed = epsilon * real + (1 - epsilon) * fake
    found = penalties.gradient_penalty(Quadratic(a), real, fake, device.generator(seed), weight=1)
    assert found.item() == pytest.approx((norms(mixed) - 1).square().mean().item())

    delta = torch.randn(real.shape, generator=device.generator(seed)).double()
    around = real + 0.5 * real.std(unbiased=False) * delta
    found = penalties.dragan_penalty(Quadratic(a), real, fake, device.generator(seed), weight=1)
    assert found.item() == pytest.approx((norms(around) - 1).square().mean().item())

    found = penalties.r1(2.0)(Quadratic(a), real, fake, None)
    assert found.item() == pytest.approx(norms(real).square().mean().item())


def test_one_interpolation_weight_per_example_between_real_and_fake():
    real, fake = torch.zeros(500, 3, 2), torch.ones(500, 3, 2)
    met = []

    def score(x):
        met.append(x.detach())
        return x.sum((1, 2))

    penalties.gradient_penalty(score, real, fake, device.generator(0))
    (x_hat,) = met
    share = x_hat.flatten(1)
    assert torch.equal(share, share[:, :1].expand_as(share))
    assert 0 <= share.min() < 0.02 and 0.98 < share.max() <= 1
    assert share[:, 0].mean().item() == pytest.approx(0.5, abs=0.04)
    assert share[:, 0].std().item() == pytest.approx(1 / math.sqrt(12), abs=0.02)


def test_dragans_noise_is_gaussian_around_the_data_and_scales_with_it():
    real = 4 * torch.randn(400, 50, generator=device.generator(0)) + 7
    met = []

    def score(x):
        met.append(x.detach())
        return x.sum(1)

    penalties.dragan_penalty(score, real, real, device.generator(1), spread=0.5)
    noise = (met[0] - real).flatten()
    sigma = 0.5 * real.std().item()
    assert noise.mean().item() == pytest.approx(0, abs=0.05)
    assert noise.std().item() == pytest.approx(sigma, rel=0.02)
    within = (noise.abs() < sigma).float().mean().item()
    assert within == pytest.approx(math.erf(1 / math.sqrt(2)), abs=0.01)


def test_dragan_looks_only_at_the_data_and_r1_draws_nothing():
    real, fake = batch((5,)), batch((5,), seed=2)
    assert penalties.dragan_penalty(Quadratic(), real, fake, device.generator(0)).item() == (
        penalties.dragan_penalty(Quadratic(), real, 9 * fake, device.generator(0)).item()
    )
    rng = device.generator(3)
    before = rng.get_state()
    penalties.r1(1.0)(Quadratic(), real, fake, rng)
    assert torch.equal(rng.get_state(), before)


PENALTIES = {
    "wgan_gp": partial(penalties.gradient_penalty, weight=1.0),
    "dragan": partial(penalties.dragan_penalty, weight=1.0),
    "r1": penalties.r1(2.0),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_penalties_teach_the_discriminator_and_never_the_generator(name):
    G, D = networks.mlp(2, 3), networks.mlp(3, 1)
    real = torch.randn(8, 3)
    PENALTIES[name](D, real, G(torch.randn(8, 2)), device.generator(0)).backward()
    assert all(p.grad is None for p in G.parameters())
    weights = [p for key, p in D.named_parameters() if key.endswith("weight")]
    assert all(float(p.grad.abs().sum()) > 0 for p in weights)


@pytest.mark.parametrize("name", PENALTIES)
def test_double_backward_agrees_with_finite_differences(name):
    real, fake = batch((3,)), batch((3,), seed=2)

    def value(a):
        critic = Quadratic(a)
        return critic, PENALTIES[name](critic, real, fake, device.generator(0))

    critic, found = value(1.3)
    found.backward()
    h = 1e-6
    numeric = (value(1.3 + h)[1] - value(1.3 - h)[1]).item() / (2 * h)
    assert critic.a.grad.item() == pytest.approx(numeric, rel=1e-5)


def test_a_critic_that_is_flat_has_penalty_1_and_finite_gradients():
    critic = Linear((4,), length=0.0)
    found = penalties.gradient_penalty(critic, batch((4,)), batch((4,)), weight=1)
    found.backward()
    assert found.item() == pytest.approx(1)
    assert bool(critic.w.grad.isfinite().all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_penalties_work_without_grad_mode_and_in_both_precisions(dtype):
    critic = Linear((4,)).to(dtype)
    with torch.no_grad():
        found = penalties.gradient_penalty(critic, batch((4,)).to(dtype), batch((4,)).to(dtype))
    assert found.dtype == dtype and found.item() == pytest.approx(40, rel=1e-5)


@pytest.mark.parametrize("name", PENALTIES)
def test_batch_norm_is_refused_while_it_mixes_examples(name):
    D = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LeakyReLU(), nn.Linear(4, 1))
    real = torch.randn(6, 3)
    with pytest.raises(ValueError, match="batch norm"):
        PENALTIES[name](D, real, real, None)
    with pytest.raises(ValueError, match="batch norm"):  # behind a function, too
        PENALTIES[name](lambda x: 2 * D(x), real, real, None)
    D.eval()  # then it is a fixed scale and shift, and every example is on its own
    assert bool(PENALTIES[name](D, real, real, None).isfinite())


def test_why_batch_norm_is_refused_the_slope_of_one_score_reaches_other_examples():
    D = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.LeakyReLU(), nn.Linear(4, 1))
    x = torch.randn(6, 3, generator=device.generator(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(D(x)[0].sum(), x)
    assert float(gradient[1:].abs().max()) > 0


BAD_SCORES = {
    "one number for the batch": lambda x: x.sum(),
    "a vector per example": lambda x: x,
    "nothing": lambda x: None,
    "no gradient": lambda x: x.detach().sum(1),
    "not of x": lambda x: torch.ones(len(x), requires_grad=True) * 1,
}


@pytest.mark.parametrize("bad", BAD_SCORES)
@pytest.mark.parametrize("name", PENALTIES)
def test_scores_that_are_not_one_per_example_are_refused(name, bad):
    with pytest.raises(ValueError, match="score: expected"):
        PENALTIES[name](BAD_SCORES[bad], torch.rand(4, 3), torch.rand(4, 3), None)


@pytest.mark.parametrize(
    "bad", [torch.zeros(0, 3), torch.zeros(4), torch.zeros(4, 3, dtype=torch.int64)]
)
@pytest.mark.parametrize("name", PENALTIES)
def test_batches_that_are_none_are_refused(name, bad):
    with pytest.raises(ValueError, match="real: expected"):
        PENALTIES[name](Quadratic(), bad, bad, None)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda x: penalties.gradient_penalty(Quadratic(), x, x[:3]), "fake"),
        (lambda x: penalties.gradient_penalty(Quadratic(), x, x, weight=-1), "weight"),
        (lambda x: penalties.gradient_penalty(Quadratic(), x, x, weight=math.nan), "weight"),
        (lambda x: penalties.dragan_penalty(Quadratic(), x, x, weight=-1), "weight"),
        (lambda x: penalties.dragan_penalty(Quadratic(), x, x, spread=-1), "spread"),
        (lambda x: penalties.r1(-1), "gamma"),
        (lambda x: penalties.r1(math.inf), "gamma"),
        (lambda x: penalties.pulling_away(x[:1]), "codes"),
        (lambda x: penalties.pulling_away(x[0]), "codes"),
        (lambda x: penalties.pulling_away(x.long()), "codes"),
        (lambda x: penalties.repelling(Quadratic(), x, x), "discriminator"),
        (lambda x: penalties.repelling(Quadratic(), x, x, weight=-1), "weight"),
    ],
)
def test_wrong_arguments_are_named(call, named):
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        call(batch((3,)))


# The pulling-away term


def test_pulling_away_is_1_for_opposites_and_0_for_orthogonals():
    e = tensor([0.6, -0.8, 0.0])
    assert penalties.pulling_away(torch.stack([e, -e] * 4)).item() == pytest.approx(1)
    assert penalties.pulling_away(5 * torch.eye(7, dtype=torch.float64)).item() == 0
    assert penalties.pulling_away(torch.zeros(3, 4)).item() == 0


@settings(max_examples=30)
@given(st.integers(2, 9), st.integers(1, 6), st.integers(0, 99))
def test_pulling_away_is_the_mean_over_pairs(n, k, seed):
    codes = batch((k,), n, seed)
    cosines = [
        torch.nn.functional.cosine_similarity(codes[i], codes[j], dim=0).item()
        for i in range(n)
        for j in range(n)
        if i != j
    ]
    found = penalties.pulling_away(codes)
    assert found.item() == pytest.approx(sum(c * c for c in cosines) / len(cosines))
    assert penalties.pulling_away(3 * codes.flip(0)).item() == pytest.approx(found.item())


def test_the_repelling_term_turns_the_generators_codes_apart():
    D = energy.for_points(norm="euclidean", generator=device.generator(0))
    points = torch.randn(16, 2, generator=device.generator(1)).requires_grad_()
    term = objectives.ebgan.generator_penalty(D, points.detach(), points)
    assert term.item() == pytest.approx(0.1 * penalties.pulling_away(D.encode(points)).item())
    term.backward()
    assert float(points.grad.abs().sum()) > 0


# The losses at known points


@given(NUMBERS, NUMBERS)
def test_least_squares_values_and_slopes(real, fake):
    r, f = tensor(real), tensor(fake, requires_grad=True)
    expected = sum((v - 1) ** 2 for v in real) / len(real) / 2
    expected += sum(v**2 for v in fake) / len(fake) / 2
    assert objectives.lsgan.discriminator_loss(r, f).item() == pytest.approx(expected)
    g_loss = objectives.lsgan.generator_loss(f)
    assert g_loss.item() == pytest.approx(sum((v - 1) ** 2 for v in fake) / len(fake) / 2)
    assert torch.allclose(slopes_of(objectives.lsgan.generator_loss, f), (f - 1) / len(fake))


@given(NUMBERS, NUMBERS)
def test_wasserstein_values_and_slopes(real, fake):
    r, f = tensor(real, requires_grad=True), tensor(fake, requires_grad=True)
    for objective in (objectives.wgan, objectives.wgan_gp):
        loss = objective.discriminator_loss(r, f)
        expected = sum(fake) / len(fake) - sum(real) / len(real)
        assert loss.item() == pytest.approx(expected, abs=1e-9)
        r_slope, f_slope = torch.autograd.grad(loss, [r, f])
        assert torch.allclose(r_slope, torch.full_like(r, -1 / len(real)))
        assert torch.allclose(f_slope, torch.full_like(f, 1 / len(fake)))
        assert torch.allclose(
            slopes_of(objective.generator_loss, f), torch.full_like(f, -1 / len(fake))
        )


@given(ENERGIES, ENERGIES, st.floats(0.1, 30))
def test_margin_values_and_slopes(real, fake, margin):
    r, f = tensor(real), tensor(fake, requires_grad=True)
    loss = partial(objectives.margin_loss, margin=margin)
    hinge = sum(max(0.0, margin - v) for v in fake) / len(fake)
    assert loss(r, f).item() == pytest.approx(sum(real) / len(real) + hinge)
    expected = torch.where(f < margin, tensor(-1 / len(fake)), tensor(0.0))
    away = (f - margin).abs() > 1e-9  # at the margin itself either slope will do
    assert torch.allclose(slopes_of(lambda s: loss(r, s), f)[away], expected[away])
    assert objectives.ebgan.generator_loss(f).item() == pytest.approx(sum(fake) / len(fake))


def test_the_margin_is_taken_per_example_and_not_of_the_mean():
    found = objectives.margin_loss(torch.zeros(2), tensor([0.0, 3.0]), margin=1.0)
    assert found.item() == pytest.approx(0.5)  # of the mean energy, 1.5, it would be 0


@given(ENERGIES, ENERGIES, st.floats(0, 1))
def test_balanced_values(real, fake, k):
    found = objectives.began.discriminator_loss(tensor(real), tensor(fake), k)
    expected = sum(real) / len(real) - k * sum(fake) / len(fake)
    assert found.item() == pytest.approx(expected, abs=1e-9)
    g_loss = objectives.began.generator_loss(tensor(fake))
    assert g_loss.item() == pytest.approx(sum(fake) / len(fake))


def test_dragan_is_the_log_loss_with_a_penalty():
    assert objectives.dragan.discriminator_loss is objectives.discriminator_loss
    assert objectives.dragan.generator_loss is objectives.non_saturating_generator_loss


@pytest.mark.parametrize("objective", ZOO, ids=lambda o: o.name)
@pytest.mark.parametrize("bad", [torch.zeros(0), torch.zeros(3, dtype=torch.int64)])
def test_losses_refuse_what_is_no_batch_of_scores(objective, bad):
    k = (0.5,) if objective.controller else ()
    for real, fake in ((bad, torch.zeros(3)), (torch.zeros(3), bad)):
        with pytest.raises(ValueError, match="expected a non-empty floating-point tensor"):
            objective.discriminator_loss(real, fake, *k)
    with pytest.raises(ValueError, match="expected a non-empty floating-point tensor"):
        objective.generator_loss(bad)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda e: objectives.margin_loss(-e, e), "real_energies"),
        (lambda e: objectives.margin_loss(e, -e), "fake_energies"),
        (lambda e: objectives.margin_loss(e, e, margin=0.0), "margin"),
        (lambda e: objectives.energy_loss(-e), "fake_energies"),
        (lambda e: objectives.balanced_loss(-e, e, 0.5), "real_energies"),
        (lambda e: objectives.balanced_loss(e, -e, 0.5), "fake_energies"),
        (lambda e: objectives.balanced_loss(e, e, 1.5), "k"),
        (lambda e: objectives.balanced_loss(e, e, math.nan), "k"),
        (lambda e: objectives.clip_weights(nn.Linear(1, 1), c=0.0), "c"),
    ],
)
def test_wrong_energies_and_settings_are_named(call, named):
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        call(torch.ones(3))


def test_half_precision_scores_are_summed_in_single():
    r = torch.full((4096,), 1.001, dtype=torch.bfloat16)
    for objective in ZOO:
        k = (0.5,) if objective.controller else ()
        assert objective.discriminator_loss(r, r, *k).dtype == torch.float32
        assert objective.generator_loss(r).dtype == torch.float32


# What the best discriminator is


def densities():
    x = torch.linspace(-4, 4, 25, dtype=torch.float64)
    p, q = Normal(0.0, 1.0).log_prob(x).exp(), Normal(1.5, 0.7).log_prob(x).exp()
    return x, p, q


@pytest.mark.parametrize(("a", "b"), [(0.0, 1.0), (-1.0, 1.0)])
def test_the_best_table_of_scores_for_least_squares(a, b):
    _, p, q = densities()
    scores = torch.zeros_like(p, requires_grad=True)
    loss = partial(objectives.least_squares_discriminator_loss, a=a, b=b)

    def expected_loss():
        # Per grid point: a share p of real samples there, a share q of generated ones.
        at = scores.unbind()
        none = torch.full((1,), b, dtype=p.dtype), torch.full((1,), a, dtype=p.dtype)
        return sum(
            (pi * loss(s[None], none[1]) + qi * loss(none[0], s[None])) / (pi + qi)
            for s, pi, qi in zip(at, p, q, strict=True)
        )

    optimizer = torch.optim.LBFGS([scores], line_search_fn="strong_wolfe", max_iter=10)

    def closure():
        optimizer.zero_grad()
        value = expected_loss()
        value.backward()
        return value

    optimizer.step(closure)
    assert torch.allclose(scores.detach(), (b * p + a * q) / (p + q), atol=1e-6)


@pytest.mark.parametrize(("mean", "other"), [(0.0, 3.0), (-1.0, 0.5), (2.0, 2.0)])
def test_the_critic_of_slope_1_finds_the_earth_movers_distance(mean, other):
    # Shifted copies: the distance is the shift, and the critic -x or x attains it.
    real = mean + batch((1,), 500)
    fake = other + batch((1,), 500)
    sign = 1.0 if mean >= other else -1.0
    loss = objectives.wgan.discriminator_loss(sign * real, sign * fake)
    assert -loss.item() == pytest.approx(abs(mean - other))


def test_no_critic_of_slope_1_earns_more_and_a_trained_one_comes_close():
    # Two sets of points on a line, sorted: the earth mover pairs them in order.
    g = device.generator(0)
    real = torch.randn(200, 1, generator=g)
    fake = 0.5 * torch.randn(200, 1, generator=g) + 2
    distance = (real.sort(dim=0).values - fake.sort(dim=0).values).abs().mean().item()
    # A critic on a grid, with each step's slope held in [-1, 1] by construction.
    raw = torch.zeros(400, requires_grad=True)

    def critic(x):
        heights = torch.cat([torch.zeros(1), (raw.clamp(-1, 1) * 0.025).cumsum(0)])
        place = ((x.flatten() + 5) / 0.025).clamp(0, 399.999)
        left = place.long()
        return heights[left] + (place - left) * (heights[left + 1] - heights[left])

    optimizer = torch.optim.SGD([raw], lr=20.0)
    for _ in range(200):
        loss = objectives.wgan.discriminator_loss(critic(real), critic(fake))
        assert -loss.item() <= distance + 1e-4
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            raw.clamp_(-1, 1)
    assert -loss.item() == pytest.approx(distance, rel=0.01)


# Energies


@pytest.mark.parametrize("norm", ["euclidean", "absolute"])
def test_energies_are_the_norm_of_the_reconstructions_error(norm):
    for net, x in (
        (energy.for_points(3, norm=norm), torch.randn(5, 3)),
        (energy.for_digits(channels=2, code=4, norm=norm), torch.rand(5, 1, 28, 28)),
    ):
        error = (x - net.reconstruct(x)).flatten(1)
        expected = {"euclidean": error.square().sum(1).sqrt(), "absolute": error.abs().mean(1)}
        found = net(x)
        assert found.shape == (5,) and torch.allclose(found, expected[norm], atol=1e-6)
        assert bool((found >= 0).all())


def test_codes_have_the_size_that_was_asked_for():
    assert energy.for_points(2, code=3, norm="absolute").encode(torch.rand(4, 2)).shape == (4, 3)
    net = energy.for_digits(code=7, channels=2, norm="euclidean")
    assert net.encode(torch.rand(4, 1, 28, 28)).shape == (4, 7)
    assert net.reconstruct(torch.rand(4, 1, 28, 28)).shape == (4, 1, 28, 28)


def test_a_perfect_reconstruction_has_energy_0_and_a_finite_gradient():
    net = energy.AutoencoderDiscriminator(nn.Identity(), nn.Identity(), (3,), norm="euclidean")
    x = torch.rand(4, 3, requires_grad=True)
    net(x).sum().backward()
    assert float(net(x).detach().abs().max()) == 0 and bool(x.grad.isfinite().all())


def test_signals_keep_their_size_through_a_fresh_autoencoder():
    net = energy.for_digits(norm="euclidean", generator=device.generator(0))
    x = torch.randn(64, 1, 28, 28, generator=device.generator(1))
    for layer in net.encoder:
        x = layer(x)
        assert 0.2 < x.square().mean().item() < 5, layer
    for layer in list(net.decoder)[:-1]:
        x = layer(x)
        assert 0.2 < x.square().mean().item() < 8, layer


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: energy.for_points(0, norm="euclidean"), "inputs"),
        (lambda: energy.for_points(code=0, norm="euclidean"), "code"),
        (lambda: energy.for_points(width=0, norm="euclidean"), "width"),
        (lambda: energy.for_digits(code=0, norm="euclidean"), "code"),
        (lambda: energy.for_digits(channels=0, norm="euclidean"), "channels"),
        (lambda: energy.for_points(norm="squared"), "norm"),
        (lambda: energy.for_points(norm="euclidean")(torch.rand(4, 3)), "x"),
        (lambda: energy.for_points(norm="euclidean")(torch.rand(0, 2)), "x"),
        (lambda: energy.for_points(norm="euclidean")(torch.ones(4, 2).long()), "x"),
        (lambda: energy.for_digits(norm="euclidean").encode(torch.rand(4, 784)), "x"),
        (
            lambda: energy.AutoencoderDiscriminator(
                nn.Identity(), nn.Linear(2, 3), (2,), norm="absolute"
            )(torch.rand(4, 2)),
            "decoder",
        ),
    ],
)
def test_energies_name_what_is_wrong(call, named):
    with pytest.raises(ValueError, match=f"^{named}: expected"):
        call()


# BEGAN's controller


def test_k_stays_put_at_the_equilibrium():
    controller = objectives.Equilibrium(0.4, rate=0.3, k=0.25)
    controller.update(2.0, 0.8)
    assert controller.k == pytest.approx(0.25)
    assert controller.measures() == {"k": controller.k, "M": pytest.approx(2.0)}


@given(st.floats(0, 5), st.floats(0, 5), st.floats(0, 1), st.floats(0.05, 1), st.floats(1e-3, 9))
def test_k_moves_by_the_formula_and_stays_between_0_and_1(real, fake, k, gamma, rate):
    controller = objectives.Equilibrium(gamma, rate=rate, k=k)
    controller.update(real, fake)
    assert controller.k == pytest.approx(min(1, max(0, k + rate * (gamma * real - fake))))
    assert controller.measures()["M"] == pytest.approx(real + abs(gamma * real - fake))


def test_k_rises_while_generated_samples_are_too_well_reconstructed():
    controller = objectives.Equilibrium(0.5, rate=0.1)
    controller.update(1.0, 0.2)
    assert controller.k == pytest.approx(0.03)
    controller.update(1.0, 0.6)
    assert controller.k == pytest.approx(0.02)


def test_a_controller_goes_on_from_its_state_and_each_training_has_its_own():
    first, second = objectives.began.controller(), objectives.began.controller()
    first.update(400.0, 10.0)
    assert first.k > 0 and second.k == 0
    second.load_state_dict(first.state_dict())
    assert second.k == first.k


@pytest.mark.parametrize(
    "bad", [{"gamma": 0.0}, {"gamma": 1.5}, {"rate": 0.0}, {"k": -0.1}, {"k": 1.1}]
)
def test_controllers_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="gamma in"):
        objectives.Equilibrium(**bad)


# One loop for them all


def play(objective, *, rounds=3, seed=0, k=2):
    g = device.generator(seed)
    G = networks.mlp(2, 2, width=8, generator=g)
    D = (
        energy.for_points(width=8, norm="euclidean", generator=g)
        if objective.scores == "energies"
        else networks.mlp(2, 1, width=8, generator=g)
    )
    steps = training.train_gan(
        G,
        D,
        training.batches(torch.randn(64, 2, generator=g), 16, g),
        lambda n: torch.randn(n, 2, generator=g),
        objective=objective,
        g_optimizer=torch.optim.Adam(G.parameters(), lr=1e-2),
        d_optimizer=torch.optim.Adam(D.parameters(), lr=1e-2),
        k=k,
        rng=g,
    )
    return G, D, [next(steps) for _ in range(rounds)]


@pytest.mark.parametrize("objective", ZOO, ids=lambda o: o.name)
def test_one_seed_one_result(objective):
    (G1, D1, steps1), (G2, D2, steps2) = play(objective), play(objective)
    assert steps1 == steps2
    for one, two in ((G1, G2), (D1, D2)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True)
        )
    assert play(objective, seed=1)[2] != steps1


def test_the_clip_holds_after_every_step():
    for c in (0.01, 0.2):
        objective = replace(objectives.wgan, constrain=partial(objectives.clip_weights, c=c))
        for rounds in range(1, 4):
            _, D, _ = play(objective, rounds=rounds)
            largest = max(float(p.detach().abs().max()) for p in D.parameters())
            assert largest == pytest.approx(c)
    _, D, _ = play(objectives.wgan_gp)
    assert max(float(p.detach().abs().max()) for p in D.parameters()) > 0.2


def test_the_record_shows_k_and_the_convergence_measure():
    _, _, steps = play(
        replace(objectives.began, controller=partial(objectives.Equilibrium, rate=0.1))
    )
    assert all(0 <= step.measures["k"] <= 1 and step.measures["M"] > 0 for step in steps)


# The experiment


def test_the_experiment_runs_all_eight_with_three_seeds():
    rows = zoo.cells()
    assert len(zoo.ENTRIES) == 8 and len(rows) == 24
    for name in zoo.ENTRIES:
        assert [row["seed"] for row in rows if row["objective"] == name] == [0, 1, 2]


@pytest.mark.parametrize("name", list(zoo.ENTRIES))
def test_every_entry_of_the_experiment_trains(name):
    digits = torch.rand(64, 1, 28, 28, generator=device.generator(0))
    first, second = (zoo.fit(name, digits, seed=0, rounds=1)[0] for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b) and bool(a.isfinite().all())
    drawn = zoo.draw(first, 4, device.generator(1))
    assert drawn.shape == (4, 1, 28, 28) and 0 <= drawn.min() <= drawn.max() <= 1


def test_a_cell_is_measured_and_its_digits_are_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(zoo, "PICTURES", tmp_path / "zoo.safetensors")
    monkeypatch.setattr(zoo, "FAKES", 64)
    quick = replace(zoo.ENTRIES["BEGAN"], rounds=2)
    monkeypatch.setitem(zoo.ENTRIES, "BEGAN", quick)
    first, second = (zoo.measure(objective="BEGAN", seed=0) for _ in range(2))
    seconds = [row.pop("training seconds") for row in (first, second)]
    assert first == second and all(value > 0 for value in seconds)
    assert first["rounds"] == 2 and 0 <= first["k"] <= 1 and first["M"] > 0
    assert all(math.isfinite(value) for value in first.values())
    kept = zoo.pictures()
    assert list(kept) == ["BEGAN"] and kept["BEGAN"].shape == (16, 1, 28, 28)
    assert 0 <= kept["BEGAN"].min() <= kept["BEGAN"].max() <= 1


def test_a_run_that_diverges_is_reported_as_it_is(monkeypatch):
    def diverge(*_args, **_kwargs):
        raise training.TrainingDivergedError(training.Step(7, math.nan, 0.0, 0.0, 0.0))

    monkeypatch.setattr(zoo, "fit", diverge)
    found = zoo.measure(objective="WGAN", seed=1)
    assert found["diverged in round"] == 7 and not any("Fréchet" in key for key in found)


def test_the_recorded_table_is_complete():
    rows = experiments.load("zoo")
    assert [(row["objective"], row["seed"]) for row in rows] == [
        (cell["objective"], cell["seed"]) for cell in zoo.cells()
    ]
    assert all(row["rounds"] == zoo.ENTRIES[row["objective"]].rounds for row in rows)
    assert set(zoo.pictures()) == set(zoo.ENTRIES)
