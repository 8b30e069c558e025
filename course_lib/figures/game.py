"""A generator against a discriminator, trained while the reader watches and turns the knobs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Protocol

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Drawing
from torch import Tensor, nn

from course_lib import plots
from course_lib.figures.figure import Answer, Figure
from course_lib.figures.program import CannotRunError, Program, trace

LOSSES = ("non-saturating", "minimax")


@dataclass
class GameSettings:
    """What the reader may change while a game runs; a ``play`` reads it before each round.

    ``k``: discriminator steps per round, 1 to 8. ``g_rate``, ``d_rate``: Adam's learning rates, 1e-5
    to 0.1. ``loss``: of the generator, "non-saturating" or "minimax" (the saturating one).
    ``head_start``: rounds at the beginning in which the generator's rate is 0, so that D is far
    ahead when the generator may move. ``seed``: of the noise and of the real batches.

    Raises ``ValueError`` for a value outside these ranges.
    """

    k: int = 1
    g_rate: float = 2e-3
    d_rate: float = 2e-3
    loss: str = "non-saturating"
    head_start: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not (isinstance(self.k, int) and 1 <= self.k <= 8):
            raise ValueError(f"k: expected a whole number from 1 to 8, got {self.k!r}")
        for name in ("g_rate", "d_rate"):
            if not 0.999e-5 <= getattr(self, name) <= 0.1001:
                raise ValueError(f"{name}: expected 1e-5 to 0.1, got {getattr(self, name)!r}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss: expected one of {', '.join(LOSSES)}; got {self.loss!r}")
        for name in ("head_start", "seed"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 0):
                raise ValueError(f"{name}: expected 0, 1, 2, ...; got {getattr(self, name)!r}")


class Round(Protocol):
    """What a ``play`` yields after each round: both losses, as they were before the updates."""

    @property
    def d_loss(self) -> float:
        """The discriminator's log-loss, a mean over the round's k steps."""

    @property
    def g_loss(self) -> float:
        """The generator's loss."""


#: play(G, D, settings): an iterator that makes one round per ``next``, training both in place.
Play = Callable[[nn.Module, nn.Module, GameSettings], Iterator[Round]]


