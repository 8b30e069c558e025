"""Augmentation that a gradient passes through: ranges, one draw per image, and who learns."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from course_lib import device
from course_lib.gans import augmentation, networks, objectives
from course_lib.gans.augmentation import Augmented, augment, cut_out, recolour, translate
from course_lib.gans.run import Run

ALL = [augment, recolour, translate, cut_out]


def images(n: int = 40, side: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=device.generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("change", ALL)
def test_one_seed_one_result_and_each_image_its_own(change) -> None:
    x = images(1).expand(40, -1, -1, -1)
    once, again, other = (change(x, device.generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(once, again) and not torch.equal(once, other)
    assert once.shape == x.shape and once.dtype == x.dtype
    assert len({tuple(image.flatten().tolist()) for image in once}) > 10
    assert torch.equal(x[0], images(1)[0])  # the batch itself is left alone


def test_real_and_generated_get_the_same_changes_from_the_same_numbers() -> None:
    """The drawn parameters depend on the generator alone, not on what the images show."""
    real, fake = images(seed=0), images(seed=1)
    first = augment(real, device.generator(5)) + augment(fake, device.generator(5))
    # Every change is affine in the image, with equal parameters: so two images' sum is changed alike.
    middle = augment((real + fake) / 2, device.generator(5))
    assert torch.allclose(first / 2, middle)


def test_a_shift_moves_whole_pixels_and_no_farther_than_it_should() -> None:
    x = torch.full((500, 1, 16, 24), 0.5, dtype=torch.float64)
    x[:, :, 8, 12] = 1.0
    moved = translate(x, device.generator(0))
    _, _, rows, columns = (moved == 1.0).nonzero().unbind(1)
    assert len(rows) == 500  # one bright pixel each, none lost
    assert sorted(set((rows - 8).tolist())) == [-2, -1, 0, 1, 2]
    assert sorted(set((columns - 12).tolist())) == [-3, -2, -1, 0, 1, 2, 3]
    picture = images(1)
    assert torch.equal(translate(picture, device.generator(0), share=0), picture)


def test_a_shift_is_the_image_itself_with_grey_behind_it() -> None:
    x = images(30)
    moved = translate(x, device.generator(3))
    for image, shifted in zip(x, moved, strict=True):
        candidates = []
        for down in (-2, -1, 0, 1, 2):
            for right in (-2, -1, 0, 1, 2):
                expected = torch.full_like(image, 0.5)
                h, w = 16 - abs(down), 16 - abs(right)
                expected[:, max(down, 0) : max(down, 0) + h, max(right, 0) : max(right, 0) + w] = (
                    image[:, max(-down, 0) : max(-down, 0) + h, max(-right, 0) : max(-right, 0) + w]
                )
                candidates.append(torch.equal(shifted, expected))
        assert sum(candidates) == 1


def test_a_hole_is_a_grey_rectangle_of_half_the_side_or_less() -> None:
    x = images(300) / 4  # nothing in it is grey
    holed = cut_out(x, device.generator(0))
    hole = (holed == 0.5).all(1)
    assert torch.equal(holed[~hole[:, None].expand_as(x)], x[~hole[:, None].expand_as(x)])
    heights, widths = hole.any(2).sum(1), hole.any(1).sum(1)
    assert torch.equal(hole.sum((1, 2)), heights * widths)  # full rectangles
    assert int(heights.max()) == int(widths.max()) == 8
    assert int(heights.min()) < 8  # some reach over the border
    assert bool(hole.any(0).all())  # no place is always spared
    assert torch.equal(cut_out(x, device.generator(0), share=0), x)
    everywhere = cut_out(torch.zeros(1, 1, 8, 8), device.generator(0), share=1)
    assert (
        float(everywhere.mean()) > 0.12
    )  # a hole as large as the image, its middle anywhere in it


def test_colours_change_by_no_more_than_the_paper_allows() -> None:
    x = images(400)
    changed = recolour(x, device.generator(1))
    level, grey = x.mean((1, 2, 3)), x.mean(1, keepdim=True)
    moved = changed.mean((1, 2, 3)) - level
    # Saturation and contrast leave the mean alone; brightness moves it, by up to a quarter.
    assert -0.25 <= float(moved.min()) < -0.2 and 0.2 < float(moved.max()) <= 0.25
    greys = changed.mean(1, keepdim=True)
    contrast = greys.flatten(1).std(1) / grey.flatten(1).std(1)
    assert 0.5 <= float(contrast.min()) < 0.55 and 1.45 < float(contrast.max()) <= 1.5
    colour = (changed - greys).flatten(1).norm(dim=1) / (x - grey).flatten(1).norm(dim=1)
    saturation = colour / contrast
    assert 0 <= float(saturation.min()) < 0.05 and 1.95 < float(saturation.max()) <= 2 + 1e-9


def test_the_result_stays_near_the_range() -> None:
    changed = augment(images(300), device.generator(2))
    # Brightness leaves [-1/4, 5/4], saturation [-11/12, 23/12], and contrast at most [-2, 3].
    assert float(changed.min()) > -2 and float(changed.max()) < 3
    # Of noise, whose colours are as strong as can be; photographs stay nearer.
    assert float(((changed >= 0) & (changed <= 1)).double().mean()) > 0.7


def test_the_gradient_passes_and_is_the_right_one() -> None:
    x = images(2, side=4).requires_grad_()
    assert torch.autograd.gradcheck(lambda given: augment(given, device.generator(4)), x)
    holed = cut_out(x, device.generator(4))
    (slope,) = torch.autograd.grad(holed.sum(), x)
    assert torch.equal(slope == 0, holed == 0.5)  # nothing is learned about what is not shown


def test_the_discriminator_sees_changed_images_in_training_only() -> None:
    seen = []

    class Spy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return x.mean((1, 2, 3))

    x = images(4)
    D = Augmented(Spy(), device.generator(6))
    assert torch.equal(D(x), augment(x, device.generator(6)).mean((1, 2, 3)))
    assert not torch.equal(seen[0], x)
    D.eval()
    assert torch.equal(D(x), x.mean((1, 2, 3))) and torch.equal(seen[1], x)


@pytest.mark.parametrize("change", ALL)
@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 8, 8),
        torch.zeros(0, 3, 8, 8),
        torch.zeros(2, 3, 8, 8, dtype=torch.int64),
    ],
)
def test_refuses_what_is_no_batch_of_images(change, x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"x: expected a float tensor of shape \(N, C, H, W\)"):
        change(x, device.generator(0))


@pytest.mark.parametrize(
    ("change", "share"), [(translate, 1.0), (translate, -0.1), (cut_out, 1.1), (cut_out, -0.1)]
)
def test_refuses_a_share_that_is_none(change, share: float) -> None:
    with pytest.raises(ValueError, match="share: expected a share of the side"):
        change(images(2), device.generator(0), share)


def test_grey_is_where_the_networks_have_their_zero() -> None:
    assert 2 * augmentation.GREY - 1 == 0


def test_a_training_behind_changing_glasses_goes_on_bit_for_bit() -> None:
    """What the changes are drawn from is part of the state, as in the recipe of the portraits."""
    x = torch.rand(24, 1, 28, 28, generator=device.generator(0))

    def start() -> Run:
        changes = device.generator(5)
        return Run(
            device.launch(accelerator="cpu"),
            networks.DCGANGenerator(4, 4, generator=device.generator(1)),
            Augmented(networks.DCGANDiscriminator(4, generator=device.generator(2)), changes),
            objective=objectives.non_saturating,
            g_optimizer=torch.optim.Adam,
            d_optimizer=torch.optim.Adam,
            sample_noise=lambda n, rng: torch.randn(n, 4, generator=rng),
            order=device.generator(3),
            batch_size=8,
            watched=torch.randn(2, 4, generator=device.generator(4)),
            dice={"changes": changes},
        )

    straight = start()
    losses = [step.d_loss for step in straight.steps(x, until=4)]
    first, second = start(), start()
    found = [step.d_loss for step in first.steps(x, until=2)]
    second.restore(copy.deepcopy(first.state()))
    found += [step.d_loss for step in second.steps(x, until=4)]
    assert found == losses and torch.equal(second.samples(), straight.samples())
    # Other changes are another training.
    second.restore(copy.deepcopy(first.state()))
    second._dice["changes"].manual_seed(99)
    assert [step.d_loss for step in second.steps(x, until=4)] != losses[2:]
