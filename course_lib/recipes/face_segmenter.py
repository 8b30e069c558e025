"""Two small networks that find the face in a rendered portrait, with skip connections and without.

Chapter: book/represent/convolutional.md
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from course_lib import device
from course_lib.autoencoders import training
from course_lib.autoencoders.segmentation import dice, iou, segment, segmenter
from course_lib.data import actors
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

SIZE = 32
CHANNELS = 8
STEPS = 1_500
#: How many people the networks learn from, and how many frames there are of each.
PEOPLE = 150
FRAMES = 8


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train both on rendered people, their frames as they are and mirrored; measure on 40 others."""
    steps = STEPS if steps is None else steps
    x, masks = frames(range(PEOPLE))
    x, masks = (torch.cat([t, t.flip(-1)]) for t in (x, masks))
    other, truth = frames(range(1000, 1040))
    kept, measures = nn.ModuleDict(), {}
    for i, (name, skips) in enumerate((("skips", True), ("no skips", False))):
        model = segmenter(
            (3, SIZE, SIZE), channels=CHANNELS, skips=skips, generator=device.generator(seed)
        )
        for step in training.fit(
            model,
            x,
            target=masks,
            loss=training.cross_entropy,
            steps=steps,
            batch_size=32,
            lr=1e-2,
            fabric=fabric,
            seed=seed,
        ):
            yield Progress(i * steps + step.step, 2 * steps, f"{name}: loss {step.loss:.1f}")
        kept[name] = model.cpu().half().float()
        found = segment(model, other)
        measures[f"IoU, {name}"] = float(iou(found, truth.round()).mean())
        measures[f"Dice, {name}"] = float(dice(found, truth.round()).mean())
    yield Progress(
        2 * steps,
        2 * steps,
        ", ".join(f"{name} {value:.3f}" for name, value in measures.items()),
        module=kept.half(),
        measures=measures,
        about={
            "summary": "Two segmenters that mark the face in rendered portraits, with skip "
            "connections and without.",
            "architecture": "course_lib.autoencoders.segmentation.segmenter, 8 channels, in an "
            "nn.ModuleDict",
            "data": f"the course's rendered actors at 32 pixels: {PEOPLE} people with {FRAMES} frames "
            "each, mirrored too; measured on 40 other people",
            "licence": "MIT; the faces are nobody's",
            "limits": "Trained on drawings alone: on photographs of people it fails, as its chapter "
            "shows. Not for finding or cutting out anybody's face.",
        },
    )


def frames(people: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the frames (N, 3, SIZE, SIZE) of each person and their masks (N, 1, SIZE, SIZE)."""
    drawn = [
        actors.sample(FRAMES, identity=actors.identity(who), seed=who, size=SIZE) for who in people
    ]
    return torch.cat([f.images for f in drawn]), torch.cat([f.masks for f in drawn])