def gan_game(
    play: Play,
    *,
    G: nn.Module,
    D: nn.Module,
    centres: Tensor,
    spreads: float | Tensor,
    settings: Mapping[str, GameSettings],
    title: str,
    alt: str,
    weights: Tensor | None = None,
    batch: int = 128,
    extent: float | None = None,
    pace: int = 2,
    picture_rounds: int = 0,
    seed: int = 0,
) -> Figure:
    """Return a figure in which ``G`` and ``D`` play, and the reader plays, steps, resets and retunes.

    The data is a mixture of Gaussians: ``centres`` (M, d) with d = 1 or 2, ``spreads`` one standard
    deviation for all or (M,), ``weights`` (M,), positive (default: equal). ``G``: noise to (N, d), its
    first layer a Linear; ``D``: (N, d) to logits (N,) or (N, 1). Every game is played with copies.
    ``settings``: what can be chosen, by name; the first is where the figure starts.

    In Jupyter ``play(G, D, settings)`` makes the rounds, so that a student's own loop can be put in:
    an iterator that trains both modules in place and yields a ``Round`` after each round. It reads
    ``settings`` before each, because the reader changes it meanwhile. A page plays by itself:
    Algorithm 1 with batches of ``batch`` and Adam with betas 0.5 and 0.9, from the same weights.

    The picture shows the square [-extent, extent]; ``pace``: most rounds between two frames;
    ``picture_rounds``: rounds that ``play`` makes for the picture where there is no script.

    Shown besides the samples are D and D* = p / (p + q), with q counted from samples and both
    densities smoothed a little; the modes kept, which are those that hold at least a tenth of an
    equal share of the samples within 3 deviations; both losses; and the pull, the mean size of the
    slope of G's loss per logit.

    Raises ``ValueError`` for shapes that do not fit and values out of range; while a book is built,
    for networks that are not ``nn.Sequential`` of Linear (with bias), each followed by at most one
    LeakyReLU.
    Source: Goodfellow et al. 2014, Algorithm 1 and proposition 1.
    """
    if centres.ndim != 2 or len(centres) == 0 or centres.shape[1] not in (1, 2):
        raise ValueError(f"centres: expected shape (M, 1 or 2), got {tuple(centres.shape)}")
    modes, d = centres.shape
    spreads = torch.as_tensor(spreads, dtype=torch.float32).expand(modes)
    weights = torch.ones(modes) if weights is None else weights
    for name, values in (("spreads", spreads), ("weights", weights)):
        if values.shape != (modes,) or not bool(((values > 0) & values.isfinite()).all()):
            raise ValueError(f"{name}: expected ({modes},), all positive; got {values.tolist()}")
    weights = weights / weights.sum()
    if not settings:
        raise ValueError("settings: expected at least one, by name; got none")
    if batch < 1 or pace < 1 or picture_rounds < 0:
        raise ValueError(
            f"expected batch >= 1, pace >= 1 and picture_rounds >= 0; "
            f"got {batch}, {pace} and {picture_rounds}"
        )
    reach = float((centres.abs() + 3 * spreads[:, None]).max())
    extent = 1.3 * reach if extent is None else extent
    if not extent > 0:
        raise ValueError(f"extent: expected a positive number, got {extent}")
    G, D = copy.deepcopy(G).cpu(), copy.deepcopy(D).cpu()
    z = _noise(G, 2048 if d == 1 else 1024)
    with torch.no_grad():
        if (found := tuple(G(z[:3]).shape)) != (3, d):
            raise ValueError(f"G: expected samples (N, {d}), got {found} for N = 3")
        if (found := tuple(D(torch.zeros(3, d)).shape)) not in ((3,), (3, 1)):
            raise ValueError(f"D: expected logits (N,) or (N, 1), got {found} for N = 3")
    coarse, fine = (161, 161) if d == 1 else (28, 64)
    grid = _lattice(d, coarse, extent)
    blur = (0.2 if d == 1 else 0.7) * float(spreads.min())
    blur = max(blur, 0.7 * 2 * extent / (fine - 1))

    # Every view that is open has its own game, by the name it gave itself; the oldest goes first.
    games: dict[str, _Game] = {}

    def reset(id: str, settings: dict[str, float | int | str], seed: int) -> Answer:
        games.pop(id, None)
        while len(games) >= 8:
            games.pop(next(iter(games)))
        games[id] = _Game(play, G, D, _read(settings, seed))
        return {"round": 0, **games[id].look(z, grid)}

    def advance(
        id: str,
        rounds: int,
        settings: dict[str, float | int | str],
        see: bool = True,
        budget: float = math.inf,
    ) -> Answer:
        if id not in games:
            raise ValueError("this game has ended; press Reset for a new one")
        game = games[id]
        try:
            d_loss, g_loss = game.advance(rounds, _read(settings, game.settings.seed))
        except ArithmeticError as error:
            return {"round": game.round, "diverged": str(error)}
        shown = game.look(z, grid) if see else {}
        return {"round": game.round, "d_loss": d_loss, "g_loss": g_loss, **shown}

    def draw() -> Drawing:
        game = _Game(play, G, D, replace(next(iter(settings.values())), seed=seed))
        game.advance(picture_rounds, game.settings)
        with torch.no_grad():
            seen = game.look(z, grid)
        samples, judge = seen["samples"], seen["judge"]
        assert isinstance(samples, Tensor) and isinstance(judge, Tensor)
        at = _lattice(d, fine, extent)
        p = (_bell(at, centres, torch.sqrt(spreads**2 + blur**2)) * weights).sum(1)
        q = _bell(at, samples, torch.tensor(blur)).mean(1)
        show = _draw_line if d == 1 else _draw_plane
        return show(samples, judge, p, q, centres, spreads, weights, extent)

    return Figure(
        kind="gan_game",
        title=title,
        alt=alt,
        spec={
            "centres": centres.tolist(),
            "spreads": spreads.tolist(),
            "weights": weights.tolist(),
            "settings": {name: _plain(value) for name, value in settings.items()},
            "batch": batch,
            "extent": extent,
            "pace": pace,
            "coarse": coarse,
            "fine": fine,
            "blur": blur,
            "seed": seed,
        },
        draw=draw,
        data={"z": z.numpy()},
        precision="float32",
        programs={
            "G": lambda: _chain("G", G, z.shape[1]),
            "D": lambda: _chain("D", D, d),
        },
        answers={"reset": reset, "advance": advance},
    )


class _Game:
    """One game: copies of both networks, the iterator that trains them, and how far it is."""

    def __init__(self, play: Play, G: nn.Module, D: nn.Module, settings: GameSettings) -> None:
        self.G, self.D, self.settings = copy.deepcopy(G), copy.deepcopy(D), settings
        self.rounds = iter(play(self.G, self.D, settings))
        self.round = 0

    def advance(self, rounds: int, wanted: GameSettings) -> tuple[list[float], list[float]]:
        losses: list[tuple[float, float]] = []
        with torch.enable_grad():
            for _ in range(rounds):
                for field in fields(wanted):
                    setattr(self.settings, field.name, getattr(wanted, field.name))
                if self.round < wanted.head_start:
                    self.settings.g_rate = 0.0
                self.round += 1
                made = next(self.rounds, None)
                if made is None:
                    raise ValueError(
                        f"play: expected rounds without end, it ended after {self.round}"
                    )
                if not (hasattr(made, "d_loss") and hasattr(made, "g_loss")):
                    raise ValueError(
                        f"play: expected to yield records with d_loss and g_loss, "
                        f"got {type(made).__name__}"
                    )
                losses.append((float(made.d_loss), float(made.g_loss)))
                if not all(map(math.isfinite, losses[-1])):
                    raise ArithmeticError("a loss is no longer finite")
        return [d_loss for d_loss, _ in losses], [g_loss for _, g_loss in losses]

    def look(self, z: Tensor, grid: Tensor) -> dict[str, Tensor | float]:
        samples = self.G(z)
        mean = float(self.D(samples[:128]).sigmoid().mean())
        pull = mean if self.settings.loss == "minimax" else 1 - mean
        return {"samples": samples, "judge": self.D(grid).flatten().sigmoid(), "pull": pull}


