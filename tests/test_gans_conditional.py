"""CGAN, AC-GAN and InfoGAN against closed forms: losses, bounds, gradients, and who learns from what."""

from __future__ import annotations

import copy
import dataclasses
import math
from functools import partial
from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib.gans import acgan, cgan, game, infogan, objectives, training
from course_lib.recipes import acgan_digits, cgan_digits, infogan_digits

CODE = infogan.Code(categories=3, continuous=2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def weights_of(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


# The label reaches both players of a CGAN.


def test_generator_is_its_network_on_noise_and_one_hot_label():
    G, _ = cgan.point_players(3, generator=seeded(0))
    z, y = torch.randn(5, 2, generator=seeded(1)), torch.tensor([0, 2, 1, 1, 0])
    row = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 0], [1, 0, 0]])
    assert torch.equal(G(z, y), G.network(torch.cat([z, row], 1)))
    assert torch.equal(G(z, y), G.blend(z, row))


def test_score_of_a_projection_discriminator_is_its_formula():
    _, D = cgan.point_players(3, generator=seeded(0))
    x, y = torch.randn(5, 2, generator=seeded(1)), torch.tensor([0, 2, 1, 1, 0])
    phi = D.trunk(x).detach()
    for i in range(5):
        psi = float(F.linear(phi[i], *D.psi.parameters()).detach())
        assert float(D(x, y)[i].detach()) == pytest.approx(
            psi + float(phi[i] @ D.e.weight[y[i]].detach()), abs=1e-5
        )


def test_projection_can_hold_the_best_logit_of_gaussian_classes():
    # Real points of class y are N(m_y, 1), forged ones N(0, 1): with phi(x) = x the best logit,
    # log p(x | y) - log q(x), is <m_y, x> - |m_y|^2 / 2, and all m_y have length 1 here.
    m = game.ring_centres(3)
    D = cgan.Discriminator(nn.Identity(), 2, 3)
    with torch.no_grad():
        D.psi.weight.zero_()
        D.psi.bias.fill_(-0.5)
        D.e.weight.copy_(m)
    x, y = 2 * torch.randn(50, 2, generator=seeded(0)), torch.arange(50) % 3

    def log_density(mean):
        return torch.distributions.Normal(mean, 1.0).log_prob(x).sum(dim=1)

    best = log_density(m[y]) - log_density(torch.zeros(2))
    assert torch.allclose(D(x, y), best, atol=1e-5)


@pytest.mark.parametrize("players", [cgan.point_players, cgan.digit_players])
def test_the_label_changes_sample_and_score(players):
    G, D = players(classes=4, generator=seeded(0))
    G.eval(), D.eval()
    z = torch.randn(6, 2 if players is cgan.point_players else 32, generator=seeded(1))
    zero, one = torch.zeros(6, dtype=torch.int64), torch.ones(6, dtype=torch.int64)
    assert not torch.allclose(G(z, zero), G(z, one))
    x = G(z, zero)
    assert D(x, zero).shape == (6,)
    assert not torch.allclose(D(x, zero), D(x, one))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_digits_are_images_in_range_of_the_asked_precision(dtype):
    G, D = cgan.digit_players(latent=3, channels=4, generator=seeded(0))
    y = torch.tensor([0, 9])
    x = G.to(dtype)(torch.randn(2, 3, dtype=dtype), y)
    assert x.shape == (2, 1, 28, 28) and x.dtype == dtype
    assert bool(((x >= 0) & (x <= 1)).all())
    assert D.to(dtype)(x, y).shape == (2,)
    scores, logits = acgan.digit_players(channels=4)[1].to(dtype)(x)
    assert scores.shape == (2,) and logits.shape == (2, 10)
    scores, answers = infogan.digit_players(CODE, channels=4)[1].to(dtype)(x)
    assert scores.shape == (2,) and answers.shape == (2, CODE.answers)


# AC-GAN's class loss: the softmax once.


def test_class_loss_is_minus_the_log_of_the_right_share():
    logits = torch.randn(7, 4, generator=seeded(0), dtype=torch.float64)
    y = torch.randint(4, (7,), generator=seeded(1))
    shares = [
        math.exp(r[k]) / sum(map(math.exp, r))
        for r, k in zip(logits.tolist(), y.tolist(), strict=True)
    ]
    expected = -sum(map(math.log, shares)) / 7
    assert float(acgan.class_loss(logits, y)) == pytest.approx(expected, rel=1e-9)


