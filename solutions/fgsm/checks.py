"""Hidden checks of assignment 2, the fast gradient sign method.

The networks are small enough for a gradient by hand: pixels, a tanh layer, logits. Inputs are drawn
again until no gradient is close to 0, where its sign would be a matter of rounding, and until every
known slip gives other images than the formula.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.grading.checks import Answer, Check, Mistake, Sent

Array = np.ndarray
SHAPE = (1, 2, 4)
CLASSES, HIDDEN = 4, 6


def network(rng: np.random.Generator, sharp: float = 1.5) -> dict[str, Array]:
    """Draw a network: pixels to tanh units to logits."""
    pixels = int(np.prod(SHAPE))
    w1 = sharp * rng.standard_normal((HIDDEN, pixels))
    w2 = rng.standard_normal((CLASSES, HIDDEN))
    net = {
        "w1": w1,
        "b1": -w1.sum(axis=1) / 2 + 0.3 * rng.standard_normal(HIDDEN),
        "w2": w2,
        "b2": 0.3 * rng.standard_normal(CLASSES),
    }
    return {name: value.astype(np.float32) for name, value in net.items()}


def run(x: Array, w1: Array, b1: Array, w2: Array, b2: Array) -> tuple[Array, Array]:
    """Return the hidden units and the logits, in double precision."""
    flat = np.asarray(x, dtype=np.float64).reshape(len(x), -1)
    hidden = np.tanh(flat @ w1.astype(np.float64).T + b1)
    return hidden, hidden @ w2.astype(np.float64).T + b2


def softmax(logits: Array) -> Array:
    """Return probabilities, row by row."""
    grown = np.exp(logits - logits.max(axis=1, keepdims=True))
    return grown / grown.sum(axis=1, keepdims=True)


def loss_slope(logits: Array, y: Array) -> Array:
    """Return the derivative of the cross-entropy in the logits."""
    return softmax(logits) - np.eye(logits.shape[1])[y]


def gradient(
    x: Array, y: Array, net: dict[str, Array], slope: Callable[[Array, Array], Array] = loss_slope
) -> Array:
    """Return the derivative in the pixels of whatever has this derivative in the logits."""
    hidden, logits = run(x, **net)
    back = (slope(logits, y) @ net["w2"].astype(np.float64)) * (1 - hidden**2)
    return (back @ net["w1"].astype(np.float64)).reshape(x.shape)


def own_slope(logits: Array, y: Array) -> Array:
    """Slope of the loss for the model's own answer."""
    return loss_slope(logits, logits.argmax(axis=1))


def logit_slope(logits: Array, y: Array) -> Array:
    """Slope of minus the label's logit: nll_loss fed with logits."""
    return -np.eye(logits.shape[1])[y]


def sum_slope(logits: Array, y: Array) -> Array:
    """Slope of the sum of all logits."""
    return np.ones_like(logits)


def twice_slope(logits: Array, y: Array) -> Array:
    """Slope of the cross-entropy that is given probabilities for logits."""
    p = softmax(logits)
    outer = softmax(p) - np.eye(logits.shape[1])[y]
    return p * (outer - (p * outer).sum(axis=1, keepdims=True))


def parts(sent: dict[str, Any]) -> tuple[dict[str, Array], dict[str, Any]]:
    """Split what was sent into the network and the rest."""
    net = {name: sent[name] for name in ("w1", "b1", "w2", "b2")}
    return net, {name: value for name, value in sent.items() if name not in net}


def clear(g: Array) -> bool:
    """Say whether every gradient is far enough from 0 for its sign to be safe."""
    size = np.abs(g).reshape(len(g), -1)
    top = size.max(axis=1, keepdims=True)
    return bool((top > 0.02).all() and (size > 3e-3 * top).all())


def apart(a: Array, b: Array) -> bool:
    """Say whether two answers differ by more than rounding."""
    return a.shape != b.shape or bool(np.abs(a - b).max() > 5e-3)


