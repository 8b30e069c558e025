"""Where a frame was changed: two nets that map it, and an image detector to explain instead.

The frames are of rendered actors, filmed by a simulated camera and then manipulated; which pixels were
changed is known exactly. Actors to train on, to choose by and to measure on are different people.

Chapter: book/detect/where.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import checkpoints, device
from course_lib.autoencoders import swap
from course_lib.data import actors
from course_lib.detection import compression, heatmap
from course_lib.detection.cnn import DetectorNet, score, train_detector
from course_lib.detection.evaluate import Estimate, report
from course_lib.detection.processing import quantise
from course_lib.recipes import Progress, face_swap

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 1_500
IMAGE_STEPS = 250
BATCH = 16
RATE = 4e-3
SIDE = 64

#: Seeds of ``actors.identity``: nobody is in two parts. Donors of swapped faces come from the same part.
TRAIN, VALIDATION, TEST = range(1000, 1064), range(2000, 2012), range(4000, 4024)
TRAIN_FRAMES, FRAMES = 5, 4

#: What was done to a frame. ``elsewhere`` changes a patch anywhere, so that a map of faces is not enough.
KINDS = ("swapped", "swapped, colours matched", "rescaled", "retouched", "elsewhere")

#: The kind that the image detector is trained on: that of which saliency has the best chance.
EXPLAINED = "rescaled"

#: The JPEG quality that every frame, changed or not, is saved with at the end; and a harder one.
QUALITY, LOW_QUALITY = 90, 60

#: The maps that are measured at the harder quality too.
HARDER = ("noise inconsistency", "patch alone", "patch compared")

#: The standard deviation of a camera's noise, from and to, in units of the image.
NOISE = (0.005, 0.045)

#: Standard deviations, in pixels, of the blurs from which each kind of map may take one.
BLURS = (0.0, 1.0, 2.0, 3.0)


@dataclass(frozen=True)
class Scene:
    """The same frames before and after a manipulation, with its mask.

    ``before``, ``after``: (N, 3, 64, 64) in [0, 1]; ``masks``: (N, 1, 64, 64), the share of each pixel
    that was replaced; ``people``: (N,), seeds of ``actors.identity``.
    """

    before: Tensor
    after: Tensor
    masks: Tensor
    people: Tensor

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.before)

    def saved(self, quality: int) -> Scene:
        """Return the scene with every frame, changed or not, saved as JPEG of one quality."""
        before, after = (compression.jpeg(x, quality) for x in (self.before, self.after))
        return Scene(before, after, self.masks, self.people)


def filmed(x: Tensor, generator: torch.Generator, *, noise: tuple[float, float] = NOISE) -> Tensor:
    """Film each frame with a camera of its own: sensor noise of one strength, and a JPEG file.

    A simulation: the noise is white and Gaussian, its standard deviation drawn from ``noise`` (its
    logarithm evenly); the quality of the file is drawn from 85 to 97. ``x``: (N, 3, H, W) in [0, 1].
    """
    low, high = noise
    sigma = low * (high / low) ** torch.rand(len(x), 1, 1, 1, generator=generator)
    noisy = (x + sigma * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    qualities = torch.randint(85, 98, (len(x),), generator=generator).tolist()
    files = [compression.jpeg(noisy[i : i + 1], quality) for i, quality in enumerate(qualities)]
    return torch.cat(files)


def scenes(people: range, frames: int, *, seed: int, anywhere: bool = False) -> dict[str, Scene]:
    """Draw ``frames`` of each actor and change them in every one of ``KINDS``.

    The donor of a face is the next actor in ``people``, in the same pose and light, filmed by another
    camera. With ``anywhere`` every kind of change is made in an ellipse anywhere in the frame, so that a
    face tells nothing. Nothing is saved at the end yet: ``Scene.saved`` does that to both sides alike.
    """
    chance = device.generator(seed)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {kind: [] for kind in KINDS}
    before, who = [], []
    for i, person in enumerate(people):
        donor = people[(i + 1) % len(people)]
        shot = int(torch.randint(2**31, (), generator=chance))
        target, other = (
            actors.sample(frames, identity=actors.identity(p), seed=shot) for p in (person, donor)
        )
        a, b = filmed(target.images, chance), filmed(other.images, chance)
        before.append(a)
        who += [person] * frames

        if anywhere:
            both = face = somewhere(len(a), chance)
        else:
            both, face = soft(torch.minimum(target.masks, other.masks)), soft(target.masks)
        found["swapped"].append((paste(a, b, both), both))
        matched = match_colours(b, a, both)
        found["swapped, colours matched"].append((paste(a, matched, both), both))

        found["rescaled"].append((paste(a, compression.resize(a, 0.5), face), face))

        moved, where = retouched(target)
        if anywhere:
            where = somewhere(len(a), chance)
        found["retouched"].append((paste(a, moved, where), where))

        place = somewhere(len(a), chance)
        fillings = (b.flip(3), compression.resize(a, 0.5), compression.blur(target.images, 1.0))
        which = torch.randint(len(fillings), (len(a),), generator=chance)
        filling = torch.stack(fillings)[which, torch.arange(len(a))]
        found["elsewhere"].append((paste(a, filling, place), place))
    x, y = torch.cat(before), torch.tensor(who)
    return {
        kind: Scene(x, torch.cat([z for z, _ in parts]), torch.cat([m for _, m in parts]), y)
        for kind, parts in found.items()
    }


def unseen(frames: int, *, seed: int) -> Scene:
    """Swap faces with the trained ``face-swap``, a kind of change that no map was trained on.

    Frames of its two actors, each with the other's face, painted by the network and pasted through the
    soft mask of the face. No detector has met the two.
    """
    chance = device.generator(seed)
    trained = nn.ModuleDict({"swap": swap.SwapNetwork(), "judge": swap.Judge()})
    trained = checkpoints.load("face-swap", trained)
    network = trained["swap"]
    assert isinstance(network, swap.SwapNetwork)
    parts = []
    ways: tuple[tuple[int, swap.Who], ...] = ((face_swap.A, "b"), (face_swap.B, "a"))
    for person, to in ways:
        target = swap.close_ups(actors.identity(person), frames, seed)
        a = filmed(target.images, chance)
        face = soft(target.masks)
        painted = swap.swap(network, a, to).clamp(0, 1)
        parts.append((a, paste(a, painted, face), face, torch.full((frames,), person)))
    return Scene(*(torch.cat(part) for part in zip(*parts, strict=True)))


def soft(masks: Tensor) -> Tensor:
    """Give masks (N, 1, H, W) a soft edge, inside what they were."""
    eroded = -F.max_pool2d(-masks, 3, stride=1, padding=1)
    return compression.blur(eroded, 0.8)


def paste(frame: Tensor, face: Tensor, masks: Tensor) -> Tensor:
    """Blend ``face`` into ``frame`` through the masks, and round to the levels of an image file."""
    return quantise((masks * face + (1 - masks) * frame).clamp(0, 1))


def match_colours(face: Tensor, frame: Tensor, masks: Tensor) -> Tensor:
    """Give each channel of ``face`` the mean and the spread that ``frame`` has within the mask.

    After Reinhard et al. (2001), in RGB and not in their colour space.
    """
    weight = masks / masks.sum(dim=(2, 3), keepdim=True).clamp_min(1e-6)

    def statistics(x: Tensor) -> tuple[Tensor, Tensor]:
        mean = (weight * x).sum(dim=(2, 3), keepdim=True)
        spread = (weight * (x - mean).square()).sum(dim=(2, 3), keepdim=True).sqrt()
        return mean, spread

    (mean_a, spread_a), (mean_b, spread_b) = statistics(frame), statistics(face)
    return ((face - mean_b) / spread_b.clamp_min(1e-3) * spread_a + mean_a).clamp(0, 1)


def retouched(frames: actors.Frames) -> tuple[Tensor, Tensor]:
    """Paint mouth and eyes anew with another expression: clean pictures of it, and the masks.

    Each face gets the one of two expressions from which it is further. What an expression moves by
    more than 15 grey levels, and two pixels around it, is the place to paint over.
    """
    talking = actors.repaint(frames, jaw_drop=0.9, smile=0.0, lip_stretch=0.0, eye_closure=0.0)
    smiling = actors.repaint(frames, jaw_drop=0.0, smile=1.0, lip_stretch=0.0, eye_closure=0.6)
    apart = [(frames.images - other.images).abs() for other in (talking, smiling)]
    smiles = (apart[1].sum((1, 2, 3)) > apart[0].sum((1, 2, 3))).view(-1, 1, 1, 1)
    painted = torch.where(smiles, smiling.images, talking.images)
    changed = (frames.images - painted).abs().amax(dim=1, keepdim=True) > 15 / 255
    wide = F.max_pool2d(changed.to(painted), 5, stride=1, padding=2)
    return painted, compression.blur(wide, 0.8)


def somewhere(n: int, generator: torch.Generator) -> Tensor:
    """Draw ``n`` soft ellipses anywhere in a frame: masks (n, 1, 64, 64)."""
    centre = SIDE * torch.rand(n, 2, 1, 1, generator=generator)
    radius = 6 + 10 * torch.rand(n, 2, 1, 1, generator=generator)
    pixel = torch.arange(SIDE) + 0.5
    down = (pixel[:, None] - centre[:, 0]) / radius[:, 0]
    right = (pixel[None, :] - centre[:, 1]) / radius[:, 1]
    inside = (down.square() + right.square() <= 1).float()[:, None]
    return compression.blur(inside, 0.8)


def training_set(seed: int) -> tuple[Tensor, Tensor]:
    """Return the frames for the patch nets, half of them untouched, and their masks.

    All changes are anywhere in the frame: a net that is shown changed faces only, and has little time,
    learns what a face looks like.
    """
    drawn = scenes(TRAIN, TRAIN_FRAMES, seed=10 * seed, anywhere=True)
    masks = torch.cat([scene.masks for scene in drawn.values()])
    x = torch.cat([s.after for s in drawn.values()] + [s.before for s in drawn.values()])
    return files(x, seed=10 * seed + 1), torch.cat([masks, torch.zeros_like(masks)])


def files(x: Tensor, *, seed: int) -> Tensor:
    """Save frames in many ways: one in four as PNG, the others as JPEG of a quality from 60 to 95."""
    chance = device.generator(seed)
    quality = torch.randint(60, 96, (len(x),), generator=chance).tolist()
    png = (torch.rand(len(x), generator=chance) < 0.25).tolist()
    saved = [
        quantise(x[i : i + 1]) if png[i] else compression.jpeg(x[i : i + 1], quality[i])
        for i in range(len(x))
    ]
    return torch.cat(saved)


Mapper = Callable[[Tensor], Tensor]


def mappers(models: nn.ModuleDict, place: Tensor) -> dict[str, Mapper]:
    """Return every way to draw a map: (N, 3, 64, 64) to (N, 1, 64, 64).

    ``place``: the mean mask of the training frames (1, 1, 64, 64), the map of someone who does not
    look at the image at all.
    """
    return {
        "always the middle": lambda x: place.expand(len(x), -1, -1, -1),
        "error level": lambda x: heatmap.error_level(x, QUALITY),
        "noise inconsistency": heatmap.patch_inconsistency,
        "saliency": lambda x: heatmap.saliency(models["image"], x),
        "patch alone": lambda x: heatmap.heat_map(models["alone"], x),
        "patch compared": lambda x: heatmap.heat_map(models["compared"], x),
    }


def networks(generator: torch.Generator | None = None) -> nn.ModuleDict:
    """Return the three untrained networks of the checkpoint: ``alone``, ``compared``, ``image``."""
    return nn.ModuleDict(
        {
            "alone": heatmap.PatchNet(compare=False, generator=generator),
            "compared": heatmap.PatchNet(compare=True, generator=generator),
            "image": DetectorNet(3, generator=generator),
        }
    )


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train both patch nets and the image detector on 64 actors; choose on 12 others, measure on 24."""
    steps = STEPS if steps is None else steps
    image_steps = min(IMAGE_STEPS, steps)
    total = 2 * steps + image_steps
    x, masks = training_set(seed)
    models = networks(device.generator(seed))
    done = 0
    for name in ("compared", "alone"):
        net = models[name]
        assert isinstance(net, heatmap.PatchNet)
        for step in heatmap.train_patches(
            net, x, masks, fabric=fabric, steps=steps, batch_size=BATCH, lr=RATE, seed=seed
        ):
            yield Progress(done + step.step, total, f"{name}: loss {step.loss:.4f}")
        done += steps
    faces = scenes(TRAIN, TRAIN_FRAMES, seed=10 * seed + 5)
    pasted = faces[EXPLAINED]
    both = files(torch.cat([pasted.before, pasted.after]), seed=10 * seed + 6)
    for step in train_detector(
        models["image"],
        both[: len(pasted)],
        both[len(pasted) :],
        fabric=fabric,
        steps=image_steps,
        batch_size=2 * BATCH,
        seed=seed,
    ):
        yield Progress(done + step.step, total, f"image: loss {step.loss:.3f}")
    models = models.cpu()
    place = torch.cat([scene.masks for scene in faces.values()]).mean(dim=0, keepdim=True)
    measures = measure(models, place, seed=seed)
    yield Progress(
        total,
        total,
        f"mean IoU of a swapped face {measures['IoU, patch compared, swapped']:.3f}",
        module=models,
        measures=measures,
        about={
            "summary": "Maps of where a rendered frame was changed: a patch judged alone, a patch compared "
            "with the rest of its image, and an image detector whose saliency is set beside them.",
            "architecture": 'nn.ModuleDict of "alone" and "compared" '
            "(course_lib.detection.heatmap.PatchNet, six convolutions, patches of 15 x 15 pixels) and "
            '"image" (course_lib.detection.cnn.DetectorNet(3))',
            "data": f"course_lib.data.actors, filmed by a simulated camera and changed in {len(KINDS)} "
            f"ways: {len(TRAIN)} actors to train on (the patch nets with changes anywhere, the image "
            f"detector with {EXPLAINED} faces), {len(VALIDATION)} to choose blur and threshold of "
            f"each kind of map by, {len(TEST)} to measure on, {FRAMES} frames each. Unseen: the swaps of "
            "face-swap, on its two actors. Every frame, changed or not, is saved as JPEG at quality "
            f"{QUALITY} (and {LOW_QUALITY}). Intervals: 95 %, bootstrap over actors; over frames for the "
            "unseen swaps, of which there are two actors only; they do not cover other training runs.",
            "licence": "MIT",
            "limits": "Knows drawings of 64 pixels, a camera whose noise is simulated, and five ways to "
            "change a frame. On photographs it has shown nothing. A map is no proof of anything.",
        },
    )


