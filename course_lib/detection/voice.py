"""Synthetic voices: the same channel for both kinds, LFCC with Gaussian mixtures, and a small LCNN.

Sounds are (N, T) in [-1, 1] at 8,000 samples a second. As everywhere in detection, a detector is a
module that gives one logit per example, above 0 for "rather machine than person".

Chapter: book/detect/listening.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib.classifiers import evaluating
from course_lib.detection.evaluate import split_by_group

RATE = 8000
#: What ``same_channel`` leaves of a recording: a quarter of a second.
WINDOW = 2000
#: Frames of 20 ms, one every 10 ms, and 20 triangles and coefficients: ASVspoof 2019's baseline.
FRAME, HOP, FILTERS = 160, 80, 20


# ---- the channel ---------------------------------------------------------------------------------


def band_limit(x: Tensor, low: float = 300, high: float = 3400) -> Tensor:
    """Return ``x`` (N, T) without what lies outside ``low``..``high`` Hz, by default a telephone's band.

    A Butterworth filter of order 6, run forwards and backwards so that nothing is delayed.

    Raises ``ValueError`` for what is no batch of sounds, and unless 0 < low < high < 4000.
    """
    from scipy.signal import butter, sosfiltfilt

    _check_sounds(x)
    if not 0 < low < high < RATE / 2:
        raise ValueError(f"low, high: expected 0 < low < high < {RATE / 2:g}, got {low}, {high}")
    sos = butter(6, (low, high), "bandpass", fs=RATE, output="sos")
    padding = min(300, x.shape[1] - 1)
    passed = sosfiltfilt(sos, x.detach().cpu().double().numpy(), axis=1, padlen=padding)
    return torch.from_numpy(passed.copy()).to(x)


def loudest(x: Tensor, length: Tensor, width: int = WINDOW) -> Tensor:
    """Cut the ``width`` samples of most energy out of each sound: (N, width) from (N, T).

    ``length`` (N,): where each sound ends. One that is shorter is followed by zeros.

    Raises ``ValueError`` for what is no batch of sounds, lengths that do not fit, or a width below 1.
    """
    _check_sounds(x)
    _check_length(length, x)
    if width < 1:
        raise ValueError(f"width: expected at least 1, got {width}")
    x = F.pad(x, (0, max(0, width - x.shape[1])))
    energy = F.pad(x.double().square().cumsum(dim=1), (1, 0))
    sums = energy[:, width:] - energy[:, :-width]
    # A window may begin no later than `width` before the end: it would reach into the padding.
    start = torch.arange(sums.shape[1], device=x.device)
    late = start > (length.to(x.device) - width).clamp(min=0)[:, None]
    first = sums.masked_fill(late, -1).argmax(dim=1)
    return x.gather(1, first[:, None] + torch.arange(width, device=x.device))


def add_noise(x: Tensor, snr: float, *, seed: int) -> Tensor:
    """Add white noise ``snr`` decibels below each sound's own power: (N, T) to (N, T).

    Raises ``ValueError`` for what is no batch of sounds, a silent one, or an ``snr`` not finite.
    """
    _check_sounds(x)
    _check_audible(x)
    if not math.isfinite(snr):
        raise ValueError(f"snr: expected a finite number of decibels, got {snr}")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x)
    return x + noise * _rms(x) * 10 ** (-snr / 20)


def mu_law(x: Tensor, mu: int = 255) -> Tensor:
    r"""Return ``x`` as a digital telephone carries it: 8 bits a sample, finer for small values.

    Rounds :math:`\operatorname{sign}(x) \ln(1 + \mu |x|) / \ln(1 + \mu)` to ``mu + 1`` levels and
    expands it again. ``x``: (N, T) in [-1, 1].

    Raises ``ValueError`` for what is no batch of sounds or a ``mu`` below 1. Source: ITU-T
    Recommendation G.711 (1988), the law without its piecewise linear approximation.
    """
    _check_sounds(x)
    if mu < 1:
        raise ValueError(f"mu: expected at least 1, got {mu}")
    small = x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)
    rounded = ((small + 1) / 2 * mu).round() / mu * 2 - 1
    return rounded.sign() * torch.expm1(rounded.abs() * math.log1p(mu)) / mu


def same_channel(x: Tensor, length: Tensor, *, snr: float = 20, seed: int) -> Tensor:
    """Send every sound through one channel: (N, T) with lengths (N,) to (N, 2000).

    A telephone's band, the loudest quarter of a second, one noise floor ``snr`` decibels below it, one
    power, 16 bits. So level, offset, length, the silence around a word and its digital zeros, the
    recorder's noise and the edge of the band tell nothing any more. What the microphone or the
    program's own filter did *inside* the band stays.

    Raises ``ValueError`` for what is no batch of sounds, a silent one, or lengths that do not fit.
    """
    _check_sounds(x)
    _check_length(length, x)
    inside = torch.arange(x.shape[1], device=x.device) < length.to(x.device)[:, None]
    _check_audible(x * inside)
    x = loudest(band_limit(x) * inside, length)
    x = add_noise(x, snr, seed=seed)
    x = 0.1 * x / _rms(x)
    return (x * 2**15).round().clamp(-(2**15), 2**15 - 1) / 2**15


# ---- shortcuts -----------------------------------------------------------------------------------


def _decibels(power: Tensor) -> Tensor:
    return 10 * power.clamp_min(1e-12).log10()


def _frames(x: Tensor) -> Tensor:
    """Power of each 20 ms frame in decibels: (N, M)."""
    return _decibels(x.unfold(1, FRAME, HOP).square().mean(dim=2))


def _ended(x: Tensor, length: Tensor) -> list[Tensor]:
    """Each sound without its padding, and never shorter than two frames."""
    return [row[: max(int(n), FRAME + HOP)] for row, n in zip(x, length, strict=True)]


def _silence(x: Tensor, length: Tensor) -> Tensor:
    rows = []
    for sound in _ended(x, length):
        power = _frames(sound[None])[0]
        loud = (power > power.max() - 30).nonzero()[:, 0]
        rows.append((float(loud[0]), float(len(power) - 1 - loud[-1])))
    return torch.tensor(rows) * HOP / RATE


def _floor(x: Tensor, length: Tensor) -> Tensor:
    powers = [_frames(sound[None])[0] for sound in _ended(x, length)]
    return torch.stack([power.min() - power.max() for power in powers])[:, None]


def _edges(x: Tensor, length: Tensor) -> Tensor:
    rows = []
    for sound in _ended(x, length):
        power = torch.fft.rfft(sound - sound.mean()).abs().square()
        hertz = torch.linspace(0, RATE / 2, len(power), device=x.device)
        total = power.sum()
        rows.append(torch.stack([power[hertz < 200].sum(), power[hertz > 3600].sum()]) / total)
    return _decibels(torch.stack(rows))


#: What a detector must not be able to live on: (N, T) and lengths (N,) to features (N, F).
#: ``silence``: seconds before and after the word, 30 dB below its loudest frame; ``length`` of the
#: recording; ``level``: its power; ``peak``: its largest value; ``zeros``: the share of samples that
#: are exactly 0; ``offset``: the mean; ``floor``: the quietest frame below the loudest, in decibels;
#: ``edges``: the power below 200 Hz and above 3600 Hz.
SHORTCUTS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {
        "silence": _silence,
        "length": lambda x, length: length[:, None].to(x) / RATE,
        "level": lambda x, length: _decibels(
            x.square().sum(dim=1, keepdim=True) / length[:, None].to(x)
        ),
        "peak": lambda x, length: x.abs().amax(dim=1, keepdim=True),
        "zeros": lambda x, length: 1 - (x != 0).sum(dim=1, keepdim=True) / length[:, None].to(x),
        "offset": lambda x, length: x.sum(dim=1, keepdim=True) / length[:, None].to(x),
        "floor": _floor,
        "edges": _edges,
    }
)


def pitch(x: Tensor, *, low: float = 70, high: float = 260) -> Tensor:
    """Estimate each sound's pitch in hertz from its autocorrelation: (N,) from (N, T).

    The lag between 1/``high`` and 1/``low`` seconds at which the sound is most like itself. Rough: it
    may be an octave wrong.

    Raises ``ValueError`` for what is no batch of sounds, a silent one, or lags that do not fit into it.
    """
    _check_sounds(x)
    _check_audible(x)
    if not 0 < low < high <= RATE / 2 or RATE / low >= x.shape[1] / 2:
        raise ValueError(
            f"low, high: expected 0 < low < high <= {RATE // 2} and two periods of low within the "
            f"sound, got {low}, {high} for {x.shape[1]} samples"
        )
    x = x - x.mean(dim=1, keepdim=True)
    size = x.shape[1]
    power = torch.fft.rfft(x, 2 * size).abs().square()
    alike = torch.fft.irfft(power, 2 * size)[:, :size] / torch.arange(size, 0, -1).to(x)
    first, last = math.ceil(RATE / high), math.floor(RATE / low)
    best: Tensor = (first + alike[:, first : last + 1].argmax(dim=1)).to(x)
    return RATE * best.reciprocal()


def held_out_logistic(feature: Tensor, y: Tensor, fold: Tensor) -> Tensor:
    """Score each example by a logistic regression fitted on the other folds only: (N,) in [0, 1].

    ``feature``: (N, F); ``y``: 0 or 1, ``fold``: integers, both (N,). Both classes weigh the same, so
    that a feature that says nothing scores 0.5 in every fold.

    Raises ``ValueError`` for other shapes, NaN, or a training set with one class only.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if feature.ndim != 2 or y.shape != (len(feature),) or fold.shape != y.shape:
        raise ValueError(
            "feature, y, fold: expected (N, F), (N,) and (N,); "
            f"got {tuple(feature.shape)}, {tuple(y.shape)}, {tuple(fold.shape)}"
        )
    if not bool(feature.isfinite().all()):
        raise ValueError("feature: expected finite values, got NaN or infinity")
    f = feature.detach().cpu().double().numpy()
    scores = torch.zeros(len(f), dtype=torch.float64)
    for i in fold.unique().tolist():
        learn, judge = (fold != i).numpy(), (fold == i).numpy()
        if set(y[learn].tolist()) != {0, 1}:
            raise ValueError("y: expected both classes in every training set")
        model = make_pipeline(
            StandardScaler(), LogisticRegression(max_iter=500, class_weight="balanced")
        )
        model.fit(f[learn], y[learn].numpy())
        scores[judge] = torch.from_numpy(model.predict_proba(f[judge])[:, 1])
    return scores


