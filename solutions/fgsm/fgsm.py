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
# # Assignment 2: the fast gradient sign method
#
# A bank reads the digits on cheques with a small network. It is right on almost every one. You are
# asked, in writing, to find out how easily it can be made to read a wrong digit, before somebody
# else tries.
#
# You will write the attack of Goodfellow, Shlens and Szegedy (2015), make it aim at a digit of your
# choice, make it stronger with several small steps, and measure what is left of the network. The
# chapter *A small step in a bad direction* tells the story behind the formulas.
#
# **How to work.** Write your code where it says `YOUR CODE HERE` and take out the line that raises
# `NotImplementedError`. Run the check below each function: it says what it misses. When you hand
# in, your functions are called with other networks and other images, so write for any of them: use
# the arguments, not the notebook's variables. Four functions, 20 points, and one question, 4
# points.

# %% tags=["setup"] nbgrader={"grade": false, "grade_id": "setup", "locked": true, "schema_version": 3, "solution": false, "task": false}
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from course_lib import checkpoints, classifiers, data, plots

# %% [markdown]
# ## The bank's network
#
# `model` takes images of shape (N, 1, 28, 28) with pixels in $[0, 1]$, where 0 is black and 1 is
# white. It returns **logits** of shape (N, 10): one number per digit, before the softmax. It is in
# evaluation mode.

# %%
_ = torch.set_num_threads(2)
model = checkpoints.load("digit-net", classifiers.DigitNet())
sample = data.mnist("test").take(250, seed=0)
x, y = sample.x, sample.y


@torch.no_grad()
def read(images):
    """Return the digit that the network reads in each image."""
    return model(images).argmax(dim=1)


def frames(reads, labels):
    """Return a blue frame where the network reads an image right, a purple one where it does not."""
    return [plots.REAL if a == b else plots.ATTACK for a, b in zip(reads, labels, strict=True)]


answers = read(x)
print(f"read right: {int((answers == y).sum())} of {len(y)}")

figure = plots.grid(
    x[:10],
    titles=[f"reads {int(a)}" for a in answers[:10]],
    colours=frames(answers[:10], y[:10]),
)
plots.show(
    figure,
    alt="Ten handwritten digits in a row with the network's answer above each. Blue frames mark those "
    "that it reads right.",
)

# %% [markdown]
# ## 1. One step
#
# Training holds the image still and moves the weights $\theta$ *down* the loss $J(\theta, x, y)$,
# the cross-entropy of the logits and the true labels $y$. The attack holds the weights still and
# moves the image *up* the same loss.
#
# How far may it go? No pixel may change by more than $\epsilon$. Then each pixel does best by
# spending its whole budget in the direction in which the loss rises, however steep or flat it is
# there:
#
# $$\hat x = \mathrm{clip}_{[0, 1]}\bigl(x + \epsilon \, \mathrm{sign}\,\nabla_x J(\theta, x, y)\bigr).$$
#
# The clip keeps $\hat x$ an image.
#
# A gradient for pixels works like one for weights: give a **copy** of `x` `requires_grad`, compute
# the loss, and ask for the derivative. `torch.autograd.grad(loss, images)` returns a tuple with one
# entry for this. The caller's `x` must be the same after the call as before, and so must the
# model's mode.


# %% nbgrader={"grade": false, "grade_id": "fgsm", "locked": false, "schema_version": 3, "solution": true, "task": false}
def fgsm(model, x, y, eps):
    """Return x moved by eps per pixel in the direction in which the loss rises, clipped to [0, 1].

    model: images (N, C, H, W) in [0, 1] to logits (N, K). Use it as it comes: its mode (training or
    evaluation) is the caller's choice, and the same after the call.
    x: images (N, C, H, W) in [0, 1], not changed by the call.
    y: true labels (N,), int64.
    eps: the largest change of a pixel, a number.
    """
    ### BEGIN SOLUTION
    images = x.detach().clone().requires_grad_()
    loss = F.cross_entropy(model(images), y)
    (gradient,) = torch.autograd.grad(loss, images)
    return (x.detach() + eps * gradient.sign()).clamp(0, 1)
    ### END SOLUTION


