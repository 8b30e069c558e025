"""The detector, what is done to its images, and how it is judged."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib import checkpoints, data, device, metrics
from course_lib.detection import cnn, compression, evaluate, processing
from course_lib.gans.networks import DCGANGenerator
from course_lib.recipes.dcgan_digits import CHANNELS, LATENT
from course_lib.recipes.detector_digits import forge


def strokes(n: int, *, seed: int = 0, size: int = 28, channels: int = 1) -> Tensor:
    """Bright blurred strokes on a black ground, on the 8-bit grid: (n, channels, size, size)."""
    g = torch.Generator().manual_seed(seed)
    x = torch.zeros(n, channels, size, size)
    for i in range(n):
        row, column, length = torch.randint(6, size - 12, (3,), generator=g).tolist()
        x[i, :, row : row + 3, column : column + max(3, length // 2)] = 1
        x[i, :, row : row + 8, column : column + 2] = 0.8
    return processing.quantise(processing.levels(compression.blur(x, 0.6), 0.02, 0.7))


CHANGES = {
    "quantise": processing.quantise,
    "levels": lambda x: processing.levels(x, 0.1, 0.9),
    "jpeg": lambda x: compression.jpeg(x, 40),
    "resize": lambda x: compression.resize(x, 0.5),
    "blur": lambda x: compression.blur(x, 1.0),
    "noise": lambda x: compression.noise(x, 0.1, seed=3),
    "augment": lambda x: compression.blur_and_jpeg(x, torch.Generator().manual_seed(1), p=1.0),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("channels", [1, 3])
def test_processing_keeps_shape_range_and_input_and_repeats(name: str, channels: int) -> None:
    x = torch.rand(3, channels, 20, 28, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    first, second = CHANGES[name](x), CHANGES[name](x)
    assert first.shape == x.shape and first.dtype == x.dtype
    assert float(first.min()) >= 0 and float(first.max()) <= 1
    assert torch.equal(first, second) and torch.equal(x, before)
    assert not torch.equal(first, x)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(28, 28),
        torch.zeros(0, 1, 8, 8),
        torch.zeros(1, 2, 8, 8),
        torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
        torch.full((1, 1, 8, 8), 1.5),
        torch.full((1, 1, 8, 8), -0.1),
        torch.full((1, 1, 8, 8), math.nan),
    ],
    ids=["one image", "empty", "two channels", "bytes", "above", "below", "nan"],
)
def test_processing_refuses_what_is_no_image(name: str, bad: Tensor) -> None:
    with pytest.raises(ValueError, match="x: expected"):
        CHANGES[name](bad)


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda x: compression.jpeg(x, 0), "quality"),
        (lambda x: compression.jpeg(x, 101), "quality"),
        (lambda x: compression.resize(x, 0.0), "factor"),
        (lambda x: compression.resize(x, math.nan), "factor"),
        (lambda x: compression.resize(x, 0.01), "factor"),
        (lambda x: compression.blur(x, -1.0), "sigma"),
        (lambda x: compression.blur(x, math.inf), "sigma"),
        (lambda x: compression.noise(x, -0.1, seed=0), "sigma"),
        (lambda x: processing.levels(x, 0.5, 0.5), "black"),
        (lambda x: compression.blur_and_jpeg(x, torch.Generator(), p=1.5), "p:"),
    ],
)
def test_processing_refuses_wrong_settings(call: object, argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        call(strokes(1))  # type: ignore[operator]


def test_processing_with_nothing_to_do_is_the_identity() -> None:
    x = strokes(4)
    assert torch.equal(compression.resize(x, 1.0), x)
    assert torch.equal(compression.blur(x, 0.0), x)
    assert torch.equal(compression.noise(x, 0.0, seed=1), x)
    assert torch.equal(processing.levels(x, 0.0), x)
    assert torch.equal(compression.blur_and_jpeg(x, torch.Generator(), p=0.0), x)


def test_quantise_is_idempotent_and_never_off_by_more_than_half_a_level() -> None:
    x = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    once = processing.quantise(x)
    assert torch.equal(processing.quantise(once), once)
    assert float((once - x).abs().max()) <= 0.5 / 255 + 1e-7
    assert torch.allclose(once * 255, (once * 255).round(), atol=1e-4)


def test_levels_maps_black_to_0_and_white_to_1_and_keeps_the_order() -> None:
    ramp = torch.linspace(0, 1, 101).reshape(1, 1, 1, 101)
    out = processing.levels(ramp, 0.2, 0.7).flatten()
    assert bool((out[:21] == 0).all()) and bool((out[71:] == 1).all())
    assert bool((out.diff() >= 0).all())
    assert float(out[45]) == pytest.approx(0.5, abs=1e-5)


def test_jpeg_error_falls_as_quality_rises_and_flat_images_survive() -> None:
    x = strokes(30)
    errors = [float((compression.jpeg(x, q) - x).square().mean()) for q in (5, 20, 40, 75, 95, 100)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < (1.0 / 255) ** 2
    flat = torch.full((1, 3, 16, 16), 128 / 255)
    assert torch.allclose(compression.jpeg(flat, 50), flat, atol=1e-6)


def test_jpeg_result_is_on_the_8_bit_grid() -> None:
    out = compression.jpeg(strokes(3), 60)
    assert torch.equal(processing.quantise(out), out)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_of_an_impulse_is_a_gaussian(sigma: float) -> None:
    size, centre = 41, 20
    x = torch.zeros(1, 1, size, size, dtype=torch.float64)
    x[0, 0, centre, centre] = 1
    out = compression.blur(x, sigma)[0, 0]
    i = torch.arange(size, dtype=torch.float64) - centre
    g = torch.exp(-(i**2) / (2 * sigma**2))
    g = g / g.sum()
    assert torch.allclose(out, g[:, None] * g[None, :], atol=1e-4)
    assert float(out.sum()) == pytest.approx(1.0, abs=1e-9)
    variance = float((out.sum(0) * i**2).sum())
    # Sampling the Gaussian at whole pixels costs a little at half a pixel, nothing from 1 on.
    assert variance == pytest.approx(float((g * i**2).sum()), rel=5e-3)


def test_blurs_add_in_variance() -> None:
    x = torch.zeros(1, 1, 61, 61, dtype=torch.float64)
    x[0, 0, 30, 30] = 1
    twice = compression.blur(compression.blur(x, 1.5), 2.0)
    assert torch.allclose(twice, compression.blur(x, 2.5), atol=1e-5)


def test_resize_keeps_flat_images_and_removes_the_finest_pattern() -> None:
    flat = torch.full((1, 1, 28, 28), 0.3)
    assert torch.allclose(compression.resize(flat, 0.5), flat, atol=1e-6)
    chess = ((torch.arange(28)[:, None] + torch.arange(28)[None, :]) % 2).float()[None, None]
    inside = compression.resize(chess, 0.5)[..., 4:-4, 4:-4]
    assert float((inside - 0.5).abs().max()) < 0.05


def test_noise_has_the_asked_strength_and_seeds_differ() -> None:
    x = torch.full((1, 1, 200, 200), 0.5)
    a, b = compression.noise(x, 0.05, seed=0), compression.noise(x, 0.05, seed=1)
    assert float((a - x).std()) == pytest.approx(0.05, rel=0.03)
    assert not torch.equal(a, b)


def test_detector_is_small_and_takes_other_sizes_and_colours() -> None:
    assert sum(p.numel() for p in cnn.DetectorNet().parameters()) < 100_000
    assert cnn.DetectorNet(3)(torch.rand(2, 3, 64, 40)).shape == (2,)
    with pytest.raises(ValueError, match="channels"):
        cnn.DetectorNet(2)
    with pytest.raises(ValueError, match="width"):
        cnn.DetectorNet(width=0)
    with pytest.raises(ValueError, match=r"\(N, 1, H, W\)"):
        cnn.DetectorNet()(torch.rand(2, 3, 28, 28))


def test_detector_is_made_of_operations_a_browser_can_run() -> None:
    kinds = {type(m) for m in cnn.DetectorNet().modules()} - {cnn.DetectorNet}
    assert kinds == {nn.Conv2d, nn.Linear}


def trained(**options: object) -> tuple[cnn.DetectorNet, list[cnn.Step], Tensor]:
    """Train sharp against blurred, and score 30 new ones of each."""
    model = cnn.DetectorNet(width=4, generator=device.generator(0))
    real, fake = strokes(64, seed=1, size=20), compression.blur(strokes(64, seed=2, size=20), 1.0)
    steps = cnn.train_detector(
        model,
        real,
        fake,
        fabric=device.launch(accelerator="cpu"),
        batch_size=32,
        lr=1e-2,
        **options,  # type: ignore[arg-type]
    )
    records = list(steps)
    test = [strokes(30, seed=3, size=20), compression.blur(strokes(30, seed=4, size=20), 1.0)]
    return model, records, cnn.score(model, torch.cat(test))


def test_training_learns_repeats_and_yields_one_record_per_step() -> None:
    model, steps, scores = trained(steps=40)
    assert [s.step for s in steps] == list(range(1, 41)) and steps[-1].steps == 40
    assert steps[0].loss == pytest.approx(math.log(2))  # undecided: every logit is 0
    assert steps[-1].loss < steps[0].loss / 2
    assert metrics.auc(scores, torch.arange(60) // 30) > 0.95
    assert not model.training
    assert torch.equal(trained(steps=40)[2], scores)


def test_training_applies_the_augmentation_to_every_batch_of_both_kinds() -> None:
    seen: list[int] = []

    def count(x: Tensor, generator: torch.Generator) -> Tensor:
        seen.append(len(x))
        return x

    trained(steps=8, augment=count)
    assert sum(seen) == 2 * 128
    _, _, plain = trained(steps=8)
    _, _, augmented = trained(steps=8, augment=compression.blur_and_jpeg)
    assert not torch.equal(plain, augmented)


def test_training_refuses_what_cannot_work() -> None:
    fabric = device.launch(accelerator="cpu")
    model, x = cnn.DetectorNet(), strokes(4)
    with pytest.raises(ValueError, match="fake"):
        cnn.train_detector(model, x, torch.zeros(4, 1, 20, 20), fabric=fabric, steps=1)
    with pytest.raises(ValueError, match="real"):
        cnn.train_detector(model, x + 1, x, fabric=fabric, steps=1)
    with pytest.raises(ValueError, match="steps"):
        cnn.train_detector(model, x, x, fabric=fabric, steps=0)
    with pytest.raises(ValueError, match="lr"):
        cnn.train_detector(model, x, x, fabric=fabric, steps=1, lr=0.0)


@pytest.mark.parametrize("training", [True, False])
def test_score_does_not_depend_on_batches_and_leaves_the_mode(training: bool) -> None:
    model = cnn.DetectorNet().train(training)
    x = strokes(7)
    assert torch.allclose(cnn.score(model, x, batch_size=2), cnn.score(model, x), atol=1e-6)
    assert torch.allclose(cnn.score(model, x), torch.sigmoid(model(x)).detach(), atol=1e-6)
    assert model.training is training
    with pytest.raises(ValueError, match="one logit"):
        cnn.score(nn.Flatten(), x)


@settings(max_examples=60, deadline=None)
@given(
    many=st.integers(8, 40),
    sizes=st.lists(st.integers(1, 5), min_size=40, max_size=40),
    seed=st.integers(0, 1000),
)
def test_split_keeps_groups_whole_and_loses_nothing(many: int, sizes: list[int], seed: int) -> None:
    group = torch.tensor([7 * g - 3 for g in range(many) for _ in range(sizes[g])])
    group = group[torch.randperm(len(group), generator=torch.Generator().manual_seed(seed))]
    parts = evaluate.split_by_group(group, seed=seed)
    assert torch.cat(parts).sort().values.tolist() == list(range(len(group)))
    held = [set(group[part].tolist()) for part in parts]
    assert all(a.isdisjoint(b) for i, a in enumerate(held) for b in held[:i])
    assert [len(h) for h in held] == [
        round(0.72 * many),
        round(0.86 * many) - round(0.72 * many),
        many - round(0.86 * many),
    ]
    again = evaluate.split_by_group(group, seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))


def test_split_of_a_thousand_videos_is_faceforensics_and_seeds_differ() -> None:
    videos = torch.arange(1000)
    parts = evaluate.split_by_group(videos, seed=0)
    assert [len(p) for p in parts] == [720, 140, 140]
    assert not torch.equal(parts[1], evaluate.split_by_group(videos, seed=1)[1])


@pytest.mark.parametrize(
    ("group", "fractions", "argument"),
    [
        (torch.zeros(9, dtype=torch.int64), (0.5, 0.5), "too few"),
        (torch.arange(9), (0.5, 0.4), "fractions"),
        (torch.arange(9), (1.2, -0.2), "fractions"),
        (torch.arange(9), (), "fractions"),
        (torch.arange(9).float(), (0.5, 0.5), "group"),
        (torch.arange(8).reshape(2, 4), (0.5, 0.5), "group"),
        (torch.arange(0), (0.5, 0.5), "group"),
    ],
)
def test_split_refuses(group: Tensor, fractions: tuple[float, ...], argument: str) -> None:
    with pytest.raises(ValueError, match=argument):
        evaluate.split_by_group(group, fractions, seed=0)


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.integers(0, 20), min_size=1, max_size=60),
    rate=st.floats(0, 0.999),
)
def test_threshold_lets_through_what_was_allowed_and_is_the_lowest(
    values: list[int], rate: float
) -> None:
    real = torch.tensor(values) / 20
    t = evaluate.threshold_at(real, rate)
    s = real.double()
    assert int((s >= t).sum()) <= rate * len(s) + 1e-6
    assert int((real >= t).sum()) == int((s >= t).sum())  # also in the scores' own precision
    below = s[s < t].max()  # the next lower threshold that decides anything differently
    assert int((s >= below).sum()) > rate * len(s) - 1e-6


def test_threshold_agrees_with_the_course_rule_at_the_threshold() -> None:
    real = torch.linspace(0, 1, 101)
    t = evaluate.threshold_at(real, 0.05)
    labels = torch.cat([torch.zeros(101), torch.ones(1)]).long()
    rates = metrics.rates_at(torch.cat([real, torch.ones(1)]), labels, t)
    assert rates.fpr == pytest.approx(5 / 101)


def test_threshold_refuses() -> None:
    with pytest.raises(ValueError, match="false_positive_rate"):
        evaluate.threshold_at(torch.rand(5), 1.0)
    with pytest.raises(ValueError, match="scores_real"):
        evaluate.threshold_at(torch.tensor([0.1, math.nan]), 0.1)
    with pytest.raises(ValueError, match="scores_real"):
        evaluate.threshold_at(torch.arange(4), 0.1)


def test_aggregate_by_hand() -> None:
    scores = torch.tensor([0.1, 0.9, 0.2, 0.4, 0.6])
    ids = torch.tensor([7, 2, 7, 7, 2])
    for how, expected in {"mean": [0.75, 0.7 / 3], "median": [0.6, 0.2], "max": [0.9, 0.4]}.items():
        videos, values = evaluate.aggregate(scores, ids, how)  # type: ignore[arg-type]
        assert videos.tolist() == [2, 7]
        assert values.tolist() == pytest.approx(expected)
    with pytest.raises(ValueError, match="how"):
        evaluate.aggregate(scores, ids, "least")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="video_ids"):
        evaluate.aggregate(scores, ids[:4])


def drawn(n: int, *, seed: int, ties: bool = False) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    labels = (torch.rand(n, generator=g) < 0.4).long()
    scores = torch.sigmoid(torch.randn(n, generator=g) + 1.5 * labels)
    return ((scores * 10).round() / 10 if ties else scores), labels


@pytest.mark.parametrize("ties", [False, True])
def test_report_agrees_with_the_measures_of_the_course(ties: bool) -> None:
    scores, labels = drawn(300, seed=1, ties=ties)
    r = evaluate.report(scores, labels, threshold=0.6, n=20)
    rates = metrics.rates_at(scores, labels, 0.6)
    assert r.auc.value == pytest.approx(metrics.auc(scores, labels))
    assert r.ap.value == pytest.approx(metrics.average_precision(scores, labels))
    assert r.eer.value == pytest.approx(metrics.equal_error_rate(scores, labels))
    assert r.accuracy.value == pytest.approx(metrics.accuracy_at(scores, labels, 0.6))
    assert (r.tpr.value, r.fpr.value) == pytest.approx(rates)
    assert r.ece.value == pytest.approx(
        metrics.expected_calibration_error(scores, labels), abs=1e-6
    )
    assert (r.n_real, r.n_fake) == (int((labels == 0).sum()), int(labels.sum()))


def test_report_of_a_weighted_resample_is_that_of_the_repeated_examples() -> None:
    scores, labels = drawn(80, seed=2, ties=True)
    counts = np.random.default_rng(0).integers(0, 4, 80)
    weighted = evaluate._measure(
        scores.double().numpy(), labels.numpy(), counts[None].astype(float), 0.5
    )
    index = torch.from_numpy(np.repeat(np.arange(80), counts))
    plain = evaluate.report(scores[index], labels[index], n=1)
    for name, values in weighted.items():
        assert float(values[0]) == pytest.approx(getattr(plain, name).value), name


def test_report_intervals_agree_with_the_plain_bootstrap() -> None:
    scores, labels = drawn(400, seed=3)
    plain = metrics.bootstrap_interval(metrics.auc, scores, labels, seed=0, n=300)
    fast = evaluate.report(scores, labels, n=1000).auc
    assert fast.low == pytest.approx(plain.low, abs=0.012)
    assert fast.high == pytest.approx(plain.high, abs=0.012)
    assert fast.low < fast.value < fast.high


def test_report_by_groups_is_wider_when_a_group_repeats_itself() -> None:
    scores, labels = drawn(60, seed=4)
    video = torch.arange(60).repeat_interleave(20)
    frames, truth = scores.repeat_interleave(20), labels.repeat_interleave(20)
    naive = evaluate.report(frames, truth).auc
    honest = evaluate.report(frames, truth, groups=video).auc
    per_video = evaluate.report(scores, labels).auc
    assert honest.high - honest.low > 3 * (naive.high - naive.low)
    assert honest.high - honest.low == pytest.approx(per_video.high - per_video.low, rel=0.2)


def test_report_of_a_perfect_and_of_a_blind_detector() -> None:
    labels = torch.tensor([0, 1] * 50)
    perfect = evaluate.report(labels.float(), labels)
    assert perfect.auc == evaluate.Estimate(1.0, 1.0, 1.0)
    assert (perfect.eer.value, perfect.ece.value, perfect.accuracy.low) == (0.0, 0.0, 1.0)
    blind = evaluate.report(torch.full((100,), 0.5), labels)
    assert (blind.auc.value, blind.eer.value, blind.ap.value) == pytest.approx((0.5, 0.5, 0.5))
    assert str(blind.auc) == "0.500 [0.500, 0.500]"


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"labels": torch.zeros(40, dtype=torch.int64)}, "labels"),
        ({"labels": torch.arange(40) % 3}, "labels"),
        ({"labels": torch.arange(30) % 2}, "labels"),
        ({"scores": torch.linspace(-1, 1, 40)}, "scores"),
        ({"scores": torch.full((40,), math.nan)}, "scores"),
        ({"threshold": math.nan}, "threshold"),
        ({"level": 1.0}, "level"),
        ({"n": 0}, "n:"),
        ({"groups": torch.arange(39)}, "groups"),
        ({"groups": torch.arange(40) * 0}, None),
        ({"groups": torch.arange(40) % 2}, None),
    ],
)
def test_report_refuses(change: dict[str, object], argument: str | None) -> None:
    arguments = {"scores": torch.linspace(0, 1, 40), "labels": torch.arange(40) % 2} | change
    if (
        argument is None
    ):  # two groups, one per class, can still be resampled; one group is all or nothing
        assert evaluate.report(**arguments, n=10).auc.value > 0.4  # type: ignore[arg-type]
        return
    with pytest.raises(ValueError, match=argument):
        evaluate.report(**arguments)  # type: ignore[arg-type]


def test_real_against_real_leaves_every_shortcut_at_chance() -> None:
    found = evaluate.shortcut_auc(strokes(200, seed=5), strokes(200, seed=6), seed=0)
    assert set(found) == set(evaluate.SHORTCUTS)
    assert all(estimate.low <= 0.5 for estimate in found.values()), found


@pytest.mark.parametrize(
    ("change", "shortcut"),
    [
        (lambda x: x * 0.999, "grid"),
        (lambda x: processing.quantise((x + 0.004).clamp(max=1)), "black"),
        (lambda x: processing.quantise(x * 0.99), "white"),
        (lambda x: processing.quantise(x * 0.7), "level"),
        (lambda x: torch.nn.functional.pad(x[..., 2:-2, 2:-2], (2, 2, 2, 2), value=0.01), "frame"),
    ],
)
def test_each_shortcut_is_found(change: object, shortcut: str) -> None:
    fake = change(strokes(200, seed=8))  # type: ignore[operator]
    found = evaluate.shortcut_auc(strokes(200, seed=7), fake, seed=0)
    assert found[shortcut].low > 0.6, found


def test_prepare_gives_both_kinds_the_same_paper_and_match_the_same_ink() -> None:
    """Real digits on both sides, one lot drawn bolder and on a generator's almost black ground."""
    real = data.mnist("test").take(400, seed=0).x
    pool = data.mnist("train").take(1200, seed=0).x ** 0.6 * 0.97 + 0.005
    raw = evaluate.shortcut_auc(real, pool[:400], seed=0)
    assert raw["grid"].value == raw["black"].value == 1.0 and raw["frame"].low > 0.9
    rounded = evaluate.shortcut_auc(
        processing.quantise(real), processing.quantise(pool[:400]), seed=0
    )
    assert rounded["grid"].value == 0.5 and rounded["black"].low > 0.9
    ours, theirs = processing.prepare(real), processing.prepare(pool)
    cleaned = evaluate.shortcut_auc(ours, theirs[:400], seed=0)
    assert cleaned["frame"].value == cleaned["grid"].value == 0.5
    assert cleaned["level"].low > 0.5  # what is left is the bolder pen
    chosen = evaluate.match(ours, theirs, seed=0)
    gated = evaluate.shortcut_auc(ours, theirs[chosen], seed=0)
    assert all(estimate.low <= 0.5 for estimate in gated.values()), gated


