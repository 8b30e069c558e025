"""How fast a DCGAN learns digits: the course's, and PyTorch-GAN's, a widely copied one.

Both get the same 10,000 digits and one CPU thread. The Fréchet distance to the 2,000 test digits is
taken after fixed numbers of CPU seconds of training; drawing and judging the fakes is not counted. The
peer is restated here from implementations/dcgan/dcgan.py of eriklindernoren/PyTorch-GAN at commit
36d3c77e5ff20ebe0aeefd322326a134a279b93e: its networks, losses, settings and order of steps. Its loader
is not: the images are brought to its 32 pixels once, before the clock starts, which spares it time.

Chapter: book/generate/conv_gans.md
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from course_lib import checkpoints, data, device
from course_lib.classifiers import DigitNet
from course_lib.gans import training
from course_lib.metrics import frechet_distance
from course_lib.recipes import dcgan_digits

OURS = "ours"
PEER = "PyTorch-GAN"
#: CPU seconds of training after which the fakes are judged. Drawing them takes the peer half a minute.
MARKS = {
    OURS: (5, 10, 20, 40, 60, 90, 120),
    PEER: (20, 60, 120, 240, 360, 600),
}
FAKES = 5_000
PEER_LATENT = 100
PEER_BATCH = 64
PEER_SIZE = 32


def cells() -> list[dict[str, str | int | float]]:
    """Return the runs: PyTorch-GAN's once for ten minutes, ours twice for two."""
    return [
        {"who": PEER, "seed": 0, "seconds": 600},
        {"who": OURS, "seed": 0, "seconds": 120},
        {"who": OURS, "seed": 1, "seconds": 120},
    ]


def measure(who: str, seed: int, seconds: int) -> dict[str, float]:
    """Train one of the two and judge it at its marks up to ``seconds`` of CPU time.

    Per mark: ``distance at <mark> s``, ``steps at <mark> s`` and ``digits at <mark> s``, how many of
    the ten make up more than 1 % of the fakes. The peer's fakes are drawn as its own loop draws
    them, with batch norm in training mode; at the end also with the running statistics, as
    ``distance in evaluation mode``. ``distance of real digits, there and back`` is what its size of
    32 pixels costs real training digits that are brought to it and back.
    """
    judge = checkpoints.load("digit-net", DigitNet())
    reference = _features(judge, data.mnist("test").x)[0]
    drawing = _peer(seed) if who == PEER else _ours(seed)
    result: dict[str, float] = {}
    spent, steps = 0.0, 0
    for mark in (mark for mark in MARKS[who] if mark <= seconds):
        while spent < mark:
            began = time.process_time()
            draw, steps = next(drawing), steps + 1
            spent += time.process_time() - began
        features, shares = _features(judge, draw(True))
        result[f"distance at {mark} s"] = frechet_distance(features, reference)
        result[f"steps at {mark} s"] = steps
        result[f"digits at {mark} s"] = int((shares > 0.01).sum())
    if who == PEER:
        features, _ = _features(judge, draw(False))
        result["distance in evaluation mode"] = frechet_distance(features, reference)
        there_and_back = from_peer(to_peer(data.mnist("train").x))
        features, _ = _features(judge, there_and_back)
        result["distance of real digits, there and back"] = frechet_distance(features, reference)
    return result


#: Draws ``FAKES`` digits, (N, 1, 28, 28) in [0, 1]. The peer's takes: with the batches' own statistics?
Draw = Callable[[bool], Tensor]


def _peer(seed: int) -> Iterator[Draw]:
    """Train PyTorch-GAN's DCGAN, and yield after each step how to draw from it as it is then."""
    torch.manual_seed(seed)
    generator, discriminator = PeerGenerator(), PeerDiscriminator()
    x = to_peer(data.mnist("train").x)
    batches = training.batches(x, PEER_BATCH, device.generator(seed))

    @torch.no_grad()
    def draw(batch_statistics: bool) -> Tensor:
        # A copy, for drawing moves the running statistics; channels_last draws in half the time.
        drawn = copy.deepcopy(generator).to(memory_format=torch.channels_last)
        drawn.train(batch_statistics)
        z = torch.randn(FAKES, PEER_LATENT, generator=device.generator(seed + 10_000))
        return torch.cat([from_peer(drawn(part)) for part in z.split(PEER_BATCH)])

    for _ in peer_rounds(generator, discriminator, batches, PEER_LATENT):
        yield draw


def _ours(seed: int) -> Iterator[Draw]:
    """Train as the recipe of dcgan-digits does."""
    from lightning_fabric import (
        Fabric,
    )  # seconds to import, which a chapter that only reads the rows saves

    run = dcgan_digits.training(Fabric(accelerator="cpu", devices=1), seed)

    @torch.no_grad()
    def draw(_: bool) -> Tensor:
        generator = run.finished()
        z = torch.randn(FAKES, dcgan_digits.LATENT, generator=device.generator(seed + 10_000))
        return torch.cat([generator(part) for part in z.split(500)])

    for _ in run.steps(data.mnist("train").x, until=1_000_000):
        yield draw


