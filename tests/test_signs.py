"""The drawn street signs, their views, and the stickers: geometry in closed form, light, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.attacks.signs import OverViews, SignNet, not_read_as, sensitive, sticker
from course_lib.data.signs import FLAT, NAMES, SIDE, SPLITS, Views, flat, signs, soiled, views

STOP, LIMIT_80 = NAMES.index("stop"), NAMES.index("limit 80")


def plain(place: Tensor | None = None, n: int = 1, background: float = 0.0) -> Views:
    """Views without light, blur or noise, straight on by default."""
    place = torch.eye(3) if place is None else place
    return Views(
        place=place.expand(n, 3, 3),
        light=torch.ones(n, 3, SIDE, SIDE),
        blur=torch.zeros(n),
        background=torch.full((n, 3, SIDE, SIDE), background),
        noise=torch.zeros(n, 3, SIDE, SIDE),
    )


def disc_sign(radius: float) -> Tensor:
    """A white disc on a flat sign, of a radius below 1."""
    centre = (torch.arange(FLAT) + 0.5) * 2 / FLAT - 1
    away = (centre.square() + centre[:, None].square()).sqrt()
    return torch.cat([torch.ones(3, FLAT, FLAT), (away < radius).float()[None]])


# --- flat signs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_flat_sign_is_a_picture_with_an_outline_off_the_edge(name: str) -> None:
    sign = flat(name)
    assert sign.shape == (4, FLAT, FLAT) and sign.dtype == torch.float32
    assert float(sign.min()) >= 0 and float(sign.max()) <= 1
    outline = sign[3]
    assert float(outline[FLAT // 2, FLAT // 2]) == 1
    corners = outline[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert float(corners.max()) == 0 or name == "give way"
    assert torch.equal(sign, flat(name))


def test_the_areas_are_those_of_the_shapes() -> None:
    """An antialiased shape has its own area to a part in a hundred."""
    pixel = (2 / FLAT) ** 2
    area = {name: float(flat(name)[3].sum()) * pixel for name in NAMES}
    assert area["limit 30"] == pytest.approx(math.pi * 0.94**2, rel=0.01)
    assert area["stop"] == pytest.approx(2 * math.sqrt(2) * 0.98**2, rel=0.01)
    r, grown = 0.98, 0.08  # an equilateral triangle, grown by 0.08 with round corners
    side = math.sqrt(3) * r
    triangle = math.sqrt(3) / 4 * side**2 + 3 * side * grown + math.pi * grown**2
    assert area["danger"] == pytest.approx(triangle, rel=0.01)


@pytest.mark.parametrize("name", ["stop", "no entry", "priority road", "straight on", "give way"])
def test_the_plates_are_symmetric(name: str) -> None:
    outline = flat(name)[3]
    assert torch.allclose(outline, outline.flip(1), atol=1e-4)


def test_the_signs_differ_where_they_should() -> None:
    table = {name: flat(name) for name in NAMES}
    for a, b in combinations(NAMES, 2):
        different = (table[a] - table[b]).abs().amax(dim=0) > 0.3
        assert int(different.sum()) > 50, (a, b)
    limits = [flat(f"limit {n}") for n in (30, 50, 80)]
    assert all(torch.equal(sign[3], limits[0][3]) for sign in limits)
    ring = limits[0][:, FLAT // 2, 4]
    assert all(torch.equal(sign[:, FLAT // 2, 4], ring) for sign in limits) and ring[0] > 0.6


def test_an_unknown_sign_lists_the_signs() -> None:
    with pytest.raises(ValueError, match=r"name: expected one of stop, .*; got 'yield'"):
        flat("yield")


# --- views ----------------------------------------------------------------------------------------


def test_straight_on_in_even_light_the_picture_is_the_sign_made_smaller() -> None:
    sign = flat("limit 80")
    sign[3] = 1.0
    seen = plain().see(sign)[0]
    expected = F.interpolate(sign[None, :3], size=(80, 80), mode="bilinear", align_corners=False)
    inner = slice(2, -2)  # at the edge of the flat picture the outside is mixed in
    expected = F.avg_pool2d(expected, 2)[0]
    assert torch.allclose(seen[:, inner, inner], expected[:, inner, inner], atol=1e-5)


@pytest.mark.parametrize(
    ("size", "x", "y"), [(0.5, 0.0, 0.0), (0.7, 0.2, -0.1), (0.9, -0.05, 0.05)]
)
def test_size_and_shift_are_those_of_the_place(size: float, x: float, y: float) -> None:
    place = torch.tensor([[size, 0, x], [0, size, y], [0, 0, 1.0]])
    seen = plain(place).see(disc_sign(0.8))[0, 0]
    area = float(seen.sum()) * (2 / SIDE) ** 2
    assert area == pytest.approx(math.pi * (0.8 * size) ** 2, rel=0.02)
    centre = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    assert float((seen * centre).sum() / seen.sum()) == pytest.approx(x, abs=5e-3)
    assert float((seen * centre[:, None]).sum() / seen.sum()) == pytest.approx(y, abs=5e-3)


def test_perspective_sends_points_where_the_matrix_says() -> None:
    """A small bright square at a known place of the plate appears at the mapped place."""
    many = views(12, seed=5)
    sign = torch.zeros(4, FLAT, FLAT)
    sign[3] = 1.0
    row, column = 40, 20
    sign[:3, row - 2 : row + 2, column - 2 : column + 2] = 1.0
    u = torch.tensor([column * 2 / FLAT - 1, row * 2 / FLAT - 1, 1.0])
    seen = plain(n=12)
    seen = replace(seen, place=many.place).see(sign)[:, 0]
    expected = (many.place @ u)[:, :2] / (many.place @ u)[:, 2:]
    centre = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    total = seen.sum(dim=(1, 2))
    found = torch.stack(
        [(seen * centre).sum(dim=(1, 2)) / total, (seen * centre[:, None]).sum(dim=(1, 2)) / total],
        dim=1,
    )
    assert torch.allclose(found, expected, atol=0.02)


def test_the_side_that_is_turned_away_is_shorter() -> None:
    for place in views(40, seed=0).place:
        corners = torch.tensor([[-1, -1, 1], [-1, 1, 1], [1, -1, 1], [1, 1, 1.0]]).T
        mapped = place @ corners
        depth, points = mapped[2], mapped[:2] / mapped[2]
        left, right = (points[:, 0] - points[:, 1]).norm(), (points[:, 2] - points[:, 3]).norm()
        assert bool((depth > 0).all())
        near_left = depth[:2].mean() < depth[2:].mean()
        assert bool(left > right) == bool(near_left)


def test_beside_the_plate_is_the_background_and_no_colour_bleeds_in() -> None:
    sign = disc_sign(0.5)
    sign[:3] = 0.2 * sign[3] + 1.0 * (1 - sign[3])  # white all around the outline
    seen = plain(background=0.2).see(sign)
    assert torch.allclose(seen, torch.full_like(seen, 0.2), atol=1e-6)


def test_light_multiplies_the_plate_and_noise_is_added_last() -> None:
    sign, n = disc_sign(0.95), 3
    gains = torch.tensor([0.3, 0.5, 0.8])
    lit = replace(plain(n=n), light=gains[:, None, None, None].expand(n, 3, SIDE, SIDE))
    middle = slice(SIDE // 4, -SIDE // 4)
    assert torch.allclose(lit.see(sign)[:, 0, 20, 20], gains)
    noise = 0.02 * torch.randn(n, 3, SIDE, SIDE, generator=device.generator(1))
    noisy = replace(lit, noise=noise).see(sign) - lit.see(sign)
    assert torch.allclose(noisy[:2, :, middle, middle], noise[:2, :, middle, middle], atol=1e-6)


def test_the_blur_is_a_gaussian() -> None:
    picture = torch.rand(1, 3, SIDE, SIDE, generator=device.generator(0))
    seen = replace(plain(), blur=torch.tensor([0.8]), background=picture)
    nothing = torch.cat([torch.ones(3, FLAT, FLAT), torch.zeros(1, FLAT, FLAT)])
    expected = gaussian_filter(
        picture[0].double().numpy(), (0, 0.8, 0.8), radius=(0, 3, 3), mode="nearest"
    )
    assert torch.allclose(seen.see(nothing)[0].double(), torch.from_numpy(expected), atol=1e-6)


def test_views_are_the_same_for_a_seed_and_each_stands_alone() -> None:
    a, b = views(6, seed=3), views(6, seed=3)
    sign = flat("stop")
    together = a.see(sign)
    assert torch.equal(together, b.see(sign))
    assert not torch.equal(together, views(6, seed=4).see(sign))
    assert together.shape == (6, 3, SIDE, SIDE)
    assert float(together.min()) >= 0 and float(together.max()) <= 1
    assert len(a) == 6 and len(a[2:4]) == 2
    assert torch.allclose(a[2:4].see(sign), together[2:4], atol=1e-6)
    assert torch.allclose(a.see(sign.expand(6, -1, -1, -1)), together, atol=1e-6)


def test_the_gradient_reaches_the_plate_and_stops_at_its_edge() -> None:
    sign = flat("stop").double().requires_grad_()
    many = views(8, seed=0)
    (grad,) = torch.autograd.grad(many.see(sign).sum(), sign)
    inside = sign[3].detach() > 0.5
    assert float((grad[:3, inside] != 0).double().mean()) > 0.9
    assert float(grad[:3, sign[3].detach() == 0].abs().sum()) == 0


def test_the_gradient_is_that_of_finite_differences() -> None:
    many = replace(plain(n=4, background=0.3), place=views(4, seed=2).place)
    sign = (0.25 + 0.5 * flat("limit 50")).double()
    weight = torch.randn(4, 3, SIDE, SIDE, generator=device.generator(3), dtype=torch.float64)
    sign.requires_grad_()
    (grad,) = torch.autograd.grad((weight * many.see(sign)).sum(), sign)
    way = torch.randn(4, FLAT, FLAT, generator=device.generator(4), dtype=torch.float64)
    with torch.no_grad():
        up, down = ((weight * many.see(sign + h * way)).sum() for h in (1e-5, -1e-5))
    assert float((grad * way).sum()) == pytest.approx(float(up - down) / 2e-5, rel=1e-6)


@pytest.mark.parametrize(
    ("sign", "message"),
    [
        (torch.zeros(3, 64, 64), r"sign: expected one flat sign \(4, H, W\) or 2 of them"),
        (torch.zeros(3, 4, 64, 64), r"or 2 of them, got \(3, 4, 64, 64\)"),
        (torch.full((4, 64, 64), 1.5), r"sign: expected values in \[0, 1\], got \[1.5, 1.5\]"),
        (torch.full((4, 64, 64), float("nan")), r"sign: expected values in \[0, 1\]"),
    ],
)
def test_what_is_no_flat_sign_is_named(sign: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        views(2, seed=0).see(sign)


def test_no_view_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="n: expected at least 1, got 0"):
        views(0, seed=0)


# --- the data set ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def test_split() -> data.Labelled:
    return signs("test")


def test_the_test_split_is_what_its_card_says(test_split: data.Labelled) -> None:
    loaded = test_split
    assert loaded.card is data.card("signs") and len(loaded) == loaded.card.splits["test"]
    assert {split: n for split, (n, _) in SPLITS.items()} == dict(loaded.card.splits)
    assert tuple(loaded.x.shape[1:]) == loaded.card.shape
    assert loaded.y.bincount().tolist() == [len(loaded) // len(NAMES)] * len(NAMES)
    (n, first), (m, other) = SPLITS["train"], SPLITS["test"]
    assert first + n <= other or other + m <= first
    assert loaded.group.tolist() == list(range(other, other + m))
    assert len({x.numpy().tobytes() for x in loaded.x}) == len(loaded)
    with pytest.raises(ValueError, match="split: expected one of train, test; got 'all'"):
        signs("all")  # type: ignore[arg-type]


def test_the_scenes_are_the_same_each_time_and_no_two_splits_alike(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for split, (_, first) in list(SPLITS.items()):
        monkeypatch.setitem(SPLITS, split, (20, first))
    train, test = signs("train"), signs("test")
    assert torch.equal(train.x, signs("train").x) and torch.equal(train.y, test.y)
    assert float((train.x - test.x).abs().amax(dim=(1, 2, 3)).min()) > 0.1


def test_about_half_of_the_plates_are_soiled_and_only_on_the_plate() -> None:
    clean = flat("stop").expand(400, -1, -1, -1)
    dirty = soiled(clean, device.generator(0))
    assert torch.equal(dirty[:, 3], clean[:, 3])
    touched = ((dirty - clean).abs().amax(dim=(1, 2, 3)) > 0.05).float().mean()
    assert 0.3 < float(touched) < 0.55
    assert float(dirty.min()) >= 0 and float(dirty.max()) <= 1
    covered = ((dirty - clean).abs().amax(dim=1) > 0.05).float().mean(dim=(1, 2))
    assert float(covered.max()) < 0.6


# --- the network and the stickers -----------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> SignNet:
    return checkpoints.load("sign-net", SignNet())


def test_the_card_of_the_network_holds(model: SignNet, test_split: data.Labelled) -> None:
    test = test_split
    with torch.no_grad():
        right = float((model(test.x).argmax(dim=1) == test.y).float().mean())
    assert right == pytest.approx(checkpoints.card("sign-net").measures["test accuracy"], abs=5e-3)
    assert right > 0.95
    assert sum(p.numel() for p in model.parameters()) == 143_066


def test_the_network_refuses_another_shape() -> None:
    with pytest.raises(
        ValueError, match=r"x: expected shape \(N, 3, 40, 40\), got \(2, 3, 32, 32\)"
    ):
        SignNet()(torch.zeros(2, 3, 32, 32))


def test_over_views_is_the_mean_of_the_log_probabilities(model: SignNet) -> None:
    many = views(5, seed=1)
    both = torch.stack([flat("stop"), flat("stop").clone()])
    both[1, :3] = 0.5
    with torch.no_grad():
        found = OverViews(model, both[0, 3:], many)(both[:, :3])
        for i, sign in enumerate(both):
            logits = torch.stack([model(many[j : j + 1].see(sign))[0] for j in range(5)]).double()
            expected = (logits.softmax(dim=1).log().mean(dim=0)).float()
            assert torch.allclose(found[i], expected, atol=1e-4)
    y = torch.tensor([3, 1])
    assert torch.equal(not_read_as(found, y), torch.stack([-found[0, 3], -found[1, 1]]))


def square(top: int, left: int, size: int) -> Tensor:
    region = torch.zeros(FLAT, FLAT, dtype=torch.bool)
    region[top : top + size, left : left + size] = True
    return region


def test_a_sticker_changes_its_region_only_and_works_on_fresh_views(model: SignNet) -> None:
    sign, region = flat("stop"), square(24, 24, 20)
    many, fresh = views(12, seed=1), views(60, seed=2)
    model.train()
    before = [p.clone() for p in model.parameters()]
    stuck = sticker(model, sign, region, LIMIT_80, many, steps=8)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    model.eval()
    assert stuck.shape == sign.shape and stuck.dtype == sign.dtype and not stuck.requires_grad
    assert torch.equal(stuck[:, ~region], sign[:, ~region])
    assert torch.equal(stuck[3], sign[3])
    assert float(stuck.min()) >= 0 and float(stuck.max()) <= 1
    assert torch.equal(stuck, sticker(model, sign, region, LIMIT_80, many, steps=8))

    @torch.no_grad()
    def misread(picture: Tensor, where: Views) -> float:
        return float((model(where.see(picture)).argmax(dim=1) != STOP).float().mean())

    assert misread(stuck, fresh) > misread(sign, fresh) + 0.3

    @torch.no_grad()
    def reached(picture: Tensor) -> float:
        return float(OverViews(model, sign[3:], many)(picture[None, :3])[0, LIMIT_80])

    assert reached(stuck) > reached(sign) + 1


def test_a_linear_reader_gets_the_best_sticker_there_is() -> None:
    """For a reader whose odds are linear in the picture each pixel of the best sticker is 0 or 1,
    by the sign of its mean weight over the views."""

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, SIDE, SIDE, generator=device.generator(7)) * 1e-3)

        def forward(self, x: Tensor) -> Tensor:
            score = (self.w.to(x) * x).sum(dim=(1, 2, 3))
            return torch.stack([score, -score], dim=1)

    reader, region = Linear(), square(20, 20, 12)
    many = replace(plain(n=6), place=views(6, seed=8).place)
    sign = 0.25 + 0.5 * flat("stop")
    sign.requires_grad_()
    pictures = (reader.w * many.see(sign)).sum()
    (slope,) = torch.autograd.grad(pictures, sign)
    stuck = sticker(reader, sign.detach(), region, 0, many, alpha=0.2, steps=8)
    best = (slope[:3] > 0).float()
    assert torch.equal(stuck[:3, region], best[:, region])


def test_the_sensitive_squares_are_those_that_the_reader_looks_at() -> None:
    """A reader that sees one corner of the picture is sensitive there, and nowhere else."""

    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = 9 * x[:, 0, 10:18, 22:30].mean(dim=(1, 2))
            return torch.stack([score, -score], dim=1)

    sign = flat("stop")
    place = sensitive(Corner(), sign, 0, plain(n=2), squares=4)
    assert place.shape == (FLAT, FLAT) and place.dtype == torch.bool and int(place.sum()) == 4 * 64
    rows, columns = place.nonzero().T
    assert (int(rows.min()), int(rows.max())) == (16, 31)
    assert (int(columns.min()), int(columns.max())) == (32, 47)
    everywhere = sensitive(Corner(), sign, 0, plain(), squares=32)
    assert bool((sign[3][everywhere] > 0.5).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sign": torch.zeros(64, 64)}, r"sign: expected a flat sign \(4, H, W\)"),
        ({"side": 10}, r"side: expected a divisor of \(64, 64\), got 10"),
        ({"side": 0}, "side: expected a divisor"),
        ({"squares": 0}, "squares: expected 1 to 32, as many as lie on the plate, got 0"),
        ({"squares": 33}, "squares: expected 1 to 32, .* got 33"),
        ({"target": 10}, "y: expected labels 0..9"),
    ],
)
def test_a_wrong_search_for_a_place_is_named(
    change: dict[str, object], message: str, model: SignNet
) -> None:
    given: dict[str, object] = {"sign": flat("stop"), "target": 7, "views": views(2, seed=0)}
    with pytest.raises(ValueError, match=message):
        sensitive(model, **(given | change))  # type: ignore[arg-type]


STICK: dict[str, tuple[Callable[[], dict[str, object]], str]] = {
    "sign": (lambda: {"sign": torch.zeros(3, 64, 64)}, r"sign: expected a flat sign \(4, H, W\)"),
    "range": (lambda: {"sign": torch.full((4, 64, 64), 2.0)}, r"x: expected values in \[0, 1\]"),
    "nan": (lambda: {"sign": torch.full((4, 64, 64), float("nan"))}, "x: expected finite values"),
    "float region": (
        lambda: {"region": torch.ones(64, 64)},
        r"region: expected a bool mask \(64, 64\) that is True somewhere, got torch.float32",
    ),
    "region's shape": (
        lambda: {"region": square(0, 0, 9)[:32]},
        r"region: .*got torch.bool \(32, 64\)",
    ),
    "empty region": (lambda: {"region": square(0, 0, 0)}, "region: expected a bool mask"),
    "target": (lambda: {"target": 10}, "y: expected labels 0..9 for 10 logits, got 10..10"),
    "steps": (lambda: {"steps": 0}, "steps: expected at least 1, got 0"),
    "alpha": (lambda: {"alpha": -0.1}, "alpha: expected finite sizes >= 0"),
}


@pytest.mark.parametrize("case", STICK)
def test_a_wrong_sticker_is_named(case: str, model: SignNet) -> None:
    change, message = STICK[case]
    given: dict[str, object] = {
        "sign": flat("stop"),
        "region": square(30, 20, 9),
        "target": LIMIT_80,
        "views": views(2, seed=0),
        "steps": 1,
    }
    with pytest.raises(ValueError, match=message):
        sticker(model, **(given | change()))  # type: ignore[arg-type]
