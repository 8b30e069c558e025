"""Twelve people and who plays them: how well a model of each one's manner tells, and when it stops.

Each person has clips of her own for learning, for validation and for testing, and 6 impersonators who
wear her face. ``tracks`` rows use the movements as they were made, over clip lengths, numbers of clips
and how well the impersonator studied her; ``pixels`` rows the movements that a network reads from the
rendered frames, also after compression. ``texture`` asks a detector for images about the same frames.

Chapter: book/detect/behaviour.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields, replace

import torch
from torch import Tensor

from course_lib import checkpoints, device, metrics
from course_lib.data import actors
from course_lib.data.actors import Background, Expression, Frames, Identity, Light, Manner, Pose
from course_lib.detection import cnn, evaluate
from course_lib.detection.behaviour import (
    NAMES,
    ActionUnitNet,
    OneClass,
    correlation_features,
    track,
)
from course_lib.detection.compression import jpeg, resize
from course_lib.detection.processing import quantise

PEOPLE = range(500, 512)
IMPERSONATORS = 6
#: Frames per second, enough for movements below 5 Hz, and seconds of a clip as Agarwal et al. cut them.
FPS, SECONDS = 10, 10
LENGTHS = (1, 2, 4, 10, 20)
COUNTS = (2, 4, 8, 15, 30, 60)
STUDIED = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
#: Clips to learn from, to choose on, to test on, and of all impersonators together.
LEARN, CHOOSE, TEST, PLAYED = 60, 20, 30, 30
#: What clips are for; "again" is her own once more, the others are of another occasion or person.
PARTS = ("learn", "choose", "test", "again", "played", "learn too", "choose too")
#: Rendering is dear, so that fewer clips are filmed.
FILMED = {"learn": 24, "choose": 12, "test": 12, "played": 12}
#: What happens to frames on their way.
CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "raw": lambda x: x,
    "JPEG 40": lambda x: jpeg(x, 40),
    "half size": lambda x: resize(x, 0.5),
}
#: What a lip-sync replaces; the rest of the face and the head stay hers.
MOUTH = ("jaw_drop", "lip_stretch")
#: The detector for images: people it learns from, people it is tested on, frames of each, and steps.
SEEN, UNSEEN = range(4000, 4080), range(4100, 4140)
STILLS, STEPS = 6, 250


def cells() -> list[dict[str, str | int | float]]:
    """Return one row of tracks and one of pixels per person, and two of the detector for images."""
    rows: list[dict[str, str | int | float]] = [
        {"of": of, "person": who} for of in ("tracks", "pixels") for who in PEOPLE
    ]
    return rows + [{"of": "texture", "trace": trace} for trace in (0, 1)]


def measure(**cell: str | int | float) -> dict[str, float]:
    """Measure one row; every AUC is that of her own test clips against the fakes named."""
    torch.set_num_threads(1)
    if cell["of"] == "texture":
        return texture(traced=bool(cell["trace"]))
    who = int(cell["person"])
    return on_tracks(who) if cell["of"] == "tracks" else on_pixels(who)


# Movements


def moves(n: int, *, manner: Manner, seed: int) -> Tensor:
    """Return ``n`` frames of true tracks in this manner, (n, 9) in the order of ``NAMES``."""
    return rows(*actors.tracks(n, manner=manner, seed=seed, fps=FPS))


def rows(poses: list[Pose], expressions: list[Expression]) -> Tensor:
    """Return poses and expressions as tracks, (n, 9)."""
    return torch.tensor(
        [
            [getattr(pose if hasattr(pose, name) else expression, name) for name in NAMES]
            for pose, expression in zip(poses, expressions, strict=True)
        ]
    )


def clips(manner: Manner, seeds: Iterable[int], *, seconds: float = SECONDS) -> Tensor:
    """Return one clip per seed, (N, T, 9). The first seconds of a longer clip are those of a shorter."""
    return torch.stack([moves(round(seconds * FPS), manner=manner, seed=seed) for seed in seeds])


def seeds(who: int, part: str, count: int) -> range:
    """Return the seeds of a part of this person's clips; no two parts share one."""
    start = 10_000 * who + 1_000 * PARTS.index(part)
    return range(start, start + count)


def manner(who: int) -> Manner:
    """Return this person's own manner."""
    return actors.manner_of(actors.identity(who))


def impersonators(who: int) -> list[Manner]:
    """Return the manners of those who play this person; everybody has others."""
    return [manner(20_000 + 100 * who + k) for k in range(IMPERSONATORS)]


