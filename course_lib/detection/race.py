"""The race: evading a detector, training it on what evaded it, and keeping the score of both.

Detectors are modules from images (N, C, H, W) in [0, 1] to one logit each, (N,), positive for
"generated". An attack is handed in as a function; what an image is after it, is an 8-bit file.

Chapter: book/detect/race.md
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib.classifiers import Step, evaluating, fit
from course_lib.detection.cnn import Augmentation, score
from course_lib.detection.evaluate import Estimate, report
from course_lib.detection.processing import check_images, check_pair, quantise
from course_lib.detection.spectrum import spectrum_features

if TYPE_CHECKING:  # takes seconds to import, and judging needs none of it
    from lightning_fabric import Fabric

#: ``attack(model, x, y, eps)`` climbs the loss of a classifier of two classes, from the images x
#: (N, C, H, W) of classes y (N,), within ``eps`` of each value of x, (N, C, H, W) again.
Attack = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


class TwoLogits(nn.Module):
    r"""A detector as a classifier of two classes: 0 is real, 1 generated, with logits (0, s).

    Their softmax is (1 - :math:`\sigma(s)`, :math:`\sigma(s)`), and their cross-entropy the
    detector's own loss. So attacks on classifiers attack detectors too. Raises ``ValueError`` for a
    detector that does not give one logit per image.
    """

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 2) of images (N, C, H, W)."""
        s: Tensor = self.detector(x)
        if s.shape != (len(x),):
            raise ValueError(f"detector: expected one logit per image, got shape {tuple(s.shape)}")
        return s[:, None] * torch.tensor([0.0, 1.0], dtype=s.dtype, device=s.device)


def evade(detector: nn.Module, x: Tensor, attack: Attack, *, eps: float, margin: int = 0) -> Tensor:
    r"""Change generated images until ``detector`` reads them as real, if ``attack`` finds a way.

    Looks for :math:`\max_\eta L(s(x + \eta), 1)` with :math:`|\eta_i| \le \epsilon`, then rounds to
    the 8 bits of a file: what a detector is sent is a file. ``x``: (N, C, H, W) in [0, 1], on that
    grid already. ``eps``: of the range [0, 1]; it is used in whole levels of 1/255. The outermost
    ``margin`` pixels stay as they are.

    Raises ``ValueError`` for another shape or range, an ``eps`` below one level, a margin that leaves
    nothing, or an attack that goes further than ``eps``.
    """
    check_images(x)
    if float((x - quantise(x)).abs().max()) > 1e-4:
        raise ValueError("x: expected images of 8 bits; round them with processing.quantise first")
    if not 1 <= eps * 255 + 1e-6 <= 256:
        raise ValueError(f"eps: expected 1/255 to 1, got {eps}")
    if not 0 <= margin < min(x.shape[2:]) / 2:
        raise ValueError(
            f"margin: expected 0 to less than half of {tuple(x.shape[2:])}, got {margin}"
        )
    size = torch.zeros_like(x)
    inner = (..., slice(margin, x.shape[2] - margin), slice(margin, x.shape[3] - margin))
    size[inner] = math.floor(eps * 255 + 1e-6) / 255
    y = torch.ones(len(x), dtype=torch.int64, device=x.device)
    x_adv = attack(TwoLogits(detector), x, y, size)
    if x_adv.shape != x.shape or not bool(((x_adv - x).abs() <= size + 1e-5).all()):
        raise ValueError(f"attack: expected images {tuple(x.shape)} within eps of those it got")
    return quantise(x_adv.clamp(0, 1))


def retrain(
    detector: nn.Module,
    real: Tensor,
    fake: Tensor,
    attack: Attack,
    *,
    eps: float,
    steps: int,
    margin: int = 0,
    augment: Augmentation | None = None,
    batch_size: int = 64,
    lr: float = 2e-3,
    fabric: Fabric | None = None,
    seed: int = 0,
) -> Iterator[Step]:
    r"""Train ``detector`` in place on what fools it: adversarial training, one ``Step`` per batch.

    Goes down in the weights :math:`w` on :math:`\min_w \mathrm{E}_{real} L(s_w(x), 0) +
    \mathrm{E}_{fake} \max_{|\eta| \le \epsilon} L(s_w(x + \eta), 1)`. Each batch's generated images
    are attacked with the weights as they are, by sizes drawn evenly from 0 to ``eps``, an image each;
    only they are, because nobody changes a photograph to have it accused. ``real``, ``fake``:
    (N, C, H, W) in [0, 1], prepared alike; ``augment`` comes before the attack, for both. Other
    settings are those of ``classifiers.fit``.

    Raises ``ValueError`` as ``fit`` and ``attack`` do, for images of two shapes, and for an ``eps``
    outside (0, 1] or a margin that leaves nothing.
    Source: Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018,
    equation 2.1.
    """
    check_pair(real, fake)
    if not 0 < eps <= 1:
        raise ValueError(f"eps: expected a size in (0, 1], got {eps}")
    height, width = real.shape[2:]
    if not 0 <= margin < min(height, width) / 2:
        raise ValueError(f"margin: expected 0 to less than half of {(height, width)}, got {margin}")
    paper = F.pad(torch.ones(height - 2 * margin, width - 2 * margin), (margin,) * 4)

    def worst(
        model: nn.Module, x: Tensor, y: Tensor, step: int, generator: torch.Generator
    ) -> Tensor:
        size = eps * torch.rand(len(x), 1, 1, 1, generator=generator).to(x) * paper.to(x)
        fakes = y == 1
        if not bool(fakes.any()):
            return x
        changed = x.clone()
        changed[fakes] = attack(model, x[fakes], y[fakes], size[fakes].expand_as(x[fakes]))
        return changed

    x = torch.cat([real, fake])
    y = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))]).long()
    return fit(
        TwoLogits(detector),
        x,
        y,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        weight_decay=0.0,
        transform=augment,
        adversary=worst,
        fabric=fabric,
        seed=seed,
    )


