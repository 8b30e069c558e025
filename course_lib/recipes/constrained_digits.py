"""Overcomplete autoencoders of small digits, one for each constraint and each of its strengths.

Chapter: book/represent/constraints.md
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import data, device
from course_lib.autoencoders import training
from course_lib.autoencoders.contractive import contractive_penalty, tied
from course_lib.autoencoders.denoising import corrupt
from course_lib.autoencoders.networks import Autoencoder
from course_lib.autoencoders.sparse import RunningMean, sparse_penalty
from course_lib.recipes import Progress

if (
    TYPE_CHECKING
):  # seconds to import, and a chapter that only loads the checkpoint needs none of it
    from lightning_fabric import Fabric

#: Images of 14 x 14 = 196 pixels, and 256 units: more than it takes to copy every pixel.
SHAPE, UNITS = (1, 14, 14), 256
STEPS = 2_000

#: The runs that are scrubbed: what rho, and what lambda.
RHOS = (0.02, 0.05, 0.1, 0.2, 0.35, 0.5)
LAMBDAS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)

#: How strongly a sparse one is held to its rho, and what the noise of the denoising ones is.
BETA = 6.0
NU, SIGMA = 0.5, 0.5

#: A batch so small that the mean over it says little about a unit.
SMALL_BATCH, RHO_IN_SMALL_BATCH = 4, 0.1


def empty() -> nn.ModuleDict:
    """Return the autoencoders of the checkpoint, untrained: by name, or by name and place in a list."""
    one = partial(tied, SHAPE, UNITS)
    return nn.ModuleDict(
        {
            "plain": one(),
            "masked": one(),
            "gaussian": one(),
            "sparse": nn.ModuleList(one() for _ in RHOS),
            "contractive": nn.ModuleList(one() for _ in LAMBDAS),
            "small batch, its own mean": one(),
            "small batch, running mean": one(),
        }
    )


def small(x: Tensor) -> Tensor:
    """Return digits (N, 1, 28, 28) at half the size: (N, 1, 14, 14), the means of 2 x 2 pixels."""
    return F.avg_pool2d(x, 2)


def settings() -> dict[str, dict[str, Any]]:
    """Return what is special about each run, by its name in the checkpoint's state."""
    runs: dict[str, dict[str, Any]] = {
        "plain": {},
        "masked": {"corrupt": partial(corrupt, nu=NU)},
        "gaussian": {"corrupt": partial(corrupt, sigma=SIGMA)},
    }
    runs |= {f"sparse.{i}": {"penalty": _sparse(rho)} for i, rho in enumerate(RHOS)}
    runs |= {f"contractive.{i}": {"penalty": _contractive(at)} for i, at in enumerate(LAMBDAS)}
    for name, running in (("its own", None), ("running", RunningMean())):
        runs[f"small batch, {name} mean"] = {
            "penalty": _sparse(RHO_IN_SMALL_BATCH, running),
            "batch_size": SMALL_BATCH,
        }
    return runs


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train one autoencoder for each of ``settings``, all from the same weights, on the same batches.

    ``steps``: of each run. The 10,000 training images of the course's sample; measured on its 2,000
    test images.
    """
    steps = STEPS if steps is None else steps
    train, test = small(data.mnist("train").x), small(data.mnist("test").x)
    models, runs, measures = empty(), settings(), {}
    for i, (name, special) in enumerate(runs.items()):
        model = models.get_submodule(name)
        assert isinstance(model, Autoencoder)
        start = tied(SHAPE, UNITS, generator=device.generator(seed))
        model.load_state_dict(start.state_dict())
        for step in training.fit(
            model,
            train,
            steps=steps,
            loss=training.cross_entropy,
            **{"lr": 1e-2, "weight_decay": 0.03, "fabric": fabric, "seed": seed, **special},
        ):
            yield Progress(
                i * steps + step.step,
                len(runs) * steps,
                f"{name}: loss {step.loss:.1f}, penalty {step.penalty:.2f}",
            )
        model.cpu()
        measures[f"{name}, test error"] = training.reconstruction_error(model, test)
        measures[f"{name}, mean activation"] = float(model.encode(test).detach().mean())
    yield Progress(
        len(runs) * steps,
        len(runs) * steps,
        f"{len(runs)} autoencoders trained",
        module=models.half(),
        measures=measures,
        about={
            "summary": "What keeps an autoencoder with more units than pixels from copying: plain, "
            "denoising, sparse and contractive ones, over a range of rho and lambda.",
            "architecture": "course_lib.autoencoders.contractive.tied: one sigmoid layer of 256 units, "
            "its matrix transposed as decoder; half precision",
            "data": "MNIST, the course's sample, at 14x14: 10,000 training images; measured on 2,000 "
            "test images (errors are squared and summed over pixels)",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "One seed each, to be looked at and compared; the features are too simple to "
            "build on.",
        },
    )


def _sparse(rho: float, running: RunningMean | None = None) -> training.Penalty:
    return lambda model, x, code: BETA * sparse_penalty(code, rho, running=running)


def _contractive(weight: float) -> training.Penalty:
    return lambda model, x, code: weight * contractive_penalty(model.encoder, x)
