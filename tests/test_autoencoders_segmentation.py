"""Masks: overlap by hand, and a small network that learns to find what it was shown."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from course_lib import device
from course_lib.autoencoders import networks, training
from course_lib.autoencoders.segmentation import dice, iou, segment, segmenter


def disks(n: int, seed: int, side: int = 16) -> tuple[Tensor, Tensor]:
    """Bright disks on noise, (n, 1, side, side), and where they are."""
    draw = device.generator(seed)
    row, column = torch.rand(2, n, 1, 1, generator=draw) * (side - 8) + 4
    radius = 2 + 2 * torch.rand(n, 1, 1, generator=draw)
    along = torch.arange(side).float()
    inside = (along[:, None] - row) ** 2 + (along - column) ** 2 <= radius**2
    masks = inside[:, None].float()
    noise = 0.3 * torch.rand(n, 1, side, side, generator=draw)
    return noise + 0.6 * masks, masks


def rectangle(top: int, left: int, height: int, width: int) -> Tensor:
    mask = torch.zeros(1, 1, 12, 12)
    mask[:, :, top : top + height, left : left + width] = 1
    return mask


@pytest.mark.parametrize(
    ("a", "b", "overlap", "coefficient"),
    [
        (rectangle(2, 2, 4, 4), rectangle(2, 2, 4, 4), 1, 1),
        (rectangle(0, 0, 4, 4), rectangle(6, 6, 4, 4), 0, 0),
        (rectangle(0, 0, 4, 4), rectangle(0, 2, 4, 4), 8 / 24, 16 / 32),  # half of each
        (rectangle(0, 0, 4, 4), rectangle(0, 0, 4, 8), 16 / 32, 32 / 48),  # half of the larger
        (rectangle(0, 0, 0, 0), rectangle(0, 0, 0, 0), 1, 1),
        (rectangle(0, 0, 0, 0), rectangle(0, 0, 1, 1), 0, 0),
        (rectangle(0, 0, 1, 1), rectangle(0, 0, 0, 0), 0, 0),
    ],
)
def test_overlap_by_hand(a: Tensor, b: Tensor, overlap: float, coefficient: float) -> None:
    assert float(iou(a, b)) == pytest.approx(overlap)
    assert float(dice(a, b)) == pytest.approx(coefficient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.uint8])
def test_iou_and_dice_are_symmetric_and_one_follows_from_the_other(dtype: torch.dtype) -> None:
    a, b = (torch.rand(2, 50, 1, 6, 6, generator=device.generator(0)) > 0.6).to(dtype)
    torch.testing.assert_close(iou(a, b), iou(b, a))
    torch.testing.assert_close(dice(a, b), dice(b, a))
    torch.testing.assert_close(dice(a, b), 2 * iou(a, b) / (1 + iou(a, b)))
    by_sets = [
        len(p & q) / len(p | q)
        for p, q in (
            ({*m.flatten().nonzero().flatten().tolist()} for m in pair)
            for pair in zip(a, b, strict=True)
        )
    ]
    torch.testing.assert_close(iou(a, b), torch.tensor(by_sets))


def test_a_pixel_more_in_common_is_worth_more() -> None:
    mask = rectangle(2, 2, 6, 6)
    values = [float(iou(rectangle(2, 2, 6, width), mask)) for width in range(7)]
    assert values == sorted(values) and values[0] == 0 and values[-1] == 1


@pytest.mark.parametrize("skips", [True, False])
def test_it_learns_to_find_disks_that_it_has_never_seen(skips: bool) -> None:
    x, masks = disks(300, seed=0)
    model = segmenter((1, 16, 16), channels=4, skips=skips, generator=device.generator(0))
    for _ in training.fit(
        model, x, target=masks, loss=training.cross_entropy, steps=150, batch_size=50, lr=1e-2
    ):
        pass
    other, truth = disks(100, seed=1)
    mean = (masks.mean(0) >= 0.5).float().expand_as(truth)
    found = float(iou(segment(model, other), truth).mean())
    assert found > 0.85
    assert found > 2 * float(iou(mean, truth).mean())


def test_skips_are_what_the_decoder_sees() -> None:
    """Without them the code is the narrowest maps alone; with them a fine pattern comes through."""
    with_skips, without = (
        segmenter((3, 8, 12), channels=2, skips=skips, generator=device.generator(0))
        for skips in (True, False)
    )
    x = torch.rand(2, 3, 8, 12, generator=device.generator(1))
    assert without.encode(x).shape == (2, 8 * 2 * 3)
    assert with_skips.encode(x).shape == (2, 8 * 2 * 3 + 4 * 4 * 6 + 2 * 8 * 12)
    code = with_skips.encode(x).detach()
    changed = code.clone()
    changed[:, -2 * 8 * 12 :] += 1  # the maps of full size, which no narrow map holds
    assert not torch.allclose(with_skips.decode(code), with_skips.decode(changed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_masks_have_the_size_of_the_image_and_the_model_stays_as_it_was(dtype: torch.dtype) -> None:
    model = segmenter((3, 8, 12), channels=2, generator=device.generator(0)).to(dtype)
    model.train()
    model.encoder.eval()
    x = torch.rand(5, 3, 8, 12, generator=device.generator(1)).to(dtype)
    masks = segment(model, x, batch_size=2)
    assert masks.shape == (5, 1, 8, 12) and masks.dtype == dtype
    assert set(masks.unique().tolist()) <= {0.0, 1.0}
    torch.testing.assert_close(masks, (model(x) >= 0.5).to(dtype))
    assert model.training and model.decoder.training and not model.encoder.training
    assert all(p.grad is None for p in model.parameters())


def test_a_higher_threshold_marks_fewer_pixels() -> None:
    model = segmenter((1, 8, 8), channels=2, generator=device.generator(0))
    x = torch.rand(4, 1, 8, 8, generator=device.generator(1))
    marked = [float(segment(model, x, t).sum()) for t in (0.001, 0.4, 0.5, 0.6, 0.999)]
    assert marked == sorted(marked, reverse=True)
    assert marked[0] == 4 * 64 and marked[-1] == 0


def test_the_generator_decides_the_weights() -> None:
    def weights(seed: int) -> Tensor:
        return nn.utils.parameters_to_vector(
            segmenter((1, 8, 8), channels=2, generator=device.generator(seed)).parameters()
        ).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


X = torch.rand(2, 1, 8, 8)
MASK = (X > 0.5).float()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: segmenter(()), "shape: expected one size or more"),
        (lambda m: segmenter((1, 8)), r"shape: expected \(C, H, W\)"),
        (lambda m: segmenter((1, 8, 10)), "divisible by 4; got"),
        (lambda m: segmenter((0, 8, 8)), "shape: expected .* each at least 1"),
        (lambda m: segmenter((1, 8, 8), channels=0), "channels: expected a whole number from 1"),
        (lambda m: m.encode(X[:, :, :4]), r"x: expected shape \(N, 1, 8, 8\)"),
        (lambda m: segment(m, X[:0]), "x: expected a float tensor .* N > 0"),
        (lambda m: segment(m, X.int()), "x: expected a float tensor"),
        (lambda m: segment(m, X.expand(2, 3, 8, 8)), r"x: expected shape \(N, 1, 8, 8\)"),
        (lambda m: segment(m, X / 0), "x: expected finite values"),
        (lambda m: segment(m, X, 0.0), r"threshold: expected a value in \(0, 1\), got 0"),
        (lambda m: segment(m, X, 1.0), "threshold: expected"),
        (lambda m: segment(m, X, math.nan), "threshold: expected"),
        (lambda m: segment(m, X, batch_size=0), "batch_size: expected a whole number from 1"),
        (lambda m: training.fit(m, X, target=X.expand(2, 3, 8, 8), steps=1), "target: expected"),
    ],
)
def test_wrong_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(segmenter((1, 8, 8), channels=2))


@pytest.mark.parametrize("measure", [iou, dice])
@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (MASK, MASK[:1], "predicted, mask: expected one shape"),
        (MASK, MASK[:, :, :4], "predicted, mask: expected one shape"),
        (MASK[:0], MASK[:0], "N > 0"),
        (MASK[0, 0, 0], MASK[0, 0, 0], "expected one shape"),
        (X, MASK, "predicted: expected masks of 0 and 1"),
        (MASK, X, "mask: expected masks of 0 and 1"),
        (MASK * math.nan, MASK, "predicted: expected masks of 0 and 1"),
        (2 * MASK, MASK, "predicted: expected masks of 0 and 1"),
    ],
)
def test_measures_name_what_is_wrong(measure: Any, a: Tensor, b: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure(a, b)


def test_a_segmenter_is_an_autoencoder_that_is_asked_for_something_else() -> None:
    model = segmenter((3, 8, 8), channels=2)
    assert isinstance(model, networks.Autoencoder)
    assert model.shape == (1, 8, 8) and model.image_shape == (3, 8, 8)
