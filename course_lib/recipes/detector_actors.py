"""A detector of swapped faces in video: rendered actors, each clip through the same H.264.

The fakes it learns from carry another actor's face, painted small and pasted in; the face swap of two
actors that ``face-swap`` was trained on is the method it has never seen.

Chapter: book/detect/frames.md
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checkpoints, device
from course_lib.autoencoders import swap
from course_lib.data import actors
from course_lib.detection.cnn import Meso4, score, train_detector
from course_lib.detection.compression import blur, h264, resize
from course_lib.detection.evaluate import Report, aggregate, report, shortcut_auc, threshold_at
from course_lib.detection.processing import quantise
from course_lib.recipes import Progress, face_swap

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 250
BATCH = 64
RATE = 3e-3

#: Seeds of ``actors.identity``: nobody is in two parts, neither as the scene's actor nor as the face.
PEOPLE = {
    "train": range(1000, 1100),
    "validation": range(2000, 2030),
    "test": range(3000, 3040),
}
FRAMES = 12
#: Clips of each of the two actors of ``face-swap``, whom the parts above do not hold.
UNSEEN_CLIPS = 12

#: What a video is saved as; FaceForensics++ calls the second c23 and the third c40.
QUALITIES: dict[str, int | None] = {"raw": None, "CRF 23": 23, "CRF 40": 40}
#: What each candidate learns from. One is chosen on validation people, raw and at CRF 23.
CANDIDATES = {"raw": ("raw",), "raw and CRF 23": ("raw", "CRF 23")}
#: Of real frames at CRF 23, on the people to choose: where the card's threshold comes from.
FALSE_POSITIVE_RATE = 0.01

#: A pasted face was painted at this share of its width and height, a quarter to two thirds of its
#: pixels; drawn for each clip.
SHARPNESS = (0.5, 0.8)
_WHO = [f.name for f in fields(actors.Identity) if f.name in actors.NAMES]

#: Clips as pairs: the actor's own, and the same with another's face, each (T, 3, 64, 64) in [0, 1].
Clips = list[tuple[Tensor, Tensor]]


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train ``Meso4`` on frames of 100 actors in two ways, keep the better one, measure on 40 others."""
    steps = STEPS if steps is None else steps
    total = len(CANDIDATES) * steps
    learn, choose = part("train"), part("validation")
    trained: dict[str, Meso4] = {}
    chosen_by: dict[str, float] = {}
    for i, (name, qualities) in enumerate(CANDIDATES.items()):
        real, fake = (
            torch.cat([frames for q in qualities for frames in saved(learn, q)[which]])
            for which in (0, 1)
        )
        torch.manual_seed(seed)  # dropout draws from the global stream
        model = Meso4(generator=device.generator(seed))
        for step in train_detector(
            model, real, fake, fabric=fabric, steps=steps, batch_size=BATCH, lr=RATE, seed=seed
        ):
            text = f"{name}: loss {step.loss:.3f}, accuracy {step.accuracy:.2f}"
            yield Progress(i * steps + step.step, total, text)
        trained[name] = model.cpu()
        found = [judge(trained[name], choose, q).auc.value for q in ("raw", "CRF 23")]
        chosen_by[f"validation AUC of a frame, trained on {name}"] = sum(found) / len(found)
    best = max(CANDIDATES, key=lambda n: chosen_by[f"validation AUC of a frame, trained on {n}"])
    measures = chosen_by | measure(trained, best, choose)
    yield Progress(
        total,
        total,
        f"trained on {best}: AUC {measures['video AUC, pasted, raw']:.3f}",
        module=trained[best],
        measures=measures,
        about={
            "summary": "A detector of swapped faces for frames of rendered actors: above 0 means that the "
            "face was replaced. It is there to be measured and broken.",
            "architecture": "course_lib.detection.cnn.Meso4: four convolutions with batch norm and "
            "pooling, two dense layers",
            "data": f"course_lib.data.actors, clips of {FRAMES} frames at 64 x 64: "
            f"{len(PEOPLE['train'])} people to train, {len(PEOPLE['validation'])} others to choose, "
            f"{len(PEOPLE['test'])} others to measure (seen method); {UNSEEN_CLIPS} clips of each of the "
            f"two actors of face-swap (unseen method). Each fake is the same clip with another face, and "
            f"both go through the same H.264. Trained on {best}, chosen from "
            f"{', '.join(CANDIDATES)} on the mean AUC at raw and CRF 23 of the people to choose. "
            "Intervals: 95 %, bootstrap over the people filmed, for face-swap over its clips; they do "
            "not cover other training runs.",
            "licence": "MIT",
            "limits": "Knows drawn faces of 64 pixels, and one way to replace them. What H.264 at CRF 40 "
            "and another method do to it, the chapter measures. It can accuse nobody of anything.",
        },
    )


def pasted(
    scene: actors.Identity, face: actors.Identity, n: int, *, seed: int
) -> tuple[Tensor, Tensor]:
    """Film ``scene`` and replace her face by ``face``'s: the real clip and the fake, (n, 3, 64, 64).

    Pose, expression, light and room are the same in both. The new face was painted on fewer pixels, as a
    face swap's network does, is moved to the colour of the old one, and fills what is face in both.

    Raises ``ValueError`` for n < 1 or a bad seed.
    """
    whole = actors.clip(n, identity=scene, seed=seed, size=96)
    changes = {name: float(getattr(face, name)) for name in _WHO}
    own, other = swap.cut(whole), swap.cut(actors.repaint(whole, size=96, **changes))
    low, high = SHARPNESS
    sharp = low + (high - low) * float(torch.rand(1, generator=device.generator(seed)))
    return own.images, _into(resize(other.images, sharp), own.images, own.masks * other.masks)