def _read(settings: Mapping[str, float | int | str], seed: int) -> GameSettings:
    return GameSettings(**{**settings, "seed": seed})  # type: ignore[arg-type]


def _plain(settings: GameSettings) -> dict[str, float | int | str]:
    return {name: value for name, value in asdict(settings).items() if name != "seed"}


def _noise(G: nn.Module, n: int) -> Tensor:
    """Evenly spread standard normal noise, always the same, so that only the networks change."""
    first = next((layer for layer in G.modules() if isinstance(layer, nn.Linear)), None)
    if first is None:
        raise ValueError("G: expected a network that begins with a Linear layer, found none")
    sobol = torch.quasirandom.SobolEngine(first.in_features, scramble=True, seed=0)
    z: Tensor = torch.special.ndtri(sobol.draw(n).clamp(0.2 / n, 1 - 0.2 / n))
    return z


def _lattice(d: int, n: int, extent: float) -> Tensor:
    at = torch.linspace(-extent, extent, n)
    if d == 1:
        return at[:, None]
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def _bell(at: Tensor, centres: Tensor, deviations: Tensor) -> Tensor:
    """Densities (N, M) of Gaussians around ``centres`` (M, d), at the points (N, d)."""
    d = at.shape[1]
    away = torch.cdist(at, centres) / deviations
    return torch.exp(-0.5 * away**2) / (2 * math.pi * deviations**2) ** (d / 2)


def _chain(name: str, network: nn.Module, inputs: int) -> Program:
    """Write down a network that a page can train, and refuse another."""
    before: nn.Module | None = None
    for layer in network if isinstance(network, nn.Sequential) else [network]:
        dense = isinstance(layer, nn.Linear) and layer.bias is not None
        bent = isinstance(layer, nn.LeakyReLU) and isinstance(before, nn.Linear)
        if not (dense or bent):
            raise CannotRunError(
                f"{name}: a page trains nn.Sequential of Linear with bias, each followed by at most "
                f"one LeakyReLU; got {layer!r}"
            )
        before = layer
    return trace(copy.deepcopy(network).eval(), torch.zeros(1, inputs))


def _draw_plane(
    samples: Tensor,
    judge: Tensor,
    p: Tensor,
    q: Tensor,
    centres: Tensor,
    spreads: Tensor,
    weights: Tensor,
    extent: float,
) -> Drawing:
    generator = torch.Generator().manual_seed(0)
    which = torch.multinomial(weights, 1000, replacement=True, generator=generator)
    data = centres[which] + spreads[which, None] * torch.randn(1000, 2, generator=generator)
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 4.0))
    # Where there is neither data nor forgery any answer is as good: nothing is shown there.
    strength = ((p + q) / (0.02 * p.max())).clamp(max=1)
    shades = LinearSegmentedColormap.from_list("judge", [plots.FAKE, "#FFFFFF", plots.REAL])
    shown = (judge, 0.5 + (p / (p + q).clamp(min=1e-30) - 0.5) * strength)
    titles = ("D, with data and forgeries", "the best D* for these forgeries")
    for axis, values, title in zip(axes, shown, titles, strict=True):
        n = math.isqrt(len(values))
        edge = extent * n / (n - 1)
        axis.imshow(
            values.reshape(n, n).numpy(),
            extent=(-edge, edge, -edge, edge),
            origin="lower",
            cmap=shades,
            alpha=0.6,
            vmin=0,
            vmax=1,
            interpolation="bilinear",
        )
        axis.set(xlim=(-extent, extent), ylim=(-extent, extent), xticks=[], yticks=[], title=title)
        axis.grid(False)
    _scatter(axes[0], data, plots.REAL)
    _scatter(axes[0], samples[:600], plots.FAKE)
    return figure


def _scatter(axis: Axes, points: Tensor, colour: str) -> None:
    x, y = points.numpy().T
    axis.scatter(x, y, s=3, color=colour, linewidths=0)


def _draw_line(
    samples: Tensor,
    judge: Tensor,
    p: Tensor,
    q: Tensor,
    centres: Tensor,
    spreads: Tensor,
    weights: Tensor,
    extent: float,
) -> Drawing:
    x = np.linspace(-extent, extent, len(p))
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.8))
    for values, colour, label in ((p, plots.REAL, "data p"), (q, plots.FAKE, "forgeries q")):
        left.fill_between(x, values, color=colour, alpha=0.22, linewidth=0)
        left.plot(x, values, color=colour, label=label)
    left.set(xlabel="x", title="densities", ylim=(0, None))
    left.legend()
    star = torch.where(p + q > 0.01 * p.max(), p / (p + q), math.nan)
    right.plot(x, star, color=plots.MUTED, lw=5, alpha=0.4, label="best D*")
    right.plot(x, judge, color=plots.INK, label="D")
    right.axhline(0.5, color=plots.MUTED, lw=0.8, ls=":")
    right.set(xlabel="x", title="probability real", ylim=(0, 1.02))
    right.legend()
    return figure
