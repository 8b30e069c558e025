"""The few-pixel attack against models whose weak pixel is known, and its promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.attacks.few_pixel import few_pixel, fewest_pixels
from course_lib.classifiers import DigitNet


class Spot(nn.Module):
    """Class 1 where the value at one place, averaged over the channels, is above ``least``."""

    def __init__(self, row: int, column: int, least: float = 0.8, scale: float = 10.0) -> None:
        super().__init__()
        self.row, self.column, self.least, self.scale = row, column, least, scale
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        value = self.scale * (x[:, :, self.row, self.column].mean(dim=1) - self.least)
        return torch.stack([torch.zeros_like(value), value], dim=1)


class Counting(nn.Module):
    """Class 1 where at least ``k`` pixels are bright: as many must change, and no fewer."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        bright = (8 * (x - 0.5)).sigmoid().flatten(1)
        sure = 4 * ((x > 0.6).flatten(1).sum(dim=1) - self.k + 0.5)
        value = sure + 0.01 * bright.sum(dim=1)
        return torch.stack([torch.zeros_like(value), value], dim=1)


def changed(x_adv: Tensor, x: Tensor) -> Tensor:
    """How many pixels of each image differ, (N,)."""
    return (x_adv != x).any(dim=1).flatten(1).sum(dim=1)


def grey(n: int = 3, channels: int = 1, size: int = 6) -> tuple[Tensor, Tensor]:
    return torch.full((n, channels, size, size), 0.2), torch.zeros(n, dtype=torch.int64)


# ---- what is known ------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    row=st.integers(0, 5),
    column=st.integers(0, 8),
    channels=st.sampled_from([1, 3]),
    scale=st.sampled_from([1.0, 1e4]),
)
def test_finds_the_one_pixel_that_matters(
    row: int, column: int, channels: int, scale: float
) -> None:
    # A scale of 10,000 makes every probability exactly 0 or 1: the search must not need its slope.
    x, y = torch.full((1, channels, 6, 9), 0.2), torch.tensor([0])
    model = Spot(row, column, scale=scale)
    x_adv = few_pixel(model, x, y, population=100, generations=60)
    assert int(model(x_adv).argmax()) == 1
    assert (x_adv != x).any(dim=1)[0].nonzero().tolist() == [[row, column]]
    assert float(x_adv[0, :, row, column].mean()) > 0.8


@settings(max_examples=12, deadline=None)
@given(k=st.integers(1, 4), pixels=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_needs_as_many_pixels_as_the_model_counts(k: int, pixels: int, seed: int) -> None:
    x, y = grey(1)
    source = torch.Generator().manual_seed(seed)
    x_adv = few_pixel(Counting(k), x, y, pixels, population=60, generations=30, generator=source)
    fooled = int(Counting(k)(x_adv).argmax()) == 1
    assert fooled == (pixels >= k)
    assert int(changed(x_adv, x)) <= pixels


@given(
    seed=st.integers(0, 10**6),
    pixels=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    targeted=st.booleans(),
)
@settings(max_examples=25, deadline=None)
def test_changes_at_most_so_many_pixels_and_stays_in_the_box(
    seed: int, pixels: int, channels: int, targeted: bool
) -> None:
    source = torch.Generator().manual_seed(seed)
    x = torch.rand(2, channels, 5, 7, generator=source)
    x[1] = x[1].round()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Flatten(), nn.Linear(35 * channels, 4))
    y = torch.randint(0, 4, (2,), generator=source)
    x_adv = few_pixel(
        model, x, y, pixels, targeted=targeted, population=8, generations=4, generator=source
    )
    assert x_adv.shape == x.shape
    assert bool(((x_adv >= 0) & (x_adv <= 1)).all())
    assert int(changed(x_adv, x).max()) <= pixels
    # What comes back unfooled is at least as near to being fooled as the first image.
    before, after = model(x).softmax(dim=1)[[0, 1], y], model(x_adv).softmax(dim=1)[[0, 1], y]
    done = (model(x_adv).argmax(dim=1) == y) == targeted
    at_work = torch.where(
        done, True, (after >= before - 1e-6) if targeted else (after <= before + 1e-6)
    )
    assert bool(at_work.all())


