"""Street signs, drawn: ten plates, and the views a camera might have of them.

No photograph is used. A sign is a flat picture with its outline; a view of it is a perspective map,
light, a background, blur and noise, every step of it differentiable, so that a change of the flat
sign can be followed into many views at once.

Chapter: book/deceive/stronger.md
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import pairwise
from typing import Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import device
from course_lib.data._cards import card
from course_lib.data._labelled import Labelled, checked_split

#: The ten signs; a label counts in this list.
NAMES = (
    "stop",
    "give way",
    "no entry",
    "priority road",
    "danger",
    "limit 30",
    "limit 50",
    "limit 80",
    "turn right",
    "straight on",
)
#: Side of a flat sign, and of what the camera sees of it, in pixels.
FLAT, SIDE = 64, 40
#: Scenes of each split: how many, and the number of the first. No scene is in two splits.
SPLITS = {"train": (8000, 0), "test": (1000, 1_000_000)}

_RED, _WHITE, _BLACK = (0.75, 0.10, 0.13), (0.94, 0.94, 0.93), (0.08, 0.08, 0.09)
_BLUE, _YELLOW = (0.05, 0.29, 0.62), (0.96, 0.76, 0.10)
#: Signed distances (H, W) of points (H, W, 2), negative inside a shape.
Shape = Callable[[Tensor], Tensor]
Colour = tuple[float, float, float]


# --- Shapes: the plate is [-1, 1] x [-1, 1], y points down ----------------------------------------


def _disc(radius: float, x: float = 0.0, y: float = 0.0) -> Shape:
    return lambda p: (p - p.new_tensor([x, y])).norm(dim=-1) - radius


def _segments(p: Tensor, corners: Tensor) -> Tensor:
    """Return the distance of each point to the open polyline through ``corners``."""
    nearest = p.new_full(p.shape[:-1], torch.inf)
    for a, b in pairwise(corners):
        along = (((p - a) @ (b - a)) / (b - a).square().sum().clamp(min=1e-12)).clamp(0, 1)
        nearest = torch.minimum(nearest, (p - a - along[..., None] * (b - a)).norm(dim=-1))
    return nearest


def _polygon(corners: list[tuple[float, float]], rounding: float = 0.0) -> Shape:
    """A convex polygon, corners clockwise on the screen, grown by ``rounding`` with round corners."""

    def distance(p: Tensor) -> Tensor:
        c = p.new_tensor([*corners, corners[0]])
        side = c[1:] - c[:-1]
        normal = torch.stack([side[:, 1], -side[:, 0]], dim=1)
        inside = (((p[..., None, :] - c[:-1]) * normal).sum(dim=-1) <= 0).all(dim=-1)
        away = _segments(p, c)
        return torch.where(inside, -away, away) - rounding

    return distance


def _regular(n: int, radius: float, turn: float, rounding: float = 0.0, y: float = 0.0) -> Shape:
    angles = [2 * math.pi * (i + turn) / n for i in range(n)]
    return _polygon([(radius * math.cos(a), y + radius * math.sin(a)) for a in angles], rounding)


def _strokes(lines: list[list[tuple[float, float]]], width: float) -> Shape:
    """Lines drawn with a round pen."""

    def distance(p: Tensor) -> Tensor:
        drawn = [_segments(p, p.new_tensor(line)) for line in lines]
        return torch.stack(drawn).amin(dim=0) - width / 2

    return distance


def _arc(
    x: float, y: float, rx: float, ry: float, start: float, stop: float
) -> list[tuple[float, float]]:
    """Points on an ellipse from ``start`` to ``stop`` degrees, clockwise from the right."""
    angles = [math.radians(start + (stop - start) * i / 14) for i in range(15)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


#: Letters and digits as lines in a box 1 wide and 2 high.
_GLYPHS: dict[str, list[list[tuple[float, float]]]] = {
    "S": [[*_arc(0.5, 0.5, 0.5, 0.5, -30, -270), *_arc(0.5, 1.5, 0.5, 0.5, -90, 150)]],
    "T": [[(0, 0), (1, 0)], [(0.5, 0), (0.5, 2)]],
    "O": [[*_arc(0.5, 0.6, 0.5, 0.6, -180, 0), *_arc(0.5, 1.4, 0.5, 0.6, 0, 180), (0, 0.6)]],
    "P": [[(0, 2), (0, 0), (0.4, 0), *_arc(0.4, 0.55, 0.55, 0.55, -90, 90), (0, 1.1)]],
    "0": [[*_arc(0.5, 0.6, 0.5, 0.6, -180, 0), *_arc(0.5, 1.4, 0.5, 0.6, 0, 180), (0, 0.6)]],
    "3": [
        [
            *_arc(0.48, 0.5, 0.47, 0.5, -150, 90),
            *_arc(0.48, 1.48, 0.52, 0.52, -90, 150),
        ]
    ],
    "5": [[(0.9, 0), (0.12, 0), (0.05, 0.95), *_arc(0.45, 1.35, 0.55, 0.65, -120, 145)]],
    "8": [_arc(0.5, 0.48, 0.45, 0.48, 0, 360), _arc(0.5, 1.48, 0.52, 0.52, 0, 360)],
}


def _text(text: str, height: float, pen: float, gap: float) -> Shape:
    """Write ``text`` in the middle of the plate; ``height`` of a letter, ``gap`` between two."""
    unit = height / 2
    wide = 0.95
    total = unit * (len(text) * wide + (len(text) - 1) * gap)
    lines = []
    for i, letter in enumerate(text):
        left = -total / 2 + i * unit * (wide + gap)
        lines += [
            [(left + unit * wide * x, unit * (y - 1)) for x, y in line] for line in _GLYPHS[letter]
        ]
    return _strokes(lines, pen)


def _plates() -> dict[str, list[tuple[Shape, Colour]]]:
    """Each sign's shapes, bottom first; the first one is the plate itself."""

    def limit(text: str) -> list[tuple[Shape, Colour]]:
        ring = [(_disc(0.94), _WHITE), (_disc(0.9), _RED), (_disc(0.66), _WHITE)]
        return [*ring, (_text(text, 0.7, 0.14, gap=0.55), _BLACK)]

    def arrow(*lines: list[tuple[float, float]]) -> list[tuple[Shape, Colour]]:
        disc = [(_disc(0.94), _WHITE), (_disc(0.88), _BLUE)]
        return [*disc, (_strokes(list(lines), 0.2), _WHITE)]

    mark = _strokes([[(0, -0.2), (0, 0.2)]], 0.17)
    return {
        "stop": [
            (_regular(8, 0.98, 0.5), _WHITE),
            (_regular(8, 0.9, 0.5), _RED),
            (_text("STOP", 0.56, 0.1, gap=0.5), _WHITE),
        ],
        "give way": [
            (_regular(3, 0.98, 0.75, 0.08, y=-0.26), _WHITE),
            (_regular(3, 0.98, 0.75, 0.02, y=-0.26), _RED),
            (_regular(3, 0.5, 0.75, 0.02, y=-0.26), _WHITE),
        ],
        "no entry": [
            (_disc(0.94), _WHITE),
            (_disc(0.89), _RED),
            (_strokes([[(-0.5, 0), (0.5, 0)]], 0.3), _WHITE),
        ],
        "priority road": [
            (_regular(4, 0.92, 0.0, 0.06), _BLACK),
            (_regular(4, 0.9, 0.0, 0.04), _WHITE),
            (_regular(4, 0.6, 0.0, 0.04), _YELLOW),
        ],
        "danger": [
            (_regular(3, 0.98, 0.25, 0.08, y=0.26), _WHITE),
            (_regular(3, 0.98, 0.25, 0.02, y=0.26), _RED),
            (_regular(3, 0.62, 0.25, 0.02, y=0.26), _WHITE),
            (lambda p: torch.minimum(mark(p), _disc(0.1, 0.0, 0.46)(p)), _BLACK),
        ],
        "limit 30": limit("30"),
        "limit 50": limit("50"),
        "limit 80": limit("80"),
        "turn right": arrow([(-0.5, 0), (0.5, 0)], [(0.16, -0.36), (0.52, 0), (0.16, 0.36)]),
        "straight on": arrow([(0, 0.5), (0, -0.5)], [(-0.36, -0.16), (0, -0.52), (0.36, -0.16)]),
    }


