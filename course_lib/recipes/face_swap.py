"""The face swap of two rendered actors, the judge that measures it, and how it can go wrong.

The main run has two parts: a strong warp first, then a weak one. The runs beside it are compared with
its first ``FOLLOWED`` steps, in which all have the same schedule.

Chapter: book/represent/face_swap.md
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checkpoints, device
from course_lib.autoencoders import swap
from course_lib.data import actors
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 3_500
#: The two people (seeds of ``actors.identity``), and how many frames of each are trained on.
A, B = 5, 52
FRAMES = 1_500
TEST_FRAMES = 150
#: Which draw of frames is whose: to train on, to watch a training by, and to measure at the end.
SEED_A, SEED_B, WATCHED, MEASURED = 1, 2, 3, 7
#: How much more than the wall a pixel counts, of the face and where an expression moved it.
FACE, MOVED = 3.0, 12.0
BATCH = 16
RATE = 1e-3
WARMUP = 50
#: Then the warp is weakened: a strong one teaches what matters, but blurs where exactly it is.
FINE_STEPS = 4_500
FINE_STRENGTH = 1.0
JUDGE_STEPS = 3_000
#: The runs beside the main one: what each does differently, and how far they are followed.
BESIDE: dict[str, dict[str, Any]] = {
    "small start": {},  # the same settings from tiny weights
    "not aligned": {"align": 0.0},
    "not warped": {"strength": 0.0},
}
FOLLOWED = 600
FILM = (0, 25, 50, 75, 100, 150, 200, 250, 300, 400, 500, 600)
FILMED = 2


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train the swap, and beside it, for a while, the runs that go wrong; then train the judge.

    The film shows what becomes of held-out frames of A in the first 600 steps, well started and
    badly started; its losses hold each run's loss and, at the film's steps, its swaps' PSNR.
    """
    steps = STEPS if steps is None else steps
    fine_steps = min(FINE_STEPS, steps)
    total = steps + fine_steps
    people = actors.identity(A), actors.identity(B)
    a, b = (
        swap.close_ups(*of) for of in zip(people, (FRAMES, FRAMES), (SEED_A, SEED_B), strict=True)
    )
    settings: dict[str, Any] = {
        "masks": (weight(a), weight(b)),
        "face_weight": MOVED,
        "batch_size": BATCH * fabric.world_size,
        "lr": RATE,
        "fabric": fabric,
    }
    frames, truth = (swap.close_ups(who, TEST_FRAMES, WATCHED) for who in people)

    curves: dict[str, Tensor] = {}
    reels: dict[str, list[Tensor]] = {}
    trained = swap.SwapNetwork(generator=device.generator(seed))
    for name in (*BESIDE, "recipe"):
        model = trained
        if name != "recipe":
            model = swap.SwapNetwork(generator=device.generator(seed))
        if name == "small start":
            shrink(model, device.generator(seed))
        reels[name] = []
        losses: list[float] = []
        scores: list[list[float]] = []

        def look(model: swap.SwapNetwork = model, name: str = name, to: list[Any] = scores) -> None:
            where = next(model.parameters()).device
            found = swap.swap(model, frames.images.to(where), "b").cpu()
            back = swap.swap(model, truth.images.to(where), "b").cpu()
            reels[name].append(found[:FILMED])
            to.append([psnr(z, truth.images, truth.masks) for z in (found, back)])

        look()
        for step in swap.train_swap(
            model,
            a.images,
            b.images,
            steps=steps,
            warmup=min(WARMUP, steps),
            seed=seed,
            **settings,
            **BESIDE.get(name, {}),
        ):
            losses.append(step.loss_b)
            if step.step in FILM:
                look()
            text = (
                f"{name}: losses {step.loss_a:.4f}, {step.loss_b:.4f}, swap {scores[-1][0]:.1f} dB"
            )
            yield Progress(step.step, total, text)
            if name != "recipe" and step.step >= FOLLOWED:
                break
        curves[f"loss, {name}"] = torch.tensor(losses[:FOLLOWED])
        curves[f"swap, {name}"] = torch.tensor(scores)[:, 0]
        curves[f"rebuilt, {name}"] = torch.tensor(scores)[:, 1]

    for step in swap.train_swap(
        trained,
        a.images,
        b.images,
        steps=fine_steps,
        strength=FINE_STRENGTH,
        warmup=min(WARMUP, fine_steps),
        seed=seed + 1,
        **settings,
    ):
        text = f"weaker warp: losses {step.loss_a:.4f}, {step.loss_b:.4f}"
        yield Progress(steps + step.step, total, text)

    torch.manual_seed(seed)
    judge = swap.Judge()
    for i, loss in enumerate(train_judge(judge, a, b, fabric, min(JUDGE_STEPS, 10 * steps), seed)):
        yield Progress(total, total, f"judge, step {i + 1}: loss {loss:.3f}")
    both = nn.ModuleDict({"swap": trained, "judge": judge}).cpu().eval().half()  # as it is stored
    rounded, rounded_judge = copy.deepcopy(trained).float(), copy.deepcopy(judge).float()
    fresh = (swap.close_ups(who, TEST_FRAMES, MEASURED) for who in people)
    measures = measure(rounded, rounded_judge, b, *fresh)
    measures |= {
        f"{what} after {FILM[len(curves[f'{what}, {name}']) - 1]} steps, {name}, dB": float(
            curves[f"{what}, {name}"][-1]
        )
        for name in ("recipe", *BESIDE)
        for what in ("swap", "rebuilt")
    }
    yield Progress(
        total,
        total,
        ", ".join(f"{key} {value:.3g}" for key, value in measures.items()),
        module=both,
        measures=measures,
        film=checkpoints.Film(
            torch.tensor(FILM[: len(reels["recipe"])]),
            torch.stack(
                [
                    torch.cat(pair)
                    for pair in zip(reels["recipe"], reels["small start"], strict=True)
                ]
            ),
            curves,
        ),
        about={
            "summary": "A face swap of two rendered actors, who do not exist, and the judge that reads "
            "pose, expression and person off a frame.",
            "architecture": 'nn.ModuleDict of "swap" (course_lib.autoencoders.swap.SwapNetwork()) and '
            '"judge" (course_lib.autoencoders.swap.Judge())',
            "data": f"course_lib.data.actors, identities {A} and {B}: {FRAMES:,} frames of each, drawn "
            f"apart; measured on {TEST_FRAMES} frames with the true swap rendered beside them",
            "licence": "MIT",
            "limits": "Knows these two drawn faces at 64 pixels, in the poses of actors.sample, and "
            "nobody else's. It was made to be measured and detected.",
        },
    )