def test_shipped_detectors_keep_their_cards_promise_on_gated_digits() -> None:
    """The course's own forgeries pass the gate of shortcuts, and the detectors still see them."""
    generator = checkpoints.load("dcgan-digits", DCGANGenerator(LATENT, CHANNELS))
    real = processing.prepare(data.mnist("test").take(600, seed=0).x)
    pool = processing.prepare(forge(generator, 1200, seed=77))
    fake = pool[evaluate.match(real, pool, seed=0)]
    gate = evaluate.shortcut_auc(real, fake, seed=0)
    assert all(estimate.low <= 0.5 for estimate in gate.values()), gate
    images, labels = torch.cat([real, fake]), torch.arange(1200) // 600
    blurred = compression.blur(images, 1.0)
    after = {}
    for name in ("detector-digits", "detector-digits-augmented"):
        model, claim = checkpoints.load(name, cnn.DetectorNet()), checkpoints.card(name).measures
        found = evaluate.report(cnn.score(model, images), labels).auc
        assert found.low <= claim["auc high"] and claim["auc low"] <= found.high
        after[name] = metrics.auc(cnn.score(model, blurred), labels)
        assert after[name] == pytest.approx(claim["auc, blur 1"], abs=0.05)
    assert after["detector-digits-augmented"] > after["detector-digits"] + 0.1


