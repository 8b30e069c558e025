"""Hidden checks of the assignment on a spectral detector, its error, its protocol and an attack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from course_lib.grading.checks import Answer, Check, Mistake, Sent

# Inputs ---------------------------------------------------------------------------------------------

#: What a probe calls an input that it returns once the student's function has had it.
AFTERWARDS = "_afterwards"
CHANGED = "What was handed in has changed: the caller still needs it. Work on a copy."


def _inputs_changed(sent: Sent, got: Answer) -> bool:
    """Whether some input that came back is not what it was; rounding is no change."""
    return any(
        array.shape != np.shape(sent[name.removesuffix(AFTERWARDS)])
        or not np.allclose(array, sent[name.removesuffix(AFTERWARDS)], rtol=1e-5, atol=1e-6)
        for name, array in got.items()
        if name.endswith(AFTERWARDS)
    )


def _with_inputs(sent: Sent, *names: str) -> dict[str, np.ndarray]:
    """Return the inputs called ``names`` as they should come back."""
    return {name + AFTERWARDS: np.asarray(sent[name]) for name in names}


def _input_shapes(sent: Sent, *names: str) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(value) for name, value in _with_inputs(sent, *names).items()}


LEFT = Mistake(CHANGED, seen=lambda sent, got, want: _inputs_changed(sent, got))

# Spectrum -------------------------------------------------------------------------------------------


def _images(rng: np.random.Generator) -> np.ndarray:
    """Return smooth and rough images in [0, 1] with contrasts from faint to strong."""
    n, size = int(rng.integers(3, 6)), int(rng.choice([8, 12, 16]))
    f = np.fft.fftfreq(size, 1 / size)
    radius = np.hypot(f[:, None], f[None])
    decay = (1 + radius) ** -rng.uniform(0.5, 1.5, size=(n, 1, 1))
    x = np.fft.ifft2(np.fft.fft2(rng.normal(size=(n, size, size))) * decay).real
    x = (x - x.min((1, 2), keepdims=True)) / np.ptp(x, axis=(1, 2), keepdims=True)
    # From faint to strong in every batch, so that no one level fits all of it.
    part = (rng.permutation(n) + rng.uniform(0.3, 0.7, size=n)) / n
    contrast = 0.05 * 10.0 ** part[:, None, None]
    return (0.1 + contrast * x / x.std((1, 2), keepdims=True) / 5).astype(np.float32)


def _draw_images(rng: np.random.Generator) -> dict[str, Any]:
    return {"images": _images(rng)}


def _draw_brighter(rng: np.random.Generator) -> dict[str, Any]:
    """Images, and among them the same ones, brighter."""
    x = _images(rng)
    both = np.concatenate([x, x + np.float32(rng.uniform(0.2, 0.4))])
    return {"images": both[rng.permutation(len(both))]}


def _by_brightness(images: np.ndarray) -> np.ndarray:
    """Return indices (2, N/2): the darker copies, and below them their brighter ones."""
    x = np.asarray(images, dtype=np.float64)
    mean = x.mean((1, 2), keepdims=True)
    far = np.abs((x - mean)[:, None] - (x - mean)[None]).max((2, 3))
    np.fill_diagonal(far, np.inf)
    other = far.argmin(1)
    dark = np.flatnonzero(mean[:, 0, 0] < mean[other, 0, 0])
    return np.stack([dark, other[dark]])


def _radius(size: int, rounded: Callable[[np.ndarray], np.ndarray] = np.round) -> np.ndarray:
    f = np.fft.fftfreq(size, 1 / size)
    return rounded(np.hypot(f[:, None], f[None])).astype(int)


def _power(images: np.ndarray) -> np.ndarray:
    x = np.asarray(images, dtype=np.float64)
    return np.abs(np.fft.fft2(x - x.mean((1, 2), keepdims=True), norm="ortho")) ** 2


def _average(values: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Average over rings 1, 2, ... up to half the size."""
    half = values.shape[1] // 2
    return np.stack([values[:, radius == r].mean(1) for r in range(1, half + 1)], axis=1)


def _rings(images: np.ndarray) -> np.ndarray:
    return np.log(_average(_power(images), _radius(images.shape[1])) + 1e-8)


