# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Catch a fake
#
# Many generators end in the same step: they enlarge a smaller picture. So do bad face swaps, which paste
# a small face into a large frame. The eye hardly sees it. But enlarging invents no fine detail, and
# **what is missing can be measured**.
#
# In this notebook you build a detector out of that one idea, you measure how good it is, and then you do
# what most papers leave to others: you make sure that the number means something, you find out where the
# detector accuses the innocent, whom it does not catch, and how little it takes to fool it.
#
# What you write: first a detector and its error (`radial_spectrum`, `equal_error_rate`, `fit_detector`),
# then the protocol, which counts as much (`null_experiment`, `split_people`, `threshold_at`,
# `false_alarms`), and last an attack (`attack_detector`). The background is in three chapters of the book:
# *A first detector* for most of it, *Fingerprints in frequency* for step 1, *A small step in a bad direction*
# for step 8. After each answer there is a check to run. It finds the commonest mistakes; when you hand in,
# further checks run with other inputs.
#
# One rule holds for all that you write: what a function is handed stays as it is, for the caller still
# needs it. Return something new. (`x -= 1` changes the caller's tensor, and so does sorting `x.numpy()`.)
#
# Work from top to bottom. If something behaves strangely, restart the kernel and run all cells.

# %% tags=["setup"] nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math
from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import data, plots

# %% [markdown]
# ## The evidence
#
# The real images are official portraits of members of the US Congress, made by the US government and in
# the public domain, 64 by 64 pixels, here in grey. The fakes we make ourselves, without any network: a
# portrait is shrunk to 56 by 56 pixels and enlarged again. That is the last step of a generator with a
# perfect artist in front of it.
#
# Two rules keep the experiment honest, and both are about **sources**:
#
# - Nobody is in training *and* test. The data set is split by person.
# - No photograph is used twice, once as itself and once as a fake. Every second person stays real, the
#   others are turned into fakes. Otherwise a detector could compare twins.
#
# And one is about **format**: real and fake alike are stored with 256 grey levels.

# %% nbgrader={"grade": false, "grade_id": "evidence", "locked": true, "schema_version": 3, "solution": false, "task": false}
REAL, FAKE = 0, 1


def stored(images: Tensor) -> Tensor:
    """Round to 256 grey levels, as any file does."""
    return (images.clamp(0, 1) * 255).round() / 255


def enlarged(images: Tensor) -> Tensor:
    """Shrink images (N, 64, 64) to 56 by 56 and enlarge them again: our forger."""
    there = F.interpolate(images[:, None], size=56, mode="bilinear", antialias=True)
    back = F.interpolate(there, size=64, mode="bilinear", align_corners=False)
    return stored(back[:, 0])