def weight(frames: actors.Frames) -> Tensor:
    """Return what counts in a frame, (N, 1, 64, 64) in [0, 1]: 1 where an expression moved it."""
    return torch.maximum(FACE / MOVED * frames.masks, swap.moved(frames))


@torch.no_grad()
def shrink(model: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights anew from N(0, 0.02**2), which suits networks with batch norm, not this one."""
    for name, weight in model.named_parameters():
        if name.endswith("weight"):
            weight.normal_(0, 0.02, generator=generator)


def train_judge(
    judge: swap.Judge, a: actors.Frames, b: actors.Frames, fabric: Fabric, steps: int, seed: int
) -> Iterator[float]:
    """Teach the judge what is known of rendered frames; yields its loss, in squared spreads.

    Half of its frames are softened a little, by a share that differs from frame to frame, so that it
    does not stumble over a swap's softness.
    """
    images = torch.cat([a.images, b.images])
    known = torch.stack([torch.cat([a.column(name), b.column(name)]) for name in swap.READ], dim=1)
    person = torch.cat([torch.zeros(len(a)), torch.ones(len(b))])
    judge.mean[:-1], judge.spread[:-1] = known.mean(0), known.std(0)
    known = (known - judge.mean[:-1]) / judge.spread[:-1]
    judge.train()
    network, optimizer = fabric.setup(
        judge, torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw = device.generator(seed + 1)
    for _ in range(steps):
        batch = torch.randint(0, len(images), (32,), generator=draw)
        x = images[batch]
        soft = F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)
        share = (2 * torch.rand(len(x), 1, 1, 1, generator=draw) - 1).clamp_min(0)
        readings = network(x.lerp(soft, share).to(fabric.device))
        standard = (readings - judge.mean) / judge.spread
        loss = (standard[:, :-1] - known[batch].to(readings)).square().mean()
        loss = loss + 0.1 * F.binary_cross_entropy_with_logits(
            readings[:, -1], person[batch].to(readings)
        )
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


@torch.no_grad()
def measure(
    model: swap.SwapNetwork,
    judge: swap.Judge,
    known: actors.Frames,
    frames: actors.Frames,
    truth: actors.Frames,
) -> dict[str, float]:
    """Return how near swaps of ``frames`` (A) come to ``truth`` (the same as B), with baselines."""
    mean = known.images.mean(dim=0, keepdim=True).expand_as(frames.images)
    shown = {"swap": swap.swap(model, frames.images, "b"), "input copied": frames.images}
    shown |= {"B's mean frame": mean, "true swap": truth.images}
    found = {}
    parameters = torch.stack([truth.column(name) for name in swap.READ], dim=1)
    for name, images in shown.items():
        readings = judge(images)
        wrong = (readings[:, :-1] - parameters).square().mean(0)
        explained = 1 - wrong / parameters.var(dim=0, unbiased=False)
        if name != "true swap":
            found[f"PSNR on the face, {name}, dB"] = psnr(images, truth.images, truth.masks)
        found[f"pose and expression read (mean R2), {name}"] = float(explained.mean())
        found[f"read as B, {name}"] = float((readings[:, -1] > 0).float().mean())
    return found


def psnr(x: Tensor, truth: Tensor, mask: Tensor) -> float:
    """Return the mean over frames of the peak signal-to-noise ratio on the face, in decibels."""
    wrong = (mask * (x - truth).square()).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))
    return float((-10 * wrong.log10()).mean())
