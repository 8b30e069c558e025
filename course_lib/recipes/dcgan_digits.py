"""The generator of digits: a small DCGAN, trained from nothing on two CPU cores.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_lib import checkpoints, data, device
from course_lib.classifiers import DigitNet
from course_lib.gans import networks, objectives, training
from course_lib.metrics import frechet_distance
from course_lib.recipes import Progress

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


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train a DCGAN on the 10,000 digits of the course's sample, and measure 10,000 of its own.

    What is kept is a running average of the generator's weights: the last step of a game that goes
    round in circles is no better than those before it, their average is.
    """
    steps = STEPS if steps is None else steps
    train, test = data.mnist("train"), data.mnist("test")
    draw, noise = device.generator(seed), device.generator(seed + 1 + fabric.global_rank)
    generator = networks.DCGANGenerator(LATENT, CHANNELS, generator=draw)
    discriminator = networks.DCGANDiscriminator(CHANNELS, generator=draw)
    for net in (generator, discriminator):
        net.to(memory_format=torch.channels_last)
    average = copy.deepcopy(generator).requires_grad_(False).to(fabric.device)
    g_optimizer, d_optimizer = (
        torch.optim.Adam(net.parameters(), lr=RATE, betas=(0.5, 0.999))
        for net in (generator, discriminator)
    )
    filmed = torch.randn(FILMED, LATENT, generator=device.generator(seed + 20_000))
    frames, losses = [_draw(average, filmed)], []
    for step in training.train_gan(
        generator,
        discriminator,
        training.batches(train.x, BATCH * fabric.world_size, draw, fabric=fabric),
        lambda n: torch.randn(n, LATENT, generator=noise),
        objective=objectives.non_saturating,
        g_optimizer=g_optimizer,
        d_optimizer=d_optimizer,
        fabric=fabric,
    ):
        # Early on the average must forget its start faster than later on.
        _move_towards(average, generator, 1 - min(AVERAGE, step.step / (step.step + 10)))
        losses.append((step.d_loss, step.g_loss))
        if step.step in FRAMES:
            frames.append(_draw(average, filmed))
        yield Progress(step.step, steps, f"D {step.d_loss:.2f}, G {step.g_loss:.2f}")
        if step.step >= steps:
            break
    average = average.cpu().eval()
    measures = _measure(average, train.x, test.x, device.generator(seed + 10_000))
    yield Progress(
        steps,
        steps,
        f"Fréchet distance {measures['Fréchet distance in digit features, to test']:.1f}",
        module=average,
        measures=measures,
        film=checkpoints.Film(
            torch.tensor(FRAMES[: len(frames)]),
            torch.stack(frames),
            {"D's loss": torch.tensor(losses)[:, 0], "G's loss": torch.tensor(losses)[:, 1]},
        ),
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
def _draw(generator: nn.Module, z: Tensor) -> Tensor:
    """Draw with batch norm's running statistics, as the finished generator will."""
    drawn: Tensor = copy.deepcopy(generator).cpu().eval()(z)
    return drawn


@torch.no_grad()
def _move_towards(average: nn.Module, current: nn.Module, weight: float) -> None:
    for mean, value in zip(
        (*average.parameters(), *average.buffers()),
        (*current.parameters(), *current.buffers()),
        strict=True,
    ):
        if mean.is_floating_point():
            mean.lerp_(value, weight)
        else:
            mean.copy_(value)


@torch.no_grad()
def _measure(
    generator: networks.DCGANGenerator, train: Tensor, test: Tensor, noise: torch.Generator
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
