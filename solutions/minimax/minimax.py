# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Assignment 1: the minimax loop
#
# A forger wants to make points that look as if they came from a certain source. It never gets to
# see the source. It only hears from a judge, who sees real points and forged ones and learns to
# tell them apart. If both learn, the forger gets good. You will build this game of two networks,
# the generator $G$ and the discriminator $D$, from its losses to its training loop.
#
# The chapter *The two-player game* tells the theory. All you need of it is repeated here.
#
# **How to work.** Write your code where it says `YOUR CODE HERE` and take out the line that raises
# `NotImplementedError`. Run the check below each function: it says what it misses. When you hand
# in, your functions are called with other networks and other numbers, so write for any of them: use
# the arguments, not the notebook's variables. Five functions, 20 points, and one question, 4
# points.

# %% tags=["setup"] nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import math
from itertools import islice

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

from course_lib import plots

# %% [markdown]
# ## The source
#
# Eight small clouds on a ring. Blue is real, here and in all pictures below.

# %%
_ = torch.set_num_threads(1)  # networks this small run faster on one core
_ = torch.manual_seed(0)
angle = torch.arange(8) * (2 * math.pi / 8)
centres = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)


def real_batches(n):
    """Yield batches of n real points, shape (n, 2), without end."""
    while True:
        yield centres[torch.randint(0, 8, (n,))] + 0.15 * torch.randn(n, 2)


def sample_noise(n):
    """Return n noise vectors, shape (n, 2)."""
    return torch.randn(n, 2)


def new_player(outputs):
    """Return a network (N, 2) -> (N, outputs): 2 for a generator, 1 for a discriminator."""
    return nn.Sequential(
        nn.Linear(2, 64),
        nn.LeakyReLU(0.2),
        nn.Linear(64, 64),
        nn.LeakyReLU(0.2),
        nn.Linear(64, outputs),
    )


ring = next(real_batches(600))
with torch.no_grad():
    first_try = new_player(2)(sample_noise(600))
figure, axis = plt.subplots(figsize=(3.6, 3.8))
_ = axis.scatter(*ring.T, s=3, color=plots.REAL, label="real")
_ = axis.scatter(*first_try.T, s=3, color=plots.FAKE, label="an untrained forger")
_ = axis.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[])
_ = axis.legend(loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, fontsize=8)
plots.show(
    figure,
    alt="Eight small blue clusters of points on a ring. The points of an untrained generator are one "
    "orange smear near the middle and touch none of them.",
)

# %% [markdown]
# ## 1. The discriminator's loss
#
# $D(x)$ is the probability that $x$ is real. It is paid like any classifier, by its log-loss. The
# value of the game is
#
# $$V = \mathbb{E}_x[\log D(x)] + \mathbb{E}_z[\log(1 - D(G(z)))],$$
#
# which $D$ wants large. So its **loss** is $-V$: a real part **plus** a fake part, each the mean
# over its own batch. Not the mean of the two parts: their sum.
#
# Our discriminator returns no probability but a **logit** $l$, one per point, in a tensor of shape
# (N, 1); $D = \mathrm{sigmoid}(l)$. In 32-bit numbers $\mathrm{sigmoid}(100)$ is exactly 1, and the
# logarithm of $1 - 1$ is minus infinity. Your loss must be right, with a finite gradient, for
# logits of $\pm 100$. Two facts help:
#
# - $1 - \mathrm{sigmoid}(l) = \mathrm{sigmoid}(-l)$;
# - PyTorch has functions that take the logarithm of a sigmoid in one go.


# %% nbgrader={"grade": false, "grade_id": "discriminator_loss", "locked": false, "schema_version": 3, "solution": true, "task": false}
def discriminator_loss(real_logits, fake_logits):
    """Return -V, the sum of a real and a fake part, each a mean over its batch: a scalar to minimise.

    real_logits: D's logits of real points, (N, 1). fake_logits: those of forged points, (M, 1); M and N may
    differ. Right, with a finite gradient, for logits from -100 to 100.
    """
    ### BEGIN SOLUTION
    return -F.logsigmoid(real_logits).mean() - F.logsigmoid(-fake_logits).mean()
    ### END SOLUTION


# %% [markdown]
# A judge with no idea says 1/2 everywhere, logit 0: each part is $\ln 2$. A judge that is sure and
# right pays nothing. One that gives a forged point the logit 100 pays 100 for it. And logit $\ln 3$
# is the probability 3/4.