def test_class_loss_reaches_zero_and_twice_a_softmax_cannot():
    y = torch.arange(10)
    perfect = 30 * F.one_hot(y, 10).float()
    assert float(acgan.class_loss(perfect, y)) < 1e-4
    # Probabilities without a graph cannot be told from logits: this is where they would end.
    twice = float(acgan.class_loss(perfect.softmax(dim=1), y))
    assert twice == pytest.approx(math.log(1 + 9 / math.e), abs=1e-4)
    assert twice == pytest.approx(1.4612, abs=1e-4)


@pytest.mark.parametrize("wrap", [lambda t: t, lambda t: t.reshape(6, 4), torch.clone])
def test_a_softmax_before_the_loss_is_found_in_the_graph(wrap):
    logits = torch.randn(6, 4, requires_grad=True)
    y = torch.zeros(6, dtype=torch.int64)
    with pytest.raises(ValueError, match="class_logits: expected logits, got probabilities"):
        acgan.class_loss(wrap(logits.softmax(dim=1)), y)
    code = infogan.Code(4, 0)
    with pytest.raises(ValueError, match="answers: expected logits, got probabilities"):
        infogan.log_q(wrap(logits.softmax(dim=1)), F.one_hot(y, 4).float(), code)


# InfoGAN's bound.


@pytest.mark.parametrize("flips", [0, 1, 2])
def test_bound_of_the_best_q_is_the_mutual_information_of_a_noisy_copy(flips):
    # x is c, but for `flips` of 4 x 12 equally likely cases per category, in which it is another one.
    joint = torch.diag(torch.full((4,), 12.0 - 3 * flips)) + flips * (1 - torch.eye(4))
    e = 3 * flips / 12
    noise = -sum(p * math.log(p) for p in (1 - e, *[e / 3] * 3) if p > 0)
    information = math.log(4) - noise
    assert float(infogan.mutual_information(joint)) == pytest.approx(information, abs=1e-9)

    code = infogan.Code(categories=4, continuous=0)
    cases = torch.tensor(
        [(c, x) for c, x in product(range(4), range(4)) for _ in range(int(joint[c, x]))]
    )
    c, x = cases.T
    codes = F.one_hot(c, 4).double()
    best = (joint / 12).log().clamp_min(-60).double()[:, x].T  # log P(c | x)
    bound = infogan.lower_bound(best, codes, code)
    assert float(bound) == pytest.approx(information, abs=1e-9)
    for seed in range(20):
        other = best + torch.randn(best.shape, generator=seeded(seed), dtype=torch.float64)
        table = torch.randn(4, 4, generator=seeded(seed), dtype=torch.float64)[x]
        assert float(infogan.lower_bound(table, codes, code)) < information
        assert float(infogan.log_q(other, codes, code)[0].mean()) <= 0


def test_bound_of_numbers_is_the_information_of_a_gaussian_channel():
    # c ~ N(0, 1), x = c + s noise: I(c; x) = log(1 + 1 / s^2) / 2, and the posterior is a Gaussian.
    s = 0.5
    c, noise = torch.randn(2, 200_000, 1, generator=seeded(0), dtype=torch.float64)
    x = c + s * noise
    posterior = s**2 / (1 + s**2)
    information = 0.5 * math.log(1 + 1 / s**2)
    entropy = 0.5 * math.log(2 * math.pi * math.e)
    mean = x / (1 + s**2)
    for code, answers in (
        (infogan.Code(0, 1, variance=posterior), mean),
        (
            infogan.Code(0, 1),
            torch.cat(
                [mean, torch.full_like(x, math.log(posterior - infogan.LEAST_VARIANCE))], dim=1
            ),
        ),
    ):
        category, numbers = infogan.log_q(answers, c, code)
        assert float(category.abs().max()) == 0
        assert float(numbers.mean()) + entropy == pytest.approx(information, abs=0.01)
        expected = torch.distributions.Normal(mean, posterior**0.5).log_prob(c).flatten()
        assert torch.allclose(numbers, expected)
    # Any other variance is a worse answer, and the bound says so.
    worse = infogan.log_q(mean, c, infogan.Code(0, 1, variance=2 * posterior))[1]
    assert float(worse.mean()) + entropy < information - 0.05


