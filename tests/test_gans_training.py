"""Algorithm 1: who moves when, what stays untouched, how it ends, and that it learns."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_lib.gans import game, networks, objectives, training
from course_lib.gans.objectives import Objective, minimax, non_saturating


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Setup:
    """A small game with everything that ``train_gan`` needs, recording who asks for what."""

    def __init__(self, *, seed: int = 0, lr: float = 0.01, batch: int = 8) -> None:
        self.generator = networks.mlp(2, 2, width=16, generator=seeded(seed))
        self.discriminator = networks.mlp(2, 1, width=16, generator=seeded(seed + 1))
        self.g_optimizer = torch.optim.Adam(self.generator.parameters(), lr=lr)
        self.d_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=lr)
        data = game.around(game.ring_centres(), 512, 0.05, seeded(2))
        self.noise = seeded(3)
        self.events: list[str] = []
        self.batches = self._record(training.batches(data, batch, seeded(4)))

    def _record(self, batches: Iterator[Tensor]) -> Iterator[Tensor]:
        for batch in batches:
            self.events.append("batch")
            yield batch

    def sample_noise(self, n: int) -> Tensor:
        self.events.append("noise")
        return torch.randn(n, 2, generator=self.noise)

    def train(self, objective: Objective = non_saturating, **settings) -> Iterator[training.Step]:
        return training.train_gan(
            self.generator,
            self.discriminator,
            settings.pop("batches", self.batches),
            settings.pop("sample_noise", self.sample_noise),
            objective=objective,
            g_optimizer=self.g_optimizer,
            d_optimizer=self.d_optimizer,
            **settings,
        )


def state(module: nn.Module) -> list[tuple[Tensor, Tensor | None]]:
    return [
        (p.detach().clone(), None if p.grad is None else p.grad.clone())
        for p in module.parameters()
    ]


def same(a: list[tuple[Tensor, Tensor | None]], b: list[tuple[Tensor, Tensor | None]]) -> bool:
    return all(
        torch.equal(p, q) and ((g is None and h is None) or torch.equal(g, h))  # type: ignore[arg-type]
        for (p, g), (q, h) in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("k", [1, 3])
def test_one_round_is_k_discriminator_steps_then_one_generator_step(k):
    setup = Setup()
    setup.d_optimizer.register_step_post_hook(lambda *_: setup.events.append("D"))
    setup.g_optimizer.register_step_post_hook(lambda *_: setup.events.append("G"))
    training_run = setup.train(k=k)
    assert [next(training_run).step, next(training_run).step] == [1, 2]
    assert setup.events == 2 * (["batch", "noise", "D"] * k + ["noise", "G"])


def test_a_step_of_one_player_leaves_the_other_as_it_was():
    setup = Setup()
    before: dict[str, list] = {}

    checks = []
    # The generator may not change between its own steps, the discriminator not between the start of
    # G's step and the end of it.
    last_generator: list = []

    def after_g(*_: object) -> None:
        checks.append(same(before["D seen by G"], state(setup.discriminator)))
        last_generator[:] = [state(setup.generator)]

    def after_d(*_: object) -> None:
        before["D seen by G"] = state(setup.discriminator)
        if last_generator:
            checks.append(same(last_generator[0], state(setup.generator)))

    setup.d_optimizer.register_step_post_hook(after_d)
    setup.g_optimizer.register_step_post_hook(after_g)
    for step in setup.train(k=2):
        if step.step == 4:
            break
    assert len(checks) == 4 + 2 * 3 and all(checks)


def test_the_first_updates_are_those_of_the_paper():
    setup = Setup(lr=0.1)
    setup.g_optimizer = torch.optim.SGD(setup.generator.parameters(), lr=0.1)
    setup.d_optimizer = torch.optim.SGD(setup.discriminator.parameters(), lr=0.1)
    G, D = copy.deepcopy(setup.generator), copy.deepcopy(setup.discriminator)
    real = torch.randn(8, 2, generator=seeded(7))
    z1, z2 = torch.randn(2, 8, 2, generator=seeded(8))
    noises = iter([z1, z2])
    record = next(setup.train(minimax, batches=[real], sample_noise=lambda n: next(noises)))
    # The value of the game, written out with probabilities; D climbs it and G goes down.
    value = (
        torch.log(torch.sigmoid(D(real))).mean()
        + torch.log(1 - torch.sigmoid(D(G(z1).detach()))).mean()
    )
    scores = float(D(real).detach().mean()), float(D(G(z1)).detach().mean())
    for parameter, grad in zip(
        D.parameters(), torch.autograd.grad(value, list(D.parameters())), strict=True
    ):
        parameter.data += 0.1 * grad
    lost = torch.log(1 - torch.sigmoid(D(G(z2)))).mean()
    for parameter, grad in zip(
        G.parameters(), torch.autograd.grad(lost, list(G.parameters())), strict=True
    ):
        parameter.data -= 0.1 * grad
    for mine, theirs in ((G, setup.generator), (D, setup.discriminator)):
        for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
            assert torch.allclose(a, b, atol=1e-6)
    assert record.d_loss == pytest.approx(-float(value.detach()), rel=1e-5)
    assert record.g_loss == pytest.approx(float(lost.detach()), rel=1e-5)
    assert (record.real_score, record.fake_score) == pytest.approx(scores, rel=1e-4)


def test_requires_grad_and_mode_are_as_promised():
    setup = Setup()
    fixed = next(setup.discriminator.parameters())
    fixed.requires_grad_(False)
    training_run = setup.train()
    next(training_run)
    assert not fixed.requires_grad
    assert all(p.requires_grad for p in list(setup.discriminator.parameters())[1:])
    setup.generator.eval()
    next(training_run)
    assert setup.generator.training and setup.discriminator.training
    with pytest.raises(RuntimeError), training.frozen(setup.discriminator):
        assert not any(p.requires_grad for p in setup.discriminator.parameters())
        raise RuntimeError
    assert all(p.requires_grad for p in list(setup.discriminator.parameters())[1:])


def test_the_same_seed_gives_the_same_run_with_or_without_fabric():
    runs = []
    for fabric in (None, None, Fabric(accelerator="cpu", devices=1)):
        setup = Setup()
        records = [step for step, _ in zip(setup.train(fabric=fabric, k=2), range(5), strict=False)]
        runs.append((records, state(setup.generator), state(setup.discriminator)))
    for records, generator, discriminator in runs[1:]:
        assert records == runs[0][0]
        assert same(generator, runs[0][1]) and same(discriminator, runs[0][2])


def test_bfloat16_precision_trains_and_returns_to_float32_weights():
    setup = Setup()
    for step in setup.train(fabric=Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")):
        assert math.isfinite(step.g_loss)
        if step.step == 3:
            break
    assert all(p.dtype == torch.float32 for p in setup.generator.parameters())


@pytest.mark.parametrize(("n", "k", "rounds"), [(0, 1, 0), (5, 1, 5), (5, 2, 2), (1, 3, 0)])
def test_it_ends_when_the_batches_do(n, k, rounds):
    setup = Setup()
    steps = list(setup.train(batches=[torch.randn(8, 2) for _ in range(n)], k=k))
    assert [step.step for step in steps] == list(range(1, rounds + 1))


def test_a_penalty_joins_the_discriminators_loss_and_sees_detached_batches():
    seen = []

    def penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        seen.append((real.shape, fake.shape, real.requires_grad, fake.requires_grad))
        return 3.0 * sum((p**2).sum() for p in discriminator.parameters())

    plain, with_penalty = Setup(), Setup()
    extra = float(penalty(plain.discriminator, torch.zeros(1), torch.zeros(1)).detach())
    seen.clear()
    objective = Objective(
        "test", minimax.discriminator_loss, minimax.generator_loss, penalty=penalty
    )
    a, b = next(plain.train(minimax)), next(with_penalty.train(objective))
    assert b.d_loss - a.d_loss == pytest.approx(extra, rel=1e-4)
    assert seen == [(torch.Size([8, 2]), torch.Size([8, 2]), False, False)]


def test_a_loss_that_is_not_finite_stops_with_its_record():
    setup = Setup()
    batches = [torch.randn(8, 2), torch.full((8, 2), math.nan), torch.randn(8, 2)]
    training_run = setup.train(batches=batches)
    assert next(training_run).step == 1
    with pytest.raises(training.TrainingDivergedError, match="step 2: d_loss=nan") as caught:
        next(training_run)
    assert caught.value.step.step == 2 and math.isnan(caught.value.step.d_loss)


def test_wrong_arguments_are_named():
    setup = Setup()
    with pytest.raises(ValueError, match="k: expected at least 1"):
        setup.train(k=0)
    with pytest.raises(ValueError, match="batches: expected non-empty tensors"):
        next(setup.train(batches=[torch.zeros(0, 2)]))
    with pytest.raises(ValueError, match="batches: expected non-empty tensors.*list"):
        next(setup.train(batches=[[torch.zeros(4, 2)]]))
    setup.g_optimizer, setup.d_optimizer = setup.d_optimizer, setup.g_optimizer
    with pytest.raises(ValueError, match="g_optimizer"):
        setup.train()


def test_a_batch_of_one_is_refused_only_where_batch_norm_needs_more():
    setup = Setup()
    next(setup.train(batches=[torch.randn(1, 2)]))
    setup.generator = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    setup.g_optimizer = torch.optim.Adam(setup.generator.parameters())
    with pytest.raises(ValueError, match="batch of 1"):
        next(setup.train(batches=[torch.randn(1, 2)]))


def test_batches_show_every_sample_once_per_pass_and_drop_the_rest():
    x = torch.arange(10)
    stream = training.batches(x, 3, seeded())
    drops = set()
    for _ in range(20):
        one_pass = torch.cat([next(stream) for _ in range(3)])
        assert len(set(one_pass.tolist())) == 9
        drops |= set(x.tolist()) - set(one_pass.tolist())
    assert len(drops) > 5  # not always the same one
    again = training.batches(x, 3, seeded())
    first = training.batches(x, 3, seeded())
    assert all(torch.equal(next(again), next(first)) for _ in range(7))
    for size in (0, 11):
        with pytest.raises(ValueError, match="batch_size"):
            training.batches(x, size, seeded())


class Quadratic(nn.Module):
    """A discriminator whose logit is a quadratic of the point, as two Gaussians' log-odds are."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.ones_like(x), x, x**2], dim=1) @ self.weights


