"""The face swap: one encoder that two people share, and a decoder for each of them.

The encoder sees frames of both and may only hand on a code; each decoder learns to paint one person
from it. Sent to the other decoder, the code of A's frame comes out as B, in A's pose, with A's
expression, under A's light. This is how the first deepfakes were made, late in 2017.

Chapter: book/represent/face_swap.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import device
from course_lib.autoencoders.networks import check_size
from course_lib.classifiers import evaluating
from course_lib.data import actors

if TYPE_CHECKING:  # seconds to import, and a chapter that only swaps needs none of it
    from lightning_fabric import Fabric

Who = Literal["a", "b"]

#: Height and width of a frame, and of the map that a decoder unfolds a code into.
SIDE = 64
_MAP = 8
#: The renderer paints a whole head on this many pixels, of which a close-up is cut.
_CANVAS = 96

#: What a ``Judge`` reads off a frame, besides whose it is: pose and expression as rendered.
READ = (
    *("yaw", "pitch", "roll", "smile", "jaw_drop", "lip_stretch"),
    *("brow_raise", "brow_lower", "eye_closure", "gaze_x", "gaze_y"),
)


class SwapNetwork(nn.Module):
    """A shared encoder and two decoders for frames (N, 3, 64, 64) in [0, 1].

    ``code``: how many numbers a frame is squeezed into; ``channels``: of the widest map in a decoder.
    Only convolutions, leaky ReLU and dense layers, which a page can run too. With a ``generator`` the
    weights depend on it alone.

    Raises ``ValueError`` for sizes below 1, or channels that are no multiple of 4.
    Source: the program "deepfakes/faceswap", 2017; described by Perov et al., "DeepFaceLab", 2020,
    section 3.
    """

    def __init__(
        self, code: int = 64, channels: int = 48, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        check_size("code", code)
        check_size("channels", channels)
        if channels % 4:
            raise ValueError(f"channels: expected a multiple of 4, got {channels}")
        self.code = code
        self.encoder = nn.Sequential(
            nn.Conv2d(3, channels // 2, 5, stride=2, padding=2),  # 64 -> 32
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1),  # 32 -> 16
            nn.LeakyReLU(0.1),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),  # 16 -> 8
            nn.LeakyReLU(0.1),
            nn.Conv2d(2 * channels, 2 * channels, 3, stride=2, padding=1),  # 8 -> 4
            nn.LeakyReLU(0.1),
            nn.Flatten(),
            nn.Linear(2 * channels * 4 * 4, code),
        )
        self.decoders = nn.ModuleDict({who: _decoder(code, channels) for who in ("a", "b")})
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                nn.init.kaiming_uniform_(module.weight, a=0.1, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes (N, code) of frames ``x`` (N, 3, 64, 64), whoever is on them.

        Raises ``ValueError`` for another shape or dtype, or an empty batch.
        """
        _check_frames("x", x)
        code: Tensor = self.encoder(x)
        return code

    def decode(self, code: Tensor, who: Who) -> Tensor:
        """Return what the codes (N, code) look like on ``who``: (N, 3, 64, 64) in [0, 1].

        Raises ``ValueError`` for another shape, or a ``who`` that is neither "a" nor "b".
        """
        _check_who("who", who)
        if code.ndim != 2 or code.shape[1] != self.code:
            raise ValueError(f"code: expected shape (N, {self.code}), got {tuple(code.shape)}")
        frame: Tensor = self.decoders[who](code).sigmoid()
        return frame

    def forward(self, x: Tensor, who: Who) -> tuple[Tensor, Tensor]:
        """Return ``x`` (N, 3, 64, 64) squeezed into its code and painted as ``who``, and the code."""
        code = self.encode(x)
        return self.decode(code, who), code


