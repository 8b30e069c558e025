"""The painter: implicit shapes over the pixel grid, composited back to front, a batch at a time.

The head is a solid of revolution seen in parallel projection. A pixel is lifted onto it and turned
back by yaw and pitch into the head's own frame, and eyes, brows, nose and mouth are painted there:
perspective shortening and parallax come for free. Edges are antialiased analytically: a pixel's
coverage is the overlap of a box one pixel wide with the shape along the shape's gradient.

Over pixels only operations are used that IEEE 754 rounds exactly (+, -, *, /, sqrt, min, max, floor,
comparisons), so that a frame is the same, bit for bit, alone or in a batch.

Chapter: book/represent/face_swap.md
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from course_lib.data.actors.parameters import HAIR_STYLES, radians

F32 = NDArray[Any]  # float32 throughout; NumPy's stubs widen it at every Python number
F64 = NDArray[np.float64]
Rows = tuple[slice, slice]

# --- colour ramps: sRGB, from 0 to 1 along the parameter --------------------------------------
_SKIN = np.array(
    [
        (0.985, 0.865, 0.790),
        (0.960, 0.795, 0.690),
        (0.900, 0.705, 0.570),
        (0.795, 0.580, 0.435),
        (0.640, 0.435, 0.310),
        (0.480, 0.315, 0.225),
        (0.350, 0.230, 0.175),
    ]
)
_HAIR_ASH = np.array(
    [(0.075, 0.068, 0.075), (0.20, 0.145, 0.115), (0.42, 0.32, 0.22), (0.88, 0.74, 0.50)]
)
_HAIR_RED = np.array(
    [(0.11, 0.065, 0.055), (0.33, 0.14, 0.08), (0.62, 0.27, 0.12), (0.92, 0.60, 0.33)]
)
_EYES = np.array(
    [
        (0.20, 0.115, 0.075),
        (0.34, 0.20, 0.11),
        (0.46, 0.33, 0.16),
        (0.36, 0.45, 0.27),
        (0.45, 0.54, 0.56),
        (0.29, 0.50, 0.71),
    ]
)
_LIPS = np.array([(0.78, 0.50, 0.44), (0.80, 0.41, 0.40), (0.76, 0.26, 0.29)])
_GREY = np.array((0.80, 0.79, 0.78))
_GOLD = np.array((0.93, 0.76, 0.38))

# --- hair styles --------------------------------------------------------------------------------
# top, side: how far the hair stands off the skull; open: half-width of the opening for the face;
# line: height of the hairline; front, back: where front and back hair end; wide: the back's
# half-width; wave, coil: how wavy and how coiled; fringe: its lower end (-9: none); tilt: how much
# the hairline slants from the parting; peak: how steeply it falls from it; bun; opacity; strand:
# contrast of the strands.
_STYLE_FIELDS = (
    *("top", "side", "open", "line", "front", "back", "wide", "wave", "coil"),
    *("fringe", "tilt", "peak", "bun", "opacity", "strand"),
)
_STYLES = {
    "shaved": (0.02, 0.015, 0.97, -0.66, 0.0, -0.1, 0.50, 0, 0, -9, 0.0, 0.0, 0, 0.5, 0.0),
    "crop": (0.09, 0.04, 0.96, -0.62, 0.06, 0.1, 0.6, 0, 0.35, -9, 0.04, 0.0, 0, 1, 0.5),
    "side part": (0.18, 0.055, 0.95, -0.60, 0.10, 0.1, 0.6, 0, 0, -9, 0.30, 0.12, 0, 1, 1.0),
    "quiff": (0.27, 0.03, 0.96, -0.64, 0.06, 0.1, 0.6, 0, 0, -9, 0.10, 0.0, 0, 1, 0.9),
    "curls": (0.22, 0.15, 0.93, -0.46, 0.25, 0.4, 0.8, 0, 0.9, -9, 0.08, 0.0, 0, 1, 0.4),
    "coils": (0.36, 0.40, 0.95, -0.56, 0.25, 0.62, 1.0, 0, 1.0, -9, 0.0, 0.0, 0, 1, 0.0),
    "bob": (0.16, 0.13, 0.90, -0.74, 0.80, 0.8, 0.86, 0.0, 0, -9, 0.0, 0.40, 0, 1, 1.0),
    "fringe": (0.16, 0.13, 0.90, -0.62, 0.85, 0.9, 0.88, 0.0, 0, -0.27, 0.0, 0.0, 0, 1, 1.0),
    "long": (0.14, 0.09, 0.90, -0.76, 1.45, 1.7, 0.86, 0.01, 0, -9, 0.0, 0.42, 0, 1, 1.0),
    "waves": (0.18, 0.15, 0.90, -0.74, 1.40, 1.7, 0.98, 0.05, 0.15, -9, 0.0, 0.46, 0, 1, 1.1),
    "bun": (0.08, 0.04, 0.95, -0.66, 0.10, 0.1, 0.6, 0, 0, -9, 0.0, 0.14, 1, 1, 0.9),
    "locs": (0.19, 0.15, 0.90, -0.64, 1.10, 1.3, 0.94, 0.0, 0.2, -9, 0.0, 0.10, 0, 1, 2.2),
}
_STYLE_TABLE = np.array([_STYLES[name] for name in HAIR_STYLES], dtype=np.float64)


def _clip(a: F32) -> F32:
    b: F32 = np.maximum(a, np.float32(0))
    return np.minimum(b, np.float32(1), out=b)


def _smooth(low: F32 | float, high: F32 | float, a: F32) -> F32:
    t = _clip((a - low) / (high - low))
    return np.asarray(t * t * (3 - 2 * t))


def _bump(q: F32) -> F32:
    """Return a soft hill of the squared radius ``q``: 1 at 0, and exactly 0 from 1 on."""
    u = np.maximum(1 - q, np.float32(0))
    return np.asarray(u * u)


def _wave(t: F32) -> F32:
    """Return a smooth wave of period 1 between -1 and 1, a parabola per half-period."""
    g = t - np.floor(t)
    g -= np.float32(0.5)
    h = np.abs(g)
    h -= np.float32(0.5)
    g *= h
    g *= np.float32(16)
    return g


def _cover(distance: F32, pixel: F32) -> F32:
    """Return the pixel's share inside an edge, from the signed distance (negative inside)."""
    return _clip(np.float32(0.5) - distance / pixel)


def _band(low: F32, high: F32, y: F32, pixel: F32) -> F32:
    """Return the pixel's share between two edges, right also where they are less than a pixel apart."""
    return _clip(_clip((high - y) / pixel + 0.5) - _clip((low - y) / pixel + 0.5))


def _disc(q: F32, radius: F32 | np.float32 | float, pixel: F32) -> F32:
    """Return the coverage of a disc, from the squared distance to its centre."""
    distance = np.sqrt(q)
    return _clip(
        _clip((radius - distance) / pixel + 0.5) - _clip((-radius - distance) / pixel + 0.5)
    )


def _mix(a: F32, b: F32 | float, t: F32 | float) -> F32:
    return a + (b - a) * t


def _ramp(colours: F64, t: F64) -> F64:
    """Return the colours (B, 3) at ``t`` in [0, 1] along a ramp (K, 3)."""
    position = np.clip(t, 0, 1) * (len(colours) - 1)
    low = np.minimum(position.astype(np.int64), len(colours) - 2)
    share = (position - low)[:, None]
    return np.asarray(colours[low] * (1 - share) + colours[low + 1] * share)


def _hsl(hue: F64, saturation: F64, lightness: F64) -> F64:
    """Return sRGB colours (B, 3) from hue, saturation and lightness in [0, 1]."""
    k = (np.array([0.0, 8.0, 4.0]) + 12.0 * hue[:, None]) % 12.0
    a = (saturation * np.minimum(lightness, 1 - lightness))[:, None]
    return np.asarray(
        lightness[:, None] - a * np.clip(np.minimum(np.minimum(k - 3, 9 - k), 1.0), -1.0, 1.0)
    )


def _colour(rgb: F64) -> F32:
    return np.ascontiguousarray(rgb, dtype=np.float32)[:, :, None, None]