def measure(models: nn.ModuleDict, place: Tensor, *, seed: int) -> dict[str, float]:
    """Choose each map's blur and threshold on validation actors; measure all maps on the test's."""
    chosen = scenes(VALIDATION, FRAMES, seed=10 * seed + 2)
    judged = scenes(TEST, FRAMES, seed=10 * seed + 3)
    judged["unseen swap"] = unseen(30, seed=10 * seed + 4)
    found: dict[str, float] = {}

    def add(name: str, estimate: Estimate) -> None:
        found[name] = estimate.value
        found[f"{name} low"], found[f"{name} high"] = estimate.low, estimate.high

    learnt = [scene.saved(QUALITY) for scene in chosen.values()]
    masks = torch.cat([scene.masks for scene in learnt])
    ways = mappers(models, place)
    settings = {}
    for name, draw in ways.items():
        raw = torch.cat([draw(scene.after) for scene in learnt])
        best = (-1.0, 0.0, 0.0)
        for sigma in BLURS:
            threshold, mean = heatmap.best_threshold(smooth(raw, sigma), masks, tried=40)
            best = max(best, (mean, sigma, threshold))
        settings[name] = best[1:]
        found[f"blur, {name}"], found[f"threshold, {name}"] = best[1:]

    for quality, suffix in ((QUALITY, ""), (LOW_QUALITY, f", JPEG {LOW_QUALITY}")):
        tests = {kind: scene.saved(quality) for kind, scene in judged.items()}
        for name, draw in ways.items():
            if quality != QUALITY and name not in HARDER:
                continue
            sigma, threshold = settings[name]
            untouched: dict[str, Tensor] = {}
            for kind, test in tests.items():
                few = kind == "unseen swap"  # two actors: all that is known is how frames differ
                people = torch.arange(len(test)) if few else test.people
                of = f"{name}, {kind}{suffix}"
                source = kind if few else KINDS[0]  # the frames before are the same in all KINDS
                if source not in untouched:
                    untouched[source] = smooth(draw(test.before), sigma)
                    area = (untouched[source] >= threshold).double().mean(dim=(1, 2, 3))
                    add(f"area, {of}", heatmap.over_people(area, people, seed=seed))
                maps = smooth(draw(test.after), sigma)
                values = {
                    "IoU": heatmap.iou(maps, test.masks, threshold),
                    "same place": heatmap.same_place_auc(maps, untouched[source], test.masks),
                }
                if quality == QUALITY:
                    values["AUC"] = heatmap.pixel_auc(maps, test.masks)
                for measured, value in values.items():
                    add(f"{measured}, {of}", heatmap.over_people(value, people, seed=seed))

    known = judged[EXPLAINED].saved(QUALITY)
    labels = torch.arange(2 * len(known)) // len(known)
    scores = score(models["image"], torch.cat([known.before, known.after]))
    groups = torch.cat([known.people, known.people])
    add(f"AUC of the image detector, {EXPLAINED}", report(scores, labels, groups=groups).auc)
    return found


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Blur maps (N, 1, H, W) of any range by ``sigma`` pixels."""
    top = maps.amax().clamp_min(1e-12)
    return compression.blur(maps / top, sigma) * top
