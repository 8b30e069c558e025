"""What every loader returns: examples, labels, groups, and the card that says whose they are.

Chapter: book/back/data.md
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from course_lib.data._cards import Card


@dataclass(frozen=True, eq=False, repr=False)
class Labelled:
    """Examples with their labels.

    ``x``: float32, (N, C, H, W) in [0, 1] for images, (N, T) in [-1, 1] for sound. ``y``: int64
    (N,), the class. ``group``: int64 (N,), who or what an example comes from (a person, a speaker):
    two splits of one data set never share a group. ``card``: source, licence and known limits.

    Raises ``ValueError`` when a tensor has another dtype, the lengths differ or there is no example.
    """

    x: Tensor
    y: Tensor
    group: Tensor
    card: Card

    def __post_init__(self) -> None:
        if self.x.dtype != torch.float32 or self.x.ndim < 2:
            raise ValueError(
                f"x: expected float32 with two dimensions or more, "
                f"got {self.x.dtype} of shape {tuple(self.x.shape)}"
            )
        if len(self.x) == 0:
            raise ValueError("x: expected one example or more, got none")
        for name, tensor in self._per_example().items():
            if name != "x" and (tensor.dtype != torch.int64 or tensor.shape != (len(self.x),)):
                raise ValueError(
                    f"{name}: expected int64 of shape ({len(self.x)},), "
                    f"got {tensor.dtype} of shape {tuple(tensor.shape)}"
                )

    def __len__(self) -> int:
        """Return how many examples there are."""
        return len(self.x)

    def __repr__(self) -> str:
        """Say in one line what this is, without the values."""
        return (
            f"{type(self).__name__}({self.card.name}: x {tuple(self.x.shape)}, "
            f"{len(self.y.unique())} classes, {len(self.group.unique())} groups)"
        )

    def subset(self, which: Tensor) -> Self:
        """Return the examples that ``which`` selects, in its order: a bool mask (N,) or int64 indices.

        Raises ``ValueError`` for another dtype or shape, for an index out of range, or for no example.
        """
        if which.ndim != 1 or which.dtype not in (torch.bool, torch.int64):
            raise ValueError(
                f"which: expected a bool mask or int64 indices in one dimension, "
                f"got {which.dtype} of shape {tuple(which.shape)}"
            )
        if which.dtype == torch.bool and len(which) != len(self):
            raise ValueError(f"which: expected a mask of length {len(self)}, got {len(which)}")
        if which.dtype == torch.int64 and len(which):
            low, high = int(which.min()), int(which.max())
            if low < 0 or high >= len(self):
                raise ValueError(f"which: expected indices 0..{len(self) - 1}, got {low}..{high}")
        chosen: dict[str, Any] = {name: t[which] for name, t in self._per_example().items()}
        return replace(self, **chosen)

    def take(self, n: int, *, seed: int) -> Self:
        """Return ``n`` examples drawn without replacement, the same ones for the same ``seed``.

        Raises ``ValueError`` unless 1 <= n <= N.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"n: expected 1 <= n <= {len(self)}, got {n}")
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        return self.subset(order[:n])

    def _per_example(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def checked_split(split: str, known: tuple[str, ...]) -> str:
    """Return ``split``, or raise ``ValueError`` when it is not among the ``known`` ones."""
    if split not in known:
        raise ValueError(f"split: expected one of {', '.join(known)}; got {split!r}")
    return split