# %% [markdown]
# The check uses a network that can be worked out by hand. Its "images" have two pixels $a$ and $b$,
# and its two logits are $a$ and $b$ themselves. For label 0 the loss rises when $a$ falls and $b$
# rises. So with $\epsilon = 0.1$ the image $(0.5, 0.5)$ becomes $(0.4, 0.6)$, and $(0.05, 0.95)$
# becomes $(0, 1)$, because $-0.05$ and $1.05$ are no pixels.

# %% nbgrader={"grade": true, "grade_id": "check_fgsm", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
two = torch.nn.Flatten()  # two pixels in, the same two numbers out as logits
pair = torch.tensor([[0.5, 0.5], [0.05, 0.95]]).reshape(2, 1, 1, 2)
before = pair.clone()
moved = fgsm(two, pair, torch.tensor([0, 0]), 0.1)

assert isinstance(moved, torch.Tensor), "return the attacked images, a tensor"
assert moved.shape == pair.shape, "the result has another shape than x"
first = moved[0].flatten().tolist()
assert first[0] < 0.5 and first[1] > 0.5, "the loss for the true label should rise, not fall"
assert abs(first[0] - 0.4) < 1e-5, "each pixel should move by eps: is there a sign, and eps?"
assert moved.min() >= 0 and moved.max() <= 1, "the result leaves [0, 1]: clip it"
assert torch.allclose(moved[1].flatten(), torch.tensor([0.0, 1.0])), "clip pixel by pixel to [0, 1]"
assert torch.equal(pair, before), "the caller's x has changed: work on a copy"
again = fgsm(two, pair, torch.tensor([1, 1]), 0.1)[0].flatten().tolist()
assert abs(again[0] - 0.6) < 1e-5, (
    "a second call on the same x goes wrong: is an old gradient kept?"
)
assert two.training and not model.training, "leave the model's mode as it is"
print("one step: right")

# %% [markdown]
# Now on the cheques.

# %%
eps = 0.1
attacked = fgsm(model, x, y, eps)
reads = read(attacked)
both = torch.cat([answers[:8], reads[:8]])
figure = plots.grid(
    torch.cat([x[:8], attacked[:8]]),
    columns=8,
    titles=[f"reads {int(a)}" for a in both],
    colours=frames(both, y[:8].repeat(2)),
    rows=["clean", f"eps = {eps}"],
)
plots.show(
    figure,
    alt="Eight digits above, the same digits after one step with eps 0.1 below. They are a little "
    "dirtier and as legible as before, but about half now have a purple frame: the network misreads them.",
)
print(f"read right after the step: {int((reads == y).sum())} of {len(y)}")

# %% [markdown]
# ## 2. One step towards a digit of your choice
#
# A forger of cheques does not want *any* wrong digit. A 9 is better than a 1. A **targeted** step
# makes the loss for a chosen label $t$ *fall*:
#
# $$\hat x = \mathrm{clip}_{[0, 1]}\bigl(x - \epsilon \, \mathrm{sign}\,\nabla_x J(\theta, x, t)\bigr).$$
#
# Two places differ from part 1: the label in the loss, and the sign before $\epsilon$.


# %% nbgrader={"grade": false, "grade_id": "targeted_fgsm", "locked": false, "schema_version": 3, "solution": true, "task": false}
def targeted_fgsm(model, x, target, eps):
    """Return x moved by eps per pixel so that the loss for the target labels falls, clipped to [0, 1].

    target: the labels to reach (N,), int64, one per image. The rest is as in fgsm.
    """
    ### BEGIN SOLUTION
    return fgsm(model, x, target, -eps)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "check_targeted_fgsm", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
pair = torch.tensor([[0.5, 0.5], [0.95, 0.05]]).reshape(2, 1, 1, 2)
moved = targeted_fgsm(two, pair, torch.tensor([1, 0]), 0.1)
assert moved.shape == pair.shape, "the result has another shape than x"
first = moved[0].flatten().tolist()
assert first[1] > 0.5, "the step runs away from the target: its loss should fall"
assert abs(first[0] - 0.4) < 1e-5 and abs(first[1] - 0.6) < 1e-5, "each pixel should move by eps"
assert moved.min() >= 0 and moved.max() <= 1, "the result leaves [0, 1]: clip it"
assert torch.allclose(moved[1].flatten(), torch.tensor([1.0, 0.0])), "clip pixel by pixel to [0, 1]"
print("a targeted step: right")

