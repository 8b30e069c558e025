"""Generators against detectors: what a detector of one kind of fake makes of all the others.

Two tables in one. The matrix: three kinds of detector, each trained against one generator of seven,
tested on these and on diffusion, the same test people throughout. And the six trained detectors of the
checkpoint "portrait-detectors", tested on every generator raw, and on "dcgan" also after what happens on
the way: ``trained_on`` is then the checkpoint's name.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from course_lib import device
from course_lib.detection import cnn, evaluate, spectrum
from course_lib.detection.compression import CONDITIONS
from course_lib.forge import GENERATORS
from course_lib.recipes import portrait_detectors as recipe

#: Too few to train on; it is only met in the test.
UNSEEN = "diffusion"
KINDS = ("spectrum", "dct", "meso")
CHECKPOINT = "portrait-detectors"
#: Steps of Meso-4, half as many as the checkpoint's.
STEPS = 200
SEED = 0


def cells() -> list[dict[str, str]]:
    """Return the runs: three kinds of detector for each of seven generators, and the checkpoint's six."""
    rows = [
        {"detector": kind, "trained_on": generator}
        for generator in GENERATORS
        if generator != UNSEEN
        for kind in KINDS
    ]
    return rows + [{"detector": d, "trained_on": CHECKPOINT} for d in recipe.detectors()]


def measure(**cell: str) -> dict[str, float]:
    """Train one detector, or load it; return its AUC on every generator with the ends of its interval.

    Named "auc, GENERATOR, CONDITION", and the same with ", low" and ", high". For the checkpoint's
    also "accuracy, ..." and "tpr, ...", at its threshold, and "fpr, CONDITION", the share of real
    portraits that it accuses; the others are tested "raw" only.
    """
    shipped = cell["trained_on"] == CHECKPOINT
    if shipped:
        models, thresholds = recipe.load()
        model, threshold = models[cell["detector"]], thresholds[cell["detector"]]
    else:
        model, threshold = trained(cell["detector"], cell["trained_on"]), 0.5
    model = model.to(memory_format=torch.channels_last)  # twice as fast on a CPU
    found: dict[str, float] = {}
    for name in CONDITIONS if shipped else ("raw",):
        for generator in GENERATORS if name == "raw" else (recipe.GENERATOR,):
            real, fake = tested(generator, name)
            if generator in (recipe.GENERATOR, "face-swap", UNSEEN):
                s_real = cnn.score(model, real)  # the others have the photographs of the first
            s_fake = cnn.score(model, fake)
            labels = torch.cat([torch.zeros(len(s_real)), torch.ones(len(s_fake))]).long()
            result = evaluate.report(
                torch.cat([s_real, s_fake]), labels, threshold=threshold, seed=SEED
            )
            found |= _named("auc", f"{generator}, {name}", result.auc)
            if shipped:
                found |= _named("accuracy", f"{generator}, {name}", result.accuracy)
                found |= _named("tpr", f"{generator}, {name}", result.tpr)
            if shipped and generator == recipe.GENERATOR:
                found |= _named("fpr", name, result.fpr)
    return found


@functools.cache
def tested(generator: str, condition: str) -> tuple[Tensor, Tensor]:
    """Return the test images of one generator, real and fake, prepared and then processed alike."""
    part = recipe.held_out(generator)
    change = CONDITIONS[condition]
    return change(part.real), change(part.fake)


def trained(kind: str, generator: str) -> nn.Module:
    """Return a detector of one of ``KINDS``, trained against one generator."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)  # for Meso-4's dropout
    train = recipe.parts(generator, seed=SEED)["train"]
    if kind != "meso":
        model = spectrum.SpectrumDetector() if kind == "spectrum" else spectrum.DCTDetector()
        spectrum.fit_linear(model, train.real, train.fake)
        return model
    network = cnn.Meso4(generator=device.generator(SEED)).to(memory_format=torch.channels_last)
    for _ in cnn.train_detector(
        network,
        train.real,
        train.fake,
        fabric=device.launch(accelerator="cpu"),
        steps=STEPS,
        batch_size=recipe.BATCH,
        lr=recipe.RATE["meso"],
        seed=SEED,
    ):
        pass
    return network


def _named(measure: str, where: str, estimate: evaluate.Estimate) -> dict[str, float]:
    ends = {"": estimate.value, ", low": estimate.low, ", high": estimate.high}
    return {f"{measure}, {where}{end}": round(value, 4) for end, value in ends.items()}
