"""The network that follows a face: action units and the head's angles from rendered portraits.

Chapter: book/detect/behaviour.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from course_lib import device
from course_lib.data import actors
from course_lib.detection.behaviour import NAMES, ActionUnitNet, track, train_tracker
from course_lib.detection.compression import blur_and_jpeg, jpeg, resize
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 4_000
#: Whom it learns from and whom it is measured on; the chapter's people are others again.
LEARN, MEASURE = range(2000, 2700), range(3000, 3020)
#: Frames of each person, a second apart to learn from and at 5 a second to measure on.
FRAMES, SHOT = 12, 40
#: How often a batch is blurred, and how often compressed.
CHANCE = 0.25


def run(
    fabric: Fabric,
    *,
    seed: int = 0,
    steps: int | None = None,
    state: dict[str, Any] | None = None,
) -> Iterator[Progress]:
    """Train ``ActionUnitNet`` on 700 people, some blurred or compressed; measure on 20 others."""
    steps = STEPS if steps is None else steps
    x, tracks = frames(LEARN, FRAMES, fps=1.0)
    net = ActionUnitNet(generator=device.generator(seed))
    augment = partial(blur_and_jpeg, p=CHANCE)
    for step in train_tracker(
        net, x, tracks, fabric=fabric, steps=steps, augment=augment, seed=seed, state=state
    ):
        yield Progress(step.step, steps, f"loss {step.loss:.3f}", state=step.state)
    net = net.cpu().half().float()  # as it will be loaded
    x, truth = frames(MEASURE, SHOT, fps=5.0)
    measures: dict[str, float] = {}
    for suffix, changed in (("", x), (", JPEG 40", jpeg(x, 40)), (", half size", resize(x, 0.5))):
        r = agreement(track(net, changed), truth, SHOT).mean(dim=0)
        measures |= {
            f"r {name}{suffix}": float(value) for name, value in zip(NAMES, r, strict=True)
        }
        measures[f"mean r{suffix}"] = float(r.mean())
    yield Progress(
        steps,
        steps,
        f"mean r {measures['mean r']:.3f}",
        module=net.half(),
        measures=measures,
        about={
            "summary": "Estimates six action units and the head's three angles in rendered portraits.",
            "architecture": "course_lib.detection.behaviour.ActionUnitNet: five convolutions and two "
            "dense layers",
            "data": f"the course's rendered actors at 64 pixels: {len(LEARN)} people with {FRAMES} "
            f"frames each, some blurred, shrunk or compressed. Measured on {len(MEASURE)} other people: "
            f"r is the correlation of estimate and truth within a shot of {SHOT} frames, mean over people",
            "licence": "MIT; the faces are nobody's",
            "limits": "Trained on drawings alone; of photographs it knows nothing. It measures muscles, "
            "not feelings, and is not for judging anybody by her face.",
        },
    )


def frames(people: Sequence[int], n: int, *, fps: float) -> tuple[Tensor, Tensor]:
    """Return a shot of ``n`` frames of each person in her own manner, (N, 3, 64, 64), and (N, 9)."""
    shots = [actors.clip(n, identity=actors.identity(who), seed=who, fps=fps) for who in people]
    tracks = [torch.stack([shot.column(name) for name in NAMES], dim=1) for shot in shots]
    return torch.cat([shot.images for shot in shots]), torch.cat(tracks)


def agreement(estimate: Tensor, truth: Tensor, n: int) -> Tensor:
    """Return the correlation of estimate and truth in each shot of ``n`` frames: (shots, K)."""
    a, b = (x.unflatten(0, (-1, n)) for x in (estimate, truth))
    a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
    both = a.square().sum(dim=1) * b.square().sum(dim=1)
    r: Tensor = (a * b).sum(dim=1) / both.sqrt().clamp_min(1e-12)
    return r