def played(by: list[Manner], who: int, count: int, *, seconds: float = SECONDS) -> Tensor:
    """Return ``count`` clips of this person played by these manners in turn, (count, T, 9)."""
    order = seeds(who, "played", count)
    return torch.cat([clips(by[i % len(by)], [s], seconds=seconds) for i, s in enumerate(order)])


def lip_sync(hers: Tensor, other: Tensor) -> Tensor:
    """Return her clips with the mouth of the other's: both (N, T, 9)."""
    mouth = torch.tensor([name in MOUTH for name in NAMES])
    return torch.where(mouth, other, hers)


def studied(his: Manner, hers: Manner, share: float) -> Manner:
    """Return a manner ``share`` of the way from his (0) to hers (1), in every habit."""
    a, b = asdict(his), asdict(hers)
    return Manner(**{name: (1 - share) * a[name] + share * b[name] for name in a})


def another_occasion(hers: Manner) -> Manner:
    """Return her manner on another day: lively where she was calm, silent where she talked, and back."""
    return replace(
        hers,
        energy=0.4 if hers.energy > 0.75 else 1.0,
        talkative=0.3 if hers.talkative > 0.65 else 0.95,
    )


def auc(model: OneClass, own: Tensor, fake: Tensor) -> float:
    """Return the AUC of the model's scores of her features against those of the fakes."""
    scores = torch.cat([model.score(own), model.score(fake)])
    return metrics.auc(scores, (torch.arange(len(scores)) >= len(own)).long())


def alarms(model: OneClass, features: Tensor) -> float:
    """Return the share of clips that raise an alarm."""
    return float((model.score(features) >= model.threshold).double().mean())


