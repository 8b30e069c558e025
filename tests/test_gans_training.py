"""Algorithm 1: who moves when, what stays untouched, how it ends, and that it learns."""

from __future__ import annotations

import copy
import dataclasses
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

    point = torch.ones(1, 2)

    def penalty(score, real: Tensor, fake: Tensor, rng: torch.Generator | None) -> Tensor:
        seen.append((real.shape, fake.shape, real.requires_grad, fake.requires_grad, rng))
        return 3.0 * score(point).square().sum()

    plain, with_penalty = Setup(), Setup()
    extra = 3 * float(plain.discriminator(point).detach().square())
    objective = Objective(
        "test", minimax.discriminator_loss, minimax.generator_loss, penalty=penalty
    )
    rng = seeded(9)
    a, b = next(plain.train(minimax)), next(with_penalty.train(objective, rng=rng))
    assert b.d_loss - a.d_loss == pytest.approx(extra, rel=1e-4)
    assert seen == [(torch.Size([8, 2]), torch.Size([8, 2]), False, False, rng)]


def test_a_loss_that_is_not_finite_stops_with_its_record():
    setup = Setup()
    batches = [torch.randn(8, 2), torch.full((8, 2), math.nan), torch.randn(8, 2)]
    training_run = setup.train(batches=batches)
    assert next(training_run).step == 1
    with pytest.raises(training.TrainingDivergedError, match="step 2: d_loss=nan") as caught:
        next(training_run)
    assert caught.value.step.step == 2 and math.isnan(caught.value.step.d_loss)


def test_the_average_is_not_touched_by_the_round_that_diverged():
    setup = Setup()
    average = training.Average(setup.generator, decay=0.5)
    training_run = setup.train(
        batches=[torch.randn(8, 2), torch.full((8, 2), math.nan)], average=average
    )
    next(training_run)
    with pytest.raises(training.TrainingDivergedError):
        next(training_run)
    assert all(bool(p.isfinite().all()) for p in average.module.parameters())


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


def test_the_average_is_the_recurrence_of_its_weights():
    setup = Setup()
    average = training.Average(setup.generator, decay=0.6)
    expected = [p.detach().clone() for p in setup.generator.parameters()]
    for step in setup.train(average=average):
        decay = min(0.6, step.step / (step.step + 10))
        for mean, value in zip(expected, setup.generator.parameters(), strict=True):
            mean.mul_(decay).add_((1 - decay) * value.detach())
        if step.step == 20:
            break
    for mean, value in zip(expected, average.module.parameters(), strict=True):
        assert torch.allclose(mean, value, atol=1e-5) and not value.requires_grad
    for decay in (-0.1, 1.0, math.nan):
        with pytest.raises(ValueError, match="decay"):
            training.Average(setup.generator, decay)


def test_k_may_follow_a_schedule():
    setup = Setup()
    setup.d_optimizer.register_step_post_hook(lambda *_: setup.events.append("D"))
    setup.g_optimizer.register_step_post_hook(lambda *_: setup.events.append("G"))
    run = setup.train(k=lambda step: 3 if step <= 2 else 1, first_step=2)
    assert [next(run).step, next(run).step] == [2, 3]
    assert "".join(e for e in setup.events if e in "DG") == "DDDGDG"
    with pytest.raises(ValueError, match="k: expected at least 1"):
        next(setup.train(k=lambda step: 0))


def test_a_constraint_holds_after_every_discriminator_step():
    setup = Setup(lr=1.0)

    def clip(discriminator: nn.Module) -> None:
        for p in discriminator.parameters():
            p.clamp_(-0.01, 0.01)

    seen = []
    setup.g_optimizer.register_step_post_hook(
        lambda *_: seen.extend(float(p.abs().max()) for p in setup.discriminator.parameters())
    )
    objective = dataclasses.replace(non_saturating, constrain=clip)
    for step in setup.train(objective, k=2):
        if step.step == 3:
            break
    assert seen and max(seen) <= 0.01 + 1e-9


