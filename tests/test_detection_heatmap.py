"""Maps of where an image was changed, and their scores."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from course_lib import checkpoints, device, metrics
from course_lib.data import actors
from course_lib.detection import compression, heatmap
from course_lib.detection.cnn import DetectorNet
from course_lib.recipes import patch_detector


def noisy(n: int = 2, *, side: int = 64, sigma: float = 0.05, channels: int = 3) -> Tensor:
    return compression.noise(torch.full((n, channels, side, side), 0.5), sigma, seed=0)


def square(n: int = 2, *, side: int = 64) -> Tensor:
    masks = torch.zeros(n, 1, side, side)
    masks[:, :, side // 4 : side // 2, side // 4 : side // 2] = 1
    return masks


# Error level


def test_error_level_of_a_flat_image_is_0_and_of_an_image_saved_to_a_standstill_too() -> None:
    flat = torch.full((2, 3, 32, 32), 100 / 255)
    assert float(heatmap.error_level(compression.jpeg(flat, 75), 75).max()) == 0
    x = torch.rand(2, 1, 32, 32, generator=device.generator(0))
    for _ in range(30):  # a greyscale JPEG saved again and again stops changing
        x = compression.jpeg(x, 60)
    assert float(heatmap.error_level(x, 60).max()) == 0
    assert float(heatmap.error_level(x, 90).max()) > 0


def test_error_level_is_the_mean_change_and_falls_with_quality() -> None:
    x = noisy()
    by_hand = sum((x[:, c] - compression.jpeg(x, 80)[:, c]).abs() for c in range(3)) / 3
    assert torch.allclose(heatmap.error_level(x, 80)[:, 0], by_hand)
    means = [float(heatmap.error_level(x, q).mean()) for q in (30, 60, 90)]
    assert means == sorted(means, reverse=True)


# Noise


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_residual_keeps_white_noise_and_removes_planes(dtype: torch.dtype) -> None:
    x = noisy(4, sigma=0.05).to(dtype)
    inner = heatmap.noise_residual(x)[..., 1:-1, 1:-1]
    assert inner.dtype == dtype
    assert float(inner.std()) == pytest.approx(float(x.std()), rel=0.03)
    rows = torch.arange(32, dtype=dtype)
    plane = (0.1 + 0.01 * rows[:, None] + 0.015 * rows[None, :]).expand(1, 1, 32, 32)
    assert float(heatmap.noise_residual(plane)[..., 1:-1, 1:-1].abs().max()) < 1e-6


def test_residual_is_the_mask_of_the_paper_over_6() -> None:
    x = torch.rand(1, 1, 12, 14, generator=device.generator(0), dtype=torch.float64)
    mask = torch.tensor([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=torch.float64)
    by_hand = torch.nn.functional.conv2d(x, mask[None, None])
    assert torch.allclose(6 * heatmap.noise_residual(x)[..., 1:-1, 1:-1], by_hand)


def test_inconsistency_is_1_where_the_noise_is_doubled_and_knows_no_contrast() -> None:
    x = noisy(1, sigma=0.03)
    x[..., 20:44, 20:44] = 0.5 + 2 * (x[..., 20:44, 20:44] - 0.5)
    found = heatmap.patch_inconsistency(x)
    assert float(found[..., 26:38, 26:38].mean()) == pytest.approx(1, abs=0.15)
    assert float(found[..., :12, :].mean()) < 0.2
    fainter = heatmap.patch_inconsistency(0.5 + 0.5 * (x - 0.5))
    assert torch.allclose(fainter, found, atol=0.15)  # only the floor of half a level moves it
    flat = torch.full((1, 3, 32, 32), 0.3)
    assert float(heatmap.patch_inconsistency(flat).abs().max()) == 0


# The patch net


def test_a_logit_alone_sees_its_patch_and_nothing_else() -> None:
    net = trained(compare=False).double()
    x = noisy(1, side=64).double().requires_grad_(True)
    row, column = 14, 17  # in the map of half the size
    (slope,) = torch.autograd.grad(net.patches(x)[0, 0, row, column], x)
    seen = slope[0].abs().sum(dim=0).nonzero()
    low, high = seen.min(dim=0).values, seen.max(dim=0).values
    assert (high - low + 1).tolist() == [net.patch, net.patch]
    assert ((low + high) // 2).tolist() == [2 * row, 2 * column]


def test_a_compared_logit_sees_the_rest_of_its_image_and_no_other() -> None:
    net = trained(compare=True).double()
    x = noisy(2, side=64).double().requires_grad_(True)
    (slope,) = torch.autograd.grad(net.patches(x)[0, 0, 4, 4], x)
    assert float(slope[0, :, 50:, 50:].abs().sum()) > 0
    assert float(slope[1].abs().sum()) == 0


def test_alone_the_same_patch_gets_the_same_logit_anywhere() -> None:
    net = trained(compare=False)
    x = noisy(1)
    moved = torch.roll(x, (8, 12), dims=(2, 3))
    a, b = net.patches(x), net.patches(moved)
    assert torch.allclose(a[..., 6:20, 6:18], b[..., 10:24, 12:24], atol=1e-5)


def test_training_finds_a_patch_without_noise_and_repeats() -> None:
    x = noisy(24, side=32, sigma=0.06)
    masks = torch.zeros(24, 1, 32, 32)
    place = device.generator(3)
    for i in range(12):
        row, column = torch.randint(2, 18, (2,), generator=place).tolist()
        masks[i, :, row : row + 12, column : column + 12] = 1
    x = torch.where(masks > 0.5, compression.blur(x, 2.0), x)

    def learn() -> heatmap.PatchNet:
        net = heatmap.PatchNet(width=8, generator=device.generator(0))
        fabric = device.launch(accelerator="cpu")
        steps = list(
            heatmap.train_patches(net, x, masks, fabric=fabric, steps=80, batch_size=8, lr=1e-2)
        )
        assert [step.step for step in steps] == list(range(1, 81))
        assert steps[0].loss == pytest.approx(math.log(2))  # it starts undecided
        assert not net.training
        return net

    net = learn()
    maps = heatmap.heat_map(net, x[:12])
    assert float(heatmap.pixel_auc(maps, masks[:12]).mean()) > 0.95
    assert all(
        torch.equal(a, b) for a, b in zip(net.parameters(), learn().parameters(), strict=True)
    )


def test_heat_map_is_the_probability_and_leaves_the_net_as_it_was() -> None:
    net = trained(compare=True).train()
    x = noisy(3)
    maps = heatmap.heat_map(net, x, batch_size=2)
    assert net.training and all(p.grad is None for p in net.parameters())
    with torch.no_grad():
        assert torch.allclose(maps, torch.sigmoid(net(x)), atol=1e-6)


# Saliency


class Linear(nn.Module):
    """A detector with a known gradient: its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 16, 16, generator=device.generator(0)))

    def forward(self, x: Tensor) -> Tensor:
        return (self.w * x).sum(dim=(1, 2, 3)) + 0.7


