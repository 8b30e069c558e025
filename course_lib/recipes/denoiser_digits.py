"""A denoiser of digits: convolutions, a code larger than the image, and noise of many strengths.

Chapter: book/represent/constraints.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from course_lib import data, device
from course_lib.autoencoders import training
from course_lib.autoencoders.denoising import corrupt
from course_lib.autoencoders.networks import Autoencoder, initialise
from course_lib.recipes import Progress

if (
    TYPE_CHECKING
):  # seconds to import, and a chapter that only loads the checkpoint needs none of it
    from lightning_fabric import Fabric

SHAPE = (1, 28, 28)
CHANNELS = 32
STEPS = 3_000

#: The strongest masking and the strongest Gaussian noise it is trained on.
NU, SIGMA = 0.7, 0.7


def denoiser(*, generator: torch.Generator | None = None) -> Autoencoder:
    """Return the untrained denoiser: (N, 1, 28, 28) to maps (N, 64, 7, 7), and back.

    The code is four times as large as the image. Only the noise keeps it from copying.
    """
    c = CHANNELS
    encoder = nn.Sequential(
        nn.Conv2d(1, c, 4, stride=2, padding=1),  # 28 -> 14
        nn.ReLU(),
        nn.Conv2d(c, 2 * c, 4, stride=2, padding=1),  # 14 -> 7
        nn.ReLU(),
        nn.Conv2d(2 * c, 2 * c, 3, padding=1),
        nn.ReLU(),
    )
    decoder = nn.Sequential(
        nn.Conv2d(2 * c, 2 * c, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * c, c, 4, stride=2, padding=1),  # 7 -> 14
        nn.ReLU(),
        nn.ConvTranspose2d(c, 1, 4, stride=2, padding=1),  # 14 -> 28
    )
    return initialise(Autoencoder(encoder, decoder, SHAPE), generator)


def noise_of_any_strength(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return ``x`` in ten parts, each masked or with Gaussian noise, of a strength drawn for it."""
    parts = []
    for part in x.chunk(10):
        strength, kind = torch.rand(2, generator=generator).tolist()
        noise = {"nu": NU * strength} if kind < 0.5 else {"sigma": SIGMA * strength}
        parts.append(corrupt(part, generator, **noise))
    return torch.cat(parts)


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train the denoiser on the 10,000 images of the course's sample; measure on the 2,000 for
    testing, with masking of 0.5 and with Gaussian noise of 0.5."""
    steps = STEPS if steps is None else steps
    model = denoiser(generator=device.generator(seed))
    for step in training.fit(
        model,
        data.mnist("train").x,
        steps=steps,
        loss=training.cross_entropy,
        corrupt=noise_of_any_strength,
        lr=2e-3,
        fabric=fabric,
        seed=seed,
    ):
        yield Progress(step.step, steps, f"loss {step.loss:.1f}")
    model = model.cpu()
    test = data.mnist("test").x
    measures: dict[str, float] = {}
    draw = device.generator(seed + 1)
    for name, noisy in (
        ("masked", corrupt(test, draw, nu=0.5)),
        ("Gaussian", corrupt(test, draw, sigma=0.5)),
    ):
        before = float((noisy - test).square().mean())
        after = training.reconstruction_error(model, noisy, target=test) / test[0].numel()
        measures |= {f"MSE, {name} 0.5": before, f"MSE, {name} 0.5, denoised": after}
    yield Progress(
        steps,
        steps,
        ", ".join(f"{key} {value:.4f}" for key, value in measures.items()),
        module=model.half(),
        measures=measures,
        about={
            "summary": "A denoiser of digits, for masking and for Gaussian noise, of any strength up to "
            "0.7.",
            "architecture": "course_lib.recipes.denoiser_digits.denoiser: three convolutions to 64 maps "
            "of 7x7, and back by transposed ones; half precision",
            "data": "MNIST, the course's sample: 10,000 training images; measured on 2,000 test images "
            "(mean squared error of a pixel)",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Digits only, and these two noises. It paints what is likely: where the noise "
            "leaves too little, a digit that was never written.",
        },
    )