def _ring_shape(images: np.ndarray) -> dict[str, tuple[int, ...]]:
    return {"rings": (len(images), images.shape[1] // 2)}


def _same_form(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two spectra differ by one number at most, which is the same in all rings and images."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return a.shape == b.shape and bool(np.abs(a - a.mean() - (b - b.mean())).max() < 5e-3)


def _numbers(got: Answer) -> dict[str, np.ndarray]:
    """Return what came back in float64, whatever kind of numbers or truth values it is."""
    return {name: np.asarray(values).astype(np.float64) for name, values in got.items()}


def _judge_rings(sent: Sent, got: Answer) -> str | None:
    if _same_form(got["rings"], _rings(sent["images"])):
        return None
    return "The spectrum has not the form that the formula gives."


def _form(variant: Callable[[np.ndarray], np.ndarray]) -> Callable[[Sent, Answer, Answer], bool]:
    return lambda sent, got, want: _same_form(got["rings"], variant(sent["images"]))


def _unshifted(images: np.ndarray) -> np.ndarray:
    size = images.shape[1]
    return np.log(_average(_power(images), np.fft.fftshift(_radius(size))) + 1e-8)


def _from_corner(images: np.ndarray) -> np.ndarray:
    i = np.arange(images.shape[1])
    radius = np.round(np.hypot(i[:, None], i[None])).astype(int)
    return np.log(_average(_power(images), radius) + 1e-8)


def _floored(images: np.ndarray) -> np.ndarray:
    return np.log(_average(_power(images), _radius(images.shape[1], np.floor)) + 1e-8)


def _summed(images: np.ndarray) -> np.ndarray:
    radius = _radius(images.shape[1])
    counts = np.bincount(radius.ravel())[1 : images.shape[1] // 2 + 1]
    return np.log(_average(_power(images), radius) * counts + 1e-8)


def _of_amplitude(images: np.ndarray) -> np.ndarray:
    return np.log(_average(np.sqrt(_power(images)), _radius(images.shape[1])) + 1e-8)


def _mean_of_logs(images: np.ndarray) -> np.ndarray:
    return _average(np.log(_power(images) + 1e-8), _radius(images.shape[1]))


def _no_log(images: np.ndarray) -> np.ndarray:
    return _average(_power(images), _radius(images.shape[1]))


def _half_plane(images: np.ndarray) -> np.ndarray:
    size = images.shape[1]
    keep = size // 2 + 1
    power, radius = _power(images)[:, :, :keep], _radius(size)[:, :keep]
    return np.log(_average(power, radius) + 1e-8)


def _corners(sent: Sent, got: Answer, _: Answer) -> bool:
    n, size = sent["images"].shape[:2]
    return bool(got["rings"].shape[0] == n and got["rings"].shape[1] > size // 2)


#: Wide enough for another way to draw the rings, which is judged apart.
LEVEL = 2.0


def _judge_level(sent: Sent, got: Answer) -> str | None:
    level = _numbers(got)["rings"].mean(1)
    off = level - _rings(sent["images"]).mean(1)
    size = sent["images"].shape[1]
    if np.ptp(level) < 1e-2:
        return "The spectrum does not depend on the image."
    if abs(np.median(off)) < LEVEL and np.ptp(off) < LEVEL:
        return None
    for scale in (np.log(size**2), np.log(size**4), -np.log(size**2)):
        if abs(np.median(off) - scale) < LEVEL / 2:
            return (
                "The level is off by a factor that depends on the size of the image: use the Fourier "
                "transform with the factor 1/n in front."
            )
    return "The level of the spectrum is not that of the formula."


def _judge_brightness(sent: Sent, got: Answer) -> str | None:
    if _inputs_changed(sent, got):
        return CHANGED
    dark, bright = _by_brightness(sent["images"])
    rings, zero = (_numbers(got)[name] for name in ("rings", "zero"))
    if np.abs(rings[dark] - rings[bright]).max() > 1e-2:
        return "A brighter copy of an image has another spectrum: only the ring of radius 0 may change."
    if np.ptp(rings[dark], axis=0).max() < 1e-2:
        return "The spectrum does not depend on the image."
    # Amplitudes and logarithms to another base are judged apart; brightness is far above either.
    if np.abs(zero).max() < 1e-3:
        return "The ring of radius 0 is ln(1e-8), not 0: the logarithm is missing."
    if np.abs(zero - np.log10(1e-8)).max() < 0.05:
        return None
    if zero.max() > -12:
        return (
            "The ring of radius 0 still holds the brightness: subtract each image's own mean first."
        )
    if zero.min() < np.log(1e-8) - 0.05:
        return "The 1e-8 inside the logarithm is missing."
    return None


def _log_of_zero(sent: Sent, got: Answer, _: Answer) -> bool:
    return bool(np.isneginf(got["zero"]).any())


# Equal error rate -----------------------------------------------------------------------------------


def _curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return false-alarm and miss rates as the threshold falls through the distinct scores."""
    thresholds = np.concatenate([[np.inf], np.unique(scores)[::-1]])
    real, fake = scores[labels == 0], scores[labels == 1]
    false_alarm = (real[None] >= thresholds[:, None]).mean(1)
    miss = (fake[None] < thresholds[:, None]).mean(1)
    return false_alarm, miss


def _crossing(false_alarm: np.ndarray, miss: np.ndarray) -> float:
    gap = false_alarm - miss
    return float(np.interp(0.0, gap, false_alarm))


def _eer(scores: np.ndarray, labels: np.ndarray) -> Answer:
    return {"eer": np.asarray(_crossing(*_curve(np.asarray(scores, dtype=np.float64), labels)))}


def _eer_and_inputs(**sent: Any) -> Answer:
    return {**_eer(**sent), **_with_inputs(sent, "scores", "labels")}


def _eer_turned(scores: np.ndarray, labels: np.ndarray) -> Answer:
    return _eer(-scores, labels)


def _eer_nearest(sent: Sent, got: Answer, _: Answer) -> bool:
    false_alarm, miss = _curve(sent["scores"], sent["labels"])
    gap = np.abs(false_alarm - miss)
    value = float(got["eer"])
    near = np.flatnonzero(gap <= gap.min() + 1e-9)
    return any(
        abs(value - candidate) < 1e-5
        for i in near
        for candidate in (false_alarm[i], miss[i], (false_alarm[i] + miss[i]) / 2)
    )


def _eer_ties_apart(sent: Sent, got: Answer, _: Answer) -> bool:
    """Whether equal scores were passed one by one, in some order."""
    scores, labels = sent["scores"], sent["labels"]
    n = len(scores)
    for order in (
        np.argsort(-scores, kind="stable"),
        np.argsort(scores, kind="stable")[::-1],
        np.lexsort((labels, -scores)),
        np.lexsort((-labels, -scores)),
    ):
        y = labels[order]
        false_alarm = np.concatenate([[0], np.cumsum(1 - y) / (n - y.sum())])
        miss = 1 - np.concatenate([[0], np.cumsum(y) / y.sum()])
        if abs(_crossing(false_alarm, miss) - float(got["eer"])) < 1e-4:
            return True
    return False


def _error_at(threshold: float) -> Callable[..., Answer]:
    def gives(scores: np.ndarray, labels: np.ndarray) -> Answer:
        return {"eer": np.asarray(((scores >= threshold) != (labels == 1)).mean())}

    return gives


def _one_side(sent: Sent, got: Answer, _: Answer) -> bool:
    real, fake = (sent["scores"][sent["labels"] == y] for y in (0, 1))
    return any(
        abs(float(got["eer"]) - rate) < 1e-4
        for t in (0.0, 0.5)
        for rate in (
            (real >= t).mean(),
            (fake < t).mean(),
            ((real >= t).mean() + (fake < t).mean()) / 2,
        )
    )


def _percent(scores: np.ndarray, labels: np.ndarray) -> Answer:
    return {"eer": 100 * _eer(scores, labels)["eer"]}


def _shuffled(rng: np.random.Generator, real: np.ndarray, fake: np.ndarray) -> dict[str, Any]:
    scores, labels = np.concatenate([real, fake]), np.repeat([0, 1], [len(real), len(fake)])
    order = rng.permutation(len(scores))
    return {"scores": scores[order].astype(np.float32), "labels": labels[order].astype(np.int64)}


def _draw_many(rng: np.random.Generator) -> dict[str, Any]:
    level, apart = rng.uniform(1.5, 3), rng.uniform(0.8, 2.0)
    real = level + rng.normal(size=int(rng.integers(150, 180)))
    return _shuffled(rng, real, level + apart + rng.normal(size=int(rng.integers(80, 110))))


def _draw_few(rng: np.random.Generator) -> dict[str, Any]:
    while True:
        real = 2 * rng.normal(size=int(rng.integers(6, 10)))
        sent = _shuffled(rng, real, 2 + 2 * rng.normal(size=int(rng.integers(11, 14))))
        false_alarm, miss = _curve(sent["scores"], sent["labels"])
        # Somewhere between two points of the curve, and not at its ends.
        if np.abs(false_alarm - miss).min() > 0.03 and 0.1 < _eer(**sent)["eer"] < 0.45:
            return sent


def _draw_ties(rng: np.random.Generator) -> dict[str, Any]:
    while True:
        real = rng.integers(0, 4, size=int(rng.integers(25, 35)))
        sent = _shuffled(rng, real, rng.integers(1, 6, size=int(rng.integers(40, 50))))
        false_alarm, miss = _curve(sent["scores"], sent["labels"])
        if np.abs(false_alarm - miss).min() > 0.08:
            return sent


# Detector -------------------------------------------------------------------------------------------


def _classes(rng: np.random.Generator, n: int, real: int, fake: int) -> dict[str, Any]:
    """Draw both classes in random order, ``n`` columns, apart along a direction at random.

    The truth about the test rows is not sent: the student's process could read it there. No column,
    no sum and no direction of largest variance tells the classes apart: that takes the labels.
    """
    mixing = np.eye(n) + 0.25 * rng.normal(size=(n, n)) / np.sqrt(n)
    loud = rng.normal(size=n)
    mixing += 2 * np.outer(loud, loud @ mixing) / (loud @ loud)
    mixing /= np.linalg.norm(mixing, axis=0)  # columns of one scale
    # What a score without a fit would look along: every column, their sum, where they vary most.
    guesses = np.column_stack([mixing, mixing.sum(1), np.linalg.svd(mixing)[0][:, 0]])
    guesses /= np.linalg.norm(guesses, axis=0)
    while True:
        direction = rng.normal(size=n)
        direction /= np.linalg.norm(direction)
        if np.abs(direction @ guesses).max() < 0.4:
            break
    shift = 2.2 * direction

    def rows(labels: np.ndarray) -> np.ndarray:
        return (rng.normal(size=(len(labels), n)) + labels[:, None] * shift) @ mixing

    labels = rng.permutation(np.repeat([0, 1], [real, fake]))
    test = rows(rng.permutation(np.repeat([0, 1], [100, 100])))
    return {
        "features": rows(labels).astype(np.float32),
        "labels": labels.astype(np.int64),
        "test": test.astype(np.float32),
    }


def _draw_plain(rng: np.random.Generator) -> dict[str, Any]:
    return _classes(rng, 14, 160, 60)


def _draw_scales(rng: np.random.Generator) -> dict[str, Any]:
    """The telling columns are tiny, and the huge ones tell nothing."""
    sent = _classes(rng, 12, 100, 90)
    scale = np.concatenate([10.0 ** rng.uniform(-4, -3, size=12), [1.0, 1e3]])
    offset = rng.uniform(2, 4, size=14) * rng.choice([-1, 1], size=14)
    order = rng.permutation(14)
    for name in ("features", "test"):
        rows = np.column_stack([sent[name], rng.normal(size=(len(sent[name]), 2))])
        sent[name] = ((rows + offset) * scale)[:, order].astype(np.float32)
    return sent


def _draw_constant(rng: np.random.Generator) -> dict[str, Any]:
    sent = _classes(rng, 14, 90, 90)
    place, value = int(rng.integers(15)), float(rng.choice([-2.0, 0.5, 4.0]))
    for name in ("features", "test"):
        sent[name] = np.insert(sent[name], place, value, axis=1).astype(np.float32)
    return sent


def _draw_some(rng: np.random.Generator) -> dict[str, Any]:
    """Some of the rows are one that looks fake, again and again, with a little noise."""
    sent = _classes(rng, 14, 90, 90)
    test = sent["test"].astype(np.float64)
    some, columns = rng.permutation(len(test))[:7], test.shape[1]
    fake, scale = test[np.argmax(_oracle(**sent))], test.std(0)
    while True:
        # Of another size in each column: whoever standardised by these rows would see few columns.
        noise = scale * 10 ** rng.permutation(np.linspace(-4, -1, columns))
        test[some] = fake + noise * rng.normal(size=(7, columns))
        sent["test"] = test.astype(np.float32)
        lost = _agreement(sent, _oracle(**sent, used=test[some]))
        if 0.2 < lost < 0.8:
            return sent | {"some": some.astype(np.int64)}


def _auc(scores: np.ndarray, truth: np.ndarray) -> float:
    low, high = scores[~truth], scores[truth]
    above = high[:, None] - low[None]
    return float(((above > 0) + 0.5 * (above == 0)).mean())


def _oracle(
    features: np.ndarray,
    labels: np.ndarray,
    test: np.ndarray,
    used: np.ndarray | None = None,
) -> np.ndarray:
    """Return the scores of a standardised logistic regression, fitted by Newton's method.

    ``used``: rows by which ``test`` is standardised, in place of the training features.
    """

    def design(rows: np.ndarray, by: np.ndarray) -> np.ndarray:
        mean, std = by.mean(0), by.std(0)
        std = np.where(std > 1e-9 * (1 + np.abs(mean)), std, 1.0)
        return np.column_stack([(rows - mean) / std, np.ones(len(rows))])

    x, z = np.asarray(features, dtype=np.float64), np.asarray(test, dtype=np.float64)
    z = design(z, x if used is None else np.asarray(used, dtype=np.float64))
    x = design(x, x)
    w = np.zeros(x.shape[1])
    for _ in range(8):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (p - labels) + 0.1 * w
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 0.1 * np.eye(len(w))
        w -= np.linalg.solve(hessian, gradient)
    return z @ w


def _score_shape(
    features: np.ndarray, labels: np.ndarray, test: np.ndarray
) -> dict[str, tuple[int, ...]]:
    return {"scores": (len(test),)}


def _agreement(sent: Sent, scores: np.ndarray, used: np.ndarray | None = None) -> float:
    """Return how well ``scores`` part the test rows as a logistic regression does: 1 as well, 0.5 not."""
    best = _oracle(sent["features"], sent["labels"], sent["test"], used)
    return _auc(scores, best > np.median(best))


#: Less than this is not the detector that was asked for. Decisions in place of scores reach it.
FITTED = 0.87


def _judge_ranks(sent: Sent, got: Answer) -> str | None:
    scores = _numbers(got)["scores"]
    agreement = _agreement(sent, scores)
    if len(np.unique(scores)) <= 2:
        return "These are decisions, not scores: all images on one side get the same number."
    if agreement >= 0.95:
        return None
    if agreement <= 1 - 0.95:
        return (
            "The scores are the wrong way round: label 1 is fake, and a fake should score higher."
        )
    return "New fakes and real ones are told apart clearly worse than a logistic regression does."


def _judge_any_way(words: str) -> Callable[[Sent, Answer], str | None]:
    def judge(sent: Sent, got: Answer) -> str | None:
        agreement = _agreement(sent, _numbers(got)["scores"])
        return None if max(agreement, 1 - agreement) >= FITTED else words

    return judge


SCALES = (
    "With columns of very different scales it tells hardly anything apart, though a standardised "
    "logistic regression does: are all columns brought to mean 0 and standard deviation 1, and does the "
    "training get to its end?"
)
CONSTANT = "A column that never changes spoils the scores: its standard deviation is 0."


def _not_finite(sent: Sent, got: Answer, _: Answer) -> bool:
    return not np.isfinite(got["scores"]).all()


def _column(sent: Sent, got: Answer, _: Answer) -> bool:
    scores = [a for name, a in got.items() if not name.endswith(AFTERWARDS)]
    return any(a.ndim == 2 and a.shape[1] <= 2 for a in scores)


SCORES = Mistake("One score per row, of shape (N,): yours has one column too many.", seen=_column)


FIRST = (
    "The scores depend on the images that the detector was used on first: all that it knows comes from the "
    "training features, and nothing is added when it is used."
)


def _judge_alone(sent: Sent, got: Answer) -> str | None:
    together, alone = (_numbers(got)[name] for name in ("together", "alone"))
    if _inputs_changed(sent, got):
        return CHANGED
    some = sent["some"]
    agreement = _agreement(sent, together)
    if max(agreement, 1 - agreement) < FITTED:
        kept = _agreement(sent, together, sent["test"][some])
        return FIRST if kept >= FITTED else "The scores hardly depend on the features."
    if np.abs(together[some] - alone).max() > 1e-3 * together.std():
        return (
            "The score of an image changes with the images beside it: mean and standard deviation "
            "belong to the training features, and stay as they are when the detector is used."
        )
    # They look fake, and were alike when they came: among all others they still have to look fake.
    above = np.sign(together[some][:, None] - together[None]).mean() * (2 * agreement - 1)
    return FIRST if above < 0.4 else None


def _alone_shapes(**sent: Any) -> dict[str, tuple[int, ...]]:
    shapes = {"together": (len(sent["test"]),), "alone": (len(sent["some"]),)}
    return shapes | _input_shapes(sent, "features", "labels", "test")


# Split by person ------------------------------------------------------------------------------------

SPLITS = 6
DRAWS = 150
SHARES = ("low", "high", "low again", "high again")


def _album(rng: np.random.Generator, people: np.ndarray, heavy: int) -> np.ndarray:
    """Return who is in each picture, in random order: a few people are in many, the others in few."""
    counts = rng.integers(2, 5, size=len(people))
    counts[rng.permutation(len(people))[:heavy]] = rng.integers(18, 24, size=heavy)
    return rng.permutation(np.repeat(people, counts)).astype(np.int64)


def _draw_album(rng: np.random.Generator, fewest: int = 10) -> dict[str, Any]:
    # Ids that run from 0 on: others are asked for apart.
    n = int(rng.integers(fewest, fewest + 5))
    return {
        "person": _album(rng, rng.permutation(n), 2),
        "share": round(float(rng.uniform(0.25, 0.4)), 3),
        "seed": int(rng.integers(2**31)),
        "draws": SPLITS,
    }


def _draw_often(rng: np.random.Generator) -> dict[str, Any]:
    return _draw_album(rng, 14) | {"draws": DRAWS}


def _draw_shares(rng: np.random.Generator) -> dict[str, Any]:
    """Any ids, and two shares: one is rounded down, the other up."""
    n = int(rng.integers(11, 16))
    ids = np.concatenate(
        [rng.choice(900, size=n // 2, replace=False) - 950, 50 + rng.choice(900, size=n - n // 2)]
    )
    people = np.unique(ids)
    n, k = len(people), int(rng.integers(2, 4))
    return {
        "person": _album(rng, people, 3),
        "low": round((k + float(rng.uniform(0.15, 0.3))) / n, 4),
        "high": round((k + float(rng.uniform(0.7, 0.85))) / n, 4),
        "seed": int(rng.integers(2**31)),
    }


def _splits(sent: Sent) -> list[str]:
    return [f"split {i + 1}" for i in range(sent["draws"])]


def _by_people(person: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the share of each person's pictures that is for testing, people in ascending order."""
    _, member = np.unique(person, return_inverse=True)
    chosen = np.asarray(mask).astype(np.float64)
    return np.bincount(member, chosen) / np.bincount(member)


NONE = (
    "No picture is for testing. The ids may be any integers: which people are there, and how many?"
)
ALL = "Every picture is for testing: nothing is left to train on."


def _no_split(masks: np.ndarray) -> str | None:
    """Say why masks (K, N) are none; now and then a side may be empty."""
    if not np.isin(masks, (0, 1)).all():
        return "Return one truth value per picture: True for testing."
    if masks.any(1).mean() < 0.5:
        return NONE
    return ALL if masks.all(1).mean() > 0.5 else None


def _judge_apart(sent: Sent, got: Answer) -> str | None:
    masks = np.stack([got[name] for name in _splits(sent)])
    wrong = _no_split(masks)
    if wrong is not None:
        return wrong
    if not got["boolean"].all():
        return (
            "These are numbers, not truth values: as an index, 0 and 1 pick the first two rows again and "
            "again. Return booleans."
        )
    for mask in masks:
        shares = _by_people(sent["person"], mask)
        if ((shares > 0) & (shares < 1)).any():
            return (
                "Somebody has pictures on both sides. Draw people, not pictures, and take all the "
                "pictures of those drawn."
            )
    return None


def _judge_share(sent: Sent, got: Answer) -> str | None:
    if _inputs_changed(sent, got):
        return CHANGED
    n = len(np.unique(sent["person"]))
    masks = np.stack([got[name] for name in SHARES])
    wrong = _no_split(masks)
    if wrong is not None:
        return wrong
    shares = [sent[name.split()[0]] for name in SHARES]
    mixed = [_by_people(sent["person"], mask) for mask in masks]
    tested = [int((part > 0).sum()) for part in mixed]
    wanted = [round(share * n) for share in shares]
    if tested == wanted:
        return None
    if any(((part > 0) & (part < 1)).any() for part in mixed):
        return "Pictures were drawn, not people, so hardly anybody is left out of the test."
    if tested == [n - k for k in wanted]:
        return "It is the wrong way round: True marks the pictures for testing."
    if tested == [int(share * n) for share in shares]:
        return "The number of people was cut off, not rounded to the nearest whole number."
    if tested == [int(np.ceil(share * n)) for share in shares]:
        return "The number of people was rounded up, not to the nearest whole number."
    return (
        "The number of people for testing is not the share of the people: count people, not pictures. "
        "The ids may be any integers."
    )


def _uneven(counts: np.ndarray, draws: int) -> float:
    """Return the mean squared deviation of counts from their mean: about 1 by chance."""
    mean = counts.mean()
    return float(((counts - mean) ** 2).mean() / max(mean * (1 - mean / draws), 1e-9))


#: More than this in ``_uneven`` does not come by chance: for 14 people or more, and for their pairs.
UNEVEN_PEOPLE, UNEVEN_PAIRS = 4.5, 3.0


def _judge_chance(sent: Sent, got: Answer) -> str | None:
    masks = got["splits"]
    wrong = _no_split(masks)
    if wrong is not None:
        return wrong
    if (masks == masks[0]).all():
        return "The same pictures in every split: draw by chance, from the generator, and let it run on."
    if not np.array_equal(got["again"], masks[0]):
        return (
            "The same seed gives another split: take chance from the generator that is handed in."
        )
    drawn = np.stack([_by_people(sent["person"], mask) for mask in masks])
    if (drawn.max(0) == 0).any():
        return "Some people are never for testing: everybody should have the same chance."
    if (drawn.min(0) == 1).any():
        return "Some people are always for testing: everybody should have the same chance."
    if _uneven(drawn.sum(0), len(drawn)) > UNEVEN_PEOPLE:
        heavy = np.argsort(np.bincount(np.unique(sent["person"], return_inverse=True)[1]))[-2:]
        if drawn[:, heavy].mean() - drawn.mean() > 0.2:
            return (
                "People with many pictures are drawn more often: everybody should have the same "
                "chance."
            )
        return (
            "Some people are drawn more often than others: everybody should have the same chance."
        )
    pairs = (drawn.T @ drawn)[np.triu_indices(drawn.shape[1], 1)]
    if _uneven(pairs, len(drawn)) > UNEVEN_PAIRS:
        return (
            "The same people come together again and again, as in blocks or in a few sets that do not "
            "change: every set of so many people should have the same chance."
        )
    return None


def _chance_shape(**sent: Any) -> dict[str, tuple[int, ...]]:
    pictures = sent["person"].shape
    return {"splits": (sent["draws"], *pictures), "again": pictures}


def _mask_shape(**sent: Any) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(_splits(sent), sent["person"].shape) | {"boolean": (sent["draws"],)}


def _share_shape(**sent: Any) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(SHARES, sent["person"].shape) | _input_shapes(sent, "person")


def _other_length(sent: Sent, got: Answer, _: Answer) -> bool:
    masks = [array for name, array in got.items() if name != "boolean"]
    return any(array.shape[-1:] != sent["person"].shape for array in masks)


MASK = Mistake("Return one truth value per picture, True for testing.", seen=_other_length)

# Threshold and false alarms -------------------------------------------------------------------------


def _rows(*rows: tuple[np.ndarray, float]) -> dict[str, Any]:
    """Return scores (K, N) and a rate for each row."""
    return {
        "scores": np.stack([scores for scores, _ in rows]).astype(np.float32),
        "rates": np.asarray([rate for _, rate in rows]),
    }


def _spread(rng: np.random.Generator, n: int) -> np.ndarray:
    """Draw ``n`` scores without ties, some way apart."""
    while True:
        scores = rng.uniform(-1, 1) + rng.uniform(0.5, 3) * rng.normal(size=n)
        if np.diff(np.sort(scores)).min() > 1e-4 and scores.std() > 0.3:
            return scores


def _draw_threshold(rng: np.random.Generator) -> dict[str, Any]:
    """Scores without ties; the number allowed is far from a whole one twice, and once it is one."""
    n = 8 * int(rng.integers(4, 9))
    rates: list[float] = []
    while len(rates) < 2:
        rate = round(float(rng.uniform(0.04, 0.2)), 3)
        if rate * n > 1 and rate + 0.05 < rate * n % 1 < 0.8:
            rates.append(rate)
    # An eighth of a multiple of 8 has no rounding in it, however it is computed.
    rates.append(float(rng.choice([0.125, 0.25])))
    return _rows(*((_spread(rng, n), rate) for rate in rates))


def _draw_threshold_ties(rng: np.random.Generator) -> dict[str, Any]:
    """Equal scores of which only some are allowed, lower down and at the top; and a rate below 1/N."""
    n = int(rng.integers(30, 60))
    while True:
        rate = round(float(rng.uniform(0.2, 0.4)), 3)
        scores = rng.integers(-4, 8, size=n) / 4 + float(rng.integers(-3, 4))
        falling, allowed = np.sort(scores)[::-1], int(rate * n)
        if (
            falling[allowed - 1] == falling[allowed]
            and (scores > falling[allowed]).any()
            and 0.2 < rate * n % 1 < 0.8
        ):
            break
    top, allowed = rng.integers(-4, 4, size=n) / 4, int(rng.integers(2, 4))
    top[rng.permutation(n)[: allowed + int(rng.integers(1, 4))]] = 1.5
    return _rows(
        (scores, rate),
        (top, round((allowed + 0.5) / n, 3)),
        (_spread(rng, n), round(float(rng.uniform(0.3, 0.7)) / n, 4)),
    )


def _threshold_shape(**sent: Any) -> dict[str, tuple[int, ...]]:
    return {"thresholds": (len(sent["rates"]),)}


def _judge_thresholds(sent: Sent, got: Answer) -> str | None:
    return _judge_threshold(sent, got) or (CHANGED if _inputs_changed(sent, got) else None)


def _judge_threshold(sent: Sent, got: Answer) -> str | None:
    for scores, rate, t in zip(
        np.asarray(sent["scores"], dtype=np.float64), sent["rates"], got["thresholds"], strict=True
    ):
        wrong = _wrong_threshold(scores, float(rate), float(t))
        if wrong is not None:
            return wrong
    return None


def _wrong_threshold(scores: np.ndarray, rate: float, t: float) -> str | None:
    """Say what is wrong with a threshold for real scores (N,), if anything is."""
    allowed = rate * len(scores)
    counts = [int((scores >= u).sum()) for u in scores]
    best = max([count for count in counts if count <= allowed], default=0)
    alarms, above = int((scores >= t).sum()), int((scores > t).sum())
    if alarms == best:
        return None
    if alarms < best:
        if allowed == best == alarms + 1:
            return (
                "The rate times the number of images is a whole number here, and so many alarms are "
                "allowed: one more than there are at this threshold."
            )
        return "The rate allows more alarms than there are at this threshold."
    ties = len(np.unique(scores)) < len(scores)
    if best == 0 and (alarms > len(scores) / 2 or not ties):
        return (
            "Not one alarm is allowed here: the rate allows fewer than share the highest score. Then "
            "the threshold lies above every score."
        )
    if above == best and not ties:
        return (
            "A score equal to the threshold raises an alarm too: the threshold lies on the first "
            "score that should not."
        )
    if alarms > len(scores) / 2:
        return "Most real images raise an alarm: a high score is suspicious, not a low one."
    if ties:
        return (
            "Equal scores raise an alarm together, and so does a score equal to the threshold: with "
            "them, there are more alarms than the rate allows."
        )
    return (
        "There are more alarms than the rate allows. A quantile between two scores may be on the wrong "
        "side of one: count."
    )


def _not_one_number(sent: Sent, got: Answer, _: Answer) -> bool:
    return got["thresholds"].shape != sent["rates"].shape


def _linear(rng: np.random.Generator, n: int, changes: int) -> dict[str, Any]:
    """Return ``n`` images, an exact linear score, changes, and a threshold that no score reaches."""
    size = int(rng.integers(2, 4))
    images = rng.integers(0, 17, size=(n, size, size)) / 16
    weight = rng.integers(-4, 9, size=size * size)
    start = np.quantile(_scores_of(images, weight), rng.uniform(0.4, 0.7))
    return {
        "images": images.astype(np.float32),
        "weight": weight.astype(np.float32),
        "threshold": float(np.round(start * 16) / 16 + 1 / 128),
        "scale": rng.choice([0.5, 0.75, 1.25, 1.5], size=changes, replace=False).astype(np.float32),
        "shift": (rng.integers(-2, 3, size=changes) / 8).astype(np.float32),
    }


def _draw_alarms(rng: np.random.Generator) -> dict[str, Any]:
    """Shares that tell known mistakes from what is right."""
    n = 2 * int(rng.integers(10, 16)) + 1  # odd: no batch size divides it
    while True:
        sent = _linear(rng, n, 4)
        want = _alarms(**sent)["shares"]
        if len(np.unique(want)) < 3 or want.min() < 0.04 or want.max() > 0.96:
            continue
        others = (_chained, _unchanged, _newly, _changed_verdicts)
        if all(np.abs(want - other(**sent)["shares"]).max() > 0.01 for other in others):
            return sent


def _draw_at_threshold(rng: np.random.Generator) -> dict[str, Any]:
    """Many images and one change, after which some scores are the threshold itself."""
    n = 2 * int(rng.integers(130, 150)) + 1
    while True:
        sent = _linear(rng, n, 1)
        sent["threshold"] = float(rng.choice(_changed(**sent)[0]))
        want = float(_alarms(**sent)["shares"][0])
        if 0.1 < want < 0.9 and abs(want - float(_unchanged(**sent)["shares"][0])) > 0.01:
            return sent


def _scores_of(images: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.asarray(images, dtype=np.float64).reshape(len(images), -1) @ np.asarray(
        weight, dtype=np.float64
    )


def _changed(
    images: np.ndarray,
    weight: np.ndarray,
    threshold: float,
    scale: np.ndarray,
    shift: np.ndarray,
) -> np.ndarray:
    """Return the scores (K, N) after each of the changes."""
    x = np.asarray(images, dtype=np.float64)
    return np.stack(
        [_scores_of(float(a) * x + float(b), weight) for a, b in zip(scale, shift, strict=True)]
    )


def _alarms(**sent: Any) -> Answer:
    return {"shares": (_changed(**sent) >= sent["threshold"]).mean(1)}


def _alarms_and_images(**sent: Any) -> Answer:
    return {**_alarms(**sent), **_with_inputs(sent, "images")}


def _strictly(**sent: Any) -> Answer:
    return {"shares": (_changed(**sent) > sent["threshold"]).mean(1)}


def _spared(**sent: Any) -> Answer:
    return {"shares": (_changed(**sent) < sent["threshold"]).mean(1)}


def _counted(**sent: Any) -> Answer:
    return {"shares": (_changed(**sent) >= sent["threshold"]).sum(1)}


def _per_cent(**sent: Any) -> Answer:
    return {"shares": 100 * _alarms(**sent)["shares"]}


def _unchanged(**sent: Any) -> Answer:
    """Return the share before any change: also what a threshold chosen anew would give."""
    before = _scores_of(sent["images"], sent["weight"]) >= sent["threshold"]
    return {"shares": np.full(len(sent["scale"]), before.mean())}


def _newly(**sent: Any) -> Answer:
    before = _scores_of(sent["images"], sent["weight"]) >= sent["threshold"]
    return {"shares": ((_changed(**sent) >= sent["threshold"]) & ~before).mean(1)}


def _changed_verdicts(**sent: Any) -> Answer:
    before = _scores_of(sent["images"], sent["weight"]) >= sent["threshold"]
    return {"shares": ((_changed(**sent) >= sent["threshold"]) != before).mean(1)}


def _chained(**sent: Any) -> Answer:
    x, shares = np.asarray(sent["images"], dtype=np.float64), []
    for a, b in zip(sent["scale"], sent["shift"], strict=True):
        x = float(a) * x + float(b)
        shares.append((_scores_of(x, sent["weight"]) >= sent["threshold"]).mean())
    return {"shares": np.asarray(shares)}


#: What may go wrong in either check of the alarms.
ALARM_MISTAKES = (
    Mistake("These are counts: divide by the number of images.", _counted),
    Mistake("In per cent; a share between 0 and 1 is asked for.", _per_cent),
    Mistake("That is the share that is spared. An alarm is a score >= the threshold.", _spared),
    Mistake("Only those newly accused are counted: every real image accused counts.", _newly),
    Mistake(
        "These are changed verdicts: the share of images that raise an alarm is asked for.",
        _changed_verdicts,
    ),
)
FIXED = Mistake(
    "The share is the same after every change, as if nothing had been done: score the changed images, "
    "and keep the threshold where it was. A new threshold after each change hides the harm.",
    seen=lambda sent, got, want: bool(np.ptp(got["shares"]) < 1e-6),
)

# Null experiment ------------------------------------------------------------------------------------

TRIALS = 5
#: So many trials show whether the permutations are drawn by chance.
MANY = 60


def _draw_null(rng: np.random.Generator) -> dict[str, Any]:
    # So many images that honest permutations never give the same labels twice, nor the true ones.
    n, m, columns = int(rng.integers(32, 38)), int(rng.integers(8, 13)), int(rng.integers(2, 4))
    fake, tested = int(rng.integers(12, 15)), int(rng.integers(3, 6))
    train = rng.normal(size=(n, columns)) * 0.3
    return {
        "train": train.astype(np.float32),
        "train_labels": rng.permutation(np.repeat([0, 1], [n - fake, fake])).astype(np.int64),
        "test": rng.normal(size=(m, columns)).astype(np.float32),
        "test_labels": rng.permutation(np.repeat([0, 1], [m - tested, tested])).astype(np.int64),
        "trials": TRIALS,
        "seed": int(rng.integers(2**30)),
    }


def _draw_nulls(rng: np.random.Generator) -> dict[str, Any]:
    """Many trials on labels that lie in two runs, of which honest permutations leave no trace."""
    sent = _draw_null(rng)
    labels = np.sort(sent["train_labels"])
    return sent | {"train_labels": np.roll(labels, rng.integers(len(labels))), "trials": MANY}


def _paired(sent: Sent, rows: np.ndarray, labels: np.ndarray) -> np.ndarray | None:
    """Return the label (N,) that each training image got, in the images' own order."""
    train = np.asarray(sent["train"], dtype=np.float64)
    far = np.abs(train[:, None] - rows[None]).max(2)
    place = far.argmin(1)
    if far.min(1).max() > 1e-5 or len(np.unique(place)) < len(train):
        return None
    return labels[place]


def _judge_shuffled(sent: Sent, got: Answer) -> str | None:
    truth = np.asarray(sent["train_labels"], dtype=np.float64)
    found = [
        _paired(sent, rows, labels) for rows, labels in zip(got["rows"], got["labels"], strict=True)
    ]
    paired = [labels for labels in found if labels is not None]
    if len(paired) < len(found):
        return "The training images were changed: fit on all of them, as they are."
    if not all(np.isin(labels, (0, 1)).all() for labels in paired):
        return "Some labels are neither 0 nor 1: shuffle the labels that there are."
    if any(labels.sum() != truth.sum() for labels in paired):
        return (
            "There are other numbers of real and fake than before: permute the labels that there are, "
            "do not draw new ones."
        )
    same = [np.array_equal(labels, truth) for labels in paired]
    if not any(same):
        return _not_by_chance(truth, np.stack(paired))
    if not np.array_equal(got["labels"][int(np.argmax(same))], truth):
        return (
            "Images and labels were shuffled together: each image still has its own label, so nothing "
            "was destroyed."
        )
    return "A detector was fitted to the true training labels: those are what has to be shuffled."


#: This many standard errors from what permutations give is no chance.
FAR = 6.0


def _far(found: np.ndarray, chance: np.ndarray) -> bool:
    """Whether the mean of ``found`` is far from that of ``chance``, of which there is plenty."""
    error = chance.std() * np.sqrt(1 / len(found) + 1 / len(chance))
    return bool(abs(found.mean() - chance.mean()) > FAR * error)


def _not_by_chance(truth: np.ndarray, dealt: np.ndarray) -> str | None:
    """Say why labels (T, N), of trials in their order, are no permutations drawn by chance."""
    permuted = np.random.default_rng(0).permuted(np.tile(truth, (2000, 1)), axis=1)
    by_chance = (permuted == truth).mean(1)
    own = (dealt == truth).mean(1)
    if _far(own, by_chance) and own.mean() > by_chance.mean():
        return "Most images keep their own label: permute all of the labels, not a few of them."
    if (dealt == dealt[0]).all():
        return None  # whether they are new in each trial is asked elsewhere
    if (np.ptp(dealt, axis=0) == 0).any():
        return "Some images get the same label in every trial: permute all of the labels."
    if len(np.unique(dealt, axis=0)) < len(dealt):
        return "Some trials are the same: a new permutation in each of them."

    def beside(labels: np.ndarray) -> np.ndarray:
        return (labels == np.roll(labels, 1, axis=1)).mean(1)

    if (
        _far(own, by_chance)
        or _far(beside(dealt), beside(permuted))
        or _far((dealt[1:] == dealt[:-1]).mean(1), by_chance)
        or _uneven(dealt.sum(0), len(dealt)) > UNEVEN_PAIRS
    ):
        return (
            "The permutations are not drawn by chance: one trial is like another, or labels stay in "
            "their order. Every permutation should have the same chance, in every trial."
        )
    return None


def _judge_new(sent: Sent, got: Answer) -> str | None:
    told = {
        name: np.concatenate(
            [got[f"{name} {key}"].reshape(TRIALS, -1) for key in ("rows", "labels", "asked")],
            axis=1,
        )
        for name in ("first", "again", "other")
    }
    if (told["first"] == told["first"][0]).all():
        return "Every trial is the same: a new permutation in each of them."
    if len(np.unique(told["first"], axis=0)) < TRIALS:
        return "Some trials are the same: a new permutation in each of them."
    if not np.array_equal(told["first"], told["again"]):
        return "The same seed gives other permutations: take chance from the generator."
    if np.array_equal(told["first"], told["other"]):
        return "Another seed gives the same permutations: take chance from the generator."
    return None


def _null_rates(sent: Sent, got: Answer, where: str, asked: np.ndarray) -> np.ndarray:
    """Return the rates of the detectors that were fitted, on images ``where`` with labels ``asked``."""
    x, rates = np.asarray(sent[where], dtype=np.float64), []
    for rows, labels, truth in zip(got["rows"], got["labels"], asked, strict=True):
        scores = x @ (rows.T @ (labels - labels.mean()))
        rates.append((1 / (1 + np.exp((2 * truth - 1) * scores))).mean())
    return np.asarray(rates)


def _judge_measured(sent: Sent, got: Answer) -> str | None:
    if _inputs_changed(sent, got):
        return CHANGED
    truth = np.broadcast_to(np.asarray(sent["test_labels"], dtype=np.float64), got["asked"].shape)
    if not np.isin(got["labels"], (0, 1)).all() or np.ptp(got["labels"], axis=1).min() == 0:
        return "A detector was fitted to something else than labels of both kinds."
    if not np.array_equal(got["asked"], truth):
        return (
            "The test labels were changed: measure with the true ones, only training is shuffled."
        )
    want = _null_rates(sent, got, "test", truth)
    if np.abs(got["rates"] - want).max() < 1e-4:
        return None
    if np.abs(got["rates"] - (1 - want)).max() < 1e-4:
        return "That is one minus the error rate: return what measure says."
    return (
        "The rates are not those that each new detector has on the untouched test images: fit, score "
        "the test features, measure, in every trial."
    )


NULL_INPUTS = ("train", "train_labels", "test", "test_labels")


def _null_shape(
    train: np.ndarray, test: np.ndarray, trials: int, **_: Any
) -> dict[str, tuple[int, ...]]:
    return {
        "rates": (trials,),
        "rows": (trials, *train.shape),
        "labels": (trials, len(train)),
        "asked": (trials, len(test)),
    }


def _fitted_shape(**sent: Any) -> dict[str, tuple[int, ...]]:
    return {
        name: shape for name, shape in _null_shape(**sent).items() if name in ("rows", "labels")
    }


def _again_shape(**sent: Any) -> dict[str, tuple[int, ...]]:
    shapes = _null_shape(**sent)
    return {
        f"{name} {key}": shapes[key]
        for name in ("first", "again", "other")
        for key in ("rows", "labels", "asked")
    }


def _other_fits(sent: Sent, got: Answer, _: Answer) -> bool:
    return any(len(got[name]) != sent["trials"] for name in got if name.endswith("rows"))


def _other_rates(sent: Sent, got: Answer, _: Answer) -> bool:
    return got["rates"].shape != (sent["trials"],)


def _on_training(sent: Sent, got: Answer, _: Answer) -> bool:
    return any(
        got[name].ndim == 2 and got[name].shape[1] == len(sent["train"])
        for name in got
        if name.endswith("asked")
    )


REFIT = Mistake("Fit a new detector in every trial, once.", seen=_other_fits)
ON_TRAINING = Mistake(
    "That is measured on the training images, which says nothing: measure on the test images.",
    seen=_on_training,
)

# Attack ---------------------------------------------------------------------------------------------


def _network(rng: np.random.Generator, x: np.ndarray, eps: float) -> dict[str, Any] | None:
    """Return a detector for these images, or None when some gradient is close to 0."""
    pixels = x[0].size
    sent = {
        "x": x.astype(np.float32),
        "eps": eps,
        "inner": (rng.normal(size=(pixels, 5)) / np.sqrt(pixels)).astype(np.float32),
        "bias": (0.3 * rng.normal(size=5)).astype(np.float32),
        "outer": (0.7 * rng.normal(size=5)).astype(np.float32),
    }
    slope = np.abs(_gradient(**sent))
    clear = slope.min((1, 2)) > 2e-3 * slope.max((1, 2))
    return sent if clear.all() else None


def _gradient(
    x: np.ndarray, eps: float, inner: np.ndarray, bias: np.ndarray, outer: np.ndarray
) -> np.ndarray:
    flat, inner, outer = (np.asarray(a, dtype=np.float64) for a in (x, inner, outer))
    hidden = np.tanh(flat.reshape(len(x), -1) @ inner + bias)
    score = 1 / (1 + np.exp(-hidden @ outer))
    slope = ((1 - hidden**2) * outer) @ inner.T * (score * (1 - score))[:, None]
    return slope.reshape(x.shape)


def _draw_inside(rng: np.random.Generator) -> dict[str, Any]:
    """Images so far from black and white that clipping does nothing."""
    while True:
        n, size = int(rng.integers(2, 5)), int(rng.integers(4, 7))
        x = rng.uniform(0.2, 0.8, size=(n, size, size))
        sent = _network(rng, x, round(float(rng.uniform(0.02, 0.1)), 3))
        if sent is not None:
            return sent


def _draw_border(rng: np.random.Generator) -> dict[str, Any]:
    while True:
        n, size = int(rng.integers(2, 5)), int(rng.integers(4, 7))
        x = rng.uniform(-0.3, 1.3, size=(n, size, size)).clip(0, 1)
        sent = _network(rng, x, round(float(rng.uniform(0.1, 0.2)), 3))
        if sent is not None:
            return sent


def _step(sign: int, sent: Sent) -> np.ndarray:
    moved = np.asarray(sent["x"], dtype=np.float64) + sign * sent["eps"] * np.sign(
        _gradient(**sent)
    )
    return moved.clip(0, 1)


def _attacked(**sent: Any) -> Answer:
    return {"adversarial": _step(-1, sent)}


def _either_way(**sent: Any) -> list[Answer]:
    """Down or up: which of them is right is asked elsewhere."""
    return [{"adversarial": _step(sign, sent)} for sign in (-1, 1)]


def _either_way_and_x(**sent: Any) -> list[Answer]:
    return [{**answer, **_with_inputs(sent, "x")} for answer in _either_way(**sent)]


def _uphill(**sent: Any) -> Answer:
    return {"adversarial": _step(1, sent)}


def _unsigned(sent: Sent, got: Answer, _: Answer) -> bool:
    moved = got["adversarial"] - np.asarray(sent["x"], dtype=np.float64)
    slope = _gradient(**sent)
    return bool(
        np.abs(moved).max() > 0 and np.corrcoef(moved.ravel(), slope.ravel())[0, 1] ** 2 > 0.999
    )


def _only_step(sent: Sent, got: Answer, _: Answer) -> bool:
    moved = got["adversarial"].astype(np.float64)
    return bool(np.allclose(np.abs(moved), sent["eps"], atol=1e-4))


def _unmoved(sent: Sent, got: Answer, _: Answer) -> bool:
    return bool(np.allclose(got["adversarial"], sent["x"], atol=1e-6))


def _leaves(sent: Sent, got: Answer, _: Answer) -> bool:
    return bool(got["adversarial"].min() < -1e-4 or got["adversarial"].max() > 1 + 1e-4)


UNSIGNED = Mistake(
    "The step is proportional to the gradient. Take only its sign, so that every pixel moves by eps.",
    seen=_unsigned,
)
UNMOVED = Mistake("The images came back as they were.", seen=_unmoved)


CHECKS: list[Check] = [
    Check(
        cell="check_radial_spectrum",
        name="spectrum",
        title="radial_spectrum: the form of the spectrum",
        points=4,
        probe="rings",
        draw=_draw_images,
        judge=_judge_rings,
        shapes=_ring_shape,
        mistakes=(
            Mistake(
                "The rings are drawn about the wrong place: fft2 puts frequency 0 in the corner "
                "[0, 0]. Shift the power, or use radii in fft2's own order.",
                seen=_form(_unshifted),
            ),
            Mistake(
                "The radius is measured from the corner as if frequencies ran from 0 to n - 1; the "
                "second half of them is negative.",
                seen=_form(_from_corner),
            ),
            Mistake(
                "The radius was cut off, not rounded to the nearest whole number.",
                seen=_form(_floored),
            ),
            Mistake(
                "The power was summed over each ring; larger rings have more entries, so take the "
                "mean.",
                seen=_form(_summed),
            ),
            Mistake("This is the amplitude; the power is its square.", seen=_form(_of_amplitude)),
            Mistake(
                "This is the mean of the logarithms. Average the power first, then take the logarithm.",
                seen=_form(_mean_of_logs),
            ),
            Mistake("The logarithm is missing.", seen=_form(_no_log)),
            Mistake(
                "This is a logarithm to another base: the natural one is meant.",
                seen=_form(lambda images: _rings(images) / np.log(10)),
            ),
            Mistake(
                "rfft2 returns half of the plane: most of its entries stand for two, and those of its "
                "first and last column for one. The whole plane is easier.",
                seen=_form(_half_plane),
            ),
            Mistake(
                "There are more rings than n/2 + 1: the corners beyond radius n/2 are left out.",
                seen=_corners,
            ),
        ),
    ),
    Check(
        cell="check_radial_spectrum",
        name="spectrum_level",
        title="radial_spectrum: its level",
        points=1,
        probe="rings",
        draw=_draw_images,
        judge=_judge_level,
        shapes=_ring_shape,
    ),
    Check(
        cell="check_radial_spectrum",
        name="spectrum_brightness",
        title="radial_spectrum: brightness does not matter, and the images stay as they are",
        points=1,
        probe="spectrum",
        draw=_draw_brighter,
        judge=_judge_brightness,
        shapes=lambda images: {
            **_ring_shape(images),
            "zero": (len(images),),
            **_input_shapes({"images": images}, "images"),
        },
        mistakes=(
            LEFT,
            Mistake(
                "The logarithm of 0 is minus infinity: the 1e-8 inside it is missing.",
                seen=_log_of_zero,
            ),
        ),
    ),
    Check(
        cell="check_equal_error_rate",
        name="eer",
        title="equal_error_rate: many scores",
        points=2,
        probe="eer",
        draw=_draw_many,
        expect=_eer,
        rtol=0.0,
        atol=0.012,
        mistakes=(
            Mistake(
                "A high score was counted as real: it means fake, and label 1 is fake.", _eer_turned
            ),
            Mistake("In percent; a rate between 0 and 1 is asked for.", _percent),
            Mistake(
                "This is the share of errors at one fixed threshold. The equal error rate looks for the "
                "threshold.",
                _error_at(0.5),
            ),
            Mistake(
                "This is the share of errors at one fixed threshold. The equal error rate looks for the "
                "threshold.",
                _error_at(0.0),
            ),
            Mistake(
                "These are error rates at one fixed threshold. The equal error rate looks for the "
                "threshold.",
                seen=_one_side,
            ),
        ),
    ),
    Check(
        cell="check_equal_error_rate",
        name="eer_between",
        title="equal_error_rate: between two points of the curve",
        points=1,
        probe="eer",
        draw=_draw_few,
        expect=_eer,
        trials=6,
        mistakes=(
            Mistake(
                "That is the nearest point of the curve. With few scores no threshold makes the two "
                "rates equal: draw a straight line between the two neighbours.",
                seen=_eer_nearest,
            ),
        ),
    ),
    Check(
        cell="check_equal_error_rate",
        name="eer_ties",
        title="equal_error_rate: equal scores, and the inputs stay as they are",
        points=1,
        probe="eer",
        draw=_draw_ties,
        expect=_eer_and_inputs,
        trials=6,
        mistakes=(
            LEFT,
            Mistake(
                "Equal scores were passed one by one. No threshold lies between them: the curve has one "
                "point per distinct score.",
                seen=_eer_ties_apart,
            ),
            Mistake(
                "That is the nearest point of the curve: draw a straight line between the two neighbours.",
                seen=_eer_nearest,
            ),
        ),
    ),
    Check(
        cell="check_fit_detector",
        name="detector_ranks",
        title="fit_detector: new fakes score higher than new real ones",
        points=2,
        probe="detect",
        draw=_draw_plain,
        judge=_judge_ranks,
        shapes=_score_shape,
        mistakes=(SCORES,),
        trials=1,
    ),
    Check(
        cell="check_fit_detector",
        name="detector_scales",
        title="fit_detector: columns of very different scales",
        points=2,
        probe="detect",
        draw=_draw_scales,
        judge=_judge_any_way(SCALES),
        shapes=_score_shape,
        mistakes=(SCORES, Mistake(SCALES, seen=_not_finite)),
        trials=1,
    ),
    Check(
        cell="check_fit_detector",
        name="detector_constant",
        title="fit_detector: a column that never changes",
        points=1,
        probe="detect",
        draw=_draw_constant,
        judge=_judge_any_way(CONSTANT),
        shapes=_score_shape,
        mistakes=(SCORES, Mistake(CONSTANT, seen=_not_finite)),
        trials=1,
    ),
    Check(
        cell="check_fit_detector",
        name="detector_alone",
        title="fit_detector: an image's score is its own, and the inputs stay as they are",
        points=1,
        probe="detect_some",
        draw=_draw_some,
        judge=_judge_alone,
        shapes=_alone_shapes,
        mistakes=(SCORES,),
        trials=1,
    ),
    Check(
        cell="check_null_experiment",
        name="null_shuffled",
        title="null_experiment: the training labels are permuted by chance, and nothing else",
        points=1,
        probe="null_labels",
        draw=_draw_nulls,
        judge=_judge_shuffled,
        shapes=_fitted_shape,
        mistakes=(REFIT,),
        trials=1,
    ),
    Check(
        cell="check_null_experiment",
        name="null_new",
        title="null_experiment: anew in each trial, from the generator",
        points=1,
        probe="null_again",
        draw=_draw_null,
        judge=_judge_new,
        shapes=_again_shape,
        mistakes=(REFIT, ON_TRAINING),
        trials=1,
    ),
    Check(
        cell="check_null_experiment",
        name="null_measured",
        title="null_experiment: measured on the test images, and the inputs stay as they are",
        points=1,
        probe="null",
        draw=_draw_null,
        judge=_judge_measured,
        shapes=lambda **sent: _null_shape(**sent) | _input_shapes(sent, *NULL_INPUTS),
        mistakes=(
            REFIT,
            ON_TRAINING,
            Mistake("Return one rate for each trial, all of them.", seen=_other_rates),
        ),
        trials=2,
    ),
    Check(
        cell="check_split_people",
        name="split_apart",
        title="split_people: truth values, and nobody is on both sides",
        points=2,
        probe="split",
        draw=_draw_album,
        judge=_judge_apart,
        shapes=_mask_shape,
        mistakes=(MASK,),
        trials=2,
    ),
    Check(
        cell="check_split_people",
        name="split_share",
        title="split_people: a share of the people, whatever their ids, which stay as they are",
        points=1,
        probe="split_twice",
        draw=_draw_shares,
        judge=_judge_share,
        shapes=_share_shape,
        mistakes=(MASK,),
    ),
    Check(
        cell="check_split_people",
        name="split_chance",
        title="split_people: by chance, with the same chance for everybody",
        points=1,
        probe="split_again",
        draw=_draw_often,
        judge=_judge_chance,
        shapes=_chance_shape,
        mistakes=(MASK,),
        trials=1,
    ),
    Check(
        cell="check_threshold_at",
        name="threshold",
        title="threshold_at: as many alarms as the rate allows, and the scores stay as they are",
        points=1,
        probe="threshold",
        draw=_draw_threshold,
        judge=_judge_thresholds,
        shapes=lambda **sent: _threshold_shape(**sent) | _input_shapes(sent, "scores"),
        mistakes=(Mistake("Return one number, the threshold.", seen=_not_one_number),),
    ),
    Check(
        cell="check_threshold_at",
        name="threshold_ties",
        title="threshold_at: equal scores, and a rate that allows no alarm",
        points=1,
        probe="threshold",
        draw=_draw_threshold_ties,
        judge=_judge_threshold,
        shapes=_threshold_shape,
        mistakes=(Mistake("Return one number, the threshold.", seen=_not_one_number),),
    ),
    Check(
        cell="check_false_alarms",
        name="alarms",
        title="false_alarms: each change, the threshold kept",
        points=2,
        probe="alarms",
        draw=_draw_alarms,
        expect=_alarms,
        mistakes=(
            FIXED,
            Mistake(
                "The changes were made one after the other: make each to the original images.",
                _chained,
            ),
            *ALARM_MISTAKES,
        ),
    ),
    Check(
        cell="check_false_alarms",
        name="alarms_at",
        title="false_alarms: a score at the threshold, and the images stay as they are",
        points=1,
        probe="alarms",
        draw=_draw_at_threshold,
        expect=_alarms_and_images,
        mistakes=(
            LEFT,
            Mistake("A score equal to the threshold raises an alarm too.", _strictly),
            Mistake(
                "That is the share before the change: score the changed images, and keep the "
                "threshold where it was.",
                _unchanged,
            ),
            *ALARM_MISTAKES,
        ),
    ),
    Check(
        cell="check_attack_detector",
        name="attack",
        title="attack_detector: a step towards real",
        points=2,
        probe="attack_only",
        draw=_draw_inside,
        expect=_attacked,
        mistakes=(
            UNMOVED,
            Mistake(
                "Every pixel moves the wrong way: the score should fall, for high means fake.",
                _uphill,
            ),
            UNSIGNED,
            Mistake("That is the step alone: add it to the images.", seen=_only_step),
        ),
    ),
    Check(
        cell="check_attack_detector",
        name="attack_range",
        title="attack_detector: the result is an image",
        points=1,
        probe="attack_only",
        draw=_draw_border,
        expect=_either_way,
        mistakes=(
            UNMOVED,
            Mistake("Some pixels leave [0, 1]: an image cannot.", seen=_leaves),
            Mistake(
                "Not every pixel moves by eps where it has room to: take the gradient's sign, and clip "
                "last.",
                seen=lambda sent, got, want: got["adversarial"].shape == sent["x"].shape,
            ),
        ),
    ),
    Check(
        cell="check_attack_detector",
        name="attack_leaves_x",
        title="attack_detector: the images handed in stay as they are",
        points=1,
        probe="attack",
        draw=_draw_inside,
        expect=_either_way_and_x,
        mistakes=(
            LEFT,
            UNMOVED,
            UNSIGNED,
        ),
    ),
]