class Constant(nn.Module):
    """A detector that never looks."""

    def __init__(self) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.b + 0 * x.sum(dim=(1, 2, 3))


def test_saliency_of_a_linear_detector_is_its_weights() -> None:
    model, x = Linear(), noisy(3, side=16)
    slope = heatmap.saliency(model, x, batch_size=2)
    assert torch.allclose(slope, model.w.detach().abs().amax(dim=0).expand(3, 1, 16, 16))
    shares = heatmap.saliency(model, x, "integrated", steps=4)
    by_hand = (model.w.detach() * (x - 0.5)).sum(dim=1, keepdim=True).abs()
    assert torch.allclose(shares, by_hand, atol=1e-5)


@pytest.mark.parametrize("method", ["gradient", "integrated"])
def test_saliency_of_a_constant_is_0_and_leaves_the_model(method: Any) -> None:
    model = Constant().train()
    assert float(heatmap.saliency(model, noisy(2, side=16), method).abs().max()) == 0
    assert model.training and model.b.grad is None


def test_randomised_forgets_but_keeps_the_spread_and_the_original() -> None:
    model = DetectorNet(3, generator=device.generator(0))
    before = copy.deepcopy(model.state_dict())
    other = heatmap.randomised(model, seed=1)
    assert isinstance(other, DetectorNet)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name])
    assert not torch.equal(other.conv3.weight, model.conv3.weight)
    assert float(other.conv3.weight.detach().std()) == pytest.approx(
        float(model.conv3.weight.detach().std()), rel=0.1
    )
    again = heatmap.randomised(model, seed=1)
    assert all(
        torch.equal(a, b) for a, b in zip(other.parameters(), again.parameters(), strict=True)
    )


