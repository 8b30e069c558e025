"""Networks that rebuild what they are given, and what keeps them from merely copying it.

``networks`` are encoders and decoders, ``training`` is the loop and what it makes small.

Chapter: book/represent/pca.md
"""

from __future__ import annotations

from course_lib.autoencoders import networks, training

__all__ = ["networks", "training"]
