"""Real data, with its licence: a sample of each set in the package, the full sets by ``fetch``.

Each loader returns a :class:`Labelled`: examples, labels, groups that never cross a split, and the
data set's :class:`Card`. Nothing here needs a network, except ``fetch``.

Chapter: book/back/data.md
"""

from __future__ import annotations

import importlib
from typing import Any

from course_lib.data._cards import Card, card, cards
from course_lib.data._download import FetchError
from course_lib.data._labelled import Labelled
from course_lib.data.ecg import Beats, ecg
from course_lib.data.fetch import fetch
from course_lib.data.mnist import mnist
from course_lib.data.orl import orl
from course_lib.data.patients import Patients, patients
from course_lib.data.photographs import photographs
from course_lib.data.portraits import portraits
from course_lib.data.signs import signs
from course_lib.data.spoken_digits import Recordings, spoken_digits
from course_lib.data.synthetic_digits import Synthesised, synthetic_digits
from course_lib.data.texts import Texts, texts

__all__ = [
    "Beats",
    "Card",
    "FetchError",
    "Labelled",
    "Patients",
    "Recordings",
    "Synthesised",
    "Texts",
    "actors",
    "card",
    "cards",
    "ecg",
    "fetch",
    "mnist",
    "orl",
    "patients",
    "photographs",
    "portraits",
    "signs",
    "spoken_digits",
    "synthetic_digits",
    "texts",
]


def __getattr__(name: str) -> Any:
    if name == "actors":  # the renderer: loaded when it is asked for
        return importlib.import_module(f"{__name__}.actors")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
