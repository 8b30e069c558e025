"""The ear against NumPy, the attack's budget against its formula, and the echo against its own."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_lib.attacks import pgd
from course_lib.attacks.audio import (
    RATE,
    LogMel,
    SpeechNet,
    Through,
    audio_attack,
    decibels,
    expected_loss,
    low_pass,
    mel_filters,
    quietest_attack,
    room,
    snr,
)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_net(seed: int, samples: int = 40, classes: int = 5) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(samples, 16), nn.Tanh(), nn.Linear(16, classes)).eval()


def batch(n: int = 6, samples: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Sounds of very different loudness, and labels."""
    source = generator(seed)
    x = 2 * torch.rand(n, samples, generator=source) - 1
    x = x * torch.logspace(-2, -0.2, n)[:, None]
    return x, torch.randint(0, 5, (n,), generator=source)


def tone(hertz: float, samples: int = 2000, peak: float = 1.0) -> Tensor:
    phase = 2 * math.pi * hertz * torch.arange(samples, dtype=torch.float64) / RATE
    return (peak * phase.sin())[None].float()


# ---- the ear -------------------------------------------------------------------------------------


def test_the_filters_are_triangles_between_neighbours_evenly_spaced_in_mel() -> None:
    bands, window = 32, 256
    filters = mel_filters(bands, window).double().numpy()
    top = 2595 * np.log10(1 + 4000 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    hertz = np.fft.rfftfreq(window, 1 / RATE)
    for b in range(bands):
        by_hand = np.interp(hertz, edges[b : b + 3], [0, 1, 0], left=0, right=0)
        np.testing.assert_allclose(filters[b], by_hand, atol=1e-6)
    # Between the first and the last middle the triangles of neighbours add up to 1.
    inside = (hertz >= edges[1]) & (hertz <= edges[-2])
    np.testing.assert_allclose(filters.sum(axis=0)[inside], 1, atol=1e-6)


def test_the_ear_is_what_numpy_computes_frame_by_frame() -> None:
    x = torch.randn(2, 700, generator=generator(0), dtype=torch.float64)
    ear = LogMel().double()
    found = ear(x).numpy()
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    filters = mel_filters(32, 256).double().numpy()
    frames = 1 + (700 - 256) // 80
    assert found.shape == (2, 32, frames)
    for i in range(2):
        sound = x[i].numpy() / np.abs(x[i].numpy()).max()
        for k in range(frames):
            spectrum = np.fft.rfft(hann * sound[80 * k : 80 * k + 256])
            power = np.abs(spectrum) ** 2 / (hann.sum() / 2) ** 2
            np.testing.assert_allclose(found[i, :, k], np.log1p(filters @ power / 1e-4), rtol=1e-5)


@pytest.mark.parametrize("hertz", [300.0, 800.0, 1500.0, 3000.0])
def test_a_tone_lands_in_its_band(hertz: float) -> None:
    heard = LogMel()(tone(hertz))[0].mean(dim=1)
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + 4000 / 700), 34) / 2595) - 1)
    assert int(heard.argmax()) == int(np.abs(edges[1:-1] - hertz).argmin())


def test_a_full_scale_tone_on_a_line_of_the_spectrum_has_power_one_there() -> None:
    ear = LogMel()
    # 1,000 Hz is line 32; a Hann window spreads it to the lines beside it, with a quarter each.
    lines = torch.zeros(129)
    lines[31:34] = torch.tensor([0.25, 1.0, 0.25])
    expected = torch.log1p(ear.filters @ lines / ear.floor)
    heard = ear(tone(1000))[0]
    loud = expected > 0.1
    torch.testing.assert_close(heard[loud].mean(dim=1), expected[loud], rtol=1e-3, atol=1e-3)