# %% nbgrader={"grade": true, "grade_id": "check_discriminator_loss", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
none, sure, log3 = torch.zeros(4, 1), torch.full((4, 1), 100.0), torch.full((2, 1), math.log(3.0))
value = discriminator_loss(none, none)
assert value.shape == (), "return one number, a tensor without dimensions"
assert abs(float(value) - 2 * math.log(2)) < 1e-4, f"no idea costs 2 ln 2 = 1.3863, not {value:.4f}"
value = discriminator_loss(log3, -log3)
assert value > 0, "a loss is made small: here it is above 0"
assert value < 1, "right about both, and still it costs much: are real and fake mixed up?"
assert abs(float(value) - 2 * math.log(4 / 3)) < 1e-4, "right with 3/4 costs 2 ln(4/3)"
value = discriminator_loss(torch.zeros(1, 1), torch.cat([none, log3]))
expected = math.log(2) + (4 * math.log(2) + 2 * math.log(4)) / 6
assert abs(float(value) - expected) < 1e-4, "each part is the mean over its own batch"
value = discriminator_loss(sure, -sure)
assert torch.isfinite(value) and abs(float(value)) < 1e-4, "sure and right costs nothing"
value = discriminator_loss(-sure, sure)
assert torch.isfinite(value), (
    "logits of 100 give infinity: do not take log(1 - sigmoid(l)) step by step"
)
assert abs(float(value) - 200) < 1e-2, f"sure and wrong about both costs 100 + 100, not {value:.2f}"
print("the discriminator's loss: right")

# %% [markdown]
# ## 2. The generator's loss, twice
#
# $G$ wants $V$ small. Only the second term depends on $G$, so one choice is that term itself, with
# the mean over the batch,
#
# $$\mathbb{E}_z[\log(1 - D(G(z)))] \qquad \text{(saturating)}.$$
#
# As long as the forgeries are bad, $D(G(z))$ is close to 0, and there this curve is flat: the loss
# stops teaching when teaching is needed most. The usual choice pulls the same way, and hard:
#
# $$-\mathbb{E}_z[\log D(G(z))] \qquad \text{(non-saturating, the default)}.$$


# %% nbgrader={"grade": false, "grade_id": "generator_loss", "locked": false, "schema_version": 3, "solution": true, "task": false}
def generator_loss(fake_logits, saturating=False):
    """Return the generator's loss, a scalar to minimise: non-saturating, or with True saturating.

    fake_logits: D's logits of forged points, (M, 1). Right, with a finite gradient, from -100 to 100.
    """
    ### BEGIN SOLUTION
    if saturating:
        return F.logsigmoid(-fake_logits).mean()
    return -F.logsigmoid(fake_logits).mean()
    ### END SOLUTION


# %% [markdown]
# At logit 0 the two are $-\ln 2$ and $\ln 2$. When $D$ is sure of a forgery, logit $-100$, the
# first is 0 and the second 100. When $D$ is sure and wrong, logit 100, they are $-100$ and 0. And
# their slopes per logit are $-D$ and $D - 1$.

# %% nbgrader={"grade": true, "grade_id": "check_generator_loss", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
value, flat = generator_loss(none), generator_loss(none, saturating=True)
assert value.shape == flat.shape == (), "return one number, a tensor without dimensions"
assert abs(float(value) - math.log(2)) < 1e-4, f"logit 0 costs ln 2 by default, not {value:.4f}"
assert abs(float(flat) + math.log(2)) < 1e-4, f"saturating, logit 0 gives -ln 2, not {flat:.4f}"
assert generator_loss(log3) < value, "being taken for real should cost less"
assert generator_loss(log3, saturating=True) < flat, "being taken for real should cost less"
for logits, right in ((-sure, (100.0, 0.0)), (sure, (0.0, -100.0))):
    for saturating in (False, True):
        value = float(generator_loss(logits, saturating=saturating))
        told = f"logit {float(logits[0]):.0f}, saturating={saturating}: {value}, not {right[saturating]}"
        assert abs(value - right[saturating]) < 1e-2, told
bad = torch.tensor([[-5.0]], requires_grad=True)
(pull,) = torch.autograd.grad(generator_loss(bad), bad)
assert float(pull) < -0.9, "a bad forgery should be pulled hard by the default loss"
print("the generator's losses: right")

