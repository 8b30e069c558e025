"""Generative adversarial networks: objectives, the training loop, networks, and small games.

``objectives`` says what each player wants, with ``penalties`` and ``tricks`` to add to it; ``training``
is Algorithm 1, and ``run`` a long training that can be interrupted. ``networks`` and ``energy`` are the
players, ``cgan``, ``acgan`` and ``infogan`` those that are told something, ``augmentation`` what both are
shown; ``game`` has the densities and mixtures on which everything is known.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

from course_lib.gans import (
    acgan,
    augmentation,
    cgan,
    energy,
    game,
    infogan,
    networks,
    objectives,
    penalties,
    run,
    training,
    tricks,
)

__all__ = [
    "acgan",
    "augmentation",
    "cgan",
    "energy",
    "game",
    "infogan",
    "networks",
    "objectives",
    "penalties",
    "run",
    "training",
    "tricks",
]
