"""Hidden checks of the assignment on PCA and the linear autoencoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from course_lib.grading.checks import Answer, Check, Mistake, Sent

# Fit ------------------------------------------------------------------------------------------------


def _numbers(got: Answer) -> dict[str, np.ndarray]:
    """Return what came back in float64, whatever kind of numbers or truth values it is."""
    return {name: np.asarray(values).astype(np.float64) for name, values in got.items()}


def _orthonormal(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return np.linalg.qr(rng.normal(size=(columns, rows)))[0].T


def _cloud(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Return rows with a large mean and variances that are well apart, in directions at random."""
    r = min(n - 1, d)
    scores = rng.normal(size=(n, r))
    scores = np.linalg.qr(scores - scores.mean(0))[0] * np.sqrt(n)
    spread = 3.0 * rng.uniform(0.55, 0.7) ** np.arange(r)
    mean = rng.uniform(3, 6, size=d) * rng.choice([-1, 1], size=d)
    return (mean + (scores * spread) @ _orthonormal(rng, r, d)).astype(np.float32)


def _tall(rng: np.random.Generator) -> dict[str, Any]:
    d = int(rng.integers(6, 9))
    return {"x": _cloud(rng, int(rng.integers(25, 40)), d), "k": int(rng.integers(2, 5))}


def _wide(rng: np.random.Generator) -> dict[str, Any]:
    return {"x": _cloud(rng, int(rng.integers(7, 10)), int(rng.integers(20, 30))), "k": 3}


