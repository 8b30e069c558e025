"""The attackers of the last chapter: for each treatment of a face a recogniser that knows it.

Chapter: book/detect/living.md
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from course_lib import checkpoints, device
from course_lib.data import actors
from course_lib.data.actors.parameters import clamp
from course_lib.detection import behaviour, compression, privacy
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

#: Who is whose (seeds of ``actors.identity``): nobody is in two of these, nobody is ``INVENTED``, and
#: the network that reads faces ("action-units") has met none of them.
RECOGNISED = range(6000, 6200)
MEASURED = range(8000, 8040)
INVENTED = 9
#: Frames of each person in training, and of each one measured: known to the attacker, and treated.
FRAMES, GALLERY, PROBES = 8, 4, 4
#: How many faces k-same averages.
K = 5
#: Where a bar over the eyes begins and ends, as shares of the height.
BAR = (0.40, 0.56)
#: The treatments, in the chapter's order.
TREATMENTS = ("untreated", "bar", "blur", "pixels", "k-same", "redrawn")
#: What is read off a face: three angles and six action units.
READ = behaviour.NAMES
ANGLES = ("yaw", "pitch", "roll")


def people(seeds: Sequence[int], n: int, *, draw: int) -> actors.Frames:
    """Draw ``n`` frames of each person: frame i of person j is row j * n + i.

    Everybody has poses, expressions, lights and walls of her own, and another ``draw`` gives others.
    Nobody wears glasses, hats or earrings, which would name them.
    """
    frames = [
        actors.sample(
            n,
            identity=actors.identity(who),
            seed=100_000 * draw + who,
            accessories=actors.Accessories(),
        )
        for who in seeds
    ]
    return actors.Frames(
        torch.cat([f.images for f in frames]),
        torch.cat([f.masks for f in frames]),
        torch.cat([f.parameters for f in frames]),
        frames[0].names,
    )


def known(frames: actors.Frames) -> Tensor:
    """Return the pose and expression behind each frame, (N, 9): the numbers of ``READ``."""
    return torch.stack([frames.column(name) for name in READ], dim=1)


@cache
def reader() -> behaviour.ActionUnitNet:
    """Load the network that reads pose and expression off a frame: checkpoint "action-units"."""
    net = checkpoints.load("action-units", behaviour.ActionUnitNet())
    assert isinstance(net, behaviour.ActionUnitNet)
    return net


def redraw(readings: Tensor, *, who: int = INVENTED) -> Tensor:
    """Draw the person ``who`` in the poses and with the expressions of ``readings`` (N, 9)."""
    poses, expressions = [], []
    for row in readings.tolist():
        value = dict(zip(READ, row, strict=True))
        angles = {name: value.pop(name) for name in ANGLES}
        poses.append(clamp(actors.Pose, **angles))
        expressions.append(clamp(actors.Expression, **value))
    return actors.render(actors.identity(who), poses, expressions).images


def treat(name: str, x: Tensor, *, n: int, seed: int = 0) -> Tensor:
    """Treat the frames ``x`` (N, 3, 64, 64), ``n`` of each person, person by person.

    k-same averages over people, frame by frame: set i holds frame i of everybody, and ``seed`` draws
    where its sets begin. Raises ``ValueError`` for a name that is not in ``TREATMENTS``.
    """
    if name == "untreated":
        return x
    if name == "bar":
        return privacy.cover(x, *BAR)
    if name == "blur":
        return compression.blur(x, 3.0)
    if name == "pixels":
        return privacy.pixelate(x, 8)
    if name == "redrawn":
        return redraw(behaviour.track(reader(), x))
    if name == "k-same":
        treated = torch.empty_like(x)
        chance = device.generator(seed)
        for i in range(n):
            treated[i::n] = privacy.k_same(x[i::n], K, generator=chance)[0]
        return treated
    raise ValueError(f"name: expected one of {', '.join(TREATMENTS)}; got {name!r}")


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Fit a recogniser to each treatment, in closed form, and measure them on people unseen.

    A step is a treatment; ``steps`` can leave out none, and ``fabric`` has nothing to do.
    """
    frames = people(RECOGNISED, FRAMES, draw=2)
    who = torch.arange(len(RECOGNISED)).repeat_interleave(FRAMES)
    recognisers = nn.ModuleDict()
    for step, name in enumerate(TREATMENTS, start=1):
        treated = treat(name, frames.images, n=FRAMES, seed=seed)
        recognisers[name] = privacy.fisherfaces(treated, who)
        yield Progress(step, len(TREATMENTS), f"a recogniser for {name}")
    recognisers = recognisers.eval().half()
    measures = measure(recognisers_of(copy.deepcopy(recognisers).float()))
    yield Progress(
        len(TREATMENTS),
        len(TREATMENTS),
        ", ".join(f"{key} {value:.3f}" for key, value in measures.items()),
        module=recognisers,
        measures=measures,
        about={
            "summary": "Recognisers of rendered people, clear and treated in five ways: the attackers "
            "that a de-identification is measured with.",
            "architecture": "nn.ModuleDict of course_lib.detection.privacy.Fisherfaces(), one for each "
            "of course_lib.recipes.deidentifier.TREATMENTS",
            "data": f"course_lib.data.actors: {FRAMES} frames of each of {len(RECOGNISED)} people; "
            f"measured on {GALLERY} + {PROBES} frames of each of {len(MEASURED)} others",
            "licence": "MIT",
            "limits": "Knows drawn faces at 64 pixels in the poses of actors.sample. It says nothing "
            "about real people and could recognise none.",
        },
    )


def load() -> dict[str, privacy.Fisherfaces]:
    """Load the checkpoint: each treatment's recogniser by name."""
    blank = nn.ModuleDict({name: privacy.Fisherfaces() for name in TREATMENTS})
    return recognisers_of(checkpoints.load("deidentifier", blank))


def recognisers_of(modules: nn.ModuleDict) -> dict[str, privacy.Fisherfaces]:
    """Return the recognisers of a ``nn.ModuleDict``, which forgets their type."""
    found = {}
    for name, recogniser in modules.items():
        assert isinstance(recogniser, privacy.Fisherfaces)
        found[name] = recogniser
    return found


def measure(recognisers: dict[str, privacy.Fisherfaces]) -> dict[str, float]:
    """Return who is recognised, by a naive attacker and by one who knows, and what is still read."""
    gallery = people(MEASURED, GALLERY, draw=3)
    probes = people(MEASURED, PROBES, draw=4)
    names = torch.arange(len(MEASURED)).repeat_interleave(GALLERY)
    truth = torch.arange(len(MEASURED)).repeat_interleave(PROBES)
    naive = recognisers["untreated"]
    found = {}
    for name, knowing in recognisers.items():
        treated = treat(name, probes.images, n=PROBES, seed=1)
        theirs = treat(name, gallery.images, n=GALLERY, seed=2)
        by_naive = privacy.identify(naive(treated), naive(gallery.images), names)
        by_knowing = privacy.identify(knowing(treated), knowing(theirs), names)
        follows = privacy.kept(behaviour.track(reader(), treated), known(probes))
        found[f"recognised, {name}"] = float((by_naive == truth).float().mean())
        found[f"recognised by who knows, {name}"] = float((by_knowing == truth).float().mean())
        found[f"pose kept, {name}"] = float(follows[:3].mean())
        found[f"expression kept, {name}"] = float(follows[3:].mean())
    return found