def test_against_a_generator_that_stands_still_the_discriminator_becomes_the_density_ratio():
    generator, discriminator = nn.Linear(1, 1), Quadratic()
    with torch.no_grad():
        generator.weight.fill_(1.0)
        generator.bias.fill_(0.0)
    noise, data = seeded(1), seeded(2)
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.05)
    steps = training.train_gan(
        generator,
        discriminator,
        iter(lambda: 1 + 0.7 * torch.randn(512, 1, generator=data), None),
        lambda n: torch.randn(n, 1, generator=noise),
        objective=minimax,
        g_optimizer=torch.optim.SGD(generator.parameters(), lr=0.0),
        d_optimizer=d_optimizer,
        k=10,
    )
    for step in steps:
        for group in d_optimizer.param_groups:
            group["lr"] = 0.05 * (1 - step.step / 40)
        if step.step == 40:
            break
    x = torch.linspace(-2, 3, 51)[:, None]
    p = torch.distributions.Normal(1.0, 0.7).log_prob(x).exp().flatten()
    q = torch.distributions.Normal(0.0, 1.0).log_prob(x).exp().flatten()
    found = torch.sigmoid(discriminator(x)).detach()
    assert float((found - game.optimal_discriminator(p, q)).abs().max()) < 0.06


def test_a_generator_finds_the_mean_of_its_data():
    """G(z) = z + b against N(2, 1) and a linear D that keeps up: the equilibrium is b = 2."""
    generator, discriminator = nn.Linear(1, 1), nn.Linear(1, 1)
    with torch.no_grad():
        for parameter in [*generator.parameters(), *discriminator.parameters()]:
            parameter.zero_()
        generator.weight.fill_(1.0)
    generator.weight.requires_grad_(False)
    noise, data = seeded(1), seeded(2)
    steps = training.train_gan(
        generator,
        discriminator,
        iter(lambda: 2 + torch.randn(256, 1, generator=data), None),
        lambda n: torch.randn(n, 1, generator=noise),
        objective=non_saturating,
        g_optimizer=torch.optim.SGD([generator.bias], lr=0.1),
        d_optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.3),
        k=5,
    )
    found = [float(generator.bias.detach()) for _, _ in zip(range(200), steps, strict=False)]
    assert found[0] < 0.2
    assert sum(found[150:]) / 50 == pytest.approx(2, abs=0.1)