def flat(name: str) -> Tensor:
    """Draw the sign ``name`` as it lies on a table: (4, 64, 64), red, green, blue and outline, in
    [0, 1].

    The outline is 1 on the plate and 0 beside it, with a soft edge of one pixel.

    Raises ``ValueError``, listing the names, for one that is not in ``NAMES``.
    """
    if name not in NAMES:
        raise ValueError(f"name: expected one of {', '.join(NAMES)}; got {name!r}")
    centre = (torch.arange(FLAT) + 0.5) * 2 / FLAT - 1
    y, x = torch.meshgrid(centre, centre, indexing="ij")
    p = torch.stack([x, y], dim=-1)
    (plate, ground), *shapes = _plates()[name]

    def cover(shape: Shape) -> Tensor:
        return (0.5 - shape(p) * FLAT / 2).clamp(0, 1)

    picture = p.new_tensor(ground)[:, None, None].expand(3, FLAT, FLAT)
    for shape, colour in shapes:
        c = cover(shape)
        picture = (1 - c) * picture + c * p.new_tensor(colour)[:, None, None]
    return torch.cat([picture, cover(plate)[None]])


# --- Views: what a camera makes of a flat sign ----------------------------------------------------


@dataclass(frozen=True, eq=False)
class Views:
    """N ways to look at a sign: what a camera and a day do to it.

    ``place``: (N, 3, 3), the perspective map from the plate to the picture, both [-1, 1] x [-1, 1];
    ``light``: (N, 3, 40, 40), what the colours of the plate are multiplied by; ``blur``: (N,), the
    standard deviation in pixels; ``background`` and ``noise``: (N, 3, 40, 40), what is behind, and
    what is added in the end.
    """

    place: Tensor
    light: Tensor
    blur: Tensor
    background: Tensor
    noise: Tensor

    def __len__(self) -> int:
        """Return how many views there are."""
        return len(self.place)

    def __getitem__(self, which: slice) -> Self:
        """Return a slice of the views."""
        return type(self)(*(getattr(self, field.name)[which] for field in fields(self)))

    def see(self, sign: Tensor) -> Tensor:
        """Return the pictures (N, 3, 40, 40) in [0, 1] of one flat sign (4, H, W) or of N of them.

        Differentiable in ``sign``. The picture is taken at twice its resolution and averaged, so
        that what is too fine for the camera blurs and does not flicker.

        Raises ``ValueError`` for another shape or values outside [0, 1].
        """
        n = len(self)
        if sign.ndim not in (3, 4) or sign.shape[-3] != 4 or sign.shape[:-3] not in ((), (n,)):
            raise ValueError(
                f"sign: expected one flat sign (4, H, W) or {n} of them, got {tuple(sign.shape)}"
            )
        values = sign.detach()
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(
                f"sign: expected values in [0, 1], got [{float(values.min()):.4g}, "
                f"{float(values.max()):.4g}]"
            )
        colour, outline = sign.split([3, 1], dim=-3)
        # The colours are sampled times the outline, so that no colour bleeds in from beside it.
        plate = torch.cat([colour * outline, outline], dim=-3).expand(n, -1, -1, -1)
        seen = F.grid_sample(plate, self._grid.to(sign), align_corners=False)
        seen = F.avg_pool2d(seen, 2)
        light, background, noise = (t.to(sign) for t in (self.light, self.background, self.noise))
        picture = light * seen[:, :3] + (1 - seen[:, 3:]) * background
        return (_blurred(picture, self.blur.to(sign)) + noise).clamp(0, 1)

    @cached_property
    def _grid(self) -> Tensor:
        """Where on the plate each pixel looks, at twice the resolution: (N, 80, 80, 2)."""
        centre = (torch.arange(2 * SIDE) + 0.5) / SIDE - 1
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        pixel = torch.stack([x, y, torch.ones_like(x)], dim=-1).reshape(-1, 3)
        u = pixel @ torch.linalg.inv(self.place.double()).float().mT
        # Behind the camera (u_3 <= 0) nothing is seen: look far beside the plate.
        grid = torch.where(u[..., 2:] > 1e-6, u[..., :2] / u[..., 2:], 9.0).clamp(-9, 9)
        return grid.reshape(len(self), 2 * SIDE, 2 * SIDE, 2)