@torch.no_grad()
def _features(judge: DigitNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the judge's features, (N, 64), and each digit's share among its guesses, (10,)."""
    parts = images.split(500)
    guesses = torch.cat([judge(part).argmax(dim=1) for part in parts])
    features = torch.cat([judge.features(part) for part in parts])
    return features, guesses.bincount(minlength=10) / len(images)


class PeerGenerator(nn.Module):
    """PyTorch-GAN's DCGAN generator: noise (N, 100) to images (N, 1, 32, 32) in [-1, 1].

    A linear layer to 128 maps of 8x8, then twice: double each pixel, convolve 3x3, normalise. The 0.8
    that it gives to batch norm is eps, whatever was meant.
    """

    def __init__(self) -> None:
        super().__init__()
        side = PEER_SIZE // 4
        self.layers = nn.Sequential(
            nn.Linear(PEER_LATENT, 128 * side**2),
            nn.Unflatten(1, (128, side, side)),
            nn.BatchNorm2d(128),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 128, 3, padding=1),
            nn.BatchNorm2d(128, eps=0.8),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(128, 64, 3, padding=1),
            nn.BatchNorm2d(64, eps=0.8),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(64, 1, 3, padding=1),
            nn.Tanh(),
        )
        self.apply(_peer_start)

    def forward(self, z: Tensor) -> Tensor:
        """Turn noise (N, 100) into images (N, 1, 32, 32) in [-1, 1]."""
        images: Tensor = self.layers(z)
        return images


class PeerDiscriminator(nn.Module):
    """PyTorch-GAN's DCGAN discriminator: (N, 1, 32, 32) in [-1, 1] to probabilities (N, 1).

    Four 3x3 convolutions with stride 2, each with leaky ReLU and dropout of whole maps, batch norm
    (eps 0.8) on all but the first; a linear layer and a sigmoid.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, maps in ((1, 16), (16, 32), (32, 64), (64, 128)):
            layers += [
                nn.Conv2d(before, maps, 3, stride=2, padding=1),
                nn.LeakyReLU(0.2, inplace=True),
                nn.Dropout2d(0.25),
            ]
            layers += [nn.BatchNorm2d(maps, eps=0.8)] if before > 1 else []
        side = PEER_SIZE // 2**4
        self.layers = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(128 * side**2, 1), nn.Sigmoid()
        )
        self.apply(_peer_start)

    def forward(self, x: Tensor) -> Tensor:
        """Turn images (N, 1, 32, 32) in [-1, 1] into probabilities (N, 1) of being real."""
        probability: Tensor = self.layers(x)
        return probability


def _peer_start(layer: nn.Module) -> None:
    """Draw the weights as it does: convolutions and batch norm; its linear layers stay torch's."""
    if isinstance(layer, nn.Conv2d):
        nn.init.normal_(layer.weight, 0.0, 0.02)
    elif isinstance(layer, nn.BatchNorm2d):
        nn.init.normal_(layer.weight, 1.0, 0.02)
        nn.init.zeros_(layer.bias)


def to_peer(x: Tensor) -> Tensor:
    """Bring digits (N, 1, 28, 28) in [0, 1] to what PyTorch-GAN trains on: 32x32 in [-1, 1]."""
    larger = F.interpolate(x, size=(PEER_SIZE, PEER_SIZE), mode="bilinear", antialias=True)
    return 2 * larger - 1


def from_peer(images: Tensor) -> Tensor:
    """Bring PyTorch-GAN's images (N, 1, 32, 32) in [-1, 1] back to 28x28 in [0, 1].

    Bicubic, for that blurs real digits, sent there and back, less than bilinear resampling does.
    """
    smaller = F.interpolate(images, size=(28, 28), mode="bicubic", antialias=True)
    return ((smaller + 1) / 2).clamp(0, 1)


def peer_rounds(
    generator: nn.Module, discriminator: nn.Module, batches: Iterable[Tensor], latent: int
) -> Iterator[None]:
    """Train as PyTorch-GAN's loop does, one step of each player per batch.

    The generator moves first; the discriminator then sees the same fakes. ``discriminator`` returns
    probabilities (N, 1). The losses are read out every step, as the loop prints them.
    """
    cost = nn.BCELoss()
    g_optimizer, d_optimizer = (
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for net in (generator, discriminator)
    )
    for real in batches:
        true, false = torch.ones(len(real), 1), torch.zeros(len(real), 1)
        g_optimizer.zero_grad()
        fake = generator(torch.randn(len(real), latent))
        g_loss = cost(discriminator(fake), true)
        g_loss.backward()
        g_optimizer.step()
        d_optimizer.zero_grad()
        d_loss = (cost(discriminator(real), true) + cost(discriminator(fake.detach()), false)) / 2
        d_loss.backward()
        d_optimizer.step()
        _ = g_loss.item(), d_loss.item()
        yield
