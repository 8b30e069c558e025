"""Reference implementations for the course: an arms race from PCA to deepfake detection.

Submodules load when they are asked for, so that ``import course_lib`` costs milliseconds and pulls
in neither torch nor matplotlib: ``from course_lib import pca`` is what pays for them.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: What ``course_lib.<name>`` loads on first use: ground floor, the five parts, roof.
__all__ = [
    "attacks",
    "autoencoders",
    "checkpoints",
    "classifiers",
    "data",
    "detection",
    "device",
    "experiments",
    "figures",
    "gans",
    "grading",
    "metrics",
    "pca",
    "plots",
    "publish",
    "recipes",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
