"""Telling a person from an impersonator by how she moves: correlations of her action-unit tracks.

A track is one number per frame: how far the brows are raised, how far the jaw has dropped, how far the
head is turned. Which of them move together is a habit, and a face swap shows the habits of whoever was
filmed. Labels are the course's: a higher score means less like her.

Agarwal, Farid, Gu, He, Nagano and Li (2019), "Protecting World Leaders Against Deep Fakes".

Chapter: book/detect/behaviour.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import device
from course_lib.classifiers import evaluating
from course_lib.detection.cnn import Augmentation
from course_lib.detection.evaluate import threshold_at
from course_lib.detection.processing import check_images

if TYPE_CHECKING:  # takes seconds to import, and following a face needs none of it
    from lightning_fabric import Fabric

#: The tracks: the head's three angles in degrees, then six action units in [0, 1].
NAMES = (
    "yaw",
    "pitch",
    "roll",
    "brow_raise",
    "brow_lower",
    "eye_closure",
    "smile",
    "jaw_drop",
    "lip_stretch",
)

#: How far each of them usually strays from its mean; a network that estimates them learns in this unit.
SPREADS = (8.0, 3.0, 3.0, 0.12, 0.1, 0.15, 0.25, 0.18, 0.08)

#: The kernel widths that ``OneClass`` tries, tightest first, over the median distance of two own clips.
WIDTHS = (0.5, 0.71, 1.0, 1.41, 2.0)

#: Below this share of its largest value a track's spread is rounding.
_FLAT = 1e-6


def pairs(names: Sequence[str] = NAMES) -> list[tuple[str, str]]:
    """Return the pairs of tracks in the order of ``correlation_features``: K(K - 1)/2 for K names."""
    return list(combinations(names, 2))


def correlation_features(tracks: Tensor) -> Tensor:
    r"""Return Pearson's correlation of every pair of tracks, all that is kept of a clip.

    :math:`r_{ij} = \sum_t (x_{ti} - \bar x_i)(x_{tj} - \bar x_j) / \sqrt{\sum_t (x_{ti} - \bar x_i)^2
    \sum_t (x_{tj} - \bar x_j)^2}`. ``tracks``: (..., T, K) of T > 2 frames and K > 1 tracks, in any
    units. Returns (..., K(K - 1)/2) in [-1, 1], in the order of ``pairs``. A track that does not move
    correlates with nothing: 0 by definition here, where the formula has 0/0.

    Raises ``ValueError`` for another shape, fewer frames or tracks, and values that are not finite.
    Source: Agarwal et al. (2019), section 2.1.
    """
    _check_tracks("tracks", tracks)
    centred = tracks - tracks.mean(dim=-2, keepdim=True)
    length = centred.square().sum(dim=-2, keepdim=True).sqrt()
    largest = tracks.abs().amax(dim=-2, keepdim=True)
    moves = length > _FLAT * largest * tracks.shape[-2] ** 0.5
    unit = torch.where(moves, centred / length.clamp_min(torch.finfo(tracks.dtype).tiny), 0.0)
    r = (unit.transpose(-1, -2) @ unit).clamp(-1, 1)
    i, j = torch.triu_indices(r.shape[-1], r.shape[-1], offset=1, device=r.device)
    return r[..., i, j]


def windows(clips: Sequence[Tensor], length: int, step: int) -> tuple[Tensor, Tensor]:
    """Cut clips into overlapping windows; none reaches from one clip into the next.

    ``clips``: (T, K) each; ``length``, ``step``: in frames. Returns windows (N, length, K) and the
    number of the clip that each is from, (N,). Windows that overlap share frames: a split for training
    and testing goes by clip. A clip shorter than ``length`` gives none.

    Raises ``ValueError`` for no clip, clips of different width, a length below 3, a step below 1, and
    if every clip is too short.
    """
    if length < 3 or step < 1:
        raise ValueError(f"length, step: expected at least 3 and 1 frames, got {length}, {step}")
    if len(clips) == 0:
        raise ValueError("clips: expected one or more, got none")
    cut, member = [], []
    for i, clip in enumerate(clips):
        _check_tracks(f"clips[{i}]", clip)
        if clip.ndim != 2 or clip.shape[1] != clips[0].shape[-1]:
            raise ValueError(
                f"clips[{i}]: expected shape (T, {clips[0].shape[-1]}), got {tuple(clip.shape)}"
            )
        if len(clip) >= length:
            cut.append(clip.unfold(0, length, step).transpose(1, 2))
            member.append(torch.full((len(cut[-1]),), i))
    if not cut:
        longest = max(len(clip) for clip in clips)
        raise ValueError(
            f"length: {length} frames are more than the longest clip has, which is {longest}"
        )
    return torch.cat(cut), torch.cat(member)


class OneClass:
    r"""One person's manner, learned from her own clips alone: a one-class SVM with an RBF kernel.

    The kernel is :math:`k(r, r') = \exp(-\gamma \lVert r - r' \rVert^2)`. ``nu``: the share of the own
    clips that may lie outside, in (0, 1); ``false_positive_rate``: the share of her own validation
    clips that may raise an alarm, in [0, 1), which sets ``threshold``.

    No impostor is seen. ``fit`` takes the tightest kernel of ``WIDTHS`` that still recognises her: on
    validation clips, at most twice ``nu`` fall outside. (Agarwal et al. chose theirs on other people.)

    Raises ``ValueError`` for a setting out of range.
    Sources: Schoelkopf et al. (2001) for the SVM; Agarwal et al. (2019), section 2.2, for its use.
    """

    gamma: float
    threshold: float

    def __init__(self, *, nu: float = 0.1, false_positive_rate: float = 0.05) -> None:
        if not 0 < nu < 1:
            raise ValueError(f"nu: expected a share in (0, 1), got {nu}")
        if not 0 <= false_positive_rate < 1:
            raise ValueError(
                f"false_positive_rate: expected a rate in [0, 1), got {false_positive_rate}"
            )
        self.nu = nu
        self.false_positive_rate = false_positive_rate
        self._svm: Any = None
        self._count = 0

    def fit(self, own: Tensor, validation: Tensor) -> OneClass:
        """Learn her features ``own`` (N, P), choose the kernel and the threshold on ``validation`` (M, P).

        Both are hers, from different clips. Returns itself. Raises ``ValueError`` for another shape,
        fewer than 2 clips, values that are not finite, and own clips that are all equal.
        """
        from sklearn.svm import OneClassSVM

        _check_features("own", own)
        _check_features("validation", validation, own.shape[1])
        median = float(torch.pdist(own.double()).median())
        if not median > 0:
            raise ValueError("own: expected clips that differ, got copies of one")
        x, held = own.double().cpu().numpy(), validation.double().cpu().numpy()
        for width in WIDTHS:
            self.gamma = 1 / (width * median) ** 2
            self._svm = OneClassSVM(kernel="rbf", gamma=self.gamma, nu=self.nu).fit(x)
            if (self._svm.decision_function(held) < 0).mean() <= 2 * self.nu:
                break
        self._count = own.shape[1]
        self.threshold = threshold_at(self.score(validation), self.false_positive_rate)
        return self

    def score(self, features: Tensor) -> Tensor:
        """Return how unlike her each clip is, (N,): above 0 lies outside of what was learned.

        ``features``: (N, P). Raises ``ValueError`` before ``fit``, and for another shape or values
        that are not finite.
        """
        if self._svm is None:
            raise ValueError("score: expected a fitted model, call fit first")
        _check_features("features", features, self._count, least=1)
        decision = self._svm.decision_function(features.detach().cpu().double().numpy())
        return -torch.from_numpy(decision)


class ActionUnitNet(nn.Module):
    """Estimate the nine tracks of ``NAMES`` from portraits: (N, 3, 64, 64) in [0, 1] -> (N, 9).

    Five convolutions and two dense layers, about 230,000 parameters, see all but the picture's rim;
    angles in degrees, action units around [0, 1] but not cut to it. A person's resting face is not
    known to it, so that its estimates may be off by a constant: their correlations are not.
    ``generator`` seeds the weights (He et al. 2015).

    Raises ``ValueError`` in use for images of another shape.
    """

    def __init__(self, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        # 48 -> 24 -> 12 -> 6 -> 6 -> 3 pixels high and wide
        sizes = ((3, 16, 5, 2), (16, 32, 3, 2), (32, 64, 3, 2), (64, 64, 3, 1), (64, 96, 3, 2))
        for inside, outside, kernel, stride in sizes:
            conv = nn.Conv2d(inside, outside, kernel, stride, padding=kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(outside), nn.ReLU()]
        # Not averaged over the image: where something is says as much as what it is.
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(96 * 3 * 3, 128), nn.ReLU())
        self.head = nn.Linear(128, len(NAMES))
        for layer in self.body:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return one row of tracks per image."""
        if x.ndim != 4 or x.shape[1:] != (3, 64, 64):
            raise ValueError(f"x: expected shape (N, 3, 64, 64), got {tuple(x.shape)}")
        inner = x[:, :, 8:56, 8:56] - 0.5
        estimate: Tensor = self.head(self.body(inner)) * x.new_tensor(SPREADS)
        return estimate