class _Params:
    """Every number of a chunk of frames as (B, 1, 1) float32, by name."""

    def __init__(self, columns: dict[str, F64]) -> None:
        self.raw = columns
        style = _STYLE_TABLE[columns["hair_style"].astype(np.int64)]
        self._cells = {f"style_{name}": style[:, i] for i, name in enumerate(_STYLE_FIELDS)}
        for angle in ("yaw", "pitch", "roll", "azimuth", "elevation"):
            self._cells[f"cos_{angle}"], self._cells[f"sin_{angle}"] = radians(columns[angle])
        self._cells |= columns
        self._ready: dict[str, F32] = {}

    def __getattr__(self, name: str) -> F32:
        if name not in self._ready:
            self._ready[name] = self._cells[name].astype(np.float32)[:, None, None]
        return self._ready[name]


def _box(inside: NDArray[np.bool_]) -> Rows:
    """Return the rows and columns that hold every true pixel of a chunk."""
    rows = np.flatnonzero(inside.any(axis=(0, 2)))
    columns = np.flatnonzero(inside.any(axis=(0, 1)))
    if len(rows) == 0:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _blend(image: F32, alpha: F32, colour: F32, box: Rows = (slice(None), slice(None))) -> None:
    """Lay ``colour`` (B, 3, 1 or h, 1 or w) over ``image`` (B, 3, H, W) where ``alpha`` says."""
    keep = 1 - alpha
    for c in range(3):
        view = image[:, c, box[0], box[1]]
        view *= keep
        view += alpha * colour[:, c]


def _tint(image: F32, alpha: F32, factor: tuple[float, float, float], box: Rows) -> None:
    """Multiply ``image`` by ``factor`` where ``alpha`` says: shadows and blushes."""
    for c in range(3):
        view = image[:, c, box[0], box[1]]
        view *= 1 - alpha * np.float32(1 - factor[c])


@dataclass
class _Canvas:
    """One chunk of frames: its parameters, its pixel grids, its light and its picture."""

    p: _Params
    size: int

    def __post_init__(self) -> None:
        p, size = self.p, self.size
        grid = ((np.arange(size, dtype=np.float64) * 2 + 1) / size - 1).astype(np.float32)
        scale = np.float32(0.63) * p.scale
        self.pixel: F32 = np.float32(2.0 / size) / scale
        self.screen_x = np.broadcast_to(grid[None, None, :], (1, size, size))
        self.screen_y = np.broadcast_to(grid[None, :, None], (1, size, size))
        sx = (self.screen_x - 2 * p.dx) / scale
        sy = (self.screen_y - 2 * p.dy + np.float32(0.03) * p.scale) / scale
        # The body leans a little with the head; the head rolls about the neck.
        self.body_x: F32 = sx
        self.body_y: F32 = sy
        pivot = np.float32(0.55)
        self.x: F32 = p.cos_roll * sx + p.sin_roll * (sy - pivot)
        self.y: F32 = p.cos_roll * (sy - pivot) - p.sin_roll * sx + pivot
        self.side: F32 = np.where(p.part < 0, np.float32(-1), np.float32(1))
        self.image: F32 = np.empty((len(p.yaw), 3, size, size), dtype=np.float32)
        self.light: tuple[F32, F32, F32] = (
            p.sin_azimuth * p.cos_elevation,
            -p.sin_elevation,
            p.cos_azimuth * p.cos_elevation,
        )

    @cached_property
    def skin(self) -> F64:
        raw = self.p.raw
        tone = _ramp(_SKIN, raw["skin_tone"])
        under = raw["undertone"][:, None]
        return np.asarray(np.clip(tone * (1 + under * np.array((0.012, 0.010, -0.055))), 0, 1))

    @cached_property
    def hair(self) -> F64:
        raw = self.p.raw
        warm = np.clip(raw["hair_warmth"], 0, 1)[:, None]
        ash, red = _ramp(_HAIR_ASH, raw["hair_lightness"]), _ramp(_HAIR_RED, raw["hair_lightness"])
        colour = ash * (1 - warm) + red * warm
        grey = np.clip(raw["grey"], 0, 1)[:, None] * 0.85
        return np.asarray(colour * (1 - grey) + _GREY * grey)

    @cached_property
    def lamp(self) -> F32:
        warm = self.p.raw["warmth"][:, None]
        return _colour(1 + warm * np.array((0.09, 0.01, -0.10)))

    def lambert(self, nx: F32, ny: F32, nz: F32) -> F32:
        """Return the brightness of a surface with this unit normal: a wrapped Lambert term."""
        lx, ly, lz = self.light
        wrapped = np.float32(0.29) + np.float32(0.71) * (nx * lx + ny * ly + nz * lz)
        wrapped = np.maximum(wrapped, np.float32(0))
        return np.asarray(self.p.ambient + self.p.strength * wrapped * np.float32(0.82))

    def lit(self, colour: F32, brightness: F32, depth: tuple[float, float, float]) -> F32:
        """Return ``colour`` under ``brightness``; ``depth`` is the tint of its deepest shadow."""
        out = np.empty((len(brightness), 3, *brightness.shape[1:]), dtype=np.float32)
        for c in range(3):
            floor = np.float32(depth[c])
            out[:, c] = colour[:, c] * self.lamp[:, c] * (floor + (1 - floor) * brightness)
        return out


_SKIN_SHADOW = (0.36, 0.12, 0.10)
_HAIR_SHADOW = (0.12, 0.10, 0.12)
_CLOTH_SHADOW = (0.25, 0.25, 0.32)


@dataclass
class _Skull:
    """The face's outline, its surface, and the pixels in the head's own frame."""

    distance: F32
    x: F32  # head frame: right
    y: F32  # head frame: down
    normal: tuple[F32, F32, F32]
    width: F32
    chin: F32


def _skull(canvas: _Canvas) -> _Skull:
    p, x, y = canvas.p, canvas.x, canvas.y
    width = np.float32(0.66) + np.float32(0.15) * p.face_width
    chin = np.float32(0.90) + np.float32(0.17) * p.face_length + np.float32(0.15) * p.jaw_drop
    square = np.float32(0.05) + np.float32(0.75) * p.jaw
    taper = np.float32(0.36) - np.float32(0.20) * p.chin - np.float32(0.06) * p.jaw
    up = np.minimum(y, np.float32(0))
    low = np.maximum(y, np.float32(0)) / chin
    l2 = low * low
    u2 = up * up
    s = u2 * (np.float32(0.55) + np.float32(0.45) * u2) + l2 * ((1 - square) + square * l2)
    ds = (
        up * (np.float32(1.1) + np.float32(1.8) * u2)
        + (2 * low * (1 - square) + 4 * square * low * l2) / chin
    )
    cheek = 1 + np.float32(0.07) * p.cheeks * _bump(((y - np.float32(0.28)) / 0.5) ** 2)
    bounded = np.minimum(l2, np.float32(1.3))
    a = width * (1 - taper * bounded) * cheek
    da = np.where(l2 < 1.3, -2 * width * taper * low / chin, np.float32(0))
    ax = x / a
    f = ax * ax + s - 1
    fx = 2 * ax / a
    fy = ds - 2 * ax * ax * da / a
    distance = f / np.sqrt(fx * fx + fy * fy + np.float32(1e-4))
    z = a * np.sqrt(np.maximum(-f, np.float32(0)))
    nx, ny, nz = ax, a * (ds / 2 - (1 - s) * da / a), z / a
    # The lift uses the depth of a head, a little flatter than the solid of revolution.
    z = z * np.float32(0.92)
    return _Skull(
        distance=distance,
        x=x * p.cos_yaw - z * p.sin_yaw,
        y=y * p.cos_pitch + z * p.sin_pitch,
        normal=(nx, ny * np.float32(0.75), nz * np.float32(1.15)),
        width=width,
        chin=chin,
    )


# --- layers, back to front ------------------------------------------------------------------------


def _paint_background(canvas: _Canvas) -> None:
    raw = canvas.p.raw
    wall = _colour(_hsl(raw["hue"], raw["saturation"] * 0.7, 0.18 + 0.7 * raw["lightness"]))
    x, y = canvas.screen_x, canvas.screen_y
    fall = 1 - np.float32(0.16) * _smooth(-1.0, 1.2, y)
    glow = canvas.p.glow * np.float32(0.20) * _bump((x * x + (y + np.float32(0.15)) ** 2) / 2.2)
    for c in range(3):
        tone = wall[:, c] * fall * np.float32(0.94)
        canvas.image[:, c] = tone + glow * (1 - tone)