def test_prepare_is_idempotent_and_blackens_the_margin() -> None:
    once = processing.prepare(strokes(5), black=0.0, white=1.0, margin=3)
    assert torch.equal(processing.prepare(once, black=0.0, white=1.0, margin=3), once)
    assert float(once[..., :3, :].max()) == float(once[..., -3:].max()) == 0
    with pytest.raises(ValueError, match="margin"):
        processing.prepare(strokes(1), margin=14)


def test_match_finds_the_twin_uses_each_fake_once_and_refuses() -> None:
    pool = strokes(60, seed=11)
    twins = torch.randperm(60, generator=device.generator(0))[:25]
    chosen = evaluate.match(pool[twins], pool, seed=1)
    assert len(chosen.unique()) == 25
    ink = pool.flatten(1).mean(1)
    assert torch.allclose(ink[chosen], ink[twins], atol=1e-6)
    with pytest.raises(ValueError, match="at least 60"):
        evaluate.match(pool, pool[:59], seed=0)
    with pytest.raises(ValueError, match="by"):
        evaluate.match(pool, pool, seed=0, by=["weight"])


def test_shortcuts_over_groups_are_not_misled_by_twins() -> None:
    """One photograph of each kind in each room: who learned one knows its twin, the wrong way round."""
    room = torch.rand(180, 1, 12, 12, generator=device.generator(0))
    grain = torch.rand(2, 180, 1, 12, 12, generator=device.generator(1))
    real, fake = 0.9 * room + 0.1 * grain
    group = torch.arange(180).repeat(2)
    frame = {"frame": evaluate.SHORTCUTS["frame"]}
    assert evaluate.shortcut_auc(real, fake, seed=0, features=frame)["frame"].high < 0.5
    found = evaluate.shortcut_auc(real, fake, seed=0, features=frame, groups=group)["frame"]
    assert found.low <= 0.5 <= found.high
    level = evaluate.shortcut_auc(real, 0.6 * fake, seed=0, groups=group)["level"]
    assert level.low > 0.6  # what is really there is still found
    # The halves are those of split_by_group, and the interval is over groups.
    learn, judge = evaluate.split_by_group(group, (0.5, 0.5), seed=0)
    assert not set(group[learn].tolist()) & set(group[judge].tolist())
    scores = torch.cat([real, 0.6 * fake]).flatten(1).mean(dim=1)[judge]
    labels = (judge >= 180).long()
    assert level == evaluate.report(1 - scores, labels, groups=group[judge]).auc