@dataclass(frozen=True)
class TrackerStep:
    """One training step: its number, of how many, and the loss on its batch.

    ``state()`` returns what ``train_tracker(..., state=...)`` goes on from; call it before the next step.
    """

    step: int
    steps: int
    loss: float
    state: Callable[[], dict[str, Any]] = field(compare=False, repr=False)


def train_tracker(
    net: nn.Module,
    x: Tensor,
    tracks: Tensor,
    *,
    fabric: Fabric,
    steps: int,
    batch_size: int = 32,
    lr: float = 2e-3,
    augment: Augmentation | None = None,
    seed: int = 0,
    state: dict[str, Any] | None = None,
) -> Iterator[TrackerStep]:
    """Teach ``net`` the ``tracks`` (N, 9) of the images ``x`` (N, 3, 64, 64) in [0, 1], batch by batch.

    Minimises the mean squared error in units of ``SPREADS``, with Adam and a learning rate that falls
    from ``lr`` to 0 along a cosine. ``augment(batch, generator)`` changes each batch on its way in;
    ``seed`` orders the batches and feeds it. The net is trained in place, and is in evaluation mode
    once the iterator is exhausted. A ``state`` is what a step of the same training gave: it goes on
    after that step, bit for bit.

    Raises ``ValueError`` for images or tracks of another shape or range, settings below 1, and the
    state of another training.
    """
    check_images(x)
    if tracks.shape != (len(x), len(NAMES)) or not bool(tracks.isfinite().all()):
        raise ValueError(
            f"tracks: expected finite values ({len(x)}, {len(NAMES)}), got {tuple(tracks.shape)}"
        )
    if min(steps, batch_size) < 1 or not lr > 0:
        raise ValueError(
            f"steps, batch_size: expected at least 1, lr: above 0; got {steps}, {batch_size}, {lr}"
        )
    if state is not None and state.get("steps") != steps:
        raise ValueError(f"state: expected one of {steps} steps, got {state.get('steps')}")
    order = device.shuffled(len(x), min(batch_size, len(x)), device.generator(seed), fabric)
    chance = device.generator(seed + 1 + fabric.global_rank)

    def train() -> Iterator[TrackerStep]:
        optimiser = torch.optim.Adam(net.parameters(), lr=lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        wrapped, wrapped_optimiser = fabric.setup(net, optimiser)
        parts: dict[str, Any] = {"net": net, "optimiser": optimiser, "schedule": schedule}
        first = 1
        if state is not None:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            chance.set_state(state["chance"])
            first = int(state["step"]) + 1
            for _ in range(1, first):
                next(order)  # the batches before are passed by again

        def kept(step: int) -> dict[str, Any]:
            found = {name: part.state_dict() for name, part in parts.items()}
            return {"step": step, "steps": steps, "chance": chance.get_state(), **found}

        for step in range(first, steps + 1):
            batch = next(order)
            images = x[batch] if augment is None else augment(x[batch], chance)
            images, wanted = fabric.to_device((images, tracks[batch]))
            wrapped.train()  # here, because the caller may have looked since the last step
            spreads = wanted.new_tensor(SPREADS)
            loss = F.mse_loss(wrapped(images) / spreads, wanted / spreads)
            wrapped_optimiser.zero_grad()
            fabric.backward(loss)
            wrapped_optimiser.step()
            schedule.step()
            yield TrackerStep(step, steps, float(loss.detach()), partial(kept, step))
        net.eval()

    return train()


@torch.no_grad()
def track(net: nn.Module, frames: Tensor, *, batch_size: int = 250) -> Tensor:
    """Follow a face through a video: its estimated tracks, (T, K), on the CPU.

    ``frames``: (T, 3, H, W) in [0, 1], in their order, on any device; each is judged by itself. The
    net is left in the mode it was in.

    Raises ``ValueError`` for a video of no frames, images of another shape or range, or a net that
    does not give one row per frame.
    """
    if frames.ndim == 4 and len(frames) == 0:
        raise ValueError("frames: expected a video of one frame or more, got none")
    check_images(frames, "frames")
    where = next((p.device for p in net.parameters()), frames.device)
    with evaluating(net):
        parts = [net(batch.to(where)) for batch in frames.split(batch_size)]
    tracks = torch.cat(parts)
    if tracks.ndim != 2 or len(tracks) != len(frames):
        raise ValueError(
            f"net: expected one row of tracks per frame, ({len(frames)}, K); "
            f"got {tuple(tracks.shape)}"
        )
    return tracks.float().cpu()


def _check_tracks(name: str, tracks: Tensor) -> None:
    if not tracks.is_floating_point() or tracks.ndim < 2 or tracks.shape[-1] < 2:
        raise ValueError(
            f"{name}: expected floating-point tracks (..., T, K), K > 1; "
            f"got {tracks.dtype} of shape {tuple(tracks.shape)}"
        )
    if tracks.numel() == 0 or tracks.shape[-2] < 3:
        raise ValueError(
            f"{name}: expected at least 3 frames (two always correlate fully), "
            f"got shape {tuple(tracks.shape)}"
        )
    if not bool(tracks.isfinite().all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")


def _check_features(name: str, x: Tensor, width: int | None = None, *, least: int = 2) -> None:
    if (
        not x.is_floating_point()
        or x.ndim != 2
        or len(x) < least
        or x.shape[1] != (width or x.shape[1])
        or x.shape[1] == 0
    ):
        raise ValueError(
            f"{name}: expected floating-point features (N, {width or 'P'}), N >= {least}; "
            f"got {x.dtype} of shape {tuple(x.shape)}"
        )
    if not bool(x.isfinite().all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
