"""What a rendered portrait is made of: person, pose, expression, light, accessories, background.

Every field is one number with a range, so that a frame's ground truth is one row of a table. A
person is a point in a space of shapes and colours; no field says what group she belongs to, and no
real person was measured or copied.

Chapter: book/represent/face_swap.md
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

#: ``Identity.hair_style`` counts in this list.
HAIR_STYLES = (
    "shaved",
    "crop",
    "side part",
    "quiff",
    "curls",
    "coils",
    "bob",
    "fringe",
    "long",
    "waves",
    "bun",
    "locs",
)
#: ``Accessories.glasses`` and ``Accessories.hat`` count in these.
GLASSES = ("none", "round", "square")
HATS = ("none", "beanie", "headscarf")


def _real(default: float, low: float = 0.0, high: float = 1.0) -> Any:
    return field(default=default, metadata={"range": (low, high)})


def _count(default: int, options: int) -> Any:
    return field(default=default, metadata={"range": (0, options - 1), "whole": True})


class _Ranged:
    """A dataclass whose fields carry their ranges; leaving one is a ``ValueError``."""

    def __post_init__(self) -> None:
        for name, low, high, whole in _limits(type(self)):
            value = getattr(self, name)
            good = isinstance(value, int | float | np.integer | np.floating)
            if not (good and low <= value <= high and (not whole or value == int(value))):
                kind = "a whole number" if whole else "a number"
                raise ValueError(
                    f"{type(self).__name__}.{name}: expected {kind} in [{low:g}, {high:g}], "
                    f"got {value!r}"
                )


_LIMITS: dict[type, list[tuple[str, float, float, bool]]] = {}


def _limits(kind: type) -> list[tuple[str, float, float, bool]]:
    if kind not in _LIMITS:
        _LIMITS[kind] = [
            (f.name, *f.metadata["range"], f.metadata.get("whole", False))
            for f in fields(kind)
            if "range" in f.metadata
        ]
    return _LIMITS[kind]


@dataclass(frozen=True)
class Identity(_Ranged):
    """A person: what stays the same from frame to frame.

    Shapes are in [0, 1], from small, narrow or thin to large, wide or full, and 0.5 is the middle.
    ``skin_tone``: light to dark; ``undertone``: cool (-1) to warm (1); ``eye_colour``: dark brown,
    hazel, green, grey, blue; ``hair_lightness``: black to blond; ``hair_warmth``: ash to red;
    ``part``: the side of the parting, -1 the viewer's left; ``seed``: where the manner comes from.

    Raises ``ValueError`` for a value out of its range, or NaN.
    """

    seed: int = 0
    skin_tone: float = _real(0.35)
    undertone: float = _real(0.0, -1.0, 1.0)
    face_width: float = _real(0.5)
    face_length: float = _real(0.5)
    jaw: float = _real(0.4)
    chin: float = _real(0.5)
    cheeks: float = _real(0.5)
    eye_size: float = _real(0.5)
    eye_height: float = _real(0.5)
    eye_spacing: float = _real(0.5)
    eye_tilt: float = _real(0.5)
    eye_colour: float = _real(0.2)
    eyelid: float = _real(0.6)
    lashes: float = _real(0.4)
    brow_thickness: float = _real(0.5)
    brow_arch: float = _real(0.5)
    brow_height: float = _real(0.5)
    nose_width: float = _real(0.5)
    nose_length: float = _real(0.5)
    nose_bridge: float = _real(0.5)
    mouth_width: float = _real(0.5)
    lip_fullness: float = _real(0.5)
    lip_colour: float = _real(0.3)
    mouth_height: float = _real(0.5)
    hair_style: int = _count(2, len(HAIR_STYLES))
    hair_length: float = _real(0.5)
    hair_volume: float = _real(0.5)
    hair_lightness: float = _real(0.25)
    hair_warmth: float = _real(0.3)
    hairline: float = _real(0.5)
    grey: float = _real(0.0)
    part: float = _real(0.6, -1.0, 1.0)
    ears: float = _real(0.5)
    freckles: float = _real(0.0)
    beard: float = _real(0.0)
    moustache: float = _real(0.0)
    age: float = _real(0.2)


@dataclass(frozen=True)
class Pose(_Ranged):
    """Where the head is: angles in degrees, shifts in fractions of the image, scale around 1.

    ``yaw`` > 0 turns to the viewer's right, ``pitch`` > 0 looks up, ``roll`` > 0 leans clockwise;
    ``dx`` > 0 is right and ``dy`` > 0 is down.

    Raises ``ValueError`` for a value out of its range, or NaN.
    """

    yaw: float = _real(0.0, -45.0, 45.0)
    pitch: float = _real(0.0, -30.0, 30.0)
    roll: float = _real(0.0, -45.0, 45.0)
    dx: float = _real(0.0, -0.25, 0.25)
    dy: float = _real(0.0, -0.25, 0.25)
    scale: float = _real(1.0, 0.6, 1.4)


@dataclass(frozen=True)
class Expression(_Ranged):
    """Six action units in [0, 1], 0 at rest, and the direction of the gaze in [-1, 1].

    In the Facial Action Coding System of Ekman and Friesen (1978): ``brow_raise`` AU 1 + 2,
    ``brow_lower`` AU 4, ``eye_closure`` AU 43 (45 is the blink), ``smile`` AU 12 (with some of AU 6),
    ``jaw_drop`` AU 26, ``lip_stretch`` AU 20. ``gaze_x`` > 0 looks to the viewer's right and
    ``gaze_y`` > 0 down.

    Raises ``ValueError`` for a value out of its range, or NaN.
    """

    brow_raise: float = _real(0.0)
    brow_lower: float = _real(0.0)
    eye_closure: float = _real(0.0)
    smile: float = _real(0.0)
    jaw_drop: float = _real(0.0)
    lip_stretch: float = _real(0.0)
    gaze_x: float = _real(0.0, -1.0, 1.0)
    gaze_y: float = _real(0.0, -1.0, 1.0)


@dataclass(frozen=True)
class Light(_Ranged):
    """One lamp and the room: angles in degrees, the rest relative.

    ``azimuth`` < 0: from the viewer's left; ``elevation`` > 0: from above; ``strength``: of the lamp,
    in [0, 1.2]; ``ambient``: of the room, in [0.2, 1]; ``warmth``: cold (-1) to warm (1).

    Raises ``ValueError`` for a value out of its range, or NaN.
    """

    azimuth: float = _real(-30.0, -90.0, 90.0)
    elevation: float = _real(35.0, -60.0, 90.0)
    strength: float = _real(0.7, 0.0, 1.2)
    ambient: float = _real(0.5, 0.2, 1.0)
    warmth: float = _real(0.1, -1.0, 1.0)


@dataclass(frozen=True)
class Accessories(_Ranged):
    """What a person wears: kinds count in ``GLASSES`` and ``HATS``, colours are in [0, 1].

    Raises ``ValueError`` for a value out of its range, or NaN.
    """

    glasses: int = _count(0, len(GLASSES))
    hat: int = _count(0, len(HATS))
    earrings: int = _count(0, 2)
    frame_hue: float = _real(0.05)
    hat_hue: float = _real(0.6)
    clothes_hue: float = _real(0.6)
    clothes_saturation: float = _real(0.35)
    clothes_lightness: float = _real(0.45)
    neckline: float = _real(0.3)


@dataclass(frozen=True)
class Background(_Ranged):
    """A plain wall behind the head: hue, saturation, lightness and the glow around the head, in [0, 1].

    Raises ``ValueError`` for a value out of its range, or NaN.
    """

    hue: float = _real(0.58)
    saturation: float = _real(0.25)
    lightness: float = _real(0.7)
    glow: float = _real(0.5)


Part = Identity | Pose | Expression | Light | Accessories | Background
PARTS: tuple[type[Part], ...] = (Identity, Pose, Expression, Light, Accessories, Background)
#: The names of a frame's parameters, in the order of the columns of ``Frames.parameters``.
NAMES: tuple[str, ...] = tuple(name for part in PARTS for name, *_ in _limits(part))

P = TypeVar("P", bound=Part)


def table(name: str, kind: type[P], values: P | Sequence[P]) -> NDArray[np.float64]:
    """Turn one part, or a sequence of them, into rows of numbers (N, fields).

    Raises ``ValueError`` for an empty sequence or an element of another kind.
    """
    items = [values] if isinstance(values, kind) else list(values)  # type: ignore[arg-type]
    if not items:
        raise ValueError(f"{name}: expected at least one {kind.__name__}, got an empty batch")
    for item in items:
        if not isinstance(item, kind):
            raise ValueError(f"{name}: expected {kind.__name__}, got {type(item).__name__}")
    row = attrgetter(*(column for column, *_ in _limits(kind)))
    return np.array([row(item) for item in items], dtype=np.float64)


def clamp(kind: type[P], **values: Any) -> P:
    """Make a part from numbers that may lie a little out of their ranges, each moved to the nearest."""
    limits = {name: (low, high) for name, low, high, _ in _limits(kind)}
    kept = {
        name: min(max(value, limits[name][0]), limits[name][1]) if name in limits else value
        for name, value in values.items()
    }
    return kind(**kept)


def stream(seed: int, purpose: int) -> np.random.Generator:
    """Return the random stream of one purpose, so that two uses of one seed share no draws.

    Raises ``ValueError`` for a seed that is no whole number from 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed: expected a whole number >= 0, got {seed!r}")
    return np.random.default_rng([purpose, int(seed)])


