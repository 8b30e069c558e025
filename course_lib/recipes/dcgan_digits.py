"""The generator of digits: a small DCGAN, trained from nothing on two CPU cores.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.classifiers import DigitNet
from course_lib.gans import networks, objectives
from course_lib.gans.run import Run
from course_lib.metrics import frechet_distance
from course_lib.recipes import Progress, follow

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 2_400
LATENT = 32
CHANNELS = 32
BATCH = 64
RATE = 1e-3
#: The shipped generator is a running average of the trained one over about 1 / (1 - this) steps.
AVERAGE = 0.99
#: Digits per frame of the film, and the steps that get a frame: dense at first, when most happens.
FILMED = 24
FRAMES = [0, 10, 20, 40, 60, 80, 110, 150, 200, 260, 330, 420, 530, 660, 800, 1000, 1250, 1500]
FRAMES += [1800, 2100, 2400]


def training(fabric: Fabric, seed: int) -> Run:
    """Return the training of this recipe, with everything drawn and nothing yet learned."""
    draw = device.generator(seed)
    generator = networks.DCGANGenerator(LATENT, CHANNELS, generator=draw)
    discriminator = networks.DCGANDiscriminator(CHANNELS, generator=draw)
    for net in (generator, discriminator):
        net.to(memory_format=torch.channels_last)
    adam = functools.partial(torch.optim.Adam, lr=RATE, betas=(0.5, 0.999))
    return Run(
        fabric,
        generator,
        discriminator,
        objective=objectives.non_saturating,
        g_optimizer=adam,
        d_optimizer=adam,
        sample_noise=lambda n, rng: torch.randn(n, LATENT, generator=rng),
        order=draw,
        batch_size=BATCH,
        watched=torch.randn(FILMED, LATENT, generator=device.generator(seed + 20_000)),
        frames=FRAMES,
        seed=seed,
        decay=AVERAGE,
    )


def run(
    fabric: Fabric, *, seed: int = 0, steps: int | None = None, state: dict[str, Any] | None = None
) -> Iterator[Progress]:
    """Train a DCGAN on the 10,000 digits of the course's sample, and measure 10,000 of its own.

    What is kept is a running average of the generator's weights: the last step of a game that goes
    round in circles is no better than those before it, their average is.
    """
    steps = STEPS if steps is None else steps
    train, test = data.mnist("train"), data.mnist("test")
    game = training(fabric, seed)
    if state is not None:
        game.restore(state)
    yield from follow(game, train.x, steps=steps, looks=FRAMES)
    average = game.finished()
    measures = _measure(average, train.x, test.x, device.generator(seed + 10_000))
    yield Progress(
        steps,
        steps,
        f"Fréchet distance {measures['Fréchet distance in digit features, to test']:.1f}",
        module=average,
        measures=measures,
        film=game.film(),
        samples=game.samples(),
        about={
            "summary": "A generator of handwritten digits: 32 numbers of noise to a 28x28 image.",
            "architecture": "course_lib.gans.networks.DCGANGenerator(latent=32, channels=32); the "
            "running average of its weights",
            "data": "MNIST, the course's sample: 10,000 training images, without their labels",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Trained for minutes, not hours: some images are no clear digit. Its "
            "images carry traces of its upsampling, which detectors in this course learn to see.",
        },
    )


@torch.no_grad()
def _measure(
    generator: nn.Module, train: Tensor, test: Tensor, noise: torch.Generator
) -> dict[str, float]:
    judge = checkpoints.load("digit-net", DigitNet())
    z = torch.randn(10_000, LATENT, generator=noise)
    fakes = torch.cat([generator(part) for part in z.split(500)])
    probabilities = judge(fakes).softmax(dim=1)
    shares = probabilities.argmax(dim=1).bincount(minlength=10) / len(fakes)
    features, reference = judge.features(fakes), judge.features(test)
    return {
        "digits present (share above 1 %)": float((shares > 0.01).sum()),
        **{f"share of digit {digit}": float(share) for digit, share in enumerate(shares)},
        "share the judge is sure of (above 0.9)": float(
            (probabilities.max(dim=1).values > 0.9).float().mean()
        ),
        "Fréchet distance in digit features, to test": frechet_distance(features, reference),
        "the same, of real training digits": frechet_distance(judge.features(train), reference),
    }
