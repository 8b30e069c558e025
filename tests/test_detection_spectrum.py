"""Spectra against closed forms and scipy, and the linear and one-class detectors built on them."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from course_lib import checkpoints, data, device, forge, metrics
from course_lib.detection import cnn, compression, evaluate, spectrum
from course_lib.recipes import portrait_detectors

N = 32


def textures(n: int, *, seed: int, smooth: float = 0.7, size: int = N, channels: int = 3) -> Tensor:
    """Grey noise with a falling spectrum: (n, channels, size, size) in [0, 1]."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, channels, size, size, generator=g)
    return compression.blur(x, smooth)


def cosine(u: int, v: int, *, size: int = N, amplitude: float = 0.4) -> Tensor:
    i = torch.arange(size, dtype=torch.float64)
    wave = torch.cos(2 * math.pi * (u * i[:, None] + v * i[None, :]) / size)
    return (0.5 + amplitude * wave)[None, None]


@pytest.mark.parametrize(("u", "v"), [(0, 5), (3, 4), (10, 0), (7, -2)])
def test_a_cosine_has_two_peaks_and_lies_in_one_ring(u: int, v: int) -> None:
    s = spectrum.power_spectrum(cosine(u, v), window=False)[0]
    # |F|^2 = (A N^2 / 2)^2 at each of the two, over N^2.
    peak = (0.4 * N / 2) ** 2
    assert float(s[N // 2 + u, N // 2 + v]) == pytest.approx(peak)
    assert float(s[N // 2 - u, N // 2 - v]) == pytest.approx(peak)
    assert float(s.sum()) == pytest.approx(2 * peak)
    rings = spectrum.azimuthal_average(s[None])[0]
    k = math.floor(math.hypot(u, v) + 0.5)
    assert float(rings[k]) > 0
    assert float(rings.sum() - rings[k]) < 1e-12


def test_one_pixel_has_a_flat_spectrum() -> None:
    x = torch.zeros(1, 1, N, N, dtype=torch.float64)
    x[0, 0, 11, 6] = 1
    s = spectrum.power_spectrum(x, window=False)[0]
    s[N // 2, N // 2] = 1 / N**2  # the mean is subtracted
    assert torch.allclose(s, torch.full_like(s, 1 / N**2))


@pytest.mark.parametrize("channels", [1, 3])
def test_parseval_and_scipy_as_an_oracle(channels: int) -> None:
    x = textures(3, seed=1, channels=channels).double()
    s = spectrum.power_spectrum(x, window=False)
    variance = x.var(dim=(2, 3), correction=0).mean(dim=1)
    assert torch.allclose(s.mean(dim=(1, 2)), variance)
    w = np.outer(*[0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N) / N)] * 2)
    a = x.numpy()
    expected = np.abs(scipy.fft.fft2(w * (a - a.mean(axis=(2, 3), keepdims=True)))) ** 2
    expected = scipy.fft.fftshift(expected.mean(axis=1), axes=(1, 2)) / (w**2).sum()
    assert np.allclose(spectrum.power_spectrum(x).numpy(), expected)


def test_white_noise_has_its_variance_at_every_frequency() -> None:
    x = 0.5 + 0.05 * torch.randn(400, 1, N, N, generator=torch.Generator().manual_seed(0))
    mean = spectrum.power_spectrum(x.clamp(0, 1).double()).mean(dim=0)
    mean[N // 2 - 1 : N // 2 + 2, N // 2 - 1 : N // 2 + 2] = 0.05**2  # where the mean was
    assert float(mean.mean()) == pytest.approx(0.05**2, rel=0.01)
    assert float(mean.std()) < 0.1 * 0.05**2


@pytest.mark.parametrize("n", [2, 7, 32, 64])
def test_rings_hold_every_frequency_once_and_reach_the_corner(n: int) -> None:
    radius = torch.fft.fftshift(torch.fft.fftfreq(n, 1 / n, dtype=torch.float64))
    r = torch.hypot(radius[:, None], radius[None, :])
    rings = spectrum.azimuthal_average(r[None])[0]
    assert len(rings) == spectrum.rings(n) == round(float(r.max()) + 1e-9) + 1
    k = torch.arange(len(rings))
    full = rings > 0
    assert bool(((rings - k).abs()[full] <= 0.5).all()) and int((~full).sum()) <= 1 + (n == 2)
    ones = spectrum.azimuthal_average(torch.ones(1, n, n, dtype=torch.float64))
    assert torch.allclose(ones, torch.ones_like(ones))


def test_inserting_zeros_copies_the_spectrum_and_repeating_leaves_zeros() -> None:
    small = textures(2, seed=3, size=N // 2, channels=1).double()
    small = small - small.mean(dim=(2, 3), keepdim=True) + 0.5
    zeros = torch.zeros(2, 1, N, N, dtype=torch.float64)
    zeros[..., ::2, ::2] = small
    f_small = torch.fft.fft2(small)
    # X_up(u) = X(u mod N/2): four copies of the small spectrum.
    assert torch.allclose(torch.fft.fft2(zeros), f_small.repeat(1, 1, 2, 2))
    nearest = small.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    s = spectrum.power_spectrum(nearest, window=False)
    # Repeating is the filter (1, 1) after the zeros, whose response 2 cos(pi u / N) is 0 at N / 2.
    assert float(s[:, 0, :].max()) < 1e-20 and float(s[:, :, 0].max()) < 1e-20
    assert float(s[:, N // 4, N // 2 + 1].min()) > 1e-9


@pytest.mark.parametrize("shape", [(8, 8), (5, 12), (64, 64)])
def test_dct_is_scipys_and_keeps_the_sum_of_squares(shape: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = spectrum.dct(x)
    assert np.allclose(found.numpy(), scipy.fft.dctn(x.numpy(), axes=(-2, -1), norm="ortho"))
    assert torch.allclose(found.square().sum(), x.square().sum())


def test_dct_of_a_constant_is_its_mean_alone() -> None:
    found = spectrum.dct(torch.full((8, 8), 0.25, dtype=torch.float64))
    assert float(found[0, 0]) == pytest.approx(8 * 0.25)
    found[0, 0] = 0
    assert float(found.abs().max()) < 1e-12


@pytest.mark.parametrize("block", [4, 8, 32])
def test_dct_features_are_the_mean_squares_of_the_blocks(block: int) -> None:
    x = textures(2, seed=5).double()
    total = np.zeros((2, block, block))
    for top in range(0, N, block):
        for left in range(0, N, block):
            part = x[:, :, top : top + block, left : left + block].numpy()
            total += (scipy.fft.dctn(part, axes=(2, 3), norm="ortho") ** 2).mean(axis=1)
    expected = np.log10(total / (N // block) ** 2 + spectrum.EPSILON).reshape(2, -1)
    assert np.allclose(spectrum.dct_features(x, block=block).numpy(), expected)


DETECTORS = {
    "spectrum": lambda: spectrum.SpectrumDetector(N),
    "dct": lambda: spectrum.DCTDetector(8),
    "one-class": lambda: spectrum.OneClass(count=spectrum.rings(N)),
}


def fitted(name: str) -> spectrum.Standardised:
    model = DETECTORS[name]()
    real, fake = textures(60, seed=1), textures(60, seed=2, smooth=0.8)
    if isinstance(model, spectrum.OneClass):
        spectrum.fit_one_class(model, real, textures(200, seed=3))
    else:
        assert isinstance(model, spectrum.LinearDetector)
        spectrum.fit_linear(model, real, fake)
    return model


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_find_a_slight_blur_on_new_images(name: str) -> None:
    model = fitted(name)
    x = torch.cat([textures(50, seed=8), textures(50, seed=9, smooth=0.8)])
    labels = torch.arange(100) // 50
    scores = cnn.score(model, x)
    assert metrics.auc(scores, labels) > 0.97
    assert len(scores.unique()) == 100  # none is rounded to 0 or 1, so that all can be ranked


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_give_gradients_keep_dtypes_and_survive_copy_and_state(name: str) -> None:
    model = fitted(name)
    for dtype in (torch.float32, torch.float64):
        x = textures(3, seed=4).to(dtype).requires_grad_()
        logit = model(x)
        assert logit.shape == (3,) and logit.dtype == dtype
        (gradient,) = torch.autograd.grad(logit.sum(), x)
        assert bool(gradient.isfinite().all()) and float(gradient.abs().max()) > 0
    flat = torch.full((1, 3, N, N), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(flat).sum(), flat)
    assert bool(gradient.isfinite().all())
    other = DETECTORS[name]()
    other.load_state_dict(copy.deepcopy(model).state_dict())
    assert torch.equal(other(textures(3, seed=4)), model(textures(3, seed=4)))


def test_an_unfitted_linear_detector_is_undecided() -> None:
    assert torch.equal(spectrum.DCTDetector()(textures(2, seed=0)), torch.zeros(2))


def test_linear_fit_is_scikit_learns_and_ignores_how_many_there_are_of_each() -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    real, fake = textures(40, seed=1).double(), textures(40, seed=2, smooth=0.8).double()
    model = spectrum.DCTDetector().double()
    spectrum.fit_linear(model, real, fake, C=0.5)
    f = spectrum.dct_features(torch.cat([real, fake])).numpy()
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.5, max_iter=2000))
    pipeline.fit(f, [0] * 40 + [1] * 40)
    with torch.no_grad():
        ours = model(real).numpy()
    # The scaler divides by the spread of the sample, we by the estimate for all (n - 1).
    assert np.allclose(ours, pipeline.decision_function(f[:40]), atol=0.05)
    triple = spectrum.DCTDetector().double()
    spectrum.fit_linear(triple, real.repeat(3, 1, 1, 1), fake, C=0.5)
    with torch.no_grad():
        assert abs(float(triple(real).mean() + triple(fake).mean())) < 1.0


def test_one_class_distance_is_scipys_and_its_limit_the_quantile_of_held_out_images() -> None:
    from scipy.spatial.distance import mahalanobis
    from sklearn.covariance import LedoitWolf

    real, held_out = textures(80, seed=1).double(), textures(100, seed=2).double()
    model = spectrum.OneClass(count=spectrum.rings(N)).double()
    spectrum.fit_one_class(model, real, held_out)
    z = model.standardised(real).numpy()
    precision = np.linalg.inv(LedoitWolf(assume_centered=True).fit(z).covariance_)
    expected = [mahalanobis(row, np.zeros(len(row)), precision) for row in z[:10]]
    assert np.allclose(model.distance(real[:10]).numpy(), expected)
    assert int((model(held_out) > 0).sum()) == 5
    d = model.distance(real)
    assert torch.allclose(torch.sigmoid(model(real)), d / (d + model.limit))


BAD_IMAGES = [
    torch.zeros(N, N),
    torch.zeros(0, 1, N, N),
    torch.zeros(1, 2, N, N),
    torch.zeros(1, 1, N, N, dtype=torch.uint8),
    torch.full((1, 1, N, N), 1.5),
    torch.full((1, 1, N, N), math.nan),
]


@pytest.mark.parametrize("bad", BAD_IMAGES)
@pytest.mark.parametrize(
    "call", [spectrum.power_spectrum, spectrum.spectrum_features, spectrum.dct_features]
)
def test_features_refuse_what_is_no_image(call: object, bad: Tensor) -> None:
    with pytest.raises(ValueError, match="x: expected"):
        call(bad)  # type: ignore[operator]


GOOD = torch.rand(20, 3, N, N, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectrum.azimuthal_average(torch.ones(2, 8, 9)), "s: expected"),
        (lambda: spectrum.azimuthal_average(torch.ones(8, 8)), "s: expected"),
        (lambda: spectrum.azimuthal_average(torch.ones(0, 8, 8)), "s: expected"),
        (lambda: spectrum.spectrum_features(torch.zeros(1, 1, 8, 9)), "s: expected"),
        (lambda: spectrum.rings(1), "n: expected"),
        (lambda: spectrum.dct(torch.zeros(8)), "x: expected"),
        (lambda: spectrum.dct(torch.zeros(2, 8, dtype=torch.int64)), "x: expected"),
        (lambda: spectrum.dct(torch.zeros(0, 8)), "x: expected"),
        (lambda: spectrum.dct_features(GOOD, block=5), "block: expected"),
        (lambda: spectrum.dct_features(GOOD, block=1), "block: expected"),
        (lambda: spectrum.SpectrumDetector(64)(GOOD), "features"),
        (lambda: spectrum.DCTDetector().standardise(GOOD[:1]), "two images"),
        (lambda: spectrum.fit_linear(spectrum.DCTDetector(), GOOD * 2, GOOD), "real: expected"),
        (lambda: spectrum.fit_linear(spectrum.DCTDetector(), GOOD, GOOD[:0]), "fake: expected"),
        (lambda: spectrum.fit_linear(spectrum.DCTDetector(), GOOD, GOOD[:, :1]), "fake: expected"),
        (lambda: spectrum.fit_linear(spectrum.DCTDetector(), GOOD, GOOD, C=0), "C: expected"),
        (lambda: spectrum.fit_linear(spectrum.DCTDetector(), GOOD, GOOD, C=math.nan), "C: exp"),
        (lambda: spectrum.fit_one_class(spectrum.OneClass(), GOOD[:19], GOOD), "real: expected"),
        (lambda: spectrum.fit_one_class(spectrum.OneClass(), GOOD, GOOD[:19]), "held_out: exp"),
        (lambda: spectrum.fit_one_class(spectrum.OneClass(), GOOD, GOOD + 1), "held_out: exp"),
        (
            lambda: spectrum.fit_one_class(
                spectrum.OneClass(), GOOD, GOOD, false_positive_rate=1.0
            ),
            "false_positive_rate",
        ),
    ],
)
def test_wrong_input_is_named(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize("generator", forge.GENERATORS)
def test_no_shortcut_is_left_in_what_the_detectors_learn_from(generator: str) -> None:
    test = portrait_detectors.held_out(generator)
    found = evaluate.shortcut_auc(test.real, test.fake, seed=0, level=0.99)
    assert all(estimate.low <= 0.5 for estimate in found.values()), found


@pytest.fixture(scope="module")
def parts() -> dict[str, portrait_detectors.Part]:
    return portrait_detectors.parts("dcgan")


def test_parts_share_no_image_and_both_kinds_are_split_alike(
    parts: dict[str, portrait_detectors.Part],
) -> None:
    for kind in ("real", "fake"):
        seen = [x.numpy().tobytes() for part in parts.values() for x in getattr(part, kind)]
        assert len(set(seen)) == len(seen)
    people = data.portraits("train").group
    learn, choose = evaluate.split_by_group(people, (0.8, 0.2), seed=0)
    assert not set(people[learn].tolist()) & set(people[choose].tolist())
    assert len(parts["train"].real) == len(learn) and len(parts["validation"].real) == len(choose)


def test_the_shipped_detectors_are_as_their_card_says(
    parts: dict[str, portrait_detectors.Part],
) -> None:
    models, thresholds = portrait_detectors.load()
    measures = checkpoints.card("portrait-detectors").measures
    test = parts["test"]
    labels = torch.cat([torch.zeros(len(test.real)), torch.ones(len(test.fake))]).long()
    for name in ("spectrum", "dct", "meso", "one-class"):
        assert not models[name].training
        scores = cnn.score(models[name], torch.cat([test.real, test.fake]))
        assert metrics.auc(scores, labels) == pytest.approx(measures[f"auc, {name}"], abs=0.01)
        accused = metrics.rates_at(scores, labels, thresholds[name]).fpr
        assert accused == pytest.approx(measures[f"fpr, {name}"], abs=0.02)
    for name in ("spectrum", "dct", "meso", "xception", "hardened"):
        assert measures[f"auc, {name}"] >= 0.99


def test_the_recipe_goes_on_after_the_network_that_was_finished(
    parts: dict[str, portrait_detectors.Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {
        name: portrait_detectors.Part(part.real[:40], part.fake[:40])
        for name, part in parts.items()
    }
    monkeypatch.setattr(portrait_detectors, "parts", lambda generator, seed: few)
    fabric = device.launch(accelerator="cpu")
    steps = 6  # one of Meso-4 and of the small Xception, the rest of the third
    cut = portrait_detectors.run(fabric, steps=steps)
    for progress in cut:
        if progress.text.startswith("xception"):
            break
    cut.close()
    assert progress.state is not None
    state = progress.state()
    assert set(state["done"]) == {"meso"}
    first = next(portrait_detectors.run(fabric, steps=steps, state=state))
    assert first.text.startswith("xception") and first.step == progress.step
