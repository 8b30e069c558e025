"""One visual style for the whole book, and figures that carry their alt text.

Colours mean the same on every page: what is real is blue, what is generated is vermilion, an attack
is purple and a defence green (Okabe and Ito's palette, told apart by colour-blind readers too).

Chapter: book/welcome/how_to_use.md
"""

from __future__ import annotations

import base64
import html
import io
import wave
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
from cycler import cycler
from matplotlib.figure import Figure

REAL = "#0072B2"
FAKE = "#D55E00"
ATTACK = "#A3478B"
DEFENCE = "#00795A"
AMBER = "#B87A00"
INK = "#1F2933"
MUTED = "#66727F"

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.prop_cycle": cycler(color=[REAL, FAKE, DEFENCE, ATTACK, AMBER, MUTED]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "figure.figsize": (7.0, 3.2),
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": "#E4E8EC",
    "grid.linewidth": 0.8,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "savefig.dpi": 200,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


def use_style() -> None:
    """Make the house style matplotlib's default; importing this module has done it once."""
    for key, value in STYLE.items():
        mpl.rcParams[key] = value  # type: ignore[index]


def show(figure: Figure, *, alt: str) -> None:
    """Display ``figure`` with its alternative text, and close it.

    ``alt`` says what is seen and what it means, for a reader who does not see it; the built page and
    the notebook both carry it.

    Raises ``ValueError`` for an alt text that is empty or says nothing (fewer than 15 characters).
    """
    from IPython.display import display

    content, metadata = png(figure, alt=alt)
    display(
        {"image/png": content, "text/plain": f"[Figure: {metadata['alt']}]"},
        raw=True,
        metadata={"image/png": metadata},
    )


def png(figure: Figure, *, alt: str) -> tuple[bytes, dict[str, Any]]:
    """Return ``figure`` as a PNG and what goes with it (``alt``, ``width``, ``height``); close it.

    Raises ``ValueError`` for an alt text that is empty or says nothing (fewer than 15 characters).
    """
    text = alt_text(alt)
    buffer = io.BytesIO()
    # No time stamp in the file: the same figure is the same bytes.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    width, height = (round(inches * 100) for inches in figure.get_size_inches())
    plt.close(figure)
    return buffer.getvalue(), {"alt": text, "width": width, "height": height}


def alt_text(alt: str) -> str:
    """Return an alt text on one line.

    Raises ``ValueError`` if it is empty or says nothing (fewer than 15 characters).
    """
    text = " ".join(alt.split())
    if len(text) < 15:
        raise ValueError(f"alt: expected a sentence that says what the figure shows, got {alt!r}")
    return text


