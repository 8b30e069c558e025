"""Sounds that are heard as something else: a waveform attack with a budget in decibels.

A network that hears spoken digits from the waveform up, so that its gradient reaches the samples;
the budget; the attack; and a loudspeaker and a room to play the result in.

Chapter: book/deceive/heard.md
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.attacks.gradient import cross_entropy
from course_lib.attacks.pgd import pgd
from course_lib.classifiers import Loss, check_examples, check_labelled, check_logits, evaluating

#: What happens to sounds (N, T) between a loudspeaker and a microphone, drawn from the generator.
Channel = Callable[[Tensor, torch.Generator], Tensor]

RATE = 8000


# ---- the ear -------------------------------------------------------------------------------------


def mel_filters(bands: int, window: int, rate: int = RATE) -> Tensor:
    """Return triangles that sum a spectrum into bands spaced evenly in mel: (bands, window/2 + 1).

    Frequency f, in hertz, lies at 2595 log10(1 + f / 700) mel. Band b rises from 0 at the middle of
    band b - 1 to 1 at its own and falls to 0 at that of band b + 1; the first begins at 0 Hz, the
    last ends at half the sampling rate.

    Raises ``ValueError`` for bands, a window or a rate that are too small, and for so many bands
    that one of them falls between two frequencies of the spectrum. Source: Davis & Mermelstein,
    "Comparison of parametric representations for monosyllabic word recognition in continuously
    spoken sentences", 1980; the scale is O'Shaughnessy's, "Speech communication", 1987.
    """
    for name, value, least in (("bands", bands, 1), ("window", window, 2), ("rate", rate, 1)):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    top = 2595 * torch.log10(torch.tensor(1 + rate / 2 / 700, dtype=torch.float64))
    mel = top * torch.arange(bands + 2, dtype=torch.float64) / (bands + 1)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = torch.arange(window // 2 + 1, dtype=torch.float64) * rate / window
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    rising = (hertz - left) / (middle - left)
    falling = (right - hertz) / (right - middle)
    filters = torch.minimum(rising, falling).clamp(min=0)
    empty = int((filters.sum(dim=1) == 0).sum())
    if empty:
        raise ValueError(
            f"bands: with a window of {window}, {empty} of {bands} bands hold no frequency of the "
            "spectrum; expected fewer bands or a longer window"
        )
    return filters.float()


class LogMel(nn.Module):
    """The logarithm of a sound's power in each mel band and moment: (N, T) to (N, bands, frames).

    The sound is divided by its peak first, so that loudness does not matter. Windows of ``window``
    samples, ``hop`` apart, are weighted by a Hann window and transformed; the power of a full-scale
    tone is 1. The result is log(1 + power / ``floor``): 0 for silence, never less.

    Raises ``ValueError`` for anything but float sounds (N, T), T >= window.
    """

    filters: Tensor
    hann: Tensor

    def __init__(
        self, *, bands: int = 32, window: int = 256, hop: int = 80, floor: float = 1e-4
    ) -> None:
        super().__init__()
        if hop < 1:
            raise ValueError(f"hop: expected at least 1, got {hop}")
        if not floor > 0:
            raise ValueError(f"floor: expected a power > 0, got {floor}")
        self.window, self.hop, self.floor = window, hop, floor
        self.register_buffer("filters", mel_filters(bands, window), persistent=False)
        self.register_buffer("hann", torch.hann_window(window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return log(1 + power / floor) of sounds (N, T): (N, bands, 1 + (T - window) // hop)."""
        if x.ndim != 2 or not x.is_floating_point() or x.shape[1] < self.window:
            raise ValueError(
                f"x: expected float sounds (N, T), T >= {self.window}; "
                f"got {x.dtype} {tuple(x.shape)}"
            )
        peak = x.abs().amax(dim=1, keepdim=True)
        x = x / torch.where(peak > 0, peak, 1)  # silence stays silence
        hann = self.hann.to(x.dtype)
        spectrum = torch.stft(
            x, self.window, self.hop, window=hann, center=False, return_complex=True
        )
        power = (spectrum.real**2 + spectrum.imag**2) / (hann.sum() / 2) ** 2
        bands = self.filters.to(x.dtype) @ power
        return torch.log1p(bands / self.floor)