# ---- people and voices apart ---------------------------------------------------------------------


def folds(group: Tensor, stratum: Tensor, k: int = 3, *, seed: int) -> Tensor:
    """Deal whole groups into ``k`` folds, those of each stratum evenly: fold 0..k-1 of each example.

    ``group`` (N,): the speaker or voice; ``stratum`` (N,): what each is (person, one synthesiser,
    another). Who is heard in the test of one fold is then in no training set of that fold.

    Raises ``ValueError`` for other shapes or dtypes, a group in two strata, and a stratum of fewer
    groups than folds.
    """
    if k < 2:
        raise ValueError(f"k: expected at least 2 folds, got {k}")
    if stratum.shape != group.shape or stratum.is_floating_point():
        raise ValueError(
            f"stratum: expected integers {tuple(group.shape)}, one per example; "
            f"got {stratum.dtype} {tuple(stratum.shape)}"
        )
    fold = torch.full_like(group, -1)
    seen: set[int] = set()
    for kind in stratum.unique().tolist():
        members = (stratum == kind).nonzero()[:, 0]
        names = set(group[members].tolist())
        if names & seen:
            raise ValueError(f"group: {sorted(names & seen)} are in more than one stratum")
        seen |= names
        for i, part in enumerate(split_by_group(group[members], [1 / k] * k, seed=seed)):
            fold[members[part]] = i
    return fold