def swapped(model: swap.SwapNetwork, who: swap.Who, n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Film actor ``who`` of ``face-swap`` and let its network paint the other's face on her.

    The real clip and the fake, (n, 3, 64, 64). Raises ``ValueError`` for n < 1 or a bad seed.
    """
    person = face_swap.A if who == "a" else face_swap.B
    other: swap.Who = "b" if who == "a" else "a"
    plain = actors.Accessories()
    own = swap.cut(
        actors.clip(n, identity=actors.identity(person), seed=seed, size=96, accessories=plain)
    )
    return own.images, _into(swap.swap(model, own.images, other), own.images, own.masks)


def _into(face: Tensor, frame: Tensor, mask: Tensor) -> Tensor:
    """Paste ``face`` into ``frame`` in its mean colour, with an edge that lies inside the mask."""
    inside = 1 - F.max_pool2d(1 - mask, 3, stride=1, padding=1)
    soft = inside * blur(inside, 1.0)
    pixels = soft.sum((2, 3), keepdim=True).clamp_min(1)
    shift = (soft * (frame - face)).sum((2, 3), keepdim=True) / pixels
    return swap.blend((face + shift).clamp(0, 1), frame, soft)


def part(name: str, *, people: int | None = None) -> Clips:
    """Film every actor of a part of ``PEOPLE`` (or the first ``people``) once, with the next one's face.

    Raises ``ValueError`` for an unknown part.
    """
    if name not in PEOPLE:
        raise ValueError(f"name: expected one of {', '.join(PEOPLE)}, got {name!r}")
    seeds = list(PEOPLE[name])
    faces = [*seeds[1:], seeds[0]]
    pairs = zip(seeds[:people], faces, strict=False)
    return [pasted(actors.identity(a), actors.identity(b), FRAMES, seed=a) for a, b in pairs]


def unseen() -> Clips:
    """Film the two actors of ``face-swap`` and swap their faces with its network."""
    both = nn.ModuleDict({"swap": swap.SwapNetwork(), "judge": swap.Judge()})
    model = checkpoints.load("face-swap", both)["swap"]
    assert isinstance(model, swap.SwapNetwork)
    return [
        swapped(model, who, FRAMES, seed=4000 + i)
        for i in range(UNSEEN_CLIPS)
        for who in ("a", "b")
    ]


def saved(clips: Clips, quality: str) -> tuple[list[Tensor], list[Tensor]]:
    """Save real and fake clips alike, in one of ``QUALITIES``, and open them again.

    Raises ``ValueError`` for another quality.
    """
    if quality not in QUALITIES:
        raise ValueError(f"quality: expected one of {', '.join(QUALITIES)}, got {quality!r}")
    crf = QUALITIES[quality]
    files = [[quantise(x) if crf is None else h264(x, crf) for x in pair] for pair in clips]
    return [real for real, _ in files], [fake for _, fake in files]


def scores(model: nn.Module, clips: Clips, quality: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return each frame's score, its label and its video, (N,) each: all real clips, then all fakes."""
    videos = [x for kind in saved(clips, quality) for x in kind]
    video = torch.arange(len(videos)).repeat_interleave(len(videos[0]))
    return score(model, torch.cat(videos)), (video >= len(clips)).long(), video


def judge(
    model: nn.Module, clips: Clips, quality: str, *, threshold: float = 0.5, videos: bool = False
) -> Report:
    """Report on frames, or on whole ``videos`` by the mean of their frames.

    The intervals resample the clips, each real one with its fake.
    """
    s, y, video = scores(model, clips, quality)
    if videos:
        video, s = aggregate(s, video, "mean")
        y = (video >= len(clips)).long()
    return report(s, y, threshold=threshold, groups=video % len(clips))


def measure(trained: dict[str, Meso4], best: str, choose: Clips) -> dict[str, float]:
    """Return all that the card says of the test people, and of the method that was never seen."""
    real, _ = saved(choose, "CRF 23")
    threshold = threshold_at(score(trained[best], torch.cat(real)), FALSE_POSITIVE_RATE)
    measures = {"threshold": threshold}
    methods = {"pasted": part("test"), "face-swap": unseen()}
    for method, clips in methods.items():
        for quality in QUALITIES:
            at = f"{method}, {quality}"
            of_frames = judge(trained[best], clips, quality, threshold=threshold)
            of_videos = judge(trained[best], clips, quality, videos=True)
            for name, found in (
                (f"frame AUC, {at}", of_frames.auc),
                (f"frames caught, {at}", of_frames.tpr),
                (f"frames accused, {at}", of_frames.fpr),
                (f"video AUC, {at}", of_videos.auc),
            ):
                measures |= {
                    name: found.value,
                    f"{name} low": found.low,
                    f"{name} high": found.high,
                }
            for name, model in trained.items():
                if name != best:
                    other = judge(model, clips, quality)
                    measures[f"frame AUC, {at}, trained on {name}"] = other.auc.value
    for quality in QUALITIES:  # one frame of a video: those of one are too alike to count twice
        kinds = (
            torch.stack([x[len(x) // 2] for x in kind])
            for kind in saved(methods["pasted"], quality)
        )
        found_by = shortcut_auc(*kinds, seed=0)
        worst = max(found_by.values(), key=lambda e: e.value)
        measures |= {
            f"AUC of the best shortcut, {quality}": worst.value,
            f"AUC of the best shortcut, {quality} low": worst.low,
        }
    return measures