def grid(
    images: torch.Tensor,
    *,
    columns: int | None = None,
    titles: Sequence[str] | None = None,
    colours: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    scale: float = 0.75,
) -> Figure:
    """Draw a batch of images as a grid.

    ``images``: (N, C, H, W) with one or three channels, in [0, 1]; values a hair outside are clipped.
    ``columns``: how many side by side (default: all, up to 10); ``titles``: one per image;
    ``colours``: one frame colour per image, e.g. ``plots.FAKE``; ``rows``: one label per row;
    ``scale``: inches per image.

    Raises ``ValueError`` for another shape or range, NaN, or a wrong number of labels.
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) == 0:
        raise ValueError(
            f"images: expected shape (N, 1 or 3, H, W), N > 0; got {tuple(images.shape)}"
        )
    pixels = images.detach().float().cpu()
    low, high = float(pixels.min()), float(pixels.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(f"images: expected values in [0, 1], got [{low:.3g}, {high:.3g}]")
    n = len(pixels)
    columns = min(n, 10) if columns is None else columns
    if columns < 1:
        raise ValueError(f"columns: expected at least 1, got {columns}")
    n_rows = -(-n // columns)
    for name, labels, count in (
        ("titles", titles, n),
        ("colours", colours, n),
        ("rows", rows, n_rows),
    ):
        if labels is not None and len(labels) != count:
            raise ValueError(f"{name}: expected {count}, got {len(labels)}")
    tall = 0.2 if titles is not None else 0.0
    aspect = pixels.shape[2] / pixels.shape[3]
    figure, axes = plt.subplots(
        n_rows,
        columns,
        figsize=(
            columns * scale + (0.9 if rows is not None else 0),
            n_rows * (scale * aspect + tall),
        ),
        squeeze=False,
        gridspec_kw={"wspace": 0.04, "hspace": 0.04},
    )
    for i, axis in enumerate(axes.flat):
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(i < n and colours is not None)
        if i >= n:
            axis.set_axis_off()
            continue
        array = np.clip(pixels[i].permute(1, 2, 0).numpy(), 0, 1)
        axis.imshow(array if array.shape[2] == 3 else array[..., 0], vmin=0, vmax=1)
        if titles is not None:
            axis.set_title(titles[i], fontsize=8, loc="center", fontweight="normal", pad=2)
        if colours is not None:
            for spine in axis.spines.values():
                spine.set(color=colours[i], linewidth=2)
        if rows is not None and i % columns == 0:
            axis.set_ylabel(rows[i // columns], rotation=0, ha="right", va="center", fontsize=8.5)
    return figure


def sound(x: torch.Tensor, *, label: str, rate: int = 8000) -> None:
    """Display a player for a sound: on the page, in the notebook, with no file and no network.

    ``x``: (T,) in [-1, 1], rounded to 16 bits, so that what is played is what a WAV file holds;
    ``rate``: samples a second. ``label`` is read above the player, and aloud: it says what is heard,
    for a reader who does not hear it too.

    Raises ``ValueError`` for another shape or range, an integer dtype, NaN, a rate below 1, or a
    label that says nothing (fewer than 15 characters).
    """
    from IPython.display import display

    if x.ndim != 1 or len(x) == 0 or not x.is_floating_point():
        raise ValueError(
            f"x: expected a float sound of shape (T,), T > 0; got {x.dtype} {tuple(x.shape)}"
        )
    samples = x.detach().double().cpu()
    if not bool((samples.abs() <= 1).all()):
        raise ValueError(
            f"x: expected values in [-1, 1], got [{samples.min():.3g}, {samples.max():.3g}]"
        )
    if rate < 1:
        raise ValueError(f"rate: expected at least 1, got {rate}")
    text = " ".join(label.split())
    if len(text) < 15:
        raise ValueError(f"label: expected a sentence that says what is heard, got {label!r}")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(
            (samples * 2**15).round().clamp(max=2**15 - 1).numpy().astype("<i2").tobytes()
        )
    said = html.escape(text)
    player = (
        f'<div style="margin: 0.4em 0"><div style="margin-bottom: 0.2em">{said}</div>'
        f'<audio controls preload="metadata" aria-label="{said}" style="width: 100%; max-width: 26em"'
        f' src="data:audio/wav;base64,{base64.b64encode(buffer.getvalue()).decode()}"></audio></div>'
    )
    display({"text/html": player, "text/plain": f"[Sound: {text}]"}, raw=True)


def glue(**values: int | float | str) -> None:
    """Make values available to the chapter's prose, so that no number is typed there.

    In the text, ``{glue:text}`name:.2f` `` prints the value of this run.

    Raises ``ValueError`` for anything but a plain finite int or float, or a string.
    """
    from IPython.display import display

    for name, value in values.items():
        if not isinstance(value, int | float | str) or isinstance(value, bool):
            raise ValueError(
                f"{name}: expected an int, a float or a string, got {type(value).__name__}"
            )
        if isinstance(value, float) and not np.isfinite(value):
            raise ValueError(f"{name}: expected a finite number, got {value}")
        # The MIME type and the metadata by which MyST-NB finds a glued value in the outputs.
        prefix = "application/papermill.record/"
        display(
            {f"{prefix}text/plain": repr(value)},
            raw=True,
            metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
        )


use_style()