def _blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (N, C, H, W) by its own Gaussian, the edge repeated."""
    n, channels = x.shape[:2]
    offset = torch.arange(-3, 4, device=x.device, dtype=x.dtype)
    kernel = (-(offset**2) / (2 * sigma[:, None].clamp(min=0.05) ** 2)).softmax(dim=1)
    kernel = kernel.repeat_interleave(channels, dim=0)
    x = F.pad(x, (3, 3, 3, 3), mode="replicate").reshape(
        1, n * channels, *(s + 6 for s in x.shape[2:])
    )
    x = F.conv2d(x, kernel[:, None, :, None], groups=n * channels)
    x = F.conv2d(x, kernel[:, None, None, :], groups=n * channels)
    return x.reshape(n, channels, *x.shape[2:])


def views(n: int, *, seed: int) -> Views:
    """Draw ``n`` views at random: the sign is turned by up to 50 degrees, near or far, in sun or
    shade.

    Raises ``ValueError`` for n < 1.
    """
    if n < 1:
        raise ValueError(f"n: expected at least 1, got {n}")
    return _views(n, device.generator(seed))


def _views(n: int, g: torch.Generator) -> Views:
    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=g)

    return Views(
        place=_places(uniform),
        light=_lights(uniform),
        blur=uniform(0.0, 0.9),
        background=_backgrounds(uniform),
        noise=uniform(0.0, 0.04, 1, 1, 1) * torch.randn(n, 3, SIDE, SIDE, generator=g),
    )


def _places(uniform: Callable[..., Tensor]) -> Tensor:
    """Turn the plate, push it into the distance, and shift it in the picture."""
    yaw, pitch, roll = (uniform(-a, a).deg2rad() for a in (50.0, 20.0, 10.0))
    size, x, y = uniform(0.6, 0.9), uniform(-0.12, 0.12), uniform(-0.12, 0.12)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=1).reshape(-1, 3, 3)

    turn = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    tilt = matrix(one, zero, zero, zero, pitch.cos(), -pitch.sin(), zero, pitch.sin(), pitch.cos())
    lean = matrix(roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one)
    turned = turn @ tilt @ lean
    # The plate's points (u, v, 0), seen from a distance of four of its half-widths.
    rows = [size[:, None] * turned[:, 0], size[:, None] * turned[:, 1], turned[:, 2] / 4]
    seen = torch.stack(rows, dim=1)
    seen[:, :, 2] = torch.tensor([0.0, 0.0, 1.0])
    shift = matrix(one, zero, x, zero, one, y, zero, zero, one)
    return shift @ seen


def _ramp(uniform: Callable[..., Tensor]) -> Tensor:
    """Return a plane that falls from 1 to -1 across the picture, in any direction: (N, 1, H, W)."""
    angle = uniform(0.0, 2 * math.pi, 1, 1, 1)
    line = torch.linspace(-1, 1, SIDE)
    return angle.cos() * line + angle.sin() * line[:, None]


def _lights(uniform: Callable[..., Tensor]) -> Tensor:
    """Day or dusk, warm or cold, with a slope, and for some a shadow's edge across the plate."""
    warm = uniform(-0.08, 0.08, 1, 1, 1) * torch.tensor([1.0, 0.1, -1.0])[:, None, None]
    slope = 1 + uniform(0.0, 0.25, 1, 1, 1) * _ramp(uniform)
    edge = (0.5 + 6 * (_ramp(uniform) + uniform(-0.8, 0.8, 1, 1, 1))).clamp(0, 1)
    shade = 1 - edge * uniform(0.2, 0.55, 1, 1, 1) * (uniform(0, 1, 1, 1, 1) < 0.3)
    return uniform(0.45, 1.1, 1, 1, 1) * (1 + warm) * slope * shade


