"""Masked gradients: each disguise is caught by its check, and an honest model by none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import device
from course_lib.attacks import fgsm
from course_lib.attacks.gradient import input_gradient, margin
from course_lib.attacks.masking import Check, Quantised, checks, distil
from course_lib.classifiers import fit


def line(scale: float = 1.0) -> nn.Linear:
    """A linear classifier of four pixels: class 1 where their mean is above one half."""
    model = nn.Linear(4, 2)
    with torch.no_grad():
        model.weight.copy_(scale * torch.tensor([[-1.0] * 4, [1.0] * 4]))
        model.bias.copy_(scale * torch.tensor([2.0, -2.0]))
    return model


def images(n: int = 200, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images (n, 4) whose mean is 0.2 or 0.8, none of them at the edge."""
    y = torch.arange(n) % 2
    noise = 0.1 * torch.rand(n, 4, generator=device.generator(seed)) - 0.05
    return 0.2 + 0.6 * y[:, None] + noise, y


def test_the_margin_is_the_best_wrong_logit_minus_the_right_one() -> None:
    logits = torch.tensor([[1.0, 5.0, 2.0], [4.0, 0.0, -1.0]])
    assert margin(logits, torch.tensor([2, 0])).tolist() == [3.0, -4.0]
    assert bool(((margin(logits, torch.tensor([1, 1])) > 0) == torch.tensor([False, True])).all())


# ---- quantised ------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 4, 256])
@pytest.mark.parametrize("straight_through", [False, True])
def test_quantised_answers_as_the_model_does_on_rounded_images(
    levels: int, straight_through: bool
) -> None:
    x, _ = images()
    model = line()
    greys = torch.linspace(0, 1, levels)
    nearest = greys[(x[..., None] - greys).abs().argmin(dim=-1)]
    answers = Quantised(model, levels, straight_through=straight_through)(x)
    torch.testing.assert_close(answers, model(nearest), atol=1e-5, rtol=0)


def test_rounding_has_no_slope_and_straight_through_has_that_of_the_model() -> None:
    x, y = images()
    model = line()
    assert not bool(input_gradient(Quantised(model, 4), x, y).any())
    through = input_gradient(Quantised(model, 4, straight_through=True), x, y)
    torch.testing.assert_close(through, input_gradient(model, (3 * x).round() / 3, y))
    assert torch.equal(fgsm(Quantised(model, 4), x, y, 0.2), x)
    assert not torch.equal(fgsm(Quantised(model, 4, straight_through=True), x, y, 0.2), x)


@pytest.mark.parametrize("levels", [1, 0, -2])
def test_fewer_than_two_levels_are_refused(levels: int) -> None:
    with pytest.raises(ValueError, match=f"levels: expected at least 2, got {levels}"):
        Quantised(line(), levels)


# ---- distilled ------------------------------------------------------------------------------------


def test_distillation_reaches_the_teachers_probabilities_at_its_temperature() -> None:
    x = torch.rand(400, 4, generator=device.generator(0))
    torch.manual_seed(0)
    teacher, student = line(2.0), nn.Linear(4, 2)
    steps = list(distil(student, teacher, x, temperature=2.0, steps=300, batch_size=400, lr=0.1))
    # The student can be the teacher, so all that separates them can go: the divergence, not the entropy.
    soft = (teacher(x) / 2).softmax(dim=1)
    learned = (student(x) / 2).softmax(dim=1)
    assert float(F.kl_div(learned.log(), soft, reduction="batchmean").detach()) < 1e-3
    assert steps[-1].loss < steps[0].loss and steps[-1].accuracy > 0.98
    assert [step.step for step in steps] == list(range(1, 301)) and not student.training


def test_a_network_trained_at_a_high_temperature_saturates_in_use() -> None:
    x, y = images()

    def trained(temperature: float) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
        for _ in fit(
            model,
            x,
            y,
            steps=300,
            lr=0.02,
            loss=lambda logits, y: F.cross_entropy(logits / temperature, y),
        ):
            pass
        return model

    def slope(model: nn.Module) -> float:
        return float(input_gradient(model, x, y).abs().max())

    assert slope(trained(50.0)) < 1e-6 < slope(trained(1.0))


def test_the_teacher_is_left_as_it_was_and_closing_early_ends_in_evaluation_mode() -> None:
    x, _ = images()
    teacher = nn.Sequential(line(), nn.BatchNorm1d(2)).train()
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    student = line().train()
    training = distil(student, teacher, x, temperature=1.0, steps=5)
    next(training)
    training.close()  # type: ignore[attr-defined]
    assert teacher.training and not student.training
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"temperature": 0.0}, "temperature: expected a finite number > 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"steps": 0}, "steps: expected at least 1"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"lr": 0.0}, "lr: expected lr > 0"),
        ({"x": torch.zeros(0, 4)}, "x: .* N > 0"),
        ({"x": torch.full((3, 4), float("nan"))}, "x: expected finite values"),
    ],
)
def test_wrong_settings_of_distillation_are_named_at_once(
    change: dict[str, object], match: str
) -> None:
    settings: dict[str, object] = {"x": images()[0], "temperature": 2.0, "steps": 3, **change}
    with pytest.raises(ValueError, match=match):
        distil(line(), line(), **settings)  # type: ignore[arg-type]


