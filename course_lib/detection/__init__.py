"""Telling generated images, voices, texts and manners from real ones, and judging whoever claims to.

The ground: ``processing`` gives real and generated the same history, ``compression`` is what happens to a
picture on its way, ``evaluate`` how a detector is judged and how a result that is too good is taken apart.
What looks: ``cnn`` at pixels, ``spectrum`` at frequencies, ``attribution`` for the generator, ``heatmap``
for the place, ``behaviour`` at movement, ``voice`` at speech, ``text`` at words. What follows: ``race``
against an attacker, ``provenance`` and ``privacy``.

Chapter: book/detect/first_detector.md
"""

from __future__ import annotations

from course_lib.detection import (
    attribution,
    behaviour,
    cnn,
    compression,
    evaluate,
    heatmap,
    privacy,
    processing,
    provenance,
    race,
    spectrum,
    text,
    voice,
)

__all__ = [
    "attribution",
    "behaviour",
    "cnn",
    "compression",
    "evaluate",
    "heatmap",
    "privacy",
    "processing",
    "provenance",
    "race",
    "spectrum",
    "text",
    "voice",
]
