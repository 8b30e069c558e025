"""How a catalogue of answers is written down: the checks are graded too.

``solutions/<name>/catalogue.py`` lists wrong answers, each with the checks it must lose and the message
its author must read, and right answers written differently, which must keep full marks.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import NamedTuple


class Wrong(NamedTuple):
    """A wrong answer: the answer cells it changes, the checks it loses, and a piece of the message.

    The message is looked for in the verdict of check ``on``, or of any lost check when it is empty.
    """

    name: str
    cells: Mapping[str, str]
    lost: Set[str]
    message: str
    on: str = ""


class Right(NamedTuple):
    """A right answer written differently: the answer cells it changes. It keeps full marks."""

    name: str
    cells: Mapping[str, str]
