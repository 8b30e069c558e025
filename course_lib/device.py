"""Where to run: one CPU, a GPU, several, or several nodes, with the same training code.

Everything goes through Lightning Fabric. ``launch`` gives a started ``Fabric``; under
``fabric run`` it takes its settings from that command line instead, which is how one script runs on
two CPU processes or on eight GPUs without a change.

Chapter: book/welcome/how_to_use.md
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import torch

if TYPE_CHECKING:  # seconds to import: `launch` pays for it, a seeded generator does not
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.strategy import Strategy

Precision = Literal["32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true"]
_PRECISIONS: tuple[str, ...] = ("32-true", "bf16-mixed", "16-mixed", "bf16-true", "64-true")


def launch(
    *,
    seed: int = 0,
    accelerator: str = "auto",
    devices: int | str = 1,
    num_nodes: int = 1,
    precision: Precision = "32-true",
    strategy: str | Strategy = "auto",
) -> Fabric:
    """Start Lightning Fabric, seeded, on the best device that is there.

    ``seed``: every random generator of Python, NumPy and torch is set to it, plus the process's
    rank, so that two processes draw different noise and a rerun draws the same.
    ``accelerator``: ``"auto"``, ``"cpu"``, ``"mps"`` or ``"gpu"``; ``devices``: how many, or ``"auto"``
    for all. Under ``fabric run`` the command line decides on all of these.

    Raises ``ValueError`` for a seed or a precision that does not exist, or a device that is not there.
    """
    from lightning_fabric import Fabric, seed_everything

    if not 0 <= seed < 2**32 - 1:
        raise ValueError(f"seed: expected 0 <= seed < 2**32 - 1, got {seed}")
    if precision not in _PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(_PRECISIONS)}; got {precision!r}")
    by_command_line = "LT_CLI_USED" in os.environ  # set by `fabric run`, which has chosen already
    settings: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": devices,
        "num_nodes": num_nodes,
        "precision": precision,
        "strategy": strategy,
    }
    try:
        fabric = Fabric() if by_command_line else Fabric(**settings)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"accelerator={accelerator!r}, devices={devices!r}: this machine cannot give that "
            f"({error}); accelerator='auto' takes what is there"
        ) from error
    if not by_command_line:  # its processes are running, and Fabric refuses to start them twice
        fabric.launch()
    seed_everything(seed + fabric.global_rank, verbose=False)
    return fabric


def generator(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a seeded random generator on ``device``.

    A GPU's generator draws other numbers than a CPU's from the same seed: where two machines must
    agree, draw on the CPU and move the result.
    """
    return torch.Generator(device=device).manual_seed(seed)


def shuffled(
    n: int, batch_size: int, generator: torch.Generator, fabric: Fabric | None = None
) -> Iterator[torch.Tensor]:
    """Return batches of indices 0..n-1 without end, each index once before any comes again.

    A batch is int64 (``batch_size``,); what is left of a round and fills no batch is passed by. With
    ``fabric`` a batch is that of all its processes, and each gets its own equal part, if ``generator``
    has the same seed everywhere.

    Raises ``ValueError`` unless 1 <= batch_size <= n, or for a batch that cannot be shared equally.
    """
    rank, world = (fabric.global_rank, fabric.world_size) if fabric else (0, 1)
    if not 1 <= batch_size <= n:
        raise ValueError(f"batch_size: expected 1 <= batch_size <= {n}, got {batch_size}")
    if batch_size % world:
        raise ValueError(
            f"batch_size: expected a multiple of the {world} processes, got {batch_size}"
        )

    def draw() -> Iterator[torch.Tensor]:
        while True:
            order = torch.randperm(n, generator=generator, device=generator.device)
            for batch in order[: n - n % batch_size].split(batch_size):
                yield batch[rank::world]

    return draw()


def describe(fabric: Fabric) -> str:
    """Say in one line what this run uses, e.g. ``CPU, 2 threads, 32-true``."""
    device = fabric.device
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    elif device.type == "cpu":
        where = f"CPU, {torch.get_num_threads()} threads"
    else:
        where = device.type.upper()
    many = f"{fabric.world_size} processes of " if fabric.world_size > 1 else ""
    return f"{many}{where}, {fabric._precision.precision}"