# ---- LFCC and Gaussian mixtures ------------------------------------------------------------------


def lfcc(x: Tensor) -> Tensor:
    """Return linear-frequency cepstral coefficients, with first and second differences: (N, M, 60).

    ``x``: (N, T), T >= 160. Every 10 ms a Hamming window of 20 ms is transformed, its power summed in 20
    triangles evenly spaced from 0 to 4000 Hz, and the cosine transform of the logarithms taken (20
    numbers, the first one loudness); then come their ``deltas`` and the deltas of those.

    Raises ``ValueError`` for what is no batch of sounds or too short, ``ImportError`` without spafe.
    Source: Sahidullah, Kinnunen & Hanilci, "A comparison of features for synthetic speech
    detection", Interspeech 2015; the settings are those of ASVspoof 2019's baseline.
    """
    try:
        from spafe.features.lfcc import lfcc as coefficients  # type: ignore[import-untyped]
        from spafe.utils.preprocessing import SlidingWindow  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError("lfcc needs the package spafe: pip install spafe") from error

    _check_sounds(x)
    if x.shape[1] < FRAME:
        raise ValueError(f"x: expected {FRAME} samples or more, got {x.shape[1]}")
    window = SlidingWindow(FRAME / RATE, HOP / RATE, "hamming")
    static = [
        coefficients(sound, fs=RATE, num_ceps=FILTERS, nfilts=FILTERS, nfft=256, window=window)
        for sound in x.detach().cpu().double().numpy()
    ]
    c = torch.from_numpy(np.stack(static)).to(x)
    return torch.cat([c, deltas(c), deltas(deltas(c))], dim=2)


