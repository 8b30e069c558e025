"""Rendered actors: faces of nobody, with every parameter known.

A person is an ``Identity``; a frame adds pose, expression, light, accessories and background.
``render`` paints a batch, ``sample`` draws frames of one person, ``clip`` a smooth shot in her own
manner. Each frame comes with the numbers that made it and with the mask of the face, and no real
person is copied or could be wronged.

Chapters: book/represent/face_swap.md, book/detect/behaviour.md
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from course_lib.data.actors.motion import Manner, manner_of, tracks
from course_lib.data.actors.paint import draw
from course_lib.data.actors.parameters import (
    GLASSES,
    HAIR_STYLES,
    HATS,
    NAMES,
    PARTS,
    Accessories,
    Background,
    Expression,
    Identity,
    Light,
    Pose,
    clamp,
    identity,
    stream,
    table,
)

__all__ = [
    "GLASSES",
    "HAIR_STYLES",
    "HATS",
    "NAMES",
    "Accessories",
    "Background",
    "Expression",
    "Frames",
    "Identity",
    "Light",
    "Manner",
    "Pose",
    "clip",
    "identity",
    "manner_of",
    "render",
    "repaint",
    "sample",
    "tracks",
    "wears",
]

#: Pixels painted at once: a chunk whose planes stay in the processor's cache.
_CHUNK_PIXELS = 1 << 15

_FRONTAL, _RESTING, _LAMP, _PLAIN, _WALL = (
    Pose(),
    Expression(),
    Light(),
    Accessories(),
    Background(),
)


@dataclass(frozen=True)
class Frames:
    """Rendered frames with their ground truth.

    ``images``: (N, 3, H, W) float32 in [0, 1]; ``masks``: (N, 1, H, W) float32 in [0, 1], the share
    of each pixel that is face (skin and features, without hair, ears, neck and hat);
    ``parameters``: (N, P) float32, one column for each of ``names``.
    """

    images: torch.Tensor
    masks: torch.Tensor
    parameters: torch.Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.images)

    def column(self, name: str) -> torch.Tensor:
        """Return one parameter over the frames (N,), e.g. ``frames.column("smile")``.

        Raises ``ValueError`` for a name that is not in ``names``.
        """
        if name not in self.names:
            raise ValueError(f"name: expected one of {', '.join(self.names)}; got {name!r}")
        return self.parameters[:, self.names.index(name)]


def render(
    identities: Identity | Sequence[Identity],
    poses: Pose | Sequence[Pose] = _FRONTAL,
    expressions: Expression | Sequence[Expression] = _RESTING,
    lights: Light | Sequence[Light] = _LAMP,
    accessories: Accessories | Sequence[Accessories] = _PLAIN,
    backgrounds: Background | Sequence[Background] = _WALL,
    *,
    size: int = 64,
) -> Frames:
    """Paint a batch of portraits of ``size`` x ``size`` pixels.

    Each argument is one value, which goes for every frame, or a sequence with one per frame. Frame i
    of a batch equals, bit for bit, the frame painted alone.

    Raises ``ValueError`` for a size outside 32..128, an empty sequence, or lengths that differ.
    """
    _check_size(size)
    tables = [
        table("identities", Identity, identities),
        table("poses", Pose, poses),
        table("expressions", Expression, expressions),
        table("lights", Light, lights),
        table("accessories", Accessories, accessories),
        table("backgrounds", Background, backgrounds),
    ]
    n = max(len(rows) for rows in tables)
    for kind, rows in zip(PARTS, tables, strict=True):
        if len(rows) not in (1, n):
            raise ValueError(
                f"{kind.__name__}: expected 1 or {n} (the longest argument), got {len(rows)}"
            )
    everything = np.concatenate([np.broadcast_to(t, (n, t.shape[1])) for t in tables], axis=1)
    return _paint(everything, size)


def repaint(frames: Frames, *, size: int = 64, **changes: float) -> Frames:
    """Paint the same frames again with some parameters changed in all of them, e.g. ``smile=0.0``.

    Each change is a name of ``frames.names`` and its new value.

    Raises ``ValueError`` for an unknown name, a value that is not finite, or a size outside 32..128.
    """
    _check_size(size)
    everything = frames.parameters.numpy().astype(np.float64)
    for name, value in changes.items():
        if name not in frames.names:
            raise ValueError(f"changes: expected one of {', '.join(frames.names)}; got {name!r}")
        if not np.isfinite(value):
            raise ValueError(f"{name}: expected a finite value, got {value}")
        everything[:, frames.names.index(name)] = value
    return _paint(everything, size)


def _paint(everything: NDArray[np.float64], size: int) -> Frames:
    n = len(everything)
    images = np.empty((n, 3, size, size), dtype=np.float32)
    masks = np.empty((n, 1, size, size), dtype=np.float32)
    step = max(1, _CHUNK_PIXELS // size**2)
    for start in range(0, n, step):
        rows = everything[start : start + step]
        columns = {name: np.ascontiguousarray(rows[:, i]) for i, name in enumerate(NAMES)}
        images[start : start + step], masks[start : start + step] = draw(columns, size)
    return Frames(
        images=torch.from_numpy(images),
        masks=torch.from_numpy(masks),
        parameters=torch.from_numpy(everything.astype(np.float32)),
        names=NAMES,
    )


def _check_size(size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or not 32 <= size <= 128:
        raise ValueError(f"size: expected a whole number in 32..128, got {size!r}")


def wears(identity: Identity, seed: int = 0) -> Accessories:
    """Dress a person for one day: glasses, scarf and earrings by habit, clothes by the day's seed."""
    habit = stream(identity.seed, 4)
    glasses = int(habit.choice(3, p=(0.72, 0.14, 0.14)))
    scarf = habit.random() < 0.07 and identity.beard == identity.moustache == 0
    earrings = int(habit.random() < 0.15 + 0.5 * identity.lashes)
    frame_hue = float(habit.uniform(0, 1))
    rng = stream(seed, 5)
    return Accessories(
        glasses=glasses,
        hat=2 if scarf else int(rng.random() < 0.05),
        earrings=earrings,
        frame_hue=frame_hue,
        hat_hue=float(rng.uniform(0, 1)),
        clothes_hue=float(rng.uniform(0, 1)),
        clothes_saturation=float(rng.uniform(0.1, 0.75)),
        clothes_lightness=float(rng.uniform(0.1, 0.9)),
        neckline=float(rng.uniform(0, 1)),
    )


