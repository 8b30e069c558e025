"""Two pictures side by side, one of them generated: the reader guesses, and then the detector."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure as Drawing
from torch import Tensor

from course_lib import plots
from course_lib.figures.figure import Figure, to_bytes

#: Images (N, C, H, W) in [0, 1] to scores (N,), each the probability of "generated".
Detector = Callable[[Tensor], Tensor]


def spot_the_fake(
    real: Tensor,
    fake: Tensor,
    *,
    title: str,
    alt: str,
    detector: Detector | None = None,
    pairs: int = 10,
    names: tuple[str, str] = ("real", "generated"),
    seed: int = 0,
) -> Figure:
    """Return a figure in which the reader says which of two images is generated, against ``detector``.

    ``real``: (N, C, H, W) and ``fake``: (M, C, H, W), both in [0, 1], kept in 256 levels. A game has
    ``pairs`` of them, at most N and M; with more images than that a second game shows new ones.
    ``detector``: gives each image, as it is shown, the probability that it is generated, (N,) in
    [0, 1]; it picks the higher of two, and gets half a point for a tie. ``names``: what real and
    generated images are called. ``seed``: of the pairs and of their sides.

    Raises ``ValueError`` for images out of range or of two shapes, fewer than two of a kind, more
    pairs than images, and scores of another shape, out of range or NaN.
    Source: the two-alternative forced choice of Green and Swets 1966, chapter 2; the share of right
    answers of a detector that picks the higher score is its AUC (Hanley and McNeil 1982).
    """
    pixels = {"real": to_bytes("real", real), "fake": to_bytes("fake", fake)}
    if real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"real, fake: expected images of one shape, got {tuple(real.shape[1:])} and "
            f"{tuple(fake.shape[1:])}"
        )
    most = min(len(real), len(fake))
    if most < 2:
        raise ValueError(f"real, fake: expected at least 2 each, got {len(real)} and {len(fake)}")
    if not 1 <= pairs <= most:
        raise ValueError(f"pairs: expected 1 to {most}, one image of each kind a pair; got {pairs}")
    rng = np.random.default_rng(seed)
    # Each row: which real image, which generated one, and the side of the latter (0 left, 1 right).
    rounds = np.stack(
        [
            rng.permutation(len(real))[:most],
            rng.permutation(len(fake))[:most],
            rng.integers(2, size=most),
        ],
        axis=1,
    ).tolist()
    scores = None
    if detector is not None:
        # Of what is shown, that is, after the rounding to 256 levels.
        scores = {
            kind: _scores(detector, torch.from_numpy(found).float() / 255)
            for kind, found in pixels.items()
        }

    def draw() -> Drawing:
        shown = rounds[: min(pairs, 6)]
        sides: list[list[Tensor]] = [[], []]
        for i, j, side in shown:
            both = torch.from_numpy(pixels["real"][i]), torch.from_numpy(pixels["fake"][j])
            sides[side].append(both[1])
            sides[1 - side].append(both[0])
        return plots.grid(
            torch.stack(sides[0] + sides[1]).float() / 255,
            columns=len(shown),
            titles=[f"pair {i + 1}" for i in range(len(shown))] + [""] * len(shown),
            rows=["A", "B"],
            scale=1.0,
        )

    return Figure(
        kind="spot_the_fake",
        title=title,
        alt=alt,
        spec={
            "shape": list(real.shape[1:]),
            "rounds": rounds,
            "pairs": pairs,
            "names": list(names),
            "scores": scores,
        },
        draw=draw,
        data=pixels,
    )


def _scores(detector: Detector, images: Tensor) -> list[float]:
    with torch.no_grad():
        found = torch.as_tensor(detector(images)).detach().double().cpu()
    if found.shape != (len(images),):
        raise ValueError(
            f"detector: expected scores of shape ({len(images)},), got {tuple(found.shape)}"
        )
    # NaN fails both comparisons.
    if not bool(((found >= 0) & (found <= 1)).all()):
        raise ValueError(
            f"detector: expected probabilities in [0, 1], got [{float(found.min()):.3g}, "
            f"{float(found.max()):.3g}]: put a logistic function behind logits"
        )
    return [float(value) for value in found]