class SpeechNet(nn.Module):
    """A small network that hears digits: sounds (N, T) at 8 kHz to logits (N, 10).

    Its ear is ``LogMel``; convolutions look for patterns of pitch and time, and the strongest of
    each kind, whenever it comes, goes on to the last layer. So neither loudness nor what is silent
    around the word matters.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ear = LogMel()
        self.body = nn.Sequential(
            nn.BatchNorm2d(1),
            nn.Conv2d(1, 16, 5, stride=2, padding=2),  # 32 bands -> 16
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),  # 16 -> 8
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 48, 3, stride=2, padding=1),  # 8 -> 4
            nn.BatchNorm2d(48),
            nn.ReLU(),
        )
        self.after = nn.Sequential(nn.Conv1d(48 * 4, 96, 3, padding=1), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(96, 10)

    def features(self, x: Tensor) -> Tensor:
        """Return what the last layer decides on: (N, 96), never negative."""
        seen: Tensor = self.body(self.ear(x)[:, None])
        features: Tensor = self.after(seen.flatten(1, 2)).amax(dim=2)
        return features

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 10) of sounds (N, T)."""
        logits: Tensor = self.head(self.drop(self.features(x)))
        return logits


# ---- decibels ------------------------------------------------------------------------------------


def decibels(x: Tensor) -> Tensor:
    """Return how loud each sound gets, 20 log10 max_i |x_i|: (N,) from (N, T), 0 at full scale.

    How loud a change ``delta`` of ``x`` is, beside ``x``, is ``decibels(delta) - decibels(x)``. A
    sound that is silent throughout has -infinity.

    Raises ``ValueError`` for another shape, an integer dtype, no sound, or NaN. Source: Carlini &
    Wagner, "Audio adversarial examples: targeted attacks on speech-to-text", 2018, section II.
    """
    _check_batch("x", x)
    return 20 * x.detach().abs().amax(dim=1).log10()


def snr(x: Tensor, x_adv: Tensor) -> Tensor:
    """Return the signal-to-noise ratio in decibels, 10 log10 (sum x^2 / sum (x_adv - x)^2): (N,).

    ``x`` and ``x_adv``: (N, T). Infinite where nothing was changed.

    Raises ``ValueError`` for other shapes, an integer dtype, NaN, or a silent sound.
    """
    _check_batch("x", x)
    _check_batch("x_adv", x_adv)
    if x.shape != x_adv.shape:
        raise ValueError(
            f"x_adv: expected the shape of x, {tuple(x.shape)}, got {tuple(x_adv.shape)}"
        )
    _check_audible(x)
    signal, delta = x.detach(), x_adv.detach() - x.detach()
    ratio: Tensor = signal.norm(dim=1) / delta.norm(dim=1)
    return 20 * ratio.log10()


# ---- the attack ----------------------------------------------------------------------------------


