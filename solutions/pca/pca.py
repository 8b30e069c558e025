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
# # PCA and the linear autoencoder
#
# A photograph of a face is thousands of numbers. You could describe the same face to a friend with
# far fewer. **How few numbers is a face?**
#
# In this notebook you build two machines that answer it. One is a formula from 1901: principal
# component analysis. The other is a small neural network that learns by gradient descent and has
# never heard of the formula. At the end you measure, with an angle, whether they found the same thing.
#
# What you write: `pca_fit`, `pca_transform`, `pca_inverse`, `LinearAutoencoder`, `subspace_angle`.
# Each takes between one and six lines. The chapter *PCA* of the book has all the background. After
# each answer there is a check to run; when you hand in, further checks run with other inputs.
#
# Work from top to bottom. If something behaves strangely, restart the kernel and run all cells.

# %% tags=["setup"] nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from course_lib import data, plots

# %% [markdown]
# ## The faces
#
# The photographs are the ORL faces: volunteers at a laboratory in Cambridge, 1992 to 1994 (Samaria
# and Harter), by courtesy of AT&T Laboratories Cambridge. There are ten photographs of each person.
# We shrink them to 28 by 23 pixels, so that everything here runs in seconds.
#
# The data set comes split **by person**: 32 people to learn from, and 8 strangers whom nothing is
# ever fitted to. A photograph becomes one row of a matrix `x` of shape $(N, D)$.

# %% nbgrader={"grade": false, "grade_id": "faces", "locked": true, "schema_version": 3, "solution": false, "task": false}
HEIGHT, WIDTH = 28, 23
seen = data.orl("train", size=(HEIGHT, WIDTH))
strangers = data.orl("test", size=(HEIGHT, WIDTH))
x_seen, x_strangers = seen.x.flatten(1), strangers.x.flatten(1)


def as_images(rows: Tensor) -> Tensor:
    """Turn rows (N, D) back into images (N, 1, 28, 23) in [0, 1], for a picture."""
    return rows.reshape(-1, 1, HEIGHT, WIDTH).clamp(0, 1)


print(f"x_seen {tuple(x_seen.shape)}, x_strangers {tuple(x_strangers.shape)}")
plots.show(
    plots.grid(as_images(x_seen[::40]), columns=8, scale=0.9),
    alt="Eight small grey photographs of eight people, faces looking roughly at the camera.",
)

# %% [markdown]
# ## Step 1: fit
#
# Let $x_1, \dots, x_N$ be the rows. PCA looks for the mean $\mu$ and for $k$ orthonormal directions
# $v_1, \dots, v_k$ along which the rows vary the most. Subtract the mean from every row, and take
# one singular value decomposition:
#
# $$X - \mathbf{1}\mu^\top = U S V^\top .$$
#
# The directions are the first $k$ **rows of $V^\top$**. The variance along $v_j$ is proportional to
# the **square** of the singular value $s_j$. As a share of *all* variance in the data it is called
# the explained variance ratio,
#
# $$r_j = \frac{s_j^2}{\sum_i s_i^2}, \qquad j = 1, \dots, k ,$$
#
# where the sum runs over all singular values, not only over those you keep. Whether a variance is
# divided by $N$ or by $N - 1$ does not matter: it cancels.
#
# Useful: `torch.linalg.svd(a, full_matrices=False)` returns $U$, $S$ and, already transposed,
# $V^\top$; the singular values come in falling order.