# %%
others = y != 9
nine = torch.full_like(y[others], 9)
for size in (0.05, 0.1, 0.15):
    hits = int((read(targeted_fgsm(model, x[others], nine, size)) == 9).sum())
    print(f"eps = {size:.2f}: {hits} of {int(others.sum())} other digits are read as a 9")

# %% [markdown]
# A chosen answer is harder to get than any wrong one, and one long step is a poor way to aim.
#
# ## 3. Many steps
#
# A network is not linear: after a while the slope at the start is a poor guide. The **basic
# iterative method** takes short steps of size $\alpha$ and looks at the slope again before each:
#
# $$x_0 = x, \qquad x_{t+1} = \mathrm{clip}\bigl(x_t + \alpha \, \mathrm{sign}\,\nabla_x J(\theta, x_t, y)\bigr).$$
#
# The clip puts every pixel back into two intervals after *every* step: into
# $[x_i - \epsilon, x_i + \epsilon]$ around the image $x$ that the caller passed in, and into
# $[0, 1]$. Without the first one, $t$ steps could walk $t\alpha$ away, and a comparison with one
# step of $\epsilon$ would mean nothing.
#
# `torch.clamp(a, low, high)` also takes tensors as bounds.


# %% nbgrader={"grade": false, "grade_id": "bim", "locked": false, "schema_version": 3, "solution": true, "task": false}
def bim(model, x, y, eps, alpha, steps):
    """Return x after signed steps of size alpha up the loss, inside the box of size eps around x.

    After every step each pixel is clipped to [x - eps, x + eps] and to [0, 1].
    alpha: how far a pixel moves in one step; steps: how many. The rest is as in fgsm.
    """
    ### BEGIN SOLUTION
    low, high = (x - eps).clamp(min=0), (x + eps).clamp(max=1)
    x_adv = x
    for _ in range(steps):
        x_adv = torch.clamp(fgsm(model, x_adv, y, alpha), low, high)
    return x_adv
    ### END SOLUTION


# %% [markdown]
# Two cases by hand. With the two-pixel network, label 0, $\epsilon = 0.1$ and five steps of 0.04,
# the pixels of $(0.5, 0.5)$ would walk 0.2; the box stops them at $(0.4, 0.6)$.
#
# The second network has one pixel $a$, and its logits are $8 (a - 0.6)^2$ and 0. For label 0 the
# loss is highest at $a = 0.6$. From 0.5, three steps of 0.08 lead to 0.58, beyond the top to 0.66,
# and back to 0.58, if you look at the slope again each time.

# %% nbgrader={"grade": true, "grade_id": "check_bim", "locked": true, "points": 7, "schema_version": 3, "solution": false, "task": false}
pair = torch.tensor([[0.5, 0.5], [0.05, 0.95]]).reshape(2, 1, 1, 2)
before = pair.clone()
moved = bim(two, pair, torch.tensor([0, 0]), 0.1, 0.04, 5)
assert moved.shape == pair.shape, "the result has another shape than x"
first = moved[0].flatten().tolist()
assert first[0] < 0.5, "the loss for the true label should rise"
assert first[0] > 0.4 - 1e-5, (
    "a pixel is more than eps from where it began: clip to the box around x"
)
assert abs(first[0] - 0.4) < 1e-5, "five steps of 0.04 should reach the edge of the box"
assert moved.min() >= 0 and moved.max() <= 1, "the result leaves [0, 1]: clip it"
assert torch.equal(pair, before), "the caller's x has changed: start from a copy"


class Hill(torch.nn.Module):
    """One pixel a to the logits 8 (a - 0.6)^2 and 0."""

    def forward(self, images):
        """Return logits (N, 2)."""
        top = 8 * (images.flatten(1) - 0.6) ** 2
        return torch.cat([top, torch.zeros_like(top)], dim=1)


