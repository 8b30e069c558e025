"""A long training that can be interrupted anywhere, goes on bit for bit, and is filmed on its way.

Chapter: book/generate/conv_gans.md
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib import device
from course_lib.checkpoints import Film
from course_lib.gans.objectives import Objective
from course_lib.gans.training import Average, Conditioned, Step, batches, train_gan

if TYPE_CHECKING:
    from lightning_fabric import Fabric

#: ``optimizer(parameters)``, so that the run can make it once the modules are where they train.
MakeOptimizer = Callable[[Any], torch.optim.Optimizer]


class Run:
    """One training of a GAN with all that it consists of: players, optimizers, average, dice, film.

    ``generator``, ``discriminator``: as in ``train_gan``; they are moved to ``fabric``'s device.
    ``sample_noise(n, rng)``: a batch of noise, or a pair (z, c), drawn on the CPU from ``rng``.
    ``order``: draws the order of the real samples. ``watched``: noise, or a pair, whose images are
    filmed (drawn by the average in evaluation mode) at the steps in ``frames``, 0 being the start.
    ``rate(step)``: what both learning rates are multiplied by in each step, from 1 on.
    ``dice``: other generators that the training draws from, by name, so that a state holds them too.
    ``cpu_seconds``: what the steps have cost this process so far; what a caller does between them is
    not counted.

    Source: Goodfellow et al. 2014, Algorithm 1, through ``train_gan``.
    """

    def __init__(
        self,
        fabric: Fabric,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        objective: Objective,
        g_optimizer: MakeOptimizer,
        d_optimizer: MakeOptimizer,
        sample_noise: Callable[[int, torch.Generator], Conditioned],
        order: torch.Generator,
        batch_size: int,
        watched: Conditioned,
        frames: Sequence[int] = (),
        seed: int = 0,
        k: int | Callable[[int], int] = 1,
        decay: float = 0.99,
        rate: Callable[[int], float] | None = None,
        dice: Mapping[str, torch.Generator] | None = None,
    ) -> None:
        self.fabric = fabric
        self.generator = generator.to(fabric.device)
        self.discriminator = discriminator.to(fabric.device)
        self.average = Average(self.generator, decay)
        self.objective = objective
        self.g_optimizer = g_optimizer(self.generator.parameters())
        self.d_optimizer = d_optimizer(self.discriminator.parameters())
        self.controller = objective.controller() if objective.controller is not None else None
        self.step = 0
        self.cpu_seconds = 0.0
        self._sample_noise = sample_noise
        self._order, self._first_order = order, order.get_state()
        self._batch_size = batch_size * fabric.world_size
        self._watched = watched
        self._frames = frozenset(frames)
        self._k = k
        self._rate = rate
        self._dice = {
            **(dice or {}),
            "noise": device.generator(seed + 1 + fabric.global_rank),
            "penalty": device.generator(seed + 1_000_001 + fabric.global_rank),
        }
        self._losses: list[tuple[float, float]] = []
        self._filmed: list[Tensor] = [self.samples()] if 0 in self._frames else []
        self._filmed_at: list[int] = [0] if self._filmed else []

    def steps(self, x: Tensor, y: Tensor | None = None, *, until: int) -> Iterator[Step]:
        """Train on ``x`` (N, ...), with labels ``y`` or without, from where the run is, to ``until``.

        Raises what ``train_gan`` raises.
        """
        drawn = sum(self._k(i) if callable(self._k) else self._k for i in range(1, self.step + 1))
        rates = [
            (group, group["lr"])
            for optimizer in (self.g_optimizer, self.d_optimizer)
            for group in optimizer.param_groups
        ]
        self._order.set_state(self._first_order)  # the batches before are passed by again
        training = train_gan(
            self.generator,
            self.discriminator,
            batches(x, self._batch_size, self._order, y=y, first=drawn + 1, fabric=self.fabric),
            lambda n: self._sample_noise(n, self._dice["noise"]),
            objective=self.objective,
            g_optimizer=self.g_optimizer,
            d_optimizer=self.d_optimizer,
            k=self._k,
            average=self.average,
            controller=self.controller,
            rng=self._dice["penalty"],
            first_step=self.step + 1,
            fabric=self.fabric,
        )
        try:
            while self.step < until:
                began = time.process_time()
                for group, lr in rates:
                    group["lr"] = lr * (self._rate(self.step + 1) if self._rate else 1.0)
                step = next(training)
                self.step = step.step
                self._losses.append((step.d_loss, step.g_loss))
                if self.step in self._frames:
                    self._filmed.append(self.samples())
                    self._filmed_at.append(self.step)
                # A state taken between two steps has the rates without their factor.
                for group, lr in rates:
                    group["lr"] = lr
                self.cpu_seconds += time.process_time() - began
                yield step
        finally:
            training.close()  # type: ignore[attr-defined]

    @torch.no_grad()
    def samples(self) -> Tensor:
        """Return what the average makes of the watched noise, on the CPU, in evaluation mode."""
        finished = self.finished()
        if isinstance(self._watched, Tensor):
            drawn: Tensor = finished(self._watched)
        else:
            drawn = finished(*self._watched)
        return drawn

    def finished(self) -> nn.Module:
        """Return a copy of the averaged generator, on the CPU, in evaluation mode."""
        return copy.deepcopy(self.average.module).cpu().eval()

    def film(self) -> Film:
        """Return the frames filmed so far, and the losses of every step from the first on."""
        losses = torch.tensor(self._losses).reshape(-1, 2)
        return Film(
            torch.tensor(self._filmed_at),
            torch.stack(self._filmed),
            {"D's loss": losses[:, 0], "G's loss": losses[:, 1]},
        )

    def state(self) -> dict[str, Any]:
        """Return all that ``restore`` needs to go on from here, bit for bit, on the same machine."""
        cuda = self.fabric.device.type == "cuda"
        return {
            "step": self.step,
            "cpu_seconds": self.cpu_seconds,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "average": self.average.module.state_dict(),
            "g_optimizer": self.g_optimizer.state_dict(),
            "d_optimizer": self.d_optimizer.state_dict(),
            "controller": self.controller.state_dict() if self.controller else {},
            "dice": {name: die.get_state() for name, die in self._dice.items()},
            "torch": torch.get_rng_state(),  # dropout draws from torch's own
            "cuda": torch.cuda.get_rng_state(self.fabric.device) if cuda else None,
            "losses": self._losses,
            "filmed": self._filmed,
            "filmed_at": self._filmed_at,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from a ``state`` of a run that was made with the same arguments.

        Raises ``ValueError`` if it is the state of another run.
        """
        try:
            for name in ("generator", "discriminator", "g_optimizer", "d_optimizer"):
                getattr(self, name).load_state_dict(state[name])
            self.average.module.load_state_dict(state["average"])
            if self.controller is not None:
                self.controller.load_state_dict(state["controller"])
            for name, die in self._dice.items():
                die.set_state(state["dice"][name])
        except (KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"state: not of this run: {error}") from error
        torch.set_rng_state(state["torch"])
        if state["cuda"] is not None and self.fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], self.fabric.device)
        self.step, self.cpu_seconds = state["step"], state["cpu_seconds"]
        self._losses = list(state["losses"])
        self._filmed, self._filmed_at = list(state["filmed"]), list(state["filmed_at"])