def _decoder(code: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(code, channels * _MAP * _MAP),
        nn.Unflatten(1, (channels, _MAP, _MAP)),
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=1),  # 8 -> 16
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(channels, channels // 2, 4, stride=2, padding=1),  # 16 -> 32
        nn.LeakyReLU(0.1),
        nn.ConvTranspose2d(channels // 2, 3, 4, stride=2, padding=1),  # 32 -> 64
    )


def swap(model: SwapNetwork, x: Tensor, to: Who) -> Tensor:
    """Return the frames ``x`` (N, 3, 64, 64) in [0, 1] with the face of ``to``, of the same shape.

    Nothing is trained: the model keeps its mode and its gradients.

    Raises ``ValueError`` for another shape, dtype or range, an empty batch, NaN, or a ``to`` that is
    neither "a" nor "b".
    """
    _check_frames("x", x, ranged=True)
    _check_who("to", to)
    with torch.no_grad(), evaluating(model):
        return model.decode(model.encode(x), to)


def blend(face: Tensor, frame: Tensor, mask: Tensor) -> Tensor:
    """Paste ``face`` into ``frame`` where ``mask`` says: mask * face + (1 - mask) * frame.

    ``face``, ``frame``: (N, C, H, W) in [0, 1]; ``mask``: (N, 1, H, W) in [0, 1], soft at its edge.

    Raises ``ValueError`` for shapes that do not fit, values out of range, an empty batch or NaN.
    """
    for name, images in (("face", face), ("frame", frame), ("mask", mask)):
        _check_images(name, images)
    if face.shape != frame.shape:
        raise ValueError(
            f"face: expected the shape of frame, {tuple(frame.shape)}, got {tuple(face.shape)}"
        )
    _check_mask("mask", mask, frame)
    return mask * face + (1 - mask) * frame


def warp(
    x: Tensor, generator: torch.Generator, *, strength: float = 3.0, points: int = 5
) -> Tensor:
    """Bend each image smoothly at random: the same person, slightly the wrong shape.

    A net of ``points`` x ``points`` knots lies over the image; each knot is pulled by up to
    ``strength`` pixels in each direction, and what is between follows (bilinear). Every pixel of the
    result is a mixture of pixels of ``x``, so its range is kept. ``x``: (N, C, H, W); the draws come
    from a CPU ``generator``.

    Raises ``ValueError`` for another shape or dtype, an empty batch, NaN, a negative strength, or
    fewer than two points.
    """
    _check_images("x", x, ranged=False)
    if not 0 <= strength < float("inf"):
        raise ValueError(f"strength: expected pixels >= 0, got {strength}")
    if points < 2:
        raise ValueError(f"points: expected at least 2, got {points}")
    n, _, height, width = x.shape
    if min(height, width) < 2:
        raise ValueError(f"x: expected two pixels or more each way, got {tuple(x.shape)}")
    knots = 2 * torch.rand(n, 2, points, points, generator=generator, dtype=torch.float64) - 1
    pull = F.interpolate(knots.to(x), size=(height, width), mode="bilinear", align_corners=True)
    rows = torch.linspace(-1, 1, height).to(x)[:, None].expand(height, width)
    columns = torch.linspace(-1, 1, width).to(x)[None, :].expand(height, width)
    # grid_sample counts from -1 to 1: a pixel is 2 / (width - 1) wide.
    where = torch.stack(
        [
            columns + strength * pull[:, 0] * 2 / (width - 1),
            rows + strength * pull[:, 1] * 2 / (height - 1),
        ],
        dim=3,
    )
    return F.grid_sample(x, where, mode="bilinear", padding_mode="border", align_corners=True)


def misaligned(a: Tensor, b: Tensor) -> Tensor:
    """Return by how much mean and spread of two people's codes (N, k) differ, as a share: a scalar.

    For each of the k numbers, the squared difference of the two means and of the two standard
    deviations, over their common variance; then the mean. It is 0 where neither tells the two apart,
    and making all codes smaller does not lower it, as long as their variance is well above 1e-8.

    Raises ``ValueError`` for fewer than two codes of a person, or codes of two lengths.
    Source: after Sun & Saenko, "Deep CORAL", 2016, which aligns whole covariances.
    """
    for name, codes in (("a", a), ("b", b)):
        if codes.ndim != 2 or len(codes) < 2:
            raise ValueError(f"{name}: expected two or more codes (N, k), got {tuple(codes.shape)}")
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"b: expected codes (N, {a.shape[1]}) as a's, got {tuple(b.shape)}")
    variance = 0.5 * (a.var(0) + b.var(0)) + 1e-8  # a dead number is no division by zero
    apart = (a.mean(0) - b.mean(0)).square() + (a.std(0) - b.std(0)).square()
    return (apart / variance).mean()


@dataclass(frozen=True)
class Step:
    """One training step: its number, of how many, and each person's loss on its batch."""

    step: int
    steps: int
    loss_a: float
    loss_b: float