grey, zero = torch.full((1, 1, 1, 1), 0.5), torch.tensor([0])
places = [float(bim(Hill(), grey, zero, 0.3, 0.08, steps)) for steps in (1, 2, 3)]
assert abs(places[0] - 0.58) < 1e-5, (
    f"one step of 0.08 from 0.5 should end at 0.58, not {places[0]:.2f}"
)
assert abs(places[1] - 0.66) < 1e-5, f"a second one should end at 0.66, not {places[1]:.2f}"
assert abs(places[2] - 0.58) < 1e-5, "at 0.66 the slope has turned: look at it again in each step"
print("many steps: right")

# %% [markdown]
# The same budget, spent in one step and in eight.

# %%
eight = bim(model, x, y, eps, eps / 4, 8)
three = torch.cat([both, read(eight)[:8]])
figure = plots.grid(
    torch.cat([x[:8], attacked[:8], eight[:8]]),
    columns=8,
    titles=[f"reads {int(a)}" for a in three],
    colours=frames(three, y[:8].repeat(3)),
    rows=["clean", "one step", "eight steps"],
)
plots.show(
    figure,
    alt="Eight digits in three rows: clean, after one step, and after eight short steps with the same "
    "budget of 0.1. All can be read by eye. "
    "More frames are purple, that is, misread, in each row than in the one above.",
)
print(f"no pixel moved further than {float((eight - x).abs().max()):.3f}")

# %% [markdown]
# ## 4. The curve
#
# One budget is an anecdote. Draw the accuracy, the share of images that the network reads right,
# against $\epsilon$. An attack here is any function `attack(model, x, y, eps)`, such as your
# `fgsm`.
#
# Each $\epsilon$ starts from the clean images. Mind where you switch gradients off: the verdict on
# the finished images needs none, but the attack does.


# %% nbgrader={"grade": false, "grade_id": "accuracy_curve", "locked": false, "schema_version": 3, "solution": true, "task": false}
def accuracy_curve(model, attack, x, y, epsilons):
    """Return the model's accuracy on attack(model, x, y, eps) for each eps, a tensor (len(epsilons),).

    attack: a function of (model, x, y, eps) that returns images like x.
    x, y: clean images (N, C, H, W) and their true labels (N,).
    epsilons: a list of numbers, in any order. Accuracies are shares between 0 and 1.
    """
    ### BEGIN SOLUTION
    shares = []
    for eps in epsilons:
        x_adv = attack(model, x, y, eps)
        with torch.no_grad():
            right = model(x_adv).argmax(dim=1) == y
        shares.append(right.float().mean())
    return torch.stack(shares)
    ### END SOLUTION


# %% [markdown]
# By hand: three images $(0.9, 0.1)$, $(0.6, 0.4)$ and $(0.3, 0.7)$ with labels 0, 0, 1, and an
# attack that does nothing but darken the pixel $a$ by $\epsilon$. The second image falls when
# $\epsilon > 0.2$, the first when $\epsilon > 0.8$, the third never. At 0.3, 0.9, 0 and 0.1 that
# leaves 2/3, 1/3, 1 and 1.

# %% nbgrader={"grade": true, "grade_id": "check_accuracy_curve", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
trio = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]]).reshape(3, 1, 1, 2)


def darken(model, x, y, eps):
    """Darken the first pixel of each image by eps."""
    assert torch.is_grad_enabled(), "the attack is called where gradients are switched off"
    return x - eps * torch.tensor([1.0, 0.0])


found = accuracy_curve(two, darken, trio, torch.tensor([0, 0, 1]), [0.3, 0.9, 0.0, 0.1])
assert len(found) == 4, "one number for each epsilon"
found = [float(value) for value in found]
assert max(found) <= 1, "shares between 0 and 1, not counts or percent"
assert abs(found[2] - 1) < 1e-5, "at eps = 0 all three are right; does each attack start from x?"
assert abs(found[0] - 2 / 3) < 1e-5, "at eps = 0.3 two of three are right"
assert abs(found[1] - 1 / 3) < 1e-5, "at eps = 0.9 one of three is right"
assert abs(found[3] - 1) < 1e-5, "at eps = 0.1 all three are right"
print("the curve: right")

