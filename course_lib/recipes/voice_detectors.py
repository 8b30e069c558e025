"""Detectors of synthesised digits: LFCC-GMM and LCNN, for three training sets and three folds each.

Chapter: book/detect/listening.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import data, device
from course_lib.data.synthetic_digits import synthetic_digits
from course_lib.detection import voice
from course_lib.detection.cnn import train_detector
from course_lib.detection.evaluate import report
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

#: Steps of each LCNN, chosen by the loss on its training set.
STEPS = 200
FOLDS = 3
#: What the machines of a training set were made by.
TRAINING: dict[str, tuple[int, ...]] = {"flite": (1,), "espeak": (2,), "both": (1, 2)}
#: How much of an untouched recording the detector "raw" hears: 0.8 seconds.
RAW = 6400


@dataclass(frozen=True, eq=False)
class Voices:
    """People and machines: sounds ``x`` (N, T) as they came, and what is known of each, int64 (N,).

    ``y``: 1 for a machine; ``group``: the speaker 0..5 or voice 6..13; ``kind``: 0 person, 1 Flite, 2
    eSpeak NG; ``fold`` 0..2: a speaker or voice is tested by the detectors that were trained on the
    other folds; ``digit`` 0..9.
    """

    x: Tensor
    length: Tensor
    y: Tensor
    group: Tensor
    kind: Tensor
    fold: Tensor
    digit: Tensor


def voices() -> Voices:
    """Load the 600 recordings of people and 320 of machines, whole speakers dealt into folds."""
    people, machines = data.spoken_digits("all"), synthetic_digits()
    longest = max(people.x.shape[1], machines.x.shape[1])
    x = [F.pad(part.x, (0, longest - part.x.shape[1])) for part in (people, machines)]
    kind = torch.cat([torch.zeros_like(people.y), 1 + machines.synthesiser])
    group = torch.cat([people.group, 6 + machines.group])
    return Voices(
        x=torch.cat(x),
        length=torch.cat([people.length, machines.length]),
        y=(kind > 0).long(),
        group=group,
        kind=kind,
        fold=voice.folds(group, kind, FOLDS, seed=0),
        digit=torch.cat([people.y, machines.y]),
    )


def detectors() -> nn.ModuleDict:
    """Return the detectors untrained: gmm and lcnn on each training set, raw on both, by fold."""
    found: dict[str, nn.Module] = {}
    for fold in range(FOLDS):
        found[f"raw-both-{fold}"] = voice.LFCCGMM()
        for name in TRAINING:
            found[f"gmm-{name}-{fold}"] = voice.LFCCGMM()
            found[f"lcnn-{name}-{fold}"] = voice.LCNN(generator=device.generator(fold))
    return nn.ModuleDict(found)


@torch.no_grad()
def held_out(models: nn.ModuleDict, kind: str, seen: Tensor, fold: Tensor) -> Tensor:
    """Return each sound's score (N,) by the detector that has not heard its speaker or voice.

    ``kind``: such as ``gmm-flite``; ``seen``: what it hears, ``voice.lfcc`` features for gmm and raw,
    ``voice.spectrogram`` pictures for lcnn; ``fold`` (N,). In double precision.
    """
    scores = torch.zeros(len(seen), dtype=torch.float64)
    for i in range(FOLDS):
        model = models[f"{kind}-{i}"]
        judge = model.ratio if isinstance(model, voice.LFCCGMM) else model
        scores[fold == i] = judge(seen[fold == i]).double().sigmoid()
    return scores


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train every detector on two folds of three and measure it on the speakers and voices of the third."""
    steps = STEPS if steps is None else steps
    total = FOLDS * (1 + len(TRAINING) * (1 + steps))
    done = 0
    v = voices()
    channel = voice.same_channel(v.x, v.length, seed=seed)
    raw, features = voice.lfcc(v.x[:, :RAW]), voice.lfcc(channel)
    pictures = voice.spectrogram(channel)
    models = detectors()
    for fold in range(FOLDS):
        person = (v.fold != fold) & (v.kind == 0)
        for name, made_by in TRAINING.items():
            machine = (v.fold != fold) & torch.isin(v.kind, torch.tensor(made_by))
            hears = {"gmm": features, "raw": raw} if name == "both" else {"gmm": features}
            for kind, frames in hears.items():
                model = models[f"{kind}-{name}-{fold}"]
                assert isinstance(model, voice.LFCCGMM)
                model.fit(frames[person], frames[machine], seed=seed)
                done += 1
                yield Progress(done, total, f"{kind} on {name}, fold {fold}: fitted")
            # As many of each kind in the batches: the machines are repeated.
            again = -(-int(person.sum()) // int(machine.sum()))
            for step in train_detector(
                models[f"lcnn-{name}-{fold}"],
                pictures[person],
                pictures[machine].repeat(again, 1, 1, 1),
                fabric=fabric,
                steps=steps,
                batch_size=32,
                seed=seed,
            ):
                done += 1
                yield Progress(done, total, f"lcnn on {name}, fold {fold}: loss {step.loss:.3f}")
    models = models.cpu().eval()
    inputs = {"raw": raw, "gmm": features, "lcnn": pictures}
    measures: dict[str, float] = {}
    for kind, seen in inputs.items():
        for name in TRAINING if kind != "raw" else ("both",):
            scores = held_out(models, f"{kind}-{name}", seen, v.fold)
            for tested, made_by in TRAINING.items():
                if (name == "both") != (tested == "both"):
                    continue
                of = (v.kind == 0) | torch.isin(v.kind, torch.tensor(made_by))
                eer = report(scores[of], v.y[of], groups=v.group[of], seed=seed).eer
                words = f"eer, {kind}, {name} to {tested}"
                measures |= {words: eer.value, f"{words} low": eer.low, f"{words} high": eer.high}
    yield Progress(
        total,
        total,
        f"EER {measures['eer, gmm, both to both']:.3f}",
        module=models,
        measures=measures,
        about={
            "summary": "Detectors of digits spoken by two old speech synthesisers, each with the fold of "
            "speakers and voices that it has not heard. They are there to be measured and broken.",
            "architecture": "course_lib.detection.voice.LFCCGMM (two mixtures of 16 Gaussians over 60 "
            "coefficients) and LCNN (three convolutions with max-feature-map), nine of each, and three "
            "LFCCGMM on untouched recordings",
            "data": "Free Spoken Digit Dataset, the course's sample (six speakers), and the course's "
            "synthetic_digits (eight voices); through voice.same_channel but for raw. Three folds by "
            "speaker and voice. Intervals: 95 %, bootstrap over speakers and voices; they do not cover "
            "other training runs.",
            "licence": "MIT; the data is CC BY-SA 4.0 (spoken digits) and as synthetic_digits says",
            "limits": "Six men, eight voices of two programs from before neural synthesis, a quarter of "
            "a second of single words. They fail on the synthesiser that they were not trained on, which "
            "the chapter measures. They say nothing about a cloned voice and can accuse nobody.",
        },
    )
