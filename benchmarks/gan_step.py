"""What a training step costs: images per CPU second of ``train_gan`` beside the bare networks.

One image counts once, however often the players look at it or at a fake. "Bare passes" are the forward
and backward passes that Algorithm 1 needs and nothing else, on one fixed batch: a fake without a graph,
the discriminator's loss on real and fake, its gradient, a fake with a graph, the generator's loss with
the discriminator frozen, its gradient. No optimizer, no new data, no new noise, no records; a
running average is kept by none of them. PyTorch-GAN's loop draws one batch of fakes for both players where
Algorithm 1 draws two, and leaves the discriminator's weights unfrozen in the generator's step; "its order,
bare" counts the passes of that.

Every repeat times one step of each, in an order drawn anew, so that a busy machine slows all alike; what
is printed are medians over the repeats, and the median of the ratio to the bare passes of the same layout
and precision in the same repeat. Time is this process's CPU time on one thread.
"""

from __future__ import annotations

import argparse
import platform
import random
import statistics
import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from course_lib import data, device
from course_lib.experiments import dcgan_curves
from course_lib.gans import networks, objectives, training
from course_lib.gans.objectives import non_saturating

BATCH = 64
LATENT = 32
CHANNELS = 32
RATE = 1e-3

#: One call is one training step; nothing is returned.
Work = Callable[[], object]
#: Autocast's dtype, or None for float32 throughout.
Precision = torch.dtype | None


def players(layout: torch.memory_format) -> tuple[nn.Module, nn.Module]:
    """Return a generator and a discriminator of 28x28 digits, new, in that memory layout."""
    draw = device.generator(0)
    generator = networks.DCGANGenerator(LATENT, CHANNELS, generator=draw)
    discriminator = networks.DCGANDiscriminator(CHANNELS, generator=draw)
    for net in (generator, discriminator):
        net.to(memory_format=layout)
    return generator, discriminator


def optimizers(*nets: nn.Module) -> list[torch.optim.Optimizer]:
    """Return Adam for each, as the recipe sets it."""
    return [torch.optim.Adam(net.parameters(), lr=RATE, betas=(0.5, 0.999)) for net in nets]


def bare(
    real: Tensor, layout: torch.memory_format, precision: Precision = None, *, update: bool = False
) -> Work:
    """Return Algorithm 1's forward and backward passes; with ``update``, Adam's steps as well."""
    generator, discriminator = players(layout)
    g_optimizer, d_optimizer = optimizers(generator, discriminator)
    z = torch.randn(len(real), LATENT, generator=device.generator(1))

    def step() -> None:
        with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
            with torch.no_grad():
                fake = generator(z)
            loss = non_saturating.discriminator_loss(discriminator(real), discriminator(fake))
        d_optimizer.zero_grad()
        loss.backward()
        if update:
            d_optimizer.step()
        with training.frozen(discriminator):
            with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
                loss = non_saturating.generator_loss(discriminator(generator(z)))
            g_optimizer.zero_grad()
            loss.backward()
        if update:
            g_optimizer.step()

    return step


def bare_in_their_order(real: Tensor, layout: torch.memory_format) -> Work:
    """Return the passes of PyTorch-GAN's loop: one batch of fakes, G's step first, D unfrozen."""
    generator, discriminator = players(layout)
    z = torch.randn(len(real), LATENT, generator=device.generator(1))

    def step() -> None:
        generator.zero_grad()
        fake = generator(z)
        non_saturating.generator_loss(discriminator(fake)).backward()
        discriminator.zero_grad()
        non_saturating.discriminator_loss(
            discriminator(real), discriminator(fake.detach())
        ).backward()

    return step


def ours(x: Tensor, layout: torch.memory_format, fabric: Fabric | None = None) -> Work:
    """Return the next round of ``train_gan``, with its batches, its noise, and Adam."""
    generator, discriminator = players(layout)
    g_optimizer, d_optimizer = optimizers(generator, discriminator)
    noise = device.generator(1)
    rounds = training.train_gan(
        generator,
        discriminator,
        training.batches(x, BATCH, device.generator(2)),
        lambda n: torch.randn(n, LATENT, generator=noise),
        objective=objectives.non_saturating,
        g_optimizer=g_optimizer,
        d_optimizer=d_optimizer,
        fabric=fabric,
    )
    return lambda: next(rounds)