class Ensemble(nn.Module):
    r"""Several detectors as one logit: the largest of theirs, or the sum of their losses.

    Member k's logit becomes :math:`z_k = (s_k - \mu_k) / \sigma_k`, with the mean and standard
    deviation of its logits on ``real`` (N, C, H, W): how unusual the image would be for a real one.
    ``how="max"`` is the judge: it raises an alarm where any member would. ``"sum"`` is for the
    attacker, :math:`\sum_k \ln(1 + e^{z_k})`: its gradient pushes on all members that are not yet
    evaded, where that of the maximum knows one at a time.

    Raises ``ValueError`` for no members, fewer than 20 real images, or an unknown ``how``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, members: Mapping[str, nn.Module], real: Tensor, how: str = "max") -> None:
        super().__init__()
        check_images(real, "real")
        if not members or len(real) < 20:
            raise ValueError(
                f"members, real: expected at least one and 20 images; got {len(members)}, {len(real)}"
            )
        if how not in ("max", "sum"):
            raise ValueError(f"how: expected max or sum, got {how!r}")
        self.how = how
        self.members = nn.ModuleDict(members)
        with torch.no_grad(), evaluating(self.members):
            s = torch.stack([member(real) for member in self.members.values()])
        self.register_buffer("mean", s.mean(dim=1, keepdim=True))
        self.register_buffer("std", s.std(dim=1, keepdim=True).clamp_min(1e-6))

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per image, (N,)."""
        s = torch.stack([member(x) for member in self.members.values()])
        z = (s - self.mean) / self.std
        joined: Tensor = z.amax(dim=0) if self.how == "max" else F.softplus(z).sum(dim=0)
        return joined


class Randomised(nn.Module):
    r"""A detector that changes each image by chance before it looks: the mean of ``draws`` logits.

    ``change(x, generator)`` may be anything that keeps the shape, a JPEG for one; ``generator`` is
    on the CPU. It has no gradient, or none worth having; backwards it counts as the identity, which
    is what an attacker would put in its place (BPDA, Athalye, Carlini and Wagner 2018, section 4.1).
    With several ``draws`` he attacks the mean over the chances (EOT, Athalye et al. 2018).

    Raises ``ValueError`` for draws below 1, and in use for a change that alters the shape.
    """

    def __init__(
        self, detector: nn.Module, change: Augmentation, generator: torch.Generator, draws: int = 1
    ) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"draws: expected at least 1, got {draws}")
        self.detector, self.change, self.generator, self.draws = detector, change, generator, draws

    def forward(self, x: Tensor) -> Tensor:
        """Return one logit per image, (N,)."""
        logits = []
        for _ in range(self.draws):
            changed = self.change(x.detach(), self.generator)
            if changed.shape != x.shape:
                raise ValueError(
                    f"change: expected images {tuple(x.shape)}, got {tuple(changed.shape)}"
                )
            # The value is exactly the changed image's, the gradient that of x.
            logits.append(self.detector(changed + (x - x.detach())))
        return torch.stack(logits).mean(dim=0)


def spectral_distance(fake: Tensor, wanted: Tensor) -> Tensor:
    r"""Return how far the mean spectrum of a batch is from a wanted one: a scalar with a gradient.

    :math:`\frac{1}{R} \sum_k |\mathrm{E}_{fake} \log_{10} S_k - \mathrm{E}_{real} \log_{10} S_k|`
    over the R rings of ``spectrum.spectrum_features``. ``fake``: (N, C, n, n) in [0, 1]; ``wanted``:
    (R,), the mean features of real images. A generator that is trained with it as a second loss learns
    the spectrum of photographs.

    Raises ``ValueError`` for another shape or range, or a wanted spectrum of another length.
    Source: after Durall, Keuper and Keuper 2020, section 4, whose distance is a cross-entropy of
    normalised spectra.
    """
    profile = spectrum_features(fake).mean(dim=0)
    if wanted.shape != profile.shape:
        raise ValueError(
            f"wanted: expected shape {tuple(profile.shape)}, got {tuple(wanted.shape)}"
        )
    distance: Tensor = (profile - wanted).abs().mean()
    return distance


