"""The first detector trained on: the same digits, now blurred, resized and compressed by chance.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

from collections.abc import Iterator

from lightning_fabric import Fabric

from course_lib import checkpoints
from course_lib.detection.cnn import DetectorNet, train_detector
from course_lib.detection.compression import blur_and_jpeg
from course_lib.recipes import Progress
from course_lib.recipes.detector_digits import ARCHITECTURE, BATCH, DATA, STEPS, measure, parts


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train ``detector-digits`` on, with ``compression.blur_and_jpeg`` applied to real and forged alike."""
    steps = STEPS if steps is None else steps
    real, fake = parts(seed)
    model = checkpoints.load("detector-digits", DetectorNet())
    for step in train_detector(
        model,
        real["train"],
        fake["train"],
        fabric=fabric,
        steps=steps,
        batch_size=BATCH,
        augment=blur_and_jpeg,
        seed=seed,
    ):
        yield Progress(step.step, steps, f"loss {step.loss:.3f}, accuracy {step.accuracy:.2f}")
    model = model.cpu()
    measures = measure(model, real, fake, seed=seed)
    yield Progress(
        steps,
        steps,
        f"AUC {measures['auc']:.3f}",
        module=model,
        measures=measures,
        about={
            "summary": "detector-digits trained on with blur, resizing and JPEG, after Wang et al. (2020).",
            "architecture": ARCHITECTURE,
            "data": DATA,
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Bears the processing that it was trained with; knows one kind of generator of 28x28 "
            "digits. It can accuse nobody of anything.",
        },
    )