def _paint_body(canvas: _Canvas, skull: _Skull) -> None:
    p, pixel = canvas.p, canvas.pixel
    whole = _box(np.broadcast_to(canvas.body_y > 0.15, canvas.x.shape))
    r, c = whole
    x, y = canvas.body_x[:, r, c], canvas.body_y[:, r, c]
    image = canvas.image[:, :, r, c]
    ax = np.abs(x)
    thick = np.float32(0.30) + np.float32(0.08) * p.jaw + np.float32(0.06) * p.face_width
    # The neck's upper end follows the head, its lower end the shoulders.
    follow = _clip((np.float32(1.45) - y) / 0.9)
    shift = p.sin_roll * np.float32(0.25) + p.sin_yaw * np.float32(0.06)
    centre = shift * follow
    flare = np.maximum(y - np.float32(1.02), np.float32(0))
    nx = (x - centre) / (thick + flare * flare * np.float32(1.6))
    neck = _cover((np.abs(nx) - 1) * thick, pixel) * _smooth(0.2, 0.3, y)
    box = _box(neck > 0)
    flat = np.sqrt(np.maximum(1 - nx * nx, np.float32(0)))
    light = canvas.lambert(nx, np.float32(0.1) + 0 * nx, flat) * np.float32(0.90)
    # The chin's shadow.
    under = np.float32(1) - np.float32(0.42) * _bump(
        np.maximum(skull.distance[:, r, c], np.float32(0)) ** 2 / np.float32(0.16)
    )
    skin = canvas.lit(_colour(canvas.skin), light * under, _SKIN_SHADOW)
    _blend(image, neck[:, box[0], box[1]], skin[:, :, box[0], box[1]], box)

    wide = np.float32(0.92) + np.float32(0.16) * p.face_width + np.float32(0.14) * p.jaw
    slope = np.maximum(ax - thick, np.float32(0)) / (wide - thick)
    cubed = slope * slope * slope
    shoulder = np.float32(1.18) + np.float32(0.20) * slope + np.float32(0.55) * cubed * cubed
    deep = np.float32(0.06) + np.float32(0.34) * p.neckline
    hole = np.float32(0.46)
    collar = np.float32(1.12) + deep * np.maximum(1 - (x / hole) ** 2, np.float32(-1))
    edge = np.maximum(shoulder, collar)
    cloth = _clip((y - edge) / pixel + 0.5)
    box = _box(cloth > 0)
    bend = _clip(1 - (y - shoulder) * 0.9)
    nx = x / wide * np.float32(0.75)
    light = canvas.lambert(nx, -bend * np.float32(0.5), np.float32(0.75) + 0 * nx)
    raw = p.raw
    colour = _hsl(
        raw["clothes_hue"], raw["clothes_saturation"] * 0.75, 0.10 + 0.75 * raw["clothes_lightness"]
    )
    dress = canvas.lit(_colour(colour), light, _CLOTH_SHADOW)
    _blend(image, cloth[:, box[0], box[1]], dress[:, :, box[0], box[1]], box)
    hem = _band(edge, edge + 0.05, y, pixel) * np.float32(0.35)
    _tint(image, hem[:, box[0], box[1]], (0.7, 0.7, 0.72), box)


def _relief(canvas: _Canvas, skull: _Skull, box: Rows, nose: _Nose) -> tuple[F32, F32, F32]:
    """Return the unit normals of the face: the skull's, bent by nose, sockets, cheeks and chin."""
    p = canvas.p
    r, c = box
    x, y = skull.x[:, r, c], skull.y[:, r, c]
    nx, ny, nz = (n[:, r, c] for n in skull.normal)
    sign = np.where(x < 0, np.float32(-1), np.float32(1))
    ax = np.abs(x)

    def hill(height: F32 | np.float32, cx: F32, cy: F32, wx: float, wy: float) -> tuple[F32, F32]:
        u, v = (ax - cx) / wx, (y - cy) / wy
        slope = np.maximum(1 - u * u - v * v, np.float32(0)) * np.float32(4) * height
        return slope * u / wx, slope * v / wy

    ex, ey = _eye_centre(p)
    zero = np.zeros_like(p.yaw)
    smile = p.smile * np.float32(0.03)
    for height, cx, cy, wx, wy in (
        (np.float32(-0.045), ex, ey - 0.02, 0.26, 0.20),
        (np.float32(0.04) + np.float32(0.03) * p.cheeks + smile, ex + 0.04, ey + 0.30, 0.30, 0.26),
        (np.float32(0.035) + np.float32(0.04) * p.chin, zero, skull.chin - 0.13, 0.24, 0.16),
        (np.float32(0.03), zero, _mouth_height(p) + 0.02, 0.34, 0.20),
    ):
        gx, gy = hill(height, cx, cy, wx, wy)
        nx = nx + sign * gx
        ny = ny + gy
    gx, gy = nose.slope(x, y)
    nx, ny = nx + gx, ny + gy
    length = np.sqrt(nx * nx + ny * ny + nz * nz + np.float32(1e-6))
    return nx / length, ny / length, nz / length


def _eye_centre(p: _Params) -> tuple[F32, F32]:
    return (
        np.float32(0.265) + np.float32(0.07) * p.eye_spacing + np.float32(0.02) * p.face_width,
        np.float32(0.08) - np.float32(0.08) * p.eye_height,
    )


def _nose_base(p: _Params) -> F32:
    return np.float32(0.37) + np.float32(0.10) * p.nose_length


def _mouth_height(p: _Params) -> F32:
    rest = np.float32(0.185) + np.float32(0.07) * p.mouth_height
    moved = np.float32(0.035) * p.jaw_drop - np.float32(0.015) * p.smile
    return np.asarray(_nose_base(p) + rest + moved)


class _Nose:
    """The nose: a ridge that stands off the face, so that its tip runs ahead when the head turns."""

    def __init__(self, canvas: _Canvas) -> None:
        p = canvas.p
        self.top = np.float32(-0.10) + 0 * p.yaw
        self.base = _nose_base(p)
        self.narrow = np.float32(0.105) + np.float32(0.03) * p.nose_bridge
        self.wide = np.float32(0.125) + np.float32(0.075) * p.nose_width
        self.height = np.float32(0.085) + np.float32(0.05) * p.nose_bridge
        self.run_x = np.float32(0.20) * p.sin_yaw / p.cos_yaw
        self.run_y = np.float32(-0.16) * p.sin_pitch / p.cos_pitch

    def along(self, y: F32) -> F32:
        return (y - self.top) / (self.base - self.top)

    def local(self, x: F32, y: F32) -> tuple[F32, F32]:
        """Return head-frame points relative to the nose's own midline and length."""
        t = _clip(self.along(y))
        ahead = t * t
        return x - self.run_x * ahead, y - self.run_y * ahead

    def slope(self, x: F32, y: F32) -> tuple[F32, F32]:
        x, y = self.local(x, y)
        t = self.along(y)
        body = _clip(t)
        width = self.narrow + (self.wide - self.narrow) * body * body
        u = x / width
        under = _clip((t - np.float32(0.88)) / 0.22)
        rise = self.height * (np.float32(0.25) + np.float32(0.75) * body) * (1 - under * under)
        rise = rise * _smooth(-0.25, 0.45, t)
        across = _bump(u * u)
        gx = 4 * np.maximum(1 - u * u, np.float32(0)) * u / width * rise
        gy = across * self.height * (2 * under / np.float32(0.22) / (self.base - self.top))
        gy = gy - across * self.height * np.float32(0.55) * _clip(t) * (1 - _clip(under * 4))
        inside = (t > -0.25) & (t < 1.1)
        zero = np.float32(0)
        return np.where(inside, gx * np.float32(0.9), zero), np.where(inside, gy, zero)


