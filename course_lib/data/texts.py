"""Texts by people and by a language model, and what that model thought of every word.

Passages of speeches; how SmolLM2-135M-Instruct goes on from the beginning of each, drawn in three ways;
some of these after an edit; passages of a novel, and famous ones. For each token the package carries the
model's rank, log-probability, entropy and variance, so that no language model is needed to read them.

Chapter: book/detect/reading.md
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from course_lib.data._cards import card
from course_lib.data._labelled import Labelled, checked_split

#: Tokens of each text that were given, to writer and reader alike, and tokens that are read.
PROMPT, READ = 20, 80
#: What there is of each passage: the person's own words, and the model's in their place.
PAIRED = ("human", "top-k 40", "nucleus 0.95", "pure")
#: Of the test passages only: the top-k texts, edited.
EDITED = ("top-k 40, typos", "top-k 40, rarer words")
#: By people, and for testing only.
OTHERS = ("novel", "famous")
KINDS = (*PAIRED, *EDITED, *OTHERS)
Kind = Literal[
    "human",
    "top-k 40",
    "nucleus 0.95",
    "pure",
    "top-k 40, typos",
    "top-k 40, rarer words",
    "novel",
    "famous",
]


@dataclass(frozen=True, eq=False, repr=False)
class Texts(Labelled):
    """Texts of 100 tokens, of which the last 80 are read: ``x`` (N, 4, 80), what a model thought of each.

    The rows of ``x``: rank (1 for its first choice), log-probability, entropy of its prediction, and
    variance of the log-probability under it, in nats. ``y``: 1 where the model wrote the 80 tokens, 0
    where a person did. ``group``: the person whose words the prompt is. ``passage``: int64 (N,), equal
    for texts that begin alike; ``year``: int64 (N,), 0 where it is not told. ``tokens``: 100 strings per
    text, the prompt first; ``by``: the person's name, or the work's.
    """

    passage: Tensor
    year: Tensor
    tokens: tuple[tuple[str, ...], ...]
    by: tuple[str, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The whole texts."""
        return tuple("".join(tokens) for tokens in self.tokens)

    def subset(self, which: Tensor) -> Self:
        """Return the texts that ``which`` selects, in its order: a bool mask (N,) or int64 indices.

        Raises ``ValueError`` for another dtype or shape, for an index out of range, or for no text.
        """
        chosen = super().subset(which)
        index = torch.arange(len(self))[which].tolist()
        return replace(
            chosen,
            tokens=tuple(self.tokens[i] for i in index),
            by=tuple(self.by[i] for i in index),
        )


def texts(kind: Kind = "human", split: Literal["train", "test", "all"] = "all") -> Texts:
    """Load the texts of one ``kind``, with what SmolLM2-135M-Instruct thought of each token.

    ``human``: passages of 150 State of the Union addresses. ``top-k 40``, ``nucleus 0.95``, ``pure``: the
    same 150 beginnings, continued by the model, each next token drawn from its 40 first choices, from
    the fewest that have 0.95 of the probability, or from all. ``top-k 40, typos`` and ``..., rarer
    words``: the test texts among these after an edit. ``novel``: passages of Moby-Dick; ``famous``:
    passages that many know by heart. Training and test texts are by different speakers; edited
    texts, novel and famous ones have a test split only.

    Raises ``ValueError`` for an unknown kind or split, and for a training split that does not exist.
    Source: ``card("texts")``.
    """
    if kind not in KINDS:
        raise ValueError(f"kind: expected one of {', '.join(KINDS)}; got {kind!r}")
    checked_split(split, ("train", "test", "all"))
    if split == "train" and kind not in PAIRED:
        raise ValueError(f"split: the kind {kind!r} is for testing only, got {split!r}")
    sample = _sample()
    chosen = sample["kind"] == KINDS.index(kind)
    if split != "all":
        chosen &= sample["train"] == (split == "train")
    passage = sample["passage"][chosen].astype(np.int64)
    author = sample["author"][passage].astype(np.int64)
    x = np.stack(
        [sample[name][chosen] for name in ("rank", "log_probability", "entropy", "variance")],
        axis=1,
        dtype=np.float32,
    )
    return Texts(
        x=torch.from_numpy(x),
        y=torch.full((len(x),), int(kind not in ("human", *OTHERS)), dtype=torch.int64),
        group=torch.from_numpy(author),
        card=card("texts"),
        passage=torch.from_numpy(passage),
        year=torch.from_numpy(sample["year"][passage].astype(np.int64)),
        tokens=tuple(map(tuple, sample["vocabulary"][sample["token"][chosen]].tolist())),
        by=tuple(sample["authors"][author].tolist()),
    )


@cache
def _sample() -> dict[str, NDArray[Any]]:
    with files(__package__).joinpath("samples/texts.npz").open("rb") as file:
        return dict(np.load(file, allow_pickle=False))
