"""Move a code and see the picture that a decoder makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from course_lib import plots
from course_lib.figures.figure import Answer, Figure
from course_lib.figures.program import Function, trace


def latent_explorer(
    decoder: Function,
    scales: Tensor,
    *,
    title: str,
    alt: str,
    sliders: int = 8,
    names: Sequence[str] | None = None,
    legend: str = "the code, in standard deviations",
    caption: str = "the decoder's picture",
    spherical: bool = False,
    start: Tensor | None = None,
    seed: int = 0,
) -> Figure:
    """Return a figure in which the reader moves a code and sees what ``decoder`` makes of it.

    ``decoder``: codes (1, k) to images (1, 1 or 3, H, W), shown clipped to [0, 1]; a PCA's
    ``inverse``, an autoencoder's decoder, a GAN's generator. ``scales``: (k,), positive, one standard
    deviation of each number. The first ``sliders`` numbers get a slider from -3 to 3 deviations,
    called ``names``. ``start``: (k,), the first code in deviations (default: 0). ``spherical``: walk
    between codes along a sphere, as Gaussian noise wants it, instead of in a straight line. ``seed``:
    of the random codes.

    Raises ``ValueError`` for scales that are not positive, a start or names that do not fit, or a
    decoder whose result is no image; and, while a book is built, as ``program.trace`` does.
    Source of the walk on the sphere: White 2016, "Sampling generative networks", section 2.1.
    """
    k = len(scales)
    if scales.ndim != 1 or k == 0 or not bool((scales > 0).all()):
        raise ValueError(f"scales: expected (k,), all positive; got {tuple(scales.shape)}")
    sliders = min(sliders, k)
    start = torch.zeros(k) if start is None else start
    if start.shape != (k,):
        raise ValueError(f"start: expected shape ({k},), got {tuple(start.shape)}")
    names = [f"number {i + 1}" for i in range(sliders)] if names is None else list(names)
    if sliders < 1 or len(names) != sliders:
        raise ValueError(f"names: expected {sliders}, one per slider; got {len(names)}")

    def decode(code: Sequence[float]) -> Answer:
        return {"image": decoder(torch.tensor([list(code)], dtype=torch.float32))}

    with torch.no_grad():
        first = decoder((start * scales).float()[None])
    if first.ndim != 4 or len(first) != 1 or first.shape[1] not in (1, 3):
        raise ValueError(
            f"decoder: expected images of shape (1, 1 or 3, H, W), got {tuple(first.shape)}"
        )

    def draw() -> Drawing:
        return plots.grid(first.clamp(0, 1), scale=2.8)

    return Figure(
        kind="latent_explorer",
        title=title,
        alt=alt,
        spec={
            "scales": scales.tolist(),
            "start": start.tolist(),
            "shape": list(first.shape[1:]),
            "sliders": sliders,
            "names": names,
            "legend": legend,
            "caption": caption,
            "spherical": spherical,
            "seed": seed,
        },
        draw=draw,
        programs={"decoder": lambda: trace(decoder, torch.zeros(1, k))},
        answers={"decode": decode},
    )
