"""Digits in a code that nobody labelled: a small InfoGAN, trained from nothing on one CPU core.

Chapter: book/generate/conditional.md
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.classifiers import DigitNet, check_examples
from course_lib.gans import infogan, networks, objectives
from course_lib.gans.run import Run
from course_lib.gans.tricks import InstanceNoise
from course_lib.metrics import frechet_distance
from course_lib.recipes import Progress, follow

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 1_500
#: Little noise, so that what makes digits differ most has no better place than the code.
LATENT, CHANNELS = 8, 32
CODE = infogan.Code(categories=10, continuous=2)
LAMBDA, LAMBDA_CONTINUOUS = 1.0, 0.1
#: Grain on all that D and Q see, at the start; it falls to 0 over the training. A code that is faint
#: drowns in it, so that the categories have to differ in what is large.
SIGMA = 0.3
BATCH = 64
RATE = 1e-3
#: The shipped generator is a running average of the trained one over about 1 / (1 - this) steps.
AVERAGE = 0.99
#: How often the contact sheet beside a run is drawn anew.
LOOK_EVERY = 100
#: How many forged images of each category are measured.
MEASURED = 1_000


def empty() -> infogan.Generator:
    """Return the generator of the checkpoint, untrained."""
    return infogan.Generator(networks.DCGANGenerator(LATENT + CODE.size, CHANNELS), CODE)


def run(
    fabric: Fabric, *, seed: int = 0, steps: int | None = None, state: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train G(z, c), D and Q on the 10,000 digits of the course's sample, without their labels."""
    steps = STEPS if steps is None else steps
    train = data.mnist("train")
    dice = device.generator(seed + 2_000_001 + fabric.global_rank)
    grain = InstanceNoise(SIGMA, dice)
    G, D = infogan.digit_players(CODE, LATENT, CHANNELS, generator=device.generator(seed))
    for net in (G, D):
        net.to(memory_format=torch.channels_last)
    style = torch.randn(4, LATENT, generator=device.generator(seed + 20_000))
    codes = torch.cat([torch.eye(10), torch.zeros(10, 2)], dim=1)
    adam = functools.partial(torch.optim.Adam, lr=RATE, betas=(0.5, 0.999))
    training = Run(
        fabric,
        G,
        nn.Sequential(grain, D),
        objective=dataclasses.replace(
            objectives.non_saturating,
            auxiliary=infogan.auxiliary(CODE, LAMBDA, LAMBDA_CONTINUOUS),
        ),
        g_optimizer=adam,
        d_optimizer=adam,
        sample_noise=_noise_and_code,
        order=device.generator(seed + 30_000),
        batch_size=BATCH,
        watched=(style.repeat_interleave(10, dim=0), codes.repeat(4, 1)),
        seed=seed,
        decay=AVERAGE,
        dice={"grain": dice},
    )
    if state is not None:
        training.restore(state)
    grain.sigma = SIGMA * (1 - training.step / steps)
    looks = range(0, steps + 1, LOOK_EVERY)
    for progress in follow(training, train.x, steps=steps, looks=looks):
        grain.sigma = SIGMA * (1 - progress.step / steps)
        yield progress
    kept = training.finished().half()  # as it is stored
    measures = {
        "CPU seconds": training.cpu_seconds,
        **measure(copy.deepcopy(kept).float(), device.generator(seed + 10_000)),
    }
    yield Progress(
        steps,
        steps,
        f"{measures['share of the best matching']:.1%} in the best matching of codes and digits",
        module=kept,
        measures=measures,
        samples=training.samples(),
        about={
            "summary": "A generator of handwritten digits whose code of ten categories and two "
            "numbers was learned without labels.",
            "architecture": "course_lib.recipes.infogan_digits.empty(): "
            "course_lib.gans.infogan.Generator around DCGANGenerator(latent=8 + 12, channels=32); "
            "the running average of its weights, in half precision",
            "data": "MNIST, the course's sample: 10,000 training images, without their labels; "
            "measured on 2,000 test images",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Trained for minutes, one seed; another seed gives the categories other "
            "meanings. Some categories hold two digits, and some digits have two categories.",
        },
    )


