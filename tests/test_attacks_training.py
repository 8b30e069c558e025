"""Adversarial training: the closed form on a linear model, the warm-up, going on after a kill."""

from __future__ import annotations

import io
from collections.abc import Callable
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import device
from course_lib.attacks import fgsm
from course_lib.attacks.training import Inner, adversarial_training, climb
from course_lib.classifiers import Step, accuracy, fit


def one_step(model: nn.Module, x: Tensor, y: Tensor, eps: float, _: torch.Generator) -> Tensor:
    return fgsm(model, x, y, eps)


def points(n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two groups in the unit square's middle: no attack of 0.1 meets an edge."""
    source = device.generator(seed)
    y = torch.arange(n) % 2
    return 0.4 + 0.2 * y[:, None] + 0.03 * torch.randn(n, 3, generator=source).clamp(-2, 2), y


def linear(dtype: torch.dtype = torch.float32) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(3, 2, dtype=dtype)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def test_on_a_linear_model_it_is_a_penalty_on_the_l1_norm_inside_the_loss() -> None:
    # Goodfellow et al. 2015, section 5: the worst change of size eps lowers the margin by eps |w|_1.
    x, y = points()
    x, eps = x.double(), 0.07
    trained, by_hand = linear(torch.float64), linear(torch.float64)
    for _ in adversarial_training(
        trained, x, y, attack=one_step, eps=eps, steps=25, batch_size=60, lr=0.05
    ):
        pass
    optimizer = torch.optim.AdamW(by_hand.parameters(), lr=0.05, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 25)
    for _ in range(25):
        w, b = by_hand.weight[1] - by_hand.weight[0], by_hand.bias[1] - by_hand.bias[0]
        margin = (2.0 * y - 1) * (x @ w + b) - eps * w.abs().sum()
        optimizer.zero_grad()
        F.softplus(-margin).mean().backward()
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(weights(trained), weights(by_hand), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("attack", [one_step, climb(3)])
def test_with_eps_zero_it_is_plain_training(attack: Inner) -> None:
    x, y = points()
    attacked, plain = net(), net()
    steps = list(
        adversarial_training(attacked, x, y, attack=attack, eps=0.0, steps=12, batch_size=20)
    )
    assert steps == list(fit(plain, x, y, steps=12, batch_size=20, weight_decay=0.0))
    assert torch.equal(weights(attacked), weights(plain))


def test_it_learns_the_direction_that_an_attack_cannot_bend() -> None:
    # Pixel 0 tells the classes apart with a gap of 0.6, nine others with 0.04 each, without noise. At
    # eps 0.1 the nine lie: the best robust classifier uses pixel 0 alone, and keeps everything.
    source = device.generator(3)
    y = torch.arange(200) % 2
    side = 2.0 * y[:, None] - 1
    loud = 0.5 + 0.3 * side + 0.04 * torch.randn(200, 1, generator=source).clamp(-3, 3)
    x = torch.cat([loud, (0.5 + 0.02 * side).expand(-1, 9)], dim=1)

    def trained(eps: float) -> nn.Module:
        model = nn.Linear(10, 2)
        nn.init.zeros_(model.weight)
        for _ in adversarial_training(
            model, x, y, attack=one_step, eps=eps, steps=300, batch_size=200, lr=0.05
        ):
            pass
        return model

    def share(model: nn.Module) -> float:
        w = (model.weight[1] - model.weight[0]).detach().abs()  # type: ignore[index]
        return float(w[1:].sum() / w.sum())

    robust, plain = trained(0.1), trained(0.0)
    assert share(robust) < 0.05 < share(plain)
    assert accuracy(robust, fgsm(robust, x, y, 0.1), y) == 1.0


def test_the_size_grows_in_equal_parts_and_then_stays() -> None:
    x, y = points()
    sizes: list[float] = []

    def note(model: nn.Module, x: Tensor, y: Tensor, eps: float, _: torch.Generator) -> Tensor:
        sizes.append(eps)
        return x

    list(adversarial_training(net(), x, y, attack=note, eps=0.3, steps=6, warm_up=4, batch_size=20))
    assert sizes == pytest.approx([0.075, 0.15, 0.225, 0.3, 0.3, 0.3])
    sizes.clear()
    list(adversarial_training(net(), x, y, attack=note, eps=0.3, steps=2, batch_size=20))
    assert sizes == [0.3, 0.3]


def test_the_attack_sees_the_weights_of_its_step_and_leaves_them_alone() -> None:
    x, y = points()
    model, seen, modes = net(), [], []

    def watch(model: nn.Module, x: Tensor, y: Tensor, eps: float, g: torch.Generator) -> Tensor:
        seen.append(weights(model))
        out = climb(2)(model, x, y, eps, g)
        assert torch.equal(weights(model), seen[-1])
        modes.append(model.training)
        return out

    after = [
        weights(model)
        for _ in adversarial_training(
            model, x, y, attack=watch, eps=0.1, steps=3, batch_size=20, lr=0.01
        )
    ]
    assert torch.equal(seen[1], after[0]) and torch.equal(seen[2], after[1])
    assert not torch.equal(after[0], after[1])
    assert modes == [True] * 3


def test_the_inner_climb_stays_in_the_ball_and_beats_its_start() -> None:
    x, y = points()
    model = net()
    for steps, stride in ((1, 1.25), (5, 2.5)):
        x_adv = climb(steps, stride)(model, x, y, 0.1, device.generator(0))
        assert float((x_adv - x).abs().max()) <= 0.1 + 1e-6
        assert bool(F.cross_entropy(model(x_adv), y) > F.cross_entropy(model(x), y))
    # Several draws of one generator differ; the same seed gives the same.
    g = device.generator(0)
    first, second = climb(1)(model, x, y, 0.1, g), climb(1, 0.1)(model, x, y, 0.1, g)
    assert not torch.equal(first, second)
    assert torch.equal(first, climb(1)(model, x, y, 0.1, device.generator(0)))


def test_a_run_that_was_cut_short_goes_on_bit_for_bit() -> None:
    x, y = points()

    def training(model: nn.Module, state: dict[str, object] | None = None) -> list[Step]:
        return list(
            adversarial_training(
                model,
                x,
                y,
                attack=climb(2),
                eps=0.1,
                steps=9,
                warm_up=3,
                batch_size=25,
                state=state,
            )
        )

    whole, cut, resumed = net(), net(), net()
    steps = training(whole)
    first = list(
        islice(
            adversarial_training(
                cut, x, y, attack=climb(2), eps=0.1, steps=9, warm_up=3, batch_size=25
            ),
            4,
        )
    )
    assert first == steps[:4] and first[-1].state is not None
    file = io.BytesIO()
    torch.save(first[-1].state(), file)
    file.seek(0)
    rest = training(resumed, torch.load(file, weights_only=True))
    assert rest == steps[4:]
    assert torch.equal(weights(resumed), weights(whole))


def test_with_fabric_it_is_the_same() -> None:
    x, y = points()
    plain, on_fabric = net(), net()
    fabric = device.launch(seed=0, accelerator="cpu")
    settings = {"attack": climb(2), "eps": 0.1, "steps": 5, "batch_size": 20}
    without = list(adversarial_training(plain, x, y, **settings))  # type: ignore[arg-type]
    with_it = list(adversarial_training(on_fabric, x, y, fabric=fabric, **settings))  # type: ignore[arg-type]
    assert without == with_it and torch.equal(weights(plain), weights(on_fabric))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"eps": -0.1}, "eps: expected"),
        ({"eps": float("nan")}, "eps: expected"),
        ({"eps": float("inf")}, "eps: expected"),
        ({"warm_up": -1}, "warm_up: expected"),
        ({"steps": 0}, "steps: expected at least 1"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"lr": -1.0}, "lr"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"x": torch.zeros(0, 3), "y": torch.zeros(0, dtype=torch.int64)}, "x: .* N > 0"),
        ({"x": torch.full((60, 3), float("nan"))}, "x: expected finite values"),
        ({"x": torch.full((60, 3), 1.5)}, r"x: expected values in \[0, 1\]"),
        ({"y": torch.zeros(60)}, "y: expected int64"),
        ({"state": {"steps": 3}}, "state: expected one of 2 steps, got 3"),
    ],
)
def test_wrong_input_is_named_at_once(change: dict[str, object], match: str) -> None:
    x, y = points()
    settings: dict[str, object] = {"attack": one_step, "eps": 0.1, "steps": 2, "x": x, "y": y}
    with pytest.raises(ValueError, match=match):
        adversarial_training(net(), **{**settings, **change})  # type: ignore[arg-type]


@pytest.mark.parametrize("steps_stride", [(0, 1.0), (1, -1.0), (1, float("nan"))])
def test_a_climb_of_nothing_is_refused(steps_stride: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="steps, stride: expected"):
        climb(*steps_stride)


def test_a_state_of_another_network_is_refused() -> None:
    x, y = points()
    (step,) = fit(linear(), x, y, steps=1)
    assert step.state is not None
    with pytest.raises(ValueError, match="state: it is that of another training"):
        next(fit(net(), x, y, steps=1, state=step.state()))


@pytest.mark.parametrize(
    "cheat",
    [lambda x: x + 0.3, lambda x: x[:3], lambda x: x * float("nan"), lambda x: x.double()],
)
def test_an_attack_that_breaks_its_word_is_named(cheat: Callable[[Tensor], Tensor]) -> None:
    x, y = points()
    training = adversarial_training(
        net(), x, y, attack=lambda m, x, y, eps, g: cheat(x), eps=0.1, steps=1
    )
    with pytest.raises(ValueError, match=r"attack: expected .* within 0\.1 of those it got"):
        next(training)
