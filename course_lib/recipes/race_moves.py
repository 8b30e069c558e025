"""The players of the race: three detectors, one of them trained again, a thief's copy, and a generator.

The defender trains a small CNN and fits two linear detectors of frequencies; later he trains the CNN
again on what fooled it. The attacker, who may only ask the CNN, trains a copy on its answers, and
tunes the generator of portraits until its spectrum is that of photographs.

Chapter: book/detect/race.md
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checkpoints, data, device, forge
from course_lib.attacks import pgd
from course_lib.attacks.gradient import margin
from course_lib.detection import cnn, evaluate, race
from course_lib.detection.processing import prepare_portrait
from course_lib.detection.spectrum import (
    DCTDetector,
    SpectrumDetector,
    fit_linear,
    spectrum_features,
)
from course_lib.recipes import Progress
from course_lib.recipes.dcgan_portraits import LATENT, portrait_generator

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

#: Pixels at each edge that ``prepare_portrait`` makes grey: nobody writes there.
MARGIN = 4
#: Maps of the first layer: few enough that a page of the book can attack the CNN.
WIDTH, COPY_WIDTH = 8, 6
BATCH = 32
#: Batches of each training, in the order in which they happen.
STEPS = {"cnn": 160, "copy": 160, "generator": 120, "retrained": 200}
#: The budget that the CNN is trained against, of the range [0, 1], and the steps of each attack then.
BUDGET, INNER = 4 / 255, 3
#: How much the tuned generator minds a change of its pictures, per unit of mean square.
FAITHFUL = 20.0
FALSE_POSITIVE_RATE = 0.05


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train all players one after the other, 640 steps in all; ``steps`` cuts each training short."""
    plan = {name: n if steps is None else min(n, steps) for name, n in STEPS.items()}
    total = sum(plan.values())
    real, fake = parts()
    moves = players(device.generator(seed))
    measures: dict[str, float] = {}
    done = 0

    def follow(name: str, training: Iterator[object]) -> Iterator[Progress]:
        nonlocal done
        began = time.process_time()
        for step in training:
            done += 1
            yield Progress(done, total, f"{name}: {step}")
        measures[f"CPU seconds, {name}"] = time.process_time() - began

    yield from follow(
        "cnn",
        cnn.train_detector(
            moves["cnn"],
            real["train"],
            fake["train"],
            fabric=fabric,
            steps=plan["cnn"],
            batch_size=BATCH,
            seed=seed,
        ),
    )
    began = time.process_time()
    for name in ("spectrum", "dct"):
        fit_linear(moves[name], real["train"], fake["train"])  # type: ignore[arg-type]
    measures["CPU seconds, spectrum and dct"] = time.process_time() - began

    # What the thief asks: portraits that anyone can have, mirrored, and images of his own making.
    asked = torch.cat([real["train"].flip(3), draw_from(generator(), 400, seed=seed + 1)])
    limit = evaluate.threshold_at(cnn.score(moves["cnn"], real["validation"]), FALSE_POSITIVE_RATE)
    alarm = cnn.score(moves["cnn"], asked) >= limit
    measures["queries"] = float(len(asked))
    yield from follow(
        "copy",
        cnn.train_detector(
            moves["copy"],
            asked[~alarm],
            asked[alarm],
            fabric=fabric,
            steps=plan["copy"],
            batch_size=BATCH,
            seed=seed + 1,
        ),
    )
    yield from follow(
        "generator", tune(moves["generator"], real["train"], plan["generator"], seed=seed)
    )
    moves["retrained"].load_state_dict(moves["cnn"].state_dict())
    yield from follow(
        "retrained",
        race.retrain(
            moves["retrained"],
            real["train"],
            fake["train"],
            climb(INNER, seed),
            eps=BUDGET,
            steps=plan["retrained"],
            margin=MARGIN,
            batch_size=BATCH,
            fabric=fabric,
            seed=seed,
        ),
    )
    moves = moves.cpu().eval()
    for name in ("cnn", "spectrum", "dct", "retrained"):
        limit = evaluate.threshold_at(
            cnn.score(moves[name], real["validation"]), FALSE_POSITIVE_RATE
        )
        measures[f"threshold, {name}"] = limit
        found = race.judge(moves[name], real["test"], fake["test"], limit)
        measures |= {f"TPR, {name}": found.tpr.value, f"FPR, {name}": found.fpr.value}
    yield Progress(
        total,
        total,
        ", ".join(f"{name} {value:.3g}" for name, value in measures.items()),
        module=moves,
        measures=measures,
        about={
            "summary": "The players of the race: detectors of one generator's portraits, one of them "
            "trained on what evaded it; a copy of one, made from its answers; and that generator, "
            "tuned to the spectrum of photographs.",
            "architecture": "course_lib.recipes.race_moves.players: DetectorNet(3, width=8) twice and "
            "width=6 once, SpectrumDetector, DCTDetector, and portrait_generator",
            "data": f"the course's portraits through prepare_portrait: {len(real['train'])} to train, "
            f"{len(real['validation'])} of other people to choose thresholds for a false-positive rate "
            f"of 5 %, {len(real['test'])} of yet others to test; images of dcgan-portraits: "
            f"{len(fake['train'])} to train, {len(fake['test'])} to test, 400 as queries",
            "licence": "MIT; the photographs are in the public domain",
            "limits": "Know one generator and portraits of 64 x 64 pixels. They are there to be evaded: "
            "neither detector nor evasion says anything about those in use. One training each.",
        },
    )