def linear(w: Tensor, offset: float) -> nn.Module:
    """Logits 0 and w . x + offset: (N, C, H, W) to (N, 2)."""
    head = nn.Linear(w.numel(), 2, dtype=w.dtype)
    with torch.no_grad():
        head.weight.copy_(torch.stack([torch.zeros_like(w), w]))
        head.bias.copy_(torch.tensor([0.0, offset]))
    return nn.Sequential(nn.Flatten(), head)


def test_one_pixel_of_a_linear_model_is_found_as_well_as_by_trying_all() -> None:
    # For a linear margin the best single change is known: the largest gain over pixels and ends.
    source = torch.Generator().manual_seed(3)
    w = torch.randn(36, generator=source)
    x = torch.rand(1, 1, 6, 6, generator=source)
    gain = torch.where(w > 0, w * (1 - x.flatten()), -w * x.flatten())
    for share, expected in ((0.95, True), (1.02, False)):
        model = linear(w, -float(x.flatten() @ w) - share * float(gain.max()))
        x_adv = few_pixel(model, x, torch.tensor([0]), population=100, generations=80)
        assert (int(model(x_adv).argmax()) == 1) == expected
        place = int((x_adv != x).flatten().int().argmax())
        assert place == int(gain.argmax())


@given(
    seed=st.integers(0, 10**6),
    channels=st.sampled_from([1, 3]),
    share=st.floats(0.01, 1.2),
    tries=st.integers(1, 8),
)
@settings(max_examples=40, deadline=None)
def test_fewest_pixels_is_exact_on_a_linear_model(
    seed: int, channels: int, share: float, tries: int
) -> None:
    # Each pixel adds its own gain, so the fewest are the largest ones whose sum exceeds the gap.
    source = torch.Generator().manual_seed(seed)
    w = torch.randn(channels, 5, 6, generator=source, dtype=torch.float64)
    x = torch.rand(1, channels, 5, 6, generator=source, dtype=torch.float64)
    gains = torch.where(w > 0, w * (1 - x[0]), -w * x[0]).sum(dim=0).flatten()
    sums = gains.sort(descending=True).values.cumsum(dim=0)
    gap = share * float(sums[-1])
    model = linear(w.flatten(), -float((w * x[0]).sum()) - gap)
    x_adv = fewest_pixels(model, x, torch.tensor([0]), most=30, tries=tries)
    needed = int((sums <= gap - 1e-9).sum()) + 1
    assert (int(model(x_adv).argmax()) == 1) == (needed <= 30)
    assert int(changed(x_adv, x)) == min(needed, 30)
    touched = (x_adv != x).any(dim=1, keepdim=True).expand_as(x)
    assert bool(((x_adv == 0) | (x_adv == 1))[touched].all())


def test_a_target_is_reached_and_what_is_fooled_already_is_left_alone() -> None:
    class Corners(nn.Module):  # each of three corners votes for its class; class 3 otherwise
        def forward(self, x: Tensor) -> Tensor:
            votes = 5 * torch.stack([x[:, 0, 0, 0], x[:, 0, 0, -1], x[:, 0, -1, 0]], dim=1)
            return torch.cat([votes, torch.full_like(votes[:, :1], 3.0)], dim=1)

    x, _ = grey(4)
    x[2, 0, -1, 0] = 0.9  # is read as 2 as it is
    target = torch.tensor([0, 1, 2, 2])
    x_adv = few_pixel(Corners(), x, target, targeted=True, population=80, generations=60)
    assert torch.equal(Corners()(x_adv).argmax(dim=1), target)
    assert torch.equal(x_adv[2], x[2])
    assert changed(x_adv, x).tolist() == [1, 1, 0, 1]
    y = torch.tensor([0, 3, 3, 3])  # the first and the third are read wrongly as they are
    x_adv = few_pixel(Corners(), x, y, population=80, generations=60)
    assert changed(x_adv, x).tolist() == [0, 1, 0, 1]
    assert bool((Corners()(x_adv).argmax(dim=1) != y).all())