def _backgrounds(uniform: Callable[..., Tensor]) -> Tensor:
    """A sky over a skyline of something green, brown or grey, with texture, and a post."""
    day = uniform(0.35, 1.0, 1, 1, 1)
    sky = day * (torch.tensor([0.66, 0.78, 0.92])[:, None, None] + uniform(-0.12, 0.08, 3, 1, 1))
    tone = day * uniform(0.12, 0.55, 1, 1, 1)
    land = tone * (torch.tensor([0.85, 0.95, 0.7])[:, None, None] + uniform(-0.25, 0.25, 3, 1, 1))

    def cloud(cells: int, channels: int = 1) -> Tensor:
        coarse = uniform(-1.0, 1.0, channels, cells, cells)
        return F.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic", align_corners=False)

    height = torch.linspace(-1, 1, SIDE)[:, None]
    horizon = uniform(-1.3, 0.9, 1, 1, 1) + 0.5 * cloud(5)
    ground = (0.5 + 4 * (height - horizon)).clamp(0, 1)
    textured = land * (1 + 0.35 * cloud(8) + 0.35 * cloud(16)) + 0.04 * cloud(10, 3)
    picture = (1 - ground) * (sky + 0.05 * cloud(4)) + ground * textured
    column = torch.linspace(-1, 1, SIDE)
    post = (0.5 + 20 * (0.05 - (column - uniform(-0.12, 0.12, 1, 1, 1)).abs())).clamp(0, 1)
    post = post * (height > 0)
    return ((1 - post) * picture + post * day * 0.5).clamp(0, 1)