# %%
at = torch.linspace(-8, 4, 121)[:, None]
figure, (left, right) = plt.subplots(1, 2, figsize=(7.2, 2.7))
for saturating, colour, name in (
    (True, plots.MUTED, "saturating"),
    (False, plots.FAKE, "non-saturating"),
):
    logits = at.clone().requires_grad_()
    values = [float(generator_loss(one[None], saturating)) for one in at]
    (slope,) = torch.autograd.grad(generator_loss(logits, saturating), logits)
    _ = left.plot(at, values, color=colour, label=name)
    _ = right.plot(at, -len(at) * slope, color=colour, label=name)
_ = left.set(xlabel="logit of a forgery", title="The generator's loss")
_ = right.set(xlabel="logit of a forgery", title="Its pull on the logit")
_ = left.legend()
plots.show(
    figure,
    alt="Left: both losses fall with the logit. The saturating one is flat at 0 for bad forgeries, the "
    "other is steep there. Right: the pull of the saturating loss vanishes for bad forgeries, that of "
    "the non-saturating one is 1 there and vanishes for good ones.",
)

# %% [markdown]
# ## 3. The discriminator's turn
#
# One step of gradient descent on `discriminator_loss`, for $D$ alone:
#
# 1. forge: `generator(noise)`. $G$ is not to learn here, so no gradient may flow into it:
#    `.detach()` cuts the graph;
# 2. logits of the real and of the forged points, and the loss;
# 3. gradients to zero, `backward()`, `optimizer.step()`.
#
# `optimizer` holds the weights of $D$ and nothing else.


# %% nbgrader={"grade": false, "grade_id": "discriminator_step", "locked": false, "schema_version": 3, "solution": true, "task": false}
def discriminator_step(generator, discriminator, optimizer, real, noise):
    """Take one optimizer step of the discriminator; return its loss before the step, a float.

    generator: noise (N, z) to points (N, d). discriminator: points (N, d) to logits (N, 1).
    optimizer: of the discriminator's parameters. real: points (N, d). noise: (N, z).
    The generator's weights stay as they are, and its next step does not feel this one.
    """
    ### BEGIN SOLUTION
    fake = generator(noise).detach()
    loss = discriminator_loss(discriminator(real), discriminator(fake))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %% [markdown]
# By hand: points on a line, $D$ has the logit $w x$ with $w = 0$, and $G$ turns $z$ into $v z$ with
# $v = 1$. For the real point 2 and the noise $-1$ the loss is $2 \ln 2$, and its slope in $w$ is
# $(\frac12 - 1) \cdot 2 + \frac12 \cdot (-1) = -1.5$. With learning rate 0.1, $w$ becomes 0.15.
# From there the second step has another slope: $-(1 - \sigma(0.3)) \cdot 2 - \sigma(-0.15)$, about
# $-1.314$, so $w$ becomes about 0.281.


# %% nbgrader={"grade": true, "grade_id": "check_discriminator_step", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
def line(weight):
    """Return the network x -> weight x."""
    player = nn.Linear(1, 1, bias=False)
    _ = player.weight.data.fill_(weight)
    return player


G, D = line(1.0), line(0.0)
optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
two, minus = torch.tensor([[2.0]]), torch.tensor([[-1.0]])
loss = discriminator_step(G, D, optimizer, two, minus)
assert abs(loss - 2 * math.log(2)) < 1e-4, (
    f"the loss before the step is 2 ln 2 = 1.3863, not {loss}"
)
assert G.weight.item() == 1.0, "the generator moved in the discriminator's turn"
assert D.weight.item() != 0.0, "the discriminator has not moved"
assert D.weight.item() > 0, (
    "the discriminator moves the wrong way: up its loss, or with labels swapped"
)
assert abs(D.weight.item() - 0.15) < 1e-4, f"w should be 0.15, not {D.weight.item():.4f}"
_ = discriminator_step(G, D, optimizer, two, minus)
assert D.weight.item() < 0.4, (
    "the second step is too long: is the first one's gradient still there?"
)
assert abs(D.weight.item() - 0.2814) < 1e-3, f"w should now be 0.281, not {D.weight.item():.4f}"
print("the discriminator's turn: right")

# %% [markdown]
# ## 4. The generator's turn
#
# One step on the non-saturating `generator_loss`, for $G$ alone. This time the gradient has to pass
# *through* $D$ to the points and on into $G$, so nothing is detached. The weights of $D$ must not
# move, and gradients that are left in them must not leak into $D$'s next turn.