def deltas(c: Tensor, width: int = 2) -> Tensor:
    r"""Return how coefficients ``c`` (N, M, K) change from frame to frame, of the same shape.

    The slope of the straight line through ``2 width + 1`` frames,
    :math:`\sum_n n\,(c_{t+n} - c_{t-n}) / (2 \sum_n n^2)`; the first and last frames are repeated.

    Raises ``ValueError`` for another shape or a width below 1.
    """
    if c.ndim != 3 or c.numel() == 0 or width < 1:
        raise ValueError(
            f"c, width: expected shape (N, M, K) and at least 1; got {tuple(c.shape)}, {width}"
        )
    padded = torch.cat([c[:, :1].expand(-1, width, -1), c, c[:, -1:].expand(-1, width, -1)], dim=1)
    frames = c.shape[1]
    slope = torch.zeros_like(c)
    for n in range(1, width + 1):
        later = padded[:, width + n : width + n + frames]
        earlier = padded[:, width - n : width - n + frames]
        slope = slope + n * (later - earlier)
    return slope / (2 * sum(n * n for n in range(1, width + 1)))


class Mixture(nn.Module):
    """A mixture of ``components`` Gaussians with diagonal covariance over frames of ``size`` numbers."""

    def __init__(self, components: int = 16, size: int = 3 * FILTERS) -> None:
        super().__init__()
        if min(components, size) < 1:
            raise ValueError(f"components, size: expected at least 1, got {components}, {size}")
        self.log_weight = nn.Parameter(torch.zeros(components), requires_grad=False)
        self.mean = nn.Parameter(torch.zeros(components, size), requires_grad=False)
        self.variance = nn.Parameter(torch.ones(components, size), requires_grad=False)

    def fit(self, frames: Tensor, *, seed: int) -> None:
        """Fit to ``frames`` (M, size) with scikit-learn's expectation maximisation.

        Raises ``ValueError`` for another shape, NaN, or fewer frames than components.
        """
        from sklearn.mixture import GaussianMixture

        components, size = self.mean.shape
        if frames.ndim != 2 or frames.shape[1] != size or len(frames) < components:
            raise ValueError(
                f"frames: expected shape (M, {size}), M >= {components}; got {tuple(frames.shape)}"
            )
        if not bool(frames.isfinite().all()):
            raise ValueError("frames: expected finite values, got NaN or infinity")
        found = GaussianMixture(
            components,
            covariance_type="diag",
            reg_covar=1e-3,
            max_iter=60,
            tol=3e-3,
            random_state=seed,
        ).fit(frames.detach().cpu().double().numpy())
        for parameter, value in (
            (self.log_weight, np.log(found.weights_)),
            (self.mean, found.means_),
            (self.variance, found.covariances_),
        ):
            parameter.data.copy_(torch.from_numpy(value))

    def forward(self, frames: Tensor) -> Tensor:
        """Return the log-density of each frame: (..., size) to (...)."""
        apart = (frames[..., None, :] - self.mean).square() / self.variance
        normal = -0.5 * (apart + (2 * math.pi * self.variance).log()).sum(dim=-1)
        return torch.logsumexp(self.log_weight.log_softmax(dim=0) + normal, dim=-1)