# ---- the checks -----------------------------------------------------------------------------------


def caught(model: nn.Module, **settings: object) -> set[str]:
    x, y = images()
    found = checks(model, x, y, 0.4, other=line(), **settings)  # type: ignore[arg-type]
    return {check.name for check in found if check.caught}


def test_an_honest_model_passes_every_check() -> None:
    # The boundary is 0.3 away, so eps 0.4 fools it all, whichever way it is attacked.
    x, y = images()
    found = {check.name: check for check in checks(line(), x, y, 0.4, other=line(2.0))}
    assert set(found) == {"one step", "another loss", "another network", "chance", "no limit"}
    assert all(check.attacked == 0.0 for check in found.values())
    assert not any(check.caught for check in found.values())
    # A pattern fools where all four coins agree, once in sixteen tosses.
    assert found["chance"].limit == pytest.approx((15 / 16) ** 20, abs=0.1)


def test_a_robust_model_passes_too_and_keeps_its_accuracy() -> None:
    x, y = images()
    found = {check.name: check for check in checks(line(), x, y, 0.1, other=line())}
    assert all(found[name].attacked == 1.0 for name in found if name != "no limit")
    assert found["no limit"] == Check("no limit", 0.0, 0.0)
    assert not any(check.caught for check in found.values())


def test_rounding_is_caught_by_what_does_not_need_its_gradient() -> None:
    assert caught(Quantised(line(), 4)) == {"another network", "chance", "no limit"}
    assert caught(Quantised(line(), 4, straight_through=True)) == set()


def test_saturation_is_caught_by_another_loss_too() -> None:
    assert caught(line(1e4)) == {"another loss", "another network", "chance", "no limit"}


def test_a_hollow_before_the_boundary_is_caught_by_one_long_step() -> None:
    class Hollow(nn.Module):
        """Small steps stay in the hollow at a distance of 0.05; one step of 0.4 lands behind it."""

        def forward(self, x: Tensor) -> Tensor:
            s = x.mean(dim=1) - 0.5  # the images lie at 0.3 and -0.3, the boundary at 0
            far = s.abs()
            wall = torch.where(far < 0.25, 1 - 3.75 * (far - 0.05), 0.25 + 5 * (far - 0.25))
            gap = s.sign() * torch.where(far < 0.05, 20 * far, wall)
            return torch.stack([-gap, gap], dim=1)

    x, y = images()
    found = {check.name: check for check in checks(Hollow(), x, y, 0.4, other=line())}
    assert found["one step"].caught and found["one step"].limit == 0.0
    assert found["another network"].caught and found["another network"].limit == 0.0


def test_the_model_is_left_as_it_was_and_the_generator_decides() -> None:
    x, y = images(20)
    model = nn.Sequential(line(), nn.Dropout(0.5)).train()
    first = checks(model, x, y, 0.2, other=line(), generator=device.generator(1))
    assert model.training and all(p.grad is None for p in model.parameters())
    assert first == checks(model, x, y, 0.2, other=line(), generator=device.generator(1))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"tries": 0}, "tries: expected at least 1"),
        ({"steps": 0}, "steps: expected at least 1"),
        ({"eps": -0.1}, "eps: expected finite sizes >= 0"),
        ({"eps": float("nan")}, "eps"),
        ({"x": torch.zeros(0, 4), "y": torch.zeros(0, dtype=torch.int64)}, "x: .* N > 0"),
        ({"x": torch.full((200, 4), 2.0)}, r"x: expected values in \[0, 1\]"),
        ({"y": torch.zeros(200)}, "y: expected int64"),
    ],
)
def test_wrong_input_to_the_checks_is_named(change: dict[str, object], match: str) -> None:
    x, y = images()
    settings: dict[str, object] = {"x": x, "y": y, "eps": 0.1, "other": line(), **change}
    with pytest.raises(ValueError, match=match):
        checks(line(), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("convert", [torch.float32, torch.float64])
def test_works_in_both_precisions(convert: torch.dtype) -> None:
    x, y = images()
    make: Callable[[], nn.Module] = lambda: line().to(convert)  # noqa: E731
    found = checks(make(), x.to(convert), y, 0.4, other=make())
    assert not any(check.caught for check in found)