def identity(seed: int) -> Identity:
    """Draw a person from a seed: the same seed is the same person.

    Traits are drawn with the loose correlations that make a face plausible (grey hair with age,
    stubble with a heavier jaw, light eyes more often with light skin), none of them a rule.

    Raises ``ValueError`` for a seed that is no whole number from 0.
    """
    rng = stream(seed, 1)

    def shape(mean: float = 0.5, spread: float = 0.22) -> float:
        return float(rng.normal(mean, spread))

    tone = float(rng.uniform(0.0, 1.0))
    age = float(rng.beta(1.6, 2.4))
    # One latent that goes from softer to heavier features, so that they agree with one another;
    # hair, beard and lips only lean on it.
    heavy = float(np.clip(rng.beta(0.9, 0.9), 0, 1))
    bearded = heavy > 0.55 and rng.random() < 0.45
    styles_short, styles_long = (0, 1, 2, 3, 4, 5, 2, 1), (4, 5, 6, 7, 8, 9, 10, 11, 8, 6)
    long_haired = rng.random() < 0.92 - 0.84 * heavy
    style = int(rng.choice(styles_long if long_haired else styles_short))
    if style == 5 and tone < 0.45 and rng.random() < 0.7:
        style = 4
    if style == 11 and tone < 0.4 and rng.random() < 0.8:
        style = 9
    dark = float(np.clip(1.35 - 1.6 * tone, 0.0, 1.0))  # how freely hair and eyes vary
    lightness = float(rng.beta(1.2, 1.6)) * (0.12 + 0.88 * dark)
    warmth = float(rng.beta(1.2, 2.2)) + (0.5 if rng.random() < 0.15 * dark else 0.0)
    grey = max(0.0, (age - 0.5) * 2.0 * float(rng.uniform(0.3, 1.3)))
    eye = float(rng.uniform(0.0, 1.0)) * (0.15 + 0.85 * dark)
    return clamp(
        Identity,
        seed=int(seed),
        skin_tone=tone,
        undertone=float(rng.normal(0.1, 0.4)),
        face_width=shape(0.42 + 0.16 * heavy),
        face_length=shape(0.45 + 0.1 * heavy),
        jaw=shape(0.18 + 0.5 * heavy, 0.17),
        chin=shape(0.35 + 0.3 * heavy),
        cheeks=shape(),
        eye_size=shape(0.62 - 0.28 * heavy, 0.18),
        eye_height=shape(0.5, 0.25),
        eye_spacing=shape(0.5, 0.2),
        eye_tilt=shape(0.5, 0.25),
        eye_colour=eye,
        eyelid=float(rng.uniform(0, 1)),
        lashes=shape(0.75 - 0.6 * heavy, 0.15),
        brow_thickness=shape(0.3 + 0.4 * heavy, 0.18),
        brow_arch=shape(0.62 - 0.3 * heavy),
        brow_height=shape(0.6 - 0.25 * heavy),
        nose_width=shape(0.3 + 0.2 * heavy + 0.15 * tone, 0.2),
        nose_length=shape(0.42 + 0.16 * heavy),
        nose_bridge=shape(),
        mouth_width=shape(),
        lip_fullness=shape(0.5 - 0.22 * heavy + 0.2 * tone, 0.18),
        lip_colour=shape(0.62 - 0.5 * heavy, 0.22),
        mouth_height=shape(),
        hair_style=style,
        hair_length=float(rng.uniform(0, 1)),
        hair_volume=shape(0.5, 0.25),
        hair_lightness=lightness,
        hair_warmth=warmth,
        hairline=shape(0.5 + 0.25 * heavy * age, 0.15),
        grey=grey,
        part=float(rng.choice((-1.0, 1.0)) * rng.uniform(0.25, 1.0)),
        ears=shape(),
        freckles=float(rng.uniform(0.4, 1.0)) if tone < 0.45 and rng.random() < 0.3 else 0.0,
        beard=float(rng.uniform(0.25, 1.0)) if bearded else 0.0,
        moustache=float(rng.uniform(0.3, 1.0)) if bearded and rng.random() < 0.9 else 0.0,
        age=age,
    )


def radians(degrees: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the cosine and the sine of angles in degrees, number by number.

    Not through NumPy's loops: those may round an angle differently by its place in the batch.
    """
    angles = [math.radians(value) for value in degrees.tolist()]
    return np.array([math.cos(a) for a in angles]), np.array([math.sin(a) for a in angles])