@pytest.mark.parametrize(
    "groups",
    [
        torch.arange(59),
        torch.arange(60).float(),
        torch.arange(60)[None],
        torch.zeros(60).long(),
        torch.arange(60) // 30,
    ],
    ids=["length", "dtype", "shape", "one group", "a group per kind"],
)
def test_shortcut_auc_refuses_groups(groups: Tensor) -> None:
    with pytest.raises(ValueError, match="group"):
        evaluate.shortcut_auc(strokes(30), strokes(30), seed=0, groups=groups)


def test_shortcut_auc_refuses() -> None:
    with pytest.raises(ValueError, match="20 images"):
        evaluate.shortcut_auc(strokes(10), strokes(30), seed=0)
    with pytest.raises(ValueError, match="fake"):
        evaluate.shortcut_auc(strokes(30), strokes(30) - 1, seed=0)


@pytest.mark.parametrize(("make", "most"), [(cnn.Meso4, 15_000), (cnn.SmallXception, 30_000)])
def test_the_other_networks_start_undecided_look_everywhere_and_are_small(
    make: type[nn.Module], most: int
) -> None:
    net = make(generator=device.generator(0)).eval()
    assert sum(p.numel() for p in net.parameters()) < most
    x = torch.rand(5, 3, 64, 64, generator=device.generator(1))
    assert torch.equal(net(x), torch.zeros(5))  # one logit each, and none prefers a side
    for p in net.parameters():
        nn.init.normal_(p, std=0.3, generator=device.generator(2))
    x.requires_grad_(True)
    net(x).sum().backward()
    seen = x.grad.abs().sum(dim=(0, 1)) > 0
    assert float(seen.float().mean()) > 0.9
    # One image's logit does not depend on its company.
    assert torch.allclose(net(x[:1]), net(x)[:1], atol=1e-5)
    assert make(generator=device.generator(3)) is not None
    again = [make(generator=device.generator(3)) for _ in range(2)]
    pairs = zip(again[0].state_dict().values(), again[1].state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("make", [cnn.Meso4, cnn.SmallXception, cnn.DetectorNet])
@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (3, 64, 64), (2, 3, 4, 4)])
def test_every_network_names_the_shape_that_it_wants(
    make: type[nn.Module], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match=r"x: expected shape \(N, 3, "):
        make(3)(torch.zeros(shape))  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="channels: expected 1 or 3, got 2"):
        make(2)  # type: ignore[call-arg]


