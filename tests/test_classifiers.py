"""The digit network, the training loop and accuracy."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.classifiers import DigitNet, Step, accuracy, evaluating, fit
from course_lib.recipes.digit_net import shifted


def blobs(n: int = 60, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two groups of points that a linear classifier can tell apart."""
    source = torch.Generator().manual_seed(seed)
    y = torch.arange(n) % 2
    return (2.0 * y[:, None] - 1) + 0.3 * torch.randn(n, 3, generator=source), y


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def test_digit_net_fits_a_browser_and_its_head_reads_its_features() -> None:
    model = DigitNet()
    assert sum(parameter.numel() for parameter in model.parameters()) == 89_802
    kinds = {type(part) for part in model.modules() if not list(part.children())}
    assert kinds <= {nn.Conv2d, nn.ReLU, nn.Linear, nn.Flatten}
    x = torch.rand(5, 1, 28, 28)
    features = model.features(x)
    assert features.shape == (5, 64) and bool((features >= 0).all())
    torch.testing.assert_close(model(x), features @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize("shape", [(28, 28), (2, 28, 28), (2, 3, 28, 28), (2, 1, 32, 32)])
def test_digit_net_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 1, 28, 28\)"):
        DigitNet()(torch.zeros(shape))


def test_the_checkpoint_reaches_what_its_card_says() -> None:
    model = checkpoints.load("digit-net", DigitNet())
    test = data.mnist("test")
    said = checkpoints.card("digit-net").measures["test accuracy"]
    reached = accuracy(model, test.x, test.y)
    assert reached >= 0.98
    assert reached == pytest.approx(said, abs=2 / len(test))


def test_fit_learns_and_ends_in_evaluation_mode() -> None:
    x, y = blobs()
    model = linear()
    steps = list(fit(model, x, y, steps=80, batch_size=20, lr=0.05))
    assert [step.step for step in steps] == list(range(1, 81))
    assert all(step.steps == 80 for step in steps)
    assert steps[-1].loss < steps[0].loss / 2
    assert accuracy(model, x, y) == 1.0
    assert not model.training


def test_the_same_seed_gives_the_same_weights_and_another_does_not() -> None:
    x, y = blobs()

    def trained(seed: int) -> Tensor:
        model = linear()
        for _ in fit(model, x, y, steps=5, batch_size=7, seed=seed):
            torch.rand(3)  # what the caller draws between steps must not matter
        return next(model.parameters()).detach()

    assert torch.equal(trained(1), trained(1))
    assert not torch.equal(trained(1), trained(2))


def test_every_example_is_seen_once_before_any_is_seen_again() -> None:
    x, y = blobs(60)
    seen: list[Tensor] = []

    def watch(images: Tensor, _: torch.Generator) -> Tensor:
        seen.append(images)
        return images

    list(fit(linear(), x, y, steps=6, batch_size=20, transform=watch))
    for epoch in (torch.cat(seen[:3]), torch.cat(seen[3:])):
        assert torch.equal(epoch.sort(dim=0).values, x.sort(dim=0).values)
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:]))


def test_fit_with_fabric_is_fit_without() -> None:
    x, y = blobs()
    plain, on_fabric = linear(), linear()
    fabric = device.launch(seed=0, accelerator="cpu")
    without = list(fit(plain, x, y, steps=10, batch_size=20))
    with_it = list(fit(on_fabric, x, y, steps=10, batch_size=20, fabric=fabric))
    assert without == with_it
    assert torch.equal(plain.weight, on_fabric.weight)  # type: ignore[arg-type]


def test_closing_early_leaves_evaluation_mode_and_the_caller_may_evaluate_in_between() -> None:
    x, y = blobs()
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    modes: list[bool] = []
    model[0].register_forward_pre_hook(lambda module, _: modes.append(module.training))
    training = fit(model, x, y, steps=50, batch_size=20)
    for step in training:
        accuracy(model, x, y)
        model.eval()
        if step.step == 3:
            training.close()  # type: ignore[attr-defined]
    assert modes == [True, False] * 3
    assert not model.training


def test_a_small_set_is_one_batch() -> None:
    x, y = blobs(5)
    assert isinstance(next(fit(linear(), x, y, steps=1, batch_size=100)), Step)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"steps": 0}, "steps: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1"),
        ({"lr": 0.0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"x": torch.zeros(0, 3), "y": torch.zeros(0, dtype=torch.int64)}, "x: .* N > 0"),
        ({"x": torch.full((60, 3), float("nan"))}, "x: expected finite values"),
        ({"y": torch.zeros(60)}, "y: expected int64"),
        ({"y": torch.zeros(59, dtype=torch.int64)}, "y: expected int64 labels of shape"),
    ],
)
def test_fit_names_what_is_wrong_at_once(change: dict[str, object], match: str) -> None:
    x, y = blobs()
    settings: dict[str, object] = {"x": x, "y": y, "steps": 2, **change}
    with pytest.raises(ValueError, match=match):
        fit(linear(), **settings)  # type: ignore[arg-type]


def test_labels_beyond_the_logits_are_named() -> None:
    x, y = blobs()
    with pytest.raises(ValueError, match=r"y: expected labels 0..1 for 2 logits, got 0..2"):
        next(fit(linear(), x, y * 2, steps=1))
    with pytest.raises(ValueError, match="y: expected labels"):
        accuracy(linear(), x, y - 1)


def test_accuracy_counts_over_uneven_batches_and_leaves_the_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.Identity())
    model.train()
    x = torch.eye(4)[torch.tensor([0, 1, 2, 3, 0, 1, 2])]
    y = torch.tensor([0, 1, 2, 3, 3, 3, 3])
    assert accuracy(model, x, y, batch_size=3) == pytest.approx(4 / 7)
    assert model.training and model[0].training
    with pytest.raises(ValueError, match="batch_size"):
        accuracy(model, x, y, batch_size=0)


def test_evaluating_restores_each_part_even_when_the_block_raises() -> None:
    model = nn.Sequential(nn.Dropout(), nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)))
    model.train()
    model[1][0].eval()  # type: ignore[index]
    before = [module.training for module in model.modules()]
    with pytest.raises(KeyError), evaluating(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == before
    with pytest.raises(ValueError, match=r"model: expected a torch.nn.Module, got function"):
        accuracy(lambda x: x, torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))  # type: ignore[arg-type]


def test_shifted_moves_each_image_within_the_border_and_loses_nothing_inside() -> None:
    x = torch.zeros(200, 2, 9, 9)
    x[:, 0, 4, 4], x[:, 1, 3, 4] = 1.0, 0.5
    moved = shifted(x, torch.Generator().manual_seed(0))
    assert moved.shape == x.shape
    torch.testing.assert_close(moved.sum(dim=(2, 3)), x.sum(dim=(2, 3)))
    rows, columns = (moved[:, 0] == 1).nonzero()[:, 1], (moved[:, 0] == 1).nonzero()[:, 2]
    assert set(rows.tolist()) == set(columns.tolist()) == {2, 3, 4, 5, 6}
    # Both channels move together.
    assert torch.equal((moved[:, 1] == 0.5).nonzero()[:, 1], rows - 1)