def train_swap(
    model: SwapNetwork,
    a: Tensor,
    b: Tensor,
    *,
    steps: int,
    masks: tuple[Tensor, Tensor] | None = None,
    face_weight: float = 3.0,
    strength: float = 3.0,
    batch_size: int = 32,
    align: float = 0.01,
    lr: float = 4e-4,
    warmup: int = 0,
    fabric: Fabric | None = None,
    seed: int = 0,
) -> Iterator[Step]:
    """Train ``model`` in place to rebuild each person from warped frames, one ``Step`` per batch.

    ``a``, ``b``: frames of the two (N, 3, 64, 64) in [0, 1]. Each step warps ``batch_size`` frames of
    each by up to ``strength`` pixels, and asks each person's decoder for the frames as they were. The
    loss is the mean squared error of a number; with ``masks``, the faces of a and b (N, 1, 64, 64) in
    [0, 1], a pixel of the face counts 1 + ``face_weight`` times. ``align`` times ``misaligned`` is added
    to the two losses, so that the code does not say who is on the frame. Adam at rate ``lr``, which
    rises over ``warmup`` steps and falls along a cosine. Every frame of a person is seen once before
    any is seen again (fewer than ``batch_size`` left over are passed by). When the iterator ends, or
    is closed, the model is in evaluation mode.

    Raises ``ValueError`` for frames or masks of another shape, dtype or range, an empty batch, NaN, or
    a setting out of range; ``ArithmeticError`` once the loss is no longer finite.
    """
    for name, frames in (("a", a), ("b", b)):
        _check_frames(name, frames, ranged=True)
    weights: dict[str, Tensor | None] = {"a": None, "b": None}
    if masks is not None:
        for who, mask, frames in zip(("a", "b"), masks, (a, b), strict=True):
            _check_images(f"masks ({who})", mask)
            _check_mask(f"masks ({who})", mask, frames)
            weights[who] = mask
    check_size("steps", steps)
    check_size("batch_size", batch_size)
    if not 0 < lr < float("inf") or not 0 <= warmup <= steps or not 0 <= face_weight < float("inf"):
        raise ValueError(
            f"lr, warmup, face_weight: expected lr > 0, 0 <= warmup <= {steps} and "
            f"face_weight >= 0, got {lr}, {warmup}, {face_weight}"
        )
    if not 0 <= strength < float("inf") or not 0 <= align < float("inf"):
        raise ValueError(
            f"strength, align: expected pixels >= 0 and a weight >= 0, got {strength}, {align}"
        )
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    batch_size = min(batch_size, len(a), len(b))
    if batch_size < 2 * world:  # a spread of one code is none
        raise ValueError(
            f"batch_size: expected two frames or more for each of the {world} processes, "
            f"got {batch_size}"
        )
    order, noise = device.generator(seed), device.generator(seed + 1 + rank)
    queues = {
        who: device.shuffled(len(frames), batch_size, order, fabric)
        for who, frames in (("a", a), ("b", b))
    }

    def train() -> Iterator[Step]:
        network: nn.Module = model
        optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        rise = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps, warmup))
        if fabric is not None:
            network, optimizer = fabric.setup(model, optimizer)
        where = next(model.parameters()).device
        try:
            for step in range(1, steps + 1):
                network.train()  # here, because the caller may have looked at pictures in between
                losses, codes = {}, []
                for who, frames in (("a", a), ("b", b)):
                    batch = next(queues[who])
                    x, mask = frames[batch], weights[who]
                    weight = 1 if mask is None else 1 + face_weight * mask[batch].to(where)
                    rebuilt, code = network(warp(x, noise, strength=strength).to(where), who)
                    codes.append(code)
                    losses[who] = (weight * (rebuilt - x.to(where)).square()).mean()
                total = losses["a"] + losses["b"] + align * misaligned(*codes)
                if not bool(total.isfinite()):
                    raise ArithmeticError(
                        f"training diverged in step {step}; a smaller lr is the first thing to try"
                    )
                optimizer.zero_grad()
                if fabric is None:
                    total.backward()
                else:
                    fabric.backward(total)
                optimizer.step()
                rise.step()
                yield Step(step, steps, float(losses["a"].detach()), float(losses["b"].detach()))
        finally:
            model.eval()

    return train()


def _rate(step: int, steps: int, warmup: int) -> float:
    """Return the share of the full learning rate at a step counted from 0."""
    rising = min(1.0, (step + 1) / (warmup + 1))
    falling = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / steps)))
    return rising * float(falling)


