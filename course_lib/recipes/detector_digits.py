"""The first detector: real digits against those of the course's own DCGAN, with no shortcut left.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor

from course_lib import checkpoints, data, device
from course_lib.detection.cnn import DetectorNet, score, train_detector
from course_lib.detection.compression import blur, jpeg, resize
from course_lib.detection.evaluate import (
    Report,
    match,
    report,
    shortcut_auc,
    split_by_group,
    threshold_at,
)
from course_lib.detection.processing import prepare
from course_lib.gans.networks import DCGANGenerator
from course_lib.recipes import Progress, dcgan_digits
from course_lib.recipes.dcgan_digits import CHANNELS, LATENT

STEPS = 1_200
BATCH = 128

#: "Another seed" is the generator's recipe run again from the next seed, for so many steps.
OTHER_STEPS = 800

ARCHITECTURE = (
    "course_lib.detection.cnn.DetectorNet: four 3x3 convolutions, two of them strided, the mean over "
    "the image, one linear layer"
)
DATA = (
    "MNIST, the course's sample, and as many images of dcgan-digits, all through processing.prepare and "
    "matched by ink: 8,000 + 8,000 to train, 2,000 + 2,000 to choose the threshold for a false-positive "
    "rate of 5 %, 2,000 + 2,000 to measure. The test digits are in neither's training set; the detector's "
    "training and validation digits are among those that the generator was trained on. Intervals: 95 %, "
    "bootstrap over test images; they do not cover other training runs."
)

#: The false-positive rate at which the threshold is set, on validation images.
FALSE_POSITIVE_RATE = 0.05


Parts = dict[str, Tensor]


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train ``DetectorNet`` on 8,000 real digits and as many of ``dcgan-digits``; measure on 2,000 each.

    At the end a second generator is trained, to measure the detector on one that it has not met.
    """
    steps = STEPS if steps is None else steps
    others = min(OTHER_STEPS, steps)
    total = steps + others
    real, fake = parts(seed)
    model = DetectorNet(generator=device.generator(seed))
    for step in train_detector(
        model,
        real["train"],
        fake["train"],
        fabric=fabric,
        steps=steps,
        batch_size=BATCH,
        seed=seed,
    ):
        yield Progress(step.step, total, f"loss {step.loss:.3f}, accuracy {step.accuracy:.2f}")
    model = model.cpu()
    measures = measure(model, real, fake, seed=seed)
    for progress in dcgan_digits.run(fabric, seed=seed + 1, steps=others):
        if isinstance(progress.module, DCGANGenerator):
            pool = prepare(forge(progress.module, 2 * len(real["test"]), seed=10 * seed + 3))
            unseen = pool[match(real["test"], pool, seed=seed)]
            result = _judge(model, real["test"], unseen, measures["threshold"], seed)
            measures |= _named(result, ("auc", "accuracy"), ", another seed")
        else:
            yield Progress(steps + progress.step, total, f"another generator: {progress.text}")
    yield Progress(
        total,
        total,
        f"AUC {measures['auc']:.3f}",
        module=model,
        measures=measures,
        about={
            "summary": "A detector for the digits of one generator, dcgan-digits: above 0 means "
            "generated. It is there to be measured and broken.",
            "architecture": ARCHITECTURE,
            "data": f"{DATA} Another seed: dcgan-digits trained anew for {others} steps.",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Knows one kind of generator, and clean 28x28 digits. Fails on other kinds and "
            "after blur or resizing, which the chapter measures. It can accuse nobody of anything.",
        },
    )


def parts(seed: int) -> tuple[Parts, Parts]:
    """Return real and forged digits, each as ``train`` (8,000), ``validation`` and ``test`` (2,000).

    Real: the course's 10,000 training digits, 80 % to train and 20 % to choose the threshold; its 2,000
    test digits, which neither the detector nor the generator has seen, to measure. Forged: from noise
    drawn anew for each part. All go through ``processing.prepare`` and are matched by their ink.
    """
    generator = checkpoints.load("dcgan-digits", DCGANGenerator(LATENT, CHANNELS))
    train, test = data.mnist("train"), data.mnist("test")
    learn, choose = split_by_group(train.group, (0.8, 0.2), seed=seed)
    real = {
        "train": prepare(train.x[learn]),
        "validation": prepare(train.x[choose]),
        "test": prepare(test.x),
    }
    fake = {}
    for i, (part, x) in enumerate(real.items()):
        pool = prepare(forge(generator, 2 * len(x), seed=10 * seed + i))
        fake[part] = pool[match(x, pool, seed=seed)]
    return real, fake


def measure(model: DetectorNet, real: Parts, fake: Parts, *, seed: int) -> dict[str, float]:
    """Choose the threshold on the validation part and return all that the card says of the test part."""
    threshold = threshold_at(score(model, real["validation"]), FALSE_POSITIVE_RATE)
    result = _judge(model, real["test"], fake["test"], threshold, seed)
    measures = {"threshold": threshold}
    measures |= _named(result, ("auc", "ap", "eer", "accuracy", "tpr", "fpr", "ece"), "")
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "JPEG 40": lambda x: jpeg(x, 40),
        "blur 1": lambda x: blur(x, 1.0),
        "half size": lambda x: resize(x, 0.5),
    }
    for name, change in changes.items():
        after = _judge(model, change(real["test"]), change(fake["test"]), threshold, seed)
        measures |= {f"auc, {name}": after.auc.value, f"accuracy, {name}": after.accuracy.value}
    shortcuts = shortcut_auc(real["test"], fake["test"], seed=seed)
    measures["auc of the best shortcut"] = max(e.value for e in shortcuts.values())
    return measures


@torch.no_grad()
def forge(generator: DCGANGenerator, n: int, *, seed: int) -> Tensor:
    """Return ``n`` images of ``generator``, (n, 1, 28, 28) in [0, 1], from noise with this ``seed``."""
    z = torch.randn(n, generator.latent, generator=device.generator(seed))
    return torch.cat([generator(part) for part in z.split(500)]).clamp(0, 1)


def _judge(model: DetectorNet, real: Tensor, fake: Tensor, threshold: float, seed: int) -> Report:
    labels = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))]).long()
    return report(score(model, torch.cat([real, fake])), labels, threshold=threshold, seed=seed)


def _named(result: Report, names: tuple[str, ...], suffix: str) -> dict[str, float]:
    found = {}
    for name in names:
        estimate = getattr(result, name)
        found[f"{name}{suffix}"] = estimate.value
        found[f"{name}{suffix} low"] = estimate.low
        found[f"{name}{suffix} high"] = estimate.high
    return found
