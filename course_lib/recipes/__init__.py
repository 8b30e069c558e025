"""The recipes behind the checkpoints: one module each, run by ``course train NAME``.

A recipe is a generator ``run(fabric, *, seed, steps)`` that yields ``Progress``; the last one carries
the trained module and what it measures. ``make`` runs one and writes its checkpoint.

Chapter: book/welcome/how_to_use.md
"""

from __future__ import annotations

import importlib
import pkgutil
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from course_lib import __version__, checkpoints, device

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Progress:
    """How far a recipe is: ``step`` of ``steps``, a line of text, and at the end what it made.

    ``about`` holds the card's ``summary``, ``architecture``, ``data``, ``licence`` and ``limits``.
    """

    step: int
    steps: int
    text: str
    module: nn.Module | None = None
    measures: dict[str, float] | None = None
    about: dict[str, str] | None = None
    film: checkpoints.Film | None = None


def names() -> list[str]:
    """Return the names of all recipes, with dashes, as ``course train`` takes them."""
    return sorted(info.name.replace("_", "-") for info in pkgutil.iter_modules(__path__))


def make(
    name: str, folder: Path, fabric: Fabric, *, seed: int = 0, steps: int | None = None
) -> Iterator[Progress]:
    """Run the recipe ``name``, passing on its progress, and write its checkpoint into ``folder``.

    Raises ``ValueError`` for a recipe that does not exist.
    """
    if name not in names():
        raise ValueError(f"name: no recipe {name!r}; there are {', '.join(names())}")
    recipe: Any = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    began = time.perf_counter()
    progress = None
    for progress in recipe.run(fabric, seed=seed, steps=steps):
        yield progress
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