class _OfImages(nn.Module):
    """The same model for sounds that were mapped from [-1, 1] to the images' range, [0, 1]."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, u: Tensor) -> Tensor:
        logits: Tensor = self.model((2 * u - 1).to(self.dtype))
        return logits


def audio_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    decibels: float | Tensor,
    *,
    length: Tensor | None = None,
    steps: int = 100,
    targeted: bool = False,
    loss: Loss = cross_entropy,
) -> Tensor:
    """Change sounds by at most ``decibels`` relative to their peak, so that they are misheard.

    ``x``: (N, T) in [-1, 1]; ``y``: int64 (N,), what is said, or with ``targeted`` what shall be
    heard; ``decibels``: at most 0, one number or one per sound (N,): no sample moves by more than
    tau = 10^(decibels / 20) max_i |x_i|. ``length``: int64 (N,), how many samples are sound; the
    padding after them stays as it is. Projected gradient descent from x itself, in ``steps`` signed
    steps of 2.5 tau / steps. Returns x_adv like ``x``, in [-1, 1].

    Raises ``ValueError`` for sounds outside [-1, 1], NaN, an empty batch, a silent recording,
    labels, lengths, decibels or steps that do not fit, or a model that gives no gradient. Source:
    Carlini & Wagner, "Audio adversarial examples: targeted attacks on speech-to-text", 2018,
    section II, who minimise with Adam; the signed steps are Madry et al.'s, 2018, section 2.1.
    """
    _check_sounds(x, y, length)
    if steps < 1:
        raise ValueError(f"steps: expected at least 1, got {steps}")
    # Half precision has too few digits for 1 + x of a quiet sound.
    sound = x.detach().to(torch.promote_types(x.dtype, torch.float32))
    tau = _ratio(decibels, sound) * sound.abs().amax(dim=1)
    eps = tau[:, None].expand(x.shape)
    if length is not None:
        eps = torch.where(torch.arange(x.shape[1], device=x.device) < length[:, None], eps, 0)
    u = (sound + 1) / 2
    u_adv = pgd(
        _OfImages(model, x.dtype),
        u,
        y,
        eps / 2,
        2.5 * tau / 2 / steps,
        steps,
        random_start=False,
        targeted=targeted,
        loss=loss,
    )
    return (sound + 2 * (u_adv - u)).clamp(-1, 1).to(x.dtype)


def quietest_attack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    length: Tensor | None = None,
    low: float = -80.0,
    high: float = 0.0,
    within: float = 1.0,
    steps: int = 100,
    targeted: bool = False,
    loss: Loss = cross_entropy,
) -> tuple[Tensor, Tensor]:
    """Find for each sound the smallest budget in decibels at which ``audio_attack`` works.

    The gap between ``low``, where nothing is expected to work, and ``high`` is halved until the
    smallest budget that worked lies at most ``within`` decibels above one that did not. The other
    arguments are those of ``audio_attack``. Returns x_adv like ``x`` and the budgets (N,):
    -infinity for a sound that needs no change, +infinity, and x itself, where ``high`` is too
    little. What works at one budget nearly always works at a larger one; where it does not, this
    is one crossing and not always the first.

    Raises ``ValueError`` as ``audio_attack`` does, and unless low < high <= 0 and within > 0.
    Source: Carlini & Wagner, 2018, section II, who lower tau each time the attack succeeds.
    """
    _check_sounds(x, y, length)
    if not (low < high <= 0 and within > 0):
        raise ValueError(
            f"low, high, within: expected low < high <= 0 and within > 0, got {low}, {high}, {within}"
        )
    best = x.detach().clone()
    found = torch.full((len(x),), torch.inf, device=x.device)
    found[_works(model, best, y, targeted)] = -torch.inf
    failed, level = torch.full_like(found, low), torch.full_like(found, high)
    left = found.isposinf().nonzero()[:, 0]
    while len(left):
        x_adv = audio_attack(
            model,
            x[left],
            y[left],
            level[left],
            length=None if length is None else length[left],
            steps=steps,
            targeted=targeted,
            loss=loss,
        )
        works = _works(model, x_adv, y[left], targeted)
        best[left[works]] = x_adv[works]
        found[left[works]] = level[left[works]]
        failed[left[~works]] = level[left[~works]]
        # What fails at the highest level is given up; the rest goes on until its gap is small.
        left = left[found[left].isfinite() & (found[left] - failed[left] > within)]
        level = (failed + found) / 2
    return best, found


@torch.no_grad()
def _works(model: nn.Module, x: Tensor, y: Tensor, targeted: bool) -> Tensor:
    with evaluating(model):
        logits: Tensor = model(x)
    check_logits(logits, y)
    reads = logits.argmax(dim=1) == y
    return reads if targeted else ~reads


# ---- from a loudspeaker to a microphone ----------------------------------------------------------


class Through(nn.Module):
    """What a model hears on average through a channel that is drawn anew each time.

    Sounds (N, T) go through ``draws`` channels each; the result (N, K) is the mean over them of the
    logarithms of the model's probabilities. With ``expected_loss``, an attack on it minimises the
    expectation over the channel. The draws come from ``generator``, so two calls differ.

    Raises ``ValueError`` for draws < 1. Source: Athalye et al., "Synthesizing robust adversarial
    examples", 2018, section 2.1 (expectation over transformation).
    """

    def __init__(
        self, model: nn.Module, channel: Channel, *, draws: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"draws: expected at least 1, got {draws}")
        self.model, self.channel, self.draws, self.generator = model, channel, draws, generator

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logarithm of the probabilities, (N, K), over the channel's draws."""
        heard = self.channel(x.repeat(self.draws, 1), self.generator)
        logits: Tensor = self.model(heard)
        return logits.log_softmax(dim=1).reshape(self.draws, len(x), -1).mean(dim=0)


def expected_loss(log_probabilities: Tensor, y: Tensor) -> Tensor:
    """Return each sound's cross-entropy, averaged over the draws of ``Through``: (N,)."""
    return F.nll_loss(log_probabilities, y, reduction="none")