def _paint_face(canvas: _Canvas, skull: _Skull, fringe: F32) -> F32:
    """Paint skin and features, and return the face's coverage (B, H, W).

    ``fringe``: distance to the hair's lower edge, for the shadow it throws on the forehead.
    """
    p, pixel = canvas.p, canvas.pixel
    face = _cover(skull.distance, pixel)
    box = _box(face > 0)
    r, c = box
    nose = _Nose(canvas)
    nx, ny, nz = _relief(canvas, skull, box, nose)
    light = canvas.lambert(nx, ny, nz)
    shadow = _bump((fringe[:, r, c] / np.float32(0.20)) ** 2) * (p.hat != 2)
    light = light * (1 - np.float32(0.22) * shadow)
    skin = canvas.lit(_colour(canvas.skin), light, _SKIN_SHADOW)
    x = np.where(face[:, r, c] > 0, skull.x[:, r, c], np.float32(9))
    y = np.where(face[:, r, c] > 0, skull.y[:, r, c], np.float32(9))
    # A soft shine where the lamp is mirrored towards the viewer.
    lx, ly, lz = canvas.light
    half = np.sqrt(lx * lx + ly * ly + (lz + 1) ** 2 + np.float32(1e-6))
    shine = (nx * lx + ny * ly + nz * (lz + 1)) / half
    shine = np.maximum(shine - np.float32(0.90), np.float32(0)) * 10
    shine = shine * shine * p.strength * np.float32(0.20)
    for channel in range(3):
        skin[:, channel] += shine * (1 - skin[:, channel]) * canvas.lamp[:, channel]

    _paint_complexion(canvas, skull, skin, x, y, nose)
    _, ey = _eye_centre(p)
    my, nb = _mouth_height(p), _nose_base(p)
    narrow = np.abs(x) < 0.62
    for paint, near in (
        (_paint_eyes, (y > ey - 0.30) & (y < ey + 0.26)),
        (_paint_brows, (y > ey - 0.56) & (y < ey + 0.06)),
        (_paint_nose, narrow & (y > -0.2) & (y < nb + 0.2)),
        (_paint_mouth, narrow & (y > my - 0.36) & (y < my + 0.62)),
    ):
        inner = _box(near)
        if inner[0].stop > inner[0].start:
            # What is out of the feature's reach is moved far away from it.
            fx, fy = (np.where(near, a, np.float32(9))[:, inner[0], inner[1]] for a in (x, y))
            paint(canvas, skin, fx, fy, inner, light[:, inner[0], inner[1]], nose)
    _blend(canvas.image, face[:, r, c], skin, box)
    return face


def _paint_complexion(
    canvas: _Canvas, skull: _Skull, skin: F32, x: F32, y: F32, nose: _Nose
) -> None:
    """Blush, freckles, folds and beard: what is in the skin."""
    p, pixel = canvas.p, canvas.pixel
    box = (slice(None), slice(None))
    ax = np.abs(x)
    ex, ey = _eye_centre(p)
    my = _mouth_height(p)
    lift = np.float32(0.05) * p.smile
    q = ((ax - ex - 0.07) / 0.27) ** 2 + ((y - ey - 0.33 + lift) / 0.22) ** 2
    glow = np.float32(0.50) + np.float32(0.50) * p.smile
    _tint(skin, _bump(q) * glow, (1.01, 0.87, 0.86), box)
    # Under the eyes and beside the nose: a little cooler and darker, more with age.
    q = ((ax - ex) / 0.20) ** 2 + ((y - ey - 0.15) / 0.09) ** 2
    _tint(skin, _bump(q) * (np.float32(0.35) + np.float32(0.55) * p.age), (0.88, 0.83, 0.86), box)

    # Nasolabial folds: from the nose's wings past the corners of the mouth.
    t = (y - nose.base + 0.04) / (my - nose.base + 0.12)
    course = nose.wide + np.float32(0.03) + (np.float32(0.10) + np.float32(0.07) * p.smile) * t
    fold = _bump(((ax - course) / 0.055) ** 2) * _bump((t * 2 - 1) ** 2)
    depth = np.float32(0.10) + np.float32(0.35) * p.age + np.float32(0.75) * p.smile
    _tint(skin, fold * np.minimum(depth, np.float32(1)), (0.80, 0.70, 0.68), box)
    if (p.brow_raise > 0).any() or (p.age > 0.5).any():
        lines = np.maximum(p.age - np.float32(0.5), np.float32(0)) + np.float32(0.7) * p.brow_raise
        rows = (y - ey + np.float32(0.36) + np.float32(0.04) * p.brow_raise) / np.float32(0.10)
        rows = rows + x * x * np.float32(1.2)
        crease = np.maximum(_wave(rows), np.float32(0)) ** 2 * _bump((rows + 0.75) ** 2 / 1.9)
        crease = crease * _bump((ax / 0.5) ** 2) * lines * np.float32(0.6)
        _tint(skin, _clip(crease), (0.84, 0.76, 0.75), box)
    if (p.brow_lower > 0).any():
        frown = _bump(((ax - 0.065) / 0.04) ** 2) * _bump(((y - ey + 0.17) / 0.16) ** 2)
        _tint(skin, frown * p.brow_lower, (0.66, 0.54, 0.53), box)
    if (p.freckles > 0).any():
        cell = np.float32(16)
        u, v = x * canvas.side * cell, y * cell
        iu, iv = np.floor(u), np.floor(v)
        a = iu * np.float32(0.754878) + iv * np.float32(0.569840)
        b = iu * np.float32(0.381966) + iv * np.float32(0.837724)
        a, b = a - np.floor(a), b - np.floor(b)
        du = u - iu - np.float32(0.25) - np.float32(0.5) * a
        dv = v - iv - np.float32(0.25) - np.float32(0.5) * b
        dot = _disc(du * du + dv * dv, np.float32(0.10) + np.float32(0.12) * b, pixel * cell)
        where = _bump((ax / 0.52) ** 2 + ((y - ey - 0.24) / 0.26) ** 2)
        dot = dot * _clip(where * 3) * (a * np.float32(0.9) < p.freckles)
        _tint(skin, dot * p.freckles * np.float32(0.7), (0.84, 0.72, 0.64), box)
    if (p.beard > 0).any() or (p.moustache > 0).any():
        colour = _colour(canvas.hair * 0.85 + canvas.skin * 0.10)
        # The chin drops with the jaw, and the beard with it.
        drop = np.float32(0.15) * p.jaw_drop
        mouth = np.float32(0.20) + np.float32(0.08) * p.mouth_width
        rim = (x / (mouth + np.float32(0.13))) ** 2
        top = my + np.float32(0.10) + drop * np.float32(0.9) - rim * np.float32(0.27)
        top = np.maximum(top, ey + np.float32(0.10))
        grain = np.float32(0.94) + np.float32(0.06) * _wave(ax * 9) * _wave(y * 8)
        full = _smooth(-0.07, 0.11, y - top) * _smooth(ey, ey + 0.40, y) * grain
        _blend(skin, full * _clip(p.beard * 1.05) * np.float32(0.88), colour, box)
        u = ax / (mouth + np.float32(0.05))
        upper = my - np.float32(0.155) + np.float32(0.10) * u * u
        lower = my - np.float32(0.04) + np.float32(0.11) * u * u * (1 - p.smile)
        hair = _smooth(-0.03, 0.03, y - upper) * _smooth(-0.03, 0.03, lower - y)
        hair = hair * _clip((1 - u) * 5) * grain
        _blend(skin, hair * p.moustache * np.float32(0.85), colour, box)