def spectral_gain(fake: Tensor, real: Tensor, *, most: float = 8.0) -> Tensor:
    r"""Return the filter that gives generated images the mean power spectrum of real ones.

    :math:`G(u, v) = \sqrt{\mathrm{E}|\hat x_{real}|^2 / \mathrm{E}|\hat x_{fake}|^2}` for each
    channel and frequency: (C, H, W // 2 + 1), for ``apply_gain``. The mean level keeps its gain of 1,
    and no frequency is changed by more than ``most`` either way. ``fake``, ``real``: (N, C, H, W) in
    [0, 1], of one size. Raises ``ValueError`` for another shape or range, and ``most`` below 1.
    Source: after Dong et al., "Think twice before detecting GAN-generated fake images from their
    spectral domain imprints", 2022, with the mean spectrum in place of a learned one.
    """
    check_images(fake, "fake")
    check_images(real, "real")
    if fake.shape[1:] != real.shape[1:]:
        raise ValueError(
            f"real: expected images of shape {tuple(fake.shape[1:])} as in fake, "
            f"got {tuple(real.shape[1:])}"
        )
    if not most >= 1:
        raise ValueError(f"most: expected a gain of at least 1, got {most}")
    power = [torch.fft.rfft2(x).abs().square().mean(dim=0) for x in (fake, real)]
    tiny = torch.finfo(power[0].dtype).tiny
    gain: Tensor = ((power[1] + tiny) / (power[0] + tiny)).sqrt().clamp(1 / most, most)
    gain[:, 0, 0] = 1
    return gain


def apply_gain(x: Tensor, gain: Tensor, *, margin: int = 0) -> Tensor:
    """Multiply each image's spectrum by ``gain``, leaving its outermost ``margin`` pixels alone.

    ``x``: (N, C, H, W) in [0, 1]; ``gain``: (C, h, w // 2 + 1) for what the margin leaves, h x w.
    Returns images of 8 bits. Raises ``ValueError`` for another shape or range.
    """
    check_images(x)
    height, width = (side - 2 * margin for side in x.shape[2:])
    if margin < 0 or gain.shape != (x.shape[1], height, width // 2 + 1):
        raise ValueError(
            f"gain: expected shape {(x.shape[1], height, width // 2 + 1)} for {tuple(x.shape[1:])} "
            f"and a margin of {margin}; got {tuple(gain.shape)}"
        )
    filtered = x.clone()
    inner = (..., slice(margin, margin + height), slice(margin, margin + width))
    spectrum = torch.fft.rfft2(x[inner]) * gain
    filtered[inner] = torch.fft.irfft2(spectrum, s=(height, width)).clamp(0, 1)
    return quantise(filtered)


@dataclass(frozen=True)
class Move:
    """What a move bought: fakes still caught, and what became of the images.

    ``tpr``: share of fakes that raise an alarm, ``fpr`` of real images, both with the exact interval
    of Clopper and Pearson (1934), which is not empty at 0 of N either; ``auc`` with a bootstrap
    interval. ``linf``: the furthest that a value went, of [0, 1]; ``psnr``: in dB, the mean over the
    images; both 0 and infinite where nothing was changed.
    """

    tpr: Estimate
    fpr: Estimate
    auc: Estimate
    linf: float
    psnr: float


def judge(
    detector: nn.Module,
    real: Tensor,
    fake: Tensor,
    threshold: float,
    *,
    before: Tensor | None = None,
    seed: int = 0,
) -> Move:
    """Return how ``detector`` does at ``threshold`` on real images and on fakes after a move.

    ``real``, ``fake``: (N, C, H, W) in [0, 1]; ``before``: the fakes as they were before the move,
    one for one; without it nothing was changed. ``threshold``: of the score, chosen on other real
    images. ``seed``: of the bootstrap.

    Raises ``ValueError`` as ``score`` and ``report`` do, and for a ``before`` of another shape.
    """
    if before is not None and before.shape != fake.shape:
        raise ValueError(f"before: expected shape {tuple(fake.shape)}, got {tuple(before.shape)}")
    scores = [score(detector, x) for x in (real, fake)]
    labels = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))]).long()
    auc = report(torch.cat(scores), labels, threshold=threshold, seed=seed).auc
    fpr, tpr = (share(s >= threshold) for s in scores)
    if before is None:
        return Move(tpr, fpr, auc, 0.0, math.inf)
    change = (fake - before).double()
    error = change.square().flatten(1).mean(dim=1)
    psnr = float((-10 * error.clamp_min(1e-12).log10()).mean())
    return Move(tpr, fpr, auc, float(change.abs().max()), psnr)


def share(alarms: Tensor) -> Estimate:
    """Return the share of ``alarms`` (N,), booleans, with its exact 95 % interval.

    Raises ``ValueError`` for another shape or dtype. Source: Clopper and Pearson 1934.
    """
    from scipy.stats import binomtest

    if alarms.ndim != 1 or len(alarms) == 0 or alarms.dtype != torch.bool:
        raise ValueError(
            f"alarms: expected booleans (N,), N > 0; got {alarms.dtype} {tuple(alarms.shape)}"
        )
    count = int(alarms.sum())
    interval = binomtest(count, len(alarms)).proportion_ci()
    return Estimate(count / len(alarms), float(interval.low), float(interval.high))
