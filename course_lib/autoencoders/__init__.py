"""Networks that rebuild what they are given, and what keeps them from merely copying it.

``networks`` are encoders and decoders, ``training`` is the loop and what it makes small. ``denoising``,
``sparse`` and ``contractive`` are constraints on a code, ``stacked`` learns a deep encoder layer by layer.
The others put an autoencoder to work: ``segmentation``, ``anomaly``, and ``swap``, the face swap.

Chapter: book/represent/autoencoders.md
"""

from __future__ import annotations

from course_lib.autoencoders import (
    anomaly,
    contractive,
    denoising,
    networks,
    segmentation,
    sparse,
    stacked,
    swap,
    training,
)

__all__ = [
    "anomaly",
    "contractive",
    "denoising",
    "networks",
    "segmentation",
    "sparse",
    "stacked",
    "swap",
    "training",
]