# %% nbgrader={"grade": false, "grade_id": "pca_fit", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pca_fit(x: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a PCA with ``k`` components to the rows of ``x``.

    ``x``: (N, D), with any of N and D the larger one. Returns ``(mean, components,
    explained_variance_ratio)``: the mean (D,), the directions (k, D) as orthonormal rows in falling
    order of variance, and the share of the whole variance that each one holds (k,).
    """
    ### BEGIN SOLUTION
    mean = x.mean(dim=0)
    _, s, v = torch.linalg.svd(x - mean, full_matrices=False)
    ratio = s**2 / (s**2).sum()
    return mean, v[:k], ratio[:k]
    ### END SOLUTION


# %% [markdown]
# Four points, worked out by hand. They sit around (10, 20): two at a distance of 2 along (0.6, 0.8),
# two at a distance of 1 along (-0.8, 0.6). So the squares add up to 8 along the first direction and
# to 2 along the second, which is 80 % and 20 %. A direction has no sign: $v$ and $-v$ are both right.

# %% nbgrader={"grade": true, "grade_id": "check_pca_fit", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
_x = torch.tensor([[11.2, 21.6], [8.8, 18.4], [9.2, 20.6], [10.8, 19.4]])
_mean, _components, _ratio = pca_fit(_x, 1)
assert _mean.shape == (2,), f"mean: one number per column, (2,); yours is {tuple(_mean.shape)}"
assert torch.allclose(_mean, torch.tensor([10.0, 20.0])), "mean: average over the rows, dim=0"
assert _components.shape == (1, 2), f"components: k rows, (1, 2); yours {tuple(_components.shape)}"
_along = (_components[0] * torch.tensor([0.6, 0.8])).sum().abs().item()
assert abs(_along - 1) < 1e-4, "the first direction is not (0.6, 0.8): did you subtract the mean?"
assert _ratio.shape == (1,), f"ratio: k numbers, (1,); yours is {tuple(_ratio.shape)}"
assert abs(_ratio.item() - 1) > 1e-3, "a share of ALL the variance, not of what is kept"
assert abs(_ratio.item() - 0.8) < 1e-4, f"the share is 0.8 (squares!); yours: {_ratio.item():.3f}"

_wide = torch.tensor([[1.0, 0, 0, 0, 5], [0, 2, 0, 0, 5], [0, 0, 3, 0, 5], [0, 0, 0, 4, 5]])
_mean, _components, _ratio = pca_fit(_wide, 3)
assert _components.shape == (3, 5), "more columns than rows: components are still (k, D)"
assert torch.allclose(_components @ _components.T, torch.eye(3), atol=1e-4), "rows not orthonormal"
assert bool((_ratio[:-1] >= _ratio[1:]).all()), "the ratios should fall"
assert abs(_ratio.sum().item() - 1) < 1e-4, "four rows spread along three directions: 100 % in all"
print("pca_fit: all is well here")

# %% [markdown]
# On the faces, each direction has as many numbers as a photograph has pixels. So it is itself an
# image, an **eigenface**. Grey means "leave it", lighter and darker mean "these pixels go up and down
# together".

# %%
mean, components, ratio = pca_fit(x_seen, 255)
eigenfaces = components[:7] / components[:7].abs().amax(dim=1, keepdim=True)
figure = plots.grid(
    as_images(torch.cat([mean[None], 0.5 + 0.5 * eigenfaces])),
    columns=8,
    titles=["mean", *[f"{100 * float(r):.0f} %" for r in ratio[:7]]],
    scale=0.9,
)
plots.show(
    figure,
    alt="The mean face, blurred, and the first seven eigenfaces with their share of the variance. "
    "The first ones are about hair against background and the side the light comes from.",
)
for wanted in (0.5, 0.8, 0.9, 0.95):
    print(f"{wanted:.0%} of the variance: {int((ratio.cumsum(0) < wanted).sum()) + 1} numbers")

# %% [markdown]
# ## Step 2: squeeze
#
# The **code** of a row $x$ says how far to go along each direction, starting at the mean:
#
# $$c_j = \langle x - \mu,\; v_j \rangle, \qquad j = 1, \dots, k .$$
#
# The mean $\mu$ is the one that was *fitted*. A stranger's photograph is measured from the same
# starting point as everybody else's.


# %% nbgrader={"grade": false, "grade_id": "pca_transform", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pca_transform(x: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """Return the codes (N, k) of the rows of ``x``.

    ``x``: (N, D), perhaps rows that the fit has never seen; ``mean``: (D,); ``components``: (k, D),
    orthonormal rows.
    """
    ### BEGIN SOLUTION
    return (x - mean) @ components.T
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_pca_transform", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
_mean = torch.tensor([10.0, 20.0])
_components = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
_codes = pca_transform(torch.tensor([[10.6, 20.8], [8.4, 21.2], [10.0, 20.0]]), _mean, _components)
assert _codes.shape == (3, 2), f"one row of codes per row of x, (3, 2); yours {tuple(_codes.shape)}"
_wanted = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
assert torch.allclose(_codes[2], _wanted[2], atol=1e-4), "the code of the mean itself is zero"
assert torch.allclose(_codes, _wanted, atol=1e-4), f"expected\n{_wanted}, got\n{_codes}"
_one = pca_transform(torch.tensor([[10.6, 20.8]]), _mean, _components)
assert torch.allclose(_one, _wanted[:1], atol=1e-4), "use the mean that was handed in, not x's own"
print("pca_transform: all is well here")

# %% [markdown]
# ## Step 3: unfold
#
# Back from the code to a picture: start at the mean and walk.
#
# $$\hat{x} = \mu + \sum_{j=1}^{k} c_j v_j .$$
#
# Nothing is clipped here. A code may stand for a picture that is a little blacker than black.


# %% nbgrader={"grade": false, "grade_id": "pca_inverse", "locked": false, "schema_version": 3, "solution": true, "task": false}
def pca_inverse(codes: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """Return the rows (N, D) that the codes (N, k) stand for; ``mean`` (D,), ``components`` (k, D)."""
    ### BEGIN SOLUTION
    return mean + codes @ components
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_pca_inverse", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
_mean = torch.tensor([10.0, 20.0, 30.0])
_components = torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
_rows = pca_inverse(torch.tensor([[1.0, 0.0], [0.0, -2.0]]), _mean, _components)
assert _rows.shape == (2, 3), f"one row of D numbers per code, (2, 3); yours {tuple(_rows.shape)}"
_wanted = torch.tensor([[10.6, 20.8, 30.0], [10.0, 20.0, 28.0]])
assert torch.allclose(_rows, _wanted, atol=1e-4), f"expected\n{_wanted}, got\n{_rows}"
_rows = pca_inverse(torch.zeros(1, 2), _mean, _components)
assert torch.allclose(_rows, _mean[None]), "the zero code stands for the mean"
print("pca_inverse: all is well here")

# %% [markdown]
# Now you can answer the question of the first lines, twice. Once for a person in the collection, once
# for a stranger.

# %%
counts = [1, 5, 20, 80, 200]


def squeezed(x: Tensor, k: int) -> Tensor:
    """Squeeze rows through ``k`` numbers and unfold them again."""
    return pca_inverse(pca_transform(x, mean, components[:k]), mean, components[:k])


shown = [x_seen[70:71], x_strangers[71:72]]
figure = plots.grid(
    as_images(torch.cat([torch.cat([*[squeezed(x, k) for k in counts], x]) for x in shown])),
    columns=6,
    titles=[f"{k} number{'s' if k > 1 else ''}" for k in counts] + ["photograph"] + [""] * 6,
    rows=["seen", "a stranger"],
    scale=1.05,
)
plots.show(
    figure,
    alt="A face from the collection and a stranger's, each rebuilt from 1, 5, 20, 80 and 200 numbers. "
    "The first is recognisable at 20 and sharp at 80, the stranger's needs more and stays rougher.",
)

grid_k = [1, 2, 5, 10, 20, 40, 80, 120, 160, 200, 255]
figure, axis = plt.subplots(figsize=(6.4, 3))
for x, colour, words in ((x_seen, plots.REAL, "seen"), (x_strangers, plots.AMBER, "strangers")):
    error = [float((x - squeezed(x, k)).square().mean().sqrt()) * 255 for k in grid_k]
    _ = axis.plot(grid_k, error, "o-", markersize=3.5, color=colour, label=words)
_ = axis.set(xlabel="numbers kept, k", ylabel="error of a pixel, of 255", ylim=(0, None))
_ = axis.set_title("How few numbers is a face? Whose?")
_ = axis.legend()
plots.show(
    figure,
    alt="Error per pixel against k. For the faces that PCA was fitted to it falls towards zero; for "
    "strangers it stays several times as high.",
)

# %% [markdown]
# ## Step 4: a network that squeezes
#
# An **autoencoder** is a network trained to return its input, with a narrow place in the middle. Take
# the simplest one: a linear map into $k$ numbers, a linear map back, each with a bias, and no
# activation anywhere.
#
# $$c = A x + a, \qquad \hat{x} = B c + b, \qquad
# A \in \mathbb{R}^{k \times D}, \; a \in \mathbb{R}^{k}, \;
# B \in \mathbb{R}^{D \times k}, \; b \in \mathbb{R}^{D} .$$
#
# `nn.Linear` is such a map. `forward` does both, one after the other.


# %% nbgrader={"grade": false, "grade_id": "LinearAutoencoder", "locked": false, "schema_version": 3, "solution": true, "task": false}
class LinearAutoencoder(nn.Module):
    """A linear encoder from ``n_features`` numbers to ``n_codes``, and a linear decoder back.

    ``encode(x)``: (N, n_features) to (N, n_codes). ``decode(codes)``: back to (N, n_features).
    ``forward(x)``: both, one after the other. Both maps have a bias and neither has an activation.
    """

    def __init__(self, n_features: int, n_codes: int) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        self.encoder = nn.Linear(n_features, n_codes)
        self.decoder = nn.Linear(n_codes, n_features)
        ### END SOLUTION

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes (N, n_codes) of ``x`` (N, n_features)."""
        ### BEGIN SOLUTION
        return self.encoder(x)
        ### END SOLUTION

    def decode(self, codes: Tensor) -> Tensor:
        """Return the rows (N, n_features) that ``codes`` (N, n_codes) stand for."""
        ### BEGIN SOLUTION
        return self.decoder(codes)
        ### END SOLUTION

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (N, n_features), squeezed and unfolded."""
        ### BEGIN SOLUTION
        return self.decode(self.encode(x))
        ### END SOLUTION


# %% [markdown]
# The check sets every weight and every bias to one half. Then the arithmetic fits on the back of an
# envelope: the row (1, 1, 1) has codes $3 \cdot 0.5 + 0.5 = 2$, and (2, 2) unfolds to
# $4 \cdot 0.5 + 0.5 = 2.5$.

# %% nbgrader={"grade": true, "grade_id": "check_LinearAutoencoder", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
_model = LinearAutoencoder(3, 2)
_parameters = list(_model.parameters())
assert _parameters, "no parameters: make the layers attributes of self, after super().__init__()"
with torch.no_grad():
    for _p in _parameters:
        _p.fill_(0.5)
_codes = _model.encode(torch.ones(4, 3))
assert _codes.shape == (4, 2), f"encode: (N, n_codes) = (4, 2); yours is {tuple(_codes.shape)}"
assert torch.allclose(_codes, torch.full((4, 2), 2.0)), (
    f"codes of (1, 1, 1): 2 each, not {_codes[0]}"
)
_rows = _model.decode(_codes)
assert _rows.shape == (4, 3), f"decode: (N, n_features) = (4, 3); yours is {tuple(_rows.shape)}"
assert torch.allclose(_rows, torch.full((4, 3), 2.5)), f"(2, 2) unfolds to 2.5s, not {_rows[0]}"
_negative = _model(-torch.ones(1, 3))
assert torch.allclose(_negative, torch.full((1, 3), -0.5)), (
    f"(-1, -1, -1) has codes -1 and unfolds to -0.5, not {_negative[0]}: is there an activation?"
)
_model(torch.ones(4, 3)).sum().backward()
assert all(_p.grad is not None for _p in _parameters), "no gradient reaches some parameter"
print("LinearAutoencoder: all is well here")

# %% [markdown]
# ## Step 5: do two machines agree?
#
# PCA's directions span a flat sheet through the mean. The columns of the decoder's weight $B$ span
# another. Comparing the vectors one by one would be unfair: a sheet has many bases. So compare the
# sheets.
#
# Let the **rows** of $a$ and of $b$, both $(k, D)$, span one subspace each. Take an orthonormal
# basis of each, as the columns of $Q_a$ and $Q_b$, both $(D, k)$. The singular values of
# $Q_a^\top Q_b$ are the cosines of the **principal angles** (Björck and Golub, 1973),
#
# $$\cos\theta_j = \sigma_j(Q_a^\top Q_b), \qquad 0 \le \theta_1 \le \dots \le \theta_k \le \tfrac{\pi}{2} .$$
#
# We want the largest, $\theta_k$. Only if it is 0 are the sheets the same.
#
# Three hints. `torch.linalg.qr(m).Q` is an orthonormal basis of the **columns** of `m`. The largest
# angle belongs to the smallest cosine. And rounding can push a cosine to 1.0000001, of which there
# is no arc cosine.


# %% nbgrader={"grade": false, "grade_id": "subspace_angle", "locked": false, "schema_version": 3, "solution": true, "task": false}
def subspace_angle(a: Tensor, b: Tensor) -> Tensor:
    """Return the largest principal angle between the row spaces of ``a`` and ``b``, in radians.

    ``a``, ``b``: (k, D), k independent rows each, not necessarily orthonormal. Returns a tensor
    without dimensions (or a float) in [0, pi/2].
    """
    ### BEGIN SOLUTION
    q_a, q_b = torch.linalg.qr(a.T).Q, torch.linalg.qr(b.T).Q
    cosines = torch.linalg.svdvals(q_a.T @ q_b)
    return torch.arccos(cosines.min().clamp(max=1))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_subspace_angle", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
_east, _north_east = torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[3.0, 3.0, 0.0]])
_angle = subspace_angle(_east, _north_east)
assert torch.as_tensor(_angle).ndim == 0, "return one number"
assert abs(float(_angle) - 45) > 1, "in radians, not in degrees"
assert abs(float(_angle) - math.pi / 4) < 1e-3, f"east and north-east: pi/4; yours {float(_angle)}"
_floor = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
_ramp = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]])
_angle = float(subspace_angle(_floor, _ramp))
assert abs(_angle) > 0.01, "floor and ramp share a line, but the LARGEST angle is not 0"
assert abs(_angle - math.pi / 4) < 1e-3, f"a floor and a ramp of 45 degrees: pi/4; yours {_angle}"
_wall = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 5.0]])
assert abs(float(subspace_angle(_floor, _wall)) - math.pi / 2) < 1e-3, "floor and wall: pi/2"
_same = [
    float(subspace_angle(_floor, torch.tensor([[p, 1.0, 0], [1.0, -p, 0]]))) for p in (1, 2, 3)
]
assert all(math.isfinite(_s) for _s in _same), "NaN for two bases of one plane: a cosine above 1?"
assert max(_same) < 0.01, f"two bases of one plane: 0; yours {max(_same)}"
print("subspace_angle: all is well here")

# %% [markdown]
# ## The experiment
#
# The network starts at random and knows neither variances nor decompositions. It only tries to return
# its input. We hand it the centred faces, which makes the optimiser's life easy, five codes, and
# 700 steps of Adam; and we watch two things. Its error, which cannot fall below PCA's. And the
# angle between the sheet of its decoder and PCA's.

# %%
CODES, STEPS = 5, 700
_ = torch.manual_seed(0)
model = LinearAutoencoder(x_seen.shape[1], CODES)
optimizer = torch.optim.Adam(model.parameters(), lr=0.015)
centred = x_seen - mean
best = float((x_seen - squeezed(x_seen, CODES)).square().sum(dim=1).mean())


def sheet(model: nn.Module) -> Tensor:
    """Return rows (k, D) that span what the decoder can reach: where it sends each unit code."""
    with torch.no_grad():
        return model.decode(torch.eye(CODES)) - model.decode(torch.zeros(1, CODES))


steps, errors, angles = [], [], []
for step in range(STEPS + 1):
    loss = (model(centred) - centred).square().sum(dim=1).mean()
    if step % 20 == 0:
        steps.append(step)
        errors.append(loss.item())
        angles.append(math.degrees(float(subspace_angle(sheet(model), components[:CODES]))))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 3))
_ = left.plot(steps, errors, color=plots.AMBER, label="autoencoder")
_ = left.axhline(best, color=plots.INK, linewidth=1, linestyle="--", label="PCA")
_ = left.set(xlabel="step of Adam", ylabel="squared error of a face", ylim=(0, 25))
_ = left.set_title("The error")
_ = left.legend()
_ = right.plot(steps, angles, color=plots.AMBER)
_ = right.set(xlabel="step of Adam", ylabel="degrees", ylim=(0, 92), yticks=range(0, 91, 15))
_ = right.set_title("Angle to PCA's sheet")
plots.show(
    figure,
    alt="Left: the autoencoder's error falls to PCA's and stays on it. Right: the angle between its "
    "sheet and PCA's stays near 90 degrees for the first few hundred steps and then falls to nearly 0.",
)
print(f"error: autoencoder {errors[-1]:.4f}, PCA {best:.4f}; angle {angles[-1]:.2f} degrees")

# %% [markdown]
# Look at the two curves once more. After a few hundred steps the error is almost down, and the largest
# angle is still close to 90 degrees: four directions were found, and the fifth, worth a few per cent,
# was missing. One number hides what another shows.
#
# Same sheet, then. Also the same codes?

# %%
with torch.no_grad():
    learned = model.encode(centred)
ours = pca_transform(x_seen, mean, components[:CODES])
correlation = np.corrcoef(torch.cat([learned, ours], dim=1).numpy().T)
figure, axes = plt.subplots(1, 2, figsize=(6.4, 2.9))
for axis, block, words in (
    (axes[0], correlation[CODES:, CODES:], "PCA's codes"),
    (axes[1], correlation[:CODES, :CODES], "the autoencoder's codes"),
):
    image = axis.imshow(block, vmin=-1, vmax=1, cmap="RdBu")
    axis.grid(False)
    _ = axis.set(xticks=range(CODES), yticks=range(CODES), title=words)
    _ = axis.set(xticklabels=range(1, CODES + 1), yticklabels=range(1, CODES + 1))
_ = figure.colorbar(image, ax=axes, label="correlation")
plots.show(
    figure,
    alt="Two tables of correlations between the five numbers of a code. PCA's numbers are "
    "uncorrelated with one another; the autoencoder's are not.",
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "the_question", "locked": true, "schema_version": 3, "solution": false, "task": false}
# ## A question
#
# The two machines have the same error and the same sheet, and yet different codes: PCA's first number
# is "most of the variance", the autoencoder's first number is nothing in particular, and its numbers
# are correlated.
#
# 1. Why can training not prefer PCA's codes? Take any invertible $k \times k$ matrix $M$ and say what
#    happens to the loss when the encoder is multiplied by $M$ and the decoder by $M^{-1}$.
# 2. A colleague says: "I add a ReLU after the encoder, so it can only get better than PCA." Name one
#    reason why that may be false on these faces and one kind of data for which a *deeper* autoencoder
#    with activations beats PCA at the same $k$.
#
# About six sentences.

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# **Model answer.** 1. $B M^{-1} M (A x + a) + b = B (A x + a) + b$: every output is the same, so the
# loss is the same for all invertible $M$. The loss sees only the product $BA$ and the whole bias.
# Gradient descent therefore finds the sheet (the row space of PCA), and which basis of it depends on
# the starting point. Order, orthogonality and uncorrelatedness of PCA's codes are conventions added
# by PCA; nothing in the squared error asks for them.
#
# 2. A ReLU between the two maps leaves the decoder linear: whatever the codes are, the results lie on
# one flat sheet of $k$ directions, and no such sheet has a smaller error on the fitted faces than
# PCA's. The best that the colleague can do is to draw level (a large bias keeps all codes positive, and
# the ReLU then does nothing); a code that is stuck at 0 makes it worse. A deeper autoencoder, with
# activations in the decoder too, can bend the sheet. It wins where the data lie on a curve: a digit
# that slides across the page, a head that turns, a light that moves.
#
# **Rubric, 4 points.** 1 point: the outputs do not change under $M$, with the one-line calculation.
# 1 point: hence only the subspace is determined, the basis is not. 1 point: a correct reason against
# the ReLU (the decoder is still linear, so PCA's error is a lower bound; "negative codes are lost" or
# "units die" without a word on the bias earns half). 1 point: an example of curved data, with the
# word "because".

# %% [markdown]
# ## What you have built
#
# A PCA in a handful of lines, a network that finds the same sheet by trial and error, and an angle
# that says so. Two things to take along. PCA is not a rival of neural networks: it is what the
# simplest of them learns. And the number of components that suffices for the people in a collection
# says little about a person outside it.
#
# **One step further (optional, not graded).** Draw a code from a Gaussian with PCA's variances,
# unfold it, and look: these are the first fakes of this course. Or put a hidden layer with an
# activation on both sides of the codes, and see how far below PCA's error it gets on `x_seen`, and
# whether anything of that is left on `x_strangers`.
#
# A word on use: eigenfaces were one of the first methods of automatic face recognition. A code of a
# face is personal data. These volunteers agreed to be studied; the next collection you meet may not
# have been asked.
