"""Six detectors of made portraits: two that weigh frequencies, three networks, one of real images only.

Four learn to tell the photographs from one generator, "dcgan"; "one-class" sees photographs alone, and
"hardened" three generators, blurred and compressed by chance.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib import checkpoints, device, forge
from course_lib.detection import cnn, evaluate, spectrum
from course_lib.detection.compression import blur_and_jpeg
from course_lib.detection.processing import prepare_portrait
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

#: Steps of the three networks, and what they are trained against.
STEPS = {"meso": 400, "xception": 250, "hardened": 1500}
GENERATOR = "dcgan"
HARDENED = (GENERATOR, "dcgan-nearest", "vae")
BATCH = 32
RATE = {"meso": 5e-3, "xception": 3e-3, "hardened": 4e-3}
#: The false-positive rate at which every threshold is set, on validation photographs.
FALSE_POSITIVE_RATE = 0.05


@dataclass(frozen=True)
class Part:
    """Prepared images of one part of the data: real and fake, (N, 3, 64, 64) each."""

    real: Tensor
    fake: Tensor


def parts(generator: str, *, seed: int = 0) -> dict[str, Part]:
    """Return what tells ``generator`` from its originals: "train", "validation" and "test", prepared.

    The data's training part is split 80 to 20 into training and validation, by person (in a face swap
    by moment); the test part is the data's own.
    """
    found = {}
    real, fake = forge.originals(generator, "train"), forge.fakes(generator, "train")
    real_parts = evaluate.split_by_group(real.group, (0.8, 0.2), seed=seed)
    fake_parts = evaluate.split_by_group(fake.group, (0.8, 0.2), seed=seed)
    for name, r, f in zip(("train", "validation"), real_parts, fake_parts, strict=True):
        found[name] = Part(prepare_portrait(real.x[r]), prepare_portrait(fake.x[f]))
    found["test"] = Part(
        prepare_portrait(forge.originals(generator, "test").x),
        prepare_portrait(forge.fakes(generator, "test").x),
    )
    return found


def detectors(seed: int = 0) -> nn.ModuleDict:
    """Return the six detectors as they are before training; a checkpoint fills them.

    ``checkpoints.load("portrait-detectors", portrait_detectors.detectors())["spectrum"]`` is the first.
    """
    draw = device.generator(seed)
    return nn.ModuleDict(
        {
            "spectrum": spectrum.SpectrumDetector(),
            "dct": spectrum.DCTDetector(),
            "meso": cnn.Meso4(generator=draw),
            "xception": cnn.SmallXception(widths=(16, 32, 64), generator=draw),
            "one-class": spectrum.OneClass(),
            "hardened": cnn.DetectorNet(3, generator=draw),
        }
    )


def load() -> tuple[nn.ModuleDict, dict[str, float]]:
    """Return the trained detectors, and the threshold of each for the scores of ``cnn.score``."""
    models = checkpoints.load("portrait-detectors", detectors())
    measures = checkpoints.card("portrait-detectors").measures
    return models, {name: measures[f"threshold, {name}"] for name in models}


def run(
    fabric: Fabric,
    *,
    seed: int = 0,
    steps: int | None = None,
    state: dict[str, Any] | None = None,
) -> Iterator[Progress]:
    """Fit the linear detectors and train the networks; measure all on the test people.

    ``steps``: of the three networks together, shared as in ``STEPS``. The state that is kept holds the
    networks that are finished.
    """
    total = sum(STEPS.values()) if steps is None else steps
    share = {name: max(1, round(total * n / sum(STEPS.values()))) for name, n in STEPS.items()}
    total = sum(share.values())
    spent = 0.0 if state is None else float(state["cpu_seconds"])
    began = time.process_time()
    torch.manual_seed(seed)  # for Meso-4's dropout
    models = detectors(seed)
    done: dict[str, dict[str, Tensor]] = {} if state is None else state["done"]
    split = parts(GENERATOR, seed=seed)
    train, validation = split["train"], split["validation"]
    for name in ("spectrum", "dct"):
        model = models[name]
        assert isinstance(model, spectrum.LinearDetector)
        spectrum.fit_linear(model, train.real, train.fake)
    one_class = models["one-class"]
    assert isinstance(one_class, spectrum.OneClass)
    spectrum.fit_one_class(
        one_class, train.real, validation.real, false_positive_rate=FALSE_POSITIVE_RATE
    )

    def kept() -> dict[str, Any]:
        return {"done": done, "cpu_seconds": spent + time.process_time() - began}

    before = 0
    for name, n in share.items():
        if name in done:
            models[name].load_state_dict(done[name])
        else:
            against = HARDENED if name == "hardened" else (GENERATOR,)
            others = [parts(g, seed=seed)["train"].fake for g in against[1:]]
            fake = torch.cat([train.fake, *others])  # the first is GENERATOR in both cases
            models[name].to(memory_format=torch.channels_last)  # twice as fast on a CPU
            for step in cnn.train_detector(
                models[name],
                train.real,
                fake,
                fabric=fabric,
                steps=n,
                batch_size=BATCH,
                lr=RATE[name],
                augment=blur_and_jpeg if name == "hardened" else None,
                seed=seed,
            ):
                text = f"{name}: loss {step.loss:.3f}, accuracy {step.accuracy:.2f}"
                yield Progress(before + step.step, total, text, state=kept)
            models[name].cpu().to(memory_format=torch.contiguous_format)
            done[name] = dict(models[name].state_dict())
        before += n
    models.eval()
    measures = measure(models, validation.real, seed)
    measures["CPU seconds"] = spent + time.process_time() - began
    yield Progress(
        total,
        total,
        ", ".join(f"{name} {measures[f'auc, {name}']:.3f}" for name in models),
        module=models,
        measures=measures,
        about={
            "summary": "Six detectors of made portraits, to be measured and broken: above 0 means "
            "generated.",
            "architecture": "course_lib.recipes.portrait_detectors.detectors: SpectrumDetector, "
            "DCTDetector, Meso4, SmallXception(widths=(16, 32, 64)), OneClass and DetectorNet(3)",
            "data": "Portraits through processing.prepare_portrait: 80 % of the training people to "
            "train, 20 % to choose thresholds for a false-positive rate of 5 %, the test people to "
            f"measure. Fakes: {GENERATOR}; for hardened {', '.join(HARDENED)}, blurred, resized and "
            "compressed by chance, as are the photographs that set its threshold; for one-class none. "
            "Intervals: 95 %, bootstrap over test images; they "
            "do not cover other training runs. After processing: see the experiment generators.",
            "licence": "MIT; the photographs are in the public domain",
            "limits": "Knows small generators of one set of portraits at 64 x 64 pixels, and mostly one "
            "of them. After JPEG or resizing thresholds do not hold, and one-class flags most real "
            "photographs. It can accuse nobody of anything.",
        },
    )


def measure(models: nn.ModuleDict, validation: Tensor, seed: int) -> dict[str, float]:
    """Return each detector's threshold, its AUC on "dcgan" with an interval, and on the others."""
    measures: dict[str, float] = {}
    tests = {generator: held_out(generator) for generator in forge.GENERATORS}
    for name, model in models.items():
        photographs = processed(validation, seed=seed) if name == "hardened" else validation
        threshold = evaluate.threshold_at(cnn.score(model, photographs), FALSE_POSITIVE_RATE)
        measures[f"threshold, {name}"] = threshold
        for generator, test in tests.items():
            result = judge(model, test.real, test.fake, threshold=threshold, seed=seed)
            if generator == GENERATOR:
                measures[f"auc, {name}"] = result.auc.value
                measures[f"auc, {name}, low"] = result.auc.low
                measures[f"auc, {name}, high"] = result.auc.high
                measures[f"tpr, {name}"] = result.tpr.value
                measures[f"fpr, {name}"] = result.fpr.value
            else:
                measures[f"auc, {name}, {generator}"] = result.auc.value
    return measures


def processed(photographs: Tensor, *, seed: int, rounds: int = 6) -> Tensor:
    """Return photographs (N, 3, 64, 64) blurred, resized and compressed by chance, ``rounds`` times.

    A threshold that has to hold after such processing has to be set on such photographs.
    """
    chance = device.generator(seed + 50)
    order = torch.cat([torch.randperm(len(photographs), generator=chance) for _ in range(rounds)])
    # Ten at a time: each batch is blurred or resized as one.
    return torch.cat([blur_and_jpeg(photographs[part], chance) for part in order.split(10)])


def held_out(generator: str) -> Part:
    """Return the test images: real ones and fakes; of "diffusion" all, as nothing is trained on it."""
    real = forge.originals(generator, "test")
    fake = forge.fakes(generator, "all" if generator == "diffusion" else "test")
    return Part(prepare_portrait(real.x), prepare_portrait(fake.x))


def judge(
    model: nn.Module, real: Tensor, fake: Tensor, *, threshold: float, seed: int = 0
) -> evaluate.Report:
    """Return the report of ``model`` on real and fake images, prepared and processed alike."""
    labels = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))]).long()
    scores = cnn.score(model, torch.cat([real, fake]))
    return evaluate.report(scores, labels, threshold=threshold, seed=seed)