# Scores


def test_iou_in_closed_form() -> None:
    masks = square(3)
    assert torch.equal(heatmap.iou(masks, masks, 0.5), torch.ones(3, dtype=torch.float64))
    assert float(heatmap.iou(1 - masks, masks, 0.5).max()) == 0
    everything = torch.ones_like(masks)
    assert torch.allclose(heatmap.iou(everything, masks, 0.5), masks.double().mean((1, 2, 3)))
    shifted = torch.roll(masks, 8, dims=3)  # half of a square of 16: 1/2 of 3/2
    assert torch.allclose(heatmap.iou(shifted, masks, 0.5), torch.full((3,), 1 / 3).double())
    nothing = torch.zeros_like(masks)
    assert torch.equal(heatmap.iou(nothing, nothing, 0.5), torch.ones(3, dtype=torch.float64))
    assert float(heatmap.iou(nothing, masks, 0.5).max()) == 0
    assert torch.equal(
        heatmap.iou(masks, masks, 1.0), torch.ones(3, dtype=torch.float64)
    )  # at or above


def test_pixel_auc_of_the_mask_its_complement_and_a_constant() -> None:
    masks = square(2)
    for maps, expected in ((masks, 1.0), (1 - masks, 0.0), (torch.ones_like(masks), 0.5)):
        assert heatmap.pixel_auc(maps, masks).tolist() == [expected, expected]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixel_auc_agrees_with_scikit_learn_with_ties_and_a_region(dtype: torch.dtype) -> None:
    g = device.generator(0)
    maps = (torch.rand(4, 1, 20, 20, generator=g) * 30).round().to(dtype) / 30
    masks = (torch.rand(4, 1, 20, 20, generator=g) < 0.2).to(dtype)
    where = (torch.rand(4, 1, 20, 20, generator=g) < 0.6).to(dtype)
    for region in (None, where):
        found = heatmap.pixel_auc(maps, masks, region)
        for i in range(4):
            kept = torch.ones(20, 20, dtype=torch.bool) if region is None else region[i, 0] > 0.5
            oracle = roc_auc_score(masks[i, 0][kept].numpy(), maps[i, 0][kept].numpy())
            assert float(found[i]) == pytest.approx(oracle, abs=1e-12)


def test_place_alone_is_worth_exactly_one_half_at_the_same_place() -> None:
    masks = square(3)
    place = compression.blur(masks, 4.0)
    assert float(heatmap.pixel_auc(place, masks).min()) > 0.95
    assert heatmap.same_place_auc(place, place, masks).tolist() == [0.5, 0.5, 0.5]
    assert heatmap.same_place_auc(masks, 0 * masks, masks).tolist() == [1.0, 1.0, 1.0]


def test_best_threshold_finds_a_map_that_is_right_from_a_level_on() -> None:
    masks = square(4)
    g = device.generator(0)
    maps = 0.7 * masks + 0.3 * torch.rand(masks.shape, generator=g)
    threshold, score = heatmap.best_threshold(maps, masks)
    assert 0.3 <= threshold <= 0.75
    assert score == pytest.approx(float(heatmap.iou(maps, masks, threshold).mean()))
    assert score > 0.95


