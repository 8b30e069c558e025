"""Hidden checks of assignment 1, the minimax loop.

The players are small enough for a gradient by hand: two layers with a tanh between them. The
reference plays in double precision; what a slip would give is played here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.grading.checks import Answer, Check, Mistake, Sent

Array = np.ndarray
#: Sizes of the two layers: (inputs, hidden, outputs).
FORGER, JUDGE = (2, 4, 2), (2, 5, 1)


def softplus(x: Array) -> Array:
    """Return log(1 + e^x)."""
    return np.logaddexp(0.0, x)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^-x)."""
    return np.exp(-softplus(-x))


# The losses: a value, and slopes in the logits


def log_loss(real: Array, fake: Array) -> tuple[float, Array, Array]:
    """Return the discriminator's loss and its slopes."""
    value = softplus(-real).mean() + softplus(fake).mean()
    return float(value), (sigmoid(real) - 1) / real.size, sigmoid(fake) / fake.size


def forger_loss(fake: Array, saturating: bool = False) -> tuple[float, Array]:
    """Return the generator's loss and its slopes."""
    if saturating:
        return float(-softplus(fake).mean()), -sigmoid(fake) / fake.size
    return float(softplus(-fake).mean()), (sigmoid(fake) - 1) / fake.size


class Rules:
    """The losses of a game: the log-losses, or those that the probe puts in their place."""

    def __init__(self, pull: Array | None = None, slip: str = "") -> None:
        """``slip``: what is done wrong with them."""
        self.pull, self.slip = None if pull is None else pull.astype(np.float64), slip

    def judge(self, real: Array, fake: Array) -> tuple[float, Array, Array]:
        """Return the discriminator's loss and its slopes."""
        if self.slip == "swapped":
            value, on_fake, on_real = self._judge(fake, real)
        else:
            value, on_real, on_fake = self._judge(real, fake)
        if self.slip == "real only":
            value, on_fake = self._judge(real, fake)[0], 0 * on_fake
        if self.slip == "fake only":
            value, on_real = self._judge(real, fake)[0], 0 * on_real
        size = {"up": -1.0, "half": 0.5}.get(self.slip, 1.0)
        return size * value, size * on_real, size * on_fake

    def _judge(self, real: Array, fake: Array) -> tuple[float, Array, Array]:
        if self.pull is None:
            return log_loss(real, fake)
        a, b, c, _ = self.pull
        value = ((real - a) ** 2).mean() + b * ((fake + c) ** 2).mean()
        return float(value), 2 * (real - a) / real.size, 2 * b * (fake + c) / fake.size

    def forger(self, fake: Array) -> tuple[float, Array]:
        """Return the generator's loss and its slopes."""
        saturating, size = self.slip == "saturating", -1.0 if self.slip == "up" else 1.0
        if self.pull is None:
            value, slope = forger_loss(fake, saturating)
        else:
            wanted = -self.pull[3] if saturating else self.pull[3]
            value, slope = float(((fake - wanted) ** 2).mean()), 2 * (fake - wanted) / fake.size
        return size * value, size * slope


# The players


def layers(weights: Array, sizes: tuple[int, int, int]) -> tuple[Array, Array, Array, Array]:
    """Cut a flat vector into two layers, as torch flattens them."""
    n, h, m = sizes
    w1, b1, w2, b2 = np.split(weights, np.cumsum([h * n, h, m * h]))
    return w1.reshape(h, n), b1, w2.reshape(m, h), b2


def forward(weights: Array, sizes: tuple[int, int, int], x: Array) -> tuple[Array, Array]:
    """Return the hidden units and the output."""
    w1, b1, w2, b2 = layers(weights, sizes)
    hidden = np.tanh(x @ w1.T + b1)
    return hidden, hidden @ w2.T + b2


def backward(
    weights: Array, sizes: tuple[int, int, int], x: Array, hidden: Array, slope: Array
) -> tuple[Array, Array]:
    """Return the gradients in the weights and in the input."""
    w1, _, w2, _ = layers(weights, sizes)
    inner = (slope @ w2) * (1 - hidden**2)
    parts = [inner.T @ x, inner.sum(axis=0), slope.T @ hidden, slope.sum(axis=0)]
    return np.concatenate([part.ravel() for part in parts]), inner @ w1


