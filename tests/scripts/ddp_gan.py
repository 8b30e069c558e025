"""Train a small GAN for a few rounds, and write the weights each process ends with.

Run plainly or under ``fabric run``: nothing here knows how many processes there are, except that
each takes its share of one global batch of data and of noise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn

from course_lib import device
from course_lib.gans import game, networks, objectives, training

GLOBAL_BATCH = 16
ROUNDS = 4


def main(folder: Path) -> None:
    """Train, and save ``rank<r>.pt`` with the weights after the first and after the last round."""
    torch.set_num_threads(1)
    fabric = device.launch(accelerator="cpu")  # under `fabric run` the command line decides
    # Other weights in each process: rank 0's must win, as data-parallel training promises.
    start = device.generator(fabric.global_rank)
    generator = networks.mlp(2, 2, width=16, generator=start)
    # Batch norm, because its buffers are what breaks naive data-parallel GANs; its statistics are
    # frozen, because those of half a batch are not those of a whole one.
    discriminator = nn.Sequential(
        *networks.mlp(2, 8, width=16, generator=start),
        FrozenBatchNorm(8),
        *networks.mlp(8, 1, width=16, generator=start),
    )
    data = game.around(game.ring_centres(), 256, 0.05, device.generator(1))
    noise = device.generator(2)

    def sample_noise(n: int) -> torch.Tensor:
        everyone = torch.randn(n * fabric.world_size, 2, generator=noise)
        return everyone[fabric.global_rank :: fabric.world_size]

    snapshots = []
    for step in training.train_gan(
        generator,
        discriminator,
        training.batches(data, GLOBAL_BATCH, device.generator(3), fabric=fabric),
        sample_noise,
        objective=objectives.non_saturating,
        # Plain gradient descent: an update is the gradient, so that an error in it shows.
        g_optimizer=torch.optim.SGD(generator.parameters(), lr=0.1),
        d_optimizer=torch.optim.SGD(discriminator.parameters(), lr=0.1),
        k=2,
        fabric=fabric,
    ):
        if step.step in (1, ROUNDS):
            parameters = [*generator.parameters(), *discriminator.parameters()]
            snapshots.append(torch.cat([p.detach().flatten() for p in parameters]))
        if step.step == ROUNDS:
            break
    torch.save(
        {"processes": fabric.world_size, "first": snapshots[0], "last": snapshots[1]},
        folder / f"rank{fabric.global_rank}.pt",
    )
    fabric.barrier()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


class FrozenBatchNorm(nn.BatchNorm1d):
    """Batch normalisation that always uses its running averages, yet writes to its buffers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise (N, C) by the running averages, and count the batch in place."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
