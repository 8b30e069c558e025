"""Generative adversarial networks: objectives, the training loop, networks, and small games.

``objectives`` says what each player wants, ``training`` is Algorithm 1, ``networks`` are the players,
``game`` has the densities and mixtures on which everything is known.

Chapter: book/generate/two_player_game.md
"""

from __future__ import annotations

from course_lib.gans import game, networks, objectives, training

__all__ = ["game", "networks", "objectives", "training"]