def _directions(x: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first k right singular vectors of ``x`` and all its squared singular values."""
    _, s, v = np.linalg.svd(x, full_matrices=False)
    return v[:k], s**2


def _centred(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, dtype=np.float64)
    return x - x.mean(0)


def _parallel(got: np.ndarray, want: np.ndarray) -> bool:
    """Whether the rows are those wanted, up to sign."""
    got = got.astype(np.float64)
    if got.shape != want.shape:
        return False
    signs = np.sign((got * want).sum(1, keepdims=True))
    return np.allclose(got * signs, want, atol=3e-3)


def _judge_components(sent: Sent, got: Answer) -> str | None:
    want, _ = _directions(_centred(sent["x"]), sent["k"])
    return None if _parallel(got["components"], want) else "These are not PCA's directions."


def _components_shape(x: np.ndarray, k: int) -> dict[str, tuple[int, ...]]:
    return {"components": (k, x.shape[1])}


def _as_columns(sent: Sent, got: Answer, _: Answer) -> bool:
    return got["components"].shape == (sent["x"].shape[1], sent["k"])


def _from_u(sent: Sent, got: Answer, _: Answer) -> bool:
    n, k = len(sent["x"]), sent["k"]
    return got["components"].shape in ((k, n), (n, k))


def _uncentred(sent: Sent, got: Answer, _: Answer) -> bool:
    want, _ = _directions(np.asarray(sent["x"], dtype=np.float64), sent["k"])
    return _parallel(got["components"], want)


def _wrong_end(sent: Sent, got: Answer, _: Answer) -> bool:
    v, _ = _directions(_centred(sent["x"]), len(sent["x"]))
    k = sent["k"]
    return any(_parallel(got["components"], rows) for rows in (v[:k][::-1], v[-k:], v[-k:][::-1]))


def _null_end(sent: Sent, got: Answer, _: Answer) -> bool:
    """Directions of no variance at all: the first of ``eigh`` when there are fewer rows than columns."""
    rows = got["components"].astype(np.float64)
    flat = np.abs(_centred(sent["x"]) @ rows.T).max() < 1e-3
    return bool(flat and np.allclose(rows @ rows.T, np.eye(len(rows)), atol=1e-3))


def _standardised(sent: Sent, got: Answer, _: Answer) -> bool:
    x = _centred(sent["x"])
    return _parallel(got["components"], _directions(x / x.std(0), sent["k"])[0])


def _scaled(sent: Sent, got: Answer, _: Answer) -> bool:
    rows = got["components"].astype(np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    want, _ = _directions(_centred(sent["x"]), sent["k"])
    return _parallel(rows / length, want)


COMPONENTS = (
    Mistake(
        "These are directions before centring: the mean was not subtracted first.", seen=_uncentred
    ),
    Mistake(
        "components should be (k, D), one direction per row; yours has one per column.",
        seen=_as_columns,
    ),
    Mistake(
        "components has as many numbers per direction as there are rows in x: U was taken for V.",
        seen=_from_u,
    ),
    Mistake(
        "The order is not that of falling variance: eigh, for one, gives the smallest first.",
        seen=_wrong_end,
    ),
    Mistake(
        "Along these directions the data do not vary at all: the wrong end of the list was kept.",
        seen=_null_end,
    ),
    Mistake(
        "These are the directions of columns divided by their standard deviation. PCA as it is "
        "defined here only subtracts the mean.",
        seen=_standardised,
    ),
    Mistake("The directions are right, but the rows of components need length 1.", seen=_scaled),
)


def _mean(x: np.ndarray, k: int) -> Answer:
    return {"mean": np.asarray(x, dtype=np.float64).mean(0)}


def _ratio(x: np.ndarray, k: int) -> Answer:
    _, squares = _directions(_centred(x), k)
    return {"ratio": (squares / squares.sum())[:k]}


def _ratio_of_roots(x: np.ndarray, k: int) -> Answer:
    s = np.sqrt(_directions(_centred(x), k)[1])
    return {"ratio": (s / s.sum())[:k]}


def _ratio_of_kept(x: np.ndarray, k: int) -> Answer:
    squares = _directions(_centred(x), k)[1][:k]
    return {"ratio": squares / squares.sum()}


def _ratio_of_raw(x: np.ndarray, k: int) -> Answer:
    squares = _directions(np.asarray(x, dtype=np.float64), k)[1]
    return {"ratio": (squares / squares.sum())[:k]}


def _ratio_rising(x: np.ndarray, k: int) -> Answer:
    squares = _directions(_centred(x), k)[1]
    return {"ratio": np.sort(squares / squares.sum())[:k]}


def _ratio_standardised(x: np.ndarray, k: int) -> Answer:
    x = _centred(x)
    squares = _directions(x / x.std(0), k)[1]
    return {"ratio": (squares / squares.sum())[:k]}


def _variances(sent: Sent, got: Answer, _: Answer) -> bool:
    squares = _directions(_centred(sent["x"]), sent["k"])[1][: sent["k"]]
    n = len(sent["x"])
    return any(np.allclose(got["ratio"], squares / by, rtol=1e-3) for by in (1, n, n - 1))


def _mixed_variances(sent: Sent, got: Answer, want: Answer) -> bool:
    n = len(sent["x"])
    by = (n / (n - 1), (n - 1) / n)
    return any(np.allclose(got["ratio"], want["ratio"] * f, rtol=1e-3) for f in by)


# Transform and inverse ------------------------------------------------------------------------------


def _draw_transform(rng: np.random.Generator) -> dict[str, Any]:
    d, k = int(rng.integers(6, 10)), int(rng.integers(2, 5))
    mean = rng.uniform(1, 3, size=d) * rng.choice([-1, 1], size=d)
    x = mean + rng.normal(size=d) + rng.normal(size=(int(rng.integers(11, 15)), d))
    components = _orthonormal(rng, k, d)
    return {
        "x": x.astype(np.float32),
        "mean": mean.astype(np.float32),
        "components": components.astype(np.float32),
    }


def _codes(x: np.ndarray, mean: np.ndarray, components: np.ndarray) -> Answer:
    x, mean, components = (np.asarray(a, dtype=np.float64) for a in (x, mean, components))
    return {"codes": (x - mean) @ components.T}


def _codes_from_origin(x: np.ndarray, mean: np.ndarray, components: np.ndarray) -> Answer:
    return _codes(x, 0 * mean, components)


def _codes_from_own_mean(x: np.ndarray, mean: np.ndarray, components: np.ndarray) -> Answer:
    return _codes(x, x.mean(0), components)


def _codes_transposed(x: np.ndarray, mean: np.ndarray, components: np.ndarray) -> Answer:
    return {"codes": _codes(x, mean, components)["codes"].T}


def _draw_inverse(rng: np.random.Generator) -> dict[str, Any]:
    sent = _draw_transform(rng)
    del sent["x"]
    n, k = int(rng.integers(11, 15)), len(sent["components"])
    return {"codes": (2 * rng.normal(size=(n, k)) + 1).astype(np.float32), **sent}


def _rows(codes: np.ndarray, mean: np.ndarray, components: np.ndarray) -> Answer:
    codes, mean, components = (np.asarray(a, dtype=np.float64) for a in (codes, mean, components))
    return {"rows": mean + codes @ components}


def _rows_from_origin(codes: np.ndarray, mean: np.ndarray, components: np.ndarray) -> Answer:
    return _rows(codes, 0 * mean, components)


def _rows_clipped(codes: np.ndarray, mean: np.ndarray, components: np.ndarray) -> Answer:
    return {"rows": _rows(codes, mean, components)["rows"].clip(0, 1)}


def _rows_minus_mean(codes: np.ndarray, mean: np.ndarray, components: np.ndarray) -> Answer:
    return _rows(codes, -mean, components)


def _rows_of_unit_codes(sent: Sent, got: Answer, _: Answer) -> bool:
    """Whether the codes were rescaled, each by a factor of its own, on the way back."""
    mean = np.asarray(sent["mean"], dtype=np.float64)
    codes = (got["rows"] - mean) @ np.asarray(sent["components"], dtype=np.float64).T
    flat = np.allclose(mean + codes @ sent["components"], got["rows"], atol=1e-3)
    factor = codes / sent["codes"]
    return bool(flat and np.allclose(factor, factor[:1], rtol=1e-2))


# Autoencoder ----------------------------------------------------------------------------------------


def _draw_model(rng: np.random.Generator) -> dict[str, Any]:
    d, k = int(rng.integers(6, 9)), int(rng.integers(2, 4))
    x = rng.normal(size=(int(rng.integers(9, 13)), d)).astype(np.float32)
    return {"x": x, "k": k, "seed": int(rng.integers(2**31))}


def _model_shapes(x: np.ndarray, k: int, seed: int) -> dict[str, tuple[int, ...]]:
    return {"codes": (len(x), k), "unfolded": x.shape, "forward": x.shape}


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.abs(a - b).max() <= 1e-3 * max(1.0, float(np.abs(b).max())))


def _judge_codes(sent: Sent, got: Answer) -> str | None:
    got = _numbers(got)
    if np.ptp(got["codes"], axis=0).max() < 1e-4:
        return "The codes are the same for every row: they must depend on x."
    if np.ptp(got["unfolded"], axis=0).max() < 1e-4:
        return "What decode returns does not depend on the codes."
    if not _close(got["forward"], got["unfolded"]):
        return "forward(x) is not decode(encode(x))."
    return None


def _draw_mixed(rng: np.random.Generator) -> dict[str, Any]:
    """Rows at random, and below them combinations of those whose weights sum to 1."""
    sent = _draw_model(rng)
    n = len(sent["x"])
    mix = rng.normal(size=(8, n))
    mix += (1 - mix.sum(1, keepdims=True)) / n
    below = mix @ sent["x"].astype(np.float64)
    return sent | {"x": np.concatenate([sent["x"], below]).astype(np.float32), "mix": mix}


def _judge_linear(sent: Sent, got: Answer) -> str | None:
    mix, whole = sent["mix"], _numbers(got)["forward"]
    n, k = mix.shape[1], sent["k"]
    s = np.linalg.svd(whole[:n] - whole[:n].mean(0), compute_uv=False)
    if s[0] < 1e-4:
        return "The result is the same for every row."
    if np.abs(whole[n:] - mix @ whole[:n]).max() > 2e-3 * max(1.0, np.abs(whole).max()):
        return (
            "A straight line of inputs does not give a straight line of outputs: is there an "
            "activation, or a normalisation over the batch?"
        )
    if s[k] > 1e-3 * s[0]:
        return "The results vary along more than n_codes directions: something passes by the codes."
    if s[k - 1] < 1e-4 * s[0]:
        return "The results vary along fewer than n_codes directions."
    return None


#: Points on one line, in order, and how many lines.
ON_LINE, LINES = 5, 3


def _lines(rng: np.random.Generator, columns: int) -> np.ndarray:
    """Return rows (LINES * ON_LINE, columns): walks along straight lines, one after the other."""
    start, way = rng.normal(size=(2, LINES, 1, columns))
    walked = np.sort(rng.uniform(-1, 1, size=(LINES, ON_LINE, 1)), axis=1)
    return (start + walked * way).reshape(-1, columns).astype(np.float32)


def _draw_lines(rng: np.random.Generator) -> dict[str, Any]:
    d, k = int(rng.integers(6, 9)), int(rng.integers(2, 4))
    return {"x": _lines(rng, d), "c": _lines(rng, k), "k": k, "seed": int(rng.integers(2**31))}


def _zero_shapes(x: np.ndarray, c: np.ndarray, k: int, seed: int) -> dict[str, tuple[int, ...]]:
    codes, rows = (4, len(x), k), (4, *x.shape)
    return {"codes": codes, "codes_of_zero": codes, "rows": rows, "rows_of_zero": rows}


def _one_way(values: np.ndarray) -> bool:
    """Whether no number turns back along a line: so in linear maps, even with an activation behind.

    An activation is judged apart; here it must not hide that there is a map with a bias.
    """
    steps = np.diff(values.reshape(len(values), LINES, ON_LINE, -1), axis=2)
    little = 1e-4 * max(1.0, float(np.abs(values).max()))
    return bool(((steps > -little).all(2) | (steps < little).all(2)).all())


def _judge_bias(sent: Sent, got: Answer) -> str | None:
    got = _numbers(got)
    if np.abs(got["codes"] - got["codes_of_zero"]).max() < 1e-4:
        return "encode does not depend on x."
    if np.abs(got["rows"] - got["rows_of_zero"]).max() < 1e-4:
        return "decode does not depend on the codes."
    maps = (
        ("encode", got["codes"], got["codes_of_zero"]),
        ("decode", got["rows"], got["rows_of_zero"]),
    )
    lacking = [name for name, _, of_zero in maps if np.abs(of_zero).max() < 1e-6]
    if lacking:
        return f"{' and '.join(lacking)} sends zeros to zeros: the map needs a bias."
    for name, values, of_zero in maps:
        if np.ptp(of_zero, axis=1).max() > 1e-4 or not _one_way(values):
            return f"{name} is not a linear map and a bias."
        if np.ptp(of_zero, axis=0).max() < 1e-6:
            return f"{name} adds the same whatever the parameters are: the bias must be learned."
    return None


def _draw_training(rng: np.random.Generator) -> dict[str, Any]:
    d, k, n = 6, int(rng.integers(1, 3)), 30
    scores = rng.normal(size=(n, d))
    scores = np.linalg.qr(scores - scores.mean(0))[0] * np.sqrt(n)
    spread = np.array([2.0, 1.4, 0.5, 0.4, 0.3, 0.2])
    x = (scores * spread) @ _orthonormal(rng, d, d)
    # Strangers vary along other directions: what was learned is applied to them, not learned anew.
    others = (rng.normal(size=(8, d)) * spread) @ _orthonormal(rng, d, d)
    return {"x": x.astype(np.float32), "others": others.astype(np.float32), "k": k}


def _judge_training(sent: Sent, got: Answer) -> str | None:
    got = _numbers(got)
    x, others = (np.asarray(sent[name], dtype=np.float64) for name in ("x", "others"))
    v, squares = _directions(_centred(x), len(x))
    v = v[: sent["k"]]
    best = squares[sent["k"] :].sum() / len(x)
    before, after = (((got[name] - x) ** 2).sum(1).mean() for name in ("before", "after"))
    if after < 0.98 * best:
        return (
            "It returns x better than any linear map through n_codes numbers can: something passes "
            "by the codes."
        )
    if after <= 1.03 * best:
        if before <= 1.06 * best:
            return (
                "Its error is PCA's before any training: the weights should start at random, and "
                "learn."
            )
        mean = x.mean(0)
        want = mean + (others - mean) @ v.T @ v
        if np.linalg.norm(got["others"] - want) > 0.3 * np.linalg.norm(want):
            return (
                "What it learned from the rows it was trained on does not carry over to other rows: "
                "does forward use weights alone?"
            )
        return None
    if np.allclose(got["before"], got["after"], atol=1e-6):
        return (
            "Training changes nothing: are the weights parameters of the module, and do gradients "
            "reach them?"
        )
    return (
        "Trained, its squared error stays well above PCA's with as many numbers; that of a linear "
        "autoencoder comes down to it."
    )


# Angle ----------------------------------------------------------------------------------------------


def _pair(rng: np.random.Generator, k: int, d: int, angles: np.ndarray) -> np.ndarray:
    """Return bases (2, k, d), orthonormal rows, of two subspaces with these principal angles."""
    frame = _orthonormal(rng, 2 * k, d)
    a = frame[:k]
    b = np.cos(angles)[:, None] * a + np.sin(angles)[:, None] * frame[k:]
    return np.stack([_orthonormal(rng, k, k) @ a, _orthonormal(rng, k, k) @ b])


def _mixed(rng: np.random.Generator, rows: np.ndarray) -> np.ndarray:
    """Return another basis of the same subspace, neither orthogonal nor of unit length."""
    k = len(rows)
    stretch = rng.uniform(0.4, 0.6) * 3.0 ** np.arange(k)
    return (_orthonormal(rng, k, k) * stretch) @ _orthonormal(rng, k, k) @ rows


def _packed(pairs: list[np.ndarray]) -> dict[str, Any]:
    """Stack pairs of different k; ``count`` says how many rows of each are in use."""
    width, d = max(p.shape[1] for p in pairs), pairs[0].shape[2]
    packed = np.zeros((2, len(pairs), width, d), dtype=np.float32)
    for i, pair in enumerate(pairs):
        packed[:, i, : pair.shape[1]] = pair
    count = np.array([p.shape[1] for p in pairs], dtype=np.int64)
    return {"a": packed[0], "b": packed[1], "count": count}


def _some_pairs(rng: np.random.Generator) -> list[np.ndarray]:
    d = int(rng.integers(7, 10))
    pairs = []
    for k in (2, 3, 2):
        angles = np.sort(rng.uniform(0.1, 0.5, size=k))
        angles[-1] = rng.uniform(0.7, 1.2)
        pairs.append(_pair(rng, k, d, angles))
    return pairs


def _draw_orthonormal(rng: np.random.Generator) -> dict[str, Any]:
    return _packed(_some_pairs(rng))


def _draw_bases(rng: np.random.Generator) -> dict[str, Any]:
    return _packed([np.stack([_mixed(rng, rows) for rows in pair]) for pair in _some_pairs(rng)])


def _cosines(
    a: np.ndarray, b: np.ndarray, count: np.ndarray, raw: bool = False
) -> list[np.ndarray]:
    found = []
    for rows_a, rows_b, k in zip(a, b, count, strict=True):
        q_a, q_b = (np.asarray(m[:k], dtype=np.float64).T for m in (rows_a, rows_b))
        if not raw:
            q_a, q_b = np.linalg.qr(q_a)[0], np.linalg.qr(q_b)[0]
        found.append(np.linalg.svd(q_a.T @ q_b, compute_uv=False))
    return found


def _angle(a: np.ndarray, b: np.ndarray, count: np.ndarray) -> Answer:
    return {"angle": np.array([np.arccos(c.min()) for c in _cosines(a, b, count)])}


def _angle_smallest(a: np.ndarray, b: np.ndarray, count: np.ndarray) -> Answer:
    return {"angle": np.array([np.arccos(min(c.max(), 1)) for c in _cosines(a, b, count)])}


def _angle_degrees(a: np.ndarray, b: np.ndarray, count: np.ndarray) -> Answer:
    return {"angle": np.rad2deg(_angle(a, b, count)["angle"])}


def _angle_cosine(a: np.ndarray, b: np.ndarray, count: np.ndarray) -> Answer:
    return {"angle": np.array([c.min() for c in _cosines(a, b, count)])}


def _angle_sine(a: np.ndarray, b: np.ndarray, count: np.ndarray) -> Answer:
    return {"angle": np.sin(_angle(a, b, count)["angle"])}


def _angle_raw(a: np.ndarray, b: np.ndarray, count: np.ndarray) -> Answer:
    raw = _cosines(a, b, count, raw=True)
    return {"angle": np.array([np.arccos(min(c.min(), 1.0)) for c in raw])}


def _angle_normalised(a: np.ndarray, b: np.ndarray, count: np.ndarray) -> Answer:
    a, b = (m / np.maximum(np.linalg.norm(m, axis=2, keepdims=True), 1e-9) for m in (a, b))
    return _angle_raw(a, b, count)


def _of_columns(sent: Sent, got: Answer, _: Answer) -> bool:
    """k by k orthonormal bases of the columns span everything: all cosines are 1."""
    return bool(np.abs(got["angle"]).max() < 0.01) or not np.isfinite(got["angle"]).all()


def _all_angles(sent: Sent, got: Answer, _: Answer) -> bool:
    return got["angle"].ndim > 1


ORTHONORMAL = (
    "The angle depends on which basis was given: the rows are not orthonormal, so make an "
    "orthonormal basis first (lengths alone are not enough)."
)
ANGLES = (
    Mistake("This is the smallest principal angle: two planes may share a line.", _angle_smallest),
    Mistake("This is the angle in degrees: radians are asked for.", _angle_degrees),
    Mistake("This is the cosine: its arc is missing.", _angle_cosine),
    Mistake("This is the sine of the angle, not the angle.", _angle_sine),
    Mistake(ORTHONORMAL, _angle_raw),
    Mistake(ORTHONORMAL, _angle_normalised),
    Mistake(
        "0 or NaN for different subspaces: the *rows* span them. A QR decomposition works on columns.",
        seen=_of_columns,
    ),
    Mistake("Return one number for a pair, the largest angle.", seen=_all_angles),
)


def _draw_same(rng: np.random.Generator) -> dict[str, Any]:
    """Pairs of bases of one and the same subspace, and lines and planes that are well apart, mixed."""
    d = int(rng.integers(5, 8))
    pairs = []
    for i in range(20):
        rows = _orthonormal(rng, 1 + (i % 4 == 3), d)
        pairs.append(np.stack([_mixed(rng, rows), _mixed(rng, rows)]))
    for k in (1, 1, 1, 2, 2, 2):
        pairs.append(_pair(rng, k, d, rng.uniform(0.6, 1.0, size=k)))
    return _packed([pairs[i] for i in rng.permutation(len(pairs))])


def _same_shapes(a: np.ndarray, b: np.ndarray, count: np.ndarray) -> dict[str, tuple[int, ...]]:
    return {"angle": (len(a),)}


def _judge_same(sent: Sent, got: Answer) -> str | None:
    # Relative to the angles of the pairs that differ, so that degrees are not counted twice.
    angles = np.abs(_numbers(got)["angle"])
    differ = _angle(**sent)["angle"] > 0.1
    same, apart = angles[~differ], angles[differ]
    lines, planes = (angles[differ & (sent["count"] == k)] for k in (1, 2))
    for name, found in (("lines", lines), ("planes", planes)):
        if min(found.min(), np.ptp(found)) < 1e-3:
            return f"The same answer for {name} that differ."
    if same.max() > 0.03 * apart.min():
        return "The angle between two bases of one and the same subspace is not 0."
    return None


def _no_number(sent: Sent, got: Answer, _: Answer) -> bool:
    return got["angle"].shape == sent["count"].shape and not np.isfinite(got["angle"]).all()


CHECKS: list[Check] = [
    Check(
        cell="check_pca_fit",
        name="fit_mean",
        title="pca_fit: the mean",
        points=1,
        probe="fit_mean",
        draw=_tall,
        expect=_mean,
    ),
    Check(
        cell="check_pca_fit",
        name="fit_components",
        title="pca_fit: the directions",
        points=3,
        probe="fit_components",
        draw=_tall,
        judge=_judge_components,
        shapes=_components_shape,
        mistakes=COMPONENTS,
    ),
    Check(
        cell="check_pca_fit",
        name="fit_wide",
        title="pca_fit: the directions, with more columns than rows",
        points=1,
        probe="fit_components",
        draw=_wide,
        judge=_judge_components,
        shapes=_components_shape,
        mistakes=COMPONENTS,
    ),
    Check(
        cell="check_pca_fit",
        name="fit_ratio",
        title="pca_fit: the explained variance ratio",
        points=2,
        probe="fit_ratio",
        draw=_tall,
        expect=_ratio,
        mistakes=(
            Mistake(
                "These are shares of the singular values: variances are their squares.",
                _ratio_of_roots,
            ),
            Mistake(
                "These are shares of what is kept; the shares of all the variance are asked for.",
                _ratio_of_kept,
            ),
            Mistake(
                "The mean was not subtracted first: these are shares of the raw squares.",
                _ratio_of_raw,
            ),
            Mistake("The smallest shares came first: falling order is asked for.", _ratio_rising),
            Mistake(
                "These are shares after division by each column's standard deviation. PCA as it is "
                "defined here only subtracts the mean.",
                _ratio_standardised,
            ),
            Mistake(
                "These are variances: divide by the variance of all the data.", seen=_variances
            ),
            Mistake(
                "Nearly: one variance was divided by N and the other by N - 1.",
                seen=_mixed_variances,
            ),
        ),
    ),
    Check(
        cell="check_pca_transform",
        name="transform",
        title="pca_transform: the codes of rows that were not fitted",
        points=2,
        probe="transform",
        draw=_draw_transform,
        expect=_codes,
        atol=1e-4,
        mistakes=(
            Mistake("The mean was not subtracted.", _codes_from_origin),
            Mistake(
                "The mean of the rows to be transformed was subtracted, not the fitted mean that "
                "was handed in: strangers are measured from the same point.",
                _codes_from_own_mean,
            ),
            Mistake(
                "One row of codes per row of x: yours is turned on its side.", _codes_transposed
            ),
        ),
    ),
    Check(
        cell="check_pca_inverse",
        name="inverse",
        title="pca_inverse: from codes to rows",
        points=2,
        probe="inverse",
        draw=_draw_inverse,
        expect=_rows,
        atol=1e-4,
        mistakes=(
            Mistake("The mean was not added back.", _rows_from_origin),
            Mistake("The mean was subtracted where it should be added.", _rows_minus_mean),
            Mistake(
                "The rows were clipped: what a code stands for may leave [0, 1].", _rows_clipped
            ),
            Mistake(
                "The codes were rescaled on the way back: a unit of code is a unit of length along "
                "a direction.",
                seen=_rows_of_unit_codes,
            ),
        ),
    ),
    Check(
        cell="check_LinearAutoencoder",
        name="ae_codes",
        title="LinearAutoencoder: encode, decode and forward fit together",
        points=1,
        probe="autoencode",
        draw=_draw_model,
        judge=_judge_codes,
        shapes=_model_shapes,
        trials=2,
    ),
    Check(
        cell="check_LinearAutoencoder",
        name="ae_linear",
        title="LinearAutoencoder: linear, through n_codes numbers",
        points=1,
        probe="whole",
        draw=_draw_mixed,
        judge=_judge_linear,
        shapes=lambda x, k, seed, mix: {"forward": x.shape},
        trials=2,
    ),
    Check(
        cell="check_LinearAutoencoder",
        name="ae_bias",
        title="LinearAutoencoder: both maps have a bias",
        points=1,
        probe="at_zero",
        draw=_draw_lines,
        judge=_judge_bias,
        shapes=_zero_shapes,
        trials=2,
    ),
    Check(
        cell="check_LinearAutoencoder",
        name="ae_learns",
        title="LinearAutoencoder: trained, it comes down to PCA's error",
        points=2,
        probe="train",
        draw=_draw_training,
        judge=_judge_training,
        shapes=lambda x, others, k: {
            "before": x.shape,
            "after": x.shape,
            "others": others.shape,
        },
        trials=1,
    ),
    Check(
        cell="check_subspace_angle",
        name="angle",
        title="subspace_angle: the largest angle, orthonormal rows",
        points=2,
        probe="angles",
        draw=_draw_orthonormal,
        expect=_angle,
        mistakes=ANGLES,
        trials=2,
        atol=1e-4,
    ),
    Check(
        cell="check_subspace_angle",
        name="angle_bases",
        title="subspace_angle: any basis of the same subspace",
        points=1,
        probe="angles",
        draw=_draw_bases,
        expect=_angle,
        mistakes=ANGLES,
        trials=2,
        atol=1e-4,
    ),
    Check(
        cell="check_subspace_angle",
        name="angle_same",
        title="subspace_angle: 0, and a number, for one and the same subspace",
        points=1,
        probe="angles",
        draw=_draw_same,
        judge=_judge_same,
        shapes=_same_shapes,
        mistakes=(
            Mistake(
                "NaN for two bases of one subspace: rounding made a cosine larger than 1.",
                seen=_no_number,
            ),
        ),
        trials=1,
    ),
]