# %% nbgrader={"grade": false, "grade_id": "generator_step", "locked": false, "schema_version": 3, "solution": true, "task": false}
def generator_step(generator, discriminator, optimizer, noise):
    """Take one optimizer step of the generator on its non-saturating loss; return the loss before it.

    optimizer: of the generator's parameters. noise: (N, z). Returns a float.
    The discriminator's weights stay as they are, and its next step does not feel this one.
    """
    ### BEGIN SOLUTION
    loss = generator_loss(discriminator(generator(noise)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()
    ### END SOLUTION


# %% [markdown]
# By hand: $w = \ln 3$, $v = 1$, noise 1. The forged point is 1, its logit $\ln 3$, and $D$ says
# 3/4. The loss is $\ln(4/3)$ and its slope in $v$ is $(\frac34 - 1) \ln 3$. With learning rate 1,
# $v$ becomes $1 + \frac14 \ln 3$.

# %% nbgrader={"grade": true, "grade_id": "check_generator_step", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
G, D = line(1.0), line(math.log(3.0))
g_optimizer = torch.optim.SGD(G.parameters(), lr=1.0)
one = torch.ones(1, 1)
loss = generator_step(G, D, g_optimizer, one)
assert abs(loss - math.log(4 / 3)) < 1e-4, (
    f"the loss before the step is ln(4/3) = 0.2877, not {loss}"
)
assert abs(D.weight.item() - math.log(3.0)) < 1e-6, (
    "the discriminator moved in the generator's turn"
)
assert G.weight.item() != 1.0, "the generator has not moved"
assert G.weight.item() > 1, "the generator moves the wrong way: it learns to be caught"
v = 1 + math.log(3.0) / 4
assert abs(G.weight.item() - v) < 1e-3, f"v should be {v:.4f}, not {G.weight.item():.4f}"

# Turn and turn about: what one leaves behind must not reach the other.
G, D = line(1.0), line(0.0)
g_optimizer = torch.optim.SGD(G.parameters(), lr=0.1)
d_optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
_ = generator_step(G, D, g_optimizer, minus)
_ = discriminator_step(G, D, d_optimizer, two, minus)
assert abs(D.weight.item() - 0.15) < 1e-4, (
    "the generator's turn left something in the discriminator"
)
# The other way round, from w = 1: D moves to w = 1.05073, and then v to 1 + 0.1 (1 - sigmoid(w)) w.
G, D = line(1.0), line(1.0)
g_optimizer = torch.optim.SGD(G.parameters(), lr=0.1)
d_optimizer = torch.optim.SGD(D.parameters(), lr=0.1)
_ = discriminator_step(G, D, d_optimizer, two, minus)
_ = generator_step(G, D, g_optimizer, one)
assert abs(G.weight.item() - 1.02722) < 1e-4, "the discriminator's gradients reached the generator"
print("the generator's turn: right")

# %% [markdown]
# ## 5. Algorithm 1
#
# Now take turns, as Goodfellow and others wrote it down in 2014. One **round** is
#
# 1. $k$ times: a fresh batch of real points, fresh noise, one discriminator step;
# 2. once: fresh noise, one generator step.
#
# The theory wants a judge that is always the best possible. Nobody can have that, so $k$ says how
# many steps it gets.
#
# A few things are agreed, so that your loop and the checks mean the same:
#
# - `batches` is an iterator: `next(batches)` gives the next batch, and so does a `for` loop.
#   Training ends when it has no more. (What you do with a round that cannot be completed is up to
#   you.)
# - `sample_noise(n)` returns $n$ fresh noise vectors. Ask for as many as the real batch has points;
#   for the generator's step, as many as the last real batch. Ask when you need them, in the order
#   above.
# - The result has one tuple (discriminator's loss, generator's loss) per round. With $k > 1$ the
#   first number is the last discriminator step's loss.


# %% nbgrader={"grade": false, "grade_id": "train", "locked": false, "schema_version": 3, "solution": true, "task": false}
def train(generator, discriminator, g_optimizer, d_optimizer, batches, sample_noise, k=1):
    """Train both players by Algorithm 1 until the batches end; return one pair of losses per round.

    batches: an iterator of real batches (N, d), each used for one discriminator step.
    sample_noise: a function; sample_noise(n) returns n noise vectors (n, z), other ones at each call.
    k: discriminator steps per round.
    Returns a list of tuples of floats: (loss of the round's last discriminator step, generator's loss).
    """
    ### BEGIN SOLUTION
    history = []
    for step, real in enumerate(batches, start=1):
        noise = sample_noise(len(real))
        d_loss = discriminator_step(generator, discriminator, d_optimizer, real, noise)
        if step % k == 0:
            noise = sample_noise(len(real))
            g_loss = generator_step(generator, discriminator, g_optimizer, noise)
            history.append((d_loss, g_loss))
    return history
    ### END SOLUTION


# %% [markdown]
# The check counts who moves when. A generator that writes down each batch of noise it gets, and six
# batches of real points with $k = 3$: two rounds, six turns of $D$, two of $G$, and eight different
# batches of noise.


# %% nbgrader={"grade": true, "grade_id": "check_train", "locked": true, "points": 5, "schema_version": 3, "solution": false, "task": false}
class Watched(nn.Module):
    """A line that writes down what it gets."""

    def __init__(self, weight):
        """Start at this weight."""
        super().__init__()
        self.line, self.seen = line(weight), []

    def forward(self, x):
        """Write down x and pass it through the line."""
        self.seen.append(x.detach().flatten().tolist())
        return self.line(x)


class Counting(torch.optim.SGD):
    """Gradient descent that writes its name down at each step."""

    def __init__(self, player, name, told):
        """Write to the list told."""
        super().__init__(player.parameters(), lr=0.01)
        self.name, self.told = name, told

    def step(self, closure=None):
        """Write the name down and take the step."""
        self.told.append(self.name)
        return super().step(closure)


def play(sizes, k):
    """Train two lines on batches of these sizes; return the history and what was written down."""
    told, asked = [], []

    def numbers(n):
        asked.append(n)
        return torch.full((n, 1), float(len(asked)))

    forger, judge = Watched(1.0), Watched(0.5)
    real = iter([torch.full((n, 1), 10.0 + i) for i, n in enumerate(sizes)])
    order = Counting(forger, "G", told), Counting(judge, "D", told)
    history = train(forger, judge, *order, real, numbers, k)
    return history, "".join(told), asked, forger.seen, judge.seen


history, order, asked, noises, points = play([2, 2, 2, 2, 2, 2], k=3)
assert order != "", "nobody took a step"
assert order == "DDDGDDDG", f"with k=3 and six batches the turns should be DDDGDDDG, not {order}"
assert len({tuple(z) for z in noises}) == 8, "draw fresh noise for every step of either player"
assert all(any(10.0 + i in p for p in points) for i in range(6)), "each batch is used once"
assert len(history) == 2 and all(len(pair) == 2 for pair in history), "one pair of losses per round"
history, order, asked, _, _ = play([3, 2], k=1)
assert order == "DGDG", f"with k=1 and two batches the turns should be DGDG, not {order}"
assert asked == [3, 3, 2, 2], f"ask for as many noise vectors as the batch has points, not {asked}"
assert all(math.isfinite(float(a)) and math.isfinite(float(b)) for a, b in history), (
    "losses are finite"
)
print("Algorithm 1: right")

# %% [markdown]
# ## Let them play
#
# The same game twice. The *patient* judge takes three steps per round and learns twice as fast as
# the forger. The *hasty* game gives the judge one step, eight times slower than the forger's.


# %%
def watch(k, g_rate, d_rate, looks, seed=1):
    """Play, and return the points that the generator makes after these rounds, and the losses."""
    _ = torch.manual_seed(seed)
    G, D = new_player(2), new_player(1)
    g_optimizer = torch.optim.Adam(G.parameters(), lr=g_rate, betas=(0.5, 0.9))
    d_optimizer = torch.optim.Adam(D.parameters(), lr=d_rate, betas=(0.5, 0.9))
    real, done, losses, clouds = real_batches(128), 0, [], []
    z = sample_noise(800)
    for look in looks:
        part = islice(real, k * (look - done))
        losses += train(G, D, g_optimizer, d_optimizer, part, sample_noise, k)
        done = look
        with torch.no_grad():
            clouds.append(G(z))
    return clouds, torch.tensor(losses)


looks = [50, 100, 200, 500]
games = {
    "patient": watch(k=3, g_rate=2e-3, d_rate=4e-3, looks=looks),
    "hasty": watch(k=1, g_rate=8e-3, d_rate=1e-3, looks=looks),
}

# %%
figure, axes = plt.subplots(2, 4, figsize=(7.4, 4.0), sharex=True, sharey=True)
for row, (name, (clouds, _losses)) in zip(axes, games.items(), strict=True):
    for axis, points, look in zip(row, clouds, looks, strict=True):
        _ = axis.scatter(*ring.T, s=2, color=plots.REAL, alpha=0.4, linewidths=0)
        _ = axis.scatter(*points.T, s=2, color=plots.FAKE, alpha=0.6, linewidths=0)
        _ = axis.set(xlim=(-3.2, 3.2), ylim=(-3.2, 3.2), aspect="equal", xticks=[], yticks=[])
        _ = axis.set_title(f"round {look}", fontsize=9)
    _ = row[0].set_ylabel(name, fontweight="bold")
plots.show(
    figure,
    alt="Two games at four moments. In the patient game the orange points begin as a wide cloud and draw "
    "together on the ring, near all eight blue clusters. In the hasty game they stay a streak or a knot "
    "that touches hardly any cluster, elsewhere each time.",
)

# %%
figure, axes = plt.subplots(1, 2, figsize=(7.4, 2.6), sharey=True)
for axis, (name, (_clouds, losses)) in zip(axes, games.items(), strict=True):
    _ = axis.plot(losses[:, 0], color=plots.INK, lw=1, label="discriminator")
    _ = axis.plot(losses[:, 1], color=plots.FAKE, lw=1, label="generator")
    _ = axis.axhline(2 * math.log(2), color=plots.MUTED, lw=0.9, ls="--")
    _ = axis.set(title=name, xlabel="round", ylim=(0, 4))
_ = axes[0].set_ylabel("loss")
_ = axes[0].legend(loc="upper right")
plots.show(
    figure,
    alt="The losses of both games over the rounds. A dashed line marks 2 ln 2, what a discriminator "
    "with no idea pays. In the hasty game the discriminator's loss swings closely around that line. "
    "In the patient game it lies below it, and the generator's is higher than in the hasty game.",
)

# %% [markdown]
# ## A question
#
# At the equilibrium nobody can tell forgeries from real points: $D$ says 1/2, its loss is $2 \ln 2$
# (the dashed line), and the generator's is $\ln 2$, about 0.69. Somebody who was shown only the
# last picture says: "The hasty game has arrived at the equilibrium. The patient one has not, and
# neither of its losses falls any more, so that training has failed." You have seen the points. What
# do you answer? When do $2 \ln 2$ and $\ln 2$ mean that the forgeries are perfect, and what else
# can they mean? And why is it no bad sign that the patient game's losses stopped falling? (4
# points, about eight sentences.)

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# **A good answer.** The points say the opposite: the patient forger reaches all eight clusters, the
# hasty one one or none. The discriminator's loss is $2 \ln 2$ whenever *this* discriminator has no
# idea: when it is untrained, too small, or, as here, too slow to follow a generator that jumps away
# each time it is found. Only for the *best* discriminator, $D^* = p/(p+q)$, does $2 \ln 2$ mean
# that the density $q$ of the forgeries equals that of the data, $p$. The patient judge's loss below
# $2 \ln 2$ says that it can still tell some forgeries (those between the clusters), which is true.
#
# Ordinary training goes down in one landscape. Here each loss depends on the other player, who
# moves too: when both get better by the same amount, neither loss changes. What is looked for is a
# saddle, not the bottom of either loss, so curves that stop falling say little. Look at the
# samples, or measure their distance to the data.
#
# **Points.** 1: the points contradict the reading of the curves. 1: $2 \ln 2$ proves $p = q$ for
# the best judge only. 1: what else it can mean (judge untrained, too weak or too slow). 1: the
# losses are coupled, or the goal is an equilibrium and not a minimum of one loss.

# %% [markdown]
# ## What you have built
#
# Both losses of the first GAN in a form that survives large logits, a turn for each player that
# leaves the other alone, and Algorithm 1. Nothing in your functions knows about points on a plane:
# give them networks for images, and they forge images. The chapter shows digits made by the same
# loop.
#
# **One step further** (not graded). Play the patient game with `saturating=True` in the generator's
# turn. Or count in how many of the eight clusters forgeries arrive, and find the smallest $k$ that
# still reaches all.
#
# **What it can be used for.** The same loop, with larger networks, makes portraits of people who do
# not exist. It can protect privacy, and it can deceive. If you publish what such a network made,
# say so.