class _Probability(nn.Module):
    """A discriminator of logits with the sigmoid at the end that PyTorch-GAN's loss wants."""

    def __init__(self, discriminator: nn.Module) -> None:
        super().__init__()
        self.discriminator = discriminator

    def forward(self, x: Tensor) -> Tensor:
        """Return D(x), (N, 1), in [0, 1]."""
        probability: Tensor = self.discriminator(x).sigmoid()[:, None]
        return probability


def theirs_on_our_networks(x: Tensor, layout: torch.memory_format) -> Work:
    """Return the next round of PyTorch-GAN's loop, on the networks that ``ours`` trains."""
    generator, discriminator = players(layout)
    batches = training.batches(x, BATCH, device.generator(2))
    rounds = dcgan_curves.peer_rounds(generator, _Probability(discriminator), batches, LATENT)
    return lambda: next(rounds)


def theirs(x: Tensor) -> Work:
    """Return the next round of PyTorch-GAN's loop on its own networks, with 32x32 images."""
    generator, discriminator = dcgan_curves.PeerGenerator(), dcgan_curves.PeerDiscriminator()
    batches = training.batches(dcgan_curves.to_peer(x), BATCH, device.generator(2))
    rounds = dcgan_curves.peer_rounds(generator, discriminator, batches, dcgan_curves.PEER_LATENT)
    return lambda: next(rounds)


def cpu_seconds(work: Work) -> float:
    """Return the CPU seconds that one call takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gan_step")
    parser.add_argument("--repeats", type=int, default=40)
    # Under ``python -m benchmarks`` the command line belongs to that module.
    options, _ = parser.parse_known_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = data.mnist("train").x
    real = x[:BATCH]
    plain, last = torch.contiguous_format, torch.channels_last
    half = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    # The name; the row that it is a share of; the step; in every how many repeats (some are slow).
    rows: list[tuple[str, str, Work, int]] = [
        ("bare passes", "bare passes", bare(real, plain), 1),
        ("  and Adam", "bare passes", bare(real, plain, update=True), 1),
        ("train_gan", "bare passes", ours(x, plain), 1),
        ("its order, bare", "bare passes", bare_in_their_order(real, plain), 1),
        ("PyTorch-GAN's loop", "its order, bare", theirs_on_our_networks(x, plain), 1),
        ("PyTorch-GAN's own networks", "bare passes", theirs(x), 4),
        ("bare passes, channels_last", "bare passes, channels_last", bare(real, last), 1),
        (
            "  and Adam, channels_last",
            "bare passes, channels_last",
            bare(real, last, update=True),
            1,
        ),
        ("train_gan, channels_last", "bare passes, channels_last", ours(x, last), 1),
        ("bare passes, bf16", "bare passes, bf16", bare(real, last, torch.bfloat16), 4),
        ("train_gan, bf16", "bare passes, bf16", ours(x, last, half), 4),
    ]
    for _, _, work, _ in rows:
        work()
    rates: dict[str, dict[int, float]] = {name: {} for name, *_ in rows}
    order = random.Random(0)
    for repeat in range(options.repeats):
        for name, _, work, every in order.sample(rows, len(rows)):
            if repeat % every == 0:
                rates[name][repeat] = BATCH / cpu_seconds(work)
    print(f"batch {BATCH}, {options.repeats} repeats, torch {torch.__version__}, {processor()}")
    print(f"{'images per CPU second':30} {'median':>8}   share of")
    for name, floor, _, _ in rows:
        share = statistics.median(rate / rates[floor][i] for i, rate in rates[name].items())
        print(f"{name:30} {statistics.median(rates[name].values()):8.0f}   {share:5.2f} of {floor}")


def processor() -> str:
    """Name the processor, and the vector units that decide what bf16 costs."""
    capability = torch.backends.cpu.get_cpu_capability()
    amx = torch.cpu._is_amx_tile_supported()
    return f"{platform.machine()}, {capability}, AMX {'yes' if amx else 'no'}"


if __name__ == "__main__":
    main()
