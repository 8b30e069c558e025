"""Dense autoencoders of digits with codes of 2, 8 and 32 numbers.

Chapters: book/represent/autoencoders.md, book/represent/convolutional.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from torch import nn

from course_lib import data, device
from course_lib.autoencoders import networks, training
from course_lib.recipes import Progress

if TYPE_CHECKING:  # takes seconds to import, and a chapter needs none of it
    from lightning_fabric import Fabric

CODES = (2, 8, 32)
#: Hidden layers by code size: a second one of 48 would be as narrow as a code of 32 numbers.
WIDTHS = {2: (96, 48), 8: (96, 48), 32: (96,)}
SEEDS = 3
STEPS = 1_500
SHAPE = (1, 28, 28)


def run(fabric: Fabric, *, seed: int = 0, steps: int | None = None) -> Iterator[Progress]:
    """Train a dense autoencoder for each code size, three times over; keep those of the first
    seed."""
    return race(
        lambda code, **settings: networks.dense(SHAPE, WIDTHS[code], code, **settings),
        fabric,
        seed=seed,
        steps=STEPS if steps is None else steps,
        about={
            "summary": "Three dense autoencoders of digits, with codes of 2, 8 and 32 numbers. The "
            "measures are squared distances on unseen digits, for the seed that is kept and two "
            "more.",
            "architecture": f"course_lib.autoencoders.networks.dense, in an nn.ModuleDict by code "
            f"size; hidden layers {WIDTHS}",
        },
    )


def race(
    build: Callable[..., networks.Autoencoder],
    fabric: Fabric,
    *,
    seed: int,
    steps: int,
    about: dict[str, str],
) -> Iterator[Progress]:
    """Train ``build(code, generator=...)`` for each of ``CODES`` and ``SEEDS`` seeds, ``steps``
    batches each.

    Everything but the network is the same for whoever races: images, batches, loss, schedule.
    """
    train, test = data.mnist("train").x, data.mnist("test").x
    kept, measures, done = nn.ModuleDict(), {}, 0
    total = steps * len(CODES) * SEEDS
    for code in CODES:
        for own in range(seed, seed + SEEDS):
            model = build(code, generator=device.generator(own))
            for step in training.fit(
                model,
                train,
                steps=steps,
                loss=training.cross_entropy,
                lr=4e-3,
                fabric=fabric,
                seed=own,
            ):
                done += 1
                yield Progress(done, total, f"code {code}, seed {own}: loss {step.loss:.1f}")
            model = model.cpu()
            if own == seed:  # stored in half precision, so measured in it
                kept[str(code)] = model.half().float()
            error = training.reconstruction_error(model, test)
            measures[f"error with {code} numbers, seed {own}"] = error
    yield Progress(
        total,
        total,
        ", ".join(f"{name} {value:.2f}" for name, value in measures.items()),
        module=kept.half(),
        measures=measures,
        about={
            **about,
            "data": "MNIST, the course's sample: 10,000 training images; measured on 2,000 test images",
            "licence": "MIT; the data is CC BY-SA 3.0 (LeCun, Cortes, Burges)",
            "limits": "Rebuild centred 28x28 digits and nothing else. Codes that no digit has decode "
            "to blots: they are no generators.",
        },
    )
