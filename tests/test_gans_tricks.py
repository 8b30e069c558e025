"""The remedies against closed forms, plain loops, and what must not change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from course_lib import device, experiments
from course_lib.experiments import ring
from course_lib.gans import game, networks, objectives, training, tricks


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=device.generator(seed), dtype=dtype)


# Label smoothing


def test_the_best_discriminator_of_smoothed_labels_is_nine_tenths_of_the_ratio():
    # A table of scores, one free logit per place, and 100 real and 100 fake samples spread over them.
    real, fake = torch.tensor([1, 9, 40, 30, 20]), torch.tensor([60, 20, 10, 9, 1])
    loss = tricks.smoothed(objectives.non_saturating).discriminator_loss
    logits = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        value = loss(logits.repeat_interleave(real), logits.repeat_interleave(fake))
        value.backward()
        return value

    optimizer.step(closure)
    expected = 0.9 * real.double() / (real + fake)
    assert torch.allclose(logits.detach().sigmoid(), expected, atol=1e-5)


def test_smoothed_loss_is_the_cross_entropy_with_soft_targets():
    real, fake = normal(7, seed=1) * 5, normal(9, seed=2) * 5
    for a in (0.6, 0.9, 1.0):
        expected = F.binary_cross_entropy_with_logits(real, torch.full_like(real, a))
        expected = expected + F.binary_cross_entropy_with_logits(fake, torch.zeros_like(fake))
        found = tricks.smoothed(objectives.minimax, a).discriminator_loss(real, fake)
        assert found.dtype == torch.float64 and torch.allclose(found, expected)


def test_smoothing_is_one_sided_and_leaves_the_generator_alone():
    smooth = tricks.smoothed(objectives.non_saturating)
    real, fake = normal(5, seed=1).requires_grad_(), normal(5, seed=2).requires_grad_()
    (plain,) = torch.autograd.grad(objectives.discriminator_loss(real, fake), fake)
    (found,) = torch.autograd.grad(smooth.discriminator_loss(real, fake), fake)
    assert torch.equal(plain, found)
    assert smooth.generator_loss is objectives.non_saturating.generator_loss
    # An over-confident score of a real sample is pulled back: log(9) is where D is 0.9.
    logit = torch.tensor([math.log(9), 9.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(smooth.discriminator_loss(logit, fake.detach()), logit)
    assert float(slope[0]) == pytest.approx(0, abs=1e-12) and float(slope[1]) > 0.04


def test_smoothing_keeps_what_else_an_objective_has():
    smooth = tricks.smoothed(objectives.dragan)
    assert smooth.penalty is objectives.dragan.penalty and "0.9" in smooth.name
    half = smooth.discriminator_loss(torch.ones(4).bfloat16(), torch.ones(4).bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("target", [0.5, 0.0, -1.0, 1.01, math.nan])
def test_refuses_a_target_that_is_none(target):
    with pytest.raises(ValueError, match="real_target: expected 1/2 < real_target <= 1"):
        tricks.smoothed(objectives.minimax, target)


@pytest.mark.parametrize("objective", [objectives.lsgan, objectives.wgan, objectives.ebgan])
def test_refuses_to_smooth_what_has_no_probabilities(objective):
    with pytest.raises(ValueError, match="objective: expected the log-loss of logits"):
        tricks.smoothed(objective)


# Feature matching


def test_feature_matching_is_the_squared_distance_of_the_means():
    D = networks.mlp(2, 1, width=8, generator=device.generator(0)).double()
    real, fake = normal(6, 2, seed=1), normal(9, 2, seed=2)
    objective = tricks.feature_matching(weight=3.0, features=lambda D, x: D[:-1](x))
    means = [
        [sum(float(D[:-1](x[None])[0, j].detach()) for x in batch) / len(batch) for j in range(8)]
        for batch in (real, fake)
    ]
    expected = 3 * sum((a - b) ** 2 for a, b in zip(*means, strict=True))
    assert float(objective.generator_penalty(D, real, fake).detach()) == pytest.approx(expected)
    assert float(objective.generator_penalty(D, real, real).detach()) == 0
    assert float(objective.generator_loss(torch.ones(4))) == 0
    assert objective.discriminator_loss is objectives.non_saturating.discriminator_loss


def test_feature_matching_uses_the_discriminators_own_features():
    class Judge(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.features(x).sum(1)

        def features(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.tensor([1.0, 10.0], dtype=x.dtype)

    real, fake = torch.zeros(4, 2), torch.ones(4, 2)
    penalty = tricks.feature_matching().generator_penalty
    assert float(penalty(Judge(), real, fake)) == 1 + 100


def test_feature_matching_moves_the_generator_to_the_mean_of_the_data():
    # With f(x) = x only the mean matters, and G is a shift.
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = nn.Parameter(torch.zeros(2))

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return z + self.at

    G, D = Shift(), networks.mlp(2, 1, width=8, generator=device.generator(0))
    real, noise = device.generator(1), device.generator(2)
    centre = torch.tensor([3.0, -1.0])
    steps = training.train_gan(
        G,
        D,
        iter(lambda: centre + torch.randn(256, 2, generator=real), None),
        lambda n: torch.randn(n, 2, generator=noise),
        objective=tricks.feature_matching(features=lambda D, x: x),
        g_optimizer=torch.optim.SGD(G.parameters(), lr=0.2),
        d_optimizer=torch.optim.SGD(D.parameters(), lr=0.01),
    )
    for step in steps:
        if step.step == 40:
            break
    assert torch.allclose(G.at, centre, atol=0.2)


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
def test_refuses_a_weight_that_is_not_positive(weight):
    with pytest.raises(ValueError, match="weight: expected a positive number"):
        tricks.feature_matching(weight=weight)


def test_refuses_a_discriminator_without_features_and_features_without_rows():
    x = torch.zeros(3, 2)
    with pytest.raises(ValueError, match="discriminator: expected one with a method features"):
        tricks.feature_matching().generator_penalty(nn.Linear(2, 1), x, x)
    for wrong in (lambda D, x: x.mean(0), lambda D, x: x.sum(1), lambda D, x: x[:2]):
        with pytest.raises(ValueError, match="features: expected one row per sample"):
            tricks.feature_matching(features=wrong).generator_penalty(nn.Linear(2, 1), x, x)


# Minibatch discrimination


def layer(features: int = 5, kernels: int = 3, dims: int = 2) -> tricks.MinibatchDiscrimination:
    generator = device.generator(0)
    return tricks.MinibatchDiscrimination(features, kernels, dims, generator=generator).double()


def test_minibatch_discrimination_is_the_papers_sum():
    net, f = layer(), normal(6, 5, seed=1)
    T, found = net.T.detach(), net(f).detach()
    for i in range(6):
        for b in range(3):
            o = 0.0
            for j in range(6):
                distance = 0.0
                for c in range(2):
                    M_i = sum(float(f[i, a]) * float(T[a, b, c]) for a in range(5))
                    M_j = sum(float(f[j, a]) * float(T[a, b, c]) for a in range(5))
                    distance += abs(M_i - M_j)
                o += math.exp(-distance)
            assert float(found[i, 5 + b]) == pytest.approx(o, rel=1e-10)
    assert torch.equal(found[:, :5], f)


def test_equal_samples_give_n_and_distant_ones_give_one():
    net = layer()
    assert torch.allclose(net(normal(1, 5).expand(7, 5))[:, 5:], torch.tensor(7.0).double())
    far = 1e4 * torch.eye(5, dtype=torch.float64)
    assert torch.allclose(net(far)[:, 5:], torch.tensor(1.0).double())


def test_the_order_within_the_batch_does_not_matter():
    net, f = layer(), normal(9, 5, seed=1)
    order = torch.randperm(9, generator=device.generator(2))
    assert torch.allclose(net(f[order]), net(f)[order], rtol=1e-12)


def test_fakes_do_not_change_what_is_said_of_real_samples():
    # In train_gan each gets a batch of its own: D's answer on real data is that of real data alone.
    seen: list[torch.Tensor] = []

    class Watched(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.detach().clone())
            return super().forward(x)

    D = Watched(layer(2, 3, 2).float(), nn.Linear(5, 1))
    G = networks.mlp(2, 2, width=4, generator=device.generator(1))
    real = torch.full((6, 2), 100.0)
    step = next(
        training.train_gan(
            G,
            D,
            iter([real]),
            lambda n: normal(n, 2, seed=5, dtype=torch.float32),
            objective=objectives.non_saturating,
            g_optimizer=torch.optim.SGD(G.parameters(), lr=0.0),
            d_optimizer=torch.optim.SGD(D.parameters(), lr=0.0),
        )
    )
    assert [len(x) for x in seen] == [6, 6, 6]
    assert torch.equal(seen[0], real) and not bool((seen[1] == 100).any())
    assert step.real_score == pytest.approx(float(D(real).detach().mean()), rel=1e-5)


def test_minibatch_discrimination_pushes_equal_samples_apart():
    # A judge that only counts neighbours, and takes crowds for fakes: its gradient spreads samples.
    net = layer(2, 8, 2)
    x = (0.01 * normal(12, 2, seed=1)).requires_grad_()
    crowd = net(x)[:, 2:].sum()
    (slope,) = torch.autograd.grad(crowd, x)
    moved = x.detach() - 1e-4 * slope
    assert float(torch.cdist(moved, moved).mean()) > float(torch.cdist(x, x).detach().mean())
    assert bool(net.T.grad is None)
    net(x).sum().backward()
    assert net.T.grad is not None and bool((net.T.grad != 0).any())


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_refuses_sizes_below_one(sizes):
    name = ("features", "kernels", "dims")[sizes.index(0)]
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        tricks.MinibatchDiscrimination(*sizes)


@pytest.mark.parametrize("shape", [(4,), (4, 6), (0, 5), (4, 5, 1)])
def test_refuses_features_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"f: expected shape \(N, 5\)"):
        layer()(torch.zeros(shape, dtype=torch.float64))


# Instance noise


def test_noise_has_the_size_that_was_asked_for_and_stops_in_evaluation():
    noise = tricks.InstanceNoise(0.5, device.generator(0))
    x = torch.full((200, 300), 2.0)
    seen = noise(x)
    assert float((seen - x).mean()) == pytest.approx(0, abs=0.01)
    assert float((seen - x).std()) == pytest.approx(0.5, rel=0.01)
    assert seen.dtype == torch.float32 and noise(x.double()).dtype == torch.float64
    assert noise.eval()(x) is x


def test_noise_is_fresh_each_time_and_the_same_for_the_same_seed():
    first, second = (tricks.InstanceNoise(0.5, device.generator(3)) for _ in range(2))
    x = torch.zeros(4, 3)
    a, b = first(x), first(x)
    assert not torch.equal(a, b)
    assert torch.equal(second(x), a) and torch.equal(second(x), b)


def test_noise_passes_the_gradient_and_can_be_annealed_to_nothing():
    noise = tricks.InstanceNoise(0.5, device.generator(0))
    x = torch.zeros(4, 3, requires_grad=True)
    noise(x).sum().backward()
    assert torch.equal(x.grad, torch.ones(4, 3))
    noise.sigma = 0.0
    assert noise(x) is x


def test_the_judge_sees_noise_on_real_and_fake_and_in_both_players_steps():
    sizes: list[float] = []

    class Judge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sizes.append(float(x.detach().std()))
            return x.mean(1) * self.weight

    class Zero(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(50))

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            return 0 * z + self.weight

    D = nn.Sequential(tricks.InstanceNoise(0.7, device.generator(0)), Judge())
    G = Zero()
    _ = next(
        training.train_gan(
            G,
            D,
            iter([torch.zeros(400, 50)]),
            lambda n: torch.zeros(n, 50),
            objective=objectives.non_saturating,
            g_optimizer=torch.optim.SGD(G.parameters(), lr=0.1),
            d_optimizer=torch.optim.SGD(D.parameters(), lr=0.1),
        )
    )
    assert sizes == pytest.approx([0.7] * 3, rel=0.03)


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_refuses_a_negative_sigma(sigma):
    with pytest.raises(ValueError, match="sigma: expected a number >= 0"):
        tricks.InstanceNoise(sigma, device.generator(0))
    noise = tricks.InstanceNoise(0.1, device.generator(0))
    with pytest.raises(ValueError, match="sigma: expected a number >= 0"):
        noise.sigma = sigma
    assert noise.sigma == 0.1


# All of them in a game


@pytest.mark.parametrize("trick", ["smoothed", "matching", "minibatch", "noise"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_plays_and_one_seed_gives_one_result(trick, dtype):
    def play() -> list[float]:
        weights, noise = device.generator(0), device.generator(1)
        G = networks.mlp(2, 2, width=8, generator=weights).to(dtype)
        D = networks.mlp(2, 1, width=8, generator=weights).to(dtype)
        objective = objectives.non_saturating
        if trick == "smoothed":
            objective = tricks.smoothed(objective)
        elif trick == "matching":
            objective = tricks.feature_matching(objective, features=lambda D, x: D[:-1](x))
        elif trick == "minibatch":
            closeness = tricks.MinibatchDiscrimination(8, 3, 2, generator=weights)
            D = nn.Sequential(*D[:-1], closeness, nn.Linear(11, 1)).to(dtype)
            nn.init.normal_(D[-1].weight, generator=weights)
            nn.init.zeros_(D[-1].bias)
        else:
            D.insert(0, tricks.InstanceNoise(0.5, device.generator(2)))
        before = [parameter.clone() for parameter in G.parameters()]
        centres = game.ring_centres(8)
        records = training.train_gan(
            G,
            D,
            iter(lambda: game.around(centres, 32, 0.05, noise).to(dtype), None),
            lambda n: torch.randn(n, 2, generator=noise).to(dtype),
            objective=objective,
            g_optimizer=torch.optim.Adam(G.parameters(), lr=1e-2),
            d_optimizer=torch.optim.Adam(D.parameters(), lr=1e-2),
        )
        losses = [next(records).g_loss for _ in range(5)]
        moved = zip(G.parameters(), before, strict=True)
        assert all(not torch.equal(now, then) for now, then in moved)
        assert {parameter.dtype for parameter in G.parameters()} == {dtype}
        return losses

    assert play() == play()


def test_a_step_of_one_player_leaves_the_other_alone():
    weights, noise = device.generator(0), device.generator(1)
    G = networks.mlp(2, 2, width=8, generator=weights)
    D = networks.mlp(2, 1, width=8, generator=weights)
    before = [parameter.clone() for parameter in D.parameters()]
    _ = next(
        training.train_gan(
            G,
            D,
            iter([normal(16, 2, dtype=torch.float32)]),
            lambda n: torch.randn(n, 2, generator=noise),
            objective=tricks.feature_matching(features=lambda D, x: D[:-1](x)),
            g_optimizer=torch.optim.SGD(G.parameters(), lr=0.1),
            d_optimizer=torch.optim.SGD(D.parameters(), lr=0.0),
        )
    )
    # D's optimizer had no rate: whatever moved D would have come from G's step.
    assert all(torch.equal(a, b) for a, b in zip(D.parameters(), before, strict=True))


# The recorded table


def test_the_table_shows_the_known_failures_and_cures():
    rows = experiments.load("ring")
    assert len(rows) == len(ring.cells()) == 130

    def modes(objective: str, pace: str, remedy: str = "none") -> list[float]:
        cell = (objective, pace, remedy)
        return [r["modes late"] for r in rows if (r["objective"], r["game"], r["remedy"]) == cell]

    for objective in ("minimax", "non-saturating"):
        pairs = zip(modes(objective, "hasty"), modes(objective, "patient"), strict=True)
        assert all(hasty < patient and patient > 7 for hasty, patient in pairs)
    failing = modes("non-saturating", "hasty")
    for remedy in ("five steps of D", "R1", "labels"):
        cured = modes("non-saturating", "hasty", remedy)
        assert all(a < b for a, b in zip(failing, cured, strict=True))


@pytest.mark.parametrize("remedy", list(ring.REMEDIES))
def test_each_remedy_of_the_table_changes_one_thing(remedy):
    plain = ring.players(
        objectives.non_saturating, "none", device.generator(0), device.generator(1)
    )
    G, D = ring.players(objectives.non_saturating, remedy, device.generator(0), device.generator(1))
    objective = ring.changed(objectives.non_saturating, remedy)

    def kinds(net: nn.Module) -> list[str]:
        return [f"{layer}" for layer in net]

    changes = {
        "G": remedy == "labels" or kinds(G) != kinds(plain[0]),
        "D": remedy == "labels" or kinds(D) != kinds(plain[1]),
        "objective": objective is not objectives.non_saturating,
    }
    expected = {
        "label smoothing": ["objective"],
        "feature matching": ["objective"],
        "R1": ["objective"],
        "minibatch discrimination": ["D"],
        "instance noise": ["D"],
        "batch norm in G": ["G"],
        "batch norm in D": ["D"],
        "labels": ["G", "D"],
    }
    assert [name for name, changed in changes.items() if changed] == expected.get(remedy, [])
    if remedy != "labels":  # the weights that both have are the same
        assert torch.equal(G[0].weight, plain[0][0].weight)
        first = next(layer for layer in D if isinstance(layer, nn.Linear))
        assert torch.equal(first.weight, plain[1][0].weight)