def _paint_eyes(
    canvas: _Canvas, skin: F32, x: F32, y: F32, box: Rows, light: F32, nose: _Nose
) -> None:
    p, pixel = canvas.p, canvas.pixel
    ex, ey = _eye_centre(p)
    half = np.float32(0.145) + np.float32(0.055) * p.eye_size
    sign = np.where(x < 0, np.float32(-1), np.float32(1))
    u = x - sign * ex  # same handedness for both eyes: gaze and glint
    t = sign * u / half  # -1 at the inner corner, 1 at the outer
    v = y - ey + (np.float32(0.055) * p.eye_tilt - np.float32(0.018)) * t
    wide = 1 + np.float32(0.30) * p.brow_raise - np.float32(0.22) * p.brow_lower
    upper = (np.float32(0.085) + np.float32(0.050) * p.eye_size) * wide
    upper = upper * (1 - np.float32(0.10) * p.smile)
    under = (np.float32(0.050) + np.float32(0.025) * p.eye_size) * (1 - np.float32(0.5) * p.smile)
    t2 = t * t
    arc = 1 - t2
    full = arc * (np.float32(0.78) + np.float32(0.22) * arc + np.float32(0.10) * t)
    full = np.where(t2 < 1, full * np.float32(1.18), np.float32(-9))
    lower_lid = under * full
    rest = -upper * np.where(t2 < 1, arc * (np.float32(0.75) + np.float32(0.38) * t2), -9)
    upper_lid = _mix(rest, lower_lid - np.float32(0.004), p.eye_closure)
    open_eye = _band(upper_lid, lower_lid, v, pixel)

    # The socket: a soft shade above the eye, and the crease of the lid.
    socket = _bump((t / 1.5) ** 2 + ((v + upper * 1.35) / 0.17) ** 2)
    _tint(skin, socket * (np.float32(0.30) + np.float32(0.35) * p.lashes), (0.80, 0.68, 0.66), box)
    bow = np.where(t2 < 1.25, 1 - t2 * np.float32(0.72), np.float32(-9))
    fold = -(upper + np.float32(0.045)) * bow + p.eye_closure * np.float32(0.015)
    stroke = np.float32(0.011)
    crease = _band(fold - stroke, fold + stroke, v, pixel) * _clip((1.2 - t2) * 2)
    _tint(skin, crease * p.eyelid * np.float32(0.75), (0.62, 0.48, 0.46), box)

    ball = np.empty((len(x), 3, *x.shape[1:]), dtype=np.float32)
    shade = np.minimum(np.float32(0.45) + np.float32(0.55) * light, np.float32(1.04))
    shade = shade * (1 - np.float32(0.30) * _clip(1 - (v - upper_lid) / np.float32(0.07)))
    shade = shade * (1 - np.float32(0.10) * t2)
    for channel, tone in enumerate((0.955, 0.935, 0.915)):
        ball[:, channel] = np.float32(tone) * shade
    radius = np.float32(0.083) + np.float32(0.022) * p.eye_size
    gx = u - p.gaze_x * np.float32(0.075)
    gy = v + np.float32(0.012) - p.gaze_y * np.float32(0.045)
    q = gx * gx + gy * gy
    iris = _disc(q, radius, pixel)
    ring = np.float32(0.62) + np.float32(0.55) * _bump(q / (radius * radius) * 0.72)
    ring = ring + np.float32(0.22) * _clip(gy / radius)
    colour = _colour(_ramp(_EYES, p.raw["eye_colour"]))
    _blend(ball, iris, (colour * ring[:, None]) * shade[:, None])
    _blend(ball, _disc(q, radius * np.float32(0.47), pixel), _colour(canvas.skin * 0 + 0.04))
    lx, ly, _ = canvas.light
    hx = gx - np.float32(0.035) * lx
    hy = gy - np.float32(0.030) * ly - np.float32(0.004)
    glint = _disc(hx * hx + hy * hy, np.float32(0.026), pixel) * np.float32(0.92)
    _blend(ball, glint, _colour(canvas.skin * 0 + 1.0))
    _blend(skin, open_eye, ball, box)

    # Lash line: along the upper lid, thicker to the outer corner; a fainter one below.
    ink = _colour(canvas.hair * 0.25 + canvas.skin * 0.06)
    thick = np.float32(0.015) + np.float32(0.022) * p.lashes
    weight = thick * (np.float32(0.65) + np.float32(0.40) * t) * _clip((1.18 - t2) * 4)
    edge = np.where(t2 < 1, upper_lid, -9)
    wing = np.float32(-0.10) * p.lashes * np.maximum(t - 1, np.float32(0)) * half / 0.15
    edge = np.where((t >= 1) & (t < 1.2), wing, edge)
    line = _band(edge - weight, edge + weight * np.float32(0.45), v, pixel)
    _blend(skin, line * (t2 < 1.5), ink, box)
    faint = _band(lower_lid - 0.004, lower_lid + 0.009, v, pixel) * (t2 < 1)
    _blend(skin, faint * (np.float32(0.35) + np.float32(0.25) * p.lashes), ink, box)


def _paint_brows(
    canvas: _Canvas, skin: F32, x: F32, y: F32, box: Rows, light: F32, nose: _Nose
) -> None:
    p, pixel = canvas.p, canvas.pixel
    ex, ey = _eye_centre(p)
    ax = np.abs(x)
    start = np.float32(0.115) - np.float32(0.045) * p.brow_lower
    end = ex + np.float32(0.235)
    t = (ax - start) / (end - start)
    height = np.float32(0.215) + np.float32(0.065) * p.brow_height + np.float32(0.03) * p.eye_size
    height = height + np.float32(0.125) * p.brow_raise - np.float32(0.055) * p.brow_lower
    arch = np.float32(0.015) + np.float32(0.075) * p.brow_arch + np.float32(0.035) * p.brow_raise
    peak = (t - np.float32(0.62)) / np.float32(0.62)
    inner = np.maximum(1 - t, np.float32(0))
    middle = ey - height + arch * peak * peak + np.float32(0.095) * p.brow_lower * inner * inner
    thick = np.float32(0.019) + np.float32(0.036) * p.brow_thickness
    tail = _clip((np.float32(1.03) - t) / 0.65)
    head = _clip((t + np.float32(0.06)) / 0.16)
    thick = thick * (np.float32(0.25) + np.float32(0.75) * tail) * (0.6 + 0.4 * head)
    inside = (t > -0.1) & (t < 1.05)
    brow = _band(middle - thick, middle + thick, y, pixel) * inside
    brow = brow * _clip((1.05 - t) * 12) * head
    strength = np.float32(0.72) + np.float32(0.22) * p.brow_thickness
    dark = canvas.hair * 0.72 + canvas.skin * 0.08
    dark = np.minimum(dark, canvas.skin * 0.62)
    shaded = _colour(dark) * _clip(np.float32(0.55) + np.float32(0.45) * light)[:, None]
    _blend(skin, brow * strength, shaded, box)


def _paint_nose(
    canvas: _Canvas, skin: F32, x: F32, y: F32, box: Rows, light: F32, nose: _Nose
) -> None:
    pixel = canvas.pixel
    x, y = nose.local(x, y)
    ax = np.abs(x)
    base, wide = nose.base, nose.wide
    # Shade under the tip, wings, nostrils.
    q = (ax / (wide * np.float32(1.15))) ** 2 + ((y - base - 0.035) / 0.075) ** 2
    _tint(skin, _bump(q) * np.float32(0.75), (0.74, 0.62, 0.60), box)
    wx = (ax - wide * np.float32(0.86)) / np.float32(0.040)
    wy = (y - base + np.float32(0.045)) / np.float32(0.065)
    _tint(skin, _bump(wx * wx + wy * wy) * np.float32(0.62), (0.72, 0.56, 0.53), box)
    hx = (ax - wide * np.float32(0.50)) / (wide * np.float32(0.30))
    hy = (y - base + np.float32(0.004) + np.float32(0.02) * hx) / np.float32(0.023)
    hole = _disc(hx * hx + hy * hy, 1.0, pixel / 0.035)
    _tint(skin, hole * np.float32(0.85), (0.42, 0.27, 0.26), box)
    # Philtrum.
    q = (x / 0.035) ** 2 + ((y - base - 0.10) / 0.07) ** 2
    _tint(skin, _bump(q) * np.float32(0.35), (0.84, 0.75, 0.73), box)


