"""A recorded training as a film: drag along it and watch what the model made at each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from course_lib import plots
from course_lib.figures.figure import COLOURS, Figure, to_bytes

#: Points that a loss curve is thinned to; a chart is not much wider.
POINTS = 300


def training_scrubber(
    steps: Tensor | Sequence[int],
    frames: Tensor,
    losses: Mapping[str, Tensor],
    *,
    title: str,
    alt: str,
    data: Tensor | None = None,
    limits: tuple[float, float] | None = None,
    colours: Mapping[str, str] | None = None,
    caption: str | None = None,
    names: tuple[str, str] = ("real", "generated"),
    axes: tuple[str, str] = ("", ""),
    chart: tuple[str, str] = ("step", "loss"),
    columns: int | None = None,
    start: int | None = None,
    fps: float = 6,
) -> Figure:
    """Return a figure in which the reader scrubs through a training, frame by frame.

    ``steps``: (T,), T > 1, rising whole numbers from 0 to S; 0 is before the first step. ``frames``:
    what the model made at each, images (T, N, 1 or 3, H, W) in [0, 1], ``columns`` side by side, or
    points (T, N, 2), over the reference points ``data`` (M, 2), both axes showing ``limits`` (default:
    all points). ``losses``: a name each, (S,), the loss of steps 1 to S; of a long training the mean
    of every few steps is drawn. ``colours``: by loss, one of real, fake, defence, attack, muted and
    ink. ``caption``: what the frames show; ``names``: of the reference and of the frames' points;
    ``axes``: labels of the points' axes; ``chart``: what the curves' axes count and show. ``start``: the
    first frame shown (default: the last). ``fps``: frames a second while it plays; a reader who asked
    for less motion gets one.

    Raises ``ValueError`` for steps that do not rise or lie beyond the losses, lengths that do not
    fit, images out of range, values that are not finite, and an ``fps`` outside 1 to 30.
    """
    found = [int(step) for step in steps]
    count = len(found)
    if count < 2 or found[0] < 0 or any(a >= b for a, b in pairwise(found)):
        raise ValueError(f"steps: expected at least 2, rising from 0 or more; got {found}")
    if len(frames) != count:
        raise ValueError(f"frames: expected {count}, one per step; got {len(frames)}")
    total = _length(losses)
    if found[-1] > total:
        raise ValueError(f"steps: the losses end with step {total}, the steps with {found[-1]}")
    colours = colours or {}
    kinds = {
        n: colours.get(n, k) for n, k in zip(losses, list(COLOURS) * len(losses), strict=False)
    }
    if not set(colours) <= set(losses) or not set(kinds.values()) <= set(COLOURS):
        raise ValueError(
            f"colours: expected one of {', '.join(COLOURS)} for {', '.join(losses)}; got {colours}"
        )
    start = count - 1 if start is None else start
    if not 0 <= start < count:
        raise ValueError(f"start: expected 0 to {count - 1}, got {start}")
    if not 1 <= fps <= 30:
        raise ValueError(f"fps: expected 1 to 30 frames a second, got {fps}")
    every = math.ceil(total / POINTS)
    curves = {
        name: [float(f"{float(part.mean()):.4g}") for part in values.detach().double().split(every)]
        for name, values in losses.items()
    }
    low = min(min(values) for values in curves.values())
    high = max(max(values) for values in curves.values())
    low, high = min(0.0, low), max(0.0, high)
    spread = (high - low) or 1.0
    edges = (low - (0.05 * spread if low < 0 else 0.0), high + 0.05 * spread)

    spec: dict[str, Any] = {
        "steps": found,
        "total": total,
        "every": every,
        "range": list(edges),
        "chart": list(chart),
        "start": start,
        "fps": fps,
        "losses": [
            {"name": name, "kind": kinds[name], "values": values} for name, values in curves.items()
        ],
    }
    arrays: dict[str, np.ndarray[Any, Any]]
    if frames.ndim == 5:
        if data is not None or limits is not None:
            raise ValueError("data, limits: are for points; the frames are images")
        pixels = to_bytes("frames", frames.flatten(0, 1)).reshape(frames.shape)
        columns = _columns(frames.shape[1]) if columns is None else columns
        if not 1 <= columns <= frames.shape[1]:
            raise ValueError(f"columns: expected 1 to {frames.shape[1]}, got {columns}")
        spec |= {"shape": list(frames.shape[1:]), "columns": columns}
        spec["caption"] = caption or "what the model draws"
        arrays = {"frames": _differences(pixels)}
    else:
        arrays, limits = _points(frames, data, limits)
        spec |= {"count": frames.shape[1], "limits": list(limits), "names": list(names)}
        spec |= {"xlabel": axes[0], "ylabel": axes[1], "caption": caption or "what the model makes"}

    def draw() -> Drawing:
        figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.9), width_ratios=[1.1, 1])
        if frames.ndim == 5:
            left.imshow(_mosaic(pixels[start], spec["columns"]), vmin=0, vmax=255)
            left.set_axis_off()
        else:
            _scatter(left, arrays, start, spec)
        left.set_title(f"{chart[0]} {found[start]} of {total}", fontsize=9)
        middles = [
            (i * every + 1 + min((i + 1) * every, total)) / 2 for i in range(-(-total // every))
        ]
        for name, values in curves.items():
            right.plot(middles, values, lw=1, color=COLOURS[kinds[name]], label=name)
        right.axvline(found[start], color=plots.INK, lw=1.2)
        right.set(xlim=(0, total), ylim=edges, xlabel=chart[0], ylabel=chart[1])
        right.legend(fontsize=8)
        return figure

    return Figure(kind="training_scrubber", title=title, alt=alt, spec=spec, draw=draw, data=arrays)


def _length(losses: Mapping[str, Tensor]) -> int:
    """Return how many steps the losses are of, if they agree and are finite."""
    shapes = {name: tuple(values.shape) for name, values in losses.items()}
    lengths = set(shapes.values())
    if len(lengths) != 1 or len(shape := lengths.pop()) != 1 or shape[0] == 0:
        raise ValueError(f"losses: expected at least one, all of one shape (S,); got {shapes}")
    for name, values in losses.items():
        bad = (~torch.isfinite(values)).nonzero()
        if len(bad):
            raise ValueError(
                f"losses: {name!r} is {float(values[bad[0, 0]])} at step {int(bad[0, 0]) + 1}, "
                f"expected finite numbers"
            )
    return int(shape[0])


def _columns(n: int) -> int:
    """Return how many columns make a grid of ``n`` about 3:2, with few places empty."""

    def cost(columns: int) -> float:
        rows = -(-n // columns)
        return 2 * (rows * columns - n) / n + abs(math.log(columns / rows / 1.5))

    return min(range(1, n + 1), key=cost)


def _points(
    frames: Tensor, data: Tensor | None, limits: tuple[float, float] | None
) -> tuple[dict[str, np.ndarray[Any, Any]], tuple[float, float]]:
    """Return the points as they are sent, and the limits."""
    if frames.ndim != 3 or frames.shape[2] != 2 or frames.shape[1] == 0:
        raise ValueError(
            f"frames: expected images (T, N, C, H, W) or points (T, N, 2), N > 0; "
            f"got {tuple(frames.shape)}"
        )
    if data is not None and (data.ndim != 2 or data.shape[1] != 2 or len(data) == 0):
        raise ValueError(f"data: expected shape (M, 2), M > 0; got {tuple(data.shape)}")
    given = {"frames": frames} if data is None else {"frames": frames, "data": data}
    for name, values in given.items():
        if not torch.isfinite(values).all():
            raise ValueError(f"{name}: expected finite points")
    if limits is None:
        low = min(float(values.min()) for values in given.values())
        high = max(float(values.max()) for values in given.values())
        margin = 0.05 * (high - low) or 1.0
        limits = (low - margin, high + margin)
    if not (all(map(math.isfinite, limits)) and limits[0] < limits[1]):
        raise ValueError(f"limits: expected (low, high), low < high; got {limits}")
    # Finer than a screen can show; the numbers then end in zeros, and half of their bytes go.
    unit = 2.0 ** math.floor(math.log2((limits[1] - limits[0]) / 4096))
    arrays = {
        name: ((values.detach().double().cpu() / unit).round() * unit).float().numpy()
        for name, values in given.items()
    }
    return arrays, limits


def _differences(frames: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return how a film (T, N, C, H, W), uint8, travels: few values but 0, which squeeze well.

    Each frame as its difference from the one before, and of that red and blue as theirs from green, all
    modulo 256; the figure adds them up again, and not a pixel is lost.
    """
    found = frames.copy()
    found[1:] -= frames[:-1]
    if found.shape[2] == 3:
        found[:, :, [0, 2]] -= found[:, :, [1]]
    return found


def _mosaic(images: np.ndarray[Any, Any], columns: int) -> np.ndarray[Any, Any]:
    """Return (N, C, H, W), uint8, as one picture (height, width, 3) with white gaps of one pixel."""
    n, _, height, width = images.shape
    rows = -(-n // columns)
    whole = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, 3), 255, dtype=np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        whole[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return whole


def _scatter(
    axis: Axes, arrays: dict[str, np.ndarray[Any, Any]], start: int, spec: dict[str, Any]
) -> None:
    real, fake = spec["names"]
    shown = [(arrays["frames"][start], plots.FAKE, fake)]
    if "data" in arrays:
        shown.insert(0, (arrays["data"], plots.REAL, real))
    for points, colour, name in shown:
        axis.scatter(points[:, 0], points[:, 1], s=7, alpha=0.5, lw=0, color=colour, label=name)
    low, high = spec["limits"]
    axis.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axis.set(xlabel=spec["xlabel"], ylabel=spec["ylabel"])
    axis.legend(fontsize=8)