class LFCCGMM(nn.Module):
    """ASVspoof's baseline: sounds (N, T) to a log-likelihood ratio per sound, (N,).

    One mixture models the frames of people, one those of machines. No gradient reaches the sound: the
    coefficients are computed outside torch.

    Source: Todisco et al., "ASVspoof 2019: future horizons in spoofed and fake audio detection",
    Interspeech 2019, section 5 (with 512 Gaussians; the default here is 16).
    """

    def __init__(self, components: int = 16) -> None:
        super().__init__()
        self.person = Mixture(components)
        self.machine = Mixture(components)

    def fit(self, person: Tensor, machine: Tensor, *, seed: int) -> LFCCGMM:
        """Fit both mixtures to ``lfcc`` features (N, M, 60) of people and machines; return itself."""
        self.person.fit(person.flatten(0, 1), seed=seed)
        self.machine.fit(machine.flatten(0, 1), seed=seed)
        return self

    def ratio(self, features: Tensor) -> Tensor:
        """Return the mean over the frames of log p(frame | machine) - log p(frame | person): (N,)."""
        found: Tensor = self.machine(features) - self.person(features)
        return found.mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return the log-likelihood ratio of sounds (N, T): above 0 means "rather machine"."""
        return self.ratio(lfcc(x).to(self.machine.mean))


# ---- a small LCNN --------------------------------------------------------------------------------


def spectrogram(x: Tensor) -> Tensor:
    """Return a picture of each sound, (N, 1, 128, M) in [0, 1]: 31 Hz a row, 10 ms a column.

    Power in windows of 32 ms; 0 is 90 dB below a full-scale tone, 1 is 10 dB below it.

    Raises ``ValueError`` for what is no batch of sounds or fewer than 256 samples.
    """
    _check_sounds(x)
    if x.shape[1] < 256:
        raise ValueError(f"x: expected 256 samples or more, got {x.shape[1]}")
    hann = torch.hann_window(256).to(x)
    lines = torch.stft(x, 256, HOP, window=hann, center=False, return_complex=True)
    power = lines.abs().square() / (hann.sum() / 2) ** 2
    return ((_decibels(power[:, None, 1:]) + 90) / 80).clamp(0, 1)


class Spectrogram(nn.Module):
    """``spectrogram`` as a layer: sounds (N, T) to pictures (N, 1, 128, M)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the pictures."""
        return spectrogram(x)


def max_feature_map(h: Tensor) -> Tensor:
    """Return the larger of each two maps, (N, 2C, H, W) to (N, C, H, W): LCNN's nonlinearity.

    Source: Wu et al., "A light CNN for deep face representation with noisy labels", 2018, eq. 1.
    """
    first, second = h.chunk(2, dim=1)
    return torch.maximum(first, second)


class LCNN(nn.Module):
    """A light convolutional network: pictures (N, 1, H, W), H and W >= 8, to logits (N,).

    Three convolutions whose maps compete in pairs, the mean over the picture, and one linear layer.

    Raises ``ValueError`` in use for pictures of another shape. Source: after Lavrentyeva et al.,
    "Audio replay attack detection with deep learning frameworks", Interspeech 2017, much smaller.
    """

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 12, 5, stride=(2, 1), padding=2)
        self.conv2 = nn.Conv2d(6, 24, 3, padding=1)
        self.conv3 = nn.Conv2d(12, 32, 3, padding=1)
        self.linear = nn.Linear(16, 1)
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(conv.weight, generator=generator)
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.linear.weight)  # it starts undecided: every logit is 0
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per picture; above 0 means "rather machine than person"."""
        if x.ndim != 4 or x.shape[1] != 1 or min(x.shape[2:]) < 8:
            raise ValueError(f"x: expected shape (N, 1, H, W), H and W >= 8; got {tuple(x.shape)}")
        x = 6 * (x - 0.5)  # about as much spread as the convolutions' initial weights expect
        h = F.max_pool2d(max_feature_map(self.conv1(x)), 2)
        h = F.max_pool2d(max_feature_map(self.conv2(h)), 2)
        h = max_feature_map(self.conv3(h))
        logit: Tensor = self.linear(h.mean(dim=(2, 3)))
        return logit.squeeze(1)