def test_over_people_resamples_people_and_holds_the_mean() -> None:
    people = torch.arange(12) // 3
    values = people.double() / 10
    found = heatmap.over_people(values, people)
    assert found.value == pytest.approx(0.15)
    assert 0 <= found.low < found.value < found.high <= 0.3
    oracle = metrics.bootstrap_interval(
        lambda v: float(v.mean()), values, seed=1, n=2000, groups=people
    )
    many = heatmap.over_people(values, people, n=2000)
    assert many.low == pytest.approx(oracle.low, abs=0.01)
    assert many.high == pytest.approx(oracle.high, abs=0.01)
    alike = heatmap.over_people(torch.ones(12), people)
    assert (alike.low, alike.high) == (1, 1)


# What is refused

X, M = noisy(2), square(2)
SMALL = heatmap.PatchNet(width=4)
FABRIC_FREE: dict[str, Any] = {"fabric": None, "steps": 1}


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: heatmap.error_level(X, 0), "quality"),
        (lambda: heatmap.error_level(X[0]), "x: expected"),
        (lambda: heatmap.noise_residual(2 * X), "x: expected"),
        (lambda: heatmap.noise_residual(torch.full_like(X, math.nan)), "x: expected"),
        (lambda: heatmap.patch_inconsistency(X, 4), "patch"),
        (lambda: heatmap.patch_inconsistency(X, 1), "patch"),
        (lambda: heatmap.patch_inconsistency(X, 65), "patch"),
        (lambda: heatmap.PatchNet(width=1), "width"),
        (lambda: SMALL(X[:, :1]), "x: expected"),
        (lambda: SMALL(X[:, :, :63]), "x: expected"),
        (lambda: SMALL(X[:0]), "x: expected"),
        (lambda: heatmap.heat_map(SMALL, X[:0]), "x: expected"),
        (lambda: heatmap.heat_map(DetectorNet(3), X), "one logit per pixel"),
        (lambda: heatmap.saliency(SMALL, X), "one logit per image"),
        (lambda: heatmap.saliency(DetectorNet(3), X, "guess"), "method"),  # type: ignore[arg-type]
        (lambda: heatmap.saliency(DetectorNet(3), X, steps=0), "steps"),
        (lambda: heatmap.saliency(DetectorNet(3), X - 1), "x: expected"),
        (lambda: heatmap.randomised(nn.ReLU(), seed=0), "model"),
        (lambda: heatmap.train_patches(SMALL, X, M[:1], **FABRIC_FREE), "masks"),
        (lambda: heatmap.train_patches(SMALL, X, 2 * M, **FABRIC_FREE), "masks"),
        (lambda: heatmap.train_patches(SMALL, X - 1, M, **FABRIC_FREE), "x: expected"),
        (lambda: heatmap.train_patches(SMALL, X, M, fabric=None, steps=0), "steps"),  # type: ignore[arg-type]
        (lambda: heatmap.train_patches(SMALL, X, M, lr=-1.0, **FABRIC_FREE), "lr"),
        (lambda: heatmap.iou(M[0], M, 0.5), "maps"),
        (lambda: heatmap.iou(M * math.nan, M, 0.5), "maps"),
        (lambda: heatmap.iou(M, M[:, :, :9], 0.5), "masks"),
        (lambda: heatmap.iou(M, M * math.nan, 0.5), "masks"),
        (lambda: heatmap.iou(M, M, math.nan), "threshold"),
        (lambda: heatmap.pixel_auc(M, 0 * M), "changed and unchanged"),
        (lambda: heatmap.pixel_auc(M, M, M), "changed and unchanged"),
        (lambda: heatmap.pixel_auc(M, M, M[:1]), "where"),
        (lambda: heatmap.pixel_auc(M.long(), M), "maps"),
        (lambda: heatmap.same_place_auc(M, M[:1], M), "untouched"),
        (lambda: heatmap.best_threshold(M, M, tried=1), "tried"),
        (lambda: heatmap.best_threshold(M * math.nan, M), "maps"),
        (lambda: heatmap.over_people(torch.ones(4), torch.zeros(4)), "people"),
        (lambda: heatmap.over_people(torch.ones(4), torch.arange(3)), "people"),
        (lambda: heatmap.over_people(torch.tensor([1.0, math.nan]), torch.arange(2)), "values"),
    ],
)
def test_wrong_input_is_refused_by_name(call: Callable[[], object], argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        call()


# The frames and the checkpoint


@pytest.fixture(scope="module")
def drawn() -> dict[str, patch_detector.Scene]:
    return patch_detector.scenes(range(3000, 3004), 2, seed=77)


def test_nothing_outside_the_mask_is_changed_and_inside_it_is(
    drawn: dict[str, patch_detector.Scene],
) -> None:
    assert set(drawn) == set(patch_detector.KINDS)
    for kind, scene in drawn.items():
        moved = (scene.after - scene.before).abs().amax(dim=1, keepdim=True)
        assert float(moved[scene.masks == 0].max()) < 1e-6, kind
        assert float(moved[scene.masks > 0.5].mean()) > 0.01, kind
        area = (scene.masks > 0.5).float().mean(dim=(1, 2, 3))
        assert float(area.min()) > 0.01 and float(area.max()) < 0.4, kind
        assert torch.equal(scene.before, drawn["swapped"].before)


def test_matched_colours_match() -> None:
    frames = actors.sample(2, identity=actors.identity(1), seed=0)
    other = actors.sample(2, identity=actors.identity(2), seed=0)
    mask = (frames.masks > 0.5).float()
    matched = patch_detector.match_colours(
        0.3 * other.images + 0.3, 0.2 * frames.images + 0.4, mask
    )
    for i in range(2):
        inside = mask[i, 0] > 0.5
        a, b = matched[i][:, inside], (0.2 * frames.images + 0.4)[i][:, inside]
        assert torch.allclose(a.mean(dim=1), b.mean(dim=1), atol=0.01)
        assert torch.allclose(a.std(dim=1), b.std(dim=1), rtol=0.1)


def test_nobody_is_in_two_parts() -> None:
    parts = patch_detector.TRAIN, patch_detector.VALIDATION, patch_detector.TEST
    everybody = [person for part in parts for person in part]
    assert len(set(everybody)) == len(everybody)


def trained(*, compare: bool) -> heatmap.PatchNet:
    """A net whose last layers are not 0, as they are at the start."""
    net = heatmap.PatchNet(compare=compare, width=8, generator=device.generator(1))
    nn.init.normal_(net.judge2.weight, generator=device.generator(2))
    return net


def test_the_checkpoint_does_what_its_card_says(drawn: dict[str, patch_detector.Scene]) -> None:
    models = checkpoints.load("patch-detector", patch_detector.networks())
    measures = checkpoints.card("patch-detector").measures
    scene = drawn["rescaled"].saved(patch_detector.QUALITY)
    maps = heatmap.heat_map(models["compared"], scene.after)
    before = heatmap.heat_map(models["compared"], scene.before)
    # Four actors are few: near the card's numbers for 24 is what can be asked.
    assert float(heatmap.pixel_auc(maps, scene.masks).mean()) == pytest.approx(
        measures["AUC, patch compared, rescaled"], abs=0.1
    )
    assert float(heatmap.same_place_auc(maps, before, scene.masks).mean()) == pytest.approx(
        measures["same place, patch compared, rescaled"], abs=0.1
    )
    # The gate: where a face is says nothing about whether it was changed.
    for kind in (*patch_detector.KINDS, "unseen swap"):
        assert measures[f"same place, always the middle, {kind}"] == 0.5