def _paint_mouth(
    canvas: _Canvas, skin: F32, x: F32, y: F32, box: Rows, light: F32, nose: _Nose
) -> None:
    p, pixel = canvas.p, canvas.pixel
    my = _mouth_height(p)
    half = np.float32(0.195) + np.float32(0.085) * p.mouth_width
    half = half * (
        1 + np.float32(0.34) * p.smile + np.float32(0.34) * p.lip_stretch - 0.13 * p.jaw_drop
    )
    t = x / half
    t2 = t * t
    inside_t = t2 < 1
    arc = np.where(inside_t, 1 - t2, np.float32(-9))
    square = np.where(inside_t, (1 - t2) * (1 + np.float32(0.8) * t2), np.float32(-9))
    curl = np.float32(-0.022) - np.float32(0.145) * p.smile + np.float32(0.055) * p.lip_stretch
    centre = my + curl * (t2 - np.float32(0.35))
    gap = np.float32(0.29) * p.jaw_drop + np.float32(0.090) * p.smile + 0.075 * p.lip_stretch
    inner_top = centre - np.float32(0.18) * gap * arc
    # A dropped jaw opens the mouth to an oval, a smile to a crescent.
    oval = np.sqrt(np.maximum(1 - t2, np.float32(0))) * (1 - np.float32(0.12) * (1 - t2))
    oval = np.where(inside_t, oval, np.float32(-9))
    depth = np.float32(0.82) * gap
    inner_low = centre + depth * _mix(square, oval, np.minimum(np.float32(1.2) * p.jaw_drop, 1))
    thin = (1 - np.float32(0.20) * p.smile) * (1 - np.float32(0.40) * p.lip_stretch)
    up = (np.float32(0.036) + np.float32(0.050) * p.lip_fullness) * thin
    low = (np.float32(0.058) + np.float32(0.062) * p.lip_fullness) * thin
    bow = 1 - np.float32(0.28) * _bump(t2 / np.float32(0.05))
    outer_top = inner_top - up * arc * bow * (np.float32(0.85) + np.float32(0.45) * t2)
    outer_low = inner_low + low * square

    # Shade below the lower lip and at the corners.
    q = (x / (half * np.float32(0.75))) ** 2 + ((y - outer_low - 0.035) / 0.06) ** 2
    below = _bump(np.where(t2 < 1, q, np.float32(9)))
    _tint(skin, below * np.float32(0.50), (0.80, 0.68, 0.66), box)
    corner = my + curl * np.float32(0.65)
    q = ((np.abs(x) - half) / 0.055) ** 2 + ((y - corner) / 0.06) ** 2
    dimple = np.float32(0.30) + np.float32(0.55) * np.maximum(p.smile, p.lip_stretch)
    _tint(skin, _bump(q) * dimple, (0.70, 0.55, 0.53), box)

    lips = _band(outer_top, outer_low, y, pixel)
    paint = _ramp(_LIPS, p.raw["lip_colour"])
    share = 0.42 + 0.40 * p.raw["lip_colour"][:, None] - 0.12 * p.raw["skin_tone"][:, None]
    base = canvas.skin * np.array((0.90, 0.66, 0.66))
    depth = 1 - 0.45 * p.raw["skin_tone"][:, None]
    colour = _colour(base * (1 - share) + paint * depth * share)
    shade = np.minimum(np.float32(0.35) + np.float32(0.70) * light, np.float32(1.1))
    upper = _cover(y - centre, pixel * 2)
    shade = shade * (1 - np.float32(0.20) * upper)
    belly = _bump((t / 0.55) ** 2 + ((y - _mix(inner_low, outer_low, 0.45)) / (low * 0.55)) ** 2)
    shade = shade + np.float32(0.16) * belly * p.strength
    _blend(skin, lips, colour * shade[:, None], box)

    inside = _band(inner_top, inner_low, y, pixel)
    cave = np.empty((len(x), 3, *x.shape[1:]), dtype=np.float32)
    deep = np.float32(0.6) + np.float32(0.4) * _clip(light)
    for channel, tone in enumerate((0.30, 0.085, 0.095)):
        cave[:, channel] = np.float32(tone) * deep
    q = (t / 0.66) ** 2 + ((y - inner_low) / (gap * np.float32(0.36) + 0.01)) ** 2
    _blend(cave, _smooth(0.0, 0.5, 1 - q), _colour(canvas.skin * 0 + np.array((0.60, 0.27, 0.28))))
    tall = np.minimum(np.float32(0.075), np.float32(0.62) * gap + np.float32(0.02))
    tall = _mix(tall, np.float32(0.9) * gap, np.maximum(p.lip_stretch - p.jaw_drop, 0))
    edge = inner_top + tall * (np.float32(0.35) + np.float32(0.65) * _clip(arc))
    teeth = _cover(y - edge, pixel) * _clip((1 - np.abs(t)) * 4)
    white = np.float32(0.80) + np.float32(0.20) * _clip(light)
    enamel = _colour(canvas.skin * 0 + np.array((0.97, 0.95, 0.91))) * white[:, None]
    _blend(cave, teeth, enamel)
    _blend(skin, inside, cave, box)
    # The line between closed lips; it opens into the mouth as the gap grows.
    weight = np.float32(0.0115) * _clip((1.04 - t2) * 3)
    weight = weight * _clip(1 - gap * np.float32(5))
    line = _band(centre - weight, centre + weight, y, pixel) * (t2 < 1.04)
    _tint(skin, line * np.float32(0.9), (0.38, 0.24, 0.26), box)


def _paint_ears(canvas: _Canvas, skull: _Skull, face: F32) -> None:
    p, pixel = canvas.p, canvas.pixel
    size = np.float32(0.86) + np.float32(0.28) * p.ears
    cy = np.float32(0.14) * p.cos_pitch - np.float32(0.03) * p.sin_pitch
    hidden = ((p.hat == 2) | (p.style_front > 0.7)).astype(np.float32)
    for sign in (np.float32(-1), np.float32(1)):
        # At 97 degrees of longitude: the near ear comes forward as the head turns.
        c97, s97 = np.float32(-0.12187), np.float32(0.99255)
        across = sign * s97 * p.cos_yaw + c97 * p.sin_yaw
        ahead = c97 * p.cos_yaw - sign * s97 * p.sin_yaw
        cx = across * skull.width * np.float32(1.035)
        rows, columns = _box(
            (np.abs(canvas.x - cx) < 0.24 + pixel) & (np.abs(canvas.y - cy) < 0.26 + pixel)
        )
        x, y = canvas.x[:, rows, columns], canvas.y[:, rows, columns]
        image = canvas.image[:, :, rows, columns]
        near = _smooth(0.02, 0.30, ahead)
        wide = (np.float32(0.088) + np.float32(0.05) * _clip(ahead)) * size
        tall = np.float32(0.175) * size
        v = (y - cy) / tall
        u = (x - cx) / wide - sign * np.float32(0.09) * v
        wide_v = 1 - np.float32(0.22) * _clip(v)
        q = (u / wide_v) ** 2 + v * v
        distance = (q - 1) / np.sqrt((2 * u / wide) ** 2 + (2 * v / tall) ** 2 + 0.01)
        ear = _cover(distance, pixel)
        free = (1 - face[:, rows, columns] * (1 - near)) * (1 - hidden)
        ear = ear * free * _smooth(-0.60, -0.35, ahead)
        ex, ey = x - cx, y - cy - tall * np.float32(0.98)
        stud = _disc(ex * ex + ey * ey, np.float32(0.042), pixel) * p.earrings
        stud = stud * free
        box = _box((ear > 0) | (stud > 0))
        r, c = box
        if r.stop <= r.start:
            continue
        u, v, ear, stud = u[:, r, c], v[:, r, c], ear[:, r, c], stud[:, r, c]
        outward = np.broadcast_to(sign * np.float32(0.45), u.shape)
        light = canvas.lambert(outward + u * 0.3, v * np.float32(0.3), np.float32(0.75) + 0 * u)
        light = light * (1 - np.float32(0.38) * _bump((u * u + v * v) / np.float32(0.62)))
        warm = _colour(canvas.skin * np.array((0.99, 0.93, 0.92)))
        _blend(image, ear, canvas.lit(warm, light, _SKIN_SHADOW), box)
        gold = _colour(canvas.skin * 0 + _GOLD) * (np.float32(0.55) + 0.5 * light)[:, None]
        _blend(image, stud, gold, box)


