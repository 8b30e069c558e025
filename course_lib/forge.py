"""Fakes to detect: portraits of nobody from the course's own generators, and its face swap.

Each generator's images are a data set like any other, with a card, so that every detector of the
course is judged on the same ones. They are drawn when they are asked for: the generators are small,
and their images would not be. It stands on the roof because no data set may know a generator.

Chapter: book/detect/frequency.md
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor, nn

from course_lib import checkpoints, data, device, pca
from course_lib.autoencoders import swap
from course_lib.autoencoders.variational import VariationalAutoencoder
from course_lib.data import Labelled, actors
from course_lib.detection.processing import quantise
from course_lib.gans.networks import Upsampling
from course_lib.recipes import dcgan_portraits, face_swap

Split = Literal["train", "test", "all"]

#: The generators, and how each makes its images.
GENERATORS: Mapping[str, str] = MappingProxyType(
    {
        "dcgan": "DCGAN, transposed convolutions",
        "dcgan-again": "the same, from another seed",
        "dcgan-nearest": "DCGAN, nearest-neighbour enlarging",
        "dcgan-bilinear": "DCGAN, bilinear enlarging",
        "vae": "variational autoencoder",
        "pca": "draws from a Gaussian on principal components",
        "face-swap": "face swap of two rendered actors, pasted into the frame",
        "diffusion": "Stable Diffusion 3, scaled down to 64 x 64",
    }
)
#: How many of each there are, but for "diffusion" (161 and 38). The first are for training.
COUNT = {"train": 400, "test": 175}
#: Every image is made from numbers drawn with this seed and the place of its generator in the list.
SEED = 8
#: PCA's fakes keep this many components: enough for a face, too few for its detail.
COMPONENTS = 100

_DCGANS: dict[str, tuple[str, Upsampling]] = {
    "dcgan": ("dcgan-portraits", "transposed"),
    "dcgan-again": ("dcgan-portraits-again", "transposed"),
    "dcgan-nearest": ("dcgan-portraits-nearest", "nearest"),
    "dcgan-bilinear": ("dcgan-portraits-bilinear", "bilinear"),
}


def fakes(generator: str, split: Split = "train") -> Labelled:
    """Return the images (N, 3, 64, 64) in [0, 1] of one generator, in 8 bits; ``y`` is 1.

    ``generator``: one of ``GENERATORS``; ``group``: the image's number, in a face swap that of the
    moment, which its original shares. "diffusion" gives the made faces of ``data.portraits``. On
    another kind of processor a pixel in a thousand or so may differ by one level.

    Raises ``ValueError`` for an unknown generator or split.
    """
    _check(generator, split)
    if generator == "diffusion":
        return data.portraits(split, source="diffusion")
    images = _swapped()[0] if generator == "face-swap" else _drawn(generator)
    return _part(images, split, label=1)


def originals(generator: str, split: Split = "train") -> Labelled:
    """Return the real images (N, 3, 64, 64) in [0, 1] that ``generator`` is told from; ``y`` is 0.

    The public-domain portraits: those for training are what the generators learned from, those for
    testing none has seen. For "face-swap" the actors' own frames, rendered, at the same moments.

    Raises ``ValueError`` for an unknown generator or split.
    """
    _check(generator, split)
    if generator == "face-swap":
        return _part(_swapped()[1], split, label=0)
    return data.portraits(split)


def _check(generator: str, split: str) -> None:
    if generator not in GENERATORS:
        raise ValueError(f"generator: expected one of {', '.join(GENERATORS)}; got {generator!r}")
    if split not in ("train", "test", "all"):
        raise ValueError(f"split: expected train, test or all; got {split!r}")


def _part(images: Tensor, split: str, *, label: int) -> Labelled:
    start = 0 if split != "test" else COUNT["train"]
    end = COUNT["train"] if split == "train" else len(images)
    return Labelled(
        x=images[start:end].clone(),
        y=torch.full((end - start,), label),
        group=torch.arange(start, end),
        card=data.card("fakes"),
    )


@functools.cache
@torch.no_grad()
def _drawn(name: str) -> Tensor:
    n, chance = sum(COUNT.values()), device.generator(100 * SEED + [*GENERATORS].index(name))
    if name in _DCGANS:
        checkpoint, upsampling = _DCGANS[name]
        network = checkpoints.load(
            checkpoint, dcgan_portraits.portrait_generator(upsampling=upsampling)
        )
        z = torch.randn(n, dcgan_portraits.LATENT, generator=chance)
        x = torch.cat([network(part) for part in z.split(100)])
    elif name == "vae":
        vae = checkpoints.load("vae-portraits", VariationalAutoencoder())
        x = vae.sample(n, generator=chance, like=data.portraits("train").x)
    else:
        half = data.portraits("train").x[::2]  # as good as all for a hundred components, and faster
        basis = pca.fit(half.flatten(1), COMPONENTS)
        x = basis.sample(n, generator=chance).view(n, *half.shape[1:])
    return quantise(x.float().clamp(0, 1))


@functools.cache
def _swapped() -> tuple[Tensor, Tensor]:
    """Return frames of two actors, each with the other's face pasted in, and the frames as they were."""
    networks = checkpoints.load(
        "face-swap", nn.ModuleDict({"swap": swap.SwapNetwork(), "judge": swap.Judge()})
    )
    model = networks["swap"]
    assert isinstance(model, swap.SwapNetwork)
    n = sum(COUNT.values())
    each = -(-n // 2)
    made, real = [], []
    pairs: tuple[tuple[int, swap.Who], ...] = ((face_swap.A, "b"), (face_swap.B, "a"))
    for i, (person, to) in enumerate(pairs):
        frames = swap.close_ups(actors.identity(person), each, 100 * SEED + 20 + i)
        painted = swap.swap(model, frames.images, to)
        made.append(swap.blend(painted, frames.images, frames.masks))
        real.append(frames.images)
    # The two take turns, so that both splits hold both.
    fake, original = (torch.stack(pair, dim=1).flatten(0, 1)[:n] for pair in (made, real))
    return quantise(fake.clamp(0, 1)), quantise(original.clamp(0, 1))