class Sgd:
    """Plain gradient descent."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def step(self, weights: Array, gradient: Array) -> Array:
        """Return the weights after a step."""
        return weights - self.rate * gradient


class Adam:
    """Adam as torch has it by default (Kingma & Ba 2015, Algorithm 1)."""

    def __init__(self, rate: float) -> None:
        self.rate, self.t, self.m, self.v = rate, 0, np.zeros(1), np.zeros(1)

    def step(self, weights: Array, gradient: Array) -> Array:
        """Return the weights after a step."""
        self.t += 1
        self.m = 0.9 * self.m + 0.1 * gradient
        self.v = 0.999 * self.v + 0.001 * gradient**2
        m, v = self.m / (1 - 0.9**self.t), self.v / (1 - 0.999**self.t)
        return weights - self.rate * m / (np.sqrt(v) + 1e-8)


class Game:
    """Two players with their optimizers, and the turns of Algorithm 1."""

    def __init__(
        self,
        sent: dict[str, Any],
        rules: Rules,
        optimizer: type[Sgd] | type[Adam] = Sgd,
        *,
        keep: bool = False,
    ) -> None:
        """``keep``: gradients are never set to zero."""
        self.g, self.d = sent["forger"].astype(np.float64), sent["judge"].astype(np.float64)
        self.rules, self.keep = rules, keep
        self.g_optimizer, self.d_optimizer = optimizer(sent["rate"]), optimizer(sent["rate"])
        self.g_gradient, self.d_gradient = np.zeros_like(self.g), np.zeros_like(self.d)
        self.least = np.inf

    def judge_turn(self, real: Array, noise: Array) -> float:
        """Let the discriminator take a step; return its loss before it."""
        real = real.astype(np.float64)
        _, fake = forward(self.g, FORGER, noise.astype(np.float64))
        (hidden_r, logits_r), (hidden_f, logits_f) = (
            forward(self.d, JUDGE, x) for x in (real, fake)
        )
        value, on_real, on_fake = self.rules.judge(logits_r, logits_f)
        gradient = (
            backward(self.d, JUDGE, real, hidden_r, on_real)[0]
            + backward(self.d, JUDGE, fake, hidden_f, on_fake)[0]
        )
        self.least = min(self.least, float(np.abs(gradient).min()))
        self.d_gradient = gradient + (self.d_gradient if self.keep else 0)
        self.d = self.d_optimizer.step(self.d, self.d_gradient)
        return value

    def forger_turn(self, noise: Array) -> float:
        """Let the generator take a step; return its loss before it."""
        noise = noise.astype(np.float64)
        hidden_g, fake = forward(self.g, FORGER, noise)
        hidden_d, logits = forward(self.d, JUDGE, fake)
        value, slope = self.rules.forger(logits)
        _, on_fake = backward(self.d, JUDGE, fake, hidden_d, slope)
        gradient, _ = backward(self.g, FORGER, noise, hidden_g, on_fake)
        self.least = min(self.least, float(np.abs(gradient).min()))
        self.g_gradient = gradient + (self.g_gradient if self.keep else 0)
        self.g = self.g_optimizer.step(self.g, self.g_gradient)
        return value


class Marked:
    """The turns that the probe puts in place of the student's in a training."""

    def __init__(self, sent: dict[str, Any], swapped: bool = False) -> None:
        """``swapped``: each turn gets the other player's optimizer."""
        self.swapped = swapped
        self.g, self.d = sent["forger"].astype(np.float64), sent["judge"].astype(np.float64)
        self.pull = sent["pull"].astype(np.float64)

    def judge_turn(self, real: Array, noise: Array) -> float:
        """Move the discriminator as the probe does."""
        a, b, c, e = self.pull
        by = a * real.mean() + b * noise.mean() + c * self.g.mean()
        self._move(self.swapped, by)
        return float(real.mean() + e * noise.mean())

    def forger_turn(self, noise: Array) -> float:
        """Move the generator as the probe does."""
        _, b, c, e = self.pull
        value = float(noise.mean() + c * self.d.mean())
        self._move(not self.swapped, e * noise.mean() + b * self.d.mean())
        return value

    def _move(self, forger: bool, by: float) -> None:
        if forger:
            self.g = 0.8 * self.g + by
        else:
            self.d = 0.8 * self.d + by


# Drawing


def players(rng: np.random.Generator) -> dict[str, Any]:
    """Draw two players, and the numbers in the losses that are put in place of the student's."""

    def weights(sizes: tuple[int, int, int]) -> Array:
        n, h, m = sizes
        return rng.standard_normal(h * n + h + m * h + m).astype(np.float32) * np.float32(0.9)

    pull = rng.uniform(0.5, 1.5, 4)
    return {"forger": weights(FORGER), "judge": weights(JUDGE), "pull": pull.astype(np.float32)}