# %% [markdown]
# And now for the report to the bank. The grey line is the comparison that must not be missing: each
# pixel moves just as far, but a coin chooses the direction.


# %%
def coin_tosses(model, x, y, eps):
    """Add eps or -eps to each pixel, by the toss of a coin."""
    coin = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0))
    return (x + eps * (2 * coin - 1)).clamp(0, 1)


def eight_steps(model, x, y, eps):
    """Spend eps in eight steps of a quarter."""
    return bim(model, x, y, eps, eps / 4, 8)


epsilons = [0.0, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3]
figure, axis = plt.subplots(figsize=(6.6, 3.2))
for name, attack, colour, style in [
    ("coin tosses", coin_tosses, plots.MUTED, "--"),
    ("fgsm, one step", fgsm, plots.ATTACK, "-"),
    ("bim, eight steps", eight_steps, plots.INK, "-"),
]:
    shares = [100 * float(share) for share in accuracy_curve(model, attack, x, y, epsilons)]
    _ = axis.plot(epsilons, shares, style, color=colour, marker="o", ms=4, label=name)
_ = axis.set(
    xlabel="eps: how far each pixel may move", ylabel="digits read right, %", ylim=(0, 103)
)
_ = axis.set_title("The same budget, spent in three ways")
_ = axis.legend(loc="center right", bbox_to_anchor=(1.0, 0.26))
plots.show(
    figure,
    alt="Accuracy against eps from 0 to 0.3. Coin tosses leave it high up to 0.1 and lower it slowly "
    "after. One gradient step brings it down steeply, then flattens. Eight steps lie below and reach "
    "zero.",
)

# %% [markdown]
# ## A question
#
# A colleague presents a new network. Under `fgsm` its accuracy stays at 90 % for **every**
# $\epsilon$ from 0 to 0.5. "It is robust," says the colleague. Why should you doubt this as soon as
# you see the curve, without knowing the network? Name two experiments that would tell you whether
# the network is strong or the attack is broken, and say what each possible outcome would mean. (4
# points, about ten sentences.)

# %% [markdown] nbgrader={"grade": true, "grade_id": "question", "locked": false, "points": 4, "schema_version": 3, "solution": true, "task": false}
# **A good answer.** With $\epsilon = 0.5$ every image can be turned into plain grey, and then no
# network can know the digit. A perfect attack would bring any network down to chance there. So a
# flat curve up to 0.5 says that *this attack* does not find the changes that exist, not that there
# are none. A likely reason is a gradient that is zero, useless or noise: a saturated softmax
# (probability rounded to 1), a rounding of the input, a random layer.
#
# Experiments, two of: (1) look at the gradient itself: how many pixels have a gradient of exactly
# 0? Many zeros: it is hidden, and `fgsm` cannot work. (2) Attack with images made for *another*
# network: if they fool this one, its gradient lied; if they do not, that is some evidence for
# strength, but not proof. (3) Another loss, such as the difference of the logits, which does not
# saturate: if accuracy falls, the network was loud and not strong. (4) `bim` with more steps, or a
# search without gradients: if random search beats `fgsm`, the gradient is broken. (5) Coin tosses
# of the same size: if they do more harm than `fgsm`, it is broken.
#
# **Points.** 1: says that at a large enough eps every network must fail, or that failing of one
# attack is not robustness. 1: names a way in which the gradient can be hidden or useless. 2: two
# experiments, each with what its outcomes would mean (half a point off where only one outcome is
# discussed; running the same `fgsm` on more images is no experiment here).

# %% [markdown]
# ## What you have built
#
# An attack in one gradient, one that aims, one that is strong, and the curve that says how strong.
# The network was right on nearly every clean cheque; a change smaller than a bad photocopy made
# leaves little of that. Tossed coins of the same size do hardly any harm: it is the direction that
# counts.
#
# **One step further** (not graded). Write a targeted `bim`: how many of the digits can you turn
# into a 9 with the budget at which one step got only some? Or start from a random point in the box
# instead of from $x$.
#
# **What it is for.** Attack your own models, or those whose owner has asked you in writing. A real
# bank's reader is not an exercise: deceiving a system in use can be a crime, and who finds a
# weakness tells its maker first.