def test_entropy_is_that_of_the_codes_drawn():
    assert infogan.Code(10, 0).entropy() == pytest.approx(math.log(10))
    assert infogan.Code(0, 2).entropy() == pytest.approx(2 * math.log(2))
    c = CODE.sample(30_000, seeded(0))
    CODE.check(c, 30_000)
    assert torch.allclose(c[:, :3].mean(0), torch.full((3,), 1 / 3), atol=0.01)
    assert float(c[:, 3:].abs().max()) <= 1
    assert torch.allclose(c[:, 3:].var(0), torch.full((2,), 1 / 3), atol=0.01)
    # An answer that knows nothing is worth nothing.
    flat = torch.zeros(30_000, 3)
    assert float(infogan.lower_bound(flat, c[:, :3], infogan.Code(3, 0))) == pytest.approx(
        0, abs=1e-5
    )


def test_mutual_information_is_symmetric_and_0_for_independent_variables():
    joint = torch.rand(4, 6, generator=seeded(0), dtype=torch.float64)
    assert torch.isclose(infogan.mutual_information(joint), infogan.mutual_information(joint.T))
    a, b = joint.sum(1), joint.sum(0)
    assert float(infogan.mutual_information(a[:, None] * b)) == pytest.approx(0, abs=1e-12)
    assert float(infogan.mutual_information(torch.eye(5))) == pytest.approx(math.log(5))