def test_a_prepared_portrait_has_one_level_one_contrast_and_a_grey_frame() -> None:
    g = device.generator(0)
    x = 0.2 + 0.6 * torch.rand(6, 3, 64, 64, generator=g)
    y = processing.prepare_portrait(x)
    inner = y[..., 4:-4, 4:-4]
    assert torch.allclose(inner.mean(dim=(2, 3)), torch.tensor(0.5), atol=0.002)
    assert torch.allclose(inner.std(dim=(2, 3)), torch.tensor(0.18), atol=0.005)
    border = torch.ones(64, 64, dtype=torch.bool)
    border[4:-4, 4:-4] = False
    assert set(y[:, :, border].unique().tolist()) == {float(torch.tensor(128 / 255))}
    assert torch.equal(processing.quantise(y), y)
    # Brightness, contrast and tint are gone: what differs by them alone becomes the same.
    tint = torch.tensor([0.9, 0.6, 0.75])[None, :, None, None]
    changed = processing.prepare_portrait(processing.quantise(x) * tint + 0.05)
    assert float((changed - y).abs().max()) < 0.03
    flat = processing.prepare_portrait(torch.full((1, 3, 64, 64), 0.7))
    assert float(flat.std()) < 0.01
    with pytest.raises(ValueError, match="margin: expected"):
        processing.prepare_portrait(x, margin=32)
    with pytest.raises(ValueError, match="deviation: expected"):
        processing.prepare_portrait(x, deviation=0.0)