def evidence(split: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return images (N, 64, 64), labels (N,), persons (N,): person by person real or fake."""
    portraits = data.portraits(split)
    grey, person = stored(portraits.x.mean(dim=1)), portraits.group
    fake = person // 5 % 2 == 1  # every fifth person is in the test split: this halves both
    images = torch.where(fake[:, None, None], enlarged(grey), grey)
    return images, fake.long(), person


train_images, train_labels, train_person = evidence("train")
test_images, test_labels, _ = evidence("test")
for words, labels in (("training", train_labels), ("test", test_labels)):
    print(f"{words}: {int((labels == REAL).sum())} real, {int((labels == FAKE).sum())} fake")

some = torch.cat([test_images[test_labels == REAL][:5], test_images[test_labels == FAKE][:5]])
plots.show(
    plots.grid(some[:, None], columns=5, rows=["real", "enlarged"], scale=1.25),
    alt="Five portraits above, five others below that were shrunk and enlarged again. The lower ones are "
    "a little softer; one has to look twice.",
)

# %% [markdown]
# ## Step 1: where the detail went
#
# A Fourier transform writes an image as a sum of waves. Let $x$ be one image of $n \times n$ pixels, $n$
# even, from which its own mean was subtracted (its brightness tells us nothing). With whole frequencies
# $u, v \in \{-\tfrac{n}{2}, \dots, \tfrac{n}{2} - 1\}$,
#
# $$F(u, v) = \frac{1}{n} \sum_{a, b} x_{ab} \, e^{-2 \pi i (u a + v b) / n}, \qquad
# P(u, v) = |F(u, v)|^2 .$$
#
# $P$ is the **power** of the wave that goes through the image $u$ times down and $v$ times across. The
# further from $(0, 0)$, the finer the wave. The direction does not interest us, so average over rings.
# Ring $r$ holds all frequencies whose distance from $(0, 0)$, **rounded** to a whole number, is $r$:
#
# $$S(r) = \ln \Bigl( \operatorname*{mean}_{(u, v):\; \operatorname{round} \sqrt{u^2 + v^2} \,=\, r}
# P(u, v) \; + \; 10^{-8} \Bigr), \qquad r = 0, 1, \dots, \tfrac{n}{2} .$$
#
# So an image becomes $n/2 + 1$ numbers. The corners of the square, with $r > n/2$, are left out. Average
# first, then take the natural logarithm; the $10^{-8}$ keeps it finite.
#
# Useful: `torch.fft.fft2(images, norm="ortho")` has the factor $1/n$ and works on the last two
# dimensions. It puts frequency 0 into the corner `[0, 0]`, then come the positive ones, then the
# negative ones: `torch.fft.fftfreq(n, d=1 / n)` lists them in this order. (Or shift the power with
# `fftshift`. Then the list has to be shifted too.)


# %% nbgrader={"grade": false, "grade_id": "radial_spectrum", "locked": false, "schema_version": 3, "solution": true, "task": false}
def radial_spectrum(images: Tensor) -> Tensor:
    """Return the logarithm of the azimuthally averaged power spectrum of each image.

    ``images``: (N, n, n) with n even. Each image's own mean is subtracted, the Fourier transform has
    the factor 1/n, and the power is averaged over rings of radius 0, 1, ..., n/2 (rounded; corners
    left out) before ``log(power + 1e-8)``. Returns (N, n/2 + 1).
    """
    ### BEGIN SOLUTION
    n = images.shape[-1]
    centred = images - images.mean(dim=(1, 2), keepdim=True)
    power = torch.fft.fft2(centred, norm="ortho").abs() ** 2
    frequency = torch.fft.fftfreq(n, d=1 / n)
    radius = torch.hypot(frequency[:, None], frequency[None, :]).round()
    rings = [power[:, radius == r].mean(dim=1) for r in range(n // 2 + 1)]
    return torch.log(torch.stack(rings, dim=1) + 1e-8)
    ### END SOLUTION


# %% [markdown]
# Two images, worked out by hand, with $n = 16$.
#
# - A single bright pixel of value 1. All its waves are equally strong: $P = 1/256$ everywhere, except at
#   $(0, 0)$, where the subtracted mean leaves nothing.
# - A cosine that goes through the image 3 times down and 4 times across. Its power sits in two places,
#   $(3, 4)$ and $(-3, -4)$, with $P = 64$ in each. Their radius is $\sqrt{9 + 16} = 5$, and ring 5 has 28
#   places.
#
# And a cosine with 2 and 2 has radius 2.83, which rounds to 3. Ring 3 has 16 places.

# %% nbgrader={"grade": true, "grade_id": "check_radial_spectrum", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
_pixel = torch.zeros(1, 16, 16)
_pixel[0, 3, 7] = 1
_i = 2 * math.pi * torch.arange(16.0) / 16
_waves = torch.stack(
    [torch.cos(3 * _i[:, None] + 4 * _i[None]), 5 + torch.cos(2 * _i[:, None] + 2 * _i[None])]
)
_s, _w = radial_spectrum(_pixel), radial_spectrum(_waves)
assert _s.shape == (1, 9), f"n/2 + 1 = 9 numbers per image, (1, 9); yours is {tuple(_s.shape)}"
assert not _s.is_complex(), "complex numbers: the power is |F|^2, the square of the absolute value"
assert _w[:, 1:].argmax(dim=1).tolist() == [4, 2], (
    f"the waves belong into rings 5 and 3, yours are in {(_w[:, 1:].argmax(dim=1) + 1).tolist()}: "
    "where is frequency 0, are frequencies whole numbers, and is the radius rounded?"
)
assert bool(_s.isfinite().all()), "not finite: add 1e-8 inside the logarithm"
assert float(_s[0, 1:].max() - _s[0, 1:].min()) < 1e-3, "one pixel: all rings alike (mean, not sum)"
assert abs(float(_s[0, 1]) - math.log(1 / 256)) < 1e-3, (
    f"one pixel: every ring is ln(1/256) = {math.log(1 / 256):.3f}, yours {float(_s[0, 1]):.3f}. "
    "Power, not amplitude? norm='ortho'? natural logarithm?"
)
assert abs(float(_s[0, 0]) - math.log(1e-8)) < 1e-2, "ring 0: ln(1e-8), as the mean is subtracted"
assert abs(float(_w[0, 5]) - math.log(2 * 64 / 28)) < 1e-2, "ring 5: ln(2 * 64 / 28)"
assert abs(float(_w[1, 3]) - math.log(2 * 64 / 16)) < 1e-2, "ring 3: ln(2 * 64 / 16)"
print("radial_spectrum: all is well here")

# %% [markdown]
# Now the portraits. If the idea is any good, the two kinds should part where the waves are fine.

# %%
train_features, test_features = radial_spectrum(train_images), radial_spectrum(test_images)
figure, axis = plt.subplots(figsize=(6.4, 3.2))
for label, colour, words in ((REAL, plots.REAL, "real"), (FAKE, plots.FAKE, "enlarged")):
    of_kind = train_features[train_labels == label, 1:]
    low, middle, high = torch.quantile(of_kind, torch.tensor([0.1, 0.5, 0.9]), dim=0)
    _ = axis.fill_between(range(1, 33), low, high, color=colour, alpha=0.2, linewidth=0)
    _ = axis.plot(range(1, 33), middle, color=colour, label=words)
_ = axis.set(xlabel="radius r: from coarse to fine", ylabel="S(r)", xlim=(1, 32))
_ = axis.set_title("Enlarging invents no detail")
_ = axis.legend()
plots.show(
    figure,
    alt="Median spectrum of real and of enlarged portraits against the radius, with a band from the tenth "
    "to the ninetieth percentile. The curves agree at small radii and part further out: enlarged portraits "
    "have less and less power there.",
)

# %% [markdown]
# ## Step 2: how good is a detector?
#
# A detector gives every image a **score**; higher means "more likely fake". It raises an alarm where the
# score is at least a threshold $t$. Two things can go wrong:
#
# $$\text{false alarms: } \mathrm{FPR}(t) = \frac{\#\{\text{real, score} \ge t\}}{\#\{\text{real}\}},
# \qquad
# \text{misses: } \mathrm{FNR}(t) = \frac{\#\{\text{fake, score} < t\}}{\#\{\text{fake}\}} .$$
#
# Start with $t = \infty$: no false alarm, everything missed. Let $t$ fall through the distinct scores,
# one after the other: false alarms rise, misses fall, and somewhere they cross. The rate at which they
# are equal is the **equal error rate** (EER): 0 is perfect, 0.5 is a coin, 1 is always wrong.
#
# Two details, so that everybody gets the same number. Equal scores pass the threshold together: there is
# one point $(\mathrm{FPR}, \mathrm{FNR})$ for each *distinct* score, plus the first, $(0, 1)$. And where
# no point has both rates equal, take the last point with $\mathrm{FPR} < \mathrm{FNR}$ and the next one,
# join them by a **straight line**, and read off where the two rates are equal on it.
#
# Labels are 1 for fake and 0 for real.


# %% nbgrader={"grade": false, "grade_id": "equal_error_rate", "locked": false, "schema_version": 3, "solution": true, "task": false}
def equal_error_rate(scores: Tensor, labels: Tensor) -> float:
    """Return the rate at which false alarms and misses are equal.

    ``scores`` (N,): any numbers, higher means more likely fake; ``labels`` (N,): 1 fake, 0 real. An
    alarm is a score >= threshold. One point per distinct score, straight lines between them.
    """
    ### BEGIN SOLUTION
    thresholds = scores.unique().flip(0)  # distinct, falling
    real, fake = scores[labels == 0], scores[labels == 1]
    fpr = (real >= thresholds[:, None]).double().mean(dim=1)
    fnr = (fake < thresholds[:, None]).double().mean(dim=1)
    fpr = torch.cat([torch.zeros(1, dtype=fpr.dtype), fpr])
    fnr = torch.cat([torch.ones(1, dtype=fnr.dtype), fnr])
    gap = fpr - fnr  # rises from -1 to 1
    after = int((gap >= 0).int().argmax())
    before = after - 1
    t = gap[before] / (gap[before] - gap[after])
    return float(fpr[before] + t * (fpr[after] - fpr[before]))
    ### END SOLUTION


# %% [markdown]
# By hand: real scores 1, 2, 3, 6 and fake ones 4, 7, 8, 9. With the threshold at 6, one real image of four
# raises an alarm and one fake of four is missed: 0.25. With real 0, 2 and fake 1, 3, 4 no threshold is
# fair: at 2 the rates are 1/2 and 1/3, just above it they are 0 and 1/3. On the line between, both are
# 1/3. If all scores are the same, there are two points only, (0, 1) and (1, 0), and the line between them
# gives 1/2.

# %% nbgrader={"grade": true, "grade_id": "check_equal_error_rate", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
_cases = [
    ("perfect: every fake above every real one", [1.0, 2.0], [3.0, 4.0], 0.0),
    ("always wrong: every fake below every real one", [3.0, 4.0], [1.0, 2.0], 1.0),
    ("one mistake on either side", [1.0, 2.0, 3.0, 6.0], [4.0, 7.0, 8.0, 9.0], 0.25),
    (
        "far from any fixed threshold",
        [101.0, 102.0, 103.0, 106.0],
        [104.0, 107.0, 108.0, 109.0],
        0.25,
    ),
    ("between two points: draw a line", [0.0, 2.0], [1.0, 3.0, 4.0], 1 / 3),
    ("all scores the same: they pass together", [7.0, 7.0, 7.0], [7.0, 7.0], 0.5),
]
for _words, _real, _fake, _wanted in _cases:
    _scores = torch.tensor(_fake + _real)
    _labels = torch.tensor([1] * len(_fake) + [0] * len(_real))
    _got = float(equal_error_rate(_scores, _labels))
    assert abs(_got - _wanted) < 1e-4, f"{_words}: expected {_wanted:.3f}, yours is {_got:.3f}"
print("equal_error_rate: all is well here")

# %% [markdown]
# Is a detector needed at all? Take a single number of the spectrum as a score, and see. (Real images have
# *more* fine detail, so the score of a fake is minus the power.)

# %%
for r in (2, 8, 16, 24, 32):
    print(f"ring {r:2d} alone: EER {equal_error_rate(-test_features[:, r], test_labels):.3f}")

# %% [markdown]
# ## Step 3: a detector
#
# Let $f$ be the features of an image. Logistic regression gives the score $s = w \cdot z + b$, where $z$
# are the **standardised** features, and chooses $w$ and $b$ so that the cross-entropy with
# $p = \sigma(s)$ is small on the training set:
#
# $$z_j = \frac{f_j - m_j}{d_j}, \qquad
# \min_{w, b} \; \frac{1}{N} \sum_i -y_i \ln p_i - (1 - y_i) \ln (1 - p_i) .$$
#
# Standardising matters because features can live on very different scales. $m_j$ and $d_j$ are mean and
# standard deviation of column $j$ **in the training set**. They belong to the detector, like its weights.
# Whoever computes them anew from the images under test has let the test leak into the detector: an
# image's score would then depend on its neighbours, or on which images came first.
#
# Mind a column that never changes. (You have one: what is $S(0)$?) Its $d_j$ is 0.
#
# How you find $w$ and $b$ is up to you: `torch.optim.LBFGS`, a few hundred steps of Adam, scikit-learn
# (import it inside the function). If two kinds are perfectly separable, a small penalty on $w$ keeps it
# finite. Whatever you take, let the *scores* be computed with torch operations if you can: in step 4 you
# will attack your own detector, and that needs a gradient.


# %% nbgrader={"grade": false, "grade_id": "fit_detector", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fit_detector(features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Fit a standardised logistic regression and return it as a detector.

    ``features`` (N, F): of the training images; ``labels`` (N,): 1 fake, 0 real, integers. Returns a
    function or module ``detector(features) -> scores``, (M, F) to (M,), higher = more likely fake. It
    depends on the training set alone, and each score on its own row alone, whatever came before.
    """
    ### BEGIN SOLUTION
    mean, std = features.mean(dim=0), features.std(dim=0)
    std = torch.where(std > 1e-6 * mean.abs(), std, torch.ones_like(std))
    w = torch.zeros(features.shape[1], requires_grad=True)
    b = torch.zeros((), requires_grad=True)

    def detector(features: Tensor) -> Tensor:
        return (features - mean) / std @ w + b

    optimizer = torch.optim.LBFGS([w, b], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(detector(features), labels.float())
        loss = loss + 1e-3 * w.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    w.requires_grad_(False)
    b.requires_grad_(False)
    return detector
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_fit_detector", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
_noise = torch.randn(120, 3, generator=torch.Generator().manual_seed(1))
_y = torch.arange(120) % 2
# Column 0 tells, column 1 is constant, column 2 is huge and tells nothing.
_f = torch.stack([_noise[:, 0] + 4 * _y, torch.full((120,), 2.0), 1e4 * _noise[:, 2]], dim=1)
_detector = fit_detector(_f[:80], _y[:80])
_s = torch.as_tensor(_detector(_f[80:])).detach()
assert _s.shape == (40,), f"one score per row, (40,); yours is {tuple(_s.shape)}"
assert bool(_s.isfinite().all()), "scores that are no numbers: is a standard deviation 0?"
assert len(_s.unique()) > 4, "these are decisions: return the score that they are made from"
_above = float((_s[_y[80:] == 1][:, None] > _s[_y[80:] == 0][None]).float().mean())
assert _above > 0.5, "the scores are the wrong way round: 1 is fake, and fakes score higher"
assert _above > 0.97, f"a fake outscores a real one in only {_above:.0%} of pairs: standardised?"
_one = torch.as_tensor(_detector(_f[90:91])).detach()
assert torch.allclose(_one, _s[10:11], atol=1e-3), (
    "an image alone gets another score than in company: keep the training mean and deviation"
)
print("fit_detector: all is well here")

# %% [markdown]
# The verdict.

# %%
detector = fit_detector(train_features, train_labels)
test_scores = torch.as_tensor(detector(test_features)).detach()
print(f"the detector: EER {equal_error_rate(test_scores, test_labels):.3f}")

# %% [markdown]
# ## Step 4: a number that could have come out otherwise
#
# Would you have noticed if something had gone wrong? A twin in both sets, a label that slipped into the
# features: each would give a small error as well. The control is the **null experiment**. Destroy what
# there is to learn, and nothing else: keep the training images $x_1, \dots, x_N$ and deal their labels
# out anew,
#
# $$(x_1, y_{\pi(1)}), \; (x_2, y_{\pi(2)}), \; \dots, \; (x_N, y_{\pi(N)}),$$
#
# with a permutation $\pi$ of all $N$ drawn by chance, each with the same chance. Fit on that. Then measure as always, on test images with
# their **true** labels. Repeat, each time with a new $\pi$ and a new fit. Whatever is far from one half
# on average was not learned from the labels: something leaks.
#
# A permutation, not new labels from a coin: so there are exactly as many fakes as before, and nothing
# but the pairing has changed.
#
# The function is handed what it needs: `fit(features, labels)` returns a detector,
# `detector(features)` scores, `measure(scores, labels)` an error rate. `torch.randperm` takes a generator.


# %% nbgrader={"grade": false, "grade_id": "null_experiment", "locked": false, "schema_version": 3, "solution": true, "task": false}
def null_experiment(
    fit: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]],
    measure: Callable[[Tensor, Tensor], float],
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    trials: int,
    generator: torch.Generator,
) -> list[float]:
    """Return the error rates of detectors that were fitted to shuffled training labels.

    ``train`` (N, F), ``train_labels`` (N,), ``test`` (M, F), ``test_labels`` (M,): all left as they
    are. Each of the ``trials`` draws a new permutation of the training labels from ``generator``, calls
    ``fit`` once, and measures on the test features and their true labels. Returns one rate per trial.
    """
    ### BEGIN SOLUTION
    rates = []
    for _ in range(trials):
        shuffled = train_labels[torch.randperm(len(train_labels), generator=generator)]
        fitted = fit(train, shuffled)
        rates.append(measure(fitted(test), test_labels))
    return rates
    ### END SOLUTION


