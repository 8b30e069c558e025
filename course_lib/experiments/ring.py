"""Eight Gaussians on a ring: modes kept by each objective, and by each remedy for a game that fails.

Two hidden layers of 64 units, 128 points per batch, one step of each player per round, Adam with betas
0.5 and 0.9, 600 rounds. In the *hasty* game G learns four times as fast as D; in the *patient* one the
two rates are exchanged. Each remedy changes the hasty game with the non-saturating loss in one way,
which ``REMEDIES`` names; everything else is equal, the seeds of data and noise included.

Chapter: book/generate/failing.md
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from course_lib import device
from course_lib.classifiers import evaluating
from course_lib.gans import cgan, energy, game, networks, objectives, penalties, training, tricks
from course_lib.metrics import modes_kept

SEEDS = 5
ROUNDS = 600
RADIUS, SPREAD = 2.0, 0.1
WIDTH, BATCH, LATENT = 64, 128, 2
POINTS = 2_000
#: The samples are looked at every so many rounds, from this round on.
LOOK_EVERY, LATE = 25, 450
FAST, SLOW = 8e-3, 2e-3
#: The learning rates of G and of D.
GAMES = {"hasty": (FAST, SLOW), "patient": (SLOW, FAST)}

OBJECTIVES = {
    objective.name: objective
    for objective in (
        objectives.minimax,
        objectives.non_saturating,
        objectives.lsgan,
        objectives.wgan,
        objectives.wgan_gp,
        objectives.dragan,
        objectives.ebgan,
        # Its lambda_k is for a hundred times as many rounds.
        replace(objectives.began, controller=partial(objectives.Equilibrium, 0.7, rate=0.05)),
    )
}
BASELINE = objectives.non_saturating.name

#: What each remedy changes in the hasty game.
REMEDIES = {
    "none": "nothing",
    "five steps of D": "k = 5",
    "label smoothing": "the target of real samples is 0.9",
    "feature matching": "G matches the mean of D's last hidden layer",
    "minibatch discrimination": "8 kernels of 4 numbers on D's last hidden layer",
    "instance noise": "on all that D sees, from a quarter of the radius down to 0",
    "R1": "the penalty with gamma = 1",
    "batch norm in G": "after each hidden layer of G",
    "batch norm in D": "after each hidden layer of D",
    "averaged generator": "the same game: what is measured is G's running average",
    "labels": "both players are told which of four pairs of neighbours is meant",
}
LABELS, KERNELS = 4, 8


def cells() -> list[dict[str, str | int | float]]:
    """Return the runs: every objective in both games, every remedy in the hasty one, 5 seeds each."""
    rows = [(name, pace, "none") for name in OBJECTIVES for pace in GAMES]
    rows += [(BASELINE, "hasty", name) for name in REMEDIES if name != "none"]
    return [
        {"objective": objective, "game": pace, "remedy": remedy, "seed": seed}
        for seed in range(SEEDS)
        for objective, pace, remedy in rows
    ]


def measure(**cell: str | int | float) -> dict[str, float]:
    """Play one game; return the modes kept and the share of good samples, at its end and before.

    ``modes`` (0 to 8) and ``good`` (share within 3 deviations of a centre) are those of 2,000 samples
    at the end; ``modes late`` and ``good late`` their means over the looks from round 450 on, ``modes
    least`` the fewest modes in one of these. ``fake score`` is D's mean score of the last batch of
    fakes. A game that diverged keeps nothing, and says in which round.
    """
    centres = game.ring_centres(8, RADIUS)
    looks, score = [], 0.0
    names = str(cell["objective"]), str(cell["game"]), str(cell["remedy"])
    try:
        for step, points in play(*names, seed=int(cell["seed"])):
            looks.append(modes_kept(points, centres, SPREAD))
            score = step.fake_score
    except training.TrainingDivergedError as error:
        nothing = dict.fromkeys(("modes", "good", "modes late", "good late", "modes least"), 0.0)
        return {**nothing, "fake score": math.nan, "diverged in round": error.step.step}
    modes, good = zip(*looks, strict=True)
    return {
        "modes": modes[-1],
        "good": good[-1],
        "modes late": sum(modes) / len(modes),
        "good late": sum(good) / len(good),
        "modes least": min(modes),
        "fake score": score,
        "diverged in round": math.nan,
    }


def play(
    objective: str, pace: str, remedy: str, *, seed: int, first: int = LATE
) -> Iterator[tuple[training.Step, Tensor]]:
    """Play one game; yield the record and samples (2000, 2) every 25 rounds, from ``first`` to the end.

    ``objective``, ``pace``, ``remedy``: keys of ``OBJECTIVES``, ``GAMES`` and ``REMEDIES``.
    """
    torch.set_num_threads(1)  # networks this small run faster on one core
    weights, noise, real, rng, looked = (device.generator(10 * seed + i) for i in range(5))
    centres = game.ring_centres(8, RADIUS)
    G, D = players(OBJECTIVES[objective], remedy, weights, rng)
    average = training.Average(G) if remedy == "averaged generator" else None
    g_optimizer, d_optimizer = (
        torch.optim.Adam(net.parameters(), lr=rate, betas=(0.5, 0.9), fused=True)
        for net, rate in zip((G, D), GAMES[pace], strict=True)
    )

    def batch() -> Tensor | tuple[Tensor, Tensor]:
        x = game.around(centres, BATCH, SPREAD, real)
        # Neighbours share a label: 0 and 1, 2 and 3, ...
        return (x, torch.cdist(x, centres).argmin(1) // 2) if remedy == "labels" else x

    def sample_noise(n: int, rng: torch.Generator = noise) -> Tensor | tuple[Tensor, Tensor]:
        z = torch.randn(n, LATENT, generator=rng)
        return (z, torch.randint(LABELS, (n,), generator=rng)) if remedy == "labels" else z

    given = sample_noise(POINTS, looked)
    for step in training.train_gan(
        G,
        D,
        iter(batch, None),
        sample_noise,
        objective=changed(OBJECTIVES[objective], remedy),
        g_optimizer=g_optimizer,
        d_optimizer=d_optimizer,
        k=5 if remedy == "five steps of D" else 1,
        average=average,
        rng=rng,
    ):
        if remedy == "instance noise":
            D[0].sigma = RADIUS / 4 * (1 - step.step / ROUNDS)
        if step.step >= first and step.step % LOOK_EVERY == 0:
            shown = G if average is None else average.module
            with torch.no_grad(), evaluating(shown):
                yield step, shown(given) if isinstance(given, Tensor) else shown(*given)
        if step.step == ROUNDS:
            return


def changed(objective: objectives.Objective, remedy: str) -> objectives.Objective:
    """Return ``objective`` as the remedy changes it."""
    if remedy == "label smoothing":
        return tricks.smoothed(objective)
    if remedy == "feature matching":
        return tricks.feature_matching(objective, features=lambda D, x: D[:-1](x))
    if remedy == "R1":
        return replace(objective, penalty=penalties.r1(gamma=1.0))
    return objective


def players(
    objective: objectives.Objective, remedy: str, weights: torch.Generator, rng: torch.Generator
) -> tuple[nn.Module, Any]:
    """Return G and D, as the objective needs them and the remedy changes them."""
    if remedy == "labels":
        return cgan.point_players(LABELS, latent=LATENT, width=WIDTH, generator=weights)
    G = networks.mlp(LATENT, 2, width=WIDTH, generator=weights)
    if objective.scores == "energies":
        norm: energy.Norm = "absolute" if objective.controller else "euclidean"
        return G, energy.for_points(width=WIDTH, norm=norm, generator=weights)
    D = networks.mlp(2, 1, width=WIDTH, generator=weights)
    if remedy == "minibatch discrimination":
        closeness = tricks.MinibatchDiscrimination(WIDTH, KERNELS, 4, generator=weights)
        D = nn.Sequential(*D[:-1], closeness, cgan.head(WIDTH + KERNELS, 1, generator=weights))
    if remedy == "instance noise":
        D.insert(0, tricks.InstanceNoise(RADIUS / 4, rng))
    if remedy == "batch norm in G":
        G = with_batch_norm(G)
    if remedy == "batch norm in D":
        D = with_batch_norm(D)
    return G, D


def with_batch_norm(net: nn.Sequential) -> nn.Sequential:
    """Return the same layers, with batch norm behind each linear one but the last."""
    layers: list[nn.Module] = []
    for layer in net:
        layers.append(layer)
        if isinstance(layer, nn.Linear) and layer is not net[-1]:
            layers.append(nn.BatchNorm1d(layer.out_features))
    return nn.Sequential(*layers)