def test_by_group_is_the_report_of_each_group_alone() -> None:
    g = device.generator(0)
    labels = torch.arange(90) % 2
    scores = torch.sigmoid(torch.randn(90, generator=g) + labels)
    groups = torch.arange(90) % 3 * 10
    found = evaluate.by_group(scores, labels, groups, threshold=0.6)
    assert list(found) == [0, 10, 20]
    for name, result in found.items():
        mine = groups == name
        assert result == evaluate.report(scores[mine], labels[mine], threshold=0.6)
    with pytest.raises(ValueError, match="in group 0, labels: expected"):
        evaluate.by_group(scores, labels, labels)
    with pytest.raises(ValueError, match="one length"):
        evaluate.by_group(scores, labels, groups[:5])


def test_operating_points_follow_bayes_and_leave_room_for_what_was_not_seen() -> None:
    labels = torch.cat([torch.zeros(200), torch.ones(100)]).long()
    scores = torch.cat([torch.arange(200) < 20, torch.arange(100) < 90]).float()  # FPR .1, TPR .9
    points = evaluate.operating_points(scores, labels, threshold=0.5, one_in=(2, 1000))
    for point in points:
        b = 1 / point.one_in
        assert point.precision.value == pytest.approx(0.9 * b / (0.9 * b + 0.1 * (1 - b)))
        assert point.precision.low < point.precision.value < point.precision.high
        assert point.false_per_true == pytest.approx(0.1 * (1 - b) / (0.9 * b))
    # No false alarm among 200 does not make an alarm certain.
    clean = torch.cat([torch.zeros(200), torch.ones(100)])
    (rare,) = evaluate.operating_points(clean, labels, threshold=0.5, one_in=(10_000,))
    assert rare.precision.value == 1 and rare.precision.low < 0.01
    (none,) = evaluate.operating_points(clean, labels, threshold=2.0, one_in=(10,))
    assert none.precision.value == 0 and none.false_per_true == math.inf


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"labels": torch.zeros(4).long()}, "labels: expected"),
        ({"scores": torch.tensor([0.1, math.nan, 0.3, 0.4])}, "scores: expected finite"),
        ({"threshold": math.nan}, "threshold: expected"),
        ({"one_in": (0.5,)}, "one_in: expected"),
        ({"one_in": ()}, "one_in: expected"),
    ],
)
def test_operating_points_refuse(change: dict[str, object], argument: str) -> None:
    given = {
        "scores": torch.tensor([0.1, 0.2, 0.8, 0.9]),
        "labels": torch.tensor([0, 0, 1, 1]),
        "threshold": 0.5,
    }
    with pytest.raises(ValueError, match=argument):
        evaluate.operating_points(**(given | change))  # type: ignore[arg-type]


def test_calibration_bins_agree_with_the_expected_calibration_error() -> None:
    g = device.generator(0)
    scores = torch.rand(500, generator=g)
    labels = (torch.rand(500, generator=g) < scores**2).long()
    found = evaluate.calibration(scores, labels, bins=15)
    assert int(found.count.sum()) == 500
    gaps = (found.score - found.share).abs() * found.count / 500
    expected = metrics.expected_calibration_error(scores, labels)
    assert float(gaps.sum()) == pytest.approx(expected, abs=1e-6)
    one = evaluate.calibration(torch.tensor([0.0, 0.05, 1.0]), torch.tensor([0, 0, 1]))
    assert one.count.tolist() == [2, 1] and one.share.tolist() == [0, 1]
    for scores_, labels_, bins in (
        (torch.tensor([1.2]), torch.tensor([1]), 10),
        (torch.tensor([math.nan]), torch.tensor([1]), 10),
        (torch.tensor([0.2]), torch.tensor([3]), 10),
        (torch.tensor([0.2]), torch.tensor([1]), 0),
    ):
        with pytest.raises(ValueError, match="expected"):
            evaluate.calibration(scores_, labels_, bins=bins)
