"""The race: what each move costs, and which detectors still catch the fakes after it.

A row is a move of the attacker: the 175 test fakes after it (the tuned generator and the unseen one draw
their own), judged by every detector at the threshold that accuses one real validation portrait in 20.
``course train race-moves`` trains those who move.

Chapter: book/detect/race.md
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from course_lib import checkpoints, device, forge
from course_lib.detection import compression, race
from course_lib.detection.cnn import score
from course_lib.detection.evaluate import threshold_at
from course_lib.detection.processing import prepare_portrait
from course_lib.recipes import race_moves
from course_lib.recipes.race_moves import FALSE_POSITIVE_RATE, MARGIN, climb, draw_from

#: Steps of PGD, and how many random JPEGs an attacker averages over.
STEPS, DRAWS = 12, 2
#: The qualities of the JPEG through which the last judge sees an image.
QUALITIES = (50, 95)

#: Who judges: four detectors, the last three of them together, and these behind a random JPEG.
JUDGES = ("cnn", "spectrum", "dct", "retrained", "ensemble", "random")
#: What anyone can do to a file who knows no detector at all.
LAUNDERING: dict[str, Callable[[Tensor], Tensor]] = {
    "JPEG 75": lambda x: compression.jpeg(x, 75),
    "half size": lambda x: compression.resize(x, 0.5),
    "blur 1": lambda x: compression.blur(x, 1.0),
}
#: Attacks by gradient: on which detector, at which budgets, of 255.
GRADIENT = {
    "cnn": (1, 2, 4, 8),
    "copy": (4, 8),
    "spectrum": (1, 2),
    "retrained": (2, 4, 8),
    "ensemble": (4, 8),
    "random": (8,),
}


def cells() -> list[dict[str, str | int]]:
    """Return the moves, in the order in which the chapter makes them; ``eps`` is of 255, 0 for none."""
    rows: list[dict[str, str | int]] = [{"move": "none", "eps": 0, "seed": 0}]
    rows += [{"move": name, "eps": 0, "seed": 0} for name in LAUNDERING]
    for name in ("cnn", "copy", "spectrum"):
        rows += [{"move": name, "eps": eps, "seed": 0} for eps in GRADIENT[name]]
    rows += [{"move": name, "eps": 0, "seed": 0} for name in ("filter", "generator")]
    for name in ("retrained", "ensemble", "random"):
        rows += [{"move": name, "eps": eps, "seed": 0} for eps in GRADIENT[name]]
    return [*rows, {"move": "diffusion", "eps": 0, "seed": 0}]


def measure(*, move: str, eps: int, seed: int) -> dict[str, float]:
    """Make one move and let every judge see the result.

    For each judge ``tpr``, ``fpr`` and ``auc`` with ``low`` and ``high``; ``linf`` and ``psnr`` (dB)
    of the change; for laundering also ``fpr laundered``, on real portraits that went through the
    same. ``cpu_seconds``: the attacker's, without the judging.
    """
    real, fake = race_moves.parts()
    moves = checkpoints.load("race-moves", race_moves.players())
    bench = judges(moves, real["validation"])
    x = fake["test"]
    began = time.process_time()
    before: Tensor | None = x
    if move == "none":
        made, before = x, None
    elif move in LAUNDERING:
        made = LAUNDERING[move](x)
    elif move == "filter":
        inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        gain = race.spectral_gain(fake["train"][inner], real["train"][inner])
        made = race.apply_gain(x, gain, margin=MARGIN)
    elif move == "generator":
        z = {"seed": 1_000 + seed}
        made, before = (
            draw_from(moves["generator"], len(x), **z),
            draw_from(race_moves.generator(), len(x), **z),
        )
    elif move == "diffusion":
        made, before = prepare_portrait(forge.fakes("diffusion", "all").x), None
    else:
        target = attacked(move, moves, real["validation"], seed)
        made = race.evade(target, x, climb(STEPS, seed), eps=eps / 255, margin=MARGIN)
    result: dict[str, float] = {"cpu_seconds": time.process_time() - began, "fakes": len(made)}
    for name, judge in bench.items():
        # One judge after the other, each with the same dice: rows can be measured in any order.
        limit = threshold_at(_scores(judge, real["validation"]), FALSE_POSITIVE_RATE)
        _throw(judge, 1)
        found = race.judge(judge, real["test"], made, limit, before=before)
        for what in ("tpr", "fpr", "auc"):
            estimate = getattr(found, what)
            result |= {
                f"{name} {what}": estimate.value,
                f"{name} {what} low": estimate.low,
                f"{name} {what} high": estimate.high,
            }
        if move in LAUNDERING:
            alarms = _scores(judge, LAUNDERING[move](real["test"])) >= limit
            result[f"{name} fpr laundered"] = race.share(alarms).value
        result |= {"linf": found.linf, "psnr": found.psnr if before is not None else float("nan")}
    return result


def judges(moves: nn.ModuleDict, real: Tensor) -> dict[str, nn.Module]:
    """Return the detectors that judge, by name; ``real``: validation portraits, to scale them by."""
    seen = random_jpeg(real, device.generator(0))
    last = race.Ensemble(_members(moves), seen)
    return {
        **{name: moves[name] for name in ("cnn", "spectrum", "dct", "retrained")},
        "ensemble": race.Ensemble(_members(moves), real),
        "random": race.Randomised(last, random_jpeg, device.generator(0)),
    }


def attacked(name: str, moves: nn.ModuleDict, real: Tensor, seed: int) -> nn.Module:
    """Return what an attacker goes down on who wants to evade the judge ``name``."""
    if name == "ensemble":
        return race.Ensemble(_members(moves), real, "sum")
    if name == "random":
        dice = device.generator(100 + seed)
        whole = race.Ensemble(_members(moves), random_jpeg(real, dice), "sum")
        return race.Randomised(whole, random_jpeg, dice, DRAWS)
    return moves[name]


def random_jpeg(x: Tensor, generator: torch.Generator) -> Tensor:
    """Save each image (N, C, H, W) as JPEG at a quality of its own, drawn from 50 to 95."""
    low, high = QUALITIES
    drawn = torch.randint(low, high + 1, (len(x),), generator=generator).tolist()
    return torch.cat(
        [compression.jpeg(image, quality) for image, quality in zip(x.split(1), drawn, strict=True)]
    )


def _members(moves: nn.ModuleDict) -> dict[str, nn.Module]:
    return {name: moves[name] for name in ("retrained", "spectrum", "dct")}


def _scores(judge: nn.Module, x: Tensor) -> Tensor:
    _throw(judge, 0)
    return score(judge, x)


def _throw(judge: nn.Module, seed: int) -> None:
    if isinstance(judge, race.Randomised):
        judge.generator.manual_seed(seed)