@torch.no_grad()
def measure(generator: nn.Module, noise: torch.Generator) -> dict[str, float]:
    """Measure 1,000 forgeries of each category: which digits they are, and what the numbers do."""
    judge = checkpoints.load("digit-net", DigitNet())
    c = CODE.sample(10 * MEASURED, noise)
    category = torch.arange(10).repeat_interleave(MEASURED)
    c[:, :10] = torch.eye(10)[category]
    z = torch.randn(len(c), LATENT, generator=noise)
    fakes = torch.cat([generator(*part) for part in zip(z.split(500), c.split(500), strict=True)])
    features = judge.features(fakes)
    table = counts(category, judge.head(features).argmax(dim=1))
    _, share = matching(table)
    found = {
        "share of the best matching": share,
        "information of category about digit, nats": float(infogan.mutual_information(table)),
        "Fréchet distance, digit features": frechet_distance(
            features, judge.features(data.mnist("test").x)
        ),
    }
    for j in (0, 1):
        for name, values in (("slant", slant(fakes)), ("width", width(fakes))):
            found[f"correlation of number {j + 1} and {name}"] = correlation(
                c[:, 10 + j], values, category
            )
    return found


def counts(category: Tensor, digit: Tensor) -> Tensor:
    """Return the table (10, 10) of how often each category (N,) was read as each digit (N,)."""
    return torch.bincount(10 * category + digit, minlength=100).reshape(10, 10)


def matching(table: Tensor) -> tuple[Tensor, float]:
    """Return the one-to-one matching of rows to columns that covers most counts, and its share.

    ``table``: (K, K). The matching is int64 (K,), the column of each row; the share is in [0, 1].

    Source: Kuhn 1955, as scipy computes it.
    """
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(table.numpy(), maximize=True)
    return torch.as_tensor(columns), float(table[rows, columns].sum() / table.sum())


def slant(x: Tensor) -> Tensor:
    """Return how far each image (N, 1, H, W) leans to the right: columns per row upwards, (N,).

    With the central moments m of the ink, it is -m_xy / m_yy: the regression of x on y. An image
    without ink has slant 0.
    """
    _, m_xy, m_yy = _moments(x)
    return -m_xy / m_yy.clamp_min(1e-6)


def width(x: Tensor) -> Tensor:
    """Return each image's (N, 1, H, W) width beside its height, once the slant is taken out, (N,)."""
    m_xx, m_xy, m_yy = _moments(x)
    m_yy = m_yy.clamp_min(1e-6)
    return ((m_xx - m_xy.square() / m_yy).clamp_min(0) / m_yy).sqrt()


def correlation(number: Tensor, value: Tensor, category: Tensor) -> float:
    """Return Pearson's correlation of ``number`` and ``value`` (N,), each centred in its category."""
    centred = []
    for t in (number, value):
        sums = torch.zeros(10).index_add_(0, category, t)
        means = sums / category.bincount(minlength=10).clamp_min(1)
        centred.append(t - means[category])
    a, b = centred
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt().clamp_min(1e-12))


def _moments(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    check_examples("x", x)
    if x.ndim != 4 or x.shape[1] != 1:
        raise ValueError(f"x: expected shape (N, 1, H, W), got {tuple(x.shape)}")
    ink = x[:, 0] / x.sum(dim=(1, 2, 3)).clamp_min(1e-6)[:, None, None]
    rows, columns = torch.meshgrid(
        *(torch.arange(size, dtype=x.dtype, device=x.device) for size in x.shape[2:]), indexing="ij"
    )
    dy = rows - (ink * rows).sum(dim=(1, 2))[:, None, None]
    dx = columns - (ink * columns).sum(dim=(1, 2))[:, None, None]
    return tuple((ink * m).sum(dim=(1, 2)) for m in (dx * dx, dx * dy, dy * dy))  # type: ignore[return-value]


def _noise_and_code(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, LATENT, generator=rng), CODE.sample(n, rng)
