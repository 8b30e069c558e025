"""A run that is cut and restored is the run that was not cut, whatever it consists of."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_lib import device
from course_lib.gans import game, networks
from course_lib.gans.objectives import Objective, non_saturating
from course_lib.gans.run import Run
from course_lib.recipes import follow


class Memory:
    """A controller whose k is all that it has seen."""

    def __init__(self) -> None:
        self.k = 0.5

    def update(self, real_score: float, fake_score: float) -> None:
        self.k = 0.9 * self.k + 0.1 * abs(real_score - fake_score)

    def measures(self) -> dict[str, float]:
        return {"k": self.k}

    def state_dict(self) -> dict[str, Any]:
        return {"k": self.k}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.k = state["k"]


class Noisy(nn.Module):
    """Adds noise from a generator of its own, and drops some by torch's."""

    def __init__(self, rng: torch.Generator) -> None:
        super().__init__()
        self.rng, self.drop = rng, nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x + 0.1 * torch.randn(x.shape, generator=self.rng))


def balanced(real: Tensor, fake: Tensor, k: float) -> Tensor:
    return non_saturating.discriminator_loss(real, k * fake)


def penalty(score, real: Tensor, fake: Tensor, rng: torch.Generator | None) -> Tensor:
    return 0.1 * score(real + torch.randn(real.shape, generator=rng)).square().mean()


OBJECTIVE: Objective = replace(
    non_saturating, discriminator_loss=balanced, penalty=penalty, controller=Memory
)
DATA = game.around(game.ring_centres(), 100, 0.05, device.generator(5))


def make(seed: int = 0) -> Run:
    torch.manual_seed(seed)
    draw, own = device.generator(seed), device.generator(seed + 7)
    G = networks.mlp(2, 2, width=8, generator=draw)
    D = nn.Sequential(Noisy(own), nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))

    def adam(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=0.01, betas=(0.5, 0.9))

    return Run(
        Fabric(accelerator="cpu", devices=1),
        G,
        D,
        objective=OBJECTIVE,
        g_optimizer=adam,
        d_optimizer=adam,
        sample_noise=lambda n, rng: torch.randn(n, 2, generator=rng),
        order=draw,
        batch_size=16,
        watched=torch.randn(5, 2, generator=device.generator(9)),
        frames=[0, 2, 6],
        seed=seed,
        k=lambda step: 3 if step <= 2 else 1,
        decay=0.8,
        rate=lambda step: 1 / step,
        dice={"instance noise": own},
    )


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize("cut", [1, 2, 5])
def test_a_restored_run_is_the_run_that_was_not_cut(cut: int) -> None:
    whole = make()
    records = list(whole.steps(DATA, until=8))
    first = make()
    for step in first.steps(DATA, until=8):
        if step.step == cut:
            state = through_a_file(first.state())
            break
    torch.manual_seed(77)
    second = make()
    torch.manual_seed(78)
    second.restore(state)
    assert second.cpu_seconds == state["cpu_seconds"] > 0
    assert list(second.steps(DATA, until=8)) == records[cut:]
    assert second.cpu_seconds > state["cpu_seconds"]
    for name in ("generator", "discriminator"):
        pairs = zip(
            getattr(whole, name).state_dict().values(),
            getattr(second, name).state_dict().values(),
            strict=True,
        )
        assert all(torch.equal(a, b) for a, b in pairs)
    a, b = whole.film(), second.film()
    assert a.steps.tolist() == b.steps.tolist() == [0, 2, 6]
    assert torch.equal(a.frames, b.frames) and len(a.losses["D's loss"]) == 8
    assert all(torch.equal(a.losses[key], b.losses[key]) for key in a.losses)
    for p, q in zip(whole.finished().parameters(), second.finished().parameters(), strict=True):
        assert torch.equal(p, q)


def test_a_run_may_be_continued_in_pieces() -> None:
    records = list(make().steps(DATA, until=6))
    pieces = make()
    assert [*pieces.steps(DATA, until=3), *pieces.steps(DATA, until=6)] == records


def test_only_steps_cost_cpu_seconds() -> None:
    run = make()
    spent = [run.cpu_seconds]
    for _ in run.steps(DATA, until=3):
        spent.append(run.cpu_seconds)
        run.samples(), run.state()
        assert run.cpu_seconds == spent[-1]
    assert spent[0] == 0.0 and all(a < b for a, b in pairwise(spent))


def test_a_recipe_follows_a_run() -> None:
    """One progress per step, with samples where asked, and a state that the same run goes on from."""
    records = list(make().steps(DATA, until=6))
    game = make()
    seen = []
    for progress in follow(game, DATA, steps=6, looks=range(0, 7, 3)):
        seen.append(progress)
        assert progress.state is not None and progress.state()["step"] == progress.step
        if progress.samples is not None:
            assert torch.equal(progress.samples, game.samples())
    assert [(p.step, p.steps) for p in seen] == [(n, 6) for n in range(1, 7)]
    assert [p.step for p in seen if p.samples is not None] == [3, 6]
    assert [p.text for p in seen] == [
        f"D {r.d_loss:.2f}, G {r.g_loss:.2f}, k {r.measures['k']:.2f}" for r in records
    ]


def test_looking_changes_nothing() -> None:
    looked = make()
    for step in looked.steps(DATA, until=5):
        looked.samples(), looked.finished(), looked.film(), looked.state()
        assert not torch.equal(looked.samples(), copy.deepcopy(looked.generator)(looked._watched))
        if step.step == 5:
            break
    blind = make()
    list(blind.steps(DATA, until=5))
    for p, q in zip(looked.generator.parameters(), blind.generator.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_state_of_another_run_is_refused() -> None:
    run = make()
    next(run.steps(DATA, until=1))
    state = run.state()
    del state["dice"]["instance noise"]
    with pytest.raises(ValueError, match="state: not of this run"):
        make().restore(state)
    with pytest.raises(ValueError, match="state: not of this run"):
        make().restore({**run.state(), "generator": nn.Linear(1, 1).state_dict()})
