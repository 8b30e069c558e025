"""The recipes behind the checkpoints: one module each, run by ``course train NAME``.

A recipe is a generator ``run(fabric, *, seed, steps)`` that yields ``Progress``; the last one carries
the trained module and what it measures. ``make`` runs one and writes its checkpoint. A recipe whose
progress offers a ``state`` takes such a state as ``state=`` too, and ``make`` lets it go on where a
run that was cut short had come.

Chapter: book/welcome/how_to_use.md
"""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
import pkgutil
import platform
import time
from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from course_lib import __version__, checkpoints, device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from course_lib.gans.run import Run


@dataclass(frozen=True)
class Progress:
    """How far a recipe is: ``step`` of ``steps``, a line of text, and at the end what it made.

    ``about`` holds the card's ``summary``, ``architecture``, ``data``, ``licence`` and ``limits``.
    ``samples``: images (N, C, H, W) in [0, 1] to look at on the way. ``state()`` returns tensors,
    numbers, and lists and dictionaries of them, from which ``run(..., state=...)`` goes on;
    ``resumed`` marks the first progress of a run that does.
    """

    step: int
    steps: int
    text: str
    module: nn.Module | None = None
    measures: dict[str, float] | None = None
    about: dict[str, str] | None = None
    film: checkpoints.Film | None = None
    samples: Tensor | None = None
    state: Callable[[], dict[str, Any]] | None = None
    resumed: bool = False


#: Seconds between two states kept on disk: what a kill can cost.
KEEP_EVERY = 30.0


def names() -> list[str]:
    """Return the names of all recipes, with dashes, as ``course train`` takes them."""
    return sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__))


def make(
    name: str, folder: Path, fabric: Fabric, *, seed: int = 0, steps: int | None = None
) -> Iterator[Progress]:
    """Run the recipe ``name``, passing on its progress, and write its checkpoint into ``folder``.

    Every half minute the state of a recipe that has one is kept beside it, under a name that begins
    with a dot; the same recipe with the same seed and steps goes on from there. It goes when the
    checkpoint is written, and stays after a kill or a training that diverged. ``<name>.png`` shows
    the latest samples until then.

    Raises ``ValueError`` for a recipe that does not exist or a state that cannot be read, and
    ``RuntimeError`` for a training that diverged.
    """
    if name not in names():
        raise ValueError(f"name: no recipe {name!r}; there are {', '.join(names())}")
    recipe: Any = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    kept = _kept_path(folder, name, recipe, fabric, seed, steps)
    before = _read_state(kept)
    resumed = {}
    if before is not None:
        resumed = {"state": before["state"]}
        step, total = before["step"], before["steps"]
        yield Progress(step, total, f"going on after step {step:,} of {total:,}", resumed=True)
    began = time.perf_counter() - (0.0 if before is None else before["seconds"])
    last_kept = time.perf_counter()
    progress = None
    try:
        for progress in recipe.run(fabric, seed=seed, steps=steps, **resumed):
            if progress.samples is not None and fabric.is_global_zero:
                _contact_sheet(folder / f"{name}.png", progress.samples)
            now = time.perf_counter()
            if progress.state is not None and now - last_kept >= KEEP_EVERY:
                reached = {"step": progress.step, "steps": progress.steps, "seconds": now - began}
                _write_state(kept, {**reached, "state": progress.state()})
                last_kept = now
            yield progress
    except ArithmeticError as error:
        good = (
            f"the last good state is kept in {kept}" if kept.is_file() else "no state was kept yet"
        )
        raise RuntimeError(f"{name}: {error}; {good}") from error
    if progress is None or progress.module is None or progress.measures is None:
        raise RuntimeError(f"the recipe {name} ended without a trained module")
    if fabric.is_global_zero:
        checkpoints.save(
            folder,
            name,
            progress.module,
            {
                **(progress.about or {}),
                "recipe": f"course_lib/recipes/{name.replace('-', '_')}.py",
                "seed": seed,
                "steps": progress.steps,
                "seconds": round(time.perf_counter() - began, 1),
                "machine": device.describe(fabric),
                "measures": progress.measures,
                "versions": {
                    "course_lib": __version__,
                    "torch": torch.__version__.split("+")[0],
                    "python": platform.python_version(),
                },
            },
            progress.film,
        )
    kept.unlink(missing_ok=True)
    if fabric.is_global_zero:
        (folder / f"{name}.png").unlink(missing_ok=True)


def follow(
    game: Run, x: Tensor, y: Tensor | None = None, *, steps: int, looks: Container[int]
) -> Iterator[Progress]:
    """Train ``game`` on ``x``, with labels ``y`` or without, up to ``steps``: one progress per step.

    ``looks``: the steps that carry samples. Raises what ``Run.steps`` raises.
    """
    for step in game.steps(x, y, until=steps):
        numbers = {"D": step.d_loss, "G": step.g_loss, **step.measures}
        yield Progress(
            step.step,
            steps,
            ", ".join(f"{name} {value:.2f}" for name, value in numbers.items()),
            samples=game.samples() if step.step in looks else None,
            state=game.state,
        )


def _kept_path(
    folder: Path, name: str, recipe: Any, fabric: Fabric, seed: int, steps: int | None
) -> Path:
    """Return where the state of exactly this run is kept: a recipe that was changed is another."""
    text = Path(recipe.__file__).read_bytes()
    settings = f"{seed} {steps} {fabric.world_size} {torch.__version__}".encode()
    run = hashlib.sha256(text + settings).hexdigest()[:12]
    return folder / f".{name}-{run}-{fabric.global_rank}.state"


def _read_state(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        _ = state["state"], state["step"], state["steps"], float(state["seconds"])
    except (OSError, EOFError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path}: the state of a run that was cut short cannot be read ({error}); "
            "delete it to begin anew"
        ) from error
    return state


def _write_state(path: Path, state: dict[str, Any]) -> None:
    file = io.BytesIO()
    torch.save(state, file)
    checkpoints.write(path.parent, {path.name: file.getvalue()})


def _contact_sheet(path: Path, images: Tensor) -> None:
    from torchvision.utils import save_image  # type: ignore[import-untyped]

    path.parent.mkdir(parents=True, exist_ok=True)
    columns = max(1, round((2 * len(images)) ** 0.5))
    save_image(images.float(), path, nrow=columns, padding=1, pad_value=1.0)