def test_a_generator_penalty_joins_the_generators_loss_alone():
    def penalty(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        assert fake.requires_grad and not real.requires_grad
        return 5.0 * fake.square().mean()

    plain, with_penalty = Setup(), Setup()
    a = next(plain.train())
    b = next(with_penalty.train(dataclasses.replace(non_saturating, generator_penalty=penalty)))
    assert b.d_loss == a.d_loss and b.g_loss > a.g_loss
    assert same(state(plain.discriminator), state(with_penalty.discriminator))
    assert not same(state(plain.generator), state(with_penalty.generator))


class Paired(nn.Module):
    """A player that is told a condition; it remembers what it was told."""

    def __init__(self, outputs: int, *, heads: int = 0) -> None:
        super().__init__()
        self.net = networks.mlp(3 if not heads else 2, outputs + heads, width=8, generator=seeded())
        self.heads, self.told = heads, []

    def forward(self, x: Tensor, c: Tensor | None = None):
        self.told.append(c)
        if not self.heads:
            return self.net(torch.cat([x, c], dim=1))
        out = self.net(x)
        return out[:, 0], out[:, 1:]


@pytest.mark.parametrize("loader", [tuple, list])
def test_a_conditional_game_tells_each_player_the_condition(loader):
    G, D = Paired(2), Paired(1)
    x, y = torch.randn(8, 2), torch.arange(8.0)[:, None]
    c = torch.full((8, 1), -1.0)
    steps = training.train_gan(
        G,
        D,
        [loader((x, y))] * 2,
        lambda n: (torch.randn(n, 2), c[:n]),
        objective=non_saturating,
        g_optimizer=torch.optim.SGD(G.parameters(), lr=0.1),
        d_optimizer=torch.optim.SGD(D.parameters(), lr=0.1),
    )
    record = next(steps)
    assert record.measures == {}
    assert all(torch.equal(told, c) for told in G.told)
    assert [bool(torch.equal(told, y)) for told in D.told] == [True, False, False]


@pytest.mark.parametrize("on_real", [False, True])
def test_an_auxiliary_question_joins_both_losses(on_real):
    asked = []

    def loss(answers: Tensor, condition: Tensor) -> Tensor:
        asked.append(condition)
        return (answers - condition).square().mean()

    objective = dataclasses.replace(
        non_saturating, auxiliary=objectives.Auxiliary(loss, weight=2.0, on_real=on_real)
    )
    G, D = Paired(2), Paired(1, heads=1)
    x, y, c = torch.randn(8, 2), torch.ones(8, 1), torch.full((8, 1), -1.0)
    before = copy.deepcopy(D), copy.deepcopy(G)
    z = torch.randn(8, 2)
    record = next(
        training.train_gan(
            G,
            D,
            [(x, y)] if on_real else [x],
            lambda n: (z, c),
            objective=objective,
            g_optimizer=torch.optim.SGD(G.parameters(), lr=0.1),
            d_optimizer=torch.optim.SGD(D.parameters(), lr=0.0),
        )
    )
    assert D.told[-3:] == [None] * 3
    D0, G0 = before
    fake = G0(z, c)
    (real_score, real_answer), (fake_score, fake_answer) = D0(x), D0(fake)
    expected = non_saturating.discriminator_loss(real_score, fake_score.detach())
    expected = expected + 2 * (fake_answer + 1).square().mean()
    if on_real:
        expected = expected + 2 * (real_answer - 1).square().mean()
    assert record.d_loss == pytest.approx(float(expected.detach()), rel=1e-5)
    asked_of_g = 2 * (fake_answer + 1).square().mean()
    assert record.measures["auxiliary"] == pytest.approx(float(asked_of_g.detach()), rel=1e-5)
    g_loss = non_saturating.generator_loss(fake_score) + asked_of_g
    grads = torch.autograd.grad(g_loss, list(G0.parameters()))
    for old, new, grad in zip(G0.parameters(), G.parameters(), grads, strict=True):
        assert torch.allclose(new, old - 0.1 * grad, atol=1e-6)
    assert len(asked) == (3 if on_real else 2)


def test_conditions_on_one_side_only_are_refused():
    setup = Setup()
    auxiliary = dataclasses.replace(
        non_saturating,
        auxiliary=objectives.Auxiliary(lambda a, c: a.mean(), on_real=True),
    )
    G, D = Paired(2), Paired(1, heads=1)
    optimizers = {
        "g_optimizer": torch.optim.SGD(G.parameters(), lr=0.1),
        "d_optimizer": torch.optim.SGD(D.parameters(), lr=0.1),
    }
    pairs = lambda n: (torch.randn(n, 2), torch.zeros(n, 1))  # noqa: E731
    with pytest.raises(ValueError, match="needs a condition"):
        next(
            training.train_gan(G, D, [torch.randn(8, 2)], pairs, objective=auxiliary, **optimizers)
        )
    with pytest.raises(ValueError, match=r"pairs \(x, y\).*pairs \(z, c\)"):
        next(setup.train(batches=[(torch.randn(8, 2), torch.zeros(8, 1))]))
    with pytest.raises(ValueError, match=r"pairs \(x, y\).*pairs \(z, c\)"):
        next(setup.train(sample_noise=pairs))
    with pytest.raises(ValueError, match="one label per sample, got 8 and 3"):
        next(setup.train(batches=[(torch.randn(8, 2), torch.zeros(3, 1))]))


class Balance:
    """A controller that adds up the scores it is shown."""

    def __init__(self) -> None:
        self.k = 0.25

    def update(self, real_score: float, fake_score: float) -> None:
        self.k += real_score - fake_score

    def measures(self) -> dict[str, float]:
        return {"k": self.k}

    def state_dict(self) -> dict[str, float]:
        return {"k": self.k}

    def load_state_dict(self, state: dict[str, float]) -> None:
        self.k = state["k"]


def test_a_controller_moves_once_a_round_and_every_training_has_its_own():
    used = []

    def loss(real: Tensor, fake: Tensor, k: float) -> Tensor:
        used.append(k)
        return (real.square() + k * fake.square()).mean()

    objective = Objective("test", loss, lambda fake: fake.square().mean(), controller=Balance)
    setup = Setup()
    run = setup.train(objective, k=2)
    records = [next(run), next(run)]
    after = 0.25 + records[0].real_score - records[0].fake_score
    assert records[0].measures == {"k": pytest.approx(after)}
    assert used == [0.25, 0.25, pytest.approx(after), pytest.approx(after)]
    used.clear()
    next(Setup().train(objective))
    assert used == [0.25]
    kept = Balance()
    kept.load_state_dict({"k": 7.0})
    used.clear()
    next(Setup().train(objective, controller=kept))
    assert used == [7.0] and kept.k != 7.0


@pytest.mark.parametrize("ending", [[nn.Sigmoid()], [nn.Sigmoid(), nn.Flatten(0)]])
def test_probabilities_are_refused_where_logits_are_due(ending):
    setup = Setup()
    setup.discriminator = nn.Sequential(*setup.discriminator, *ending)
    for objective in (minimax, non_saturating):
        with pytest.raises(ValueError, match="expected logits, got probabilities.*sigmoid"):
            next(setup.train(objective))
    # A sigmoid inside the network is nobody's business.
    setup.discriminator = nn.Sequential(
        *setup.discriminator, nn.Unflatten(0, (-1, 1)), nn.Linear(1, 1)
    )
    setup.d_optimizer = torch.optim.SGD(setup.discriminator[-1].parameters(), lr=0.1)
    if len(ending) == 2:
        next(setup.train())


def test_energies_below_0_are_refused():
    setup = Setup()
    objective = dataclasses.replace(minimax, name="energetic", scores="energies")
    with torch.no_grad():
        setup.discriminator[-1].bias.fill_(-100.0)
    with pytest.raises(ValueError, match="energetic expects energies, never negative"):
        next(setup.train(objective))


def test_batches_go_on_where_they_were_and_pair_each_sample_with_its_label():
    x, y = torch.arange(10.0), 10 * torch.arange(10.0)
    whole = training.batches(x, 3, seeded(), y=y)
    seen = [next(whole) for _ in range(9)]
    assert all(torch.equal(10 * a, b) for a, b in seen)
    rest = training.batches(x, 3, seeded(), y=y, first=6)
    assert all(torch.equal(next(rest)[0], seen[i][0]) for i in range(5, 9))
    with pytest.raises(ValueError, match="first"):
        training.batches(x, 3, seeded(), first=0)
    with pytest.raises(ValueError, match="y: expected 10 labels"):
        training.batches(x, 3, seeded(), y=y[:4])
