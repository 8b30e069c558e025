"""The network that hears spoken digits, for the attacks on sound: trained plainly, with no defence.

Chapter: book/deceive/heard.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import data
from course_lib.attacks.audio import SpeechNet
from course_lib.classifiers import accuracy, fit
from course_lib.data.spoken_digits import SPEAKERS, Recordings
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

#: Steps and variations were chosen on the training speakers, one left out at a time.
STEPS = 900
#: Samples of each recording that are used: 0.8 seconds, which holds nearly every word.
SAMPLES = 6400


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train ``SpeechNet`` on nine takes of every digit by four speakers.

    Measured on the tenth takes, and on two speakers that it has never heard.
    """
    steps = STEPS if steps is None else steps
    train, test = data.spoken_digits("train"), data.spoken_digits("test")
    kept = last_takes(train)
    seen, held_out = train.subset(~kept), train.subset(kept)
    torch.manual_seed(seed)
    model = SpeechNet()
    for step in fit(
        model,
        seen.x[:, :SAMPLES],
        seen.y,
        steps=steps,
        batch_size=min(50, len(seen)),
        lr=3e-3,
        weight_decay=0.05,
        transform=varied,
        fabric=fabric,
        seed=seed,
    ):
        yield Progress(step.step, steps, f"loss {step.loss:.3f}, accuracy {step.accuracy:.2f}")
    model = model.cpu()
    measures = {
        "accuracy, unseen speakers": heard(model, test),
        "accuracy, held-out takes of the training speakers": heard(model, held_out),
        "training accuracy": heard(model, seen),
    }
    for group in test.group.unique():
        name = SPEAKERS[int(group)]
        measures[f"accuracy, unseen speaker {name}"] = heard(
            model, test.subset(test.group == group)
        )
    yield Progress(
        steps,
        steps,
        f"unseen speakers {measures['accuracy, unseen speakers']:.3f}",
        module=model,
        measures=measures,
        about={
            "summary": "Hears spoken English digits, from the waveform up: what the attacks on sound "
            "are tried on.",
            "architecture": "course_lib.attacks.audio.SpeechNet: log-mel power, three strided "
            "convolutions, one over time, the maximum over time, one dense layer",
            "data": "Free Spoken Digit Dataset, the course's sample: 360 recordings of four speakers, "
            "each varied in speed, delay, colour and noise; measured on 40 more takes of theirs and on "
            "200 recordings of two other speakers",
            "licence": "MIT; the data is CC BY-SA 4.0 (Free Spoken Digit Dataset)",
            "limits": "Learned from four men who recorded themselves; other voices are heard worse, "
            "and two speakers say little about how much. Anyone who has its weights can make it "
            "mishear: never let it decide anything.",
        },
    )


def last_takes(recordings: Recordings) -> Tensor:
    """Mark the last recording of each digit by each speaker: bool (N,)."""
    word = recordings.group * 10 + recordings.y
    later = torch.arange(len(word))[None] > torch.arange(len(word))[:, None]
    return ~((word[:, None] == word[None]) & later).any(dim=1)


def heard(model: SpeechNet, recordings: Recordings) -> float:
    """Return the share of recordings that the model hears right."""
    return accuracy(model, recordings.x[:, :SAMPLES], recordings.y, batch_size=100)


def varied(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return each sound (N, T) as another might say it elsewhere.

    Up to a quarter faster or slower, with its pitch; up to 50 ms late; through a microphone that
    colours it (nine random taps); in noise 25 to 65 dB below its peak.
    """
    n, t = x.shape

    def uniform() -> Tensor:
        return torch.rand(n, 1, generator=generator)

    speed = 1 + 0.25 * (2 * uniform() - 1)
    at = (torch.arange(t) - 400 * uniform()) * speed
    before = at.floor().long()
    padded = F.pad(x, (1, 1))  # silence before and after
    left, right = (padded.gather(1, (before + k).clamp(0, t + 1)) for k in (1, 2))
    x = left + (at - before) * (right - left)
    taps = 0.35 * uniform() * torch.randn(n, 9, generator=generator)
    taps[:, 4] += 1
    x = F.conv1d(x[None], taps[:, None], padding=4, groups=n)[0]
    level = 10 ** (-(25 + 40 * uniform()) / 20) * x.abs().amax(dim=1, keepdim=True)
    return x + level * torch.randn(n, t, generator=generator)