class _Hair:
    """The hair's outlines and its shading; one style is a row of ``_STYLES``."""

    def __init__(self, canvas: _Canvas, skull: _Skull) -> None:
        p = canvas.p
        self.canvas = canvas
        hatless = (p.hat == 0).astype(np.float32)
        self.shown = (p.hat != 2).astype(np.float32) * p.style_opacity
        volume = np.float32(0.65) + np.float32(0.7) * p.hair_volume
        loose = np.minimum(hatless + np.float32(0.25), np.float32(1))
        self.top = p.style_top * volume * loose + np.float32(0.01)
        side = p.style_side * volume * (np.float32(0.4) + np.float32(0.6) * hatless)
        self.wide = skull.width * np.float32(1.0) + side + np.float32(0.01)
        reach = np.abs(canvas.x) - self.wide - np.maximum(p.style_wide - np.float32(0.72), 0)
        self.box = r, c = _box(
            (reach < 0.25 + canvas.pixel) & (canvas.y > -1.1 - self.top - canvas.pixel)
        )
        self.x, self.y = x, y = canvas.x[:, r, c], canvas.y[:, r, c]
        xs = x * canvas.side
        # The parting throws the hair's crest to one side.
        crest = np.float32(0.30) * p.style_tilt * np.abs(p.part) * hatless
        lean = crest * _clip(-y)
        bumps = np.zeros_like(p.yaw)
        if (p.style_coil > 0).any():
            rough = _wave(xs * np.float32(2.9) + y * np.float32(1.7) + 0.3)
            rough = rough + _wave(xs * np.float32(-2.3) + y * np.float32(3.3))
            bumps = np.float32(0.022) * p.style_coil * rough
        sx = (x - canvas.side * lean) / self.wide
        sy = (y + np.float32(0.02)) / (1 + self.top)
        sy2 = sy * sy
        high = sy < 0
        q = sx * sx + np.where(high, sy2 * (np.float32(0.6) + np.float32(0.4) * sy2), sy2)
        gy = np.where(high, sy * (np.float32(1.2) + np.float32(1.6) * sy2), 2 * sy)
        g = np.sqrt((2 * sx / self.wide) ** 2 + (gy / (1 + self.top)) ** 2 + 1e-3)
        cap = (q - 1) / g - bumps
        # Hair hangs straight down from the sides of the cap.
        length = p.hair_length - np.float32(0.5)
        self.back_end = p.style_back + length * np.float32(0.5) * (p.style_back > 0.7)
        self.front_end = p.style_front + length * np.float32(0.5) * (p.style_front > 0.7)
        spread = _smooth(0.05, 0.9, y) * (p.style_wide - np.float32(0.72))
        hang_half = self.wide + np.maximum(spread, np.float32(0)) * (p.style_back > 0.7)
        hang_half = hang_half + p.style_wave * _wave(y * np.float32(1.35)) * _smooth(0.0, 0.3, y)
        taper = np.float32(0.16) * _smooth(0.9, 1.9, y) * (p.style_back > 0.7)
        hang = np.abs(x) - (hang_half - taper) - bumps
        hang = np.maximum(hang, np.float32(0.02) - y)
        self.q = q
        self.normal_x, self.normal_y = sx, sy
        long_hair = p.style_back > 0.7
        end = (
            y
            - self.back_end
            + (x / self.wide) ** 2 * np.where(long_hair, 0.10, 0.45).astype(np.float32)
        )
        end = end + np.float32(0.015) * _wave(xs * 2.7)
        upper = np.where(y < 0.05, cap, np.minimum(cap, hang))
        # Short hair follows the skull behind the ears, long hair hangs.
        self.outline: F32 = np.where(long_hair, upper, cap)
        self.back: F32 = np.maximum(self.outline, end)

        # The opening for the face, on the hair's own dome in the head's frame.
        dome = self.wide * np.sqrt(np.maximum(1 - np.where(high, q, sx * sx), np.float32(0)))
        # (Turned a little less than the face, or the near side would hide the eye.)
        hx = x * p.cos_yaw - dome * p.sin_yaw * np.float32(0.74)
        hy = y * p.cos_pitch + dome * p.sin_pitch * np.float32(0.9)
        hs = hx * canvas.side
        line = p.style_line + (np.float32(0.5) - p.hairline) * np.float32(0.16)
        half = p.style_open * skull.width
        middle = np.float32(0.05)
        slant = p.style_tilt * np.abs(p.part) * (hs + np.float32(0.15))
        fall = p.style_peak * np.abs(hs + np.float32(0.26) * np.abs(p.part))
        slant = (slant + fall) * _clip(-hy * 3)
        v = np.minimum(hy - middle - slant, np.float32(0)) / (line - middle)
        u = hx / half
        u2 = u * u
        roof = u2 * u2 * np.float32(0.45) + u2 * np.float32(0.55) + v * v - 1
        g = np.sqrt(
            ((np.float32(1.8) * u2 + np.float32(1.1)) * u / half) ** 2
            + (2 * v / (line - middle)) ** 2
            + 1e-3
        )
        opening = roof / g
        # A fringe closes the opening from above, with a slightly ragged hem.
        ragged = np.float32(0.022) * _wave(hs * 4.3) + np.float32(0.10) * hx * hx
        fringe = p.style_fringe + ragged - hy + np.float32(0.02)
        opening = np.maximum(opening, np.where(p.style_fringe > -5, fringe, np.float32(-9)))
        # Beside the eyes hair reaches to the outline of the face, whichever way it is turned.
        beside = skull.distance[:, r, c] + 0.012 - 2 * np.maximum(y - np.float32(0.12), 0)
        self.opening: F32 = np.where(y < 0.3, np.maximum(opening, beside), opening)
        opening = self.opening
        ends = hy - self.front_end + np.float32(0.02) * _wave(xs * np.float32(2.3))
        self.front: F32 = np.maximum(np.maximum(self.outline, -opening), ends)

    @cached_property
    def shading(self) -> tuple[F32, F32]:
        """The hair's brightness, from Lambert's term and strands, and its band of shine."""
        canvas, p = self.canvas, self.canvas.p
        x, y = (self.x - np.float32(0.35) * p.sin_yaw) * canvas.side, self.y
        nx, ny = self.normal_x, np.minimum(self.normal_y, np.float32(0.2))
        nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, np.float32(0.05)))
        light = canvas.lambert(nx, ny, nz)
        # Strands run out from the parting.
        px = x + np.float32(0.26) * np.abs(p.part)
        py = np.maximum(y + np.float32(1.15), np.float32(0.05))
        away = np.sqrt(px * px + py * py)
        fan = px / away * (1 + np.float32(0.35) * py)
        fine = canvas.pixel / away
        fan = fan + p.style_wave * 1.2 * _wave(y * np.float32(1.35))
        # Each wave fades out before it is too fine for the pixels.
        strands: F32 = np.zeros_like(x)
        for weight, often, phase in ((0.45, 4.3, 0.1), (0.35, 7.9, 0.4), (0.20, 13.7, 0.0)):
            seen = _clip((np.float32(0.5) - often * fine) * 4) * np.float32(weight)
            strands = strands + seen * _wave(fan * often + phase)
        crease = _bump((px / np.float32(0.05)) ** 2) * _clip(-y * 3 - 1.6) * (p.style_peak > 0)
        texture: F32 = strands * p.style_strand * (1 - p.style_coil * np.float32(0.7))
        if (p.style_coil > 0).any():
            u = x + np.float32(0.06) * _wave(y * np.float32(2.3))
            v = y + np.float32(0.06) * _wave(x * np.float32(1.9) + 0.2)
            curl: F32 = _wave(u * 5 + v * 2) * _wave(v * 5 - u * 3)
            curl = curl + np.float32(0.5) * _wave(u * 8 - v * 3)
            texture = texture + curl * p.style_coil * np.float32(0.85)
        light = light * (1 + np.float32(0.10) * texture) * (1 - np.float32(0.22) * crease)
        lx = canvas.light[0]
        band = (ny + np.float32(0.52) + np.float32(0.10) * strands) / np.float32(0.26)
        across = (nx - lx * np.float32(0.5)) / np.float32(0.85)
        shine = _bump(band * band) * _bump(across * across) * p.strength
        return light, shine * (1 - np.float32(0.65) * p.style_coil) * np.float32(0.30)

    def colour(self, box: Rows, darker: float) -> F32:
        """Return the hair's shaded colour in ``box`` of the hair's own box."""
        canvas = self.canvas
        light, shine = (a[:, box[0], box[1]] * np.float32(darker) for a in self.shading)
        base = _colour(canvas.hair)
        out = canvas.lit(base, light, _HAIR_SHADOW)
        for channel in range(3):
            glow = (base[:, channel] * np.float32(0.9) + np.float32(0.22)) * canvas.lamp[:, channel]
            out[:, channel] += shine * glow
        return out

    def paint_back(self) -> None:
        """Paint what falls behind the neck, and the bun."""
        canvas, p = self.canvas, self.canvas.p
        if (p.style_bun > 0).any():
            cx = canvas.x - canvas.side * np.float32(0.05) + p.sin_yaw * np.float32(0.30)
            cy = canvas.y + np.float32(1.10) + p.sin_pitch * np.float32(0.12)
            q = cx * cx * np.float32(0.9) + cy * cy
            bun = _disc(q, np.float32(0.27) + np.float32(0.08) * p.hair_volume, canvas.pixel)
            bun = bun * p.style_bun * (p.hat == 0)
            strands = np.float32(0.06) * _wave(np.sqrt(q) * 9 + cx * canvas.side * 2)
            light = canvas.lambert(cx * 2, cy * 2, np.float32(0.6) + 0 * cx) * (0.95 + strands)
            _blend(canvas.image, bun, canvas.lit(_colour(canvas.hair), light, _HAIR_SHADOW))
        self._lay(_cover(self.back, canvas.pixel) * self.shown, 0.66)

    def paint_front(self) -> F32:
        """Paint what lies before the face, and return its coverage (B, H, W)."""
        canvas = self.canvas
        cover = _cover(self.front, canvas.pixel) * self.shown
        self._lay(cover, 1.0)
        return self.full(cover, 0)

    def full(self, values: F32, outside: float) -> F32:
        """Put values known near the hair into the whole picture (B, H, W)."""
        out = np.full(self.canvas.x.shape, outside, dtype=np.float32)
        out[:, self.box[0], self.box[1]] = values
        return out

    def _lay(self, cover: F32, darker: float) -> None:
        image = self.canvas.image[:, :, self.box[0], self.box[1]]
        box = _box(cover > 0)
        if box[0].stop > box[0].start:
            _blend(image, cover[:, box[0], box[1]], self.colour(box, darker), box)