def test_fewest_pixels_stops_at_most_and_leaves_what_is_fooled() -> None:
    x, _ = grey(3)
    x[1] = 0.9
    model = linear(torch.ones(36), -20.1)  # x sums to 7.2: 17 white pixels of 36 are needed
    y = torch.tensor([0, 0, 1])  # the second is read as 1 and the third as 0, as they are
    stopped = fewest_pixels(model, x, y, most=16)
    assert changed(stopped, x).tolist() == [16, 0, 0]
    enough = fewest_pixels(model, x, y, most=17)
    assert changed(enough, x).tolist() == [17, 0, 0]
    assert bool((model(enough).argmax(dim=1) != y).all())
    # A batch is its images one by one, and a flat model changes nothing it could not.
    assert torch.equal(enough[:1], fewest_pixels(model, x[:1], y[:1], most=17))
    flat = fewest_pixels(linear(torch.zeros(36), -1.0), x, torch.zeros(3).long(), most=2)
    assert bool(flat.isfinite().all()) and int(changed(flat, x).max()) <= 2


# ---- the search ---------------------------------------------------------------------------------


def test_the_whole_population_goes_through_at_once_and_the_search_ends_when_fooled() -> None:
    x, y = grey(1)
    model = Spot(2, 2, least=2.0)  # no pixel can
    _ = few_pixel(model, x, y, population=20, generations=7)
    assert model.seen == [1] + [20] * 8
    easy = Spot(2, 2, least=0.3)
    x_adv = few_pixel(easy, x, y, population=200, generations=50)
    assert len(easy.seen) < 10
    assert int(easy(x_adv).argmax()) == 1


