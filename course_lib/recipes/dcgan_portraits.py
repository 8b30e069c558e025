"""The generator of portraits: a small DCGAN that learns faces of nobody from 704 photographs.

So few photographs a discriminator learns by heart. Against that stand mirror images, and random
changes to everything that it looks at.

Chapter: book/generate/conv_gans.md
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import checkpoints, data, device, metrics
from course_lib.autoencoders import segmentation
from course_lib.gans import networks, objectives
from course_lib.gans.augmentation import Augmented
from course_lib.gans.run import Run
from course_lib.recipes import Progress, follow

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS, VARIANT_STEPS = 1_800, 1_200
LATENT = 32
#: Few enough maps that a page of the book can carry the generator.
CHANNELS, MAX_CHANNELS = 24, 64
JUDGE_CHANNELS = 24
BATCH = 32
RATE = 5e-4
#: From this share of the steps on the learning rates fall, down to a tenth at the end.
FALL = 0.6
#: The shipped generator is a running average of the trained one over about 1 / (1 - this) steps.
AVERAGE = 0.995
#: Portraits per frame of the film, and the steps that get a frame.
FILMED = 8
FRAMES = [0, 15, 30, 60, 100, 160, 250, 380, 550, 800, 1100, 1450, 1800]


def run(
    fabric: Fabric,
    *,
    seed: int = 0,
    steps: int | None = None,
    state: dict[str, Any] | None = None,
    upsampling: networks.Upsampling = "transposed",
) -> Iterator[Progress]:
    """Train a DCGAN on the 704 training portraits and their mirror images, and measure 704 of its own.

    What is kept is a running average of the generator's weights, in half precision.
    """
    steps = STEPS if steps is None else steps
    train, test = data.portraits("train").x, data.portraits("test").x
    draw, changes = device.generator(seed), device.generator(seed + 2_000_001 + fabric.global_rank)
    generator = portrait_generator(draw, upsampling)
    discriminator = networks.DCGANDiscriminator(
        JUDGE_CHANNELS, size=64, image_channels=3, generator=draw
    )
    for net in (generator, discriminator):
        net.to(memory_format=torch.channels_last)
    adam = functools.partial(torch.optim.Adam, lr=RATE, betas=(0.5, 0.99))
    training = Run(
        fabric,
        generator,
        Augmented(discriminator, changes),
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
        rate=lambda step: min(1.0, 1 - 0.9 * (step / steps - FALL) / (1 - FALL)),
        dice={"changes": changes},
    )
    if state is not None:
        training.restore(state)
    yield from follow(training, torch.cat([train, train.flip(3)]), steps=steps, looks=FRAMES)
    kept = training.finished().half()  # as it is stored
    rounded = copy.deepcopy(kept).float()
    measures = {
        "CPU seconds": training.cpu_seconds,
        **measure(rounded, train, test, seed + 10_000),
    }
    yield Progress(
        steps,
        steps,
        ", ".join(f"{key} {value:.3g}" for key, value in measures.items()),
        module=kept,
        measures=measures,
        film=training.film(),
        samples=training.samples(),
        about={
            "summary": "A generator of portraits of nobody: 32 numbers of noise to a 64x64 image.",
            "architecture": "course_lib.recipes.dcgan_portraits.portrait_generator"
            f"({'' if upsampling == 'transposed' else f'upsampling={upsampling!r}'}), which is "
            "networks.DCGANGenerator(latent=32, channels=24, size=64, image_channels=3, "
            f"max_channels=64{'' if upsampling == 'transposed' else f', upsampling={upsampling!r}'}); "
            "the running average of its weights, in half precision",
            "data": f"the course's {len(train)} training portraits: public-domain photographs of "
            "members of the US Congress, and their mirror images",
            "licence": "MIT; the photographs are in the public domain",
            "limits": "Learned from few photographs of one profession in one country, older, more "
            "often men and more often white than the people whom they represent: it is no sample of "
            "how people look. Its faces are of nobody; never give them a name, an account or words.",
        },
    )


def variant(
    fabric: Fabric,
    *,
    seed: int = 0,
    steps: int | None = None,
    state: dict[str, Any] | None = None,
    upsampling: networks.Upsampling = "transposed",
) -> Iterator[Progress]:
    """Train the same for two thirds of the steps, as one more generator to detect; it gets no film."""
    steps = VARIANT_STEPS if steps is None else steps
    for progress in run(fabric, seed=seed, steps=steps, state=state, upsampling=upsampling):
        yield replace(progress, film=None)


def portrait_generator(
    draw: torch.Generator | None = None, upsampling: networks.Upsampling = "transposed"
) -> networks.DCGANGenerator:
    """Return the generator as it is before training: noise (N, 32) to images (N, 3, 64, 64)."""
    return networks.DCGANGenerator(
        LATENT,
        CHANNELS,
        size=64,
        image_channels=3,
        max_channels=MAX_CHANNELS,
        upsampling=upsampling,
        generator=draw,
    )


def judge() -> metrics.Judge:
    """Return the course's face segmenter as a judge of images (N, 3, H, W): 128 features each.

    They are the 32 smallest maps of its encoder, averaged over each quarter of the image. It learned
    on drawings of 32 pixels; a Fréchet distance in its features is not the FID of the literature.
    """
    network = segmentation.segmenter((3, 32, 32), channels=8, skips=False)
    beside = segmentation.segmenter((3, 32, 32), channels=8)
    checkpoints.load("face-segmenter", nn.ModuleDict({"skips": beside, "no skips": network}))

    def body(x: Tensor) -> Tensor:
        code: Tensor = network.encode(F.interpolate(x, size=(32, 32), mode="area"))
        return F.avg_pool2d(code.unflatten(1, (32, 8, 8)), 4).flatten(1)

    return metrics.Judge("face-segmenter", network, body)


@torch.no_grad()
def measure(generator: nn.Module, train: Tensor, test: Tensor, seed: int) -> dict[str, float]:
    """Return how near the generated portraits come to held-out ones, and whether they are copies.

    As many are generated as there are training portraits. A copy may be a mirror image.
    """
    z = torch.randn(len(train), LATENT, generator=device.generator(seed))
    fakes = torch.cat([generator(part) for part in z.split(100)])
    eye = judge()
    seen = torch.cat([train, train.flip(3)])
    features = {
        name: eye.features(x)
        for name, x in (("fakes", fakes), ("train", train), ("test", test), ("seen", seen))
    }
    distance = eye.named("Fréchet distance")
    found = {
        f"{distance}, to held-out": metrics.frechet_distance(features["fakes"], features["test"]),
        f"{distance}, training to held-out": metrics.frechet_distance(
            features["train"], features["test"]
        ),
    }
    for where, (made, held, known) in {
        "pixels": (fakes, test, seen),
        "features": (features["fakes"], features["test"], features["seen"]),
    }.items():
        for name, x in (("generated", made), ("held-out", held)):
            mean = float(metrics.nearest(x, known).distances.mean())
            found[f"distance to the nearest training portrait, {where}, {name}"] = mean
        found[f"nearer to it than held-out ones, share of pairs, {where}"] = metrics.copying(
            made, held, known
        ).share
    return found