def _paint_hat(canvas: _Canvas, skull: _Skull, hair: _Hair) -> F32:
    """Paint beanie or headscarf and return its coverage (B, H, W)."""
    p, x, y, pixel = canvas.p, canvas.x, canvas.y, canvas.pixel
    raw = p.raw
    if not (p.hat > 0).any():
        return np.zeros((len(p.yaw), canvas.size, canvas.size), dtype=np.float32)
    beanie, scarf = (p.hat == 1).astype(np.float32), (p.hat == 2).astype(np.float32)
    colour = _colour(_hsl(raw["hat_hue"], 0.30 + 0 * raw["hat_hue"], 0.46 + 0 * raw["hat_hue"]))
    wide = hair.wide + np.float32(0.055)
    top = np.float32(1.13)
    sx, sy = x / wide, y / top
    q = sx * sx + sy * sy
    g = np.sqrt((2 * sx / wide) ** 2 + (2 * sy / top) ** 2 + 1e-3)
    cap = (q - 1) / g
    dome = wide * np.sqrt(np.maximum(1 - q, np.float32(0)))
    hx = x * p.cos_yaw - dome * p.sin_yaw
    hy = y * p.cos_pitch + dome * p.sin_pitch
    brim = hy + np.float32(0.42) - np.float32(0.10) * hx * hx
    knit = _cover(np.maximum(cap, brim), pixel) * beanie
    nz = np.sqrt(np.maximum(1 - q, np.float32(0.04)))
    light = canvas.lambert(sx, sy, nz)
    cuff = _smooth(-0.25, -0.22, brim)
    ribs = _wave(hx * 5 + np.float32(0.25)) * np.float32(0.05) * (1 + cuff)
    light = light * (1 + ribs) * (1 - np.float32(0.22) * _bump(((brim + 0.24) / 0.05) ** 2))
    shade = canvas.lit(colour, light, _CLOTH_SHADOW)
    _blend(canvas.image, knit, shade)

    # The scarf: a hood that falls to the shoulders, open for the face.
    fall = wide + np.float32(0.10) * _smooth(0.2, 1.2, y)
    sides = np.maximum(np.abs(x) - fall, -y)
    hood = np.minimum(cap, sides)
    drape = np.float32(1.22) + np.float32(0.16) * _clip(np.abs(canvas.body_x)) ** 2
    hood = np.maximum(hood, canvas.body_y - np.maximum(drape + 0.5, drape))
    middle = np.float32(0.12) + np.float32(0.5) * (skull.chin - np.float32(0.98))
    tall = (skull.chin - np.float32(0.04)) - middle
    half = skull.width * np.float32(0.84)
    v = hy - middle
    v = np.where(v < 0, v / np.float32(0.68), v / tall)
    u = hx / half
    f = u * u + v * v * (np.float32(0.7) + np.float32(0.3) * v * v) - 1
    g = np.sqrt((2 * u / half) ** 2 + (2 * v / np.float32(0.75)) ** 2 + 1e-3)
    window = np.maximum(f / g, skull.distance + np.float32(0.015))
    cloth = _cover(np.maximum(hood, -window), pixel) * scarf
    nx = x / fall
    ny = np.minimum(sy, np.float32(0.15))
    nz = np.sqrt(np.maximum(1 - nx * nx - ny * ny, np.float32(0.08)))
    folds = _wave(window * 2.6 + hx * canvas.side * np.float32(0.8)) * np.float32(0.07)
    rim = np.float32(0.16) * _bump(_clip(window / 0.07) ** 2)
    light = canvas.lambert(nx, ny, nz) * (1 + folds - rim)
    _blend(canvas.image, cloth, canvas.lit(colour, light, _CLOTH_SHADOW))
    return np.asarray(knit + cloth)


def _paint_glasses(canvas: _Canvas, skull: _Skull, cover: F32) -> None:
    p, pixel = canvas.p, canvas.pixel
    if not (p.glasses > 0).any():
        return
    ex, ey = _eye_centre(p)
    # The lenses lie in a plane just before the eyes; the arms run along the head.
    depth = skull.width * np.float32(0.86)
    x = (canvas.x - depth * p.sin_yaw) / p.cos_yaw
    y = (canvas.y + depth * p.sin_pitch) / p.cos_pitch
    near = (np.abs(x) < 0.65 + pixel) & (np.abs(y - ey) < 0.3 + pixel)
    near |= (np.abs(skull.y - ey) < 0.15 + pixel) & (skull.distance < pixel)
    r, c = _box(near)
    x, y = x[:, r, c], y[:, r, c]
    ax = np.abs(x)
    u, v = (ax - ex - 0.01) / np.float32(0.225), (y - ey - 0.015) / np.float32(0.195)
    square = (p.glasses == 2).astype(np.float32)
    u2, v2 = u * u, v * v
    # A circle's radius, or that of a rounded square (the 4-norm), about 0.21 to a side.
    radius = _mix(np.sqrt(u2 + v2), np.sqrt(np.sqrt(u2 * u2 + v2 * v2)), square)
    distance = (radius - 1) * np.float32(0.21)
    weight = np.float32(0.017) + np.float32(0.010) * square
    rim = _band(-weight + 0 * distance, weight + 0 * distance, distance, pixel)
    bridge = _band(ey - 0.045 - weight + x * x, ey - 0.045 + weight + x * x, y, pixel)
    bridge = bridge * (distance > 0) * (ax < ex)
    hy = skull.y[:, r, c]
    arm = _band(ey - 0.05 - weight, ey - 0.05 + weight, hy, pixel)
    outside = (distance > 0) & (x * skull.x[:, r, c] > 0) & (ax > ex)
    arm = arm * outside * _cover(skull.distance[:, r, c], pixel)
    worn = (p.glasses > 0).astype(np.float32)
    frame = np.maximum(np.maximum(rim, bridge), arm) * worn * (1 - cover[:, r, c])
    glass = _cover(distance, pixel) * worn * np.float32(0.03)
    streak = _band(-u * 0.6 - 0.35, -u * 0.6 - 0.05, v, pixel * 5)
    glass = glass + streak * _cover(distance, pixel) * worn * np.float32(0.06)
    white = _colour(canvas.skin * 0 + 0.97)
    _blend(canvas.image, glass * (1 - cover[:, r, c]), white, (r, c))
    raw = p.raw
    tone = _hsl(raw["frame_hue"], 0.35 + 0 * raw["frame_hue"], 0.17 + 0 * raw["frame_hue"])
    _blend(canvas.image, frame, _colour(tone), (r, c))


def draw(columns: dict[str, F64], size: int) -> tuple[F32, F32]:
    """Paint a chunk of frames: images (B, 3, size, size) in [0, 1] and face masks (B, 1, size, size).

    ``columns``: every name of ``parameters.NAMES``, each (B,).
    """
    canvas = _Canvas(_Params(columns), size)
    skull = _skull(canvas)
    hair = _Hair(canvas, skull)
    _paint_background(canvas)
    hair.paint_back()
    _paint_body(canvas, skull)
    fringe = hair.full(np.maximum(-hair.opening, np.float32(0)), 0)
    face = _paint_face(canvas, skull, fringe)
    _paint_ears(canvas, skull, face)
    front = hair.paint_front()
    hat = _paint_hat(canvas, skull, hair)
    covered = 1 - (1 - front) * (1 - hat)
    _paint_glasses(canvas, skull, covered)
    mask = face * (1 - covered)
    return _clip(canvas.image), np.ascontiguousarray(mask[:, None])