def _room(rng: np.random.Generator) -> tuple[Light, Background]:
    light = clamp(
        Light,
        azimuth=float(rng.uniform(-75, 75)),
        elevation=float(rng.uniform(5, 60)),
        strength=float(rng.uniform(0.45, 0.85)),
        ambient=float(rng.uniform(0.42, 0.62)),
        warmth=float(rng.normal(0.1, 0.3)),
    )
    background = Background(
        hue=float(rng.uniform(0, 1)),
        saturation=float(rng.beta(1.5, 3.0)),
        lightness=float(rng.uniform(0.2, 0.9)),
        glow=float(rng.uniform(0.2, 1.0)),
    )
    return light, background


def _face(rng: np.random.Generator) -> Expression:
    """Draw an expression: some units move, most rest, and brows do not rise and fall at once."""
    strength = rng.beta(1.1, 1.4, 6) * (rng.random(6) < (0.35, 0.25, 0.0, 0.45, 0.4, 0.2))
    if strength[0] > strength[1]:
        strength[1] = 0.0
    closed = 1.0 if rng.random() < 0.06 else float(rng.beta(1.0, 6.0))
    gaze = rng.normal(0, 0.35, 2)
    return clamp(
        Expression,
        brow_raise=float(strength[0]),
        brow_lower=float(strength[1]),
        eye_closure=closed,
        smile=float(strength[3]),
        jaw_drop=float(strength[4]),
        lip_stretch=float(strength[5]) * (1 - float(strength[3])),
        gaze_x=float(gaze[0]),
        gaze_y=float(gaze[1]),
    )


def sample(
    n: int,
    *,
    identity: Identity,
    seed: int,
    size: int = 64,
    accessories: Accessories | None = None,
) -> Frames:
    """Draw ``n`` frames of one person: pose, expression, light, clothes and background vary.

    ``accessories``: what she wears in every frame; without it, ``wears`` dresses her for each. The
    first frames of a longer draw are those of a shorter one.

    Raises ``ValueError`` for n < 1, a size outside 32..128 or a bad seed.
    """
    if n < 1:
        raise ValueError(f"n: expected at least one frame, got {n}")
    rng = stream(seed, 6)
    poses, expressions, lights, dresses, backgrounds = [], [], [], [], []
    for _ in range(n):
        poses.append(
            clamp(
                Pose,
                yaw=float(np.clip(rng.normal(0, 13), -35, 35)),
                pitch=float(np.clip(rng.normal(0, 5), -14, 14)),
                roll=float(np.clip(rng.normal(0, 5), -16, 16)),
                dx=float(rng.normal(0, 0.015)),
                dy=float(rng.normal(0, 0.012)),
                scale=float(rng.normal(1, 0.035)),
            )
        )
        expressions.append(_face(rng))
        light, background = _room(rng)
        lights.append(light)
        backgrounds.append(background)
        day = int(rng.integers(2**31))
        dresses.append(wears(identity, day) if accessories is None else accessories)
    return render(identity, poses, expressions, lights, dresses, backgrounds, size=size)


def clip(
    n: int,
    *,
    identity: Identity,
    seed: int,
    size: int = 64,
    fps: float = 25.0,
    manner: Manner | None = None,
    accessories: Accessories | None = None,
) -> Frames:
    """Draw a shot of ``n`` frames: one person in one room who talks, smiles, blinks and looks about.

    ``manner``: how she moves; without it her own (``manner_of(identity)``). Another person's manner
    makes an impersonator: right face, wrong movement.

    Raises ``ValueError`` for n < 1, a size outside 32..128, fps outside [1, 240] or a bad seed.
    """
    poses, expressions = tracks(
        n, manner=manner_of(identity) if manner is None else manner, seed=seed, fps=fps
    )
    light, background = _room(stream(seed, 7))
    dress = wears(identity, seed) if accessories is None else accessories
    return render(identity, poses, expressions, light, dress, background, size=size)