def on_tracks(who: int) -> dict[str, float]:
    """Measure this person by true tracks, over clip length, number of clips and study."""
    hers, longest = manner(who), max(LENGTHS)
    found: dict[str, float] = {}
    part = {
        name: clips(hers, seeds(who, name, count), seconds=longest)
        for name, count in (("learn", LEARN), ("choose", CHOOSE), ("test", TEST), ("again", TEST))
    }
    part["impersonator"] = played(impersonators(who), who, PLAYED, seconds=longest)
    part["lip-sync"] = lip_sync(part["again"], part["impersonator"])
    part["another occasion"] = clips(
        another_occasion(hers), seeds(who, "played", PLAYED), seconds=longest
    )
    fakes = {"impersonator": "impersonator", "lip-sync": "lip-sync", "same manner": "again"}
    fakes |= {"another occasion": "another occasion"}
    for seconds in LENGTHS:
        r = {name: correlation_features(x[:, : seconds * FPS]) for name, x in part.items()}
        model = OneClass().fit(r["learn"], r["choose"])
        for name, key in fakes.items():
            found[f"auc, {name}, {seconds} s"] = auc(model, r["test"], r[key])
            found[f"alarms, {name}, {seconds} s"] = alarms(model, r[key])
        found[f"alarms, own, {seconds} s"] = alarms(model, r["test"])
        if seconds == SECONDS:
            for count in COUNTS:
                few = OneClass().fit(r["learn"][:count], r["choose"])
                for name in ("impersonator", "lip-sync"):
                    found[f"auc, {name}, {count} clips"] = auc(few, r["test"], r[name])
            for share in STUDIED:
                by = [studied(his, hers, share) for his in impersonators(who)]
                fake = correlation_features(played(by, who, PLAYED))
                found[f"auc, studied {share:g}"] = auc(model, r["test"], fake)
            # The remedy: half of what is learned and chosen on comes from the other occasion.
            other = another_occasion(hers)
            both = [
                torch.cat(
                    [
                        r[name][: count // 2],
                        correlation_features(clips(other, seeds(who, f"{name} too", count // 2))),
                    ]
                )
                for name, count in (("learn", LEARN), ("choose", CHOOSE))
            ]
            broad = OneClass().fit(*both)
            for name in ("impersonator", "lip-sync", "another occasion"):
                found[f"auc, {name}, both learned"] = auc(broad, r["test"], r[fakes[name]])
                found[f"alarms, {name}, both learned"] = alarms(broad, r[fakes[name]])
            found["alarms, own, both learned"] = alarms(broad, r["test"])
    return found


# Pictures


def film(
    person: Identity, seed: int, poses: list[Pose], expressions: list[Expression], *, size: int = 64
) -> Frames:
    """Render these movements with this person's face, in the room and clothes of the seed."""
    still = actors.clip(1, identity=person, seed=seed, size=32)
    light = Light(**{f.name: float(still.column(f.name)) for f in fields(Light)})
    wall = Background(**{f.name: float(still.column(f.name)) for f in fields(Background)})
    return actors.render(
        person, poses, expressions, light, actors.wears(person, seed), wall, size=size
    )


def on_pixels(who: int) -> dict[str, float]:
    """Measure this person by tracks that ``action-units`` reads from frames, raw and compressed."""
    net = checkpoints.load("action-units", ActionUnitNet())
    person, hers, n = actors.identity(who), manner(who), SECONDS * FPS
    others = impersonators(who)
    read: dict[tuple[str, str], list[Tensor]] = {}
    true: dict[str, list[Tensor]] = {}
    for part, count in FILMED.items():
        for i, seed in enumerate(seeds(who, part, count)):
            by = others[i % IMPERSONATORS] if part == "played" else hers
            poses, expressions = actors.tracks(n, manner=by, seed=seed, fps=FPS)
            shots = {part: (poses, expressions)}
            if part == "played":
                kept = actors.tracks(n, manner=hers, seed=seeds(who, "again", count)[i], fps=FPS)
                mouths = [
                    replace(face, **{name: getattr(mouth, name) for name in MOUTH})
                    for face, mouth in zip(kept[1], expressions, strict=True)
                ]
                shots["lip-sync"] = (kept[0], mouths)
            for name, moved in shots.items():
                images = film(person, seed, *moved).images
                true.setdefault(name, []).append(rows(*moved))
                for change in CHANGES if part in ("test", "played") else ("raw",):
                    estimate = track(net, CHANGES[change](images))
                    read.setdefault((name, change), []).append(estimate)
    r = {name: correlation_features(torch.stack(x)) for name, x in true.items()}
    model = OneClass().fit(r["learn"], r["choose"])
    found = {
        f"auc, {name}, true tracks": auc(model, r["test"], r[key])
        for name, key in (("impersonator", "played"), ("lip-sync", "lip-sync"))
    }
    q = {key: correlation_features(torch.stack(x)) for key, x in read.items()}
    model = OneClass().fit(q["learn", "raw"], q["choose", "raw"])
    for change in CHANGES:
        for name, key in (("impersonator", "played"), ("lip-sync", "lip-sync")):
            found[f"auc, {name}, {change}"] = auc(model, q["test", change], q[key, change])
            found[f"alarms, {name}, {change}"] = alarms(model, q[key, change])
        found[f"alarms, own, {change}"] = alarms(model, q["test", change])
    return found


def texture(*, traced: bool) -> dict[str, float]:
    """Train ``DetectorNet`` on frames of people and of who plays them; measure it on other people.

    ``traced``: the fakes were halved and enlarged again, as a generator's may be: the control.
    """
    x = {
        (part, fake): torch.cat([_frames(who, fake=fake) for who in people])
        for part, people in (("learn", SEEN), ("test", UNSEEN))
        for fake in (False, True)
    }
    if traced:
        x = {key: resize(images, 0.5) if key[1] else images for key, images in x.items()}
    x = {key: quantise(images) for key, images in x.items()}  # as any file would be
    model = cnn.DetectorNet(3, width=8, generator=device.generator(0))
    fabric = device.launch(accelerator="cpu")
    for _ in cnn.train_detector(
        model,
        x["learn", False],
        x["learn", True],
        fabric=fabric,
        steps=STEPS,
        batch_size=32,
        seed=0,
    ):
        pass
    real, fake = x["test", False], x["test", True]
    labels = torch.cat([torch.zeros(len(real)), torch.ones(len(fake))]).long()
    group = torch.arange(len(real)) // STILLS
    result = evaluate.report(
        cnn.score(model, torch.cat([real, fake])), labels, groups=torch.cat([group, group])
    )
    # Both films of a person in one half: a twin on either side would be a clue, the wrong way round.
    shortcuts = evaluate.shortcut_auc(real, fake, seed=0, groups=torch.cat([group, group]))
    return {
        "auc": result.auc.value,
        "low": result.auc.low,
        "high": result.auc.high,
        **{f"shortcut {name}, low": e.low for name, e in shortcuts.items()},
        **{f"shortcut {name}": e.value for name, e in shortcuts.items()},
        **{f"shortcut {name}, high": e.high for name, e in shortcuts.items()},
    }


def _frames(who: int, *, fake: bool) -> Tensor:
    """Return frames of one person, a second apart, in her own manner or played."""
    by = manner(20_000 + 100 * who) if fake else manner(who)
    person = actors.identity(who)
    return actors.clip(STILLS, identity=person, seed=who, fps=1.0, manner=by).images
