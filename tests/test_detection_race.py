"""The race: evasion keeps its budget, retraining its bargain, and the score of both is exact."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import beta
from torch import Tensor, nn

from course_lib import attacks, checkpoints, device, experiments
from course_lib.attacks.gradient import margin
from course_lib.detection import evaluate, processing, race
from course_lib.detection.cnn import DetectorNet, score
from course_lib.detection.spectrum import azimuthal_average, power_spectrum, spectrum_features
from course_lib.experiments import race as rows
from course_lib.recipes import race_moves


class Linear(nn.Module):
    """s(x) = <w, x> + b, of which everything about evasion is known."""

    def __init__(self, shape: tuple[int, ...], bias: float = 0.0, seed: int = 0) -> None:
        super().__init__()
        w = torch.randn(shape, generator=device.generator(seed))
        self.w = nn.Parameter(w)
        self.b = nn.Parameter(torch.tensor(bias))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.w.to(x)).flatten(1).sum(dim=1) + self.b.to(x)


def noise(n: int, seed: int, shape: tuple[int, ...] = (3, 12, 12)) -> Tensor:
    x = 0.25 + 0.5 * torch.rand(n, *shape, generator=device.generator(seed))
    return processing.quantise(x)


def step(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
    """FGSM with a size for every value."""
    return attacks.pgd(model, x, y, eps, eps, 1, random_start=False, loss=margin)


# A detector as a classifier


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_logits_have_the_detectors_probability_and_loss(dtype: torch.dtype) -> None:
    x, detector = noise(6, 1).to(dtype), Linear((3, 12, 12))
    y = torch.tensor([0, 1, 0, 1, 1, 0])
    s, logits = detector(x), race.TwoLogits(detector)(x)
    assert logits.shape == (6, 2) and logits.dtype == dtype
    assert torch.allclose(logits.softmax(dim=1)[:, 1], torch.sigmoid(s))
    assert torch.allclose(
        F.cross_entropy(logits, y), F.binary_cross_entropy_with_logits(s, y.to(dtype))
    )
    assert torch.allclose(margin(logits, torch.ones(6).long()), -s)


def test_two_logits_want_one_logit_per_image() -> None:
    with pytest.raises(ValueError, match="detector: expected one logit per image"):
        race.TwoLogits(nn.Flatten())(noise(2, 0))


# Evasion


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("border", [0, 2])
def test_evading_a_linear_detector_costs_eps_times_the_l1_norm(
    dtype: torch.dtype, border: int
) -> None:
    x, detector, eps = processing.quantise(noise(5, 2).to(dtype)), Linear((3, 12, 12)), 3 / 255
    made = race.evade(detector, x, step, eps=eps, margin=border)
    inside = detector.w.detach()[:, border : 12 - border, border : 12 - border]
    fall = (detector(x) - detector(made)).detach().double()
    assert made.dtype == dtype
    assert torch.allclose(fall, (eps * inside.abs().sum()).double().expand(5), rtol=1e-3)
    # A file of 8 bits, within the budget, and nothing is written into the margin.
    assert torch.allclose(made * 255, (made * 255).round(), atol=1e-3)
    assert float((made - x).abs().max()) == pytest.approx(eps, abs=1e-6)
    if border:
        assert torch.equal(made[..., :border, :], x[..., :border, :])
        assert torch.equal(made[..., -border:], x[..., -border:])


def test_evade_uses_whole_levels_and_leaves_the_detector_alone() -> None:
    x, detector = noise(4, 3), DetectorNet(3, width=2, generator=device.generator(0)).train()
    nn.init.ones_(detector.linear.weight)
    made = race.evade(detector, x, step, eps=2.9 / 255)
    assert float((made - x).abs().max()) == pytest.approx(2 / 255, abs=1e-6)
    assert detector.training and all(p.grad is None for p in detector.parameters())
    assert bool((detector(made) < detector(x)).all())


def test_a_larger_budget_never_helps_the_defender() -> None:
    x, detector = noise(20, 4), Linear((3, 12, 12), bias=2.0)
    left = [
        float(detector(race.evade(detector, x, step, eps=e / 255)).detach().mean())
        for e in (1, 2, 4, 8)
    ]
    assert left == sorted(left, reverse=True) and left[-1] < left[0]


GOOD = noise(3, 0)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda d: race.evade(d, GOOD[0], step, eps=0.1), "x: expected shape"),
        (lambda d: race.evade(d, GOOD[:0], step, eps=0.1), "x: expected shape"),
        (lambda d: race.evade(d, GOOD * math.nan, step, eps=0.1), "x: expected values"),
        (lambda d: race.evade(d, GOOD + 0.001, step, eps=0.1), "x: expected images of 8 bits"),
        (lambda d: race.evade(d, GOOD, step, eps=0.001), "eps: expected 1/255 to 1"),
        (lambda d: race.evade(d, GOOD, step, eps=math.nan), "eps: expected 1/255 to 1"),
        (lambda d: race.evade(d, GOOD, step, eps=1.5), "eps: expected 1/255 to 1"),
        (lambda d: race.evade(d, GOOD, step, eps=0.1, margin=6), "margin: expected 0 to"),
        (lambda d: race.evade(d, GOOD, lambda m, x, y, e: x + 0.5, eps=0.1), "attack: expected"),
        (lambda d: race.evade(d, GOOD, lambda m, x, y, e: x[:1], eps=0.1), "attack: expected"),
        (lambda d: race.evade(d, GOOD, lambda m, x, y, e: x * math.nan, eps=0.1), "attack: exp"),
        (lambda d: train(d, GOOD[..., :8], GOOD), "fake: expected images of shape"),
        (lambda d: train(d, GOOD, GOOD, eps=0.0), "eps: expected a size in"),
        (lambda d: train(d, GOOD, GOOD, eps=math.nan), "eps: expected a size in"),
        (lambda d: train(d, GOOD, GOOD, border=-1), "margin: expected 0 to"),
        (lambda d: train(d, GOOD, GOOD * 3), "fake: expected values"),
        (lambda d: race.Ensemble({}, noise(20, 0)), "members, real"),
        (lambda d: race.Ensemble({"a": d}, noise(19, 0)), "members, real"),
        (lambda d: race.Ensemble({"a": d}, noise(20, 0), "median"), "how: expected max or sum"),
        (lambda d: race.Randomised(d, lambda x, g: x, device.generator(0), 0), "draws"),
        (
            lambda d: race.Randomised(d, lambda x, g: x[:1], device.generator(0))(GOOD),
            "change: expected images",
        ),
        (lambda d: race.spectral_distance(GOOD, torch.zeros(3)), "wanted: expected shape"),
        (lambda d: race.spectral_gain(GOOD, GOOD[..., :8]), "real: expected images of shape"),
        (lambda d: race.spectral_gain(GOOD, GOOD, most=0.5), "most: expected a gain"),
        (lambda d: race.spectral_gain(GOOD, GOOD, most=math.nan), "most: expected a gain"),
        (lambda d: race.apply_gain(GOOD, torch.ones(3, 12, 12)), "gain: expected shape"),
        (lambda d: race.apply_gain(GOOD, torch.ones(3, 14, 8), margin=-1), "gain: expected"),
        (lambda d: race.judge(d, GOOD, GOOD, 0.5, before=GOOD[:1]), "before: expected shape"),
        (lambda d: race.judge(d, GOOD, GOOD, math.nan), "threshold"),
        (lambda d: race.judge(d, GOOD, GOOD[:0], 0.5), "expected shape"),
        (lambda d: race.share(torch.zeros(0, dtype=torch.bool)), "alarms: expected booleans"),
        (lambda d: race.share(torch.zeros(3)), "alarms: expected booleans"),
    ],
)
def test_wrong_input_is_named(call: Callable[[nn.Module], object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call(Linear((3, 12, 12)))


# Training on what fooled it


def train(
    detector: nn.Module,
    real: Tensor,
    fake: Tensor,
    *,
    eps: float = 8 / 255,
    border: int = 0,
    attack: race.Attack = step,
) -> list[float]:
    return [
        done.loss
        for done in race.retrain(
            detector, real, fake, attack, eps=eps, steps=60, margin=border, batch_size=16, lr=5e-3
        )
    ]


def test_retraining_attacks_fakes_only_and_within_the_budget() -> None:
    real, fake = noise(16, 5), noise(16, 6) * 0.5
    sizes = []

    def watched(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
        assert bool((y == 1).all()) and eps.shape == x.shape
        assert bool((x.flatten(1).amax(dim=1) < 0.45).all())  # fakes are dark here, real ones not
        assert float(eps[..., :2, :].max()) == 0
        sizes.append(eps.amax(dim=(1, 2, 3)))
        return step(model, x, y, eps)

    train(Linear((3, 12, 12)), real, fake, border=2, attack=watched)
    drawn = torch.cat(sizes)
    assert 0 <= float(drawn.min()) and float(drawn.max()) <= 8 / 255
    assert float(drawn.mean()) == pytest.approx(4 / 255, rel=0.15)


def test_retraining_moves_to_the_clue_that_an_attack_cannot_turn_round() -> None:
    """A faint clue on half of all pixels, always right, and a strong one on one, nearly always."""
    eps = 8 / 255
    real, fake = torch.full((200, 1, 8, 8), 128 / 255), torch.full((200, 1, 8, 8), 128 / 255)
    real[:, :, :4], fake[:, :, :4] = 126 / 255, 130 / 255
    strong = torch.rand(200, generator=device.generator(7)) < 0.9
    fake[strong, :, 6, 6] = 230 / 255
    plain, robust = (Linear((1, 8, 8)) for _ in range(2))
    for detector, size in ((plain, 1e-6), (robust, eps)):
        nn.init.zeros_(detector.w)
        for _ in range(4):
            train(detector, real, fake, eps=size)
        assert bool((detector(real) < 0).all())

    made = race.evade(robust, processing.quantise(fake), step, eps=eps)
    assert bool(((robust(made) > 0) == strong).all())
    trust = [float((d.w[0, 6, 6] / d.w.abs().sum()).detach()) for d in (plain, robust)]
    assert trust[1] > 1.3 * trust[0] > 0


# Several detectors, and chance


def test_ensemble_in_units_of_the_real_images() -> None:
    real, x = noise(40, 9), noise(7, 10)
    a, b = Linear((3, 12, 12), seed=1), Linear((3, 12, 12), bias=90.0, seed=2)
    both = {"a": a, "b": b}
    z = [(d(x) - d(real).mean()) / d(real).std() for d in (a, b)]
    assert torch.allclose(race.Ensemble(both, real)(x), torch.maximum(*z), atol=1e-4)
    assert torch.allclose(
        race.Ensemble(both, real, "sum")(x),
        torch.stack([torch.log1p(one.exp()) for one in z]).sum(dim=0),
        atol=1e-4,
    )
    alone = race.Ensemble({"a": a}, real)
    assert float(alone(real).mean()) == pytest.approx(0, abs=1e-4)
    assert float(alone(real).std()) == pytest.approx(1, abs=1e-4)


def test_the_sum_pushes_on_members_that_are_not_yet_evaded() -> None:
    real = noise(40, 11)
    a, b = Linear((3, 12, 12), seed=1), Linear((3, 12, 12), seed=2)
    whole = race.Ensemble({"a": a, "b": b}, real, "sum")
    x = noise(1, 12).requires_grad_()
    with torch.no_grad():
        whole.mean[0], whole.mean[1] = a(x) - 30 * whole.std[0], b(x) + 30 * whole.std[1]
    (grad,) = torch.autograd.grad(whole(x).sum(), x)
    assert torch.allclose(grad[0], a.w / whole.std[0], atol=1e-5)  # z_a = 30, z_b = -30


def test_a_random_change_counts_forwards_and_is_the_identity_backwards() -> None:
    detector = Linear((3, 12, 12))

    def halved(x: Tensor, g: torch.Generator) -> Tensor:
        return torch.where(torch.rand(len(x), 1, 1, 1, generator=g) < 0.5, x / 2, x).round()

    x = noise(8, 13).requires_grad_()
    judged = race.Randomised(detector, halved, device.generator(3))
    s = judged(x)
    assert torch.equal(s.detach(), detector(halved(x.detach(), device.generator(3))).detach())
    (grad,) = torch.autograd.grad(s.sum(), x)
    assert torch.allclose(grad, detector.w.expand(8, -1, -1, -1))
    many = race.Randomised(detector, halved, device.generator(3), 5)(x)
    again = [detector(halved(x, g)) for g in [device.generator(3)] for _ in range(5)]
    assert torch.allclose(many, torch.stack(again).mean(dim=0))


# The spectrum


def test_spectral_distance_is_0_for_its_own_spectrum_and_log_of_the_contrast_else() -> None:
    x = noise(30, 14, (1, 16, 16))
    own = spectrum_features(x).mean(dim=0)
    assert float(race.spectral_distance(x, own)) == pytest.approx(0, abs=1e-6)
    fainter = 0.5 + (x - x.mean(dim=(2, 3), keepdim=True)) / 10  # a tenth: a hundredth of the power
    power = azimuthal_average(power_spectrum(fainter)).log10().mean(dim=0)
    full = azimuthal_average(power_spectrum(x)).log10().mean(dim=0)
    assert torch.allclose(full - power, torch.full_like(full, 2.0), atol=2e-3)
    assert float(race.spectral_distance(fainter, own)) == pytest.approx(2, abs=2e-3)


def test_spectral_distance_has_a_gradient_that_lowers_it() -> None:
    x, wanted = noise(10, 15, (1, 16, 16)), spectrum_features(noise(9, 16, (1, 16, 16)) ** 2)
    x.requires_grad_()
    distance = race.spectral_distance(x, wanted.mean(dim=0))
    (grad,) = torch.autograd.grad(distance, x)
    lower = race.spectral_distance(
        (x - 1e-2 * grad / grad.abs().max()).detach(), wanted.mean(dim=0)
    )
    assert bool(grad.isfinite().all()) and float(lower) < float(distance.detach())


@pytest.mark.parametrize("side", [12, 13])
def test_the_filter_gives_the_mean_power_of_real_images_and_keeps_the_level(side: int) -> None:
    fake, real = noise(60, 17, (3, side, side)), noise(60, 18, (3, side, side)) * 0.3 + 0.4
    gain = race.spectral_gain(fake, real)
    power = (torch.fft.rfft2(fake) * gain).abs().square().mean(dim=0)
    wanted = torch.fft.rfft2(real).abs().square().mean(dim=0)
    assert torch.allclose(power.flatten(1)[:, 1:], wanted.flatten(1)[:, 1:], rtol=1e-3)
    made = race.apply_gain(fake, gain)
    assert torch.allclose(made.mean(dim=(2, 3)), fake.mean(dim=(2, 3)), atol=2e-3)
    assert torch.allclose(race.spectral_gain(fake, fake), torch.ones_like(gain))
    assert torch.equal(race.apply_gain(fake, torch.ones_like(gain)), fake)


def test_the_filter_is_bounded_and_spares_the_margin() -> None:
    fake, real = noise(20, 19) * 0.02 + 0.5, noise(20, 20)
    gain = race.spectral_gain(fake[..., 2:-2, 2:-2], real[..., 2:-2, 2:-2], most=3)
    assert float(gain.max()) == 3 and float(gain.min()) >= 1 / 3
    x = processing.quantise(fake)
    made = race.apply_gain(x, gain, margin=2)
    assert torch.equal(made[..., :2, :], x[..., :2, :]) and not torch.equal(made, x)


# The score of both


def test_judge_counts_alarms_and_measures_the_change() -> None:
    real, fake = noise(30, 21), noise(25, 22)
    detector = Linear((3, 12, 12))
    after = processing.quantise((fake + 5 / 255).clamp(0, 1))
    found = race.judge(detector, real, after, 0.5, before=fake)
    assert found.tpr.value == pytest.approx(float((detector(after) >= 0).double().mean()))
    assert found.fpr.value == pytest.approx(float((detector(real) >= 0).double().mean()))
    labels = torch.cat([torch.zeros(30), torch.ones(25)]).long()
    scores = torch.cat([score(detector, real), score(detector, after)])
    assert found.auc == evaluate.report(scores, labels).auc
    assert found.linf == pytest.approx(5 / 255, abs=1e-6)
    assert found.psnr == pytest.approx(-20 * math.log10(5 / 255), abs=1e-3)
    untouched = race.judge(detector, real, fake, 0.5)
    assert untouched.linf == 0 and untouched.psnr == math.inf


@pytest.mark.parametrize(("k", "n"), [(0, 175), (3, 40), (40, 40)])
def test_share_has_clopper_and_pearsons_interval(k: int, n: int) -> None:
    found = race.share(torch.arange(n) < k)
    low = 0.0 if k == 0 else beta.ppf(0.025, k, n - k + 1)
    high = 1.0 if k == n else beta.ppf(0.975, k + 1, n - k)
    assert (found.value, found.low, found.high) == pytest.approx((k / n, low, high))


# What ships


def test_no_shortcut_tells_the_races_portraits_apart() -> None:
    real, fake = race_moves.parts()
    found = evaluate.shortcut_auc(real["test"], fake["test"], seed=0)
    assert all(estimate.low <= 0.5 for estimate in found.values()), found


def test_the_shipped_players_do_what_their_row_says() -> None:
    real, fake = race_moves.parts()
    moves = checkpoints.load("race-moves", race_moves.players())
    row = next(row for row in experiments.load("race") if row["move"] == "none")
    for name, judge in rows.judges(moves, real["validation"]).items():
        limit = evaluate.threshold_at(rows._scores(judge, real["validation"]), 0.05)
        # Some CPUs add in another order: an image at the threshold may change sides.
        caught = float((rows._scores(judge, fake["test"]) >= limit).float().mean())
        assert caught == pytest.approx(row[f"{name} tpr"], abs=0.05)


def test_every_row_stays_within_its_budget_and_its_intervals() -> None:
    for row in experiments.load("race"):
        assert row["eps"] == 0 or row["linf"] <= row["eps"] / 255 + 1e-6
        for name in rows.JUDGES:
            for what in ("tpr", "fpr", "auc"):
                low, value, high = (row[f"{name} {what}{end}"] for end in (" low", "", " high"))
                assert 0 <= low <= value <= high <= 1