def cloud(rng: np.random.Generator, *shape: int) -> Array:
    """Draw points, not centred."""
    return (rng.standard_normal(shape) + 0.5).astype(np.float32)


def draw_turn(
    rng: np.random.Generator, *, turns: int, real: bool, adam: bool, rate: float
) -> dict[str, Any]:
    """Draw players and the batches of one or more turns."""
    for _ in range(1000):
        lead = () if turns == 1 else (turns,)
        sent = players(rng)
        if real:
            sent["real"] = cloud(rng, *lead, 6, 2)
        sent["noise"] = cloud(rng, *lead, 6, 2)
        sent["rate"] = rate
        # Adam takes the same step for a small gradient as for a large one, down to rounding.
        if not adam or all(_play(sent, rules, real).least > 1e-4 for rules in _both(sent)):
            return sent
    raise RuntimeError("no good draw")


def _both(sent: dict[str, Any], slip: str = "") -> list[Rules]:
    return [Rules(slip=slip), Rules(sent["pull"], slip)]


def _play(sent: dict[str, Any], rules: Rules, real: bool, *, keep: bool = False) -> Game:
    game = Game(sent, rules, Adam, keep=keep)
    for turn in range(len(sent["noise"])):
        if real:
            game.judge_turn(sent["real"][turn], sent["noise"][turn])
        else:
            game.forger_turn(sent["noise"][turn])
    return game


# One turn


