"""Synthetic voices: the channel, its shortcuts, LFCC, the mixtures, the small network."""

from __future__ import annotations

import builtins
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import fft, signal, stats
from torch import Tensor, nn

from course_lib import data, device
from course_lib.data.synthetic_digits import synthetic_digits
from course_lib.detection import cnn, evaluate, voice
from course_lib.recipes import voice_detectors


def tones(
    n: int = 4, size: int = 4000, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Tones of 400 to 2000 Hz, of different levels, with a little noise: (n, size)."""
    g = torch.Generator().manual_seed(seed)
    hertz = 400 + 1600 * torch.rand(n, 1, generator=g)
    level = 0.05 + 0.4 * torch.rand(n, 1, generator=g)
    clean = level * (2 * math.pi * hertz * torch.arange(size) / voice.RATE).sin()
    return (clean + 0.001 * torch.randn(n, size, generator=g)).to(dtype)


def full(x: Tensor) -> Tensor:
    return torch.full((len(x),), x.shape[1])


# ---- the channel ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("hertz", "kept"), [(1000, 1.0), (2500, 1.0), (60, 0.0), (3900, 0.0)])
def test_the_band_passes_what_is_inside_and_stops_what_is_outside(
    hertz: float, kept: float
) -> None:
    x = (2 * math.pi * hertz * torch.arange(8000) / voice.RATE).sin()[None]
    middle = voice.band_limit(x)[:, 2000:6000]
    assert float(middle.std() / x.std()) == pytest.approx(kept, abs=0.01)
    if kept:  # run both ways: nothing is delayed
        torch.testing.assert_close(middle, x[:, 2000:6000], atol=0.02, rtol=0)


def test_the_loudest_window_is_the_loudest_of_all_and_within_the_sound() -> None:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(5, 700, generator=g) * torch.rand(5, 700, generator=g)
    length = torch.tensor([700, 400, 320, 300, 50])
    x = x * (torch.arange(700) < length[:, None])
    found = voice.loudest(x, length, 300)
    for row, n, window in zip(x, length.tolist(), found, strict=True):
        starts = range(max(n - 300, 0) + 1)
        best = max(float(row[i : i + 300].double().square().sum()) for i in starts)
        assert float(window.double().square().sum()) == pytest.approx(best)
    assert torch.equal(found[4, :50], x[4, :50]) and not found[4, 50:].any()


def test_noise_has_the_ratio_asked_for_and_is_seeded() -> None:
    x = tones(3, 8000)
    first = voice.add_noise(x, 12, seed=1)
    power = (first - x).square().mean(dim=1) / x.square().mean(dim=1)
    torch.testing.assert_close(-10 * power.log10(), torch.full((3,), 12.0), atol=0.2, rtol=0)
    assert torch.equal(first, voice.add_noise(x, 12, seed=1))
    assert not torch.equal(first, voice.add_noise(x, 12, seed=2))


def test_mu_law_is_the_formula_has_256_values_and_is_finer_for_small_ones() -> None:
    x = torch.linspace(-1, 1, 20001, dtype=torch.float64)[None]
    once = voice.mu_law(x)
    assert len(once.unique()) == 256
    torch.testing.assert_close(voice.mu_law(once), once)  # its own values stay
    error = (once - x).abs()
    assert error[0, 10_000:10_100].max() < error[0, -100:].max() / 20
    # the compressed error is at most half of one of 255 steps
    squeezed = [t.sign() * (1 + 255 * t.abs()).log() / math.log(256) for t in (x, once)]
    assert float((squeezed[0] - squeezed[1]).abs().max()) <= 1 / 255 + 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_channel_gives_all_one_power_on_the_16_bit_grid_and_repeats(dtype: torch.dtype) -> None:
    x = tones(dtype=dtype)
    before = x.clone()
    c = voice.same_channel(x, full(x), seed=3)
    assert c.shape == (4, voice.WINDOW) and c.dtype == dtype
    assert torch.equal(x, before) and torch.equal(c, voice.same_channel(x, full(x), seed=3))
    torch.testing.assert_close(
        c.square().mean(dim=1).sqrt(), torch.full((4,), 0.1, dtype=dtype), rtol=1e-3, atol=0
    )
    steps = c.double() * 2**15
    assert float((steps - steps.round()).abs().max()) == 0


def test_the_channel_forgets_level_offset_and_the_silence_around() -> None:
    x = tones(3, 4000).double()
    quiet = torch.cat(
        [torch.zeros(3, 800).double(), 0.3 * x + 0.1, torch.zeros(3, 500).double()], 1
    )
    a = voice.same_channel(x, full(x), snr=60, seed=0)
    b = voice.same_channel(quiet, full(quiet), snr=60, seed=0)
    spectra = [torch.fft.rfft(t * torch.hann_window(2000).double()).abs() for t in (a, b)]
    alike = torch.cosine_similarity(spectra[0], spectra[1], dim=1)
    assert float(alike.min()) > 0.98


# ---- shortcuts -----------------------------------------------------------------------------------


def test_shortcuts_are_what_they_are_called() -> None:
    x = torch.zeros(1, 8000)
    x[0, 1600:4000] = 0.5 * (2 * math.pi * 1000 * torch.arange(2400) / 8000).sin() + 0.1
    length = torch.tensor([6000])
    found = {name: f(x, length)[0].tolist() for name, f in voice.SHORTCUTS.items()}
    assert found["silence"] == pytest.approx([0.2, 0.25], abs=0.025)
    assert found["length"] == pytest.approx([0.75])
    assert found["peak"] == pytest.approx([0.6], abs=0.01)
    assert found["zeros"] == pytest.approx([0.6], abs=0.01)
    assert found["offset"] == pytest.approx([0.04], abs=0.002)
    assert found["level"] == pytest.approx([10 * math.log10(0.4 * (0.125 + 0.01))], abs=0.1)
    assert found["floor"][0] < -80
    assert found["edges"][0] > -30 and found["edges"][1] < -30


@pytest.mark.parametrize("hertz", [90, 130, 200])
def test_pitch_of_a_pulse_train(hertz: int) -> None:
    period = round(voice.RATE / hertz)
    x = torch.zeros(1, 2000)
    x[0, ::period] = 1
    assert float(voice.pitch(x)) == pytest.approx(voice.RATE / period, rel=0.02)


def test_after_the_channel_every_shortcut_reaches_chance() -> None:
    """The gate of the chapter: on held-out speakers and voices, raw recordings fail it by far."""
    v = voice_detectors.voices()
    channel = voice.same_channel(v.x, v.length, seed=0)
    raw = shortcut(voice.SHORTCUTS["silence"](v.x, v.length), v)
    assert raw.low > 0.8
    for name, feature in voice.SHORTCUTS.items():
        found = shortcut(feature(channel, full(channel)), v)
        assert found.low <= 0.5, f"{name}: {found}"


def shortcut(feature: Tensor, v: voice_detectors.Voices) -> evaluate.Estimate:
    scores = voice.held_out_logistic(feature, v.y, v.fold)
    return evaluate.report(scores, v.y, groups=v.group).auc


def test_the_held_out_logistic_never_learns_on_the_fold_it_judges() -> None:
    g = torch.Generator().manual_seed(0)
    y, fold = torch.arange(300) % 2, torch.arange(300) % 3
    told = y.float() + 0.5 * torch.randn(300, generator=g)
    assert evaluate.report(voice.held_out_logistic(told[:, None], y, fold), y).auc.value > 0.85
    # where the sign turns round in each fold that is held out, what was learned is wrong there
    turned = torch.stack([(2 * y - 1) * (fold == i) for i in range(3)], dim=1).float()
    assert evaluate.report(voice.held_out_logistic(turned, y, fold), y).auc.value < 0.6
    constant = voice.held_out_logistic(torch.ones(300, 1), y, fold)
    assert evaluate.report(constant, y).auc.value == pytest.approx(0.5, abs=1e-6)


# ---- people and voices apart ---------------------------------------------------------------------


def test_folds_keep_groups_whole_and_spread_every_stratum() -> None:
    v = voice_detectors.voices()
    for group in v.group.unique():
        assert len(v.fold[v.group == group].unique()) == 1
    for kind in range(3):
        assert v.fold[v.kind == kind].unique().tolist() == [0, 1, 2]
    assert torch.equal(v.fold, voice.folds(v.group, v.kind, 3, seed=0))


# ---- LFCC ----------------------------------------------------------------------------------------


def lfcc_by_hand(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Twenty-five lines of scipy, after Sahidullah et al. (2015)."""
    emphasised = signal.lfilter([1, -0.97], [1], x)
    starts = range(0, len(x) - 160 + 1, 80)
    frames = np.stack([emphasised[i : i + 160] for i in starts]) * signal.get_window(
        "hamming", 160, fftbins=False
    )
    power = np.abs(fft.rfft(frames, 256)) ** 2 / 256
    edges = np.linspace(0, 4000, 22)
    hertz = np.linspace(0, 4000, 129)
    triangles = np.stack(
        [np.interp(hertz, edges[i : i + 3], [0, 1, 0], left=0, right=0) for i in range(20)]
    )
    return np.asarray(fft.dct(np.log(power @ triangles.T), type=2, norm="ortho", axis=1))


def test_lfcc_is_that_of_twenty_five_lines_of_scipy() -> None:
    x = voice.same_channel(tones(2), torch.tensor([4000, 4000]), snr=20, seed=0).double()
    found = voice.lfcc(x)
    assert found.shape == (2, 24, 60)
    for row, sound in zip(found, x.numpy(), strict=True):
        np.testing.assert_allclose(row[:, :20], lfcc_by_hand(sound), atol=1e-6)


def test_only_the_first_coefficient_hears_loudness() -> None:
    x = tones(2, 2000).double()
    change = (voice.lfcc(3 * x) - voice.lfcc(x))[:, :, :20]
    torch.testing.assert_close(
        change[..., 0], torch.full_like(change[..., 0], 2 * math.log(3) * math.sqrt(20))
    )
    assert float(change[..., 1:].abs().max()) < 1e-8


def test_deltas_are_the_slope_of_the_best_line() -> None:
    c = torch.randn(1, 9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = voice.deltas(c)
    for t in range(2, 7):
        for k in range(2):
            line = stats.linregress(np.arange(5), c[0, t - 2 : t + 3, k].numpy())
            assert float(found[0, t, k]) == pytest.approx(line.slope)
    assert not voice.deltas(torch.ones(1, 5, 3)).any()


def test_without_spafe_lfcc_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("spafe"):
            raise ImportError(name)
        return found(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install spafe"):
        voice.lfcc(tones(1))


# ---- detectors -----------------------------------------------------------------------------------


def test_a_mixture_of_one_is_the_normal_density() -> None:
    g = torch.Generator().manual_seed(0)
    frames = 2 + 3 * torch.randn(500, 4, generator=g, dtype=torch.float64)
    one = voice.Mixture(1, 4).double()
    one.fit(frames, seed=0)
    mean, variance = frames.mean(0), frames.var(0, correction=0) + 1e-3
    expected = stats.multivariate_normal(mean.numpy(), np.diag(variance.numpy())).logpdf(
        frames.numpy()
    )
    np.testing.assert_allclose(one(frames).numpy(), expected, rtol=1e-9)


def test_a_mixture_integrates_to_one_and_finds_two_heaps() -> None:
    g = torch.Generator().manual_seed(0)
    heaps = torch.cat(
        [torch.randn(300, 1, generator=g) - 4, 0.5 * torch.randn(100, 1, generator=g) + 3]
    )
    two = voice.Mixture(2, 1).double()
    two.fit(heaps, seed=0)
    line = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    assert float(torch.trapezoid(two(line[:, None]).exp(), line)) == pytest.approx(1, abs=1e-6)
    order = two.mean[:, 0].argsort()
    assert two.mean[order, 0].tolist() == pytest.approx([-4, 3], abs=0.3)
    assert two.log_weight[order].exp().tolist() == pytest.approx([0.75, 0.25], abs=0.03)


def test_the_ratio_tells_two_kinds_of_sound_apart_and_turns_with_the_labels() -> None:
    noise = torch.randn(12, 2000, generator=torch.Generator().manual_seed(0)) * 0.1
    person, machine = tones(12, 2000), noise
    features = voice.lfcc(person), voice.lfcc(machine)
    model = voice.LFCCGMM(2).fit(features[0][:8], features[1][:8], seed=0)
    held = torch.cat([person[8:], machine[8:]])
    scores = voice.score(model, held)
    assert scores[:4].max() < 0.5 < scores[4:].min()
    turned = voice.LFCCGMM(2).fit(features[1][:8], features[0][:8], seed=0)
    torch.testing.assert_close(turned(held), -model(held), rtol=1e-4, atol=1e-3)


def test_max_feature_map_is_the_larger_of_each_pair() -> None:
    h = torch.randn(2, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    found = voice.max_feature_map(h)
    assert found.shape == (2, 3, 3, 3)
    for i in range(3):
        assert torch.equal(found[:, i], torch.maximum(h[:, i], h[:, i + 3]))


def test_the_spectrogram_has_a_tone_where_it_is_and_its_level() -> None:
    x = (2 * math.pi * 1000 * torch.arange(2000) / 8000).sin()[None]
    picture = voice.spectrogram(0.1 * x)
    assert picture.shape == (1, 1, 128, 22)
    torch.testing.assert_close(
        picture.amax(dim=2), torch.full((1, 1, 22), 70 / 80), atol=0.01, rtol=0
    )
    assert picture.argmax(dim=2).unique().tolist() == [1000 // 31.25 - 1]


def test_the_lcnn_starts_undecided_and_learns_and_its_gradient_reaches_the_sound() -> None:
    person = tones(24, 2000)
    machine = torch.randn(24, 2000, generator=torch.Generator().manual_seed(0)) * 0.1
    net = voice.LCNN(generator=device.generator(0))
    model = nn.Sequential(voice.Spectrogram(), net)
    assert voice.score(model, person).unique().tolist() == [0.5]
    fabric = device.launch(accelerator="cpu")
    pictures = voice.spectrogram(person), voice.spectrogram(machine)
    for _ in cnn.train_detector(net, *pictures, fabric=fabric, steps=12, batch_size=16, seed=0):
        pass
    assert voice.score(model, person).max() < voice.score(model, machine).min()
    x = person[:2].clone().requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None and bool(x.grad.isfinite().all()) and bool(x.grad.any())


def test_score_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(voice.Spectrogram(), voice.LCNN()).train()
    first = voice.score(model, tones())
    assert model.training and torch.equal(first, voice.score(model, tones()))


def test_held_out_uses_the_detector_of_the_own_fold() -> None:
    models = voice_detectors.detectors()
    pictures = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    for fold in range(3):
        net = models[f"lcnn-both-{fold}"]
        assert isinstance(net, voice.LCNN)
        nn.init.constant_(net.linear.bias, fold - 1.0)
    scores = voice_detectors.held_out(
        models, "lcnn-both", pictures, torch.tensor([0, 0, 1, 1, 2, 2])
    )
    expected = torch.tensor([-1.0, -1, 0, 0, 1, 1]).double().sigmoid()
    torch.testing.assert_close(scores, expected)


# ---- wrong input ---------------------------------------------------------------------------------

SOUNDS: dict[str, Callable[[Tensor], Any]] = {
    "band_limit": voice.band_limit,
    "loudest": lambda x: voice.loudest(x, torch.tensor([1])),
    "add_noise": lambda x: voice.add_noise(x, 20, seed=0),
    "mu_law": voice.mu_law,
    "same_channel": lambda x: voice.same_channel(x, torch.tensor([1]), seed=0),
    "pitch": voice.pitch,
    "lfcc": voice.lfcc,
    "spectrogram": voice.spectrogram,
    "score": lambda x: voice.score(voice.LFCCGMM(), x),
}


@pytest.mark.parametrize("name", SOUNDS)
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(4000), r"x: expected float sounds \(N, T\)"),
        (torch.zeros(0, 4000), r"x: expected float sounds \(N, T\)"),
        (torch.zeros(2, 0), r"x: expected float sounds \(N, T\)"),
        (torch.zeros(1, 4000, dtype=torch.int16), r"x: expected float sounds"),
        (torch.full((1, 4000), torch.nan), "x: expected finite values"),
        (torch.full((1, 4000), 3000.0), "divide 16-bit samples by 32,768"),
    ],
)
def test_what_is_no_sound_is_refused(name: str, bad: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SOUNDS[name](bad)


@pytest.mark.parametrize("name", ["add_noise", "same_channel", "pitch", "score"])
def test_silence_is_refused_by_its_row(name: str) -> None:
    calls = SOUNDS | {"same_channel": lambda x: voice.same_channel(x, full(x), seed=0)}
    with pytest.raises(ValueError, match="x: expected sounds, got silence in row 1"):
        calls[name](torch.cat([tones(1), torch.zeros(1, 4000)]))


def silent_before_its_end() -> None:
    x = torch.zeros(1, 4000)
    x[0, 3000:] = 0.5
    voice.same_channel(x, torch.tensor([2000]), seed=0)


SOUND, GROUPS = tones(), torch.arange(6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (silent_before_its_end, "silence in row 0"),
        (lambda: voice.band_limit(SOUND, 0, 3400), "low, high: expected 0 < low < high < 4000"),
        (lambda: voice.band_limit(SOUND, 300, 4000), "low, high: expected"),
        (lambda: voice.loudest(SOUND, full(SOUND), 0), "width: expected at least 1"),
        (lambda: voice.loudest(SOUND, torch.ones(4)), "length: expected integers"),
        (lambda: voice.loudest(SOUND, full(SOUND)[:2]), "length: expected integers"),
        (lambda: voice.loudest(SOUND, full(SOUND) + 1), r"length: expected values in 1\.\.4000"),
        (lambda: voice.loudest(SOUND, full(SOUND) * 0), r"length: expected values in 1\.\.4000"),
        (lambda: voice.add_noise(SOUND, math.nan, seed=0), "snr: expected a finite number"),
        (lambda: voice.mu_law(SOUND, 0), "mu: expected at least 1"),
        (lambda: voice.pitch(SOUND, low=300, high=200), "low, high: expected"),
        (lambda: voice.pitch(SOUND[:, :200]), "two periods of low"),
        (lambda: voice.lfcc(SOUND[:, :100]), "x: expected 160 samples or more"),
        (lambda: voice.spectrogram(SOUND[:, :200]), "x: expected 256 samples or more"),
        (lambda: voice.deltas(torch.zeros(3, 4)), "c, width: expected"),
        (lambda: voice.deltas(torch.zeros(1, 3, 4), 0), "c, width: expected"),
        (lambda: voice.folds(GROUPS, GROUPS * 0, 1, seed=0), "k: expected at least 2"),
        (lambda: voice.folds(GROUPS, torch.zeros(6), seed=0), "stratum: expected integers"),
        (lambda: voice.folds(GROUPS, GROUPS[:2], seed=0), "stratum: expected integers"),
        (lambda: voice.folds(GROUPS // 3, GROUPS % 2, 2, seed=0), "more than one stratum"),
        (lambda: voice.folds(GROUPS // 3, GROUPS * 0, 3, seed=0), "group: 2 groups are too few"),
        (lambda: voice.Mixture(0), "components, size: expected at least 1"),
        (
            lambda: voice.Mixture(2, 3).fit(torch.zeros(5, 2), seed=0),
            r"frames: expected shape \(M, 3\)",
        ),
        (lambda: voice.Mixture(9, 3).fit(torch.zeros(5, 3), seed=0), "M >= 9"),
        (lambda: voice.Mixture(2, 3).fit(torch.full((5, 3), math.nan), seed=0), "frames: .* NaN"),
        (lambda: voice.LCNN()(torch.zeros(1, 3, 16, 16)), r"x: expected shape \(N, 1, H, W\)"),
        (lambda: voice.LCNN()(torch.zeros(1, 1, 4, 16)), r"x: expected shape \(N, 1, H, W\)"),
        (lambda: voice.score(nn.Identity(), SOUND), "model: expected one logit per sound"),
        (
            lambda: voice.held_out_logistic(SOUND, torch.zeros(4).long(), torch.arange(4)),
            "both classes in every training set",
        ),
        (
            lambda: voice.held_out_logistic(SOUND, torch.arange(3), torch.arange(4)),
            "feature, y, fold: expected",
        ),
        (
            lambda: voice.held_out_logistic(SOUND * math.nan, torch.arange(4) % 2, torch.arange(4)),
            "feature: expected finite",
        ),
        (lambda: synthetic_digits("siri"), "split: expected one of flite, espeak, all"),  # type: ignore[arg-type]
    ],
)
def test_wrong_settings_are_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_the_sounds_fit_those_of_people() -> None:
    people, machines = data.spoken_digits("all"), synthetic_digits()
    v = voice_detectors.voices()
    assert len(v.x) == len(people) + len(machines)
    assert torch.equal(v.x[:600, : people.x.shape[1]], people.x)
    assert torch.equal(v.x[600:, : machines.x.shape[1]], machines.x)