def room(x: Tensor, generator: torch.Generator) -> Tensor:
    """Play sounds (N, T) at 8 kHz in a room of their own each, and record them.

    A loudspeaker colours the sound (nine random taps); it arrives up to 20 ms late; echoes follow,
    with 10 to 20 dB less energy than the sound in all, and die away by 60 dB within 0.1 to 0.4 s;
    noise lies 30 to 40 dB below the sound's mean power. All is drawn from ``generator`` in float32.
    Differentiable in ``x``; the result has the shape of ``x`` and may leave [-1, 1].

    Raises ``ValueError`` for another shape, an integer dtype, no sound, or NaN. Source: the echo is
    Moorer's, "About this reverberation business", 1979: noise that decays exponentially.
    """
    _check_batch("x", x)
    n, t = x.shape
    where = generator.device

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(n, 1, generator=generator, device=where)

    def normal(size: int) -> Tensor:
        return torch.randn(n, size, generator=generator, device=where)

    colour = F.one_hot(torch.tensor(4), 9).to(where) + 0.15 * normal(9)
    seconds = torch.arange(RATE // 4, device=where) / RATE
    echo = normal(len(seconds)) * 10 ** (-3 * seconds / uniform(0.1, 0.4))  # 10^-3 is -60 dB
    echo = echo / echo.norm(dim=1, keepdim=True) * 10 ** (-uniform(10, 20) / 20)
    echo[:, 0] = 1
    latest = RATE // 50
    delay = F.one_hot((uniform(0, 1) * (latest + 1)).long()[:, 0], latest + 1).float()
    # Convolutions are products of spectra; the padding keeps an end from wrapping round to the start.
    sound = x.to(torch.promote_types(x.dtype, torch.float32))
    size = t + colour.shape[1] + echo.shape[1] + delay.shape[1]
    spectra = [torch.fft.rfft(part.to(sound), size) for part in (sound, colour, echo, delay)]
    product = spectra[0] * spectra[1] * spectra[2] * spectra[3]
    heard: Tensor = torch.fft.irfft(product, size)[:, :t]
    noise = (10 ** (-uniform(30, 40) / 20) * normal(t)).to(sound)
    return (heard + noise * sound.square().mean(dim=1, keepdim=True).sqrt()).to(x.dtype)


def low_pass(x: Tensor, hertz: float) -> Tensor:
    """Remove from sounds (N, T) at 8 kHz everything above ``hertz``; differentiable in ``x``.

    Raises ``ValueError`` for another shape, an integer dtype, no sound, NaN, or a frequency that is
    not between 0 and 4,000.
    """
    _check_batch("x", x)
    if not 0 < hertz < RATE / 2:
        raise ValueError(f"hertz: expected 0 < hertz < {RATE // 2}, got {hertz}")
    spectrum = torch.fft.rfft(x.to(torch.promote_types(x.dtype, torch.float32)))
    kept = torch.fft.rfftfreq(x.shape[1], 1 / RATE, device=x.device) <= hertz
    passed: Tensor = torch.fft.irfft(spectrum * kept, x.shape[1])
    return passed.to(x.dtype)


# ---- checks --------------------------------------------------------------------------------------


def _check_batch(name: str, x: Tensor) -> None:
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"{name}: expected sounds (N, T), T > 0, got shape {tuple(x.shape)}")
    check_examples(name, x)


def _check_audible(x: Tensor) -> None:
    silent = int((x.detach().abs().amax(dim=1) == 0).sum())
    if silent:
        raise ValueError(
            f"x: {silent} of {len(x)} recordings are silent; expected a peak above 0, which "
            "decibels are relative to"
        )


def _check_sounds(x: Tensor, y: Tensor, length: Tensor | None) -> None:
    _check_batch("x", x)
    check_labelled(x, y)
    low, high = float(x.detach().min()), float(x.detach().max())
    if low < -1 or high > 1:
        raise ValueError(f"x: expected values in [-1, 1], got [{low:.4g}, {high:.4g}]")
    _check_audible(x)
    if length is None:
        return
    if length.dtype != torch.int64 or length.shape != (len(x),):
        raise ValueError(
            f"length: expected int64 of shape ({len(x)},), got {length.dtype} {tuple(length.shape)}"
        )
    if int(length.min()) < 1 or int(length.max()) > x.shape[1]:
        raise ValueError(
            f"length: expected 1..{x.shape[1]}, got {int(length.min())}..{int(length.max())}"
        )


def _ratio(decibels: float | Tensor, x: Tensor) -> Tensor:
    """Return 10^(decibels / 20) for each sound: (N,)."""
    level = torch.as_tensor(decibels, dtype=x.dtype, device=x.device).detach()
    if level.shape not in ((), (len(x),)):
        raise ValueError(
            f"decibels: expected one number or one per sound ({len(x)},), "
            f"got shape {tuple(level.shape)}"
        )
    if not bool((level.isfinite() & (level <= 0)).all()):
        raise ValueError(
            "decibels: expected finite levels of at most 0, where the change is as loud as the "
            f"sound; got {decibels}"
        )
    return torch.pow(10.0, level / 20).expand(len(x))