def d_turn(sent: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """Return what one turn of the discriminator gives."""
    game = Game(sent, rules)
    loss = game.judge_turn(sent["real"], sent["noise"])
    return {"forger": game.g, "judge": game.d, "loss": loss}


def g_turn(sent: dict[str, Any], rules: Rules) -> dict[str, Any]:
    """Return what one turn of the generator gives."""
    game = Game(sent, rules)
    loss = game.forger_turn(sent["noise"])
    return {"forger": game.g, "judge": game.d, "loss": loss}


Turn = Callable[[dict[str, Any], Rules], dict[str, Any]]


def turn_slip(turn: Turn, message: str, slip: str, *names: str) -> list[Mistake]:
    """Make mistakes of a turn under both kinds of losses; ``names``: what to compare."""
    return [
        Mistake(
            message,
            gives=lambda _i=i, **sent: {
                name: value
                for name, value in turn(sent, _both(sent, slip)[_i]).items()
                if name in (names or ("judge", "forger"))
            },
        )
        for i in range(2)
    ]


def late(turn: Turn, **sent: Any) -> list[Answer]:
    """Return one turn with the loss measured again after it."""
    found = []
    for rules in _both(sent):
        after = turn(sent, rules)
        again = turn({**sent, "forger": after["forger"], "judge": after["judge"]}, rules)
        found.append({**after, "loss": again["loss"]})
    return found


def stays(name: str) -> Callable[[Sent, Answer, Answer], bool]:
    """Recognise a player that did not move."""
    return lambda sent, got, want: bool(np.abs(got[name] - sent[name]).max() < 1e-6)


def moves(name: str) -> Callable[[Sent, Answer, Answer], bool]:
    """Recognise a player that moved."""
    return lambda sent, got, want: bool(np.abs(got[name] - sent[name]).max() > 1e-5)


# Two turns: what one leaves behind for the other

D_LEAK = (
    "After discriminator_step, your generator_step goes another way than without it: the "
    "discriminator's gradients reached the generator: detach the fakes."
)
G_LEAK = (
    "After generator_step, your discriminator_step goes another way than without it: either gradients of "
    "the generator's turn are left in the discriminator and not set to zero, or it was left frozen."
)


def judge_leak(
    player: str, turn: Callable[[Game, dict[str, Any]], Array], message: str
) -> Callable[[Sent, Answer], str | None]:
    """Say whether the first turn was right and left nothing behind that the second one felt."""

    def judge(sent: Sent, got: Answer) -> str | None:
        sent = dict(sent)
        wanted = [turn(Game(sent, rules), sent) for rules in _both(sent)]
        if not any(np.allclose(got[player], want, rtol=1e-3, atol=1e-5) for want in wanted):
            return "The first of the two turns already goes wrong."
        following, alone, again = got["next"], got["alone"], got["alone_again"]
        # A second turn that fails alone, or that stumbles over what it left behind itself, says nothing
        # about the first one.
        if alone.size and _same(alone, again) and not _same(alone, following):
            return message
        return None

    return judge


def _same(a: Array, b: Array) -> bool:
    return a.shape == b.shape and bool(np.allclose(a, b, rtol=1e-3, atol=1e-5))


def _first_judge(game: Game, sent: dict[str, Any]) -> Array:
    game.judge_turn(sent["real"], sent["noise"][0])
    return game.d


def _first_forger(game: Game, sent: dict[str, Any]) -> Array:
    game.forger_turn(sent["noise"][0])
    return game.g


def draw_leak(rng: np.random.Generator) -> dict[str, Any]:
    """Draw players, one batch of data and two of noise."""
    sent = draw_turn(rng, turns=2, real=True, adam=False, rate=0.5)
    return {**sent, "real": sent["real"][0]}


# Training


def train_run(
    sent: dict[str, Any],
    kind: str,
    *,
    k: int | None = None,
    each: bool = False,
    same_batch: bool = False,
    same_noise: bool = False,
    one_noise: bool = False,
    passed_on: bool = False,
    first: bool = False,
    swapped: bool = False,
) -> tuple[Game | Marked, list[tuple[list[float], float]]]:
    """Play Algorithm 1, or something that is taken for it; return the players and all losses.

    ``kind``: ``own`` (the log-losses), ``pulled`` (other losses) or ``marked`` (other turns).
    """
    game: Game | Marked
    if kind == "marked":
        game = Marked(sent, swapped)
    else:
        game = Game(sent, Rules(sent["pull"] if kind == "pulled" else None))
    k = (sent["k"] or 1) if k is None else k
    batches, used, rounds = list(sent["real"]), 0, []

    def noise(n: int) -> Array:
        nonlocal used
        used = n if one_noise else used + n
        return sent["noise"][np.arange(used - n, used) % len(sent["noise"])]

    while batches:
        losses, real, z = [], None, None
        g_loss = game.forger_turn(noise(len(batches[0]))) if first else 0.0
        for turn in range(k):
            if not batches and not same_batch:
                break
            real = batches.pop(0) if turn == 0 or not same_batch else real
            assert real is not None
            z = z if same_noise and z is not None else noise(len(real))
            losses.append(game.judge_turn(real, z))
            if each:
                g_loss = game.forger_turn(noise(len(real)))
        if not each and not first:
            assert real is not None and z is not None
            g_loss = game.forger_turn(z if passed_on else noise(len(real)))
        rounds.append((losses, g_loss))
    return game, rounds


def named(kind: str, **values: Array) -> Answer:
    """Name arrays as the probe does for this kind of training."""
    suffix = "" if kind == "own" else "_pulled"
    return {name + suffix: value for name, value in values.items()}


def both_players(sent: dict[str, Any], kind: str, **options: Any) -> Answer:
    """Return the players after a training."""
    game, _ = train_run(sent, kind, **options)
    return named(kind, forger=game.g, judge=game.d)


#: What a history can say of the discriminator's k losses in a round.
RECORDS: dict[str, Callable[[list[float]], float]] = {
    "last": lambda losses: losses[-1],
    "mean": lambda losses: float(np.mean(losses)),
    "sum": lambda losses: float(np.sum(losses)),
    "first": lambda losses: losses[0],
}


def histories(sent: dict[str, Any], kind: str, *records: str, **options: Any) -> list[Answer]:
    """Return a training's history, once for each kind of record."""
    _, rounds = train_run(sent, kind, **options)
    return [
        named(kind, history=np.array([(RECORDS[record](d), g) for d, g in rounds]))
        for record in records
    ]


KINDS = ("own", "marked", "pulled")


def train_weights(**sent: Any) -> list[Answer]:
    """Return the players after a training: with the student's turns, or with other ones."""
    return [both_players(sent, kind) for kind in KINDS]


def train_history(**sent: Any) -> list[Answer]:
    """Return the histories that are right: the last loss of the discriminator, or the mean of k."""
    return [answer for kind in KINDS for answer in histories(sent, kind, "last", "mean")]


def train_slip(message: str, **options: Any) -> list[Mistake]:
    """Make mistakes of a training, seen in the players."""
    return [
        Mistake(message, gives=lambda _k=kind, **sent: both_players(sent, _k, **options))
        for kind in KINDS
    ]


def history_slip(message: str, record: str = "last", **options: Any) -> list[Mistake]:
    """Make mistakes of a training, seen in the history."""
    return [
        Mistake(message, gives=lambda _k=kind, **sent: histories(sent, _k, record, **options)[0])
        for kind in KINDS
    ]


def swapped_history(kind: str) -> Callable[..., Answer]:
    """Return histories with the two losses in the wrong order."""
    return lambda **sent: {
        name: value[:, ::-1] for name, value in histories(sent, kind, "last")[0].items()
    }


def draw_train(rounds: int, k: int | None) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Draw players, exactly as many batches as the rounds need, and noise to spare."""

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        return {
            **players(rng),
            "pull": (rng.uniform(0.1, 0.4, 4)).astype(np.float32),
            "real": cloud(rng, rounds * (k or 1), 3, 2),
            "noise": cloud(rng, 3 * 4 * rounds * (k or 1), 2),
            "rate": 0.4,
            "k": k,
        }

    return draw


NO_TURN = (
    "The optimizer has not moved it: after the loss come backward() and the optimizer's step()."
)
PASSED_ON = (
    "The generator is judged on the noise that the discriminator has just seen. Draw fresh noise for its "
    "step."
)
NOISE = "All k discriminator steps use the same noise. Draw fresh noise for each."
ONE_NOISE = "The same noise is used all the time. Draw fresh noise for every step of either player."
BATCH = "All k discriminator steps use the same batch. Take the next one for each."


# Losses


def draw_logits(rng: np.random.Generator) -> dict[str, Any]:
    """Draw moderate logits, not equally many real and fake ones."""
    return {
        "real": (2 * rng.standard_normal((5, 1)) + 1).astype(np.float32),
        "fake": (2 * rng.standard_normal((8, 1)) - 0.5).astype(np.float32),
    }


def draw_extreme(rng: np.random.Generator) -> dict[str, Any]:
    """Draw logits of which some are close to 100 in size, of both signs."""

    def some(n: int) -> Array:
        logits = np.concatenate([[100, -100], rng.uniform(85, 100, n) * rng.choice([-1, 1], n)])
        return rng.permutation(np.concatenate([logits, rng.standard_normal(2)]))[:, None]

    return {"real": some(3).astype(np.float32), "fake": some(4).astype(np.float32)}


def d_value(value: Callable[[Array, Array], float], message: str) -> Mistake:
    """Make a mistake of a value of the discriminator's loss."""
    return Mistake(
        message,
        gives=lambda real, fake: {"loss": value(real.astype(np.float64), fake.astype(np.float64))},
    )


def g_value(value: Callable[[Array], float], message: str) -> Mistake:
    """Make a mistake of a value of the generator's loss."""
    return Mistake(message, gives=lambda fake: {"loss": value(fake.astype(np.float64))})


def broken(sent: Sent, got: Answer, want: Answer) -> bool:
    """Recognise a value that is not finite, or one that an added constant keeps finite."""
    return any(
        not np.isfinite(got[name]).all() or not np.allclose(got[name], want[name], rtol=1e-3)
        for name in want
        if name.startswith("loss")
    )


def no_slope(sent: Sent, got: Answer, want: Answer) -> bool:
    """Recognise a loss that hangs on no graph."""
    return not any(got[name].any() for name in want if "slope" in name)


def broken_slope(sent: Sent, got: Answer, want: Answer) -> bool:
    """Recognise right values with slopes that are not finite."""
    return any(not np.isfinite(got[name]).all() for name in want if "slope" in name)


def d_extreme(real: Array, fake: Array) -> Answer:
    """Return the discriminator's loss and slopes."""
    value, on_real, on_fake = log_loss(real.astype(np.float64), fake.astype(np.float64))
    return {"loss": np.float64(value), "real_slope": on_real, "fake_slope": on_fake}


def g_extreme(fake: Array) -> Answer:
    """Return both of the generator's losses and slopes."""
    (value, slope), (flat, flat_slope) = (
        forger_loss(fake.astype(np.float64), saturating) for saturating in (False, True)
    )
    return {
        "loss": np.float64(value),
        "slope": slope,
        "loss_saturating": np.float64(flat),
        "slope_saturating": flat_slope,
    }


STABLE = (
    "For logits of 100 in size the loss is infinite, NaN or cut off: sigmoid(100) is rounded to 1, and "
    "then log(1 - 1) follows. Use 1 - sigmoid(l) = sigmoid(-l), and a function that takes logits."
)
SLOPE = (
    "The loss is right for logits of 100 in size, but its gradient is not finite: torch.where computes "
    "both branches, and the infinity of one reaches the gradient."
)
NO_SLOPE = (
    "The loss has the right value and no gradient: compute it with PyTorch's functions from the logits, "
    "not from Python's numbers."
)
LOGITS = "The sigmoid is taken twice: the function gets logits and some losses of PyTorch do, too."
BATCH_SUM = "This is summed over the batch. The expectation is estimated by the mean."
SIGN = "The sign is the other one: a loss is what is made small."

CHECKS: list[Check] = [
    Check(
        cell="check_discriminator_loss",
        name="d_loss_values",
        title="discriminator_loss: the log-loss on real and fake logits",
        points=2,
        probe="d_loss",
        draw=draw_logits,
        expect=lambda real, fake: {"loss": d_extreme(real, fake)["loss"]},
        mistakes=[
            d_value(lambda r, f: log_loss(f, r)[0], "Real and fake have changed places."),
            d_value(lambda r, f: -log_loss(r, f)[0], SIGN),
            d_value(
                lambda r, f: log_loss(r, f)[0] / 2,
                "This is half of it. The loss is the sum of its real and its fake part, not their mean.",
            ),
            d_value(
                lambda r, f: float(np.concatenate([softplus(-r), softplus(f)]).mean()),
                "Real and fake are averaged together. Each part has its own mean, and the loss is "
                "their sum.",
            ),
            d_value(
                lambda r, f: float(np.concatenate([softplus(f), softplus(-r)]).sum()), BATCH_SUM
            ),
            d_value(lambda r, f: float(softplus(-r).mean()), "The fakes are missing in the loss."),
            d_value(
                lambda r, f: float(softplus(f).mean()), "The real part is missing in the loss."
            ),
            d_value(lambda r, f: log_loss(sigmoid(r), sigmoid(f))[0], LOGITS),
            d_value(
                lambda r, f: float(softplus(-r).mean() + softplus(-f).mean()),
                "The fakes are labelled as real, too.",
            ),
            d_value(
                lambda r, f: float(softplus(-r).mean() - softplus(f).mean()),
                "One of the two parts has the wrong sign.",
            ),
            Mistake(
                "Real and fake logits are not equally many here. Take each mean on its own.",
                seen=lambda sent, got, want: got["loss"].size > 1,
            ),
        ],
        trials=2,
    ),
    Check(
        cell="check_discriminator_loss",
        name="d_loss_extreme",
        title="discriminator_loss: stable for logits of 100 in size",
        points=1,
        probe="d_loss_slopes",
        draw=draw_extreme,
        expect=d_extreme,
        mistakes=[
            d_value(lambda r, f: log_loss(f, r)[0], "Real and fake have changed places."),
            d_value(lambda r, f: -log_loss(r, f)[0], SIGN),
            d_value(
                lambda r, f: log_loss(r, f)[0] / 2,
                "This is half of it. The loss is the sum of its real and its fake part, not their mean.",
            ),
            Mistake(STABLE, seen=broken),
            Mistake(SLOPE, seen=broken_slope),
            Mistake(NO_SLOPE, seen=no_slope),
        ],
        trials=1,
    ),
    Check(
        cell="check_generator_loss",
        name="g_loss_values",
        title="generator_loss: the non-saturating loss",
        points=1,
        probe="g_loss",
        draw=lambda rng: {"fake": draw_logits(rng)["fake"]},
        expect=lambda fake: {"loss": g_extreme(fake)["loss"]},
        mistakes=[
            g_value(
                lambda f: forger_loss(f, True)[0],
                "This is the saturating loss. Without saturating=True, return the other one.",
            ),
            g_value(lambda f: -forger_loss(f)[0], SIGN),
            g_value(
                lambda f: -forger_loss(f, True)[0],
                "This is the discriminator's loss on the fakes. The generator wants the opposite.",
            ),
            g_value(lambda f: len(f) * forger_loss(f)[0], BATCH_SUM),
            g_value(lambda f: forger_loss(sigmoid(f))[0], LOGITS),
        ],
        trials=2,
    ),
    Check(
        cell="check_generator_loss",
        name="g_loss_saturating",
        title="generator_loss: the saturating loss",
        points=1,
        probe="g_loss_saturating",
        draw=lambda rng: {"fake": draw_logits(rng)["fake"]},
        expect=lambda fake: {"loss": g_extreme(fake)["loss_saturating"]},
        mistakes=[
            g_value(
                lambda f: forger_loss(f)[0],
                "This is the non-saturating loss. With saturating=True, return the term of the value V.",
            ),
            g_value(lambda f: -forger_loss(f)[0], SIGN),
            g_value(
                lambda f: -forger_loss(f, True)[0],
                "The sign is the other one: this is what the discriminator makes small, the generator "
                "makes the opposite small.",
            ),
            g_value(lambda f: len(f) * forger_loss(f, True)[0], BATCH_SUM),
            g_value(lambda f: forger_loss(sigmoid(f), True)[0], LOGITS),
        ],
        trials=2,
    ),
    Check(
        cell="check_generator_loss",
        name="g_loss_extreme",
        title="generator_loss: both stable for logits of 100 in size",
        points=1,
        probe="g_loss_slopes",
        draw=lambda rng: {"fake": draw_extreme(rng)["fake"]},
        expect=g_extreme,
        mistakes=[
            Mistake(
                "The two losses have changed places.",
                seen=lambda sent, got, want: np.allclose(got["loss"], want["loss_saturating"]),
            ),
            Mistake(SIGN, seen=lambda sent, got, want: np.allclose(got["loss"], -want["loss"])),
            Mistake(STABLE, seen=broken),
            Mistake(SLOPE, seen=broken_slope),
            Mistake(NO_SLOPE, seen=no_slope),
        ],
        trials=1,
    ),
    Check(
        cell="check_discriminator_step",
        name="d_step",
        title="discriminator_step: the discriminator goes down its loss, the generator stays",
        points=2,
        probe="d_step",
        draw=lambda rng: draw_turn(rng, turns=1, real=True, adam=False, rate=0.5),
        expect=lambda **sent: [d_turn(sent, rules) for rules in _both(sent)],
        mistakes=[
            Mistake(
                "The generator moved in the discriminator's turn. Only the discriminator does.",
                seen=moves("forger"),
            ),
            Mistake(NO_TURN, seen=stays("judge")),
            *turn_slip(d_turn, "The discriminator goes up its loss. A loss is made small.", "up"),
            *turn_slip(d_turn, "Real and fake logits have changed places.", "swapped"),
            *turn_slip(
                d_turn,
                "The step is half as long: the loss is the sum of the real and the fake part.",
                "half",
            ),
            *turn_slip(d_turn, "The discriminator learns nothing from the fakes.", "real only"),
            *turn_slip(
                d_turn, "The discriminator learns nothing from the real batch.", "fake only"
            ),
            *[
                Mistake(
                    "The step is right. Return the loss that it was taken for, not one measured after.",
                    gives=lambda _i=i, **sent: late(d_turn, **sent)[_i],
                )
                for i in range(2)
            ],
            *turn_slip(
                d_turn,
                "The step is right, the returned number is not: return the discriminator's loss.",
                "",
            ),
        ],
        trials=1,
    ),
    Check(
        cell="check_discriminator_step",
        name="d_again",
        title="discriminator_step: a second step, with Adam",
        points=2,
        probe="d_again",
        draw=lambda rng: draw_turn(rng, turns=2, real=True, adam=True, rate=0.1),
        expect=lambda **sent: [{"judge": _play(sent, r, True).d} for r in _both(sent)],
        mistakes=[
            *[
                Mistake(
                    "The gradient of the first step is still there in the second one and is added to "
                    "it: set the gradients to zero in every step.",
                    gives=lambda _i=i, **sent: {
                        "judge": _play(sent, _both(sent)[_i], True, keep=True).d
                    },
                )
                for i in range(2)
            ],
            Mistake(NO_TURN, seen=stays("judge")),
            *[
                Mistake(
                    "Real and fake logits have changed places.",
                    gives=lambda _i=i, **sent: {
                        "judge": _play(sent, _both(sent, "swapped")[_i], True).d
                    },
                )
                for i in range(2)
            ],
        ],
        trials=1,
    ),
    Check(
        cell="check_discriminator_step",
        name="d_leaves",
        title="discriminator_step: the generator's next turn does not feel it",
        points=1,
        probe="d_then_g",
        draw=draw_leak,
        judge=judge_leak("judge", _first_judge, D_LEAK),
        shapes=lambda **sent: {"judge": sent["judge"].shape},
        trials=1,
    ),
    Check(
        cell="check_generator_step",
        name="g_step",
        title="generator_step: the generator goes down its loss, the discriminator stays",
        points=2,
        probe="g_step",
        draw=lambda rng: draw_turn(rng, turns=1, real=False, adam=False, rate=0.5),
        expect=lambda **sent: [g_turn(sent, rules) for rules in _both(sent)],
        mistakes=[
            Mistake(
                "The discriminator moved in the generator's turn. Only the generator does.",
                seen=moves("judge"),
            ),
            Mistake(NO_TURN, seen=stays("forger")),
            *turn_slip(
                g_turn,
                "The generator goes up its loss: it learns to be caught. A loss is made small.",
                "up",
            ),
            *turn_slip(
                g_turn,
                "The step is taken for the saturating loss. Use the non-saturating one.",
                "saturating",
            ),
            *[
                Mistake(
                    "The step is right. Return the loss that it was taken for, not one measured after.",
                    gives=lambda _i=i, **sent: late(g_turn, **sent)[_i],
                )
                for i in range(2)
            ],
            *turn_slip(
                g_turn,
                "The step is right, the returned number is not: return the generator's loss.",
                "",
            ),
        ],
        trials=1,
    ),
    Check(
        cell="check_generator_step",
        name="g_again",
        title="generator_step: a second step, with Adam",
        points=1,
        probe="g_again",
        draw=lambda rng: draw_turn(rng, turns=2, real=False, adam=True, rate=0.1),
        expect=lambda **sent: [{"forger": _play(sent, r, False).g} for r in _both(sent)],
        mistakes=[
            *[
                Mistake(
                    "The gradient of the first step is still there in the second one and is added to "
                    "it: set the gradients to zero in every step.",
                    gives=lambda _i=i, **sent: {
                        "forger": _play(sent, _both(sent)[_i], False, keep=True).g
                    },
                )
                for i in range(2)
            ],
            Mistake(NO_TURN, seen=stays("forger")),
        ],
        trials=1,
    ),
    Check(
        cell="check_generator_step",
        name="g_leaves",
        title="generator_step: the discriminator's next turn does not feel it",
        points=1,
        probe="g_then_d",
        draw=draw_leak,
        judge=judge_leak("forger", _first_forger, G_LEAK),
        shapes=lambda **sent: {"forger": sent["forger"].shape},
        trials=1,
    ),
    Check(
        cell="check_train",
        name="train_rounds",
        title="train: one step each, batch after batch",
        points=2,
        probe="train",
        draw=draw_train(rounds=2, k=None),
        expect=train_weights,
        mistakes=[
            Mistake(
                "The optimizers are mixed up. Each player needs its own optimizer.",
                gives=lambda **sent: both_players(sent, "marked", swapped=True),
            ),
            Mistake(
                "Neither player has moved.",
                seen=lambda sent, got, want: all(
                    stays(p)(sent, got, want) for p in ("judge", "forger")
                ),
            ),
            *train_slip(ONE_NOISE, one_noise=True),
            Mistake("The generator has not moved.", seen=stays("forger")),
            Mistake("The discriminator has not moved.", seen=stays("judge")),
            *train_slip(PASSED_ON, passed_on=True),
            *train_slip(
                "The generator moves first in each round. The discriminator does.", first=True
            ),
        ],
        trials=1,
    ),
    Check(
        cell="check_train",
        name="train_k",
        title="train: k discriminator steps for each generator step",
        points=2,
        probe="train",
        draw=draw_train(rounds=2, k=3),
        expect=train_weights,
        mistakes=[
            *train_slip("k is ignored: the generator moves after every discriminator step.", k=1),
            *train_slip(
                "The generator moves after every discriminator step. It should wait for all k.",
                each=True,
            ),
            *train_slip(BATCH, same_batch=True),
            *train_slip(NOISE, same_noise=True),
            *train_slip(BATCH + " The noise is the same, too.", same_batch=True, same_noise=True),
            *train_slip(PASSED_ON, passed_on=True),
            *train_slip(PASSED_ON, passed_on=True, same_noise=True),
            *train_slip(BATCH, passed_on=True, same_noise=True, same_batch=True),
            *train_slip(ONE_NOISE, one_noise=True),
        ],
        trials=1,
    ),
    Check(
        cell="check_train",
        name="train_history",
        title="train: a pair of losses for each round",
        points=1,
        probe="train",
        draw=draw_train(rounds=2, k=2),
        expect=train_history,
        mistakes=[
            *[
                Mistake(
                    "The losses are in the wrong order: (discriminator's, generator's).",
                    gives=swapped_history(kind),
                )
                for kind in KINDS
            ],
            *history_slip(
                "The discriminator's loss is the sum over its k steps. Give that of the last step.",
                record="sum",
            ),
            *history_slip(
                "The discriminator's loss is that of its first step. Give that of the last one.",
                record="first",
            ),
            *history_slip("k is ignored: there is a generator step for every batch.", k=1),
            Mistake(
                "What train returns is not one pair of numbers per round.",
                seen=lambda sent, got, want: all(
                    got[name].shape != (2, 2)
                    for name in ("history", "history_pulled")
                    if name in got
                ),
            ),
        ],
        trials=1,
    ),
]