def test_is_seeded_and_leaves_other_randomness_alone() -> None:
    x, y = grey(2)
    model = Counting(3)

    def attack(generator: torch.Generator | None) -> Tensor:
        return few_pixel(model, x, y, 3, population=20, generations=5, generator=generator)

    state = torch.get_rng_state()
    assert torch.equal(attack(None), attack(torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(attack(None), attack(torch.Generator().manual_seed(1)))
    # The images of a batch are searched with different luck.
    both = attack(None)
    assert not torch.equal(both[0], both[1])


def test_a_constant_model_ends_and_a_flat_one_is_searched_to_the_end() -> None:
    x, y = grey(1, size=28)

    class Constant(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor([[2.0, 1.0]]).repeat(len(x), 1)

    x_adv = few_pixel(Constant(), x, y, population=10, generations=5)
    assert int(changed(x_adv, x)) <= 1
    assert bool(x_adv.isfinite().all())

    class Switch(nn.Module):  # flat but for one pixel in 784: "all alike" is no reason to stop
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return torch.stack([0 * x[:, 0, 0, 0], 2.0 * (x[:, 0, 20, 20] > 0.5) - 1], dim=1)

    switch = Switch()
    x_adv = few_pixel(switch, x, y, population=10, generations=5)
    assert switch.calls == 7 or int(switch(x_adv).argmax()) == 1


# ---- no trace -----------------------------------------------------------------------------------


class Disturbed(nn.Module):
    """Batch normalisation and dropout: what running in training mode would disturb."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.norm(x)).flatten(1))
        return logits


ATTACKS: dict[str, Callable[..., Tensor]] = {
    "few": lambda model, x, y: few_pixel(model, x, y, 2, population=10, generations=3),
    "fewest": lambda model, x, y: fewest_pixels(model, x, y, most=3),
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_model_and_its_inputs_are_left_as_they_were(
    attack: Callable[..., Tensor], training: bool, context: Callable[[], Any]
) -> None:
    torch.manual_seed(0)
    model = Disturbed().train(training)
    model.head.weight.grad = torch.ones_like(model.head.weight)
    x, y = grey(2)
    x.requires_grad_()
    kept = x.detach().clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with context():
        x_adv = attack(model, x, y)
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)
    assert [module.training for module in model.modules()] == [training] * 4
    assert model.head.weight.grad is not None and bool((model.head.weight.grad == 1).all())
    assert model.head.bias.grad is None and x.grad is None
    assert torch.equal(x.detach(), kept)
    assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_dtype_and_shape(dtype: torch.dtype) -> None:
    x, y = grey(2)
    x_adv = few_pixel(Spot(1, 4), x.to(dtype), y, population=60, generations=40)
    assert x_adv.dtype == dtype and x_adv.shape == x.shape
    assert bool((x_adv[:, 0, 1, 4] > 0.8).all())
    assert bool((x_adv <= 1).all())
    x_adv = fewest_pixels(Spot(1, 4).to(dtype), x.to(dtype), y)
    assert x_adv.dtype == dtype and bool((x_adv[:, 0, 1, 4] == 1).all())
    assert changed(x_adv, x.to(dtype)).tolist() == [1, 1]


def test_a_model_without_a_gradient_is_attacked_all_the_same() -> None:
    class Rounded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.round(
                3 * torch.stack([0.6 - x[:, 0, 0, 0], x[:, 0, 3, 3]], dim=1)
            ).detach()

    x, y = grey(1)
    x_adv = few_pixel(Rounded(), x, y, population=60, generations=40)
    assert int(Rounded()(x_adv).argmax()) == 1


# ---- wrong input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"pixels": 0}, "pixels: expected 1 to 36, got 0"),
        ({"pixels": 37}, "pixels: expected 1 to 36, got 37"),
        ({"population": 4}, "population: expected at least 5, got 4"),
        ({"generations": 0}, "generations: expected at least 1, got 0"),
        ({"x": torch.zeros(3, 36)}, r"x: expected shape \(N, C, H, W\), got \(3, 36\)"),
        ({"x": torch.full((3, 1, 6, 6), 1.5)}, r"x: expected values in \[0, 1\]"),
        ({"x": torch.full((3, 1, 6, 6), torch.nan)}, "x: expected finite values"),
        ({"x": torch.zeros(3, 1, 6, 6, dtype=torch.uint8)}, "x: expected a float tensor"),
        ({"x": torch.zeros(0, 1, 6, 6), "y": torch.zeros(0).long()}, "x: .* with N > 0"),
        ({"y": torch.zeros(3)}, "y: expected int64"),
        ({"y": torch.zeros(2).long()}, "y: .* one per image"),
        ({"y": torch.full((3,), 2)}, "y: expected labels 0..1 for 2 logits, got 2..2"),
        ({"model": nn.Flatten(0)}, "model: expected logits"),
        ({"model": len}, "model: expected a torch.nn.Module"),
    ],
)
def test_wrong_input_is_named(changes: dict[str, Any], match: str) -> None:
    x, y = grey()
    arguments: dict[str, Any] = {"model": Spot(0, 0), "x": x, "y": y, "pixels": 1} | changes
    with pytest.raises(ValueError, match=match):
        few_pixel(**arguments)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"most": 0}, "most: expected at least 1, got 0"),
        ({"tries": 0}, "tries: expected at least 1, got 0"),
        ({"x": torch.zeros(3, 36)}, r"x: expected shape \(N, C, H, W\), got \(3, 36\)"),
        ({"x": torch.full((3, 1, 6, 6), -0.5)}, r"x: expected values in \[0, 1\]"),
        ({"x": torch.full((3, 1, 6, 6), torch.nan)}, "x: expected finite values"),
        ({"x": torch.zeros(0, 1, 6, 6), "y": torch.zeros(0).long()}, "x: .* with N > 0"),
        ({"y": torch.zeros(3)}, "y: expected int64"),
        ({"y": torch.full((3,), 2)}, "y: expected labels 0..1 for 2 logits, got 2..2"),
        ({"model": nn.Flatten(0)}, "model: expected logits"),
        ({"model": len}, "model: expected a torch.nn.Module"),
        ({"model": Spot(0, 0, scale=float("nan"))}, "model: expected finite logits"),
    ],
)
def test_wrong_input_to_fewest_pixels_is_named(changes: dict[str, Any], match: str) -> None:
    x, y = grey()
    arguments: dict[str, Any] = {"model": Spot(0, 0), "x": x, "y": y, "most": 5} | changes
    with pytest.raises(ValueError, match=match):
        fewest_pixels(**arguments)


def test_logits_that_are_not_finite_are_refused() -> None:
    x, y = grey()
    with pytest.raises(ValueError, match="model: expected finite logits"):
        few_pixel(Spot(0, 0, scale=float("nan")), x, y)


# ---- a real network -----------------------------------------------------------------------------


def test_ten_pixels_do_more_to_the_digit_network_than_one() -> None:
    from course_lib import checkpoints, data

    model = checkpoints.load("digit-net", DigitNet())
    train = data.mnist("train").take(4, seed=0)

    def certainty(pixels: int) -> float:
        x_adv = few_pixel(model, train.x, train.y, pixels, population=50, generations=12)
        with torch.no_grad():
            return float(model(x_adv).softmax(dim=1).gather(1, train.y[:, None]).mean())

    with torch.no_grad():
        clean = float(model(train.x).softmax(dim=1).gather(1, train.y[:, None]).mean())
    assert certainty(10) < certainty(1) <= clean
