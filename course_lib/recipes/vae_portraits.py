"""A variational autoencoder of portraits: another kind of generator, with another kind of trace.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

from course_lib import data, device, metrics
from course_lib.autoencoders.training import fit, reconstruction_error
from course_lib.autoencoders.variational import VariationalAutoencoder, kl_divergence
from course_lib.recipes import Progress
from course_lib.recipes.dcgan_portraits import judge

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

STEPS = 2_500
#: The decoder's standard deviation per pixel and channel: how much weight the prior gets.
SIGMA = 0.1


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train on the 704 training portraits and their mirror images; measure on the held-out ones."""
    steps = STEPS if steps is None else steps
    train, test = data.portraits("train").x, data.portraits("test").x
    began = time.process_time()
    model = VariationalAutoencoder(
        noise=device.generator(seed + 1), generator=device.generator(seed)
    )
    for step in fit(
        model,
        torch.cat([train, train.flip(3)]),
        steps=steps,
        penalty=functools.partial(kl_divergence, weight=2 * SIGMA**2),
        batch_size=64,
        lr=2e-3,
        fabric=fabric,
        seed=seed,
    ):
        yield Progress(step.step, steps, f"loss {step.loss:.1f}, penalty {step.penalty:.2f}")
    kept = model.cpu().eval().half()  # as it is stored
    rounded = copy.deepcopy(kept).float()
    eye = judge()
    prior = rounded.sample(len(train), generator=device.generator(seed + 10_000))
    drawn = rounded.sample(len(train), generator=device.generator(seed + 10_000), like=train)
    features = [eye.features(x) for x in (drawn, prior, train, test)]
    distance = eye.named("Fréchet distance")
    measures = {
        "CPU seconds": time.process_time() - began,
        "squared distance, held-out, rebuilt": reconstruction_error(rounded, test),
        f"{distance}, drawn like the codes, to held-out": metrics.frechet_distance(
            features[0], features[3]
        ),
        f"{distance}, drawn from N(0, 1), to held-out": metrics.frechet_distance(
            features[1], features[3]
        ),
        f"{distance}, training to held-out": metrics.frechet_distance(features[2], features[3]),
    }
    yield Progress(
        steps,
        steps,
        ", ".join(f"{name} {value:.3g}" for name, value in measures.items()),
        module=kept,
        measures=measures,
        samples=drawn[:16],
        about={
            "summary": "A variational autoencoder that draws portraits of nobody from 64 numbers, best "
            "from a Gaussian fitted to its codes.",
            "architecture": "course_lib.autoencoders.variational.VariationalAutoencoder(), in half "
            "precision",
            "data": f"the course's {len(train)} training portraits: public-domain photographs of "
            "members of the US Congress, and their mirror images",
            "licence": "MIT; the photographs are in the public domain",
            "limits": "Blurred, as such models are, and learned from few photographs of one profession "
            "in one country. Made to be detected; never give its faces a name, an account or words.",
        },
    )