# --- The data set ---------------------------------------------------------------------------------


def signs(split: Literal["train", "test"] = "train") -> Labelled:
    """Draw the street signs (N, 3, 40, 40) in [0, 1]; ``y`` counts in ``NAMES``.

    8,000 scenes for training and 1,000 for testing, as many of each sign, the same ones each time;
    on half of the plates something of a random colour sticks: dirt, a leaf, a label. ``group`` is
    the scene's number.

    Raises ``ValueError`` for an unknown split.
    """
    n, first = SPLITS[checked_split(split, tuple(SPLITS))]
    y = torch.arange(n) % len(NAMES)
    table = torch.stack([flat(name) for name in NAMES])
    pictures = []
    for start in range(0, n, 500):
        g = device.generator(first + start)
        labels = y[start : start + 500]
        pictures.append(_views(len(labels), g).see(soiled(table[labels], g)))
    group = first + torch.arange(n)
    return Labelled(x=torch.cat(pictures), y=y, group=group, card=card("signs"))


def soiled(sign: Tensor, generator: torch.Generator) -> Tensor:
    """Stick up to three soft-edged patches of random colours on every second plate (N, 4, H, W)."""
    n, _, height, width = sign.shape
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    picture, outline = sign[:, :3], sign[:, 3:]
    dirty = torch.rand(n, 1, 1, 1, generator=generator) < 0.5
    for _ in range(3):
        u = torch.rand(n, 9, generator=generator)[:, :, None, None]
        centre_x, centre_y, turn = 1.6 * u[:, 0] - 0.8, 1.6 * u[:, 1] - 0.8, math.pi * u[:, 2]
        along = (x - centre_x) * turn.cos() + (y - centre_y) * turn.sin()
        across = (y - centre_y) * turn.cos() - (x - centre_x) * turn.sin()
        half = torch.stack([0.08 + 0.3 * u[:, 3], 0.05 + 0.17 * u[:, 4]])
        outside = torch.maximum(along.abs() - half[0], across.abs() - half[1])
        cover = (0.5 - outside * width / 4).clamp(0, 1)[:, None] * (dirty & (u[:, 5:6] < 0.6))
        picture = (1 - cover) * picture + cover * u[:, 6:9]
    return torch.cat([picture, outline], dim=1)