def players(draw: torch.Generator | None = None) -> nn.ModuleDict:
    """Return all players as they are before training, the generator as it was shipped."""
    return nn.ModuleDict(
        {
            "cnn": cnn.DetectorNet(3, width=WIDTH, generator=draw),
            "spectrum": SpectrumDetector(),
            "dct": DCTDetector(),
            "copy": cnn.DetectorNet(3, width=COPY_WIDTH, generator=draw),
            "generator": generator(),
            "retrained": cnn.DetectorNet(3, width=WIDTH, generator=draw),
        }
    )


def generator() -> nn.Module:
    """Return the generator of portraits, as every reader has it."""
    return checkpoints.load("dcgan-portraits", portrait_generator())


def parts() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return real and generated portraits, prepared alike, as ``train``, ``validation`` and ``test``.

    Real: three quarters of the people of the training portraits, the last quarter, and the test
    portraits. Generated by dcgan-portraits: the 400 and 175 of ``forge.fakes``; none for validation,
    since a threshold is chosen on real images.
    """
    train = data.portraits("train")
    learn, choose = evaluate.split_by_group(train.group, (0.75, 0.25), seed=0)
    real = {
        "train": train.x[learn],
        "validation": train.x[choose],
        "test": data.portraits("test").x,
    }
    fake = {"train": forge.fakes("dcgan", "train").x, "test": forge.fakes("dcgan", "test").x}
    prepared = [{part: prepare_portrait(x) for part, x in kind.items()} for kind in (real, fake)]
    return prepared[0], prepared[1]


@torch.no_grad()
def draw_from(module: nn.Module, n: int, *, seed: int) -> Tensor:
    """Return ``n`` portraits of a generator, prepared: (n, 3, 64, 64)."""
    z = torch.randn(n, LATENT, generator=device.generator(seed))
    return prepare_portrait(torch.cat([module(part) for part in z.split(100)]).clamp(0, 1))


def climb(steps: int, seed: int) -> race.Attack:
    """Return PGD on the margin, in strides of 1/8 of the budget, or what crosses the ball if more."""
    draw = device.generator(seed)

    def attack(model: nn.Module, x: Tensor, y: Tensor, eps: Tensor) -> Tensor:
        # The margin is -s: where a detector is very sure, the cross-entropy's gradient is 0.
        stride = eps * max(1 / 8, 2.5 / steps)
        return pgd(model, x, y, eps, stride, steps, generator=draw, loss=margin)

    return attack


def tune(
    module: nn.Module, real: Tensor, steps: int, *, seed: int, lr: float = 2e-4
) -> Iterator[str]:
    r"""Train a generator in place until the mean spectrum of its images is that of ``real`` ones.

    Minimises ``race.spectral_distance`` of a batch plus ``FAITHFUL`` times the mean square of what
    changed in its pictures, since a spectrum alone is easily had by noise. Its batch norm stays as it
    is. Yields a line per step.
    """
    before = copy.deepcopy(module).eval()
    module.eval()
    wanted = spectrum_features(real).mean(dim=0)
    optimiser = torch.optim.Adam(module.parameters(), lr=lr, betas=(0.5, 0.99))
    draw = device.generator(seed + 5)
    for _ in range(steps):
        z = torch.randn(BATCH, LATENT, generator=draw)
        made = module(z)
        with torch.no_grad():
            same = before(z)
        distance = race.spectral_distance(_prepared(made), wanted)
        loss = distance + FAITHFUL * F.mse_loss(made, same)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield f"spectral distance {float(distance.detach()):.3f}"


def _prepared(x: Tensor) -> Tensor:
    """Prepare portraits with the gradient of the stretch alone: rounding has none."""
    inner = (..., slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
    spread = x[inner].std(dim=(2, 3), keepdim=True, correction=0).clamp_min(1e-3)
    smooth = torch.zeros_like(x)
    smooth[inner] = (x[inner] - x[inner].mean(dim=(2, 3), keepdim=True)) / spread * 0.2
    return prepare_portrait(x.detach().clamp(0, 1)) + (smooth - smooth.detach())
