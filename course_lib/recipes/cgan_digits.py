"""A digit on demand: a small conditional DCGAN, trained from nothing on one CPU core.

Chapter: book/generate/conditional.md
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.classifiers import DigitNet
from course_lib.data import Labelled
from course_lib.gans import cgan, objectives
from course_lib.gans.objectives import Objective
from course_lib.gans.run import Run
from course_lib.metrics import frechet_distance
from course_lib.recipes import Progress, follow

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 1_200
LATENT, CHANNELS, CLASSES = 32, 32, 10
BATCH = 64
RATE = 1e-3
#: The shipped generator is a running average of the trained one over about 1 / (1 - this) steps.
AVERAGE = 0.99
#: How often the contact sheet beside a run is drawn anew.
LOOK_EVERY = 100
#: How many forged images of each digit are measured.
MEASURED = 1_000


def empty() -> cgan.Generator:
    """Return the generator of the checkpoint, untrained."""
    return cgan.digit_generator(LATENT, CHANNELS, CLASSES)


def run(
    fabric: Fabric, *, seed: int = 0, steps: int | None = None, state: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train G(z, y) and D(x, y) on the 10,000 labelled digits of the course's sample."""
    G, D = cgan.digit_players(LATENT, CHANNELS, CLASSES, generator=device.generator(seed))
    yield from train(
        fabric,
        G,
        D,
        objectives.non_saturating,
        seed=seed,
        steps=STEPS if steps is None else steps,
        state=state,
        about={
            "summary": "A generator of handwritten digits on demand: 32 numbers of noise and a "
            "digit from 0 to 9 to a 28x28 image.",
            "architecture": "course_lib.gans.cgan.digit_generator(latent=32, channels=32), trained "
            "against a projection discriminator; the running average of its weights, in half "
            "precision",
        },
    )


def train(
    fabric: Fabric,
    G: nn.Module,
    D: nn.Module,
    objective: Objective,
    *,
    seed: int,
    steps: int,
    state: dict[str, Any] | None,
    about: dict[str, str],
) -> Iterator[Progress]:
    """Train a generator of labelled digits, and measure 10,000 of its own: for CGAN and AC-GAN."""
    train, test = data.mnist("train"), data.mnist("test")
    for net in (G, D):
        net.to(memory_format=torch.channels_last)
    style = torch.randn(4, LATENT, generator=device.generator(seed + 20_000))
    adam = functools.partial(torch.optim.Adam, lr=RATE, betas=(0.5, 0.999))
    training = Run(
        fabric,
        G,
        D,
        objective=objective,
        g_optimizer=adam,
        d_optimizer=adam,
        sample_noise=_noise_and_label,
        order=device.generator(seed + 30_000),
        batch_size=BATCH,
        watched=(style.repeat_interleave(CLASSES, dim=0), torch.arange(CLASSES).repeat(4)),
        seed=seed,
        decay=AVERAGE,
    )
    if state is not None:
        training.restore(state)
    looks = range(0, steps + 1, LOOK_EVERY)
    yield from follow(training, train.x, train.y, steps=steps, looks=looks)
    kept = training.finished().half()  # as it is stored
    measures = {
        "CPU seconds": training.cpu_seconds,
        **measure(copy.deepcopy(kept).float(), test, device.generator(seed + 10_000)),
    }
    yield Progress(
        steps,
        steps,
        f"{measures['share read as the asked digit']:.1%} read as the asked digit",
        module=kept,
        measures=measures,
        samples=training.samples(),
        about={
            **about,
            "data": "MNIST, the course's sample: 10,000 training images with their labels; measured "
            "on 2,000 test images",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Trained for minutes: some images are no clear digit. One seed. Never pass "
            "its digits off as handwriting.",
        },
    )


@torch.no_grad()
def measure(generator: nn.Module, real: Labelled, noise: torch.Generator) -> dict[str, float]:
    """Measure what the digit network reads in 1,000 forgeries of each digit, beside ``real`` ones."""
    judge = checkpoints.load("digit-net", DigitNet())
    asked = torch.arange(CLASSES).repeat_interleave(MEASURED)
    z = torch.randn(len(asked), LATENT, generator=noise)
    fakes = torch.cat(
        [generator(*part) for part in zip(z.split(500), asked.split(500), strict=True)]
    )
    features, reference = judge.features(fakes), judge.features(real.x)
    read = judge.head(features).argmax(dim=1)
    right = read == asked
    shares = [float(right[asked == digit].float().mean()) for digit in range(CLASSES)]
    varied = diversity(features[right], asked[right], reference, real.y)
    sure = judge.head(features).softmax(dim=1).max(dim=1).values > 0.9
    return {
        "share read as the asked digit": float(right.float().mean()),
        "the same, of the worst digit": min(shares),
        "the same, of real digits": float((judge(real.x).argmax(dim=1) == real.y).float().mean()),
        "share the judge is sure of (above 0.9)": float(sure.float().mean()),
        "Fréchet distance, digit features": frechet_distance(features, reference),
        "diversity within a digit, 1 for handwriting": float(varied.mean()),
        **{f"diversity of digit {digit}": float(value) for digit, value in enumerate(varied)},
    }


def diversity(features: Tensor, y: Tensor, reference: Tensor, reference_y: Tensor) -> Tensor:
    """Return how far two samples of a class are apart on average, beside two reference ones, (K,).

    ``features`` (N, F) of samples labelled ``y`` (N,), in 0..K-1; Euclidean distances, at most 1,000
    samples of a class. 1 means as varied as the reference; 0 is for a class with fewer than two.
    """

    def spread(points: Tensor, labels: Tensor, k: int) -> Tensor:
        return torch.pdist(points[labels == k][:MEASURED]).mean().nan_to_num(0.0)

    classes = int(reference_y.max()) + 1
    return torch.stack(
        [spread(features, y, k) / spread(reference, reference_y, k) for k in range(classes)]
    )


def _noise_and_label(n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(n, LATENT, generator=rng), torch.randint(CLASSES, (n,), generator=rng)