def test_silence_is_zero_and_loudness_and_padding_do_not_matter() -> None:
    ear = LogMel()
    assert torch.equal(ear(torch.zeros(1, 1000)), torch.zeros(1, 32, 10))
    x = torch.randn(3, 1600, generator=generator(1))
    torch.testing.assert_close(ear(0.01 * x), ear(x), rtol=1e-4, atol=1e-4)
    padded = ear(F.pad(x, (0, 800)))
    torch.testing.assert_close(padded[:, :, : 1 + (1600 - 256) // 80], ear(x))
    torch.manual_seed(0)
    net = SpeechNet().eval()
    torch.testing.assert_close(net(0.01 * x), net(x), rtol=1e-4, atol=1e-4)
    # Silence that follows is one more place to look for the maximum, and the same however long.
    torch.testing.assert_close(net(F.pad(x, (0, 3200))), net(F.pad(x, (0, 6400))))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_network_gives_logits_and_a_gradient_in_every_audible_sample(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    net = SpeechNet().to(dtype).eval()
    x = torch.randn(2, 1500, generator=generator(2)).to(dtype).requires_grad_()
    logits = net(x)
    assert logits.shape == (2, 10) and logits.dtype == dtype
    logits.square().sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and bool(x.grad.isfinite().all())
    assert float((x.grad != 0).float().mean()) > 0.5
    silent = torch.zeros(1, 1500, dtype=dtype, requires_grad=True)
    net(silent).sum().backward()
    assert silent.grad is not None and bool(silent.grad.isfinite().all())


# ---- decibels ------------------------------------------------------------------------------------


def test_decibels_and_snr_of_known_sounds() -> None:
    x = torch.tensor([[0.1, -1.0, 0.3], [0.0, 0.01, -0.1], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(decibels(x), torch.tensor([0.0, -20.0, -math.inf]))
    sound = tone(100, samples=800)
    ones = torch.ones_like(sound)
    # A sine's mean power is 1/2; a constant of 0.01 has 1e-4.
    expected = 10 * math.log10(0.5 / 1e-4)
    assert float(snr(sound, sound + 0.01 * ones)) == pytest.approx(expected, abs=1e-3)
    assert float(snr(sound, sound)) == math.inf


@given(level=st.floats(-80, 0), seed=st.integers(0, 10**6))
def test_what_is_scaled_down_by_so_many_decibels_has_that_level_and_that_snr(
    level: float, seed: int
) -> None:
    x = torch.randn(3, 50, generator=generator(seed), dtype=torch.float64)
    delta = -(10 ** (level / 20)) * x
    torch.testing.assert_close(
        decibels(delta) - decibels(x), torch.full((3,), level, dtype=torch.float64)
    )
    torch.testing.assert_close(snr(x, x + delta), torch.full((3,), -level, dtype=torch.float64))


# ---- the attack ----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    level=st.floats(-90, 0),
    steps=st.integers(1, 8),
    targeted=st.booleans(),
)
def test_the_budget_the_range_and_the_silence_are_kept(
    seed: int, level: float, steps: int, targeted: bool
) -> None:
    model, (x, y) = small_net(seed), batch(seed=seed)
    length = torch.randint(1, 41, (6,), generator=generator(seed))
    silent = torch.arange(40) >= length[:, None]
    x[:, 0] += 0.01
    x = x.masked_fill(silent, 0).clamp(-1, 1)
    x_adv = audio_attack(model, x, y, level, length=length, steps=steps, targeted=targeted)
    tau = 10 ** (level / 20) * x.abs().amax(dim=1)
    assert bool(((x_adv - x).abs().amax(dim=1) <= tau + 2e-7).all())
    assert bool((x_adv.abs() <= 1).all())
    assert torch.equal(x_adv[silent], x[silent])


def test_it_is_pgd_on_the_mapped_sound() -> None:
    model, (x, y) = small_net(0).double(), batch()
    x = x.double()
    inner = nn.Sequential(Affine(), model)
    tau = 10 ** (-26 / 20) * x.abs().amax(dim=1)
    u_adv = pgd(inner, (x + 1) / 2, y, tau / 2, tau / 2 * 2.5 / 7, 7, random_start=False)
    found = audio_attack(model, x, y, -26, steps=7)
    torch.testing.assert_close(found, 2 * u_adv - 1, rtol=0, atol=1e-12)


class Affine(nn.Module):
    def forward(self, u: Tensor) -> Tensor:
        return 2 * u - 1


def test_on_a_linear_model_every_sample_spends_its_budget_in_the_best_direction() -> None:
    w = torch.tensor([[1.0, -2.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    model = nn.Linear(4, 2, bias=False).double()
    model.weight.data = w
    x = torch.tensor([[0.4, -0.1, 0.2, 0.1]], dtype=torch.float64)
    tau = 0.4 * 10 ** (-20 / 20)
    best = x + tau * torch.tensor([[1.0, -1.0, 0.0, 1.0]], dtype=torch.float64)
    heard_as_0 = audio_attack(model, x, torch.tensor([0]), -20, steps=10, targeted=True)
    torch.testing.assert_close(heard_as_0, best)
    torch.testing.assert_close(audio_attack(model, x, torch.tensor([1]), -20, steps=10), best)


def test_one_level_per_sound_and_a_batch_is_its_sounds_one_by_one() -> None:
    model, (x, y) = small_net(1).double(), batch(4)
    x, levels = x.double(), torch.tensor([-10.0, -20.0, -30.0, -40.0])
    lengths = torch.tensor([40, 30, 20, 10])
    together = audio_attack(model, x, y, levels, length=lengths, steps=5)
    for i in range(4):
        one = slice(i, i + 1)
        alone = audio_attack(model, x[one], y[one], float(levels[i]), length=lengths[one], steps=5)
        torch.testing.assert_close(together[one], alone, rtol=0, atol=1e-12)


def test_a_louder_copy_gets_a_louder_attack_where_loudness_does_not_matter() -> None:
    torch.manual_seed(0)
    net = SpeechNet().double().eval()
    x = 0.5 * torch.randn(2, 800, generator=generator(3), dtype=torch.float64).clamp(-1, 1)
    y = torch.tensor([1, 2])
    loud = audio_attack(net, x, y, -30, steps=1) - x
    quiet = audio_attack(net, x / 16, y, -30, steps=1) - x / 16
    torch.testing.assert_close(16 * quiet, loud, rtol=1e-6, atol=1e-9)


def test_leaves_the_model_and_the_sounds_as_they_were() -> None:
    torch.manual_seed(0)
    net = SpeechNet().train()
    net.drop.eval()
    net.head.weight.requires_grad_(False)
    net.head.bias.grad = torch.ones_like(net.head.bias)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    x = 0.1 * torch.randn(2, 600, generator=generator(0))
    x.requires_grad_()
    kept, y, random = x.detach().clone(), torch.tensor([0, 1]), torch.get_rng_state()
    attacked = [
        audio_attack(net, x, y, -20, steps=2),
        quietest_attack(net, x, y, within=20, steps=2)[0],
    ]
    torch.testing.assert_close(dict(net.state_dict()), state, rtol=0, atol=0)
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(net.head.bias.grad, torch.ones(10))
    assert not net.head.weight.requires_grad and net.body[1].weight.grad is None
    assert torch.equal(torch.get_rng_state(), random)
    assert x.grad is None and torch.equal(x.detach(), kept)
    for x_adv in attacked:
        assert not x_adv.requires_grad and x_adv.data_ptr() != x.data_ptr()


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_off(context: Callable[[], object]) -> None:
    model, (x, y) = small_net(0), batch()
    expected = audio_attack(model, x, y, -20, steps=3)
    with context():  # type: ignore[attr-defined]
        assert torch.equal(audio_attack(model, x * 1, y * 1, -20, steps=3), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_keeps_the_dtype(dtype: torch.dtype) -> None:
    model, (x, y) = small_net(0).to(dtype), batch()
    x = x.to(dtype)
    x_adv = audio_attack(model, x, y, -12, steps=3)
    assert x_adv.dtype == dtype and x_adv.shape == x.shape
    assert not torch.equal(x_adv, x)
    tau = 10 ** (-12 / 20) * x.double().abs().amax(dim=1, keepdim=True)
    # Rounding to the dtype may add half a unit in the last place.
    slack = torch.finfo(dtype).eps * x.double().abs() + 2e-7
    assert bool(
        ((x_adv.double() - x.double()).abs() <= tau * (1 + torch.finfo(dtype).eps) + slack).all()
    )


# ---- the smallest budget -------------------------------------------------------------------------


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), within=st.sampled_from([0.3, 1.0, 4.0]))
def test_the_smallest_budget_on_a_linear_model_is_the_closed_form(seed: int, within: float) -> None:
    # The margin of class 1 is w.x; it falls by tau * |w|_1, so tau = w.x / |w|_1 is the least.
    source = generator(seed)
    w = torch.randn(30, generator=source, dtype=torch.float64)
    model = nn.Linear(30, 2, bias=False).double()
    model.weight.data = torch.stack([0 * w, w])
    x = 0.1 * torch.randn(8, 30, generator=source, dtype=torch.float64)
    y = (x @ w > 0).long()
    least = 20 * ((x @ w).abs() / w.abs().sum() / x.abs().amax(dim=1)).log10()
    x_adv, found = quietest_attack(model, x, y, within=within, steps=4)
    inside = (least > -80) & (least < 0)
    assert bool(inside.any())
    assert bool((found[inside] >= least[inside] - 1e-4).all())
    assert bool((found[inside] <= least[inside] + within + 1e-4).all())
    assert bool((model(x_adv).argmax(dim=1) != y)[inside].all())
    tau = 10 ** (found[inside].double() / 20) * x[inside].abs().amax(dim=1)
    assert bool(((x_adv - x)[inside].abs().amax(dim=1) <= tau * (1 + 1e-6)).all())


def test_what_needs_no_change_and_what_cannot_be_reached_are_told_apart() -> None:
    # Class 1 has the highest logit for every sound, class 2 never: class 0 is reached by tau > 0.5.
    class Fixed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rest = torch.zeros_like(x[:, :1])
            return torch.cat([x[:, :1] - 0.5, rest, rest - 1 + 0 * x[:, :1]], dim=1)

    x = torch.tensor([[0.2, 0.5], [0.2, 0.5], [0.2, 0.5]])
    x_adv, found = quietest_attack(Fixed(), x, torch.tensor([1, 0, 2]), targeted=True, steps=9)
    assert found[0] == -math.inf and found[2] == math.inf
    assert torch.equal(x_adv[[0, 2]], x[[0, 2]])
    least = 20 * math.log10(0.3 / 0.5)
    assert least <= float(found[1]) <= least + 1
    _, none = quietest_attack(Fixed(), x[1:2], torch.tensor([0]), targeted=True, high=-20, steps=9)
    assert none == math.inf


# ---- the channel ---------------------------------------------------------------------------------


class Recorder(nn.Module):
    """Returns what it hears as logits, so that a test can see it."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :5]


def test_through_is_the_mean_over_the_draws() -> None:
    def louder(x: Tensor, source: torch.Generator) -> Tensor:
        return x * torch.rand(len(x), 1, generator=source)

    x = torch.randn(3, 5, generator=generator(0))
    found = Through(Recorder(), louder, draws=4, generator=generator(9))(x)
    gains = torch.rand(12, 1, generator=generator(9)).reshape(4, 3, 1)
    torch.testing.assert_close(found, (gains * x).log_softmax(dim=2).mean(dim=0))
    y = torch.tensor([0, 3, 4])
    by_hand = torch.stack([F.cross_entropy(g * x, y, reduction="none") for g in gains]).mean(dim=0)
    torch.testing.assert_close(expected_loss(found, y), by_hand)


def test_through_an_open_window_is_the_attack_itself() -> None:
    model, (x, y) = small_net(0).double(), batch()
    x = x.double()
    window = Through(model, lambda sounds, _: sounds, draws=3, generator=generator(0))
    found = audio_attack(window, x, y, -20, steps=4, loss=expected_loss)
    torch.testing.assert_close(found, audio_attack(model, x, y, -20, steps=4), rtol=0, atol=1e-12)


def test_an_attack_on_the_expectation_survives_a_channel_that_kills_the_plain_one() -> None:
    # The model listens to the first sample only, and the channel swaps the two half of the time: a
    # plain attack leaves the second alone.
    def swapped(x: Tensor, source: torch.Generator) -> Tensor:
        return torch.where(torch.rand(len(x), 1, generator=source) < 0.5, x, x.flip(1))

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([3 * x[:, :1] - 1, 0 * x[:, :1]], dim=1)

    x, y = torch.tensor([[0.2, 0.2]]), torch.tensor([1])
    over = Through(First(), swapped, draws=16, generator=generator(0))
    robust = audio_attack(over, x, y, 0, steps=10, loss=expected_loss)
    plain = audio_attack(First(), x, y, 0, steps=10)

    def fooled(sound: Tensor) -> float:
        heard = swapped(sound.repeat(400, 1), generator(1))
        return float((First()(heard).argmax(dim=1) != 1).float().mean())

    assert torch.allclose(plain, torch.tensor([[0.4, 0.2]]))
    assert torch.allclose(robust, torch.tensor([[0.4, 0.4]]))
    assert 0.4 < fooled(plain) < 0.6
    assert fooled(robust) == 1


def test_the_room_is_drawn_keeps_the_sound_and_is_linear_but_for_its_noise() -> None:
    x = F.pad(torch.randn(64, 2000, generator=generator(0)), (0, 2000))
    heard = room(x, generator(1))
    assert heard.shape == x.shape and torch.equal(heard, room(x, generator(1)))
    assert not torch.equal(heard, room(x, generator(2)))
    # Everything is in proportion to the sound, the noise too.
    torch.testing.assert_close(room(3 * x, generator(1)), 3 * heard, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(room(x.double(), generator(1)), heard.double(), rtol=1e-4, atol=1e-4)


def test_the_rooms_answer_to_a_click_has_the_documented_delay_and_echo() -> None:
    click = torch.zeros(400, 4000)
    click[:, 100] = 1
    heard = room(click, generator(0))
    arrival = heard.abs().argmax(dim=1) - 100
    assert (
        int(arrival.min()) >= 4 and int(arrival.max()) <= 160 + 4
    )  # the taps' middle is the fifth
    assert float(arrival.double().mean()) == pytest.approx(84, abs=10)
    # From 9 taps after the arrival on there is echo and noise: 10 to 20 dB and 30 to 40 dB down.
    late = torch.arange(4000)[None] > (arrival + 100)[:, None] + 9
    share = (heard.square() * late).sum(dim=1) / heard.square().sum(dim=1)
    assert 0.005 < float(share.min()) and float(share.max()) < 0.13
    assert bool((heard[:, :100].abs() < 0.02).all())  # nothing but noise comes before the sound


def test_a_low_pass_keeps_what_is_below_and_removes_what_is_above() -> None:
    low, high = tone(500, samples=1600).double(), tone(3000, samples=1600).double()
    torch.testing.assert_close(low_pass(low + high, 1500), low, rtol=0, atol=1e-6)
    torch.testing.assert_close(low_pass(low, 1500), low, rtol=0, atol=1e-6)
    x = torch.randn(2, 501, generator=generator(0), dtype=torch.float64)
    once = low_pass(x, 2000)
    torch.testing.assert_close(low_pass(once, 2000), once)
    assert once.shape == x.shape


# ---- wrong input ---------------------------------------------------------------------------------

X, Y = batch()
NET = small_net(0)
NAN = X.clone()
NAN[0, 0] = math.nan
SILENT = X.clone()
SILENT[2] = 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mel_filters(0, 256), "bands: expected at least 1, got 0"),
        (lambda: mel_filters(8, 1), "window: expected at least 2, got 1"),
        (lambda: mel_filters(8, 256, 0), "rate: expected at least 1, got 0"),
        (lambda: mel_filters(200, 64), "bands: .* hold no frequency"),
        (lambda: LogMel(hop=0), "hop: expected at least 1, got 0"),
        (lambda: LogMel(floor=0.0), "floor: expected a power > 0"),
        (lambda: LogMel(floor=math.nan), "floor: expected a power > 0"),
        (lambda: LogMel()(torch.zeros(2, 255)), r"x: expected float sounds \(N, T\), T >= 256"),
        (lambda: LogMel()(torch.zeros(300)), r"x: expected float sounds \(N, T\)"),
        (
            lambda: LogMel()(torch.zeros(1, 300).long()),
            "x: expected float sounds .* got torch.int64",
        ),
        (lambda: SpeechNet()(torch.zeros(1, 1, 300)), "x: expected float sounds"),
        (lambda: decibels(X[0]), r"x: expected sounds \(N, T\)"),
        (lambda: decibels(NAN), "x: expected finite values"),
        (lambda: decibels(X[:, :0]), "x: expected sounds .* T > 0"),
        (lambda: decibels(X[:, None]), r"x: expected sounds \(N, T\)"),
        (lambda: snr(X, X[:, :5]), "x_adv: expected the shape of x"),
        (lambda: snr(X, NAN), "x_adv: expected finite values"),
        (lambda: snr(SILENT, X), "x: 1 of 6 recordings are silent"),
        (lambda: room(NAN, generator(0)), "x: expected finite values"),
        (lambda: room(X[:0], generator(0)), "x: .* with N > 0"),
        (lambda: low_pass(X, 0), "hertz: expected 0 < hertz < 4000, got 0"),
        (lambda: low_pass(X, 4000), "hertz: expected 0 < hertz < 4000"),
        (lambda: low_pass(X, math.nan), "hertz: expected 0 < hertz < 4000, got nan"),
        (lambda: low_pass(NAN, 1000), "x: expected finite values"),
        (
            lambda: Through(NET, room, draws=0, generator=generator(0)),
            "draws: expected at least 1, got 0",
        ),
        (lambda: audio_attack(NET, X, Y, -20, steps=0), "steps: expected at least 1, got 0"),
        (lambda: audio_attack(NET, X, Y, 1.0), "decibels: expected finite levels of at most 0"),
        (lambda: audio_attack(NET, X, Y, math.nan), "decibels: expected finite levels"),
        (lambda: audio_attack(NET, X, Y, -math.inf), "decibels: expected finite levels"),
        (
            lambda: audio_attack(NET, X, Y, torch.zeros(2)),
            "decibels: expected one number or one per",
        ),
        (
            lambda: quietest_attack(NET, X, Y, low=0, high=-5),
            "low, high, within: expected low < high",
        ),
        (lambda: quietest_attack(NET, X, Y, high=3), "low, high, within: expected low < high <= 0"),
        (lambda: quietest_attack(NET, X, Y, within=0), "low, high, within: .* within > 0"),
    ],
)
def test_wrong_input_is_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("attack", [lambda *a, **k: audio_attack(*a, -20, **k), quietest_attack])
@pytest.mark.parametrize(
    ("x", "y", "length", "message"),
    [
        (X, Y.float(), None, "y: expected int64"),
        (X, Y[:2], None, "y: .* got torch.int64"),
        (X, Y + 5, None, "y: expected labels 0..4"),
        (X[:0], Y[:0], None, "x: .* with N > 0"),
        (X[:, :0], Y, None, "x: expected sounds .* T > 0"),
        (X[:, None], Y, None, r"x: expected sounds \(N, T\)"),
        ((1000 * X).long(), Y, None, "x: expected a float tensor"),
        (NAN, Y, None, "x: expected finite values"),
        (SILENT, Y, None, "x: 1 of 6 recordings are silent"),
        (200 * X, Y, None, r"x: expected values in \[-1, 1\]"),
        (X, Y, torch.full((6,), 41), "length: expected 1..40, got 41..41"),
        (X, Y, torch.zeros(6, dtype=torch.int64), "length: expected 1..40, got 0..0"),
        (X, Y, torch.full((6,), 20.0), "length: expected int64"),
        (X, Y, torch.full((5,), 20), "length: expected int64 of shape"),
    ],
)
def test_wrong_sounds_are_named(
    attack: Callable[..., object], x: Tensor, y: Tensor, length: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        attack(NET, x, y, length=length)


# ---- the trained network -------------------------------------------------------------------------


def test_a_change_40_decibels_down_makes_the_network_mishear_and_noise_of_that_level_does_not() -> (
    None
):
    from course_lib import checkpoints, data

    net = checkpoints.load("speech-net", SpeechNet())
    test = data.spoken_digits("test")
    some = test.subset(torch.arange(0, len(test), 17))
    x, y, length = some.x[:, :6400], some.y, some.length.clamp(max=6400)
    with torch.no_grad():
        right = net(x).argmax(dim=1) == y
    x, y, length = x[right], y[right], length[right]
    tau = 10 ** (-40 / 20) * x.abs().amax(dim=1, keepdim=True)
    coins = 2.0 * torch.randint(0, 2, x.shape, generator=generator(0)) - 1
    sounding = torch.arange(x.shape[1]) < length[:, None]
    attacked = audio_attack(net, x, y, -40, length=length, steps=15)
    with torch.no_grad():
        noisy = (net(x + tau * coins * sounding).argmax(dim=1) == y).float().mean()
        left = (net(attacked).argmax(dim=1) == y).float().mean()
    assert float(left) < float(noisy) - 0.3
