"""Eight objectives on digits: the same generator, one training loop, CPU time of one order.

Nothing was tuned for any of them: both players of all eight learn at the rate of the course's digit
recipe. The Wasserstein critics have the optimizer and the five steps of their papers. At other rates,
or after more rounds, the order may be another.

Chapter: book/generate/zoo.md
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import safetensors.torch
import torch
from filelock import FileLock
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.classifiers import DigitNet
from course_lib.gans import energy, networks, objectives, training
from course_lib.metrics import frechet_distance, precision_recall

LATENT = 32
CHANNELS = 16
BATCH = 32
#: What is measured is a running average of the generator's weights, over about the last 100 rounds.
AVERAGE = 0.99
FAKES = 5_000
#: Sixteen digits of each objective's first run, 8 bits per pixel, for the chapter.
PICTURES = Path(__file__).with_suffix(".safetensors")


@dataclass(frozen=True)
class Entry:
    """An objective as it enters: rounds that cost about as much as the others', and what is its own.

    ``k``: discriminator steps per round. ``batch_norm``: in a discriminator that scores; a generator
    always has it. ``norm``: of an autoencoder that gives energies. ``adam``: its betas; RMSprop if
    None.
    """

    objective: objectives.Objective
    rounds: int
    k: int = 1
    batch_norm: bool = True
    norm: energy.Norm = "euclidean"
    adam: tuple[float, float] | None = (0.5, 0.999)


ENTRIES = {
    entry.objective.name: entry
    for entry in (
        Entry(objectives.minimax, 900),
        Entry(objectives.non_saturating, 900),
        Entry(objectives.lsgan, 900),
        Entry(objectives.wgan, 270, k=5, adam=None),
        Entry(objectives.wgan_gp, 195, k=5, batch_norm=False, adam=(0.0, 0.9)),
        Entry(objectives.dragan, 680, batch_norm=False),
        Entry(
            # The paper's margin on digits is 10, for pixels from -1 to 1; ours go from 0 to 1.
            replace(
                objectives.ebgan,
                discriminator_loss=partial(objectives.margin_loss, margin=5.0),
            ),
            480,
        ),
        Entry(
            # Its lambda_k is for a hundred times as many rounds; gamma is its most diverse.
            replace(objectives.began, controller=partial(objectives.Equilibrium, 0.7, rate=0.1)),
            560,
            norm="absolute",
        ),
    )
}
#: The learning rate of both players.
RATE = 1e-3


def cells() -> list[dict[str, str | int | float]]:
    """Return three runs of each objective."""
    return [{"objective": name, "seed": seed} for seed in range(3) for name in ENTRIES]


def measure(*, objective: str, seed: int) -> dict[str, float]:
    """Train one objective and measure 5,000 of its digits; a run that diverged says in which round.

    Of a run with seed 0, sixteen digits are kept in ``PICTURES``.
    """
    rounds = ENTRIES[objective].rounds
    start = time.process_time()
    try:
        generator, seen = fit(objective, data.mnist("train").x, seed=seed, rounds=rounds)
    except training.TrainingDivergedError as error:
        spent = time.process_time() - start
        return {"rounds": rounds, "training seconds": spent, "diverged in round": error.step.step}
    spent = time.process_time() - start
    fakes = draw(generator, FAKES, device.generator(seed + 10_000))
    if seed == 0:
        _keep(objective, fakes[:16])
    found = judged(fakes, data.mnist("test").x)
    return {"rounds": rounds, "training seconds": spent, **seen, **found}


def fit(name: str, x: Tensor, *, seed: int, rounds: int) -> tuple[nn.Module, dict[str, float]]:
    """Train ``ENTRIES[name]`` on digits ``x``; return the averaged generator and the last measures."""
    entry = ENTRIES[name]
    weights, noise, rng = (device.generator(seed + 1_000 * i) for i in range(3))
    generator = networks.DCGANGenerator(LATENT, CHANNELS, generator=weights)
    discriminator: nn.Module = (
        energy.for_digits(channels=CHANNELS, norm=entry.norm, generator=weights)
        if entry.objective.scores == "energies"
        else networks.DCGANDiscriminator(CHANNELS, batch_norm=entry.batch_norm, generator=weights)
    )
    for net in (generator, discriminator):
        net.to(memory_format=torch.channels_last)  # the same numbers, a little sooner
    g_optimizer, d_optimizer = (_optimizer(net, entry) for net in (generator, discriminator))
    average = training.Average(generator, decay=AVERAGE)
    for step in training.train_gan(
        generator,
        discriminator,
        training.batches(x, BATCH, weights),
        lambda n: torch.randn(n, LATENT, generator=noise),
        objective=entry.objective,
        g_optimizer=g_optimizer,
        d_optimizer=d_optimizer,
        k=entry.k,
        average=average,
        rng=rng,
    ):
        if step.step == rounds:
            break
    return average.module.eval(), {key: float(value) for key, value in step.measures.items()}


@torch.no_grad()
def draw(generator: nn.Module, n: int, noise: torch.Generator) -> Tensor:
    """Return ``n`` digits (n, 1, 28, 28) of a generator in evaluation mode."""
    z = torch.randn(n, LATENT, generator=noise)
    return torch.cat([generator(part) for part in z.split(500)])


@torch.no_grad()
def judged(fakes: Tensor, real: Tensor) -> dict[str, float]:
    """Return the table's measures of ``fakes`` beside ``real``, both (N, 1, 28, 28) in [0, 1]."""
    judge = checkpoints.load("digit-net", DigitNet())
    features, reference = judge.features(fakes), judge.features(real)
    probabilities = judge.head(features).softmax(dim=1)
    shares = probabilities.argmax(dim=1).bincount(minlength=10) / len(fakes)
    near = precision_recall(reference, features[: len(real)])
    return {
        "Fréchet distance, digit features": frechet_distance(features, reference),
        "digits present (share above 1 %)": float((shares > 0.01).sum()),
        "share the judge is sure of (above 0.9)": float(
            (probabilities.amax(dim=1) > 0.9).float().mean()
        ),
        "precision": near.precision,
        "recall": near.recall,
    }


def pictures() -> dict[str, Tensor]:
    """Return sixteen digits of each objective's run with seed 0, (16, 1, 28, 28) in [0, 1]."""
    return {
        name: digits.float() / 255 for name, digits in safetensors.torch.load_file(PICTURES).items()
    }


def _optimizer(net: nn.Module, entry: Entry) -> torch.optim.Optimizer:
    if entry.adam is None:
        return torch.optim.RMSprop(net.parameters(), lr=RATE)
    return torch.optim.Adam(net.parameters(), lr=RATE, betas=entry.adam)


def _keep(name: str, digits: Tensor) -> None:
    with FileLock(Path(tempfile.gettempdir()) / "course-bench-zoo.lock"):  # of its other processes
        kept = safetensors.torch.load_file(PICTURES) if PICTURES.exists() else {}
        kept[name] = (255 * digits).round().to(torch.uint8)
        safetensors.torch.save_file(kept, PICTURES)