@torch.no_grad()
def score(model: nn.Module, x: Tensor) -> Tensor:
    r"""Return each sound's score :math:`\sigma(s)`, from 0 (person) to 1 (machine): (N,), on the CPU.

    ``model``: sounds (N, T) to logits (N,), such as ``LFCCGMM`` or
    ``nn.Sequential(Spectrogram(), LCNN())``; it is left in the mode it was in. In double precision, so
    that the large ratios of a mixture keep their order.

    Raises ``ValueError`` for what is no batch of sounds, a silent one, or a model of another kind.
    """
    _check_sounds(x)
    _check_audible(x)
    where = next((p.device for p in model.parameters()), x.device)
    with evaluating(model):
        s = model(x.to(where))
    if not isinstance(s, Tensor) or s.shape != (len(x),):
        shape = tuple(s.shape) if isinstance(s, Tensor) else type(s).__name__
        raise ValueError(f"model: expected one logit per sound, ({len(x)},); got {shape}")
    return torch.sigmoid(s.double()).cpu()


# ---- what is wrong with a sound ------------------------------------------------------------------


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(dim=1, keepdim=True).sqrt()


def _check_sounds(x: Tensor) -> None:
    if x.ndim != 2 or x.numel() == 0 or not x.is_floating_point():
        raise ValueError(
            f"x: expected float sounds (N, T), N and T > 0; got {x.dtype} {tuple(x.shape)}"
        )
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError("x: expected finite values, got NaN or infinity")
    if low < -16 or high > 16:
        raise ValueError(
            f"x: expected values around [-1, 1], got [{low:.3g}, {high:.3g}]; "
            "divide 16-bit samples by 32,768"
        )


def _check_audible(x: Tensor) -> None:
    silent = (x.abs().amax(dim=1) == 0).nonzero()[:, 0]
    if len(silent):
        raise ValueError(f"x: expected sounds, got silence in row {int(silent[0])}")


def _check_length(length: Tensor, x: Tensor) -> None:
    if length.shape != (len(x),) or length.is_floating_point():
        raise ValueError(
            f"length: expected integers ({len(x)},), one per sound; "
            f"got {length.dtype} {tuple(length.shape)}"
        )
    low, high = int(length.min()), int(length.max())
    if low < 1 or high > x.shape[1]:
        raise ValueError(f"length: expected values in 1..{x.shape[1]}, got {low}..{high}")