def until(
    good: Callable[[dict[str, Any]], bool], make: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Draw until the draw is good."""
    for _ in range(20_000):
        sent = make()
        if good(sent):
            return sent
    raise RuntimeError("no good draw")


# One step


def stepped(sent: dict[str, Any], slope: Callable[[Array, Array], Array], way: float = 1) -> Array:
    """Return x moved by eps along or against the sign of some gradient, not clipped."""
    net, rest = parts(sent)
    y = rest["y"] if "y" in rest else rest["target"]
    return rest["x"] + way * rest["eps"] * np.sign(gradient(rest["x"], y, net, slope))


def step_answers(label: str) -> dict[str, Callable[..., Array]]:
    """Return the slips that fgsm and targeted_fgsm share, by name; way is +1 or -1."""
    way = 1.0 if label == "y" else -1.0

    def plain(slope: Callable[[Array, Array], Array], way: float = way) -> Callable[..., Array]:
        return lambda **sent: np.clip(stepped(sent, slope, way), 0, 1)

    return {
        "right": plain(loss_slope),
        "backwards": plain(loss_slope, -way),
        "own": plain(own_slope),
        "own_backwards": plain(own_slope, -way),
        "logit": plain(logit_slope),
        "logit_backwards": plain(logit_slope, -way),
        "sum": plain(sum_slope),
        "sum_backwards": plain(sum_slope, -way),
        "twice": plain(twice_slope),
        "full": lambda **sent: np.clip(stepped({**sent, "eps": 1.0}, loss_slope, way), 0, 1),
        "only": lambda **sent: stepped(sent, loss_slope, way) - sent["x"],
    }


def draw_step(label: str, edges: bool) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Draw a network, images, labels and eps; with edges, many pixels are black or white."""
    answers = step_answers(label)

    def good(sent: dict[str, Any]) -> bool:
        net, rest = parts(sent)
        if not clear(gradient(rest["x"], rest[label], net)):
            return False
        if edges:
            a = stepped(sent, loss_slope, 1.0 if label == "y" else -1.0)
            if not ((a < -0.01).any() and (a > 1.01).any()):
                return False
        right = answers["right"](**sent)
        return all(apart(answers[name](**sent), right) for name in answers if name != "right")

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            eps = round(float(rng.uniform(0.06, 0.2)), 3)
            x = rng.uniform(eps + 0.02, 0.98 - eps, (4, *SHAPE))
            if edges:
                x = rng.choice([0.0, 0.02, 0.5, 0.97, 1.0], x.shape)
            y = rng.integers(CLASSES, size=4)
            sent = {**network(rng, 0.7), "x": x.astype(np.float32), label: y, "eps": eps}
            if label == "target":
                sent["anchor"] = rng.uniform(0.4, 0.6, (CLASSES, *SHAPE)).astype(np.float32)
            return sent

        return until(good, make)

    return draw


def smooth(sent: Sent, got: Answer, want: Answer) -> bool:
    """Recognise a step along the gradient itself, of any length, image by image."""
    net, rest = parts(dict(sent))
    g = gradient(rest["x"], rest["y"] if "y" in rest else rest["target"], net)
    moved = got["x_adv"].astype(np.float64) - rest["x"]
    inside = (got["x_adv"] > 1e-4) & (got["x_adv"] < 1 - 1e-4)
    cosines = []
    for m, s, i in zip(moved, g, inside, strict=True):
        if i.sum() > 2:
            cosines.append((m[i] @ s[i]) / (np.linalg.norm(m[i]) * np.linalg.norm(s[i]) + 1e-12))
    return bool(cosines) and min(np.abs(cosines)) > 0.995


SIGN = (
    "Each pixel moves by another amount. The budget is per pixel, so only the sign of the gradient "
    "counts, not how steep it is."
)


def gives(answer: Callable[..., Array], message: str) -> Mistake:
    """Make a mistake of an answer."""
    return Mistake(message, gives=lambda **sent: {"x_adv": answer(**sent)})


def step_mistakes(label: str) -> list[Mistake]:
    """Return the slips of one step on images where no clip interferes."""
    a = step_answers(label)
    if label == "y":
        backwards = (
            "This step makes the loss smaller, which helps the model: go up the loss, not down."
        )
        own = (
            "The loss is taken for the model's own answer. Use the labels that were passed in, "
            "also where the model reads them wrongly."
        )
    else:
        backwards = (
            "This runs away from the target: the loss for the target label should fall, so the step "
            "goes the other way than in fgsm."
        )
        own = "The loss is taken for the model's own answer. Use the target that was passed in."
    logits = (
        "This is the gradient of the logits. What should be differentiated is the loss, the "
        "cross-entropy of the logits and the labels."
    )
    return [
        gives(lambda **sent: sent["x"], "The images came back unchanged: is the step added to x?"),
        gives(a["only"], "This is only the step. Add it to x."),
        gives(a["backwards"], backwards),
        gives(a["own"], own),
        gives(a["own_backwards"], own),
        gives(a["logit"], logits),
        gives(a["logit_backwards"], logits),
        gives(a["sum"], logits),
        gives(a["sum_backwards"], logits),
        gives(
            a["twice"],
            "Softmax is applied twice: the cross-entropy of PyTorch takes logits, not probabilities.",
        ),
        gives(a["full"], "The step has length 1: the budget eps is not used."),
        Mistake(SIGN, seen=smooth),
    ]


BELOW = (
    "Some pixels are below 0. An image has its pixels in [0, 1] here, not in [-1, 1]: clip to that."
)


def clip_mistakes(way: float) -> list[Mistake]:
    """Return the slips that show where a step leads out of [0, 1]."""

    def raw(**sent: Any) -> Array:
        return stepped(sent, loss_slope, way)

    def rescaled(**sent: Any) -> Array:
        a = raw(**sent)
        return (a - a.min()) / (a.max() - a.min())

    message = "Some pixels leave [0, 1], so this is no image any more: clip the result."
    return [
        gives(raw, message),
        gives(lambda **sent: np.minimum(raw(**sent), 1), BELOW),
        gives(lambda **sent: np.maximum(raw(**sent), 0), message),
        gives(
            rescaled,
            "The images are rescaled, which moves pixels that were fine. Clip: only pixels outside "
            "[0, 1] change.",
        ),
        gives(
            lambda **sent: np.clip(stepped(sent, loss_slope, -way), 0, 1),
            "The images stay in [0, 1], but the step goes the wrong way.",
        ),
        Mistake(SIGN, seen=smooth),
        Mistake(message, seen=lambda sent, got, want: _outside(got["x_adv"])),
    ]


def _outside(x: Array) -> bool:
    return bool(x.min() < -1e-4 or x.max() > 1 + 1e-4)


# What the call leaves behind


def draw_twice(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a linear model of two classes: how loud it speaks does not change its gradient's sign."""
    pixels = int(np.prod(SHAPE))

    def make() -> dict[str, Any]:
        y = rng.integers(2, size=4)
        x = rng.uniform(0.3, 0.7, (4, *SHAPE))
        w = rng.standard_normal((2, pixels))
        return {
            "w": w.astype(np.float32),
            "x": x.astype(np.float32),
            "y": y,
            "y_next": np.array([1 - y[0], 1 - y[1], y[2], y[3]]),
            "other": rng.uniform(0, 1, (2, *SHAPE)).astype(np.float32),
            "eps": round(float(rng.uniform(0.06, 0.2)), 3),
        }

    def good(sent: dict[str, Any]) -> bool:
        loud = _linear(sent["x"], sent["y"], sent["w"], 3.0)
        g = _linear(sent["x"], sent["y_next"], sent["w"], 1.0)
        if np.abs(g).min() < 3e-3 or np.abs(loud).min() < 3e-3:
            return False
        return bool((np.abs(g + loud) > 3e-3).all() and (np.sign(g + loud) != np.sign(g)).any())

    return until(good, make)


def _linear(x: Array, y: Array, w: Array, loud: float) -> Array:
    w = w.astype(np.float64) * loud
    logits = x.reshape(len(x), -1).astype(np.float64) @ w.T
    return (loss_slope(logits, y) @ w).reshape(x.shape)


def expect_twice(
    *, w: Array, x: Array, y: Array, y_next: Array, other: Array, eps: float
) -> Answer:
    """Return both calls' images, x as it was, and the model's answers in both modes."""
    flat = other.reshape(len(other), -1).astype(np.float64)
    return {
        "first": x + eps * np.sign(_linear(x, y, w, 3.0)),
        "second": x + eps * np.sign(_linear(x, y_next, w, 1.0)),
        "x": x,
        "after_first": 3.0 * flat @ w.T,
        "after_second": flat @ w.T,
    }


def differs(name: str) -> Callable[[Sent, Answer, Answer], bool]:
    """Recognise an answer that is right but for one array."""

    def seen(sent: Sent, got: Answer, want: Answer) -> bool:
        return not np.allclose(got[name], want[name], rtol=1e-3, atol=1e-4)

    return seen


# Many steps


def bim_run(
    sent: dict[str, Any],
    *,
    pulled: bool = False,
    start: Callable[[Array], Array] = lambda x: x,
    alpha: float | None = None,
    steps: int | None = None,
    still: bool = False,
    box: str = "first",
    low: float = 0.0,
    high: float = 1.0,
    way: float = 1.0,
    flat: bool = True,
    least: list[float] | None = None,
) -> Array:
    """Return BIM, or one of the things that are taken for it."""
    net, rest = parts(sent)
    x, y, eps = rest["x"].astype(np.float64), rest["y"], rest["eps"]
    alpha = rest["alpha"] if alpha is None else alpha
    at = start(x)
    whole = at.copy()  # what a change kept apart from the image adds up to
    for _ in range(rest["steps"] if steps is None else steps):
        seen = x if still else at
        if pulled:
            g = rest["anchor"][y].astype(np.float64) - seen
            bend = 0.3 * alpha * alpha
        else:
            g, bend = gradient(seen, y, net), 0.0
        if least is not None:
            top = np.abs(g).reshape(len(g), -1).max(axis=1)
            least.append(float((np.abs(g).reshape(len(g), -1) / top[:, None]).min()))
            least.append(float(top.min()) / 4)
        before = at
        at = at + way * alpha * (np.sign(g) if flat else g) + bend
        if box == "delta":
            whole = np.clip(whole + way * alpha * np.sign(g) + bend, x - eps, x + eps)
            at = whole
        if box in ("first", "delta"):
            at = np.clip(at, x - eps, x + eps)
        elif box == "previous":
            at = np.clip(at, before - eps, before + eps)
        at = np.clip(at, low, high)
    if box == "last":
        at = np.clip(np.clip(at, x - eps, x + eps), low, high)
    return at


def bim_slips(sent: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is taken for BIM, as options of ``bim_run``."""
    return [
        {"way": -1.0},
        {"box": "none"},
        {"box": "previous"},
        {"box": "last"},
        {"still": True},
        {"start": np.zeros_like},
        {"steps": sent["steps"] - 1},
        {"alpha": sent["eps"]},
        {"alpha": sent["eps"] / sent["steps"]},
    ]


def bim_answers(**sent: Any) -> list[Answer]:
    """Return what is right with the student's own fgsm, and with the other one in its place."""
    return [{"x_adv": bim_run(sent)}, {"x_adv_pulled": bim_run(sent, pulled=True)}]


def bim_answers_clean(**sent: Any) -> list[Answer]:
    """Return the same, with the caller's images as they were."""
    x = sent["x"]
    return [
        {"x_adv": bim_run(sent), "x": x},
        {"x_adv_pulled": bim_run(sent, pulled=True), "x_pulled": x},
    ]


def draw_bim(kind: str) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Draw images and a network that show one property of BIM and, where possible, no other.

    ``iterates``: the slope turns on the way and the box is not reached. ``each``: the slope turns at the
    box. ``box`` and ``edges``: the slope never turns and there are steps to spare, so that all end at
    eps or at black or white. ``alone``: the slope never turns and the box is not reached.
    """
    turns = kind in ("iterates", "each")

    def good(sent: dict[str, Any]) -> bool:
        for pulled in (False, True):
            least: list[float] = []
            right = bim_run(sent, pulled=pulled, least=least)
            if min(least) < 2e-3:
                return False
            if not turns:
                near = ({"still": True}, {"box": "last"}, {"steps": sent["steps"] + 1})
                for options in near[:2] if kind == "alone" else near:
                    if apart(bim_run(sent, pulled=pulled, **options), right):
                        return False
            elif kind == "iterates":
                if not apart(bim_run(sent, pulled=pulled, still=True), right):
                    return False
            elif not all(apart(bim_run(sent, pulled=pulled, **o), right) for o in bim_slips(sent)):
                return False
        if not turns and not apart(bim_run(sent, start=np.zeros_like), bim_run(sent)):
            return False
        if kind == "edges":
            loose = bim_run(sent, low=-9, high=9)
            return bool(loose.min() < -0.01 and loose.max() > 1.01)
        return True

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            alpha = round(float(rng.uniform(0.05, 0.08)), 3)
            if kind == "iterates":
                steps, eps, n = 3, round(alpha * 4.2, 3), 3
            elif kind == "alone":
                steps, eps, n = 2, round(alpha * 2.6, 3), 3
            elif kind == "each":
                steps, eps, n = 5, round(alpha * 1.6, 3), 3
            else:
                steps, eps, n = 4, round(alpha * 1.8, 3), 3
            x = rng.uniform(0.35, 0.65, (n, *SHAPE))
            anchor = rng.uniform(0.35, 0.65, (CLASSES, *SHAPE))
            if kind == "edges":
                x = rng.choice([0.0, 0.03, 0.5, 0.96, 1.0], x.shape)
            if not turns:
                anchor = rng.choice([0.17, 0.83], anchor.shape)
            return {
                **network(rng, 1.5 if turns else 0.2),
                "anchor": anchor.astype(np.float32),
                "x": x.astype(np.float32),
                "y": rng.integers(CLASSES, size=n),
                "eps": eps,
                "alpha": alpha,
                "steps": steps,
            }

        return until(good, make)

    return draw


def slip(message: str, **options: Any) -> list[Mistake]:
    """Make mistakes of a run of BIM: with the student's own fgsm, and with the other one."""
    return [
        Mistake(
            message,
            gives=lambda _p=pulled, **sent: {NAMES[_p]: bim_run(sent, pulled=_p, **options)},
        )
        for pulled in (False, True)
    ]


def scaled(message: str, length: Callable[[dict[str, Any]], float]) -> list[Mistake]:
    """Make mistakes of BIM with steps of another length."""
    return [
        Mistake(
            message,
            gives=lambda _p=pulled, **sent: {
                NAMES[_p]: bim_run(sent, pulled=_p, alpha=length(sent))
            },
        )
        for pulled in (False, True)
    ]


NAMES = {False: "x_adv", True: "x_adv_pulled"}

STILL = (
    "The gradient is taken at the first image in every step. Each step should look at the slope where "
    "the image is now."
)
BOX = (
    "After some steps pixels are further than eps from the image you started with: clip every step "
    "to the box around the original x, not around the previous image."
)
LAST = (
    "The box is applied once, at the end. Clip after every step: where the next gradient is taken "
    "depends on it."
)


def far(sent: Sent, got: Answer, want: Answer) -> bool:
    """Recognise images outside the box."""
    return bool(np.abs(got["x_adv"] - sent["x"]).max() > sent["eps"] + 1e-3)


def bim_smooth(sent: Sent, got: Answer, want: Answer) -> bool:
    """Recognise steps that are not all of the same length."""
    moved = np.abs(got["x_adv"].astype(np.float64) - sent["x"]) / sent["alpha"]
    return bool((np.abs(moved - np.round(moved)) > 0.02).mean() > 0.3)


BIM_COMMON = [
    *slip("The images came back unchanged: is every step added to x?", steps=0),
    *slip("The steps make the loss smaller, which helps the model: go up the loss.", way=-1.0),
]

# Accuracy


def accuracy(x: Array, y: Array, net: dict[str, Array]) -> float:
    """Return the share of images that the network reads right."""
    return float((run(x, **net)[1].argmax(axis=1) == y).mean())


def curve_run(
    sent: dict[str, Any], *, way: float = 1.0, add_up: bool = False, own: bool = False
) -> Array:
    """Return the accuracies under the made-up attack, or what is taken for them."""
    net, rest = parts(sent)
    x, y = rest["x"].astype(np.float64), rest["y"]
    labels = run(x, **net)[1].argmax(axis=1) if own else y
    found = []
    for eps in rest["epsilons"]:
        x_adv = x + way * eps * rest["drift"][labels]
        if add_up:
            x = x_adv
        found.append(accuracy(x_adv, y, net))
    return np.array(found)


def clean_run(sent: dict[str, Any]) -> Array:
    """Return the accuracy without an attack, once for each epsilon."""
    net, rest = parts(sent)
    return np.full(len(rest["epsilons"]), accuracy(rest["x"], rest["y"], net))


def draw_curve(many: bool) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Draw a network, images, an attack's directions, and one epsilon or five."""

    def good(sent: dict[str, Any]) -> bool:
        net, rest = parts(sent)
        right = curve_run(sent)
        if not 0 < right.min() < 1 or (many and len(np.unique(right)) < 3):
            return False
        others = [
            right,
            1 - right,
            clean_run(sent),
            curve_run(sent, way=-1.0),
            curve_run(sent, own=True),
        ]
        if many:
            others.append(curve_run(sent, add_up=True))
        if not all(apart(a, b) for i, a in enumerate(others) for b in others[:i]):
            return False
        for eps in rest["epsilons"]:
            for way in (1, -1):
                x = rest["x"] + way * eps * rest["drift"][rest["y"]]
                two = np.sort(run(x, **net)[1], axis=1)[:, -2:]
                if (two[:, 1] - two[:, 0]).min() < 1e-3:
                    return False
        return True

    def draw(rng: np.random.Generator) -> dict[str, Any]:
        def make() -> dict[str, Any]:
            net = network(rng, 0.7)
            x = rng.uniform(0, 1, (17, *SHAPE)).astype(np.float32)
            y = run(x, **net)[1].argmax(axis=1)
            y = np.where(rng.random(17) < 0.25, rng.integers(CLASSES, size=17), y)
            epsilons = rng.uniform(0.1, 0.6, 5 if many else 1).round(3).tolist()
            drift = rng.choice([-1.0, 1.0], (CLASSES, *SHAPE)).astype(np.float32)
            return {**net, "drift": drift, "x": x, "y": y, "epsilons": epsilons}

        return until(good, make)

    return draw


def curve_gives(answer: Callable[[dict[str, Any]], Array], message: str) -> Mistake:
    """Make a mistake of an answer of accuracy_curve."""
    return Mistake(message, gives=lambda **sent: {"curve": answer(sent)})


NO_GRAD = (
    "The attack runs inside torch.no_grad(), where it cannot have a gradient. Only the model's verdict "
    "on the finished images needs none."
)
CURVE_MISTAKES = [
    curve_gives(clean_run, "This is the accuracy on the clean images. Judge the attacked ones."),
    curve_gives(lambda sent: 100 * curve_run(sent), "Give a share between 0 and 1, not percent."),
    curve_gives(
        lambda sent: len(sent["x"]) * curve_run(sent),
        "This counts the images that are read right. Divide by how many there are.",
    ),
    curve_gives(
        lambda sent: 1 - curve_run(sent),
        "This is the share of errors. Accuracy is what is left right.",
    ),
    curve_gives(lambda sent: curve_run(sent, way=-1.0), NO_GRAD),
    curve_gives(
        lambda sent: curve_run(sent, own=True),
        "The attack got the model's answers as labels. Pass it the true labels y.",
    ),
]

CHECKS: list[Check] = [
    Check(
        cell="check_fgsm",
        name="fgsm_step",
        title="fgsm: every pixel moves by eps, up the loss",
        points=3,
        probe="fgsm",
        draw=draw_step("y", edges=False),
        expect=lambda **sent: {"x_adv": step_answers("y")["right"](**sent)},
        mistakes=step_mistakes("y"),
        trials=2,
    ),
    Check(
        cell="check_fgsm",
        name="fgsm_clip",
        title="fgsm: the result is an image, in [0, 1]",
        points=2,
        probe="fgsm",
        draw=draw_step("y", edges=True),
        expect=lambda **sent: {"x_adv": step_answers("y")["right"](**sent)},
        mistakes=clip_mistakes(1.0),
        trials=2,
    ),
    Check(
        cell="check_fgsm",
        name="fgsm_alone",
        title="fgsm: called twice, it leaves x and the model's mode as they were",
        points=1,
        probe="fgsm_twice",
        draw=draw_twice,
        expect=expect_twice,
        mistakes=[
            Mistake(
                "The caller's x has changed after the call: work on a copy.",
                seen=differs("x"),
            ),
            Mistake("The first of the two calls already goes wrong.", seen=differs("first")),
            Mistake(
                "The model was in training mode before the call and is not any more: leave the mode "
                "as it was.",
                seen=differs("after_first"),
            ),
            Mistake(
                "The model was in evaluation mode before the call and is not any more: leave the "
                "mode as it was.",
                seen=differs("after_second"),
            ),
            Mistake(
                "The second call on the same images goes wrong: the first one's gradient is still "
                "stored in the caller's x, and the new one is added to it. Work on a copy of x.",
                seen=differs("second"),
            ),
        ],
        trials=1,
    ),
    Check(
        cell="check_targeted_fgsm",
        name="targeted_step",
        title="targeted_fgsm: every pixel moves by eps, towards the target",
        points=2,
        probe="targeted",
        draw=draw_step("target", edges=False),
        expect=lambda **sent: [
            {"x_adv": step_answers("target")["right"](**sent)},
            {"x_adv_pulled": pushed(**sent)},
        ],
        mistakes=step_mistakes("target"),
        trials=2,
    ),
    Check(
        cell="check_targeted_fgsm",
        name="targeted_clip",
        title="targeted_fgsm: the result is an image, in [0, 1]",
        points=1,
        probe="targeted",
        draw=draw_step("target", edges=True),
        expect=lambda **sent: [
            {"x_adv": step_answers("target")["right"](**sent)},
            {"x_adv_pulled": pushed(**sent)},
            {"x_adv_pulled": np.clip(pushed(**sent), 0, 1)},
        ],
        mistakes=clip_mistakes(-1.0),
        trials=1,
    ),
    Check(
        cell="check_bim",
        name="bim_iterates",
        title="bim: steps of alpha from x, each with the gradient of its own place",
        points=2,
        probe="bim",
        draw=draw_bim("iterates"),
        expect=bim_answers,
        mistakes=[
            *BIM_COMMON,
            *slip(STILL, still=True),
            *slip("This starts from a black image. Start from x.", start=np.zeros_like),
            *slip("One step is missing: how often does the loop run?", steps=2),
            *slip("There is one step too many: how often does the loop run?", steps=4),
            *scaled(
                "Each step has the length eps / steps. It should be alpha.",
                lambda sent: sent["eps"] / sent["steps"],
            ),
            *scaled(
                "Each step has the length eps. It should be alpha.", lambda sent: float(sent["eps"])
            ),
            Mistake(
                "The steps are not all of length alpha: take the sign of the gradient.",
                seen=bim_smooth,
            ),
        ],
        trials=2,
    ),
    Check(
        cell="check_bim",
        name="bim_each",
        title="bim: clipped after every step",
        points=1,
        probe="bim",
        draw=draw_bim("each"),
        expect=bim_answers,
        mistakes=[
            *slip(LAST, box="last"),
            *slip(BOX, box="none"),
            *slip(BOX, box="previous"),
            *slip(STILL, still=True),
            *BIM_COMMON,
            Mistake(BOX, seen=far),
        ],
        trials=1,
    ),
    Check(
        cell="check_bim",
        name="bim_box",
        title="bim: never further than eps from the original image",
        points=2,
        probe="bim",
        draw=draw_bim("box"),
        expect=bim_answers,
        mistakes=[*BIM_COMMON, *slip(BOX, box="none"), Mistake(BOX, seen=far)],
        trials=2,
    ),
    Check(
        cell="check_bim",
        name="bim_clip",
        title="bim: the result is an image, in [0, 1]",
        points=1,
        probe="bim",
        draw=draw_bim("edges"),
        expect=bim_answers,
        mistakes=[
            *slip(BELOW, low=-1.0),
            Mistake(
                "Some pixels leave [0, 1]: clip to the box and to [0, 1].",
                seen=lambda sent, got, want: _outside(got["x_adv"]),
            ),
            *BIM_COMMON,
            Mistake(BOX, seen=far),
        ],
        trials=2,
    ),
    Check(
        cell="check_bim",
        name="bim_alone",
        title="bim: the caller's x is as it was",
        points=1,
        probe="bim",
        draw=draw_bim("alone"),
        expect=bim_answers_clean,
        mistakes=[
            Mistake(
                "The caller's x has changed after the call: start from a copy.",
                seen=lambda sent, got, want: np.abs(got["x"] - sent["x"]).max() > 1e-3,
            ),
        ],
        trials=1,
    ),
    Check(
        cell="check_accuracy_curve",
        name="curve_one",
        title="accuracy_curve: the share of attacked images that is read right",
        points=2,
        probe="curve",
        draw=draw_curve(many=False),
        expect=lambda **sent: {"curve": curve_run(sent)},
        mistakes=CURVE_MISTAKES,
        trials=2,
    ),
    Check(
        cell="check_accuracy_curve",
        name="curve_many",
        title="accuracy_curve: one number per epsilon, each attack starting from x",
        points=2,
        probe="curve",
        draw=draw_curve(many=True),
        expect=lambda **sent: {"curve": curve_run(sent)},
        mistakes=[
            curve_gives(
                lambda sent: curve_run(sent, add_up=True),
                "Each attack starts from the images that the last one changed. Start from x for "
                "every epsilon.",
            ),
            curve_gives(
                lambda sent: curve_run(sent)[np.argsort(sent["epsilons"])],
                "The accuracies are not in the order of the epsilons that were passed in.",
            ),
            *CURVE_MISTAKES,
        ],
        trials=1,
    ),
]


def pushed(**sent: Any) -> Array:
    """Return what a targeted step gives with the other function in place of fgsm."""
    x, eps = sent["x"].astype(np.float64), -sent["eps"]
    return x + eps * np.sign(sent["anchor"][sent["target"]] - x) + 0.3 * eps * eps