def test_mlp_sizes_and_seeds():
    net = networks.mlp(3, 2, width=5, depth=3, generator=seeded())
    assert net(torch.randn(7, 3)).shape == (7, 2)
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [5, 5, 5, 2]
    other = networks.mlp(3, 2, width=5, depth=3, generator=seeded())
    assert same(state(net), state(other))
    with pytest.raises(ValueError, match="width"):
        networks.mlp(3, 2, width=0)


def test_dcgan_shapes_ranges_and_initial_weights():
    G = networks.DCGANGenerator(16, 8, generator=seeded())
    D = networks.DCGANDiscriminator(8, generator=seeded(1))
    images = G(torch.randn(6, 16, generator=seeded(2)))
    assert images.shape == (6, 1, 28, 28) and images.min() >= 0 and images.max() <= 1
    assert D(images).shape == (6,)
    big = networks.DCGANGenerator(generator=seeded(3))
    convolutions = torch.cat(
        [m.weight.flatten() for m in big.modules() if isinstance(m, nn.ConvTranspose2d)]
    )
    assert float(convolutions.detach().std()) == pytest.approx(0.02, rel=0.02)
    assert abs(float(convolutions.detach().mean())) < 2e-4
    for module in [*big.modules(), *D.modules()]:
        if isinstance(module, nn.BatchNorm2d):
            assert (module.eps, module.momentum) == (1e-5, 0.1)
            assert module.weight.mean().item() == pytest.approx(1, abs=0.05)
    with pytest.raises(ValueError, match="z: expected shape"):
        G(torch.randn(6, 17))
    with pytest.raises(ValueError, match="x: expected shape"):
        D(torch.rand(6, 1, 32, 32))
    with pytest.raises(ValueError, match="channels"):
        networks.DCGANDiscriminator(0)
    with pytest.raises(ValueError, match="latent"):
        networks.DCGANGenerator(0)


def test_a_round_of_dcgan_moves_both_networks():
    G = networks.DCGANGenerator(8, 4, generator=seeded())
    D = networks.DCGANDiscriminator(4, generator=seeded(1))
    before = state(G), state(D)
    record = next(
        training.train_gan(
            G,
            D,
            [torch.rand(4, 1, 28, 28, generator=seeded(2))],
            lambda n: torch.randn(n, 8),
            objective=objectives.non_saturating,
            g_optimizer=torch.optim.Adam(G.parameters()),
            d_optimizer=torch.optim.Adam(D.parameters()),
        )
    )
    assert math.isfinite(record.d_loss)
    for old, net in zip(before, (G, D), strict=True):
        assert all(not torch.equal(p, q) for (p, _), (q, _) in zip(old, state(net), strict=True))