def test_information_reaches_the_generator_as_finite_differences_say():
    G, D = infogan.point_players(CODE, width=8, generator=seeded(0))
    G, D = G.double(), D.double()
    z = torch.randn(16, 2, generator=seeded(1), dtype=torch.float64)
    c = CODE.sample(16, seeded(2)).double()
    term = infogan.auxiliary(CODE, weight=1.0, continuous_weight=0.3)

    def loss() -> torch.Tensor:
        return term.weight * term.loss(D(G(z, c))[1], c)

    category, numbers = infogan.log_q(D(G(z, c))[1], c, CODE)
    by_hand = -(category + 0.3 * numbers).mean()
    assert torch.isclose(loss().detach(), by_hand.detach())
    loss().backward()
    for parameter in (*G.parameters(), *D.Q.parameters()):
        place = (0,) * parameter.ndim
        assert parameter.grad.abs().max() > 0
        with torch.no_grad():
            values = []
            for step in (1e-6, -1e-6):
                parameter[place] += step
                values.append(float(loss()))
                parameter[place] -= step
        slope = (values[0] - values[1]) / 2e-6
        assert float(parameter.grad[place]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


# The three games as one loop plays them.

GAMES = {
    "cgan": (partial(cgan.point_players, 4), objectives.non_saturating),
    "acgan": (
        partial(acgan.point_players, 4),
        dataclasses.replace(objectives.non_saturating, auxiliary=acgan.auxiliary()),
    ),
    "infogan": (
        partial(infogan.point_players, infogan.Code(4, 0)),
        dataclasses.replace(
            objectives.non_saturating, auxiliary=infogan.auxiliary(infogan.Code(4, 0))
        ),
    ),
}
CENTRES = game.ring_centres(4, radius=2.0)


def play(name, rounds, *, g_rate=2e-3, d_rate=4e-3, k=1, seed=0):
    """Play a game on four labelled clusters; return the players and the records."""
    players, objective = GAMES[name]
    G, D = players(generator=seeded(seed))
    noise, real = seeded(seed + 1), seeded(seed + 2)

    def batch():
        y = torch.randint(4, (128,), generator=real)
        x = CENTRES[y] + 0.15 * torch.randn(128, 2, generator=real)
        return x if name == "infogan" else (x, y)

    def sample_noise(n):
        z = torch.randn(n, 2, generator=noise)
        if name == "infogan":
            return z, infogan.Code(4, 0).sample(n, noise)
        return z, torch.randint(4, (n,), generator=noise)

    steps = []
    for step in training.train_gan(
        G,
        D,
        iter(batch, None),
        sample_noise,
        objective=objective,
        g_optimizer=torch.optim.Adam(G.parameters(), lr=g_rate, betas=(0.5, 0.9)),
        d_optimizer=torch.optim.Adam(D.parameters(), lr=d_rate, betas=(0.5, 0.9)),
        k=k,
    ):
        steps.append(step)
        if step.step == rounds:
            return G, D, steps


@pytest.mark.parametrize("name", GAMES)
def test_one_seed_gives_one_game(name):
    (G, D, steps), (G2, D2, steps2) = play(name, 5), play(name, 5)
    assert steps == steps2
    assert all(map(torch.equal, G.parameters(), G2.parameters()))
    assert all(map(torch.equal, D.parameters(), D2.parameters()))
    assert play(name, 5, seed=7)[2] != steps


@pytest.mark.parametrize("name", GAMES)
def test_a_player_that_stands_still_is_not_touched_by_the_other(name):
    players, _ = GAMES[name]
    for still in ("g_rate", "d_rate"):
        G, D, _ = play(name, 4, **{still: 0.0})
        fresh = dict(zip(("g_rate", "d_rate"), players(generator=seeded(0)), strict=True))
        for rate, player in (("g_rate", G), ("d_rate", D)):
            same = map(torch.equal, weights_of(player), weights_of(fresh[rate]))
            assert all(same) if rate == still else not all(same)


@pytest.mark.parametrize("name, rounds", [("cgan", 150), ("acgan", 250)])
def test_samples_fall_on_the_cluster_that_was_asked_for(name, rounds):
    G, _, _ = play(name, rounds, seed=1)
    y = torch.arange(4).repeat(200)
    with torch.no_grad():
        points = G(torch.randn(800, 2, generator=seeded(9)), y)
    right = torch.cdist(points, CENTRES).argmin(dim=1) == y
    assert float(right.float().mean()) > 0.95
    assert float((points - CENTRES[y]).norm(dim=1).median()) < 0.5


def test_infogan_names_clusters_that_nobody_labelled():
    G, D, steps = play("infogan", 250, seed=1)
    c = F.one_hot(torch.arange(4).repeat(200), 4).float()
    with torch.no_grad():
        points = G(torch.randn(800, 2, generator=seeded(9)), c)
        bound = infogan.lower_bound(D(points)[1], c, infogan.Code(4, 0))
    nearest = torch.cdist(points, CENTRES).argmin(dim=1)
    table = torch.zeros(4, 4).index_put_((c.argmax(1), nearest), torch.ones(800), accumulate=True)
    information = float(infogan.mutual_information(table))
    assert information > 0.75 * math.log(4)
    assert float(bound) > 0.75 * math.log(4)
    assert steps[-1].measures["auxiliary"] < 0.5


def test_the_class_term_joins_the_losses_of_both_players_as_the_paper_says():
    G, D = acgan.point_players(8, generator=seeded(0))
    batch = (torch.randn(32, 2, generator=seeded(1)), torch.arange(32) % 8)
    noise = (torch.randn(32, 2, generator=seeded(2)), (torch.arange(32) * 3) % 8)
    objective = dataclasses.replace(objectives.non_saturating, auxiliary=acgan.auxiliary(0.5))
    (real, real_logits), (fake, fake_logits) = D(batch[0]), D(G(*noise))
    d_loss = objectives.discriminator_loss(real, fake) + 0.5 * (
        acgan.class_loss(real_logits, batch[1]) + acgan.class_loss(fake_logits, noise[1])
    )
    g_loss = objectives.non_saturating_generator_loss(fake) + 0.5 * acgan.class_loss(
        fake_logits, noise[1]
    )
    still = {name: torch.optim.SGD(p.parameters(), lr=0.0) for name, p in (("g", G), ("d", D))}
    step = next(
        training.train_gan(
            G,
            D,
            [batch],
            lambda n: noise,
            objective=objective,
            g_optimizer=still["g"],
            d_optimizer=still["d"],
        )
    )
    assert step.d_loss == pytest.approx(float(d_loss), rel=1e-5)
    assert step.g_loss == pytest.approx(float(g_loss), rel=1e-5)


# What is refused.

Z, Y, X = torch.randn(4, 2), torch.tensor([0, 1, 2, 2]), torch.randn(4, 2)
PG, PD = cgan.point_players(3)
C = CODE.sample(4, seeded(0))
IG, ID = infogan.point_players(CODE)
ANSWERS = torch.randn(4, CODE.answers)

WRONG = {
    "label below 0": (lambda: PG(Z, Y - 1), r"y: expected labels 0..2, got -1..1"),
    "label too large": (lambda: PD(X, Y + 1), r"y: expected labels 0..2, got 1..3"),
    "label of another dtype": (lambda: PG(Z, Y.float()), "y: expected int64"),
    "label one-hot": (lambda: PD(X, F.one_hot(Y, 3)), "y: expected int64 labels of shape"),
    "too few labels": (lambda: PG(Z, Y[:2]), "y: expected int64 labels of shape"),
    "no sample": (lambda: PG(Z[:0], Y[:0]), "N > 0"),
    "noise flat": (lambda: PG(Z[:, 0], Y), "z, weights: expected shapes"),
    "weights of another width": (lambda: PG.blend(Z, torch.ones(4, 2)), "z, weights: expected"),
    "one class": (lambda: cgan.Generator(nn.Identity(), 1), "classes: expected at least 2, got 1"),
    "one class for D": (lambda: cgan.Discriminator(nn.Identity(), 2, 1), "classes: expected at"),
    "no features": (lambda: cgan.Discriminator(nn.Identity(), 0, 3), "features: expected at least"),
    "no outputs": (lambda: cgan.head(3, 0), "outputs: expected at least 1"),
    "trunk of another width": (
        lambda: cgan.Discriminator(nn.Identity(), 5, 3)(X, Y),
        r"trunk: expected features of shape \(4, 5\), got \(4, 2\)",
    ),
    "no channels": (lambda: cgan.DigitTrunk(0), "channels: expected at least 1"),
    "images of another size": (lambda: cgan.DigitTrunk(2)(torch.rand(2, 1, 32, 32)), "x: expected"),
    "no latent": (lambda: cgan.digit_players(latent=0), "latent: expected at least 1"),
    "no latent for points": (lambda: cgan.point_players(3, latent=0), "latent: expected at least"),
    "one class for digits": (lambda: cgan.digit_players(classes=1), "classes: expected at least 2"),
    "one class for points": (lambda: cgan.point_players(1), "classes: expected at least 2"),
    "width 0": (lambda: cgan.point_trunk(2, 0), "expected at least 1"),
    "AC: one class": (lambda: acgan.Discriminator(nn.Identity(), 2, 1), "classes: expected at"),
    "AC: trunk": (lambda: acgan.Discriminator(nn.Identity(), 5, 3)(X), "trunk: expected features"),
    "AC: flat logits": (lambda: acgan.class_loss(torch.randn(4), Y), "class_logits: expected"),
    "AC: one logit": (lambda: acgan.class_loss(torch.randn(4, 1), Y), "class_logits: expected"),
    "AC: whole numbers": (
        lambda: acgan.class_loss(torch.ones(4, 3, dtype=torch.int64), Y),
        "class_logits: expected floating point",
    ),
    "AC: label too large": (
        lambda: acgan.class_loss(torch.randn(4, 2), Y),
        r"y: expected labels 0..1",
    ),
    "AC: empty": (lambda: acgan.class_loss(torch.randn(0, 3), Y[:0]), "N > 0"),
    "AC: negative weight": (lambda: acgan.auxiliary(-1.0), "weight: expected a finite number"),
    "AC: weight NaN": (lambda: acgan.auxiliary(math.nan), "weight: expected a finite number"),
    "Info: one category": (lambda: infogan.Code(1, 2), "categories: expected 0, or at least 2"),
    "Info: empty code": (lambda: infogan.Code(0, 0), "continuous: expected"),
    "Info: negative count": (lambda: infogan.Code(3, -1), "continuous: expected"),
    "Info: variance 0": (lambda: infogan.Code(3, 1, variance=0.0), "variance: expected a positive"),
    "Info: no draw": (lambda: CODE.sample(0, seeded(0)), "n: expected at least 1"),
    "Info: code of another width": (lambda: IG(Z, C[:, :4]), "c: expected floating-point codes"),
    "Info: whole numbers": (lambda: IG(Z, C.long()), "c: expected floating-point codes"),
    "Info: no sample": (lambda: IG(Z[:0], C[:0]), "c: expected"),
    "Info: category not one-hot": (
        lambda: IG(Z, C * 0.5),
        "one-hot category in the first 3 places",
    ),
    "Info: two categories": (
        lambda: IG(Z, torch.cat([torch.ones(4, 2), C[:, 2:]], dim=1)),
        "one-hot category",
    ),
    "Info: NaN category": (lambda: IG(Z, C * math.nan), "one-hot category"),
    "Info: blend": (lambda: IG.blend(Z, C[:2]), "z, c: expected shapes"),
    "Info: answers too short": (
        lambda: infogan.log_q(ANSWERS[:, :-1], C, CODE),
        r"answers: expected floating point of shape \(N, 7\), got torch.float32 \(4, 6\)",
    ),
    "Info: fewer codes": (lambda: infogan.lower_bound(ANSWERS, C[:3], CODE), "c: expected"),
    "Info: trunk": (lambda: infogan.Discriminator(nn.Identity(), 5, CODE)(X), "trunk: expected"),
    "Info: lambda": (lambda: infogan.auxiliary(CODE, weight=-1.0), "weight: expected a finite"),
    "Info: lambda of numbers": (
        lambda: infogan.auxiliary(CODE, continuous_weight=math.inf),
        "continuous_weight: expected a finite",
    ),
    "Info: no latent": (
        lambda: infogan.digit_players(CODE, latent=0),
        "latent: expected at least 1",
    ),
    "Info: no latent for points": (
        lambda: infogan.point_players(CODE, latent=0),
        "latent: expected at least 1",
    ),
    "table: flat": (lambda: infogan.mutual_information(torch.ones(3)), "joint: expected a table"),
    "table: negative": (
        lambda: infogan.mutual_information(torch.tensor([[1.0, -1.0]])),
        "joint: expected a table",
    ),
    "table: NaN": (
        lambda: infogan.mutual_information(torch.full((2, 2), math.nan)),
        "joint: expected a table",
    ),
    "table: zeros": (lambda: infogan.mutual_information(torch.zeros(2, 2)), "zeros only"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_named(case):
    call, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        call()


# What the recipes measure, and that they go on where they were cut short.


def bar(lean: float, thick: int = 1) -> torch.Tensor:
    """Draw a vertical bar, 20 rows high, whose top leans to the right by ``lean`` columns per row."""
    image = torch.zeros(28, 28)
    for row in range(4, 24):
        left = 14 + round(-lean * (row - 14))
        image[row, left : left + thick] = 1.0
    return image[None]


def test_slant_and_width_are_those_of_a_drawn_bar():
    x = torch.stack([bar(0.0), bar(0.5), bar(-0.5), bar(0.5, thick=5)])
    expected = torch.tensor([0.0, 0.5, -0.5, 0.5])
    assert torch.allclose(infogan_digits.slant(x), expected, atol=0.02)
    # The variance of n equally spaced places is (n^2 - 1) / 12.
    widths = infogan_digits.width(x)
    assert float(widths[0]) == pytest.approx(0, abs=1e-3)
    assert float(widths[3]) == pytest.approx(math.sqrt(24 / 399), abs=0.02)
    assert bool(infogan_digits.slant(torch.zeros(2, 1, 28, 28)).isfinite().all())
    with pytest.raises(ValueError, match="x: expected"):
        infogan_digits.slant(torch.rand(2, 3, 28, 28))


def test_matching_finds_a_hidden_permutation_and_correlation_looks_within_categories():
    order = torch.randperm(10, generator=seeded(0))
    category = torch.arange(10).repeat(30)
    match, share = infogan_digits.matching(infogan_digits.counts(category, order[category]))
    assert torch.equal(match, order) and share == 1
    number = torch.randn(300, generator=seeded(1))
    shifted = -2 * number + 50 * category
    assert infogan_digits.correlation(number, shifted, category) == pytest.approx(-1, abs=1e-3)
    other = torch.randn(300, generator=seeded(2))
    assert abs(infogan_digits.correlation(number, other, category)) < 0.2


def test_diversity_is_a_ratio_of_mean_distances():
    y = torch.arange(2).repeat_interleave(40)
    features = torch.randn(80, 3, generator=seeded(0))
    ratio = cgan_digits.diversity(3 * features, y, features, y)
    assert torch.allclose(ratio, torch.full((2,), 3.0))
    assert cgan_digits.diversity(features[:1], y[:1], features, y).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("recipe", [cgan_digits, acgan_digits, infogan_digits])
def test_a_recipe_goes_on_bit_for_bit(recipe, monkeypatch):
    from lightning_fabric import Fabric

    for module in (cgan_digits, infogan_digits):
        monkeypatch.setattr(module, "MEASURED", 3)
    fabric = Fabric(accelerator="cpu", devices=1)
    whole = list(recipe.run(fabric, steps=3))
    run = recipe.run(fabric, steps=3)
    _, cut = next(run), next(run)
    state = copy.deepcopy(cut.state())
    run.close()
    resumed = list(recipe.run(fabric, steps=3, state=state))
    assert [p.text for p in resumed] == [p.text for p in whole[2:]]
    ends = [run[-1].module.state_dict() for run in (whole, resumed)]
    assert all(torch.equal(ends[0][key], ends[1][key]) for key in ends[0])
    assert all(math.isfinite(value) for value in resumed[-1].measures.values())