def close_ups(identity: actors.Identity, n: int, seed: int) -> actors.Frames:
    """Draw ``n`` frames (N, 3, 64, 64) of a rendered actor, cut to the face as a swap's are.

    One seed gives every actor the same poses, expressions, lights and walls, so that the true swap of
    a frame is the other actor's frame at its place.

    Raises ``ValueError`` for n < 1 or a bad seed.
    """
    whole = actors.sample(
        n, identity=identity, seed=seed, size=_CANVAS, accessories=actors.Accessories()
    )
    return cut(whole)


def moved(frames: actors.Frames) -> Tensor:
    """Say which pixels of close-ups an expression has moved: (N, 1, 64, 64), 1 there and 0 elsewhere.

    Each frame is painted again with its face at rest; what differs by more than 15 grey levels, and
    two pixels around it, was moved. For photographs programs take eyes and mouth from landmarks.
    """
    at_rest = {field.name: 0.0 for field in fields(actors.Expression)}
    still = cut(actors.repaint(frames, size=_CANVAS, **at_rest))
    changed = (frames.images - still.images).abs().amax(dim=1, keepdim=True) > 15 / 255
    return F.max_pool2d(changed.to(frames.images), 5, stride=1, padding=2)


def cut(whole: actors.Frames) -> actors.Frames:
    """Cut frames painted on 96 x 96 pixels to the 64 x 64 around the face.

    Raises ``ValueError`` for frames of another size.
    """
    if whole.images.shape[2:] != (_CANVAS, _CANVAS):
        raise ValueError(
            f"whole: expected frames of {_CANVAS} x {_CANVAS} pixels, got {tuple(whole.images.shape)}"
        )
    rows, columns = slice(14, 14 + SIDE), slice(16, 16 + SIDE)  # where the painter puts a face
    return replace(
        whole,
        images=whole.images[:, :, rows, columns].contiguous(),
        masks=whole.masks[:, :, rows, columns].contiguous(),
    )


class Judge(nn.Module):
    """Reads pose, expression and person off a frame: what a swap kept, and what it changed.

    (N, 3, 64, 64) in [0, 1] to (N, 12): one number for each of ``READ``, in its own unit, and the logit
    of being person b. ``mean`` and ``spread`` (12,) are those of the numbers in training.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in pairwise((3, 24, 48, 64, 64)):  # 64 -> 4
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after)]
            layers += [nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 4 * 4, 96), nn.ReLU())
        self.head = nn.Linear(96, len(READ) + 1)
        self.register_buffer("mean", torch.zeros(len(READ) + 1))
        self.register_buffer("spread", torch.ones(len(READ) + 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the readings (N, 12) of frames (N, 3, 64, 64).

        Raises ``ValueError`` for another shape or dtype, or an empty batch.
        """
        _check_frames("x", x)
        readings: Tensor = self.mean + self.spread * self.head(self.body(x))
        return readings


def _check_who(name: str, who: str) -> None:
    if who not in ("a", "b"):
        raise ValueError(f'{name}: expected "a" or "b", got {who!r}')


def _check_images(name: str, x: Tensor, *, ranged: bool = True) -> None:
    if not x.is_floating_point() or x.ndim != 4 or x.numel() == 0:
        raise ValueError(
            f"{name}: expected a float tensor (N, C, H, W) with N > 0, got {x.dtype} {tuple(x.shape)}"
        )
    low, high = (float(value) for value in x.detach().aminmax())
    if not (torch.isfinite(torch.tensor([low, high])).all()):
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    if ranged and not (low >= -1e-4 and high <= 1 + 1e-4):
        raise ValueError(f"{name}: expected values in [0, 1], got [{low:.3g}, {high:.3g}]")


def _check_frames(name: str, x: Tensor, *, ranged: bool = False) -> None:
    if not x.is_floating_point() or x.ndim != 4 or x.shape[1:] != (3, SIDE, SIDE) or len(x) == 0:
        raise ValueError(
            f"{name}: expected a float tensor (N, 3, {SIDE}, {SIDE}) with N > 0, "
            f"got {x.dtype} {tuple(x.shape)}"
        )
    if ranged:
        _check_images(name, x)


def _check_mask(name: str, mask: Tensor, frames: Tensor) -> None:
    expected = (len(frames), 1, *frames.shape[2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"{name}: expected shape {expected}, got {tuple(mask.shape)}")