# %% [markdown]
# The check hands over a `fit` and a `measure` that write down what they are given. Six training images,
# two of them fake; `measure` answers 0.1, 0.2, 0.3 and so on.


# %% nbgrader={"grade": true, "grade_id": "check_null_experiment", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
_train, _train_labels = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 0, 0, 1, 0])
_test, _test_labels = torch.arange(20.0, 28.0).reshape(4, 2), torch.tensor([1, 0, 0, 1])
_fits: list[tuple[Tensor, list[int]]] = []
_measured: list[tuple[list[float], list[int]]] = []


def _fit(features: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    _fits.append((features.clone(), torch.as_tensor(labels).tolist()))
    return lambda f: f[:, 0] + len(_fits)


def _measure(scores: Tensor, labels: Tensor) -> float:
    _measured.append((torch.as_tensor(scores).tolist(), torch.as_tensor(labels).tolist()))
    return len(_measured) / 10


_rates = null_experiment(
    _fit, _measure, _train, _train_labels, _test, _test_labels, 8, torch.Generator().manual_seed(5)
)
assert len(_fits) == 8, f"8 trials: fit anew in each of them; yours called fit {len(_fits)} times"
assert [float(r) for r in _rates] == [i / 10 for i in range(1, 9)], (
    "return what measure said, trial by trial"
)
assert all(sum(labels) == 2 for _, labels in _fits), (
    "two of the six are fake, before and after: permute the labels that there are"
)
assert _train_labels.tolist() == [0, 1, 0, 0, 1, 0], (
    "the caller's labels were changed: shuffle a copy"
)
assert len({tuple(labels) for _, labels in _fits}) > 2, "a new permutation in each trial"
_pairs = [sorted(zip(f[:, 0].tolist(), labels, strict=True)) for f, labels in _fits]
assert any(pairs != _pairs[0] for pairs in _pairs), (
    "image and label travel together, so nothing is shuffled: leave the images in their order"
)
assert all(labels == [1, 0, 0, 1] for _, labels in _measured), (
    "measure with the test labels as they are"
)
assert all(
    scores == [20.0 + i, 22.0 + i, 24.0 + i, 26.0 + i] for i, (scores, _) in enumerate(_measured, 1)
), "measure the scores that the newly fitted detector gives to the test features"
_once = [labels for _, labels in _fits]
_fits.clear()
null_experiment(
    _fit, _measure, _train, _train_labels, _test, _test_labels, 8, torch.Generator().manual_seed(5)
)
assert [labels for _, labels in _fits] == _once, (
    "the same seed gives other permutations: draw them from the generator"
)
print("null_experiment: all is well here")

# %%
generator = torch.Generator().manual_seed(0)


def plain_error(scores: Tensor, labels: Tensor) -> float:
    """Return the equal error rate, whatever kind of numbers the scores are."""
    return equal_error_rate(torch.as_tensor(scores).detach(), labels)


nulls = null_experiment(
    fit_detector,
    plain_error,
    train_features,
    train_labels,
    test_features,
    test_labels,
    20,
    generator,
)
print(f"20 nulls: EER {min(nulls):.2f} to {max(nulls):.2f}, mean {np.mean(nulls):.2f}")

# %% [markdown]
# Single nulls scatter widely about one half: the spectra of these images fall into two well separated
# groups, so a rule learned from noise gets either group mostly right or mostly wrong. The mean over many
# shuffles is what should be near 0.5.
#
# ## Step 5: nobody on both sides
#
# The null experiment does not see every leak. Two pictures of one person are nearly twins. If one is in
# training and the other in the test, a detector may score by **recognising** people, and nothing of
# that will help with a stranger. So people are split, not pictures: of $n$ people
#
# $$k = \operatorname{round}(\text{share} \cdot n)$$
#
# are drawn by chance: every set of $k$ people with the same chance, however many pictures there are of
# them, and whatever their numbers. All of their pictures are for testing, and all others for training.
#
# Return a mask of truth values, because that is what it will be used as: `features[~mask]` are the training
# images. A 0 or a 1 would be the number of a row.
#
# Persons are given by numbers, one for each picture. These may be any integers, in any order: 7, 7, -2,
# 40 are three people. (The order in a data set is no chance: it may go by age, by country or by source.)


# %% nbgrader={"grade": false, "grade_id": "split_people", "locked": false, "schema_version": 3, "solution": true, "task": false}
def split_people(person: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Return which pictures are for testing, so that nobody is on both sides.

    ``person`` (N,): integers, who is in each picture. ``share``: of the people, rounded to a whole
    number of them, who are drawn by chance from ``generator``, every set of so many with the same chance.
    Returns booleans (N,), True for testing.
    """
    ### BEGIN SOLUTION
    people = person.unique()
    order = torch.randperm(len(people), generator=generator)
    chosen = people[order[: round(share * len(people))]]
    return torch.isin(person, chosen)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_split_people", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
_person = torch.tensor([7, 7, -2, 7, 40, 40, 40, 40, 3, -2, 7, 7, 900])  # five people
_g = torch.Generator().manual_seed(1)
_splits = [torch.as_tensor(split_people(_person, 0.35, _g)) for _ in range(30)]
for _split in _splits:
    assert _split.dtype == torch.bool and _split.shape == (13,), (
        "one boolean per picture, (13,), True for testing"
    )
    _tested, _trained = set(_person[_split].tolist()), set(_person[~_split].tolist())
    assert not _tested & _trained, f"on both sides: person {min(_tested & _trained)}. Draw people"
    assert len(_tested) == 2, f"0.35 of five people, rounded, are 2; yours: {len(_tested)}"
assert len({tuple(split.tolist()) for split in _splits}) > 4, (
    "the same people again and again: draw them by chance, from the generator"
)
_again = torch.as_tensor(split_people(_person, 0.35, torch.Generator().manual_seed(1)))
assert torch.equal(_again, _splits[0]), "the same seed gives another split: use the generator"
print("split_people: all is well here")

# %% [markdown]
# What does a leak look like? Here is one. We take *real* portraits only, photograph each four times with a
# noisy camera, and toss a coin for each person: heads, we call all four pictures fake. There is nothing to
# learn. A detector that remembers (the labels of the three most similar pictures) is tested twice: with
# the pictures split at random, and with the people split, by your function.

# %%
real_people = train_images[train_labels == REAL][:150]
camera = 0.01 * torch.randn(4, *real_people.shape, generator=generator)
pictures = stored((real_people + camera).flatten(0, 1))
person = torch.arange(150).repeat(4)
coin = torch.randint(0, 2, (150,), generator=generator)[person]
at_random = torch.randperm(600, generator=generator) < 300
by_person = split_people(person, 0.5, generator)
seen_as = radial_spectrum(pictures)
for words, unknown in (("pictures split at random", at_random), ("split by person", by_person)):
    nearest = torch.cdist(seen_as[unknown], seen_as[~unknown]).topk(3, largest=False).indices
    remembered = coin[~unknown][nearest].float().mean(dim=1)
    print(f"{words}: EER {equal_error_rate(remembered, coin[unknown]):.2f}")

# %% [markdown]
# ## Step 6: a threshold, once and for all
#
# An EER near 0 is where many reports end. Yours goes on. Who uses a detector needs a threshold, and has
# to choose it before the images come that matter. Let at most one real portrait in twenty raise an alarm:
# the rate is 0.05.
#
# Among $N$ real scores $s_1, \dots, s_N$, look for a threshold $t$ with
#
# $$\#\{i : s_i \ge t\} \;\le\; \text{rate} \cdot N ,$$
#
# and let the left side be as large as this allows. Every such $t$ is right: between two scores it makes
# no difference. Mind that a score **equal** to $t$ raises an alarm, and that equal scores pass together.
# Where $\text{rate} \cdot N$ is a whole number, so many alarms are allowed. Where not even one is, $t$ lies
# above every score; `math.inf` will do. Mind too that a quantile from a library is a number between two
# scores, and may be on the wrong side of one of them.


# %% nbgrader={"grade": false, "grade_id": "threshold_at", "locked": false, "schema_version": 3, "solution": true, "task": false}
def threshold_at(real_scores: Tensor, rate: float) -> float:
    """Return a threshold at which at most this share of the real images raises an alarm.

    ``real_scores`` (N,): of real images only; an alarm is a score >= threshold. ``rate``: in (0, 1).
    As many alarms as the rate allows, and no more; above every score, or infinite, if it allows none.
    """
    ### BEGIN SOLUTION
    allowed = int(rate * len(real_scores))
    spared = real_scores.sort(descending=True).values[allowed]  # this one must not raise an alarm
    higher = real_scores[real_scores > spared]
    return float(higher.min()) if len(higher) else math.inf
    ### END SOLUTION


# %% [markdown]
# By hand: of the scores 1, 2, ..., 10 a rate of 0.25 allows 2.5 alarms, so two: 9 and 10. The threshold
# may be anything above 8, up to 9. Of 1, 2, ..., 8 the same rate allows exactly two, 7 and 8. Of
# 1, 2, 3, 3, 3, 4 a rate of 0.5 allows three. At 3 there would be four. So there is one, and the threshold
# lies above 3, up to 4. Of 1, 2, 3, 4 a rate of 0.2 allows 0.8 alarms, so none: the threshold lies above 4.

# %% nbgrader={"grade": true, "grade_id": "check_threshold_at", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
for _scores, _rate, _above, _up_to in (
    ([3.0, 10.0, 1.0, 8.0, 6.0, 2.0, 9.0, 4.0, 7.0, 5.0], 0.25, 8, 9),
    ([3.0, 1.0, 8.0, 6.0, 2.0, 4.0, 7.0, 5.0], 0.25, 6, 7),
    ([2.0, 3.0, 3.0, 1.0, 3.0, 4.0], 0.5, 3, 4),
    ([2.0, 4.0, 1.0, 3.0], 0.2, 4, math.inf),
):
    _t = float(threshold_at(torch.tensor(_scores), _rate))
    _alarms = sum(score >= _t for score in _scores)
    assert _t > _above, (
        f"{_alarms} of {len(_scores)} real scores are >= your {_t:.2f}, more than a rate of {_rate} allows"
    )
    assert _t <= _up_to, (
        f"only {_alarms} of {len(_scores)} alarms at {_t:.2f}: the rate allows more"
    )
print("threshold_at: all is well here")

# %% [markdown]
# A threshold chosen on the very images that the detector was fitted to would flatter it. So part of the
# training people are set aside, by your `split_people`: the detector is fitted to the others, and
# the threshold is chosen on those aside. The test people have no say in either.


# %%
aside = split_people(train_person, 0.3, generator)
detector = fit_detector(train_features[~aside], train_labels[~aside])


def score(images: Tensor) -> Tensor:
    """Return the detector's scores of images (N, H, W)."""
    return torch.as_tensor(detector(radial_spectrum(images))).detach().float()


real_aside = aside & (train_labels == REAL)
scores_aside = score(train_images[real_aside])
threshold = float(threshold_at(scores_aside, 0.05))
real_images, fake_images = test_images[test_labels == REAL], test_images[test_labels == FAKE]
for words, s in (("set aside", scores_aside), ("test", score(real_images))):
    print(f"real portraits, {words}: {int((s >= threshold).sum())} of {len(s)} raise an alarm")

# %% [markdown]
# ## Step 7: whom does it accuse?
#
# Now treat real portraits as the world does: save them as JPEG, blur them a little. They stay real, and
# the threshold stays where it is. For each change $c$, what matters is the share of the $N$ real images
# $x_i$ that are accused once they have been through it:
#
# $$A(c) = \frac{1}{N} \, \#\{i : s(c(x_i)) \ge t\} .$$
#
# Each change is made to the **original** images, not to what the change before has left of them.


# %% nbgrader={"grade": false, "grade_id": "false_alarms", "locked": false, "schema_version": 3, "solution": true, "task": false}
def false_alarms(
    score: Callable[[Tensor], Tensor],
    threshold: float,
    images: Tensor,
    changes: dict[str, Callable[[Tensor], Tensor]],
) -> dict[str, float]:
    """Return, for each change by its name, the share of real images that raises an alarm after it.

    ``score``: images (N, H, W) to scores (N,); an alarm is a score >= ``threshold``, which stays the
    same throughout. ``images`` (N, H, W): all real. ``changes``: functions from images to images, each
    applied to ``images`` themselves.
    """
    ### BEGIN SOLUTION
    return {
        name: float((score(change(images)) >= threshold).double().mean())
        for name, change in changes.items()
    }
    ### END SOLUTION


# %% [markdown]
# By hand: four images of one pixel, 1/8, 1/4, 1/2 and 3/4, whose score is that pixel, and a threshold of
# 1/2. As they are, two of four are accused. Twice as bright, three: 1/4 has become 1/2, which is enough.
# Half as bright, none.

# %% nbgrader={"grade": true, "grade_id": "check_false_alarms", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
_found = false_alarms(
    lambda images: images[:, 0, 0],
    0.5,
    torch.tensor([0.125, 0.25, 0.5, 0.75])[:, None, None],
    {"as they are": lambda x: x, "twice": lambda x: 2 * x, "half": lambda x: x / 2},
)
assert set(_found) == {"as they are", "twice", "half"}, (
    f"one share per change, by name: {list(_found)}"
)
_shares = {name: float(share) for name, share in _found.items()}
assert max(_shares.values()) <= 1, f"shares, not counts or per cent: {_shares}"
assert abs(_shares["as they are"] - 0.5) < 1e-6, (
    f"as they are: 2 of 4 are >= 0.5, a share of 0.5; yours {_shares['as they are']}"
)
assert abs(_shares["twice"] - 0.75) < 1e-6, (
    f"twice as bright: 3 of 4 are >= 0.5; yours {_shares['twice']}"
)
assert _shares["half"] == 0, f"half as bright, from the originals: none; yours {_shares['half']}"
print("false_alarms: all is well here")

# %% [markdown]
# ## Where it breaks
#
# The table. Fakes go through the same changes as the real ones, so that they can be told apart by
# nothing else. And last, show the detector faces from a source that it has never met: a diffusion model
# drew them, and nobody in them exists.

# %%
import io

from PIL import Image


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Save images (N, H, W) as JPEG files and open them again."""
    opened = []
    for image in (images * 255).round().byte().numpy():
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=quality)
        opened.append(torch.from_numpy(np.array(Image.open(file))))
    return torch.stack(opened).float() / 255


def blur(images: Tensor) -> Tensor:
    """Average each pixel with its neighbours, weights 1, 6, 1 along both axes."""
    kernel = torch.tensor([1.0, 6.0, 1.0]) / 8
    padded = F.pad(images[:, None], (1, 1, 1, 1), mode="replicate")
    return stored(F.conv2d(padded, (kernel[:, None] * kernel[None])[None, None])[:, 0])


changes: dict[str, Callable[[Tensor], Tensor]] = {
    "as they are": lambda images: images,
    "JPEG 75": lambda images: jpeg(images, 75),
    "JPEG 30": lambda images: jpeg(images, 30),
    "slightly blurred": blur,
}
diffusion = stored(data.portraits("test", source="diffusion").x.mean(dim=1))
accused = false_alarms(score, threshold, real_images, changes)
cases = {words: (change(real_images), change(fake_images)) for words, change in changes.items()}
cases["diffusion model"] = (real_images, diffusion)
print(f"{'':<18}{'EER':>6}{'real accused':>15}{'fakes missed':>15}")
found = {}
for words, pair in cases.items():
    s_real, s_fake = score(pair[0]), score(pair[1])
    found[words] = (s_real, s_fake)
    labels = torch.cat([torch.zeros(len(s_real)), torch.ones(len(s_fake))]).long()
    eer = equal_error_rate(torch.cat([s_real, s_fake]), labels)
    share = float(accused.get(words, accused["as they are"]))
    missed = float((s_fake < threshold).float().mean())
    print(f"{words:<18}{eer:>6.2f}{share:>15.0%}{missed:>15.0%}")

figure, axes = plt.subplots(len(found), 1, figsize=(6.6, 5.2), sharex=True)
bins = np.linspace(
    min(float(s.min()) for pair in found.values() for s in pair),
    max(float(s.max()) for pair in found.values() for s in pair),
    50,
)
for axis, (words, pair) in zip(axes, found.items(), strict=True):
    for s, colour in zip(pair, (plots.REAL, plots.FAKE), strict=True):
        _ = axis.hist(s.numpy(), bins, color=colour, alpha=0.7)
    _ = axis.axvline(threshold, color=plots.INK, linewidth=1.2)
    _ = axis.set(yticks=[])
    _ = axis.set_ylabel(words, rotation=0, ha="right", va="center")
    axis.grid(False)
_ = axes[0].set_title("Real (blue) and fake (vermilion); the line is the threshold")
_ = axes[-1].set_xlabel("score")
plots.show(
    figure,
    alt="Histograms of the scores of real and fake portraits, one row per treatment, with the threshold. "
    "As they are, the two kinds lie far apart on either side. Blurred real portraits move across "
    "the threshold. The faces from the diffusion model lie where the real portraits lie.",
)

# %% [markdown]
# ## Step 8: the forger strikes back
#
# The forger can compute gradients too. Let $s(x)$ be the score of an image $x$ and $\nabla_x s$ its
# gradient with respect to the pixels. To look real, the score has to **fall**. If no pixel may change by
# more than $\varepsilon$, the best small step moves every pixel by exactly $\varepsilon$, against the sign
# of its gradient:
#
# $$x' = \operatorname{clip}_{[0, 1]} \bigl( x - \varepsilon \cdot \operatorname{sign} \nabla_x s(x) \bigr) .$$
#
# The scores of a batch can be added up first: every image has a score of its own, so the gradient of the
# sum holds every image's gradient. Leave the images that are handed in as they are, and return new ones.


# %% nbgrader={"grade": false, "grade_id": "attack_detector", "locked": false, "schema_version": 3, "solution": true, "task": false}
def attack_detector(detector: Callable[[Tensor], Tensor], x: Tensor, eps: float) -> Tensor:
    """Return fake images that look more real to the detector: one signed-gradient step.

    ``detector``: differentiable, images (N, H, W) to scores (N,), higher = more likely fake. ``x``:
    (N, H, W) in [0, 1], left as it is. The result is within ``eps`` of ``x`` and in [0, 1].
    """
    ### BEGIN SOLUTION
    x_grad = x.detach().clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(detector(x_grad).sum(), x_grad)
    return (x - eps * gradient.sign()).clamp(0, 1).detach()
    ### END SOLUTION


# %% [markdown]
# By hand: let the score be $2 x_1 - 3 x_2$ for images of two pixels. The gradient is $(2, -3)$ everywhere,
# so the first pixel goes down and the second goes up.


# %% nbgrader={"grade": true, "grade_id": "check_attack_detector", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
def _linear(images: Tensor) -> Tensor:
    return 2 * images[:, 0, 0] - 3 * images[:, 0, 1]


_x = torch.tensor([[[0.5, 0.5]], [[0.05, 0.95]]])
_kept = _x.clone()
_adversarial = attack_detector(_linear, _x, 0.1)
assert _adversarial.shape == (2, 1, 2), (
    f"the shape of x, (2, 1, 2); yours {tuple(_adversarial.shape)}"
)
assert torch.equal(_x, _kept), "x itself was changed: work on a copy"
assert float(_linear(_adversarial)[0]) < float(_linear(_x)[0]), "the score should fall, not rise"
assert torch.allclose(_adversarial[0], torch.tensor([[0.4, 0.6]]), atol=1e-5), (
    f"(0.5, 0.5) becomes (0.4, 0.6), not {_adversarial[0].tolist()}: only the gradient's sign counts"
)
assert float(_adversarial.min()) >= 0 and float(_adversarial.max()) <= 1, (
    "it leaves [0, 1]: clip it"
)
assert torch.allclose(_adversarial[1], torch.tensor([[0.0, 1.0]]), atol=1e-5), (
    "(0, 1) after clipping"
)
print("attack_detector: all is well here")

# %% [markdown]
# Now attack your own detector, by one, two and four of the 255 grey levels. The control is just as
# important as the attack: the same number of grey levels, but with signs from a coin. If that does as
# well, the gradient is not the point.


# %%
def whole(images: Tensor) -> Tensor:
    """Go all the way from images to scores, in one differentiable function."""
    return detector(radial_spectrum(images))


try:
    differentiable = torch.as_tensor(whole(fake_images.clone().requires_grad_())).requires_grad
except RuntimeError:
    differentiable = False
if differentiable:
    some = fake_images[:100]  # a quarter of a minute, a minute or two on a slow machine
    coins = torch.randint(0, 2, some.shape, generator=generator) * 2.0 - 1
    print(f"{'grey levels':<14}{'attacked: missed':>18}{'coin: missed':>15}")
    for levels in (0, 1, 2, 4):
        eps = levels / 255
        attacked = attack_detector(whole, some, eps) if levels else some
        tossed = (some + eps * coins).clamp(0, 1)
        shares = [(score(images) < threshold).float().mean() for images in (attacked, tossed)]
        print(f"{levels:<14}{shares[0]:>18.0%}{shares[1]:>15.0%}")
    shown = torch.cat([some[:5], attacked[:5], 0.5 + 20 * (attacked - some)[:5]])
    titles = [f"{s:.1f}" for s in torch.cat([score(some[:5]), score(attacked[:5])])]
    figure = plots.grid(
        shown[:, None],
        columns=5,
        titles=titles + [""] * 5,
        rows=["fake", "attacked", "difference x 20"],
        scale=1.25,
    )
    plots.show(
        figure,
        alt="Five enlarged portraits with their scores, the same five attacked by four grey levels, which "
        "show a fine grain and have much lower scores, and the difference, magnified twenty times: a "
        "fine-grained pattern over the whole image.",
    )
else:
    print(
        "Your detector's scores have no gradient (NumPy or scikit-learn?), so there is no picture here."
    )

# %% [markdown] nbgrader={"grade": false, "grade_id": "the_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## A question
#
# A newspaper has read "equal error rate below one per cent" and wants to run your detector on every
# photograph that readers send in. About one in a thousand is fake.
#
# 1. What has your detector learned, in one sentence? Use the rows "slightly blurred" and "diffusion model"
#    of your table as evidence.
# 2. Suppose that it accuses 5 % of the real photographs and misses no fake. Of 1,000 alarms, how many are
#    true? Show the calculation.
# 3. Name one further experiment, with its control, that you would demand before anybody relies on it, and
#    say which result would make you say no.
#
# About eight sentences.

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# **Model answer.** 1. It has learned "fine detail is missing", not "this is a fake". Real portraits that
# were merely blurred lack fine detail and are accused, nearly all of them; the diffusion model's faces
# have about as much fine detail as the photographs, most of them are missed, and the EER is not much
# better than a coin's. The low EER holds for this forger, this camera and untouched files, and the threshold for
# even less.
#
# 2. Per million photographs: 1,000 fakes, all caught; 999,000 real, of which 5 % are 49,950 false alarms.
# 1,000 of 50,950 alarms are true, about 2 %; so of 1,000 alarms about 20 are true and 980 accuse
# somebody honest.
#
# 3. For example: real photographs from the newspaper's own readers, as they arrive (other cameras,
# messengers that shrink and compress), at the fixed threshold; control: the same photographs before they
# were sent. No, if the false alarms rise above the base rate of fakes. Or: fakes by generators that were
# not used in training, each with real images of the same source and format; control: shuffled labels.
# No, if the EER on them is near one half. Or: an attack by four grey levels, with coin signs as control.
#
# **Rubric, 4 points.** 1 point: names the missing fine detail (or the trace of enlarging) as what was
# learned and uses both rows. 1 point: says that EER or threshold does not carry over to other
# processing or sources. 1 point: a correct calculation (about 2 %, or 20 in 1,000). 1 point: an
# experiment with a control and a result that would count against the detector.

# %% [markdown]
# ## A report card (not graded)
#
# The course has one page for any detector of made portraits: the same test photographs, several
# generators, several ways of processing, measured alike for everybody. Yours can have it too.
#
# Before you run the cell, write down what you expect. Your detector knows one forger, who enlarges real
# portraits smoothly. It has never met these: `dcgan` ends in transposed convolutions, `dcgan-nearest`
# enlarges by copying pixels, and `diffusion` was scaled *down* to 64 by 64. And the page puts every image
# into a grey frame, whose edge has a spectrum of its own.
#
# A function that is to be examined takes colour images (N, 3, 64, 64) and gives scores between 0 and 1.
# The table shows the AUC: how often a fake scores higher than a photograph. A half is a coin; far below
# one half, the detector finds these fakes *more real than real*. (The page says "its own" of `dcgan`,
# because most detectors that it examines were trained on it. Yours was not. It also chooses a threshold on
# training people, and your detector was fitted to some of them; the AUC needs no threshold.)


# %%
from course_lib import report_card

spread = float(scores_aside.std())


def from_colour(images: Tensor) -> Tensor:
    """Return scores in [0, 1] of colour images (N, 3, 64, 64), in the order of the detector's own."""
    return torch.sigmoid((score(stored(images.mean(dim=1))) - threshold) / (10 * spread))


card = report_card.assess(
    from_colour, "my detector", generators=("dcgan", "dcgan-nearest", "diffusion"), attacked=20
)
figure, words = report_card.matrix_figure(card)
plots.show(figure, alt=words)

# %% [markdown]
# Did it come out as you expected? Nothing in an EER on one's own forger says how a detector fares with
# others. This table does, and `course report-card` writes it, and the rest of the page, into one file for
# any detector.

# %% [markdown]
# ## What you have built
#
# A detector in a few lines that tells enlarged portraits from others almost without error, a measure that
# everybody computes alike, a protocol (a null experiment, a split by person, a threshold that stays) that
# would have shown a leak, and an attack that defeats it with a change that is hard to see. All of them
# belong together. A detector without the others is a rumour.
#
# **One step further (optional, not graded).** Train on JPEG and blurred copies as well (of real and fake
# alike), and fill in the table again: what is bought, what is lost? Or let the forger enlarge with
# `mode="nearest"` or `"bicubic"`, and see whether the old detector follows.
#
# A word on use: a false alarm tells an honest person that her photograph is a lie. Scores may sort a
# queue for people to look at; they should not decide alone. And an attack like yours is for testing
# detectors that are your own, or whose owners asked you to.
